//! AF_XDP through xsk-rs, which wraps libxdp: its ring calls are functions in C, and a packet leaves from where the
//! kernel put it only.
//!
//! A chunk keeps the descriptor that it had when it was last received; all come from the UMEM at the start and from
//! the kernel's rings after that. This module makes none, which is what makes the unsafe ring calls sound.
#![allow(unsafe_code)] // xsk-rs leaves exclusive use of a frame to its caller.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue};

use super::open::Offer;
use super::rings::{Rings, Umem};
use super::{Mode, OpenError, QueueId};
use crate::limits::FRAME_SIZE;
use crate::port::Frame;
use crate::port::chains::Piece;

/// A UMEM made by libxdp.
pub struct LibxdpUmem {
    umem: xsk_rs::Umem,
    ring_size: u32,
    /// By chunk.
    descriptors: Vec<FrameDesc>,
    /// What comes out of a ring.
    scratch: Vec<FrameDesc>,
}

/// The rings of a socket made by libxdp.
pub struct LibxdpRings {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    ring_size: usize,
    staged: Vec<FrameDesc>,
    /// What goes into the fill ring.
    filling: Vec<FrameDesc>,
}

impl Umem for LibxdpUmem {
    type Rings = LibxdpRings;

    fn new(chunks: u32, ring_size: u32) -> Result<Self, OpenError> {
        let impossible = || OpenError::RingSize(ring_size);
        let twice = QueueSize::new(2 * ring_size).map_err(|_| impossible())?;
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(FRAME_SIZE).map_err(|_| impossible())?)
            .fill_queue_size(twice)
            .comp_queue_size(twice)
            .build()
            .map_err(|_| impossible())?;
        let count = NonZeroU32::new(chunks).ok_or_else(impossible)?;
        let (umem, descriptors) = xsk_rs::Umem::new(config, count, false)
            .map_err(|error| OpenError::umem(chunks, os_error(&error)))?;
        let scratch = vec![FrameDesc::default(); ring_size as usize];
        Ok(Self { umem, ring_size, descriptors, scratch })
    }

    fn bind(&mut self, queue: &QueueId, offer: Offer) -> Result<(LibxdpRings, OwnedFd), OpenError> {
        let config = socket_config(self.ring_size, offer)?;
        let refused = |source: io::Error| OpenError::bind(queue, source);
        let interface: Interface =
            queue.name.parse().map_err(|_| refused(io::ErrorKind::InvalidInput.into()))?;
        // SAFETY: no queue is bound twice from one UMEM, and the flag that the contract asks for is set.
        let made = unsafe { Socket::new(config, &self.umem, &interface, queue.queue) };
        let (tx, rx, rings) = made.map_err(|error| refused(os_error(&error)))?;
        let (fill, completion) = rings.ok_or_else(|| refused(io::ErrorKind::AddrInUse.into()))?;
        let ring_size = self.ring_size as usize;
        let staged = Vec::with_capacity(ring_size);
        let filling = Vec::with_capacity(2 * ring_size);
        let rings = LibxdpRings { rx, tx, fill, completion, ring_size, staged, filling };
        let fd = rings.socket().try_clone_to_owned().map_err(refused)?;
        Ok((rings, fd))
    }

    fn buffer(&mut self, frame: &Frame) -> &mut [u8] {
        let descriptor = &mut self.descriptors[frame.chunk as usize];
        // SAFETY: the caller has the token of this chunk, so neither the kernel nor another frame uses it.
        let mut data = unsafe { self.umem.data_mut(descriptor) };
        data.cursor().set_pos(FRAME_SIZE as usize);
        let bytes = data.contents_mut();
        // SAFETY: same memory, same exclusive use; the borrow is widened from `data` to `self`, which owns
        // the mapping and is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr(), bytes.len()) }
    }
}

impl LibxdpUmem {
    /// Keeps the descriptors that a ring returned, and says which chunk each is of.
    fn keep(&mut self, count: usize) -> impl Iterator<Item = (u32, &FrameDesc)> {
        let descriptors = &mut self.descriptors;
        self.scratch[..count].iter().map(|descriptor| {
            let chunk = descriptor.addr() / FRAME_SIZE as usize;
            descriptors[chunk] = *descriptor;
            (chunk as u32, descriptor)
        })
    }
}

impl Rings for LibxdpRings {
    type Umem = LibxdpUmem;

    fn receive(&mut self, umem: &mut LibxdpUmem, limit: usize, mut each: impl FnMut(Piece)) -> usize {
        let limit = limit.min(umem.scratch.len());
        // SAFETY: the kernel returns frames of this UMEM that were given to it through the fill ring.
        let received = unsafe { self.rx.consume(&mut umem.scratch[..limit]) };
        for (chunk, descriptor) in umem.keep(received) {
            let (length, more) = (descriptor.lengths().data() as u16, descriptor.has_more_frames());
            each(Piece { chunk, start: 0, length, more });
        }
        received
    }

    fn fill(&mut self, umem: &LibxdpUmem, chunks: &[u32]) -> bool {
        self.filling.clear();
        self.filling.extend(chunks.iter().map(|&chunk| umem.descriptors[chunk as usize]));
        // SAFETY: the descriptors belong to this UMEM, and the caller gives up their chunks if they are accepted.
        let accepted = unsafe { self.fill.produce(&self.filling) };
        accepted == chunks.len()
    }

    fn fill_needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    fn has_room(&mut self, pieces: usize) -> bool {
        let wanted = self.staged.len() + pieces;
        wanted <= self.tx.nb_free(wanted as u32) as usize
    }

    fn stage(&mut self, umem: &mut LibxdpUmem, piece: Piece) -> bool {
        let descriptor = &mut umem.descriptors[piece.chunk as usize];
        // SAFETY: the caller has the token of this chunk, so neither the kernel nor another frame uses it.
        let mut data = unsafe { umem.umem.data_mut(descriptor) };
        let is_moved = piece.start != 0;
        if is_moved {
            // xsk-rs cannot move the start of a descriptor.
            data.cursor().set_pos(FRAME_SIZE as usize);
            data.contents_mut().copy_within(piece.range(), 0);
        }
        data.cursor().set_pos(usize::from(piece.length));
        descriptor.set_options(if piece.more { libc::XDP_PKT_CONTD } else { 0 });
        self.staged.push(*descriptor);
        is_moved
    }

    fn send(&mut self) {
        // SAFETY: staged descriptors belong to this UMEM, and their frames' tokens were consumed.
        let accepted = unsafe { self.tx.produce(&self.staged) };
        assert_eq!(accepted, self.staged.len(), "no more is staged than there is room for");
        self.staged.clear();
    }

    fn transmit_needs_wakeup(&self) -> bool {
        self.tx.needs_wakeup()
    }

    fn unsent(&mut self) -> usize {
        self.ring_size - self.tx.nb_free_exact() as usize
    }

    fn completed(&mut self, umem: &mut LibxdpUmem, free: &mut Vec<u32>) -> usize {
        let before = free.len();
        loop {
            // SAFETY: the kernel returns addresses of this UMEM that were handed to this socket's ring.
            let done = unsafe { self.completion.consume(&mut umem.scratch) };
            free.extend(umem.keep(done).map(|(chunk, _)| chunk));
            if done < umem.scratch.len() {
                return free.len() - before;
            }
        }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: `rx` keeps the descriptor open for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }
}

fn socket_config(ring_size: u32, offer: Offer) -> Result<SocketConfig, OpenError> {
    let size = QueueSize::new(ring_size).map_err(|_| OpenError::RingSize(ring_size))?;
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
    Ok(config)
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
