//! Packets by what may differ in them, written by etherparse between any two ends: the same draft between other
//! ends is, byte for byte, what a translation has to make of a packet.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header, TcpHeader,
    UdpHeader,
};
use proptest::prelude::*;

use crate::packet::transport::{ACK, FIN, RST, SYN};

/// Station that test packets go to.
pub const BOX_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];
/// Station that test packets come from.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];

/// What an IP header has besides addresses, protocol and lengths.
#[derive(Clone, Debug)]
pub struct IpDraft {
    pub traffic_class: u8,
    pub ttl: u8,
    /// IPv4.
    pub dont_fragment: bool,
    /// IPv4: of the packet, as its fragments bear it.
    pub id: u16,
    /// IPv4, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6: kinds of extension headers in order, and how many times eight bytes they have beyond the first.
    pub extensions: Vec<(u8, u8)>,
}

/// A TCP or UDP packet.
#[derive(Clone, Debug)]
pub struct Draft {
    pub ip: IpDraft,
    /// TCP flags; `None` for UDP.
    pub tcp: Option<u8>,
    /// Bytes of TCP options, a multiple of four.
    pub tcp_options: usize,
    /// UDP over IPv4 without a checksum.
    pub unsummed: bool,
    pub payload: Vec<u8>,
}

impl Default for IpDraft {
    fn default() -> Self {
        Self { traffic_class: 0, ttl: 64, dont_fragment: false, id: 7, options: vec![], extensions: vec![] }
    }
}

impl Draft {
    /// A TCP segment with these flags.
    pub fn tcp(flags: u8, payload: &[u8]) -> Self {
        let ip = IpDraft { dont_fragment: true, ..IpDraft::default() };
        Self { ip, tcp: Some(flags), tcp_options: 0, unsummed: false, payload: payload.to_vec() }
    }

    /// A UDP packet that may be fragmented.
    pub fn udp(payload: &[u8]) -> Self {
        Self { ip: IpDraft::default(), tcp: None, tcp_options: 0, unsummed: false, payload: payload.to_vec() }
    }

    /// The IP packet between these ends, with every checksum right.
    pub fn between(&self, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let protocol = if self.tcp.is_some() { IpNumber::TCP } else { IpNumber::UDP };
        self.ip.packet(protocol, source.ip(), destination.ip(), &self.transport(source, destination))
    }

    fn transport(&self, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let (ports, payload) = ((source.port(), destination.port()), &self.payload);
        let header = match self.tcp {
            Some(flags) => self.tcp_header(flags, ports, source.ip(), destination.ip()).to_bytes().to_vec(),
            None => {
                let (from, to) = ports;
                let summed = match (source.ip(), destination.ip()) {
                    (IpAddr::V4(_), _) if self.unsummed => {
                        UdpHeader::without_ipv4_checksum(from, to, payload.len())
                    }
                    (IpAddr::V4(source), IpAddr::V4(destination)) => {
                        let mut bare = UdpHeader::without_ipv4_checksum(from, to, payload.len()).unwrap();
                        bare.checksum = bare
                            .calc_checksum_ipv4_raw(source.octets(), destination.octets(), payload)
                            .unwrap();
                        Ok(bare)
                    }
                    (IpAddr::V6(source), IpAddr::V6(destination)) => {
                        let mut bare = UdpHeader::without_ipv4_checksum(from, to, payload.len()).unwrap();
                        bare.checksum = bare
                            .calc_checksum_ipv6_raw(source.octets(), destination.octets(), payload)
                            .unwrap();
                        Ok(bare)
                    }
                    mixed => panic!("{mixed:?}"),
                };
                summed.unwrap().to_bytes().to_vec()
            }
        };
        [header, payload.clone()].concat()
    }

    fn tcp_header(&self, flags: u8, ports: (u16, u16), source: IpAddr, destination: IpAddr) -> TcpHeader {
        let mut header = TcpHeader::new(ports.0, ports.1, 0x0102_0304, 1024);
        (header.fin, header.syn) = (flags & FIN != 0, flags & SYN != 0);
        (header.rst, header.ack) = (flags & RST != 0, flags & ACK != 0);
        header.acknowledgment_number = 0xf1f2_f3f4;
        header.set_options_raw(&vec![1; self.tcp_options]).unwrap();
        header.checksum = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &self.payload)
            }
            mixed => panic!("{mixed:?}"),
        }
        .unwrap();
        header
    }
}

