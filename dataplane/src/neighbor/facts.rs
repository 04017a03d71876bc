//! The words between `World` and the kernel: what changed, how an address is reached, what to ask.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::neighbour::NeighbourState;
use shunt_api::mac::MacAddress;

use super::Link;
use super::schedule::Key;

/// A change that the kernel reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A link is there, and like this.
    Link { ifindex: u32, link: Link },
    /// A link was removed.
    LinkGone { ifindex: u32 },
    /// A neighbour entry is there, and like this.
    Neighbour { key: Key, state: NeighbourState, mac: Option<MacAddress> },
    /// A neighbour entry was removed.
    NeighbourGone { key: Key },
    /// A route to this prefix came, went or changed.
    RouteChanged(IpNet),
    /// Addresses, rules or next-hop objects changed: any route may be different.
    RoutesChanged,
}

/// The kernel's answer to "how is this address reached?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// By sending to a neighbour.
    Via(Route),
    /// It is an address of this box.
    Local { ifindex: u32 },
    /// Not at all.
    NoRoute,
}

/// A usable route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The device it leaves by: a NIC, or a VLAN device.
    pub ifindex: u32,
    /// The neighbour to send to; none where the address itself is on the link.
    pub gateway: Option<IpAddr>,
    /// The source that the kernel prefers.
    pub source: Option<IpAddr>,
    /// In bytes, where the route has one of its own.
    pub mtu: Option<u32>,
}

/// What must be asked of the kernel now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    /// Read all links and neighbours and call `World::resync`.
    pub resync: bool,
    /// Ask for the routes of these and call `World::answer` with each.
    pub routes: Vec<IpAddr>,
    /// Ask the kernel to resolve or confirm these.
    pub neighbours: Vec<Inquiry>,
}

/// One neighbour to ask the kernel about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inquiry {
    /// Which.
    pub key: Key,
    /// The kernel has no entry: make one.
    pub create: bool,
}
