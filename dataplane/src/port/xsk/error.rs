//! Why sockets cannot be opened, with what to do about it.

use std::io;

use super::QueueId;

/// Why a worker's sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No memory for frames.
    #[error(
        "cannot make {frames} packet buffers ({source}); lower dataplane.ring_size, or give the service CAP_IPC_LOCK or LimitMEMLOCK=infinity"
    )]
    Umem {
        /// How many were asked for.
        frames: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The ring size is not possible.
    #[error("dataplane.ring_size = {0} is not possible; use a power of two in 64…65536")]
    RingSize(u32),
    /// Somebody has the queue.
    #[error(
        "queue {queue} of {nic} is in use by another AF_XDP socket; end the program that has it (`ss --xdp -p` shows it)"
    )]
    Busy {
        /// Kernel name.
        nic: String,
        /// From 0.
        queue: u32,
    },
    /// The capability is missing.
    #[error(
        "no permission to open an AF_XDP socket; run as root or give the service CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF"
    )]
    Permission,
    /// Zero-copy was demanded.
    #[error(
        "the driver of {nic} has no zero-copy for AF_XDP ({source}); set zero_copy = \"auto\" for this NIC"
    )]
    NoZeroCopy {
        /// Kernel name.
        nic: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other refusal.
    #[error(
        "cannot bind an AF_XDP socket to queue {queue} of {nic}: {source}; check that the NIC is there, up and has that queue (`nic-config show {nic}`)"
    )]
    Bind {
        /// Kernel name.
        nic: String,
        /// From 0.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// No eventfd.
    #[error("cannot make an eventfd: {0}; raise the limit of open files")]
    Waker(io::Error),
}

impl OpenError {
    pub(super) fn waker(error: rustix::io::Errno) -> Self {
        Self::Waker(error.into())
    }

    /// The refusal to bind a queue.
    pub(super) fn bind(queue: &QueueId, source: io::Error) -> Self {
        let (nic, queue) = (queue.name.clone(), queue.queue);
        match source.raw_os_error() {
            Some(libc::EBUSY) => Self::Busy { nic, queue },
            Some(libc::EPERM | libc::EACCES) => Self::Permission,
            _ => Self::Bind { nic, queue, source },
        }
    }

    /// The refusal of memory.
    pub(super) fn umem(frames: u32, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission,
            _ => Self::Umem { frames, source },
        }
    }

    /// The refusal of a mode that the driver lacks, told as that.
    pub(super) fn zero_copy_demanded(self) -> Self {
        match self {
            Self::Bind { nic, source, .. } if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Self::NoZeroCopy { nic, source }
            }
            other => other,
        }
    }

    /// A queue that was just closed is free again a moment later.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }
}
