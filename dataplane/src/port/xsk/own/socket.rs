//! Makes an AF_XDP socket: the calls of Documentation/networking/af_xdp.rst in their order.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
    XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, sockopt};

use super::memory::{Chunks, Mapping};
use super::ring::{Consumer, Descriptor, Entry, Layout, Producer, Ring};
use crate::limits::FRAME_SIZE;
use crate::port::xsk::open::Offer;
use crate::port::xsk::{Mode, QueueId};

/// The four rings of a socket.
pub struct FourRings {
    pub receive: Consumer<Descriptor>,
    pub transmit: Producer<Descriptor>,
    pub fill: Producer<u64>,
    pub completion: Consumer<u64>,
}

/// A socket without rings or memory.
pub fn make() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

/// Makes the chunks the socket's UMEM (`XDP_UMEM_REG`).
pub fn register(socket: BorrowedFd<'_>, chunks: &Chunks) -> io::Result<()> {
    let (addr, len) = chunks.place();
    let (flags, tx_metadata_len) = (XdpUmemRegFlags::empty(), 0);
    let umem = XdpUmemReg { addr, len, chunk_size: FRAME_SIZE, headroom: 0, flags, tx_metadata_len };
    Ok(sockopt::set_xdp_umem_reg(socket, umem)?)
}

/// Makes the socket's rings and maps them.
pub fn rings(socket: BorrowedFd<'_>, ring_size: u32) -> io::Result<FourRings> {
    let twice = 2 * ring_size;
    sockopt::set_xdp_umem_fill_ring_size(socket, twice)?;
    sockopt::set_xdp_umem_completion_ring_size(socket, twice)?;
    sockopt::set_xdp_rx_ring_size(socket, ring_size)?;
    sockopt::set_xdp_tx_ring_size(socket, ring_size)?;
    let offsets = sockopt::xdp_mmap_offsets(socket)?;
    Ok(FourRings {
        receive: Consumer::new(map(socket, XDP_PGOFF_RX_RING, &offsets.rx, ring_size)?),
        transmit: Producer::new(map(socket, XDP_PGOFF_TX_RING, &offsets.tx, ring_size)?),
        fill: Producer::new(map(socket, XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, twice)?),
        completion: Consumer::new(map(socket, XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, twice)?),
    })
}

fn map<E: Entry>(socket: BorrowedFd<'_>, page: u64, at: &XdpRingOffset, size: u32) -> io::Result<Ring<E>> {
    // A kernel without flags, older than 5.4, does not know the flag for wake-ups either, and refuses to bind.
    let flags = at.flags.ok_or(io::ErrorKind::Unsupported)?;
    let layout = Layout {
        producer: at.producer as usize,
        consumer: at.consumer as usize,
        flags: flags as usize,
        entries: at.desc as usize,
    };
    let mapping = Mapping::of_ring(socket, page, Ring::<E>::length(&layout, size))?;
    Ok(Ring::new(&Arc::new(mapping), &layout, size))
}

/// Binds the socket that has the UMEM.
pub fn bind(socket: BorrowedFd<'_>, queue: &QueueId, offer: Offer) -> io::Result<()> {
    let mode = match offer.mode {
        Mode::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
        Mode::Copy => SocketAddrXdpFlags::XDP_COPY,
    };
    let pieces =
        if offer.multi_buffer { SocketAddrXdpFlags::XDP_USE_SG } else { SocketAddrXdpFlags::empty() };
    let flags = mode | pieces | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
    Ok(rustix::net::bind(socket, &SocketAddrXdp::new(flags, ifindex(&queue.name)?, queue.queue))?)
}

/// Binds a further socket to the UMEM of one that is bound. It is like that one in all: the kernel takes no flags
/// (`xsk_bind` of net/xdp/xsk.c).
pub fn bind_shared(socket: BorrowedFd<'_>, queue: &QueueId, with: BorrowedFd<'_>) -> io::Result<()> {
    let flags = SocketAddrXdpFlags::XDP_SHARED_UMEM;
    let addr = SocketAddrXdp::new(flags, ifindex(&queue.name)?, queue.queue);
    Ok(rustix::net::bind(socket, &SocketAddrXdpWithSharedUmem { addr, shared_umem_fd: with })?)
}

/// Of the calling thread's network namespace. AF_XDP sockets do not answer this question.
fn ifindex(nic: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(socket.as_fd(), nic)?)
}
