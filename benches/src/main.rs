//! `make bench`: what Shunt claims about its speed, measured. Tables go to the terminal; JSON and charts (SVG)
//! to the directory that `--out` names.
//!
//! Wall time on a shared machine informs and nothing more: each figure is the median of its runs, and stands
//! next to a floor measured in the same run.

mod callgrind;
mod change;
mod chart;
mod end_to_end;
mod floods;
mod gate;
mod machine;
mod maglev;
mod markdown;
mod pipeline;
mod results;
mod scale;
mod stage;
mod tables;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shunt_tests::error::Result;
use shunt_tests::lifecycle;

/// Measures what Shunt claims about its speed.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// What to measure; everything if not given.
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// What a packet costs in the pipeline, on a port in memory.
    Pipeline(pipeline::Options),
    /// How long a Maglev table takes to build.
    Maglev,
    /// Packets per second, latency and connections per second, against the alternatives. Needs root.
    EndToEnd(end_to_end::Options),
    /// What a packet costs against services, backends and source ranges.
    Scale(scale::Options),
    /// Whether packets take more instructions than when `benches/baseline.json` was written.
    Gate(gate::Options),
    /// The results as Markdown.
    Tables(tables::Options),
    /// What floods of new flows do to confirmed ones.
    Floods(floods::Options),
    /// What a change of configuration does to packets meanwhile.
    Change(change::Options),
    /// Everything.
    All,
    /// Every part of one case, once, for callgrind to count.
    #[command(hide = true)]
    Count(callgrind::Options),
    #[command(flatten)]
    Helper(end_to_end::Helper),
}

fn main() -> ExitCode {
    match run(Arguments::parse().what.unwrap_or(What::All)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shunt-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    if !matches!(what, What::Count(_) | What::Helper(_)) {
        lifecycle::install()?;
    }
    match what {
        What::Pipeline(options) => pipeline::run(&options)?,
        What::Maglev => maglev::run(),
        What::EndToEnd(options) => end_to_end::run(&options)?,
        What::Floods(options) => floods::run(&options)?,
        What::Change(options) => change::run(&options)?,
        What::All => {
            // First, because it tells memory by what the process grows.
            change::run(&change::Options::default())?;
            maglev::run();
            pipeline::run(&pipeline::Options::default())?;
            scale::run(&scale::Options::default())?;
            floods::run(&floods::Options::default())?;
            end_to_end::run(&end_to_end::Options::default())?;
        }
        What::Scale(options) => scale::run(&options)?,
        What::Gate(options) => gate::run(&options)?,
        What::Tables(options) => tables::run(&options)?,
        What::Count(options) => callgrind::count(&options)?,
        What::Helper(helper) => end_to_end::run_helper(helper)?,
    }
    Ok(())
}

/// Least, median and most of some measurements.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(mut measurements: Vec<f64>) -> Self {
        measurements.sort_by(f64::total_cmp);
        let (least, most) = (measurements[0], measurements[measurements.len() - 1]);
        Self { least, median: measurements[measurements.len() / 2], most }
    }
}
