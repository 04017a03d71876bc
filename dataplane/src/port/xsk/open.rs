//! How a worker's sockets get opened: in the best way that the kernel and the drivers of all its NICs accept.

use std::collections::VecDeque;

use shunt_api::snapshot::ZeroCopy;

use super::rings::Umem;
use super::socket::{Mode, QueueId, SocketHandle};
use super::{OpenError, Settings};

/// A way to bind sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
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

/// A UMEM with its sockets, all bound in one way: sockets of one UMEM share the flags of the first, and libxdp
/// cannot bind a UMEM again that was bound once. So every offer is tried from the start, never by the kernel's
/// own silent fallback.
pub(super) struct Attempt<U: Umem> {
    pub umem: U,
    pub bound: Vec<(U::Rings, SocketHandle)>,
}

/// Binds the queues in the best way that is not refused.
pub(super) fn best<U: Umem>(
    queues: &[QueueId],
    settings: &Settings,
    chunks: u32,
    offers: &mut Offers,
) -> Result<Attempt<U>, OpenError> {
    loop {
        match attempt(queues, settings, chunks, offers.left[0]) {
            Err(OpenError::Bind { .. }) if offers.refuse_best() => {}
            Err(error) if offers.zero_copy_demanded => return Err(error.zero_copy_demanded()),
            other => return other,
        }
    }
}

fn attempt<U: Umem>(
    queues: &[QueueId],
    settings: &Settings,
    chunks: u32,
    offer: Offer,
) -> Result<Attempt<U>, OpenError> {
    let mut umem = U::new(chunks, settings.ring_size)?;
    let bind = |queue| {
        let (rings, fd) = umem.bind(queue, offer)?;
        Ok((rings, SocketHandle::new(queue, fd, offer, settings.busy_poll)?))
    };
    let bound = queues.iter().map(bind).collect::<Result<_, OpenError>>()?;
    Ok(Attempt { umem, bound })
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
