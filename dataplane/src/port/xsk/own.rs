//! AF_XDP with rings of our own: their code is here and becomes part of the packet path, and a packet may leave from
//! anywhere in its chunk, so that none is ever moved.

mod memory;
mod ring;
mod socket;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memory::Chunks;
use ring::Descriptor;
use socket::FourRings;

use super::open::Offer;
use super::rings::{Rings, Umem};
use super::{OpenError, QueueId};
use crate::limits::FRAME_SIZE;
use crate::port::Frame;
use crate::port::chains::Piece;

/// Memory for packets, registered with the first socket.
pub struct OwnUmem {
    chunks: Chunks,
    ring_size: u32,
    /// The first, of which all share the memory.
    first: OwnedFd,
    is_bound: bool,
}

/// A socket with its rings.
pub struct OwnRings {
    rings: FourRings,
    socket: OwnedFd,
}

impl Umem for OwnUmem {
    type Rings = OwnRings;

    fn new(chunks: u32, ring_size: u32) -> Result<Self, OpenError> {
        if !ring_size.is_power_of_two() || chunks == 0 {
            return Err(OpenError::RingSize(ring_size));
        }
        let made = Chunks::new(chunks).and_then(|memory| {
            let first = socket::make()?;
            socket::register(first.as_fd(), &memory)?;
            Ok(Self { chunks: memory, ring_size, first, is_bound: false })
        });
        made.map_err(|error| OpenError::umem(chunks, error))
    }

    fn bind(&mut self, queue: &QueueId, offer: Offer) -> Result<(OwnRings, OwnedFd), OpenError> {
        let refused = |error| OpenError::bind(queue, error);
        let rings = if self.is_bound { self.bind_another(queue) } else { self.bind_first(queue, offer) };
        let rings = rings.map_err(refused)?;
        self.is_bound = true;
        let fd = rings.socket.try_clone().map_err(refused)?;
        Ok((rings, fd))
    }

    #[inline]
    fn buffer(&mut self, frame: &Frame) -> &mut [u8] {
        self.chunks.of(frame)
    }
}

impl OwnUmem {
    fn bind_first(&self, queue: &QueueId, offer: Offer) -> std::io::Result<OwnRings> {
        let rings = socket::rings(self.first.as_fd(), self.ring_size)?;
        socket::bind(self.first.as_fd(), queue, offer)?;
        Ok(OwnRings { rings, socket: self.first.try_clone()? })
    }

    fn bind_another(&self, queue: &QueueId) -> std::io::Result<OwnRings> {
        let socket = socket::make()?;
        let rings = socket::rings(socket.as_fd(), self.ring_size)?;
        socket::bind_shared(socket.as_fd(), queue, self.first.as_fd())?;
        Ok(OwnRings { rings, socket })
    }
}

impl Rings for OwnRings {
    type Umem = OwnUmem;

    #[inline]
    fn receive(&mut self, _: &mut OwnUmem, limit: usize, mut each: impl FnMut(Piece)) -> usize {
        self.rings.receive.read(limit as u32, |descriptor| each(piece(descriptor))) as usize
    }

    #[inline]
    fn fill(&mut self, _: &OwnUmem, chunks: &[u32]) -> bool {
        let has_room = self.rings.fill.has_room(chunks.len() as u32);
        if has_room {
            self.rings.fill.write_all(chunks, address);
            self.rings.fill.publish();
        }
        has_room
    }

    #[inline]
    fn fill_needs_wakeup(&self) -> bool {
        self.rings.fill.needs_wakeup()
    }

    #[inline]
    fn has_room(&mut self, pieces: usize) -> bool {
        self.rings.transmit.has_room(pieces as u32)
    }

    #[inline]
    fn stage(&mut self, _: &mut OwnUmem, piece: Piece) -> bool {
        self.rings.transmit.write(descriptor(piece));
        false
    }

    #[inline]
    fn send(&mut self) {
        self.rings.transmit.publish();
    }

    #[inline]
    fn transmit_needs_wakeup(&self) -> bool {
        self.rings.transmit.needs_wakeup()
    }

    #[inline]
    fn unsent(&mut self) -> usize {
        self.rings.transmit.unread() as usize
    }

    #[inline]
    fn completed(&mut self, _: &mut OwnUmem, free: &mut Vec<u32>) -> usize {
        self.rings.completion.read(u32::MAX, |address| free.push(chunk_of(address))) as usize
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(chunk: u32) -> u64 {
    u64::from(chunk) * u64::from(FRAME_SIZE)
}

/// Wherever in the chunk the address is.
fn chunk_of(address: u64) -> u32 {
    (address / u64::from(FRAME_SIZE)) as u32
}

fn piece(received: Descriptor) -> Piece {
    let start = (received.address % u64::from(FRAME_SIZE)) as u16;
    let more = received.options & libc::XDP_PKT_CONTD != 0;
    Piece { chunk: chunk_of(received.address), start, length: received.length as u16, more }
}

fn descriptor(sent: Piece) -> Descriptor {
    Descriptor {
        address: address(sent.chunk) + u64::from(sent.start),
        length: sent.length.into(),
        options: if sent.more { libc::XDP_PKT_CONTD } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_keeps_its_place_through_a_descriptor() {
        for (chunk, start, more, expected) in [
            (0, 0, false, Descriptor { address: 0, length: 60, options: 0 }),
            (3, 236, true, Descriptor { address: 3 * 2048 + 236, length: 60, options: 1 }),
            (u32::MAX, 2047, false, Descriptor { address: (1 << 43) - 1, length: 60, options: 0 }),
        ] {
            let sent = Piece { chunk, start, length: 60, more };
            assert_eq!(descriptor(sent), expected);
            assert_eq!(piece(expected), sent);
            assert_eq!(chunk_of(expected.address), chunk);
        }
    }
}
