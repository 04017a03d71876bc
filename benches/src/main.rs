//! `make bench`: what Shunt claims about its speed, measured. Tables go to the terminal; JSON and charts (SVG)
//! to the directory that `--out` names.
//!
//! Wall time on a shared machine informs and nothing more: each figure is the median of its runs, and stands
//! next to a floor measured in the same run.

mod chart;
mod end_to_end;
mod machine;
mod maglev;
mod pipeline;
mod results;

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
    Pipeline,
    /// How long a Maglev table takes to build.
    Maglev,
    /// Packets per second, latency and connections per second, against the alternatives. Needs root.
    EndToEnd(end_to_end::Options),
    /// Everything.
    All,
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
    match what {
        What::Pipeline => pipeline::run(),
        What::Maglev => maglev::run(),
        What::EndToEnd(options) => {
            lifecycle::install()?;
            end_to_end::run(&options)?;
        }
        What::All => {
            lifecycle::install()?;
            maglev::run();
            pipeline::run();
            end_to_end::run(&end_to_end::Options::default())?;
        }
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
