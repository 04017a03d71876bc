//! The last step of a packet that goes on: its bytes as they leave, in place.
//!
//! Pure functions on the buffer of a packet's first piece: the frame lies somewhere in it, afterwards it lies at
//! the returned range. Direct routing replaces the Ethernet header, a tunnel puts an outer IP header before the
//! IP packet, which stays as it is; [`translate`] changes its ends. VLAN tags of the way in do not go out, but
//! that of the way out does.

mod fragment;
mod translate;

pub use fragment::split_outer;
pub use translate::translate;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ipnet::{Ipv4Net, Ipv6Net};
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::Tunnel;

use crate::flow::FlowKey;
use crate::packet::Packet;
use crate::packet::ethernet::{self, EtherType, VlanTag};
use crate::packet::icmp::{IPV4_IN_IP, IPV6_IN_IP};
use crate::packet::{ipv4, ipv6};

/// The Ethernet header to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Of the next hop.
    pub destination: MacAddress,
    /// Of the NIC the packet leaves by, or of the VLAN device on it.
    pub source: MacAddress,
    /// Tag to leave with.
    pub vlan: Option<VlanTag>,
    /// Bytes of IP packet that fit.
    pub mtu: u32,
}

/// Both ends of a tunnel, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// IPv4
    V4 {
        /// Outer source.
        source: Ipv4Addr,
        /// The backend.
        destination: Ipv4Addr,
    },
    /// IPv6
    V6 {
        /// Outer source.
        source: Ipv6Addr,
        /// The backend.
        destination: Ipv6Addr,
        /// 20 bits that differ between flows.
        flow_label: u32,
    },
}

/// A frame ready to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where it lies.
    pub range: Range<usize>,
    /// The bytes before the packet were too few, so it moved back within the buffer.
    pub moved: bool,
}

impl Outer {
    /// Bytes of the header.
    pub fn length(&self) -> usize {
        match self {
            Self::V4 { .. } => ipv4::HEADER_LENGTH,
            Self::V6 { .. } => ipv6::HEADER_LENGTH,
        }
    }
}

/// Bytes of the client's IP packet that fit a way, tunnel header subtracted.
pub fn room(link: &Link, outer: Option<&Outer>) -> u32 {
    link.mtu.saturating_sub(outer.map_or(0, |outer| outer.length() as u32))
}

/// Writes the headers before the IP packet of the frame at `at`: Ethernet, tag, and the outer one of a tunnel.
/// Whether the packet fits the way is for the caller to know ([`room`]). `None` if the buffer has no room for the
/// headers.
pub fn place(
    buffer: &mut [u8],
    at: Range<usize>,
    packet: &Packet,
    link: &Link,
    outer: Option<&Outer>,
) -> Option<Placed> {
    let outer_length = outer.map_or(0, Outer::length);
    let before = ethernet::HEADER_LENGTH + link.vlan.map_or(0, |_| ethernet::TAG_LENGTH) + outer_length;
    let came_at = at.start + usize::from(packet.ip_offset);
    let goes_at = came_at.max(before);
    let end = goes_at + (at.end - came_at);
    if end > buffer.len() {
        return None;
    }
    let moved = goes_at != came_at;
    if moved {
        buffer.copy_within(came_at..at.end, goes_at);
    }
    let ether_type = match outer {
        None => inner_type(packet),
        Some(outer) => write_outer(&mut buffer[goes_at - outer_length..goes_at], packet, outer),
    };
    let start = goes_at - before;
    write_ethernet(&mut buffer[start..goes_at - outer_length], link, ether_type);
    Some(Placed { range: start..end, moved })
}

/// Outer source address and flow label for a flow, from `hash`'s bits (DESIGN §4). Where no prefix is
/// configured for the backend's family the source is `own`, the box's address towards the backend; `None` if
/// there is none of that family.
pub fn outer_for(tunnel: &Tunnel, own: Option<IpAddr>, backend: IpAddr, hash: u64) -> Option<Outer> {
    match backend {
        IpAddr::V4(destination) => {
            let own = match own {
                Some(IpAddr::V4(own)) => Some(own),
                _ => None,
            };
            let source = tunnel.source_v4.map(|prefix| spread_v4(prefix, hash)).or(own)?;
            Some(Outer::V4 { source, destination })
        }
        IpAddr::V6(destination) => {
            let own = match own {
                Some(IpAddr::V6(own)) => Some(own),
                _ => None,
            };
            let source = tunnel.source_v6.map(|prefix| spread_v6(prefix, hash)).or(own)?;
            Some(Outer::V6 { source, destination, flow_label: (hash >> 44) as u32 })
        }
    }
}

fn spread_v4(prefix: Ipv4Net, hash: u64) -> Ipv4Addr {
    let host_bits = hash as u32 & prefix.hostmask().to_bits();
    Ipv4Addr::from_bits(prefix.network().to_bits() | host_bits)
}

fn spread_v6(prefix: Ipv6Net, hash: u64) -> Ipv6Addr {
    let host_bits = u128::from(hash) & prefix.hostmask().to_bits();
    Ipv6Addr::from_bits(prefix.network().to_bits() | host_bits)
}

fn write_outer(bytes: &mut [u8], packet: &Packet, outer: &Outer) -> EtherType {
    let protocol = match packet.flow {
        FlowKey::V4(_) => IPV4_IN_IP,
        FlowKey::V6(_) => IPV6_IN_IP,
    };
    match *outer {
        Outer::V4 { source, destination } => {
            let header = ipv4::outer(packet.traffic_class, packet.ip_length, protocol, source, destination);
            bytes.copy_from_slice(&header);
            EtherType::Ipv4
        }
        Outer::V6 { source, destination, flow_label } => {
            let (class, length) = (packet.traffic_class, packet.ip_length);
            bytes.copy_from_slice(&ipv6::outer(class, flow_label, length, protocol, source, destination));
            EtherType::Ipv6
        }
    }
}

fn inner_type(packet: &Packet) -> EtherType {
    match packet.flow {
        FlowKey::V4(_) => EtherType::Ipv4,
        FlowKey::V6(_) => EtherType::Ipv6,
    }
}

fn write_ethernet(header: &mut [u8], link: &Link, ether_type: EtherType) {
    let (addresses, types) = header.split_at_mut(12);
    addresses[0..6].copy_from_slice(&link.destination.0);
    addresses[6..12].copy_from_slice(&link.source.0);
    let (tag, ether) = types.split_at_mut(types.len() - 2);
    if let Some(vlan) = link.vlan {
        tag.copy_from_slice(&vlan.to_be_bytes());
    }
    ether.copy_from_slice(&ether_type.to_be_bytes());
}

#[cfg(test)]
mod tests;
