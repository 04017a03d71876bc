//! What can go wrong with the steering program, and what a person does about it.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// Why the steering program is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The pins have no place.
    #[error(
        "{} is not on a BPF file system: mount one (mount -t bpf bpf /sys/fs/bpf), or name a directory on one",
        directory.display()
    )]
    NotBpffs {
        /// As configured.
        directory: PathBuf,
    },
    /// Another process holds the directory.
    #[error(
        "{} is in use by a running shunt-dataplane: stop that one first",
        directory.display()
    )]
    InUse {
        /// As configured.
        directory: PathBuf,
    },
    /// A pinned map cannot be this version's.
    #[error(
        "{} is not a map of this version of Shunt: remove what the other one left \
         (shunt-dataplane detach), then start again",
        pin.display()
    )]
    OtherLayout {
        /// Of the map.
        pin: PathBuf,
    },
    /// No interface of this name in this network namespace.
    #[error("there is no NIC {nic}: see `ip link` for those there are, and correct `name` under [[nic]]")]
    NoSuchNic {
        /// As configured.
        nic: String,
    },
    /// Another XDP program sits on the NIC.
    #[error("{nic} already runs the XDP program {program}: remove it ({remedy}), then start again")]
    Busy {
        /// As configured.
        nic: String,
        /// Name and kernel id.
        program: String,
        /// Command that removes it.
        remedy: String,
    },
    /// The driver does not take the program, and native mode was demanded.
    #[error(
        "the driver of {nic} does not run XDP programs as the NIC is set up ({cause}): set xdp = \"auto\" or \
         \"generic\" for it, or remove what is in the way (often a large MTU, or too few receive queues)"
    )]
    NoNativeMode {
        /// As configured.
        nic: String,
        /// The kernel's words.
        cause: io::Error,
    },
    /// The kernel refused the program.
    #[error(
        "the kernel does not load the steering program ({cause}): {}; libbpf's log says more \
         (RUST_LOG=shunt_dataplane::program=debug)",
        hint(cause.kind()).unwrap_or("Linux 5.18 or newer is needed")
    )]
    Load {
        /// The kernel's words.
        cause: io::Error,
    },
    /// More addresses than the map holds.
    #[error("{wanted} addresses are to be owned, but there is room for {room}: remove services")]
    TooManyAddresses {
        /// How many there are.
        wanted: usize,
        /// How many there can be.
        room: usize,
    },
    /// More tunnel sources than the map holds.
    #[error(
        "tunnels are to come from {wanted} prefixes, but there is room for {room}: set source_v4 and source_v6 \
         under [tunnel], each of which is one prefix for all tunnels"
    )]
    TooManyTunnelSources {
        /// How many there are.
        wanted: usize,
        /// How many there can be.
        room: usize,
    },
    /// Any other refusal.
    #[error("cannot {action}: {cause}{}", hint(cause.kind()).map(|what| format!(": {what}")).unwrap_or_default())]
    Kernel {
        /// What was tried.
        action: String,
        /// The kernel's words.
        cause: io::Error,
    },
}

impl ProgramError {
    /// The program was refused.
    pub(super) fn load(cause: impl Into<Cause>) -> Self {
        Self::Load { cause: cause.into().0 }
    }
}

/// For `map_err`: the kernel refused to do `action`.
pub(super) fn refused<E: Into<Cause>>(action: impl Into<String>) -> impl FnOnce(E) -> ProgramError {
    move |cause| ProgramError::Kernel { action: action.into(), cause: cause.into().0 }
}

/// An error of one of the crates that speak to the kernel.
pub(super) struct Cause(io::Error);

impl From<io::Error> for Cause {
    fn from(cause: io::Error) -> Self {
        Self(cause)
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(cause: rustix::io::Errno) -> Self {
        Self(cause.into())
    }
}

impl From<libbpf_rs::Error> for Cause {
    fn from(cause: libbpf_rs::Error) -> Self {
        Self(io_error(&cause))
    }
}

/// Keeps the kind, which the remedy depends on, and the words.
fn io_error(cause: &libbpf_rs::Error) -> io::Error {
    let kind = match cause.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        libbpf_rs::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
        libbpf_rs::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, format!("{cause:#}"))
}

fn hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::PermissionDenied => Some(
            "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (AmbientCapabilities= in the unit)",
        ),
        ErrorKind::OutOfMemory => {
            Some("free memory, or raise the locked-memory limit (LimitMEMLOCK=infinity)")
        }
        _ => None,
    }
}
