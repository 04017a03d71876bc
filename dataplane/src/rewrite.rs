//! The last step of a packet: its bytes as they leave, in place.
//!
//! Pure functions on a buffer: the packet lies somewhere in it, afterwards it lies at the returned range.
//! The IP packet itself is never changed; direct routing replaces the Ethernet header, a tunnel puts an
//! outer IP header before it. VLAN tags of the way in do not go out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ipnet::{Ipv4Net, Ipv6Net};
use shunt_api::counters::DropReason;
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::TunnelSource;

use crate::flow::FlowKey;
use crate::packet::Packet;
use crate::packet::ethernet::{self, EtherType, VlanTag};
use crate::packet::{ipv4, ipv6};

/// IANA number of IPv4 inside another IP header (RFC 2003).
const IPV4_IN_IP: u8 = 4;
/// IANA number of IPv6 inside another IP header (RFC 2473, RFC 4213).
const IPV6_IN_IP: u8 = 41;

/// The Ethernet header to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Of the next hop.
    pub destination: MacAddress,
    /// Of the NIC the packet leaves by, or of the VLAN device on it.
    pub source: MacAddress,
    /// The tag behind the addresses.
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

/// Shortest Ethernet frame, check sequence not counted; what fills a short one up stays on it.
const MIN_FRAME_LENGTH: usize = 60;

/// Direct routing: a new Ethernet header before the same IP packet. `at` is where the frame lies. Bytes behind
/// the packet go no further than padding does.
pub fn direct(
    buffer: &mut [u8],
    at: Range<usize>,
    packet: &Packet,
    link: &Link,
) -> Result<Range<usize>, DropReason> {
    if u32::from(packet.ip_length) > link.mtu {
        return Err(DropReason::TooBig);
    }
    let start = at.start + usize::from(packet.ip_offset) - ethernet::HEADER_LENGTH;
    write_ethernet(buffer, start, link, inner_type(packet));
    let length = (ethernet::HEADER_LENGTH + usize::from(packet.ip_length)).max(MIN_FRAME_LENGTH);
    Ok(start..at.end.min(start + length))
}

/// IP-in-IP: an outer header of `outer`'s family before the IP packet, whose Ethernet padding stays behind.
/// If the bytes before the packet are too few it moves back within the buffer; `true` says it had to.
pub fn encapsulate(
    buffer: &mut [u8],
    at: Range<usize>,
    packet: &Packet,
    link: &Link,
    outer: &Outer,
) -> Result<(Range<usize>, bool), DropReason> {
    let outer_length = match outer {
        Outer::V4 { .. } => ipv4::HEADER_LENGTH,
        Outer::V6 { .. } => ipv6::HEADER_LENGTH,
    };
    let inner_length = usize::from(packet.ip_length);
    if outer_length + inner_length > link.mtu as usize {
        return Err(DropReason::TooBig);
    }
    let before = ethernet::HEADER_LENGTH + outer_length;
    let came_at = at.start + usize::from(packet.ip_offset);
    let goes_at = came_at.max(before);
    if goes_at + inner_length > buffer.len() {
        return Err(DropReason::TooBig);
    }
    if goes_at != came_at {
        buffer.copy_within(came_at..came_at + inner_length, goes_at);
    }
    let start = goes_at - before;
    let ether_type = write_outer(&mut buffer[goes_at - outer_length..goes_at], packet, outer);
    write_ethernet(buffer, start, link, ether_type);
    Ok((start..goes_at + inner_length, goes_at != came_at))
}

/// Outer source address and flow label for a flow, from `hash`'s bits (DESIGN §4). Where no prefix is
/// configured for the backend's family the source is `own`, the box's address towards the backend; `None` if
/// there is none of that family.
pub fn outer_for(tunnel: &TunnelSource, own: Option<IpAddr>, backend: IpAddr, hash: u64) -> Option<Outer> {
    match backend {
        IpAddr::V4(destination) => {
            let own = match own {
                Some(IpAddr::V4(own)) => Some(own),
                _ => None,
            };
            let source = tunnel.v4.map(|prefix| spread_v4(prefix, hash)).or(own)?;
            Some(Outer::V4 { source, destination })
        }
        IpAddr::V6(destination) => {
            let own = match own {
                Some(IpAddr::V6(own)) => Some(own),
                _ => None,
            };
            let source = tunnel.v6.map(|prefix| spread_v6(prefix, hash)).or(own)?;
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

fn write_ethernet(buffer: &mut [u8], start: usize, link: &Link, ether_type: EtherType) {
    let header = &mut buffer[start..start + ethernet::HEADER_LENGTH];
    header[0..6].copy_from_slice(&link.destination.0);
    header[6..12].copy_from_slice(&link.source.0);
    header[12..14].copy_from_slice(&ether_type.to_be_bytes());
}

#[cfg(test)]
mod tests;
