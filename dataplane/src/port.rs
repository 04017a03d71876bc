//! The seam between packets and NICs: where packets come from and go to.
//!
//! A [`Port`] is one worker's view of all NICs. The same worker runs on AF_XDP sockets ([`xsk`]) and on
//! memory ([`memory`]). A packet lies in one buffer, or in several if it is large: the *head piece*, which is
//! all that is parsed and rewritten, and the rest, which nobody but the port looks at. A [`Frame`] is a token
//! for all of them: it can be neither copied nor made up, so a buffer is at any time in exactly one place. At
//! all times `fill + worker + transmit = total` ([`Census`]); tests hold every port to it.

mod chains;
pub mod memory;
mod stock;
pub mod xsk;

use std::ops::Range;
use std::time::Duration;

use chains::Piece;

/// Index of a NIC in the order of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NicIndex(pub u8);

/// A packet in the worker's hands and where in its first buffer it begins.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame must be transmitted or released"]
pub struct Frame {
    /// Of the head piece.
    chunk: u32,
    /// Bytes of the other pieces.
    tail: u32,
    start: u16,
    end: u16,
    /// Chunks, the head's included.
    pieces: u8,
    nic: NicIndex,
}

const _: () = assert!(size_of::<Frame>() <= 16, "four tokens to a cache line");

impl Frame {
    /// A packet of one piece.
    fn single(piece: &Piece, nic: NicIndex) -> Self {
        let (start, end) = (piece.start, piece.start + piece.length);
        Self { start, end, ..Self::empty(piece.chunk, nic) }
    }

    /// A chunk without bytes.
    fn empty(chunk: u32, nic: NicIndex) -> Self {
        Self { chunk, tail: 0, start: 0, end: 0, pieces: 1, nic }
    }

    /// The head piece's place in [`Port::buffer`], from its Ethernet header on.
    #[inline(always)]
    pub fn range(&self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }

    /// Moves the start of the head piece's place; not beyond its end.
    #[inline(always)]
    pub fn skip(&mut self, bytes: usize) {
        self.start = self.end.min(self.start + bytes as u16);
    }

    /// Moves the head piece's place. Panics on a range that no buffer can hold.
    #[inline(always)]
    pub fn set_range(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= usize::from(u16::MAX), "no place in a buffer");
        (self.start, self.end) = (range.start as u16, range.end as u16);
    }

    /// Bytes of the packet behind its head piece; 0 unless it is larger than a buffer.
    #[inline(always)]
    pub fn tail_length(&self) -> usize {
        self.tail as usize
    }

    /// Bytes of the packet.
    #[inline(always)]
    pub fn length(&self) -> usize {
        usize::from(self.end) - usize::from(self.start) + self.tail_length()
    }

    /// The NIC that the packet came in by.
    #[inline(always)]
    pub fn nic(&self) -> NicIndex {
        self.nic
    }

    /// The NIC that the packet came in by is of no more interest; this is the one it shall leave by.
    #[inline(always)]
    pub fn set_nic(&mut self, nic: NicIndex) {
        self.nic = nic;
    }

    /// Buffers that the packet occupies.
    fn pieces(&self) -> usize {
        usize::from(self.pieces)
    }
}

/// Where a port's buffers are. A packet counts with all its pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// With the port or the kernel: free, waiting for packets or holding ones not yet wholly received.
    pub fill: usize,
    /// Received or spare, and neither transmitted nor released.
    pub worker: usize,
    /// On the way out, not yet completed.
    pub transmit: usize,
    /// All there are.
    pub total: usize,
}

impl Census {
    /// Whether every buffer is in exactly one place.
    pub fn is_conserved(&self) -> bool {
        self.fill + self.worker + self.transmit == self.total
    }
}

/// What a port counts of its own work, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames moved to the start of their buffer before transmission, which [`xsk`] through xsk-rs needs.
    pub realigned: u64,
    /// System calls that told the kernel to transmit.
    pub tx_wakeups: u64,
    /// Packets dropped because they came in more pieces than [`crate::limits::MAX_PIECES`].
    pub oversized: u64,
}

/// [`Port::transmit_all`], one after the other.
fn transmit_each(port: &mut (impl Port + ?Sized), frames: &mut Vec<Frame>) {
    frames.retain_mut(|slot| {
        let frame = std::mem::replace(slot, Frame::empty(0, NicIndex(0)));
        match port.transmit(frame.nic, frame) {
            Ok(()) => false,
            Err(frame) => {
                *slot = frame;
                true
            }
        }
    });
}

/// One worker's queues on all NICs. No method blocks but [`Port::wait`].
pub trait Port {
    /// Receives up to `limit` packets, appended to `frames`. Returns how many. There may be more even if these
    /// are fewer, and a packet of which only some pieces are there yet stays with the port.
    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> usize;

    /// All usable bytes of the head piece's buffer.
    fn buffer(&mut self, frame: &Frame) -> &mut [u8];

    /// Makes the packet end `length` bytes after its start; buffers no longer needed are free again. A packet
    /// that is not longer stays as it is.
    fn truncate(&mut self, frame: &mut Frame, length: usize);

    /// An empty buffer for a packet of the worker's own, if one is free: its range is 0..0, its NIC the first.
    fn spare(&mut self) -> Option<Frame>;

    /// Queues a packet with all its pieces to leave by a NIC. Gives it back as it was if there is no room, no
    /// such NIC, or not a single byte in the head piece, which no NIC sends.
    fn transmit(&mut self, nic: NicIndex, frame: Frame) -> Result<(), Frame>;

    /// As [`Self::transmit`] for many packets, each by the NIC that it names. Those for which there is no room stay.
    fn transmit_all(&mut self, frames: &mut Vec<Frame>) {
        transmit_each(self, frames);
    }

    /// Gives a packet's buffers back.
    fn release(&mut self, frame: Frame);

    /// Sends what is queued, takes back what was sent, refills the receive side. Once per batch.
    fn flush(&mut self);

    /// Sleeps until a packet may be there, the port's waker is used or the time is over.
    fn wait(&mut self, timeout: Duration);

    /// Where the buffers are.
    fn census(&self) -> Census;

    /// What the port did.
    fn counters(&self) -> PortCounters;
}
