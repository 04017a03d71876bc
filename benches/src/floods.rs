//! Floods of packets that begin flows and never go on: random SYNs, random UDP, random ACKs, five times as many as
//! the flow table has places. Confirmed flows must neither move nor suffer, every packet of the flood must be served,
//! and the counters must say what happened.
//!
//! A worker on a port in memory takes rounds of the flood and rounds of confirmed flows in turns, so that both have the
//! same number of packets. What a packet of a confirmed flow costs is compared with its cost on a second worker
//! with the same flows and no flood, measured in between. In a second part packets of both stand in the same batches.
//! Only the worker's rounds are timed.

mod flood;
mod scene;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Serialize;
use shunt_tests::error::{Error, Result};

use crate::chart::{Bar, Chart, Colour, Group, Scale};
use crate::machine;
use crate::results::{rounded, write_chart, write_json, write_source};
use crate::terminal;
use flood::{Counts, Kind, Outcome, Plan};

/// Share of their throughput that confirmed flows keep at least.
const LEAST_KEPT: f64 = 0.8;
/// Times that a flood may be repeated because throughput fell short: something else may have had the processor.
const ATTEMPTS: usize = 3;

/// How to measure.
#[derive(clap::Args)]
pub struct Options {
    /// End with an error if a demand is not met, and write nothing.
    #[arg(long)]
    check: bool,
    /// Flows that the table is sized for.
    #[arg(long, default_value_t = 200_000)]
    max_flows: usize,
    /// Directory for JSON and charts.
    #[arg(long, default_value = "benches/results")]
    out: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { check: false, max_flows: 200_000, out: "benches/results".into() }
    }
}

/// One flood.
#[derive(Serialize)]
struct Point {
    flood: &'static str,
    max_flows: usize,
    table_places: usize,
    flood_packets: usize,
    confirmed_flows: usize,
    #[serde(flatten)]
    counts: Counts,
    /// Of confirmed flows, alone.
    ns_per_packet_without: f64,
    /// Of confirmed flows, in turns with the flood.
    ns_per_packet_beside: f64,
    throughput_kept: f64,
    /// Of both in the same batches.
    ns_per_packet_mixed: f64,
    /// New connections of which the table still knew the first packet when the second came.
    new_flows_kept: f64,
}

/// Measures all floods, prints what happened and writes it down.
pub fn run(options: &Options) -> Result<()> {
    let machine = machine::description();
    println!("Floods: {machine}\n");
    let mut points = Vec::new();
    let mut failures = Vec::new();
    for plan in plans(options.max_flows) {
        let outcome = attempt(&plan)?;
        failures.extend(outcome.failures().into_iter().map(|failure| format!("{}: {failure}", plan.name)));
        failures.extend(shortfall(&outcome).map(|failure| format!("{}: {failure}", plan.name)));
        points.push(point(&plan, &outcome));
    }
    print(&points);
    if !options.check {
        write(&points, &machine, &options.out)?;
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::Wrong(failures.join("\n"))) }
}

/// Tables are half as full of confirmed flows as they are sized for, then as full as they get.
fn plans(max_flows: usize) -> Vec<Plan> {
    let plan = |name, kind, flows| Plan { name, kind, max_flows, flows, chunks: 10, times_capacity: 5 };
    vec![
        plan("random SYNs", Kind::Syn, max_flows / 2),
        plan("random UDP", Kind::Udp, max_flows / 2),
        plan("random ACKs", Kind::Ack, max_flows / 2),
        plan("random SYNs, table full", Kind::Syn, 4 * max_flows),
    ]
}

/// The flood, again if throughput fell short.
fn attempt(plan: &Plan) -> Result<Outcome> {
    let mut outcome = flood::measure(plan)?;
    for _ in 1..ATTEMPTS {
        if shortfall(&outcome).is_none() {
            break;
        }
        outcome = flood::measure(plan)?;
    }
    Ok(outcome)
}

fn shortfall(outcome: &Outcome) -> Option<String> {
    let kept = outcome.throughput_kept;
    (kept < LEAST_KEPT).then(|| {
        format!(
            "confirmed flows keep {:.0} % of their throughput; {:.0} % are demanded, so look for what else runs here, then for what a flood evicts from the cache",
            kept * 100.0,
            LEAST_KEPT * 100.0
        )
    })
}

fn point(plan: &Plan, outcome: &Outcome) -> Point {
    Point {
        flood: plan.name,
        max_flows: plan.max_flows,
        table_places: outcome.places,
        flood_packets: outcome.flood_packets,
        confirmed_flows: outcome.confirmed_flows,
        counts: outcome.counts.clone(),
        ns_per_packet_without: rounded(outcome.ns_without, 1),
        ns_per_packet_beside: rounded(outcome.ns_beside, 1),
        throughput_kept: rounded(outcome.throughput_kept, 3),
        ns_per_packet_mixed: rounded(outcome.ns_mixed, 1),
        new_flows_kept: rounded(outcome.new_flows_kept, 3),
    }
}

fn print(points: &[Point]) {
    let rows = points.iter().map(|point| {
        let counts = &point.counts;
        let numbers =
            [counts.moved, counts.not_served, counts.created, counts.evicted, counts.full, counts.midstream];
        let figures = [
            format!("{:.1}", point.ns_per_packet_without),
            format!("{:.1}", point.ns_per_packet_beside),
            format!("{:.0} %", point.throughput_kept * 100.0),
            format!("{:.1}", point.ns_per_packet_mixed),
            format!("{:.0} %", point.new_flows_kept * 100.0),
        ];
        let sizes = [point.confirmed_flows.to_string(), point.flood_packets.to_string()];
        let first = std::iter::once(point.flood.to_owned()).chain(sizes);
        first.chain(numbers.map(|number| number.to_string())).chain(figures).collect::<Vec<_>>()
    });
    let header = [
        "flood",
        "confirmed",
        "packets",
        "moved",
        "not served",
        "created",
        "evicted",
        "table full",
        "midstream",
        "ns without",
        "ns beside",
        "kept",
        "ns mixed",
        "new kept",
    ];
    terminal::print(&header, rows);
}

fn write(points: &[Point], machine: &str, directory: &Path) -> Result<()> {
    write_json(directory, "floods", points)?;
    write_source(directory, "floods", &format!("{machine}; medians of rounds taken in turns"))?;
    let bar = |label: &str, value: f64, text: String, colour| Bar {
        label: label.to_owned(),
        value,
        text: format!("{value:.1} ns{text}"),
        colour,
    };
    let group = |point: &Point| Group {
        label: point.flood.to_owned(),
        bars: vec![
            bar("no flood", point.ns_per_packet_without, String::new(), Colour::Floor),
            bar(
                "beside the flood",
                point.ns_per_packet_beside,
                format!("  ({:.2} of its throughput)", point.throughput_kept),
                Colour::Shunt,
            ),
            bar("mixed, flood included", point.ns_per_packet_mixed, String::new(), Colour::Other),
        ],
    };
    let chart = Chart {
        title: "A packet of a confirmed flow while a flood goes on".to_owned(),
        subtitle: "ns per packet, less is better; as many packets of the flood as of confirmed flows"
            .to_owned(),
        source: format!("{machine}; medians of rounds of 256 packets"),
        scale: Scale::Linear,
        groups: points.iter().map(group).collect(),
    };
    write_chart(directory, "floods", &chart)
}
