//! Building Maglev tables.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use shunt_api::snapshot::FleetKey;
use shunt_dataplane::flow::SlotHasher;
use shunt_dataplane::maglev::{Candidate, Maglev};

use crate::Spread;

const RUNS: usize = 15;

pub fn run() {
    println!("Maglev table, time to build (ms, {RUNS} runs)\n");
    println!(
        "{:>8} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "slots", "backends", "weights", "least", "median", "most"
    );
    for (size, backends, weighted) in [
        (65537, 10, false),
        (65537, 100, false),
        (65537, 100, true),
        (65537, 1000, false),
        (655_373, 1000, false),
    ] {
        let Spread { least, median, most } = time(size, backends, weighted);
        let weights = if weighted { "1 to 10" } else { "equal" };
        println!("{size:>8} {backends:>9} {weights:>8} {least:>8.2} {median:>8.2} {most:>8.2}");
    }
    println!();
}

fn time(size: u32, backends: u32, weighted: bool) -> Spread {
    let hasher = SlotHasher::new(&FleetKey([7; 16]));
    let weight = |i: u32| if weighted { (i % 10 + 1) as u16 } else { 1 };
    let candidates: Vec<Candidate> = (0..backends)
        .map(|i| Candidate { address: IpAddr::V4((0x0a00_0001 + i).into()), weight: weight(i) })
        .collect();
    let once = |_| {
        let start = Instant::now();
        black_box(Maglev::build(&hasher, size, black_box(&candidates)));
        start.elapsed().as_secs_f64() * 1e3
    };
    Spread::of((0..RUNS).map(once).collect())
}
