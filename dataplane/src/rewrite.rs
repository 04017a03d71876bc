//! The last step of a packet that goes on: its bytes as they leave, in place.
//!
//! Pure functions on the buffer of a packet's first piece: the frame lies somewhere in it, afterwards it lies at
//! the returned range. Direct routing replaces the Ethernet header, a tunnel puts an outer IP header before the
//! IP packet, which stays as it is; [`translate`] changes its ends. VLAN tags of the way in do not go out, but
//! that of the way out does.

mod fragment;
mod translate;

pub use fragment::split_outer;
pub use translate::{translate, translate_plain};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use shunt_api::mac::MacAddress;
use shunt_api::snapshot::Tunnel;

use crate::packet::ethernet::{self, EtherType, VlanTag};
use crate::packet::icmp::{IPV4_IN_IP, IPV6_IN_IP};
use crate::packet::plain::Inner;
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

impl Link {
    /// Bytes of the Ethernet header.
    pub fn header_length(&self) -> usize {
        ethernet::HEADER_LENGTH + self.vlan.map_or(0, |_| ethernet::TAG_LENGTH)
    }
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

/// New MAC addresses for a whole frame without a tag, by a link without one; it keeps its place, and the frame is cut or
/// filled up. `None`, and nothing is written, if the frame would go back to where it came from (which is so only if it
/// leaves by the NIC that it came in by: `same_nic`), or the buffer is small.
#[inline(always)]
pub fn redirect_at_once(
    buffer: &mut [u8],
    at: Range<usize>,
    ip_length: u16,
    link: &Link,
    same_nic: bool,
) -> Option<Range<usize>> {
    let head = buffer.get_mut(at.start..)?.first_chunk_mut::<{ 2 * ethernet::MIN_LENGTH }>()?;
    let addresses = head.first_chunk_mut::<{ 2 * ethernet::ADDRESS_LENGTH }>()?;
    if same_nic && comes_from(addresses, link) {
        return None;
    }
    write_addresses(addresses, link);
    let length = ethernet::HEADER_LENGTH + usize::from(ip_length);
    if length >= ethernet::MIN_LENGTH || at.len() < ethernet::MIN_LENGTH {
        return Some(at.start..at.start + length);
    }
    // More zeros than are needed are cheaper: what is behind the frame is nobody's.
    head[length..length + ethernet::MIN_LENGTH].fill(0);
    Some(at.start..at.start + ethernet::MIN_LENGTH)
}

/// Whether the frame with these addresses comes from where the link goes. Four bytes tell most stations apart.
#[inline(always)]
fn comes_from(addresses: &[u8; 2 * ethernet::ADDRESS_LENGTH], link: &Link) -> bool {
    let destination = &link.destination.0;
    addresses[8..12] == destination[2..6] && addresses[6..8] == destination[..2]
}

/// Likewise through a tunnel. `None` if there is no room before the IP packet, of which nothing is written over then.
#[inline(always)]
pub fn wrap_at_once(
    buffer: &mut [u8],
    at: Range<usize>,
    inner: &Inner,
    link: &Link,
    outer: &Outer,
) -> Option<Range<usize>> {
    let goes_at = at.start + ethernet::HEADER_LENGTH;
    let outer_at = goes_at.checked_sub(outer.length())?;
    let start = outer_at.checked_sub(ethernet::HEADER_LENGTH)?;
    let ether_type = write_outer(buffer.get_mut(outer_at..goes_at)?, inner, outer);
    let header = buffer.get_mut(start..)?.first_chunk_mut::<{ ethernet::HEADER_LENGTH }>()?;
    let (addresses, type_field) = header.split_first_chunk_mut()?;
    write_addresses(addresses, link);
    type_field.copy_from_slice(&ether_type.to_be_bytes());
    finished(buffer, start..goes_at + usize::from(inner.ip_length), at.len())
}

/// The frame at `range`, filled up with zeros if it has become too short for the wire; it had `length` bytes.
#[inline(always)]
fn finished(buffer: &mut [u8], range: Range<usize>, length: usize) -> Option<Range<usize>> {
    let least = range.start + ethernet::MIN_LENGTH;
    if range.end >= least || length < ethernet::MIN_LENGTH {
        return Some(range);
    }
    buffer.get_mut(range.end..least)?.fill(0);
    Some(range.start..least)
}

/// Writes the headers before the IP packet of the frame at `at`: Ethernet, tag, and the outer one of a tunnel.
/// Whether the packet fits the way is for the caller to know ([`room`]). `None` if the buffer has no room for the
/// headers.
pub fn place(
    buffer: &mut [u8],
    at: Range<usize>,
    inner: &Inner,
    link: &Link,
    outer: Option<&Outer>,
) -> Option<Placed> {
    let outer_length = outer.map_or(0, Outer::length);
    let before = link.header_length() + outer_length;
    let came_at = at.start + usize::from(inner.ip_offset);
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
        None => inner_type(inner),
        Some(outer) => write_outer(&mut buffer[goes_at - outer_length..goes_at], inner, outer),
    };
    let start = goes_at - before;
    write_ethernet(&mut buffer[start..goes_at - outer_length], link, ether_type);
    Some(Placed { range: start..end, moved })
}

