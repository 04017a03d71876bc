//! What a worker spends on a packet: whole batches through [`Worker::turn`] on a port in memory, one thread,
//! established flows of which each packet belongs to a random one. Putting frames in and taking them out is not
//! counted. The floor is the same port with a loop that only swaps MAC addresses.

pub mod load;
mod report;
pub mod scene;
pub mod shape;
mod stopwatch;
pub mod timing;
pub mod world;

use std::hint::black_box;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shunt_api::snapshot::Mode;
use shunt_dataplane::conntrack::Seconds;
use shunt_dataplane::port::memory::MemoryPort;
use shunt_dataplane::worker::Worker;
use shunt_tests::error::{Result, ensure};

use crate::callgrind::{self, Count};
use crate::machine;
use crate::results::{self, rounded};
use load::{Distribution, Family};
pub use report::markdown;
use scene::Part;
use shape::Case;

/// Flows of the rows.
const FLOWS: [u32; 4] = [1_000, 100_000, 1_000_000, 10_000_000];
/// Packets of a part while instructions are counted.
const COUNTED: usize = 20_000;

/// What to measure of the pipeline.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Only cases whose name contains this, such as "dr v4 1000 "
    #[arg(long, default_value = "")]
    pub only: String,
    /// Packets of a run
    #[arg(long, default_value_t = 300_000)]
    pub packets: usize,
    /// Most flows of which instructions are counted, under valgrind; 0 counts none
    #[arg(long, default_value_t = 10_000_000)]
    pub count_flows: u32,
    /// Directory for JSON and charts; `benches/results` if all cases are measured, and none if only some are
    #[arg(long)]
    pub out: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { only: String::new(), packets: 300_000, count_flows: 10_000_000, out: None }
    }
}

/// What packets of one kind cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `dr`, `ipip`, `nat` or, for replies to the latter, `nat-return`.
    pub mode: String,
    /// Of the packets.
    pub family: Family,
    /// In the table.
    pub flows: u32,
    /// Of packets over flows.
    pub distribution: Distribution,
    /// Median of the runs.
    pub ns_per_packet: f64,
    /// Least of the runs.
    pub ns_least: f64,
    /// Most of the runs.
    pub ns_most: f64,
    /// If counted.
    pub instructions_per_packet: Option<f64>,
    /// Of the loop that only swaps MAC addresses, median of the same runs.
    pub floor_ns_per_packet: f64,
    /// If counted.
    pub floor_instructions_per_packet: Option<f64>,
    /// A flow's first packet when nearly as many flows are there; not for replies.
    pub new_flow_ns: Option<f64>,
    /// If counted.
    pub new_flow_instructions: Option<f64>,
}

/// Measures every row, prints them and writes them down.
pub fn run(options: &Options) -> Result<()> {
    let machine = machine::description();
    println!("Pipeline, a port in memory: {machine}\n");
    let cases = cases(&options.only);
    ensure(!cases.is_empty(), || {
        format!(
            "no case is called `{}`; they are called `dr v4 1000 `, `nat v6 10000000 ` and the like",
            options.only
        )
    })?;
    let counted: Vec<Case> = cases.iter().copied().filter(|case| case.flows <= options.count_flows).collect();
    eprintln!("counting instructions of {} cases", counted.len());
    let counts = callgrind::instructions(&counted, COUNTED)?;
    let mut rows = Vec::new();
    for case in &cases {
        eprintln!("{}", case.arguments().join(" "));
        let counts = counted.iter().position(|counted| counted == case).map_or(&[][..], |at| &counts[at]);
        rows.extend(rows_of(case, options.packets, counts));
    }
    let method = format!("medians of {} runs of {} packets", timing::RUNS, options.packets);
    println!("{}", markdown(&rows));
    let all = options.only.is_empty().then(|| PathBuf::from(results::DIRECTORY));
    match options.out.clone().or(all) {
        Some(directory) => report::write(&rows, &format!("{machine}; {method}"), &directory),
        None => Ok(()),
    }
}

fn cases(only: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [Mode::Dr, Mode::Ipip, Mode::Nat] {
        for family in [Family::V4, Family::V6] {
            cases.extend(FLOWS.map(|flows| Case::new(mode, family, flows)));
        }
    }
    cases.retain(|case| case.arguments().join(" ").contains(only));
    cases
}

fn rows_of(case: &Case, packets: usize, counts: &[Count]) -> Vec<Row> {
    let times = timing::times(case, packets);
    let time = |of: Part| times.iter().find(|(part, _)| *part == of).map(|(_, spread)| spread);
    let ns = |of: Part| rounded(time(of).map_or(0.0, |spread| spread.median), 1);
    let count = |of: Part| counts.iter().find(|count| count.part == of).map(|c| rounded(c.instructions, 1));
    let row = |part: Part| {
        let (distribution, back) = match part {
            Part::Forward(distribution) => (distribution, false),
            Part::Back(distribution) => (distribution, true),
            Part::New | Part::Floor => return None,
        };
        let spread = time(part)?;
        Some(Row {
            mode: format!("{}{}", case.mode, if back { "-return" } else { "" }),
            family: case.family,
            flows: case.flows,
            distribution,
            ns_per_packet: rounded(spread.median, 1),
            ns_least: rounded(spread.least, 1),
            ns_most: rounded(spread.most, 1),
            instructions_per_packet: count(part),
            floor_ns_per_packet: ns(Part::Floor),
            floor_instructions_per_packet: count(Part::Floor),
            new_flow_ns: (!back).then(|| ns(Part::New)),
            new_flow_instructions: count(Part::New).filter(|_| !back),
        })
    };
    case.parts().into_iter().filter_map(row).collect()
}

/// What callgrind counts. The black box keeps it a function of its own.
#[inline(never)]
pub fn measured_turn(worker: &mut Worker<MemoryPort>, now: Seconds) -> usize {
    black_box(worker.turn(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_a_row_for_each_distribution_and_direction() {
        let case = Case::new(Mode::Nat, Family::V4, 1000);
        let counts = [
            Count { part: Part::Forward(Distribution::Zipf), instructions: 70.04 },
            Count { part: Part::New, instructions: 700.0 },
        ];
        let rows = rows_of(&case, 300, &counts);
        let kinds: Vec<_> = rows.iter().map(|row| (row.mode.as_str(), row.distribution)).collect();
        let (uniform, zipf) = (Distribution::Uniform, Distribution::Zipf);
        assert_eq!(kinds, [("nat", uniform), ("nat", zipf), ("nat-return", uniform), ("nat-return", zipf)]);
        let counted: Vec<_> =
            rows.iter().map(|row| (row.instructions_per_packet, row.new_flow_instructions)).collect();
        assert_eq!(counted, [(None, Some(700.0)), (Some(70.0), Some(700.0)), (None, None), (None, None)]);
    }

    #[test]
    fn all_modes_families_and_sizes_are_measured() {
        assert_eq!(cases("").len(), 24);
        assert_eq!(cases("dr v4 1000 "), [Case::new(Mode::Dr, Family::V4, 1000)]);
    }
}
