//! A port on AF_XDP sockets: one UMEM per worker, shared by its sockets on all NICs, so that a frame received on
//! one leaves on another without a copy.
//!
//! Here is what frames are due: which chunk is where, when rings are looked at and when the kernel is called. The
//! rings themselves are behind the traits of [`rings`], with two implementations to choose from: [`own`], and
//! [`libxdp`] through xsk-rs.
//!
//! Frames are named by their chunk. A chunk is in exactly one of `free`, the kernel's rings, the staged pieces of
//! a socket, or a [`Frame`] token or [`Assembly`].

mod either;
mod error;
mod libxdp;
mod open;
mod own;
mod rings;
mod socket;
mod syscall;
mod waker;

pub use either::EitherPort;
pub use error::OpenError;
pub use libxdp::LibxdpUmem;
pub use open::Offers;
pub use own::OwnUmem;
pub use socket::{Mode, QueueId, SocketHandle, combined};
pub use waker::Waker;

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use open::Attempt;
use rings::{Rings, Umem};

use super::chains::Assembly;
use super::stock::Stock;
use super::{Census, Frame, NicIndex, Port, PortCounters};

/// Frames of the UMEM for each entry of a ring: two fill the receive side (driver ring and receive ring),
/// one the transmit ring, and one is slack for batches in the worker.
const FRAMES_PER_RING_ENTRY: u32 = 4;

/// How to open a worker's sockets.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Entries of each ring; a power of two.
    pub ring_size: u32,
    /// Let the socket drive the driver's polling instead of interrupts.
    pub busy_poll: bool,
}

/// One worker's sockets.
pub struct XskPort<U: Umem> {
    sockets: Vec<Socket<U::Rings>>,
    umem: U,
    stock: Stock,
    /// First socket of each NIC, by its index.
    transmit_by: Vec<Option<usize>>,
    poll: Vec<libc::pollfd>,
    waker: Waker,
    next_receive: usize,
    busy_poll: bool,
    realigned: u64,
    tx_wakeups: u64,
}

struct Socket<R> {
    rings: R,
    assembly: Assembly,
    nic: NicIndex,
    mode: Mode,
    ring_size: usize,
    /// Frames that the receive side has: in the fill ring, the driver or the receive ring.
    receiving: usize,
    /// Frames that the next flush hands to the transmit ring.
    staged: usize,
    /// Frames handed to the transmit ring and not yet completed.
    sending: usize,
}

impl<U: Umem> XskPort<U> {
    /// Opens sockets on these queues with a UMEM of their own, in the best way of `offers` that the kernel
    /// accepts; what it refuses is gone from them afterwards. Also returns what the rest of the program needs of
    /// the sockets.
    pub fn open(
        queues: &[QueueId],
        settings: &Settings,
        offers: &mut Offers,
    ) -> Result<(Self, Waker, Vec<SocketHandle>), OpenError> {
        let chunks = queues.len() as u32 * settings.ring_size * FRAMES_PER_RING_ENTRY;
        let Attempt { umem, bound } = open::best::<U>(queues, settings, chunks, offers)?;
        let waker = Waker::new()?;
        let mut sockets = Vec::with_capacity(queues.len());
        let mut handles = Vec::with_capacity(queues.len());
        for (rings, handle) in bound {
            sockets.push(Socket::new(rings, &handle, settings.ring_size as usize));
            handles.push(handle);
        }
        let mut port = Self {
            transmit_by: first_socket_of_each_nic(queues),
            poll: poll_set(&waker, &sockets),
            stock: Stock::new(chunks),
            waker: waker.clone(),
            next_receive: 0,
            busy_poll: settings.busy_poll,
            realigned: 0,
            tx_wakeups: 0,
            umem,
            sockets,
        };
        port.refill();
        Ok((port, waker, handles))
    }

    fn refill(&mut self) {
        let free = &mut self.stock.free;
        for socket in &mut self.sockets {
            let wanted = (2 * socket.ring_size).saturating_sub(socket.receiving).min(free.len());
            let rest = free.len() - wanted;
            if wanted > 0 && socket.rings.fill(&self.umem, &free[rest..]) {
                free.truncate(rest);
                socket.receiving += wanted;
            }
            // Asked every time: a driver that found the ring empty may say so after the frames were put there.
            if socket.rings.fill_needs_wakeup() {
                socket::wake_receive(socket.rings.socket());
            }
        }
    }

    fn send_staged(&mut self) {
        for socket in &mut self.sockets {
            if socket.staged > 0 {
                socket.rings.send();
                socket.sending += std::mem::take(&mut socket.staged);
            }
            self.tx_wakeups += socket.kick();
        }
    }

    fn collect_completed(&mut self) {
        for socket in self.sockets.iter_mut().filter(|socket| socket.sending > 0) {
            socket.sending -= socket.rings.completed(&mut self.umem, &mut self.stock.free);
        }
    }
}

impl<R: Rings> Socket<R> {
    fn new(rings: R, handle: &SocketHandle, ring_size: usize) -> Self {
        Self {
            rings,
            assembly: Assembly::default(),
            nic: handle.queue.nic,
            mode: handle.mode,
            ring_size,
            receiving: 0,
            staged: 0,
            sending: 0,
        }
    }