/// Where tunnels to a backend begin and end. Sources vary with the flow in their last bits (DESIGN §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// IPv4
    V4 {
        /// Source with these bits 0.
        source: Ipv4Addr,
        /// How many vary.
        bits: u8,
        /// The backend.
        backend: Ipv4Addr,
    },
    /// IPv6
    V6 {
        /// Source with these bits 0.
        source: Ipv6Addr,
        /// How many vary, 64 at most.
        bits: u8,
        /// The backend.
        backend: Ipv6Addr,
    },
}

impl Ends {
    /// Bytes of the header.
    #[inline(always)]
    pub fn length(&self) -> u32 {
        match self {
            Self::V4 { .. } => ipv4::HEADER_LENGTH as u32,
            Self::V6 { .. } => ipv6::HEADER_LENGTH as u32,
        }
    }

    /// Where no prefix is configured for the backend's family the source is `own`, the box's address towards the
    /// backend; `None` if there is none of that family.
    pub fn of(tunnel: &Tunnel, own: Option<IpAddr>, backend: IpAddr) -> Option<Self> {
        match backend {
            IpAddr::V4(backend) => {
                let own = own.and_then(|own| if let IpAddr::V4(own) = own { Some((own, 0)) } else { None });
                let prefix =
                    tunnel.source_v4.map(|net| (net.network(), net.max_prefix_len() - net.prefix_len()));
                let (source, bits) = prefix.or(own)?;
                Some(Self::V4 { source, bits, backend })
            }
            IpAddr::V6(backend) => {
                let own = own.and_then(|own| if let IpAddr::V6(own) = own { Some((own, 0)) } else { None });
                let prefix =
                    tunnel.source_v6.map(|net| (net.network(), net.max_prefix_len() - net.prefix_len()));
                let (source, bits) = prefix.or(own)?;
                Some(Self::V6 { source, bits: bits.min(64), backend })
            }
        }
    }

    /// The header's addresses and flow label for a flow with this hash.
    #[inline(always)]
    pub fn outer(&self, hash: u64) -> Outer {
        match *self {
            Self::V4 { source, bits, backend } => {
                let varied = low_bits(hash, bits) as u32;
                Outer::V4 { source: (source.to_bits() | varied).into(), destination: backend }
            }
            Self::V6 { source, bits, backend } => {
                let varied = u128::from(low_bits(hash, bits));
                let source = (source.to_bits() | varied).into();
                Outer::V6 { source, destination: backend, flow_label: (hash >> 44) as u32 }
            }
        }
    }
}

#[inline(always)]
fn low_bits(hash: u64, bits: u8) -> u64 {
    hash & u64::MAX.checked_shr(64 - u32::from(bits)).unwrap_or(0)
}

#[inline(always)]
fn write_outer(bytes: &mut [u8], inner: &Inner, outer: &Outer) -> EtherType {
    let protocol = if inner.is_v6 { IPV6_IN_IP } else { IPV4_IN_IP };
    let (class, length) = (inner.traffic_class, inner.ip_length);
    match *outer {
        Outer::V4 { source, destination } => {
            bytes.copy_from_slice(&ipv4::outer(class, length, protocol, source, destination));
            EtherType::Ipv4
        }
        Outer::V6 { source, destination, flow_label } => {
            bytes.copy_from_slice(&ipv6::outer(class, flow_label, length, protocol, source, destination));
            EtherType::Ipv6
        }
    }
}

fn inner_type(inner: &Inner) -> EtherType {
    if inner.is_v6 { EtherType::Ipv6 } else { EtherType::Ipv4 }
}

#[inline(always)]
fn write_addresses(header: &mut [u8; 2 * ethernet::ADDRESS_LENGTH], link: &Link) {
    header[..ethernet::ADDRESS_LENGTH].copy_from_slice(&link.destination.0);
    header[ethernet::ADDRESS_LENGTH..].copy_from_slice(&link.source.0);
}

#[inline(always)]
fn write_ethernet(header: &mut [u8], link: &Link, ether_type: EtherType) {
    let (addresses, types) = header.split_first_chunk_mut().expect("room for the header");
    write_addresses(addresses, link);
    let (tag, ether) = types.split_at_mut(types.len() - 2);
    if let Some(vlan) = link.vlan {
        tag.copy_from_slice(&vlan.to_be_bytes());
    }
    ether.copy_from_slice(&ether_type.to_be_bytes());
}

#[cfg(test)]
mod tests;
