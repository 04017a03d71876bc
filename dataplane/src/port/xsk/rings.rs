//! The seam between the port and what drives AF_XDP: a UMEM, which is memory in chunks, and sockets bound to it with
//! four rings each. [`super::own`] and [`super::libxdp`] stand behind it; the port is compiled for each.
//!
//! Chunks are named by their number. Every chunk is in one place: with the kernel between [`Rings::fill`] and
//! [`Rings::receive`] and between [`Rings::stage`] and [`Rings::completed`], otherwise with the port. To keep to
//! that is the port's part, and [`super::super::Census`] holds it to it.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::open::Offer;
use super::{OpenError, QueueId};
use crate::port::Frame;
use crate::port::chains::Piece;

/// Memory for packets, shared by the sockets of a worker.
pub trait Umem: Sized {
    /// The rings of a socket bound to it.
    type Rings: Rings<Umem = Self>;

    /// Of so many chunks, for sockets with receive and transmit rings of `ring_size` entries, and with fill and
    /// completion rings of twice as many.
    fn new(chunks: u32, ring_size: u32) -> Result<Self, OpenError>;

    /// Binds a queue in this way or not at all; the sockets after the first as the first. Also returns a duplicate
    /// of the socket's descriptor.
    fn bind(&mut self, queue: &QueueId, offer: Offer) -> Result<(Self::Rings, OwnedFd), OpenError>;

    /// All usable bytes of the head piece's chunk.
    fn buffer(&mut self, frame: &Frame) -> &mut [u8];
}

/// The rings of one socket.
pub trait Rings {
    /// The memory that its entries are about.
    type Umem;

    /// Takes up to `limit` entries of the receive ring, oldest first. Returns how many there were.
    fn receive(&mut self, umem: &mut Self::Umem, limit: usize, each: impl FnMut(Piece)) -> usize;

    /// Gives chunks to the receive side: all, or none if there is no room, which it then says.
    fn fill(&mut self, umem: &Self::Umem, chunks: &[u32]) -> bool;

    /// Whether the driver waits for a call before it looks at the fill ring.
    fn fill_needs_wakeup(&self) -> bool;

    /// Whether so many pieces can be staged in addition to those that are.
    fn has_room(&mut self, pieces: usize) -> bool;

    /// Writes a piece where the next [`Rings::send`] hands it to the kernel; to be preceded by
    /// [`Rings::has_room`]. Returns whether its bytes had to be moved within its chunk.
    fn stage(&mut self, umem: &mut Self::Umem, piece: Piece) -> bool;

    /// Hands all staged pieces to the kernel.
    fn send(&mut self);

    /// Whether the driver waits for a call before it looks at the transmit ring.
    fn transmit_needs_wakeup(&self) -> bool;

    /// Pieces handed to the kernel that it has not looked at yet.
    fn unsent(&mut self) -> usize;

    /// Takes all chunks that were sent, and appends them to `free`. Returns how many.
    fn completed(&mut self, umem: &mut Self::Umem, free: &mut Vec<u32>) -> usize;

    /// The socket.
    fn socket(&self) -> BorrowedFd<'_>;
}
