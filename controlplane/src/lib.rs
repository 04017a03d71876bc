//! The command line of `shunt-controlplane`, apart from the program so that manual pages and completions can be made
//! of it.

use std::path::PathBuf;

use clap::{CommandFactory, Parser};
use shunt_api::{CONFIG_FILE, CONTROLPLANE_SOCKET, DATAPLANE_SOCKET};

/// Decides what Shunt's dataplane should do: reads the configuration file, sends the dataplane what follows
/// from it, and sends it again whenever either of the two restarts.
///
/// The file is read again when it changes, on SIGHUP and on `lbctl reload`. A file that is wrong is refused
/// with its line, and what was served before still is. Stopping this program stops no forwarding; what it announces is
/// withdrawn.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub struct Arguments {
    /// Configuration file; `lbctl validate FILE` checks one without using it
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    pub config: PathBuf,
    /// Unix socket to answer lbctl on (mode 0660)
    #[arg(long, value_name = "PATH", env = "SHUNT_CONTROLPLANE_SOCKET", default_value = CONTROLPLANE_SOCKET)]
    pub socket: PathBuf,
    /// Unix socket of the dataplane
    #[arg(long, value_name = "PATH", env = "SHUNT_DATAPLANE_SOCKET", default_value = DATAPLANE_SOCKET)]
    pub dataplane_socket: PathBuf,
    /// Directory for what must outlive a restart: who is down or drained, what clusters want, who this box is to other
    /// boxes, and the fleet key, unless the configuration names one
    #[arg(long, value_name = "DIR", default_value = "/var/lib/shunt")]
    pub state_dir: PathBuf,
    /// What to log: error, warn, info, debug, trace, or filters such as `info,hyper=debug`
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub log_level: String,
}

/// The command line.
pub fn command() -> clap::Command {
    Arguments::command()
}
