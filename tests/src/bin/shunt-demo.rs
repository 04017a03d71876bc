//! `shunt-demo`: see `shunt_tests::demo`.

use std::process::ExitCode;

use clap::Parser;
use shunt_tests::error::Result;
use shunt_tests::{demo, leftovers, lifecycle};

/// Shows Shunt at work: real programs and real connections on a network of namespaces.
///
/// Needs root and no network; touches nothing outside the namespaces it makes, and removes them at the end
/// and when interrupted. Exit code 0 if everything held, 1 if something did not.
#[derive(Parser)]
struct Arguments {
    /// Leave the network and the programs running, and say what to try.
    #[arg(long)]
    keep: bool,
    /// Remove what `--keep`, or a demo or test that was killed, left behind: all of it or one RUN
    ///
    /// What belongs to a running demo or test stays.
    #[arg(long, value_name = "RUN", num_args = 0..=1, conflicts_with = "keep")]
    clean: Option<Option<String>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.clean {
        Some(run) => clean(run.as_deref()),
        None => show(arguments.keep),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("shunt-demo: {error}");
        ExitCode::FAILURE
    })
}

fn show(keep: bool) -> Result<ExitCode> {
    lifecycle::install()?;
    let problems = demo::run(keep)?;
    if problems.is_empty() {
        println!("\nEverything held.");
        return Ok(ExitCode::SUCCESS);
    }
    for problem in &problems {
        eprintln!("shunt-demo: {problem}");
    }
    Ok(ExitCode::FAILURE)
}

fn clean(run: Option<&str>) -> Result<ExitCode> {
    let removed = leftovers::remove_abandoned(run)?;
    for run in &removed {
        println!("removed {run}");
    }
    if removed.is_empty() {
        println!("nothing to remove");
    }
    Ok(ExitCode::SUCCESS)
}
