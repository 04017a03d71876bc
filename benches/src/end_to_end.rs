//! Shunt on real network namespaces and veth pairs, beside a bare AF_XDP loop, the kernel's own ways and proxies.
//!
//! Every subject has a network of its own ([`network`]) and stands ready while others are measured, so that they
//! take turns within seconds: what the machine's neighbours do meets all alike. Figures are medians of the rounds,
//! ratios are medians of the rounds' ratios.
//!
//! Forwarders are compared by packets per second, against the bare loop, and by the time of a packet. Proxies carry
//! no single packets, so they are compared by connections, against none in between. There client and servers share
//! a core, which is the limit of everything that is faster than they are.
//!
//! Load and backends work on core 0, the subject on core 1: the worker thread of Shunt and of the floor, the kernel
//! thread that polls the NIC for nftables, the thread of a proxy. What comes before and behind it is the same for
//! all but one thing: the copy into an AF_XDP socket is made by the core that the packet comes from, as on a NIC
//! whose interrupts another core takes. A sent packet is taken in by the sink on the core that sent it.

mod connections;
mod floor;
mod frame;
mod generator;
mod histogram;
mod kernel;
mod network;
mod packets;
pub mod pinning;
mod proxies;
mod report;
mod sink;
mod subject;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use shunt_tests::error::{Result, ensure};
use shunt_tests::wait;

use crate::{machine, results};

/// Where load comes from and goes to.
const GENERATOR_CORE: usize = 0;
/// Where what is measured works.
const SUBJECT_CORE: usize = 1;
/// Turns of each subject.
const ROUNDS: usize = 5;
/// Shares of packets or connections whose time is told.
const PERCENTILES: [f64; 3] = [0.5, 0.99, 0.999];
/// Load average of a machine that has nothing else to do; `make` may just have built something.
const QUIET: f64 = 1.0;
/// Between a start and the first sign of life, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How to measure.
#[derive(clap::Args)]
pub struct Options {
    /// Seconds that each figure is measured for, over all rounds.
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    seconds_per_point: f64,
    /// Directory for JSON and charts.
    #[arg(long, default_value = results::DIRECTORY)]
    out: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds_per_point: 3.0, out: results::DIRECTORY.into() }
    }
}

/// Programs that the benchmark starts from itself.
#[derive(clap::Subcommand)]
pub enum Helper {
    /// Sends frames.
    #[command(hide = true)]
    Send(generator::Sending),
    /// Forwards frames.
    #[command(hide = true)]
    L2fwd(floor::Forwarding),
}

/// libbpf reads the structures of an ELF file in place.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

/// Measures everything, prints it and writes it down.
pub fn run(options: &Options) -> Result<()> {
    ensure(shunt_dataplane::cores::available().len() > SUBJECT_CORE, || {
        "load and load balancer need a core each; this process may use only one".to_owned()
    })?;
    pinning::demand_cores(SUBJECT_CORE + 1)?;
    let machine = machine::description();
    println!("End to end over veth: {machine}\n");
    let busy = machine::busy_cores();
    if busy > QUIET {
        println!(
            "Other programs keep {busy:.1} cores busy: figures are lower and delays longer than they could be.\n"
        );
    }
    let duration = Duration::from_secs_f64(options.seconds_per_point / ROUNDS as f64);
    let packets = packets::measure(duration)?;
    let connections = connections::measure(duration)?;
    eprintln!();
    let source = format!("{machine}; medians of {ROUNDS} rounds of {:.1} s", duration.as_secs_f64());
    report::packets(&packets, &source, &options.out)?;
    report::connections(&connections, &source, &options.out)?;
    let latency = [packets.latency, connections.latency].concat();
    report::latency(&latency, &source, &options.out)?;
    println!("JSON and charts are in {}", options.out.display());
    Ok(())
}

/// Runs one of the programs.
pub fn run_helper(helper: Helper) -> Result<()> {
    match helper {
        Helper::Send(sending) => generator::send(&sending),
        Helper::L2fwd(forwarding) => floor::forward(&forwarding),
    }
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0 && *seconds <= 600.0);
    seconds.ok_or_else(|| "write a number of seconds, at most 600".to_owned())
}

/// Indices in another order in each round, so that nobody always comes after the same.
fn turn(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index + round) % count)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    crate::Spread::of(values.collect()).median
}

/// Lets things go on for so long.
fn pause(duration: Duration) {
    let start = Instant::now();
    let over = wait::until_true("the end of a pause", 2 * duration, || start.elapsed() >= duration);
    debug_assert!(over.is_ok(), "a condition that has come true is seen before the limit is");
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// False, said on stderr, when a program cannot be loaded. Unlike eprintln!, this is not captured.
    pub fn is_root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            let _ = writeln!(std::io::stderr(), "SKIPPED: loading a BPF program needs root");
        }
        root
    }

    #[test]
    fn each_round_begins_with_another() {
        let orders: Vec<Vec<usize>> = (0..3).map(|round| turn(round, 3).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
    }

    #[test]
    fn seconds_are_positive() {
        assert_eq!(positive("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "x", "NaN", "1e9"] {
            assert!(positive(wrong).is_err(), "{wrong}");
        }
    }
}
