//! What workers tell the control thread: few words, never waited for. A notice that finds no room is lost, and
//! the next packet with the same cause gives it again.

use crossbeam_queue::ArrayQueue;

use crate::conntrack::BackendId;
use crate::limits::NOTICES;

/// A notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A router says that tunnel packets to a backend may have no more than `mtu` bytes.
    TunnelTooBig {
        /// Of the backend.
        backend: BackendId,
        /// Bytes of outer IP packet.
        mtu: u32,
    },
    /// A backend sent a packet back that it was to keep.
    Looped {
        /// Of the backend.
        backend: BackendId,
    },
}

/// Notices of all workers that were not read yet.
#[derive(Debug)]
pub struct Notices(ArrayQueue<Notice>);

impl Default for Notices {
    fn default() -> Self {
        Self(ArrayQueue::new(NOTICES))
    }
}

impl Notices {
    /// Leaves a notice, if there is room.
    pub fn leave(&self, notice: Notice) {
        let _ = self.0.push(notice);
    }

    /// Takes those that are there.
    pub fn take(&self) -> impl Iterator<Item = Notice> + '_ {
        // No more than fit, so that busy workers do not hold the reader up.
        std::iter::from_fn(|| self.0.pop()).take(NOTICES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_come_in_order_and_never_block() {
        let notices = Notices::default();
        let looped = |id| Notice::Looped { backend: BackendId(id) };
        (0..2 * NOTICES as u32).for_each(|id| notices.leave(looped(id)));
        let taken: Vec<_> = notices.take().collect();
        assert_eq!(taken, (0..NOTICES as u32).map(looped).collect::<Vec<_>>());
        assert_eq!(notices.take().count(), 0);
    }
}
