//! The command line of `shunt-dataplane`, apart from the program so that manual pages and completions can be made of
//! it.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use shunt_api::DATAPLANE_SOCKET;

use crate::replay::command::{self, EXAMPLES};

/// Moves the packets of Shunt: pinned threads, one per NIC queue, on AF_XDP sockets.
///
/// It needs no configuration of its own: the control plane sends it one. Until the first arrives it touches
/// no NIC. When the control plane dies it forwards on by what it has.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    /// What to do.
    pub command: Command,
    /// What to log: error, warn, info, debug, trace, or filters such as `info,hyper=debug`
    #[arg(long, global = true, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub log_level: String,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Forward packets until SIGTERM or SIGINT, then detach from the NICs
    Run {
        /// Unix socket to take snapshots and answer lbctl on (mode 0660)
        #[arg(long, value_name = "PATH", env = "SHUNT_DATAPLANE_SOCKET", default_value = DATAPLANE_SOCKET)]
        socket: PathBuf,
        /// Where pins are.
        #[command(flatten)]
        bpf: BpfDir,
    },
    /// Remove what a killed dataplane left behind: XDP programs, pins, and the device of health checks
    ///
    /// After a crash the programs stay attached and drop packets to VIPs, so that the host does not answer them
    /// with resets while the dataplane restarts. If it is not to come back, this gives the NICs free again.
    Detach {
        /// Where pins are.
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

/// Where pins are.
#[derive(clap::Args)]
pub struct BpfDir {
    /// Directory on a BPF file system that holds what must outlive a crash
    #[arg(long = "bpf-dir", value_name = "DIR", default_value = "/sys/fs/bpf/shunt")]
    pub path: PathBuf,
}

/// The command line.
pub fn command() -> clap::Command {
    Arguments::command()
}