    /// Whether so many more pieces can be staged. In copy mode an entry counts as taken until its frame is
    /// completed: when the device is full the kernel steps back to the start of a packet that it has read in
    /// part (`xskq_cons_cancel_n` of net/xdp/xsk_queue.h), so none of its entries may hold another frame by then.
    fn has_room(&mut self, pieces: usize) -> bool {
        let taken = if self.mode == Mode::Copy { self.sending } else { 0 };
        taken + self.staged + pieces <= self.ring_size && self.rings.has_room(pieces)
    }

    /// Tells the kernel to transmit, if it wants to be told; returns how often. In copy mode one call takes 32
    /// frames (`TX_BATCH_SIZE` of net/xdp/xsk.c), so it is called for as long as that gets on; a full device
    /// is tried again in the next round.
    fn kick(&mut self) -> u64 {
        let mut kicks = 0;
        let mut unsent = self.rings.unsent();
        while unsent > 0 && self.rings.transmit_needs_wakeup() {
            socket::wake_transmit(self.rings.socket());
            kicks += 1;
            let left = self.rings.unsent();
            if left >= unsent || self.mode == Mode::ZeroCopy {
                break;
            }
            unsent = left;
        }
        kicks
    }
}

impl<U: Umem> Port for XskPort<U> {
    /// Looks at no more than `limit` pieces, so that a batch of large packets, too, fits a transmit ring.
    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> usize {
        let before = frames.len();
        let mut left = limit;
        for turn in 0..self.sockets.len() {
            let index = (self.next_receive + turn) % self.sockets.len();
            let Socket { rings, assembly, nic, receiving, .. } = &mut self.sockets[index];
            let take_in = |piece| self.stock.take_in(&piece, *nic, assembly, frames);
            let received = rings.receive(&mut self.umem, left, take_in);
            *receiving -= received;
            left -= received;
            if received == 0 && self.busy_poll {
                socket::wake_receive(rings.socket());
            }
        }
        self.next_receive = (self.next_receive + 1) % self.sockets.len();
        frames.len() - before
    }

    fn buffer(&mut self, frame: &Frame) -> &mut [u8] {
        self.umem.buffer(frame)
    }

    fn truncate(&mut self, frame: &mut Frame, length: usize) {
        if let Some(rest) = self.stock.chains.truncate(frame, length) {
            self.release(rest);
        }
    }

    fn spare(&mut self) -> Option<Frame> {
        let chunk = self.stock.free.pop()?;
        self.stock.in_worker += 1;
        Some(Frame::empty(chunk, NicIndex::default()))
    }

    fn transmit(&mut self, nic: NicIndex, frame: Frame) -> Result<(), Frame> {
        let Some(index) = self.transmit_by.get(usize::from(nic.0)).copied().flatten() else {
            return Err(frame);
        };
        let socket = &mut self.sockets[index];
        // The kernel would neither send nor complete a descriptor without bytes.
        if frame.range().is_empty() || !socket.has_room(frame.pieces()) {
            return Err(frame);
        }
        for piece in self.stock.chains.pieces(&frame) {
            self.realigned += u64::from(socket.rings.stage(&mut self.umem, piece));
        }
        socket.staged += frame.pieces();
        self.stock.in_worker -= frame.pieces();
        Ok(())
    }

    fn release(&mut self, frame: Frame) {
        self.stock.in_worker -= frame.pieces();
        self.stock.reclaim(&frame);
    }

    fn flush(&mut self) {
        self.send_staged();
        self.collect_completed();
        self.refill();
    }

    fn wait(&mut self, timeout: Duration) {
        let unsent = self.sockets.iter_mut().any(|socket| socket.rings.unsent() > 0);
        let timeout_ms = if unsent { 1 } else { timeout.as_millis() as i32 };
        syscall::poll(&mut self.poll, timeout_ms);
        self.waker.reset();
    }

    fn census(&self) -> Census {
        let sum = |count: fn(&Socket<U::Rings>) -> usize| self.sockets.iter().map(count).sum::<usize>();
        Census {
            fill: self.stock.free.len() + sum(|socket| socket.receiving + socket.assembly.pieces()),
            worker: self.stock.in_worker,
            transmit: sum(|socket| socket.sending + socket.staged),
            total: self.stock.total,
        }
    }

    fn counters(&self) -> PortCounters {
        let Self { realigned, tx_wakeups, .. } = *self;
        PortCounters { realigned, tx_wakeups, oversized: self.stock.oversized }
    }
}

fn first_socket_of_each_nic(queues: &[QueueId]) -> Vec<Option<usize>> {
    let nics = queues.iter().map(|queue| usize::from(queue.nic.0) + 1).max().unwrap_or(0);
    (0..nics).map(|nic| queues.iter().position(|queue| usize::from(queue.nic.0) == nic)).collect()
}

fn poll_set(waker: &Waker, sockets: &[Socket<impl Rings>]) -> Vec<libc::pollfd> {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let sockets = sockets.iter().map(|socket| entry(socket.rings.socket().as_raw_fd()));
    std::iter::once(entry(waker.as_fd().as_raw_fd())).chain(sockets).collect()
}
