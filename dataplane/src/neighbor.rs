//! The way to each backend, learned from the kernel and kept up to date: [`follow`] turns a set of addresses
//! into a [`HopMap`] of NIC, MAC addresses, gateway, source address and MTU.
//!
//! The kernel stays the only authority: it is asked for the route of each address (so that policy routing,
//! metrics and source preference hold) and for resolving neighbours; its events say when to ask again. This
//! module never changes a route or an address, never sends a packet itself and leaves nothing in the kernel
//! but neighbour entries that age like any other. The dataplane's housekeeping thread calls it.
//!
//! A neighbour that announces its new MAC address is followed at once. One that moves in silence is found out
//! as the kernel does it: when an entry is no longer confirmed (`base_reachable_time_ms`, half a minute by
//! default) it is probed within some ten seconds, and looked for anew when it does not answer.
//!
//! `world` holds all decisions and does no I/O; `follow` and `socket` carry bytes between it and the kernel.

mod entry;
mod facts;
mod follow;
mod message;
mod rounds;
mod schedule;
mod socket;
mod world;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use shunt_api::mac::MacAddress;

use crate::packet::ethernet::VlanTag;

pub use follow::follow;

/// The way to one backend address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Frames can be sent.
    Resolved(ResolvedHop),
    /// The kernel has no usable route: none at all, unreachable, prohibited, black hole, one that needs an
    /// encapsulation of the kernel's, or one through a NIC that is down or has no carrier.
    NoRoute,
    /// The route leaves by a device that is neither a NIC that Shunt serves nor a VLAN on one. A VLAN on a
    /// VLAN is such a device: frames leave with one tag at most.
    RouteElsewhere {
        /// That device's name; `lo` for an address of this box itself.
        ifname: String,
    },
    /// The route is known or being asked for, the neighbour is not known yet or does not answer.
    Unresolved,
}

/// What is needed to send a frame towards one backend address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedHop {
    /// The NIC that the frame leaves by, which Shunt serves.
    pub ifindex: u32,
    /// The tag that the frame carries: the route leaves by a VLAN device on that NIC.
    pub vlan: Option<VlanTag>,
    /// The address of the device that the route leaves by: the NIC's, or the VLAN device's.
    pub source_mac: MacAddress,
    /// The gateway's address, or the backend's where it is on the link.
    pub destination_mac: MacAddress,
    /// The router on the way; an IPv4 backend may have an IPv6 gateway.
    pub gateway: Option<IpAddr>,
    /// The source that the kernel prefers towards the backend; `None` while the box has no address that fits.
    pub source_address: Option<IpAddr>,
    /// Largest IP packet in bytes: the route's own MTU (path MTU included) where it has one, never more than
    /// the NIC's or the VLAN device's. A VLAN tag does not count.
    pub mtu: u32,
}

/// Every wanted address with its hop.
pub type HopMap = BTreeMap<IpAddr, Hop>;

/// A network interface as far as sending through it is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface name.
    pub name: String,
    /// Its Ethernet address; all zero where the device has none.
    pub mac: MacAddress,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Administratively up, with carrier and operational (RFC 2863).
    pub up: bool,
    /// Set for a VLAN device (`ip link add link eth1 name eth1.20 type vlan id 20`).
    pub vlan: Option<Vlan>,
}

/// What a VLAN device stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The ifindex of the device below, in the same network namespace.
    pub parent: u32,
    /// What the frames carry there.
    pub tag: VlanTag,
}

/// Every interface of the network namespace, by ifindex.
pub type LinkMap = BTreeMap<u32, Link>;

/// Why next hops are no longer followed. The maps published last stay as they are; start [`follow`] again.
#[derive(Debug, thiserror::Error)]
pub enum NeighborError {
    /// A netlink system call failed.
    #[error("netlink: cannot {doing}: {source}; start following again, the kernel is then read anew")]
    Netlink {
        /// What was tried, as an infinitive.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A request was not answered in time.
    #[error(
        "netlink: the kernel did not answer within {seconds} s; start following again, the kernel is then read anew"
    )]
    NoAnswer {
        /// How long was waited.
        seconds: u64,
    },
    /// Neighbours cannot be resolved by this process.
    #[error("netlink: the kernel does not let this process resolve neighbours; give it CAP_NET_ADMIN")]
    NotPermitted,
    /// The other end of a channel is gone, which is how following is ended.
    #[error("nobody wants next hops any more; this ends the follower and needs no action")]
    Closed,
}
