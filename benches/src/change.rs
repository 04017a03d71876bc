//! A change of configuration under load: 10,000 services × 50 backends over 200 pools.
//!
//! A worker on a port in memory forwards packets of established flows on one core. On another core snapshots are read,
//! compiled, published and the old tables freed, as by the control thread of a dataplane. What a packet costs the worker
//! meanwhile is compared with its cost just before and after, when the other core rests. Since cores share a cache and
//! the way to memory, or are two threads of one core, it is also measured beside two loops that have nothing to do with
//! Shunt: one that only calculates, one that reads and writes memory.

mod cycle;
mod fleet;
mod load;
mod loops;
mod report;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shunt_api::snapshot::Snapshot;
use shunt_dataplane::worker::Shared;
use shunt_tests::error::{Error, Result, ensure};

use crate::end_to_end::pinning;
use crate::machine;
use crate::stage::{Network, Stage};
use cycle::{Control, Cycle};
use fleet::{Change, Sizes};
use load::{Load, Log, since};
use loops::{Loops, rest};

const SIZES: Sizes = Sizes { services: 10_000, pools: 200, backends: 50, maglev_size: 65537, flows: 100_000 };
const WORKER_CORE: usize = 0;
const CONTROL_CORE: usize = 1;
/// Times that each change is made or taken back.
const TURNS: usize = 6;
/// For how long the worker is watched beside each thing that is no change.
const WATCH: Duration = Duration::from_millis(50);
/// Share of its throughput that the worker may lose.
const MOST_LOST: f64 = 0.05;
/// Times that all may be measured because throughput fell short: something else may have had a processor.
const ATTEMPTS: usize = 3;

/// How to measure.
#[derive(clap::Args)]
pub struct Options {
    /// End with an error if a demand is not met, and write nothing.
    #[arg(long)]
    check: bool,
    /// Directory for JSON and charts.
    #[arg(long, default_value = "benches/results")]
    out: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { check: false, out: "benches/results".into() }
    }
}

/// A change and what was beside it.
struct Turn {
    change: Change,
    cycle: Cycle,
    /// The other core at rest, before and after.
    resting_ns: [(u64, u64); 2],
    /// The other core calculates.
    calculating_ns: (u64, u64),
    /// The other core reads and writes memory.
    storing_ns: (u64, u64),
}

/// What came of all changes.
struct Outcome {
    turns: Vec<Turn>,
    log: Log,
    table_bytes: u64,
    snapshot_bytes: usize,
}

/// Makes all changes, prints what they cost and writes it down.
pub fn run(options: &Options) -> Result<()> {
    pinning::demand_cores(CONTROL_CORE + 1)?;
    let machine = machine::description();
    println!("Changes under load: {machine}\n");
    let mut points = Vec::new();
    let mut wanted = Change::ALL.to_vec();
    for _ in 0..ATTEMPTS {
        let outcome = measure(&SIZES, &wanted, TURNS, WATCH, Some((WORKER_CORE, CONTROL_CORE)))?;
        outcome.demand_nothing_lost()?;
        points = report::renewed(points, report::points(&outcome));
        report::print(&points, &outcome);
        wanted =
            points.iter().filter(|point| point.is_too_slow(MOST_LOST)).map(|point| point.change).collect();
        if wanted.is_empty() {
            break;
        }
        println!("The worker loses more than {:.0} % to some of these; measured again.\n", MOST_LOST * 100.0);
    }
    if !options.check {
        report::write(&points, &machine, &options.out)?;
    }
    report::too_slow(&points, MOST_LOST).map_or(Ok(()), |why| Err(Error::Wrong(why)))
}

