//! What leaves, as etherparse reads it, with every checksum calculated anew.

use std::net::{IpAddr, SocketAddr};

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, IpSlice, Ipv4Header, NetSlice, SlicedPacket, TcpSlice, UdpSlice};

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    pub vlans: Vec<u16>,
    /// The IP packet, without padding.
    pub ip: Vec<u8>,
    /// Bytes behind it.
    pub padding: usize,
}

/// Reads a frame, which must be right as far as etherparse can tell.
pub fn seen(frame: &[u8]) -> Seen {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
    let vlans: Vec<u16> = sliced.vlan_ids().iter().map(|id| id.value()).collect();
    let start = 14 + 4 * sliced.link_exts.len();
    let length = match sliced.net {
        Some(NetSlice::Ipv4(ip)) => usize::from(ip.header().total_len()),
        Some(NetSlice::Ipv6(ip)) => 40 + usize::from(ip.header().payload_length()),
        other => panic!("no IP packet but {other:?}"),
    };
    Seen {
        destination_mac: frame[..6].try_into().unwrap(),
        source_mac: frame[6..12].try_into().unwrap(),
        vlans,
        ip: frame[start..start + length].to_vec(),
        padding: frame.len() - start - length,
    }
}

/// Reads a frame as [`seen`] does and holds all its checksums to be right.
pub fn seen_valid(frame: &[u8]) -> Seen {
    let seen = seen(frame);
    assert!(is_valid(&seen.ip), "a wrong checksum: {:02x?}", seen.ip);
    seen
}

/// Reads a frame as [`seen`] does, if it can be read.
pub fn seen_if_any(frame: &[u8]) -> Option<Seen> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    matches!(sliced.net, Some(NetSlice::Ipv4(_) | NetSlice::Ipv6(_))).then(|| seen(frame))
}

/// Whether all checksums of an IP packet are right, also those of a packet inside it. Of a fragment that is
/// the IP header's alone.
pub fn is_valid(ip: &[u8]) -> bool {
    validity(ip).expect("a packet that can be read")
}

/// As [`is_valid`]; `None` of what etherparse cannot read.
pub fn validity(ip: &[u8]) -> Option<bool> {
    Some(header_is_valid(ip)? && payload_is_valid(ip)?)
}

/// Whether the IPv4 header's checksum is right; IPv6 has none.
fn header_is_valid(ip: &[u8]) -> Option<bool> {
    if ip.first()? >> 4 == 6 {
        return Some(true);
    }
    let (header, _) = Ipv4Header::from_slice(ip).ok()?;
    Some(header.header_checksum == header.calc_header_checksum())
}

fn payload_is_valid(ip: &[u8]) -> Option<bool> {
    let packet = IpSlice::from_slice(ip).ok()?;
    let (content, ends) = (packet.payload(), (packet.source_addr(), packet.destination_addr()));
    if content.fragmented {
        return Some(true);
    }
    let (protocol, bytes) = (content.ip_number, content.payload);
    match protocol {
        IpNumber::TCP | IpNumber::IPV6_ICMP => {
            Some(pseudo_header(ends, protocol, bytes.len() as u16).adds_up(bytes))
        }
        // In UDP over IPv4 a checksum of 0 is none (RFC 768); over IPv6 it is wrong (RFC 8200 §8.1).
        IpNumber::UDP => {
            let udp = UdpSlice::from_slice(bytes).ok()?;
            let adds_up = || pseudo_header(ends, protocol, udp.length()).adds_up(udp.slice());
            Some(if udp.checksum() == 0 { ends.0.is_ipv4() } else { adds_up() })
        }
        IpNumber::ICMP => Some(Sum16BitWords::new().adds_up(bytes)),
        IpNumber::IPV4 | IpNumber::IPV6 => validity(bytes),
        _ => None,
    }
}

trait AddsUp {
    /// As a receiver verifies: the sum of everything, checksum included, is 0xffff (RFC 1071).
    fn adds_up(&self, bytes: &[u8]) -> bool;
}

impl AddsUp for Sum16BitWords {
    fn adds_up(&self, bytes: &[u8]) -> bool {
        self.clone().add_slice(bytes).ones_complement() == 0
    }
}

fn pseudo_header(ends: (IpAddr, IpAddr), protocol: IpNumber, length: u16) -> Sum16BitWords {
    let mut sum = Sum16BitWords::new();
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            sum = sum.add_4bytes(source.octets()).add_4bytes(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            sum = sum.add_16bytes(source.octets()).add_16bytes(destination.octets());
        }
        mixed => panic!("{mixed:?}"),
    }
    sum.add_2bytes(length.to_be_bytes()).add_2bytes([0, protocol.0])
}

/// Source and destination of a TCP or UDP packet that is no fragment.
pub fn ends(ip: &[u8]) -> (SocketAddr, SocketAddr) {
    let packet = IpSlice::from_slice(ip).unwrap();
    let content = packet.payload();
    let ports = match content.ip_number {
        IpNumber::TCP => {
            let tcp = TcpSlice::from_slice(content.payload).unwrap();
            (tcp.source_port(), tcp.destination_port())
        }
        IpNumber::UDP => {
            let udp = UdpSlice::from_slice_lax(content.payload).unwrap();
            (udp.source_port(), udp.destination_port())
        }
        other => panic!("{other:?} has no ports"),
    };
    ((packet.source_addr(), ports.0).into(), (packet.destination_addr(), ports.1).into())
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Type and code.
    pub kind: [u8; 2],
    /// The four bytes behind the checksum.
    pub value: [u8; 4],
    pub data: Vec<u8>,
}

/// Reads an IP packet with an ICMP message.
pub fn icmp(ip: &[u8]) -> Icmp {
    let packet = IpSlice::from_slice(ip).unwrap();
    let payload = packet.payload();
    let (source, destination) = (packet.source_addr(), packet.destination_addr());
    assert!(matches!(payload.ip_number, IpNumber::ICMP | IpNumber::IPV6_ICMP), "{payload:?}");
    let message = payload.payload;
    Icmp {
        source,
        destination,
        kind: message[..2].try_into().unwrap(),
        value: message[4..8].try_into().unwrap(),
        data: message[8..].to_vec(),
    }
}
