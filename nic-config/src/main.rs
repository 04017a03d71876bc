//! `nic-config`: how a network interface stands for Shunt. It reads what the kernel and the driver report
//! and prints it; it changes nothing and needs no privilege.
//!
//! Exit codes: 0 shown, 1 an interface does not exist or the kernel does not answer, 2 the command line is
//! wrong.

mod ethtool;
mod netdev;
mod netlink;
mod observe;
mod show;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// See how network interfaces stand for Shunt.
#[derive(Parser)]
#[command(name = "nic-config", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show driver, queues, rings, XDP features and NUMA node of interfaces.
    #[command(after_help = "Examples:\n  nic-config show eth1\n  nic-config show -o json | jq '.[].driver'")]
    Show {
        /// Interfaces to show; without any, all but the loopback interface.
        #[arg(value_name = "IFACE")]
        interfaces: Vec<String>,
        /// How to print what was found.
        #[arg(short, long, value_name = "table|json")]
        #[arg(value_enum, default_value = "table", hide_possible_values = true)]
        output: Format,
    },
}

/// How to print what was found.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    let Cli { command: Command::Show { interfaces, output } } = Cli::parse();
    match show(&interfaces, output) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us, such as `head`, has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nic-config: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(interfaces: &[String], format: Format) -> anyhow::Result<()> {
    let nics = observe::nics(interfaces)?;
    let mut text = match format {
        Format::Table => show::text(&nics),
        Format::Json => serde_json::to_string_pretty(&nics)?,
    };
    text.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
