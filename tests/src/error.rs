//! What can go wrong in a scenario, said so that the reader knows where to look.

use std::io;
use std::time::Duration;

/// Of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a scenario, or a step of setting one up, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried, as in "cannot …".
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program that should succeed did not.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// Command line.
        command: String,
        /// Exit code or signal.
        status: String,
        /// What it wrote to stderr, or to stdout if that was empty.
        output: String,
    },
    /// A condition did not come true in time.
    #[error("still waiting after {limit:?} for {what}")]
    Timeout {
        /// The condition.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// A BPF program could not be loaded, attached or read.
    #[error("cannot {what}: {source}")]
    Bpf {
        /// What was tried, as in "cannot …".
        what: String,
        /// What libbpf said.
        #[source]
        source: libbpf_rs::Error,
    },
    /// Something works, but not as it has to.
    #[error("{0}")]
    Wrong(String),
}

/// Adds what was tried to a system error.
pub trait While<T> {
    /// `what` completes the sentence "cannot …".
    fn to(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> While<T> for io::Result<T> {
    fn to(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::System { what: what(), source })
    }
}

impl<T> While<T> for rustix::io::Result<T> {
    fn to(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(io::Error::from).to(what)
    }
}

impl<T> While<T> for libbpf_rs::Result<T> {
    fn to(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Bpf { what: what(), source })
    }
}

/// An error with this message unless `condition` holds.
pub fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::Wrong(message())) }
}
