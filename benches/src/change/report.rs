//! What changes cost, as a table, JSON and a chart.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use shunt_tests::error::Result;

use super::fleet::Change;
use super::{Outcome, SIZES, Turn};
use crate::Spread;
use crate::chart::{Bar, Chart, Colour, Group, Scale};
use crate::results::{rounded, write_chart, write_json, write_source};
use crate::terminal;

/// What counts as the time of the swap.
const AFTER_SWAP: Duration = Duration::from_millis(10);

/// One kind of change; all figures are medians.
#[derive(Serialize)]
pub struct Point {
    /// Which.
    pub change: Change,
    services: usize,
    backends_per_service: usize,
    pools: usize,
    snapshot_bytes: usize,
    table_bytes: u64,
    /// Beyond what the process had before the first change.
    peak_bytes: u64,
    services_renewed: usize,
    parse_ms: f64,
    compile_ms: f64,
    ways_ms: f64,
    /// From the swap until the worker had finished a batch by the new view.
    seen_us: f64,
    free_ms: f64,
    /// Of the worker, the other core at rest.
    ns_per_packet: f64,
    /// Share of its throughput that the worker loses from the snapshot's arrival until the old tables are free.
    lost: f64,
    /// Likewise in the ten milliseconds after the swap.
    lost_after_swap: f64,
    /// Likewise while the other core does nothing but calculate.
    lost_beside_calculation: f64,
    /// Likewise while the other core does nothing but read and write memory.
    lost_beside_memory: f64,
    /// Time that the swap costs the worker once, because the new tables are not in its cache and because flows of
    /// services that changed are looked at again.
    swap_cost_us: f64,
    /// Of the first batch of the new view.
    first_batch_ns_per_packet: f64,
}

/// Sums up.
pub fn points(outcome: &Outcome) -> Vec<Point> {
    let kinds = Change::ALL.into_iter();
    let of = |change| outcome.turns.iter().enumerate().filter(move |(_, turn)| turn.change == change);
    kinds.filter_map(|change| point(outcome, change, &of(change).collect::<Vec<_>>())).collect()
}

fn point(outcome: &Outcome, change: Change, turns: &[(usize, &Turn)]) -> Option<Point> {
    let (_, first) = turns.first()?;
    let log = &outcome.log;
    let median =
        |value: &dyn Fn(&Turn) -> f64| Spread::of(turns.iter().map(|(_, turn)| value(turn)).collect()).median;
    // The loops are the same beside all changes.
    let of_all = |value: &dyn Fn(&Turn) -> f64| Spread::of(outcome.turns.iter().map(value).collect()).median;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    // Throughput is the inverse of the time for a packet.
    let lost = |turn: &Turn, span| 1.0 - log.ns_per_packet(&turn.resting_ns) / log.ns_per_packet(&[span]);
    let after_swap = |turn: &Turn| {
        let swapped_ns = turn.cycle.swapped_ns;
        (swapped_ns, swapped_ns + AFTER_SWAP.as_nanos() as u64)
    };
    let first_batches =
        turns.iter().filter_map(|&(index, _)| log.first_batches.get(index).copied()).collect();
    Some(Point {
        change,
        services: SIZES.services,
        backends_per_service: SIZES.backends,
        pools: SIZES.pools,
        snapshot_bytes: outcome.snapshot_bytes,
        table_bytes: outcome.table_bytes,
        peak_bytes: median(&|turn| turn.cycle.peak_bytes as f64) as u64,
        services_renewed: first.cycle.services_renewed,
        parse_ms: rounded(median(&|turn| ms(turn.cycle.parse)), 2),
        compile_ms: rounded(median(&|turn| ms(turn.cycle.compile)), 2),
        ways_ms: rounded(median(&|turn| ms(turn.cycle.ways)), 2),
        seen_us: rounded(median(&|turn| ms(turn.cycle.seen) * 1e3), 1),
        free_ms: rounded(median(&|turn| ms(turn.cycle.free)), 2),
        ns_per_packet: rounded(median(&|turn| log.ns_per_packet(&turn.resting_ns)), 1),
        lost: rounded(median(&|turn| lost(turn, turn.cycle.span_ns)), 3),
        lost_after_swap: rounded(median(&|turn| lost(turn, after_swap(turn))), 3),
        lost_beside_calculation: rounded(of_all(&|turn| lost(turn, turn.calculating_ns)), 3),
        lost_beside_memory: rounded(of_all(&|turn| lost(turn, turn.storing_ns)), 3),
        swap_cost_us: rounded(median(&|turn| log.excess_us(&[after_swap(turn)], &turn.resting_ns)), 0),
        first_batch_ns_per_packet: rounded(Spread::of(first_batches).median, 1),
    })
}

/// These points, and the earlier ones of other changes. How much memory is needed shows the first time only: later it
/// is what was freed before.
pub fn renewed(earlier: Vec<Point>, mut points: Vec<Point>) -> Vec<Point> {
    for before in earlier {
        match points.iter_mut().find(|point| point.change == before.change) {
            Some(point) => (point.table_bytes, point.peak_bytes) = (before.table_bytes, before.peak_bytes),
            None => points.push(before),
        }
    }
    points.sort_by_key(|point| point.change as usize);
    points
}

