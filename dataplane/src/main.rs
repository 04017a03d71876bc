//! `shunt-dataplane`: moves packets. Takes a snapshot from the control plane, attaches to the NICs it names
//! and forwards by it, for ever, whether the control plane lives or not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shunt_api::DATAPLANE_SOCKET;
use shunt_api::daemon;
use shunt_dataplane::clock::Clock;
use shunt_dataplane::control::Control;
use shunt_dataplane::http;
use shunt_dataplane::probe;
use shunt_dataplane::program::{Steering, detach_leftovers};
use shunt_dataplane::replay::command::{self, EXAMPLES};
use tokio::sync::mpsc;

/// Requests waiting for the control task: more askers than this wait their turn at the socket.
const COMMAND_QUEUE: usize = 64;

/// Moves the packets of Shunt: pinned threads, one per NIC queue, on AF_XDP sockets.
///
/// It needs no configuration of its own: the control plane sends it one. Until the first arrives it touches
/// no NIC. When the control plane dies it forwards on by what it has.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What to log: error, warn, info, debug, trace, or filters such as `info,hyper=debug`
    #[arg(long, global = true, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    log_level: String,
}

#[derive(Subcommand)]
enum Command {
    /// Forward packets until SIGTERM or SIGINT, then detach from the NICs
    Run {
        /// Unix socket to take snapshots and answer lbctl on (mode 0660)
        #[arg(long, value_name = "PATH", env = "SHUNT_DATAPLANE_SOCKET", default_value = DATAPLANE_SOCKET)]
        socket: PathBuf,
        #[command(flatten)]
        bpf: BpfDir,
    },
    /// Remove what a killed dataplane left behind: XDP programs, pins, and the device of health checks
    ///
    /// After a crash the programs stay attached and drop packets to VIPs, so that the host does not answer them
    /// with resets while the dataplane restarts. If it is not to come back, this gives the NICs free again.
    Detach {
        #[command(flatten)]
        bpf: BpfDir,
    },
    /// Say what Shunt would do with the packets of a capture; needs no NIC and no root
    ///
    /// The code that moves packets runs over the capture, with a configuration of your choice, on a box whose flow
    /// table is empty and whose ways to all backends are open. Time is the capture's. What leaves is written as a
    /// capture, and what became of each packet, and why, as a report.
    #[command(after_help = EXAMPLES)]
    Replay(command::Options),
}

#[derive(clap::Args)]
struct BpfDir {
    /// Directory on a BPF file system that holds what must outlive a crash
    #[arg(long = "bpf-dir", value_name = "DIR", default_value = "/sys/fs/bpf/shunt")]
    path: PathBuf,
}

fn main() -> ExitCode {
    daemon::end("shunt-dataplane", start(Arguments::parse()))
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    daemon::start_log(&arguments.log_level)?;
    match arguments.command {
        Command::Run { socket, bpf } => run(&socket, &bpf.path),
        Command::Detach { bpf } => detach(&bpf.path),
        Command::Replay(options) => Ok(command::run(&options)?),
    }
}

fn detach(bpf_dir: &Path) -> anyhow::Result<()> {
    let mut removed = detach_leftovers(bpf_dir)?;
    removed.extend(probe::remove_leftovers()?);
    if removed.is_empty() {
        println!("nothing to remove in {}", bpf_dir.display());
    }
    removed.iter().for_each(|what| println!("removed {what}"));
    Ok(())
}

fn run(socket: &Path, bpf_dir: &Path) -> anyhow::Result<()> {
    let clock = Clock::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let signal = daemon::stop_signal()?;
        let (listener, socket_file) = daemon::listen(socket, "shunt-dataplane").await?;
        let control = Control::new(Steering::open(bpf_dir)?, clock);
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
        let server = tokio::spawn(http::serve(listener, commands));
        tracing::info!("listening on {}", socket.display());
        daemon::notify_ready();
        let stop = async {
            tracing::info!("{}: detaching from the NICs", signal.await);
            daemon::notify_stopping();
        };
        control.run(queue, stop).await?;
        server.abort();
        drop(socket_file);
        Ok(())
    })
}
