//! `lbctl`: what an operator of Shunt types. It asks the daemons over their Unix sockets and prints the
//! answer; it never touches a NIC or a BPF map, and keeps no state. `kubeconfig` alone asks a
//! cluster.
//!
//! All of the program is here; manual pages and completions are made of [`command`].
//!
//! Exit codes: 0 all is well, 1 what was asked for is not healthy or not found, 2 the command line is wrong.

mod config;
mod drain;
mod events;
mod explain;
mod flows;
mod get;
mod kubeconfig;
mod output;
mod stats;
mod status;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use shunt_api::client::Client;
use shunt_api::{CONTROLPLANE_SOCKET, DATAPLANE_SOCKET};

use crate::output::Format;

/// See and steer the Shunt load balancer on this box.
#[derive(Parser)]
#[command(
    name = "lbctl",
    version,
    after_help = "Start with `lbctl status`. Exit codes: 0 all is well, \
    1 what was asked for is not healthy or not found, 2 the command line is wrong."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
#[command(next_help_heading = "Common options")]
struct Global {
    /// Socket of shunt-controlplane.
    #[arg(long, global = true, value_name = "PATH")]
    #[arg(env = "SHUNT_CONTROLPLANE_SOCKET", hide_env_values = true)]
    #[arg(default_value = CONTROLPLANE_SOCKET)]
    socket: PathBuf,
    /// Socket of shunt-dataplane.
    #[arg(long, global = true, value_name = "PATH")]
    #[arg(env = "SHUNT_DATAPLANE_SOCKET", hide_env_values = true)]
    #[arg(default_value = DATAPLANE_SOCKET)]
    dataplane_socket: PathBuf,
    /// How to print what was found.
    #[arg(short, long, global = true, value_name = "table|json")]
    #[arg(value_enum, default_value = "table", hide_possible_values = true)]
    output: Format,
}

#[derive(Subcommand)]
enum Command {
    /// Say whether all is well, and what to do if not.
    #[command(after_help = "Example: lbctl status && echo all is well")]
    Status,
    /// List services, backends or NICs.
    #[command(subcommand, after_help = "Example: lbctl get backends web1")]
    Get(get::What),
    /// Show what the workers count: packets, flows, and drops by reason.
    #[command(after_help = "Examples:\n  lbctl stats --all\n  lbctl stats --watch 5")]
    Stats(stats::Options),
    /// List the flows that the dataplane remembers.
    #[command(after_help = "Examples:\n  lbctl flows --client 192.0.2.7\n  \
        lbctl flows --vip 203.0.113.10 --port 443 --protocol tcp --limit 20")]
    Flows(flows::Filter),
    /// Say what becomes of a packet, and why: which service, flow, backend and way, or why none.
    ///
    /// Answers by the rules and tables that the workers go by, changes nothing and sends nothing. A `*` marks the rule
    /// that decided. Exit code 0 if the packet goes on, 1 if not.
    #[command(after_help = "Examples:\n  lbctl explain --src 192.0.2.7:40000 --dst 203.0.113.10:443\n  \
        lbctl explain --src 192.0.2.7:40000 --dst 203.0.113.10:443 --down web1\n  \
        lbctl explain --src 192.0.2.7:5353 --dst 203.0.113.10:53 --proto udp --config draft.toml")]
    Explain(explain::Options),
    /// List what happened to backends, services and VIPs, and why.
    #[command(after_help = "Examples:\n  lbctl events --limit 20\n  lbctl events --follow")]
    Events(events::Options),
    /// Send no new flows to a backend, and leave it those it has.
    #[command(
        after_help = "Examples:\n  lbctl drain web1\n  lbctl drain 10.0.1.11 --timeout 5m && reboot-it"
    )]
    Drain(drain::Options),
    /// Let a backend take new flows again.
    #[command(after_help = "Example: lbctl undrain web1")]
    Undrain(drain::Which),
    /// Check a configuration file, or manifests of kind ShuntPool (*.yaml), without applying it.
    #[command(after_help = "Examples:\n  lbctl validate /etc/shunt/shunt.toml\n  \
        lbctl validate - < draft.toml\n  lbctl validate pools.yaml && kubectl apply -f pools.yaml")]
    Validate {
        /// The file; `-` reads standard input.
        file: PathBuf,
    },
    /// Make the kubeconfig by which the control plane reaches a Kubernetes cluster.
    ///
    /// It holds a token of the ServiceAccount that `kubectl apply -k deploy/kubernetes` makes, and nothing of the
    /// administrator's. Make another one before the token expires: the control plane takes it from the file.
    #[command(after_help = "Examples:\n  \
        lbctl kubeconfig --admin-kubeconfig admin.conf --file /etc/shunt/kubeconfig\n  \
        lbctl kubeconfig --duration 30d --server https://192.0.2.1:6443 | ssh box 'cat > /etc/shunt/kubeconfig'")]
    Kubeconfig(kubeconfig::Options),
    /// Have the configuration file read again and say what came of it.
    #[command(after_help = "Example: lbctl validate /etc/shunt/shunt.toml && lbctl reload")]
    Reload,
    /// Print a completion script for a shell.
    #[command(after_help = "Example: lbctl completions bash > /etc/bash_completion.d/lbctl")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// What was asked for is there and well.
    Well,
    /// It is not healthy, or not there; the command has printed why.
    Unwell,
}

impl Outcome {
    fn well_if(condition: bool) -> Self {
        if condition { Self::Well } else { Self::Unwell }
    }
}

/// The command line.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::Unwell) => ExitCode::FAILURE,
        // Whoever reads us, such as `head`, has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lbctl: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let control = Client::controlplane(&cli.global.socket);
    let dataplane = Client::dataplane(&cli.global.dataplane_socket);
    let format = cli.global.output;
    match cli.command {
        Command::Status => status::run(&control, &dataplane, format).await,
        Command::Get(what) => get::run(what, &control, &dataplane, format).await,
        Command::Stats(options) => stats::run(&options, &dataplane, format).await,
        Command::Flows(filter) => flows::run(filter, &dataplane, format).await,
        Command::Explain(options) => explain::run(options, control, format).await,
        Command::Events(options) => events::run(&options, &control, format).await,
        Command::Drain(options) => drain::drain(options, &control, &dataplane, format).await,
        Command::Undrain(which) => drain::undrain(&which, &control, format).await,
        Command::Validate { file } => config::validate(&file, format),
        Command::Kubeconfig(options) => kubeconfig::run(&options, format).await,
        Command::Reload => config::reload(&control, format).await,
        Command::Completions { shell } => completions(shell),
    }
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lbctl", &mut script);
    output::print(&String::from_utf8(script)?)?;
    Ok(Outcome::Well)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
            let help = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("lbctl "), "{} has no example", subcommand.get_name());
        }
    }
}