impl IpDraft {
    /// An IP packet with this payload.
    pub fn packet(&self, protocol: IpNumber, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header =
                    Ipv4Header::new(0, self.ttl, protocol, source.octets(), destination.octets()).unwrap();
                header.options = self.options.as_slice().try_into().unwrap();
                header.set_payload_len(payload.len()).unwrap();
                header.dscp = (self.traffic_class >> 2).try_into().unwrap();
                header.ecn = (self.traffic_class & 3).try_into().unwrap();
                header.identification = self.id;
                header.dont_fragment = self.dont_fragment;
                header.header_checksum = header.calc_header_checksum();
                [&header.to_bytes(), payload].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (first, extensions) = self.extension_headers(protocol);
                let payload = [extensions, payload.to_vec()].concat();
                let header = Ipv6Header {
                    traffic_class: self.traffic_class,
                    flow_label: 0x1_2345.try_into().unwrap(),
                    payload_length: payload.len() as u16,
                    next_header: first,
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                [header.to_bytes().to_vec(), payload].concat()
            }
            mixed => panic!("{mixed:?}"),
        }
    }

    /// The kind of the first header behind the fixed one, and all that stands before the payload.
    fn extension_headers(&self, protocol: IpNumber) -> (IpNumber, Vec<u8>) {
        let (mut next, mut bytes) = (protocol.0, Vec::new());
        for &(kind, more) in self.extensions.iter().rev() {
            let mut header = vec![0; 8 + 8 * usize::from(more)];
            // Routing type 4 with no segments left; in the others these bytes are a PadN option.
            header[..4].copy_from_slice(&[next, more, if kind == 43 { 4 } else { 1 }, 0]);
            header[3] = if kind == 43 { 0 } else { 4 + 8 * more };
            bytes.splice(0..0, header);
            next = kind;
        }
        (IpNumber(next), bytes)
    }
}

/// An ICMP or ICMPv6 message of this type and code, with every checksum right.
pub fn icmp(
    ip: &IpDraft,
    kind: [u8; 2],
    value: [u8; 4],
    data: &[u8],
    source: IpAddr,
    destination: IpAddr,
) -> Vec<u8> {
    let [type_u8, code_u8] = kind;
    let (protocol, header) = match (source, destination) {
        (IpAddr::V4(_), _) => {
            let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8: value };
            (IpNumber::ICMP, Icmpv4Header::with_checksum(kind, data).to_bytes().to_vec())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let kind = Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8: value };
            let header = Icmpv6Header::with_checksum(kind, source.octets(), destination.octets(), data);
            (IpNumber::IPV6_ICMP, header.unwrap().to_bytes().to_vec())
        }
        mixed => panic!("{mixed:?}"),
    };
    ip.packet(protocol, source, destination, &[header, data.to_vec()].concat())
}

/// A frame from [`CLIENT_MAC`] with these VLAN tags around an IP packet, with so much padding.
pub fn frame(ip: &[u8], tags: &[u16], padding: usize) -> Vec<u8> {
    let ether_type = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    let tags: Vec<u8> = tags.iter().flat_map(|tag| [[0x81, 0], tag.to_be_bytes()].concat()).collect();
    let padding = vec![0xee; padding];
    [&BOX_MAC[..], &CLIENT_MAC, &tags, &ether_type, ip, &padding].concat()
}

/// Bytes of IP headers: options and extension headers included, as drafts and fragments have them.
pub fn header_length(ip: &[u8]) -> usize {
    if ip[0] >> 4 == 4 {
        return usize::from(ip[0] & 15) * 4;
    }
    let (mut kind, mut at) = (ip[6], 40);
    while matches!(kind, 0 | 43 | 44 | 60) {
        let length = if kind == 44 { 8 } else { 8 + 8 * usize::from(ip[at + 1]) };
        (kind, at) = (ip[at], at + length);
    }
    at
}

/// An IP packet in fragments with up to `room` bytes of payload, a multiple of eight.
pub fn fragments(ip: &[u8], room: usize) -> Vec<Vec<u8>> {
    let (header, payload) = ip.split_at(header_length(ip));
    let last = payload.len().div_ceil(room).max(1) - 1;
    let fragment = |(index, chunk): (usize, &[u8])| {
        let (offset, more) = ((index * room) as u16, index < last);
        let header = if ip[0] >> 4 == 4 {
            fragment_v4(header, offset, more)
        } else {
            fragment_v6(header, offset, more)
        };
        with_length([&header, chunk].concat())
    };
    payload.chunks(room).enumerate().map(fragment).collect()
}