/// Prints a table.
pub fn print(points: &[Point], outcome: &Outcome) {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let rows = points.iter().map(|point| {
        let times =
            [point.parse_ms, point.compile_ms, point.ways_ms, point.free_ms].map(|ms| format!("{ms:.1}"));
        let shares =
            [point.lost, point.lost_after_swap, point.lost_beside_calculation, point.lost_beside_memory];
        let first = [point.change.name().to_owned(), point.services_renewed.to_string()].into_iter();
        let middle = [format!("{:.0}", point.seen_us), format!("{:.1}", point.peak_bytes as f64 / 1e6)];
        let packet = [point.ns_per_packet, point.first_batch_ns_per_packet, point.swap_cost_us]
            .map(|n| format!("{n:.0}"));
        first.chain(times).chain(middle).chain(packet).chain(shares.map(percent)).collect::<Vec<_>>()
    });
    let header = [
        "changed",
        "renewed",
        "parse ms",
        "compile ms",
        "ways ms",
        "free ms",
        "seen µs",
        "peak MB",
        "ns/packet",
        "first batch",
        "swap costs µs",
        "lost",
        "after swap",
        "beside ALU",
        "beside memory",
    ];
    terminal::print(&header, rows);
    println!(
        "Snapshot {:.1} MB of JSON, table {:.1} MB; {} packets, 0 moved, 0 lost; {} batches interrupted.\n",
        outcome.snapshot_bytes as f64 / 1e6,
        points.first().map_or(0.0, |point| point.table_bytes as f64 / 1e6),
        outcome.log.packets,
        outcome.log.interrupted(),
    );
}

impl Point {
    /// Whether the worker loses more than this share. What it loses beside a loop that has nothing to do with Shunt is
    /// the machine's.
    pub fn is_too_slow(&self, most_lost: f64) -> bool {
        let machine = self.lost_beside_calculation.max(self.lost_beside_memory).max(0.0);
        self.lost > most_lost + machine
    }
}

/// Why the worker lost more than it may.
pub fn too_slow(points: &[Point], most_lost: f64) -> Option<String> {
    let too_slow = points.iter().filter(|point| point.is_too_slow(most_lost));
    let lines: Vec<_> = too_slow
        .map(|point| {
            format!(
                "{}: the worker loses {:.1} % of its throughput, beside other loops {:.1} and {:.1} %",
                point.change.name(),
                point.lost * 100.0,
                point.lost_beside_calculation * 100.0,
                point.lost_beside_memory * 100.0
            )
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Writes JSON and a chart.
pub fn write(points: &[Point], machine: &str, directory: &Path) -> Result<()> {
    write_json(directory, "change", points)?;
    write_source(directory, "change", &format!("{machine}; medians of all turns of a change"))?;
    let bar = |label: &str, value: f64, colour| Bar {
        label: label.to_owned(),
        value: value.max(0.0) * 100.0,
        text: format!("{:.1} %", value * 100.0),
        colour,
    };
    let group = |point: &Point| Group {
        label: format!("changed: {}", point.change.name()),
        bars: vec![
            bar("during the change", point.lost, Colour::Shunt),
            bar("10 ms after the swap", point.lost_after_swap, Colour::Shunt),
            bar("beside a calculation", point.lost_beside_calculation, Colour::Floor),
            bar("beside memory traffic", point.lost_beside_memory, Colour::Floor),
        ],
    };
    let chart = Chart {
        title: "Throughput that the worker loses while the configuration changes".to_owned(),
        subtitle: "10,000 services × 50 backends over 200 pools; less is better; grey: the other core runs a loop instead"
            .to_owned(),
        source: format!("{machine}; medians of {} changes each", super::TURNS),
        scale: Scale::Linear,
        groups: points.iter().map(group).collect(),
    };
    write_chart(directory, "change", &chart)
}

#[cfg(test)]
mod tests {
    use super::super::{Sizes, measure};
    use super::*;

    #[test]
    fn what_other_loops_cost_too_is_not_held_against_a_change() {
        let sizes = Sizes { services: 20, pools: 2, backends: 3, maglev_size: 251, flows: 100 };
        let outcome = measure(&sizes, &[Change::OnePool], 1, Duration::ZERO, None).unwrap();
        let mut points = points(&outcome);
        assert_eq!(points.len(), 1);
        let point = |points: &mut Vec<Point>, lost, beside_calculation, beside_memory| {
            points[0].lost = lost;
            points[0].lost_beside_calculation = beside_calculation;
            points[0].lost_beside_memory = beside_memory;
            too_slow(points, 0.05)
        };
        assert_eq!(point(&mut points, 0.049, 0.0, 0.0), None);
        assert_eq!(point(&mut points, 0.1, 0.01, 0.06), None);
        let why = point(&mut points, 0.06, -0.02, 0.005).unwrap();
        assert!(why.starts_with("one pool's backends: the worker loses 6.0 %"), "{why}");
    }
}
