//! How a worker's sockets get opened: in the best way that the kernel and the drivers of all its NICs accept.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use shunt_api::snapshot::ZeroCopy;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};
use xsk_rs::{FrameDesc, Umem};

use super::socket::{self, Bound, Mode, OpenError, QueueId};
use crate::limits::FRAME_SIZE;

/// How to open a worker's sockets.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Entries of each ring; a power of two.
    pub ring_size: u32,
    /// Let the socket drive the driver's polling instead of interrupts.
    pub busy_poll: bool,
}

/// A way to bind sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub mode: Mode,
    /// Packets may come and go in several pieces.
    pub multi_buffer: bool,
}

/// The ways that the kernel was not yet asked for or has not refused, best first. Kept from one try to the next:
/// a queue stays busy for a moment after a refusal, and asking for the refused again would make it busy again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offers {
    left: VecDeque<Offer>,
    zero_copy_demanded: bool,
}

impl Offers {
    /// To share memory with the driver as demanded counts for more than to take packets in pieces, which not all
    /// drivers can do. But where NICs carry packets beyond [`crate::limits::SINGLE_BUFFER_MTU`] (`jumbo`), these
    /// would be lost without a word, so that pieces count for more unless zero-copy is demanded.
    pub fn of(zero_copy: ZeroCopy, jumbo: bool) -> Self {
        let modes: &[Mode] = match zero_copy {
            ZeroCopy::On => &[Mode::ZeroCopy],
            ZeroCopy::Off => &[Mode::Copy],
            ZeroCopy::Auto => &[Mode::ZeroCopy, Mode::Copy],
        };
        let both = |&mode| [true, false].map(|multi_buffer| Offer { mode, multi_buffer });
        let mut left: Vec<Offer> = modes.iter().flat_map(both).collect();
        if jumbo {
            left.sort_by_key(|offer| !offer.multi_buffer);
        }
        Self { left: left.into(), zero_copy_demanded: zero_copy == ZeroCopy::On }
    }

    /// Takes the best offer back, unless it is the last.
    fn refuse_best(&mut self) -> bool {
        let others = self.left.len() > 1;
        if others {
            self.left.pop_front();
        }
        others
    }
}

/// A UMEM with sockets, all bound in one way: sockets of one UMEM share the flags of the first, and libxdp
/// cannot bind a UMEM again that was bound once. So every offer is tried from the start, never by the kernel's
/// own silent fallback.
pub(super) struct Attempt {
    pub umem: Umem,
    pub free: Vec<FrameDesc>,
    pub bound: Vec<Bound>,
}

/// Binds the queues in the best way that is not refused.
pub(super) fn best(
    queues: &[QueueId],
    settings: &Settings,
    frames: u32,
    offers: &mut Offers,
) -> Result<Attempt, OpenError> {
    loop {
        match attempt(queues, settings, frames, offers.left[0]) {
            Err(OpenError::Bind { .. }) if offers.refuse_best() => {}
            Err(error) if offers.zero_copy_demanded => return Err(error.zero_copy_demanded()),
            other => return other,
        }
    }
}

fn attempt(queues: &[QueueId], settings: &Settings, frames: u32, offer: Offer) -> Result<Attempt, OpenError> {
    let (umem, free) = new_umem(frames, settings.ring_size)?;
    let bind = |queue| socket::bind(&umem, queue, settings, offer);
    let bound = queues.iter().map(bind).collect::<Result<_, _>>()?;
    Ok(Attempt { umem, free, bound })
}

fn new_umem(frames: u32, ring_size: u32) -> Result<(Umem, Vec<FrameDesc>), OpenError> {
    let size = |entries| QueueSize::new(entries).map_err(|_| OpenError::RingSize(ring_size));
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(FRAME_SIZE).map_err(|_| OpenError::RingSize(ring_size))?)
        .fill_queue_size(size(2 * ring_size)?)
        .comp_queue_size(size(2 * ring_size)?)
        .build()
        .map_err(|_| OpenError::RingSize(ring_size))?;
    let count = NonZeroU32::new(frames).ok_or(OpenError::RingSize(ring_size))?;
    Umem::new(config, count, false).map_err(|error| OpenError::umem(frames, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_not_offered_again() {
        type Expected = &'static [(Mode, bool)];
        let cases: [(ZeroCopy, bool, Expected); 4] = [
            (
                ZeroCopy::Auto,
                false,
                &[(Mode::ZeroCopy, true), (Mode::ZeroCopy, false), (Mode::Copy, true), (Mode::Copy, false)],
            ),
            (
                ZeroCopy::Auto,
                true,
                &[(Mode::ZeroCopy, true), (Mode::Copy, true), (Mode::ZeroCopy, false), (Mode::Copy, false)],
            ),
            (ZeroCopy::On, true, &[(Mode::ZeroCopy, true), (Mode::ZeroCopy, false)]),
            (ZeroCopy::Off, false, &[(Mode::Copy, true), (Mode::Copy, false)]),
        ];
        for (zero_copy, jumbo, expected) in cases {
            let mut offers = Offers::of(zero_copy, jumbo);
            for (index, &(mode, multi_buffer)) in expected.iter().enumerate() {
                assert_eq!(offers.left[0], Offer { mode, multi_buffer }, "{zero_copy:?}");
                assert_eq!(offers.refuse_best(), index + 1 < expected.len(), "{zero_copy:?}");
            }
        }
    }
}