fn fragment_v4(header: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let (mut header, _) = Ipv4Header::from_slice(header).unwrap();
    header.fragment_offset = (offset / 8).try_into().unwrap();
    header.more_fragments = more;
    header.to_bytes().to_vec()
}

/// All extension headers come with every fragment.
fn fragment_v6(header: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let ([high, low], kind_at) = ((offset | u16::from(more)).to_be_bytes(), last_kind_at(header));
    let mut header = header.to_vec();
    let kind = std::mem::replace(&mut header[kind_at], IpNumber::IPV6_FRAGMENTATION_HEADER.0);
    [&header[..], &[kind, 0, high, low, 0xab, 0xcd, 0xef, 1]].concat()
}

/// Where the last of IPv6 headers names what follows.
fn last_kind_at(header: &[u8]) -> usize {
    let (mut kind_at, mut at) = (6, 40);
    while at < header.len() && header[kind_at] != 44 {
        (kind_at, at) = (at, at + 8 + 8 * usize::from(header[at + 1]));
    }
    kind_at
}

/// The IP packet with its length fields set to what it has.
fn with_length(mut ip: Vec<u8>) -> Vec<u8> {
    if ip[0] >> 4 == 6 {
        let length = ip.len() as u16 - 40;
        ip[4..6].copy_from_slice(&length.to_be_bytes());
        return ip;
    }
    let (mut header, payload) = Ipv4Header::from_slice(&ip).unwrap();
    header.total_len = ip.len() as u16;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes(), payload].concat()
}

/// The IP packet that came in these fragments.
pub fn joined(fragments: &[Vec<u8>]) -> Vec<u8> {
    let payload = fragments.iter().flat_map(|ip| &ip[header_length(ip)..]).copied().collect::<Vec<_>>();
    let mut header = fragments[0][..header_length(&fragments[0])].to_vec();
    if header[0] >> 4 == 4 {
        header[6] &= 0x40;
    } else {
        let kind_at = last_kind_at(&header);
        header[kind_at] = header[header.len() - 8];
        header.truncate(header.len() - 8);
    }
    with_length([header, payload].concat())
}

/// Drafts of every shape with up to `most` bytes of payload.
pub fn drafts(most: usize) -> impl Strategy<Value = Draft> {
    let flags = prop::sample::select(vec![SYN, ACK, SYN | ACK, FIN | ACK, RST, RST | ACK]);
    let tcp = (prop::option::of(flags), 0usize..=10, any::<bool>());
    let payload = (0..=most, any::<u64>()).prop_map(|(length, seed)| bytes(length, seed));
    (ip_drafts(), tcp, payload).prop_map(|(ip, (tcp, words, unsummed), payload)| Draft {
        ip,
        tcp,
        tcp_options: words * 4,
        unsummed,
        payload,
    })
}

/// Of every shape that is forwarded.
pub fn ip_drafts() -> impl Strategy<Value = IpDraft> {
    let options = prop::sample::select(vec![
        vec![],
        vec![1, 1, 1, 0],
        vec![0x94, 4, 0, 0],
        vec![7, 39, 4, 0].into_iter().chain([0; 36]).collect(),
    ]);
    let extensions = prop::sample::select(vec![
        vec![],
        vec![(0, 0)],
        vec![(60, 1)],
        vec![(43, 0)],
        vec![(0, 0), (60, 2), (43, 1), (60, 0)],
    ]);
    let fixed = (any::<u8>(), 1u8.., any::<bool>(), any::<u16>());
    (fixed, options, extensions).prop_map(|((traffic_class, ttl, dont_fragment, id), options, extensions)| {
        IpDraft { traffic_class, ttl, dont_fragment, id, options, extensions }
    })
}

/// So many bytes that look random; many of length 0 to 2 words are zeros alone, which checksums stumble over.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let zeros = seed.is_multiple_of(8);
    let byte = |i: usize| (seed.wrapping_mul(i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..length).map(|i| if zeros { 0 } else { byte(i) }).collect()
}
