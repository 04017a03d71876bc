//! A port on AF_XDP sockets, through xsk-rs: one UMEM per worker, shared by its sockets on all NICs, so that
//! a frame received on one leaves on another without a copy.
//!
//! Frames are named by their chunk, `address / FRAME_SIZE`. A chunk's descriptor is in exactly one of
//! `free`, the kernel's rings, `staged` of a socket, or `held` on behalf of a [`Frame`] token or of a packet
//! that is still arriving. This module never creates a descriptor: all come from the UMEM at the start and from
//! the kernel's rings after that, which is what makes the unsafe ring calls sound.
#![allow(unsafe_code)] // AF_XDP rings and frames: xsk-rs leaves exclusive use of a frame to its caller.

mod open;
mod socket;

use open::Attempt;
pub use open::{Offers, Settings};
use socket::Bound;
pub use socket::{Mode, OpenError, QueueId, SocketHandle, combined};

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem};

use super::chains::{Arrival, Assembly, Chains, Piece};
use super::{Census, Frame, NicIndex, Port, PortCounters};
use crate::limits::{FRAME_SIZE, MAX_BATCH};

/// Frames of the UMEM for each entry of a ring: two fill the receive side (driver ring and receive ring),
/// one the transmit ring, and one is slack for batches in the worker.
const FRAMES_PER_RING_ENTRY: u32 = 4;

/// One worker's sockets.
pub struct XskPort {
    umem: Umem,
    sockets: Vec<Socket>,
    /// First socket of each NIC, by its index.
    transmit_by: Vec<Option<usize>>,
    free: Vec<FrameDesc>,
    /// By chunk: the descriptor of a piece that the worker holds, or that waits for the rest of its packet.
    held: Vec<FrameDesc>,
    chains: Chains,
    /// Chunks.
    in_worker: usize,
    scratch: Vec<FrameDesc>,
    poll: Vec<libc::pollfd>,
    waker: Arc<OwnedFd>,
    next_receive: usize,
    busy_poll: bool,
    counters: PortCounters,
}

struct Socket {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    staged: Vec<FrameDesc>,
    assembly: Assembly,
    nic: NicIndex,
    mode: Mode,
    ring_size: usize,
    /// Frames that the receive side has: in the fill ring, the driver or the receive ring.
    receiving: usize,
    /// Frames handed to the transmit ring and not yet completed.
    sending: usize,
}

