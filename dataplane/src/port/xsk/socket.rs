//! One AF_XDP socket: bound in the best mode there is, with what it really got read back from it.
#![allow(unsafe_code)] // socket options and the creation call of xsk-rs.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use shunt_api::snapshot::ZeroCopy;
use shunt_api::status::SocketCounters;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue, Umem};

use super::open::{Offer, Settings};
use crate::limits::SINGLE_BUFFER_MTU;
use crate::port::NicIndex;

/// A receive queue of a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueId {
    /// In the order of the configuration.
    pub nic: NicIndex,
    /// Kernel name of the NIC.
    pub name: String,
    /// From 0.
    pub queue: u32,
}

/// How frames get between driver and UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The driver's rings hold our frames.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

/// What others need of a socket that a worker owns.
#[derive(Debug)]
pub struct SocketHandle {
    /// Where it is bound.
    pub queue: QueueId,
    /// What the kernel says it got.
    pub mode: Mode,
    /// Packets larger than a buffer come and go in pieces.
    pub multi_buffer: bool,
    /// A duplicate; the socket stays bound until this, too, is closed.
    pub fd: OwnedFd,
}

/// A socket with its rings.
pub(super) struct Bound {
    pub handle: SocketHandle,
    pub rx: RxQueue,
    pub tx: TxQueue,
    pub fill: FillQueue,
    pub completion: CompQueue,
}

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

    pub(super) fn umem(frames: u32, error: &dyn std::error::Error) -> Self {
        Self::Umem { frames, source: os_error(error) }
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

/// Binds one queue in this way or not at all.
pub(super) fn bind(
    umem: &Umem,
    queue: &QueueId,
    settings: &Settings,
    offer: Offer,
) -> Result<Bound, OpenError> {
    let size = QueueSize::new(settings.ring_size).map_err(|_| OpenError::RingSize(settings.ring_size))?;
    let mode = match offer.mode {
        Mode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        Mode::Copy => BindFlags::XDP_COPY,
    };
    let pieces = if offer.multi_buffer { BindFlags::XDP_USE_SG } else { BindFlags::empty() };
    let config = SocketConfig::builder()
        .rx_queue_size(size)
        .tx_queue_size(size)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | pieces | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let refused = |source: io::Error| bind_error(queue, source);
    let interface: Interface = queue.name.parse().map_err(|_| refused(io::ErrorKind::InvalidInput.into()))?;
    // SAFETY: no queue is bound twice from one UMEM, and the flag that the contract asks for is set.
    let made = unsafe { Socket::new(config, umem, &interface, queue.queue) };
    let (tx, rx, rings) = made.map_err(|error| refused(os_error(&error)))?;
    let (fill, completion) = rings.ok_or_else(|| refused(io::ErrorKind::AddrInUse.into()))?;
    // SAFETY: `rx` keeps the descriptor open while it is duplicated.
    let fd = unsafe { BorrowedFd::borrow_raw(rx.fd().as_raw_fd()) }.try_clone_to_owned().map_err(refused)?;
    if settings.busy_poll {
        prefer_busy_poll(&fd, queue);
    }
    let (mode, multi_buffer) = (mode_of(&fd).map_err(refused)?, offer.multi_buffer);
    let handle = SocketHandle { queue: queue.clone(), mode, multi_buffer, fd };
    Ok(Bound { handle, rx, tx, fill, completion })
}

fn bind_error(queue: &QueueId, source: io::Error) -> OpenError {
    let (nic, queue) = (queue.name.clone(), queue.queue);
    match source.raw_os_error() {
        Some(libc::EBUSY) => OpenError::Busy { nic, queue },
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission,
        _ => OpenError::Bind { nic, queue, source },
    }
}

/// xsk-rs keeps the system's error behind `source`.
fn os_error(error: &dyn std::error::Error) -> io::Error {
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(source) => source
            .raw_os_error()
            .map_or_else(|| io::Error::other(source.to_string()), io::Error::from_raw_os_error),
        None => io::Error::other(error.to_string()),
    }
}

impl SocketHandle {
    /// Bytes of the largest IP packet that surely passes, where there is such a limit.
    pub fn mtu_limit(&self) -> Option<u32> {
        (!self.multi_buffer).then_some(SINGLE_BUFFER_MTU)
    }

    /// Losses in the kernel since the socket was opened.
    pub fn counters(&self) -> io::Result<SocketCounters> {
        let mut statistics = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        option(&self.fd, libc::XDP_STATISTICS, &mut statistics)?;
        Ok(SocketCounters {
            rx_dropped: statistics.rx_dropped,
            rx_ring_full: statistics.rx_ring_full,
            rx_fill_ring_empty: statistics.rx_fill_ring_empty_descs,
            tx_invalid: statistics.tx_invalid_descs,
        })
    }
}

fn mode_of(fd: &OwnedFd) -> io::Result<Mode> {
    let mut options = libc::xdp_options { flags: 0 };
    option(fd, libc::XDP_OPTIONS, &mut options)?;
    Ok(if options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0 { Mode::ZeroCopy } else { Mode::Copy })
}

/// Reads a socket option of level `SOL_XDP` into a plain C structure.
fn option<T>(fd: &OwnedFd, name: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which is a C structure of integers.
    let status = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            name,
            std::ptr::from_mut(value).cast(),
            &raw mut length,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `SO_PREFER_BUSY_POLL` and its companions (Documentation/networking/af_xdp.rst); libc has no names for two.
fn prefer_busy_poll(fd: &OwnedFd, queue: &QueueId) {
    const SO_PREFER_BUSY_POLL: libc::c_int = 69;
    const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
    const BUSY_POLL_US: libc::c_int = 20;
    const BUDGET: libc::c_int = 64;
    for (name, value) in
        [(SO_PREFER_BUSY_POLL, 1), (libc::SO_BUSY_POLL, BUSY_POLL_US), (SO_BUSY_POLL_BUDGET, BUDGET)]
    {
        // SAFETY: the kernel reads one integer.
        let status = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw const value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        if status != 0 {
            let (nic, error) = (&queue.name, io::Error::last_os_error());
            tracing::warn!(%nic, queue = queue.queue, %error, "no preferred busy polling; CAP_NET_ADMIN is needed");
            return;
        }
    }
}

/// What to ask of sockets that share a UMEM, and so a mode, when their NICs are configured differently: a
/// demand for copy or for zero-copy holds for all, and the two together fail as zero-copy does.
pub fn combined(one: ZeroCopy, other: ZeroCopy) -> ZeroCopy {
    match (one, other) {
        (ZeroCopy::Auto, any) | (any, ZeroCopy::Auto) => any,
        (ZeroCopy::On, _) | (_, ZeroCopy::On) => ZeroCopy::On,
        (ZeroCopy::Off, ZeroCopy::Off) => ZeroCopy::Off,
    }
}
