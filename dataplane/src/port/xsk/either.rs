//! The choice between the implementations, once, before the packet path begins.

use shunt_api::snapshot::Rings;

use super::{LibxdpUmem, Offers, OpenError, OwnUmem, QueueId, Settings, SocketHandle, Waker, XskPort};

/// A port of one or the other kind.
pub enum EitherPort {
    /// With rings of our own.
    Own(XskPort<OwnUmem>),
    /// Through xsk-rs.
    XskRs(XskPort<LibxdpUmem>),
}

impl EitherPort {
    /// See [`XskPort::open`].
    pub fn open(
        rings: Rings,
        queues: &[QueueId],
        settings: &Settings,
        offers: &mut Offers,
    ) -> Result<(Self, Waker, Vec<SocketHandle>), OpenError> {
        match rings {
            Rings::Own => XskPort::open(queues, settings, offers)
                .map(|(port, waker, sockets)| (Self::Own(port), waker, sockets)),
            Rings::XskRs => XskPort::open(queues, settings, offers)
                .map(|(port, waker, sockets)| (Self::XskRs(port), waker, sockets)),
        }
    }
}
