//! What every AF_XDP socket has, whoever drives its rings: where it is bound, and what it really got, read back
//! from it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::xdp::XdpOptionsFlags;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use shunt_api::snapshot::ZeroCopy;
use shunt_api::status::SocketCounters;

use super::OpenError;
use super::open::Offer;
use super::syscall::set_socket_option;
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

impl SocketHandle {
    /// Of a socket that was just bound.
    pub(super) fn new(
        queue: &QueueId,
        fd: OwnedFd,
        offer: Offer,
        busy_poll: bool,
    ) -> Result<Self, OpenError> {
        if busy_poll {
            prefer_busy_poll(fd.as_fd(), queue);
        }
        let options = sockopt::xdp_options(&fd).map_err(|error| OpenError::bind(queue, error.into()))?;
        let is_zero_copy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        let mode = if is_zero_copy { Mode::ZeroCopy } else { Mode::Copy };
        Ok(Self { queue: queue.clone(), mode, multi_buffer: offer.multi_buffer, fd })
    }

    /// Bytes of the largest IP packet that surely passes, where there is such a limit.
    pub fn mtu_limit(&self) -> Option<u32> {
        (!self.multi_buffer).then_some(SINGLE_BUFFER_MTU)
    }

    /// Losses in the kernel since the socket was opened.
    pub fn counters(&self) -> io::Result<SocketCounters> {
        let statistics = sockopt::xdp_statistics(&self.fd)?;
        Ok(SocketCounters {
            rx_dropped: statistics.rx_dropped,
            rx_ring_full: statistics.rx_ring_full.unwrap_or_default(),
            rx_fill_ring_empty: statistics.rx_fill_ring_empty_descs.unwrap_or_default(),
            tx_invalid: statistics.tx_invalid_descs,
        })
    }
}

/// Has the driver look at the fill ring, and at its receive queue if the socket prefers busy polling. Fails only on a
/// socket whose NIC is gone, which the control thread notices.
pub(super) fn wake_receive(socket: BorrowedFd<'_>) {
    let nothing: &mut [u8] = &mut [];
    let _ = rustix::net::recv(socket, nothing, RecvFlags::DONTWAIT);
}

/// Has the kernel look at the transmit ring. What it cannot send now stays there.
pub(super) fn wake_transmit(socket: BorrowedFd<'_>) {
    let _ = rustix::net::send(socket, &[], SendFlags::DONTWAIT);
}

/// `SO_PREFER_BUSY_POLL` and its companions (Documentation/networking/af_xdp.rst); libc has no names for two.
fn prefer_busy_poll(socket: BorrowedFd<'_>, queue: &QueueId) {
    const SO_PREFER_BUSY_POLL: libc::c_int = 69;
    const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
    const BUSY_POLL_US: libc::c_int = 20;
    const BUDGET: libc::c_int = 64;
    let options =
        [(SO_PREFER_BUSY_POLL, 1), (libc::SO_BUSY_POLL, BUSY_POLL_US), (SO_BUSY_POLL_BUDGET, BUDGET)];
    let set = options.into_iter().try_for_each(|(name, value)| set_socket_option(socket, name, value));
    if let Err(error) = set {
        let nic = &queue.name;
        tracing::warn!(%nic, queue = queue.queue, %error, "no preferred busy polling; CAP_NET_ADMIN is needed");
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