/// Makes and takes back each change in turns, on cores of its own if there are some given.
fn measure(
    sizes: &Sizes,
    changes: &[Change],
    turns: usize,
    watch: Duration,
    cores: Option<(usize, usize)>,
) -> Result<Outcome> {
    let began = Instant::now();
    let snapshot = fleet::snapshot(sizes)?;
    // Ways are known to all backends that ever come.
    let network = Network::of(&Change::AllPools.made_to(&snapshot));
    let (control, table_bytes) = Control::new(snapshot.clone(), began)?;
    let stage = Stage::new(network.forwarding(1, control.table().clone()), 2 * sizes.flows);
    let shared = stage.shared.clone();
    let stop = AtomicBool::new(false);
    let snapshot_bytes = json(&snapshot)?.len();
    let pin = |core: Option<usize>| core.map_or(Ok(()), pinning::pin_this_thread);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            pin(cores.map(|(worker, _)| worker))?;
            Ok(Load::new(stage, *sizes).run(&stop, began))
        });
        let others = scope.spawn(|| {
            pin(cores.map(|(_, control)| control))?;
            let mut changing = Changing { control, network, shared, snapshot, sizes, watch, began };
            changing.turns(changes, turns)
        });
        let turns = others.join();
        stop.store(true, Ordering::Relaxed);
        let log = worker.join().map_err(|_| panicked())??;
        let turns = turns.map_err(|_| panicked())??;
        Ok(Outcome { turns, log, table_bytes, snapshot_bytes })
    })
}

/// The thread beside the worker.
struct Changing<'s> {
    control: Control,
    network: Network,
    shared: Arc<Shared>,
    snapshot: Snapshot,
    sizes: &'s Sizes,
    watch: Duration,
    began: Instant,
}

impl Changing<'_> {
    fn turns(&mut self, changes: &[Change], turns: usize) -> Result<Vec<Turn>> {
        self.wait_for_load()?;
        let mut loops = Loops::new();
        let mut made = Vec::new();
        let unchanged = json(&self.snapshot)?;
        let changed: Result<Vec<_>> =
            changes.iter().map(|change| json(&change.made_to(&self.snapshot))).collect();
        let changed = changed?;
        self.control.note_memory()?;
        for turn in 0..changes.len() * turns {
            let kind = turn / turns;
            let (change, taken_back) = (changes[kind], turn % turns % 2 == 1);
            let text = if taken_back { &unchanged } else { &changed[kind] };
            let calculating_ns = self.span(|watch| loops.calculate(watch));
            let storing_ns = self.span(|watch| loops.store(watch));
            let before_ns = self.span(rest);
            let cycle = self.control.apply(text, &self.network, &self.shared, self.sizes)?;
            self.wait_for_load()?;
            let resting_ns = [before_ns, self.span(rest)];
            made.push(Turn { change, cycle, resting_ns, calculating_ns, storing_ns });
        }
        Ok(made)
    }

    fn span(&self, act: impl FnOnce(Duration)) -> (u64, u64) {
        let start_ns = since(self.began);
        act(self.watch);
        (start_ns, since(self.began))
    }

    /// Waits until the worker has forwarded as many packets as there are flows.
    fn wait_for_load(&self) -> Result<()> {
        let packets = || self.shared.stats[0].counter(shunt_api::counters::Counter::TxPackets);
        let (start, first) = (Instant::now(), packets());
        while packets() < first + 2 * self.sizes.flows as u64 {
            ensure(start.elapsed() < Duration::from_mins(1), || {
                "the worker forwards nothing; it hangs".to_owned()
            })?;
            std::hint::spin_loop();
        }
        Ok(())
    }
}

impl Outcome {
    /// What must be, whatever the speed.
    fn demand_nothing_lost(&self) -> Result<()> {
        let Log { moved, lost, packets, .. } = &self.log;
        ensure(*moved == 0 && *lost == 0, || {
            format!(
                "{moved} of {packets} packets went to another backend, {lost} were lost; a change of configuration may do neither"
            )
        })
    }
}

fn json(snapshot: &Snapshot) -> Result<Vec<u8>> {
    serde_json::to_vec(snapshot).map_err(|error| Error::Wrong(error.to_string()))
}

fn panicked() -> Error {
    Error::Wrong("a thread of the benchmark panicked; what it said stands above".to_owned())
}