/// Wakes a worker from [`Port::wait`], so that it sees a new table at once.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Ends the worker's sleep, if it sleeps.
    pub fn wake(&self) {
        // The counter cannot overflow: the worker empties it, and a full one wakes all the same.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl XskPort {
    /// Opens sockets on these queues with a UMEM of their own, in the best way of `offers` that the kernel
    /// accepts; what it refuses is gone from them afterwards. Also returns what the rest of the program needs of
    /// the sockets.
    pub fn open(
        queues: &[QueueId],
        settings: &Settings,
        offers: &mut Offers,
    ) -> Result<(Self, Waker, Vec<SocketHandle>), OpenError> {
        let frames = queues.len() as u32 * settings.ring_size * FRAMES_PER_RING_ENTRY;
        let Attempt { umem, free, bound } = open::best(queues, settings, frames, offers)?;
        let waker = Arc::new(
            rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).map_err(OpenError::waker)?,
        );
        let mut sockets = Vec::with_capacity(queues.len());
        let mut handles = Vec::with_capacity(queues.len());
        for bound in bound {
            let (socket, handle) = Socket::new(bound, settings.ring_size as usize);
            sockets.push(socket);
            handles.push(handle);
        }
        let mut port = Self {
            transmit_by: first_socket_of_each_nic(queues),
            poll: poll_set(&waker, &sockets),
            held: vec![FrameDesc::default(); frames as usize],
            chains: Chains::new(frames as usize),
            scratch: vec![FrameDesc::default(); MAX_BATCH.max(settings.ring_size as usize)],
            waker: waker.clone(),
            next_receive: 0,
            in_worker: 0,
            busy_poll: settings.busy_poll,
            counters: PortCounters::default(),
            umem,
            sockets,
            free,
        };
        port.refill();
        Ok((port, Waker(waker), handles))
    }

    fn refill(&mut self) {
        for socket in &mut self.sockets {
            let wanted = (2 * socket.ring_size).saturating_sub(socket.receiving).min(self.free.len());
            let from = self.free.len() - wanted;
            // SAFETY: the descriptors come from `free`, belong to this UMEM and leave `free` if accepted.
            let accepted = unsafe { socket.fill.produce(&self.free[from..]) };
            self.free.truncate(self.free.len() - accepted);
            socket.receiving += accepted;
            // Asked every time: a driver that found the ring empty may say so after the frames were put there.
            if socket.fill.needs_wakeup() {
                // Fails only on a socket whose NIC is gone, which the control thread notices.
                let _ = socket.fill.wakeup(socket.rx.fd_mut(), 0);
            }
        }
    }

    fn send_staged(&mut self) {
        for socket in &mut self.sockets {
            if !socket.staged.is_empty() {
                // SAFETY: staged descriptors belong to this UMEM, and their frames' tokens were consumed.
                let accepted = unsafe { socket.tx.produce(&socket.staged) };
                assert_eq!(
                    accepted,
                    socket.staged.len(),
                    "transmit() stages no more than the ring has room for"
                );
                socket.sending += accepted;
                socket.staged.clear();
            }
            self.counters.tx_wakeups += socket.kick();
        }
    }

    fn collect_completed(&mut self) {
        for socket in &mut self.sockets {
            while socket.sending > 0 {
                // SAFETY: the kernel returns addresses of this UMEM that were handed to this socket's ring.
                let done = unsafe { socket.completion.consume(&mut self.scratch) };
                if done == 0 {
                    break;
                }
                socket.sending -= done;
                self.free.extend_from_slice(&self.scratch[..done]);
            }
        }
    }

    /// One entry of a socket's receive ring.
    fn take_in(&mut self, index: usize, desc: FrameDesc, frames: &mut Vec<Frame>) {
        let chunk = desc.addr() / FRAME_SIZE as usize;
        self.held[chunk] = desc;
        let length = desc.lengths().data() as u32;
        let piece = Piece { chunk: chunk as u32, length, more: desc.has_more_frames() };
        let socket = &mut self.sockets[index];
        if socket.assembly.is_whole(&piece) {
            self.in_worker += 1;
            frames.push(Frame::single(&piece, socket.nic));
            return;
        }
        match socket.assembly.add(&piece, socket.nic, &mut self.chains) {
            Arrival::Incomplete => {}
            Arrival::Packet(frame) => {
                self.in_worker += frame.pieces();
                frames.push(frame);
            }
            Arrival::Oversized(frame) => {
                self.counters.oversized += 1;
                self.reclaim(&frame);
            }
            Arrival::Surplus(frame) => self.reclaim(&frame),
        }
    }

    /// Puts the descriptors of a packet, whose head piece is at the start of its buffer, where the next flush
    /// finds them.
    fn stage(&mut self, index: usize, frame: &Frame) {
        let staged = &mut self.sockets[index].staged;
        let mut more = frame.pieces();
        for (chunk, length) in self.chains.pieces(frame) {
            let desc = &mut self.held[chunk as usize];
            // SAFETY: the worker holds the token of this chunk, so neither the kernel nor another frame uses it.
            unsafe { self.umem.data_mut(desc) }.cursor().set_pos(length);
            more -= 1;
            desc.set_options(if more > 0 { libc::XDP_PKT_CONTD } else { 0 });
            staged.push(*desc);
        }
    }

    fn reclaim(&mut self, frame: &Frame) {
        self.free.extend(self.chains.chunks(frame).map(|chunk| self.held[chunk as usize]));
    }

    fn drive_driver(&self, socket: &Socket) {
        // SAFETY: a zero-length, non-blocking receive touches no memory; it only runs the driver's poll.
        unsafe {
            libc::recvfrom(
                socket.rx.fd().as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }
}

impl Socket {
    fn new(bound: Bound, ring_size: usize) -> (Self, SocketHandle) {
        let Bound { handle, rx, tx, fill, completion } = bound;
        let socket = Self {
            rx,
            tx,
            fill,
            completion,
            staged: Vec::with_capacity(ring_size),
            assembly: Assembly::default(),
            nic: handle.queue.nic,
            mode: handle.mode,
            ring_size,
            receiving: 0,
            sending: 0,
        };
        (socket, handle)
    }

    /// Whether so many more descriptors can be staged. In copy mode an entry counts as taken until its frame is
    /// completed: when the device is full the kernel steps back to the start of a packet that it has read in
    /// part (`xskq_cons_cancel_n` of net/xdp/xsk_queue.h), so none of its entries may hold another frame by then.
    fn has_room(&mut self, pieces: usize) -> bool {
        let staged = self.staged.len() + pieces;
        let free = self.tx.nb_free(staged as u32) as usize;
        let taken = if self.mode == Mode::Copy { self.sending } else { 0 };
        staged <= free && taken + staged <= self.ring_size
    }

    /// Tells the kernel to transmit, if it wants to be told; returns how often. In copy mode one call takes 32
    /// frames (`TX_BATCH_SIZE` of net/xdp/xsk.c), so it is called for as long as that gets on; a full device
    /// is tried again in the next round.
    fn kick(&mut self) -> u64 {
        let mut kicks = 0;
        let mut unsent = self.unsent();
        while unsent > 0 && self.tx.needs_wakeup() {
            let _ = self.tx.wakeup();
            kicks += 1;
            let left = self.unsent();
            if left >= unsent || self.mode == Mode::ZeroCopy {
                break;
            }
            unsent = left;
        }
        kicks
    }

    /// Descriptors in the transmit ring that the kernel has not taken yet.
    fn unsent(&mut self) -> usize {
        self.ring_size - self.tx.nb_free_exact() as usize
    }
}

impl Port for XskPort {
    /// Looks at no more than `limit` pieces, so that a batch of large packets, too, fits a transmit ring.
    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> usize {
        let before = frames.len();
        let mut left = limit.min(self.scratch.len());
        for turn in 0..self.sockets.len() {
            let index = (self.next_receive + turn) % self.sockets.len();
            // SAFETY: the kernel returns frames of this UMEM that were given to it through the fill ring.
            let received = unsafe { self.sockets[index].rx.consume(&mut self.scratch[..left]) };
            self.sockets[index].receiving -= received;
            left -= received;
            if received == 0 && self.busy_poll {
                self.drive_driver(&self.sockets[index]);
            }
            for position in 0..received {
                self.take_in(index, self.scratch[position], frames);
            }
        }
        self.next_receive = (self.next_receive + 1) % self.sockets.len();
        frames.len() - before
    }

    fn buffer(&mut self, frame: &Frame) -> &mut [u8] {
        let desc = &mut self.held[frame.chunk as usize];
        // SAFETY: the worker holds the token of this chunk, so neither the kernel nor another frame uses it.
        let mut data = unsafe { self.umem.data_mut(desc) };
        data.cursor().set_pos(FRAME_SIZE as usize);
        let bytes = data.contents_mut();
        // SAFETY: same memory, same exclusive use; the borrow is widened from `data` to `self`, which owns
        // the mapping and is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr(), bytes.len()) }
    }

    fn truncate(&mut self, frame: &mut Frame, length: usize) {
        if let Some(rest) = self.chains.truncate(frame, length) {
            self.release(rest);
        }
    }

    fn spare(&mut self) -> Option<Frame> {
        let desc = self.free.pop()?;
        let chunk = desc.addr() / FRAME_SIZE as usize;
        self.held[chunk] = desc;
        self.in_worker += 1;
        Some(Frame::empty(chunk as u32, NicIndex::default()))
    }

    fn transmit(&mut self, nic: NicIndex, frame: Frame) -> Result<(), Frame> {
        let Some(index) = self.transmit_by.get(usize::from(nic.0)).copied().flatten() else {
            return Err(frame);
        };
        let range = frame.range();
        // The kernel would neither send nor complete a descriptor without bytes.
        if range.is_empty() || !self.sockets[index].has_room(frame.pieces()) {
            return Err(frame);
        }
        if range.start != 0 {
            // xsk-rs cannot move the start of a descriptor.
            self.buffer(&frame).copy_within(range, 0);
            self.counters.realigned += 1;
        }
        self.stage(index, &frame);
        self.in_worker -= frame.pieces();
        Ok(())
    }

    fn release(&mut self, frame: Frame) {
        self.in_worker -= frame.pieces();
        self.reclaim(&frame);
    }

    fn flush(&mut self) {
        self.send_staged();
        self.collect_completed();
        self.refill();
    }

    fn wait(&mut self, timeout: Duration) {
        let unsent = self.sockets.iter_mut().any(|socket| socket.unsent() > 0);
        let timeout_ms = if unsent { 1 } else { timeout.as_millis() as libc::c_int };
        // SAFETY: `poll` points at as many initialised entries as it says; the descriptors outlive the call.
        unsafe { libc::poll(self.poll.as_mut_ptr(), self.poll.len() as libc::nfds_t, timeout_ms) };
        let _ = rustix::io::read(&*self.waker, &mut [0u8; 8]);
    }

    fn census(&self) -> Census {
        let sum = |count: fn(&Socket) -> usize| self.sockets.iter().map(count).sum::<usize>();
        Census {
            fill: self.free.len() + sum(|socket| socket.receiving + socket.assembly.pieces()),
            worker: self.in_worker,
            transmit: sum(|socket| socket.sending + socket.staged.len()),
            total: self.held.len(),
        }
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

fn first_socket_of_each_nic(queues: &[QueueId]) -> Vec<Option<usize>> {
    let nics = queues.iter().map(|queue| usize::from(queue.nic.0) + 1).max().unwrap_or(0);
    (0..nics).map(|nic| queues.iter().position(|queue| usize::from(queue.nic.0) == nic)).collect()
}

fn poll_set(waker: &OwnedFd, sockets: &[Socket]) -> Vec<libc::pollfd> {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let sockets = sockets.iter().map(|socket| entry(socket.rx.fd().as_raw_fd()));
    std::iter::once(entry(waker.as_raw_fd())).chain(sockets).collect()
}
