//! The seam between packets and NICs: where frames come from and go to.
//!
//! A [`Port`] is one worker's view of all NICs. The same worker runs on AF_XDP sockets ([`xsk`]) and on
//! memory ([`memory`]). A [`Frame`] is a token for one buffer: it can be neither copied nor made up, so a
//! buffer is at any time in exactly one place. At all times
//! `fill + worker + transmit = total` ([`Census`]); tests hold every port to it.

pub mod memory;
pub mod xsk;

use std::ops::Range;
use std::time::Duration;

/// Index of a NIC in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NicIndex(pub u8);

/// A buffer in the worker's hands and where in it the packet lies.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame must be transmitted or released"]
pub struct Frame {
    chunk: u32,
    start: u16,
    end: u16,
}

impl Frame {
    /// The packet's place in [`Port::buffer`], from its Ethernet header on.
    pub fn range(&self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }

    /// Moves the packet's place. Panics on a range that no buffer can hold.
    pub fn set_range(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= usize::from(u16::MAX), "{range:?}");
        (self.start, self.end) = (range.start as u16, range.end as u16);
    }

    /// Bytes of the packet.
    pub fn length(&self) -> usize {
        self.range().len()
    }
}

/// Where a port's frames are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// With the port or the kernel: free, waiting for packets or holding ones not yet received.
    pub fill: usize,
    /// Received and neither transmitted nor released.
    pub worker: usize,
    /// On the way out, not yet completed.
    pub transmit: usize,
    /// All there are.
    pub total: usize,
}

impl Census {
    /// Whether every frame is in exactly one place.
    pub fn is_conserved(&self) -> bool {
        self.fill + self.worker + self.transmit == self.total
    }
}

/// What a port counts of its own work, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames moved to the start of their buffer before transmission.
    pub realigned: u64,
    /// System calls that told the kernel to transmit.
    pub tx_wakeups: u64,
}

/// One worker's queues on all NICs. No method blocks but [`Port::wait`].
pub trait Port {
    /// Receives up to `limit` frames, appended to `frames`. Returns how many.
    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> usize;

    /// All usable bytes of the frame's buffer.
    fn buffer(&mut self, frame: &Frame) -> &mut [u8];

    /// Queues a frame to leave by a NIC; gives it back if there is no room.
    fn transmit(&mut self, nic: NicIndex, frame: Frame) -> Result<(), Frame>;

    /// Gives a buffer back.
    fn release(&mut self, frame: Frame);

    /// Sends what is queued, takes back what was sent, refills the receive side. Once per batch.
    fn flush(&mut self);

    /// Sleeps until a packet may be there, the port's waker is used or the time is over.
    fn wait(&mut self, timeout: Duration);

    /// Where the frames are.
    fn census(&self) -> Census;

    /// What the port did.
    fn counters(&self) -> PortCounters;
}
