//! What left for a backend or a client is what came, but for what its way changes.

use std::net::IpAddr;

use shunt_api::counters::DropReason;
use shunt_dataplane::nat::Translation;
use shunt_dataplane::packet::{self, Content, Header, Packet, ethernet, ipv4, ipv6, transport};

use super::{Case, Frame, Way};
use crate::inet::{self, HEADER_V4, ICMP, ICMP6};

/// A packet that left in one frame.
pub fn whole(case: &Case<'_>, way: &Way, frame: &Frame) {
    let ip = behind_link(way, &frame.bytes);
    match (way.tunnel, way.translation) {
        (Some(backend), _) => {
            let (header_length, total_length) = outer(ip, case.ip(), backend);
            assert_eq!(&ip[header_length..], case.ip(), "what is tunnelled stays as it is");
            assert_eq!(total_length, ip.len());
        }
        (None, Some(translation)) => translated(case, &frame.bytes, translation),
        (None, None) => assert_eq!(&ip[..case.ip().len()], case.ip(), "what is forwarded stays as it is"),
    }
    if way.tunnel.is_none() {
        let short = case.came.bytes.len() < ethernet::MIN_LENGTH;
        let filled = if short { 0 } else { ethernet::MIN_LENGTH - link_length(way) };
        assert_eq!(ip.len(), case.ip().len().max(filled), "what is behind the packet stays here");
        assert!(ip[case.ip().len()..].iter().all(|&byte| byte == 0), "a frame is filled up with zeros");
    }
}

/// Whether a frame holds the first outer fragment of a packet that goes this way.
pub fn is_first_half(way: &Way, frame: &Frame) -> bool {
    let link_length = link_length(way);
    let Some(header) = frame.bytes.get(link_length..link_length + HEADER_V4) else { return false };
    let to_backend = way.tunnel == Some(IpAddr::from([header[16], header[17], header[18], header[19]]));
    header[0] == 0x45 && header[6..8] == [0x20, 0] && to_backend
}

/// Whether a frame holds the outer fragment that follows a first one.
pub fn is_second_half(way: &Way, first: &Frame, frame: &Frame) -> bool {
    let at = link_length(way);
    let (Some(one), Some(other)) = (first.bytes.get(at..at + HEADER_V4), frame.bytes.get(at..at + HEADER_V4))
    else {
        return false;
    };
    one[4..6] == other[4..6] && one[12..] == other[12..] && other[6] & 0x20 == 0 && other[6..8] != [0, 0]
}

/// A packet that left in two outer fragments.
pub fn halves(case: &Case<'_>, way: &Way, first: &Frame, second: &Frame) {
    let mut joined: Vec<u8> = Vec::new();
    let mut ids = Vec::new();
    for (half, more) in [(first, true), (second, false)] {
        let ip = behind_link(way, &half.bytes);
        let header = ipv4::parse(ip, ip.len()).expect("a fragment of ours is valid");
        let fragment = header.fragment.expect("it is a fragment");
        assert_eq!((usize::from(fragment.offset), fragment.more), (joined.len(), more));
        assert_eq!(header.total_length, ip.len(), "nothing is behind a half");
        assert_eq!(Some(IpAddr::V4(header.destination)), way.tunnel);
        ids.push(fragment.id);
        joined.extend(&ip[header.header_length..]);
    }
    assert_eq!(ids[0], ids[1], "both are of one packet");
    assert_eq!(joined, case.ip(), "both halves are the packet");
}

fn link_length(way: &Way) -> usize {
    ethernet::HEADER_LENGTH + way.link.vlan.map_or(0, |_| ethernet::TAG_LENGTH)
}

/// What follows the Ethernet header, which must be the way's.
fn behind_link<'a>(way: &Way, frame: &'a [u8]) -> &'a [u8] {
    let header = ethernet::parse(frame).expect("what leaves has an Ethernet header");
    let tags = way.link.vlan.map_or(ethernet::Tags::None, ethernet::Tags::One);
    assert_eq!((header.source, header.tags), (way.link.source, tags));
    assert_eq!(frame[..6], way.link.destination.0);
    assert_eq!(header.length, link_length(way));
    let ip = &frame[header.length..];
    let length = match header.ether_type {
        ethernet::EtherType::Ipv4 => ipv4::parse(ip, ip.len()).map(|header| header.total_length),
        ethernet::EtherType::Ipv6 => ipv6::parse(ip, ip.len()).map(|header| header.total_length),
    };
    let length = length.expect("what leaves has an IP header");
    assert!(length <= way.link.mtu as usize, "{length} bytes for an MTU of {}", way.link.mtu);
    ip
}

/// Checks the outer header of a tunnel and returns where it and the packet end.
fn outer(ip: &[u8], inner: &[u8], backend: IpAddr) -> (usize, usize) {
    let protocol = if inet::is_v6(inner) { 41 } else { 4 };
    let class = if inet::is_v6(inner) { inner[0] << 4 | inner[1] >> 4 } else { inner[1] };
    let ends = if backend.is_ipv6() {
        outer_ends(ipv6::parse(ip, ip.len()), backend, protocol, class)
    } else {
        outer_ends(ipv4::parse(ip, ip.len()), backend, protocol, class)
    };
    assert_eq!(ends.1 - ends.0, inner.len());
    ends
}

fn outer_ends<A: Into<IpAddr>>(
    header: Result<Header<A>, DropReason>,
    backend: IpAddr,
    protocol: u8,
    class: u8,
) -> (usize, usize) {
    let header = header.expect("an outer header is valid");
    assert_eq!((header.destination.into(), header.protocol), (backend, protocol));
    assert_eq!((header.traffic_class, header.fragment), (class, None));
    (header.header_length, header.total_length)
}

fn translated(case: &Case<'_>, frame: &[u8], translation: Translation) {
    let parsed = packet::parse(frame, frame.len()).expect("what is translated parses");
    let before = case.packet;
    assert_eq!((parsed.content, parsed.traffic_class), (before.content, before.traffic_class));
    assert_eq!((parsed.header_length, parsed.ip_length), (before.header_length, before.ip_length));
    assert_eq!((parsed.tcp_flags, parsed.dont_fragment), (before.tcp_flags, before.dont_fragment));
    let ip = &frame[usize::from(parsed.ip_offset)..][..usize::from(parsed.ip_length)];
    assert_eq!(ends(ip), (translation.source.0, translation.destination.0));
    let now = parsed.flow;
    match parsed.content {
        Content::LaterFragment { .. } => {}
        // A quoted packet went the other way, so its ends come back as those of the error.
        Content::Error | Content::Whole | Content::FirstFragment { .. } => {
            assert_eq!((now.client(), now.client_port()), translation.source);
            assert_eq!((now.vip(), now.service_port().port), translation.destination);
        }
        Content::Echo | Content::TunnelError { .. } => panic!("{parsed:?} is not translated"),
    }
    let header_length = usize::from(before.header_length);
    assert_eq!(ip[header_length..].len(), case.ip()[header_length..].len());
    checksum_is_as_before(case.ip(), ip, before);
}

/// A right checksum is right afterwards, a wrong one is not mended.
fn checksum_is_as_before(before: &[u8], after: &[u8], packet: &Packet) {
    let header_length = usize::from(packet.header_length);
    let protocol = match packet.content {
        Content::Whole => transport::number(packet.flow.protocol()),
        Content::Error if inet::is_v6(before) => ICMP6,
        Content::Error => ICMP,
        _ => return,
    };
    let at = header_length + inet::checksum_offset(protocol);
    let unused = |ip: &[u8]| protocol == inet::UDP && ip[at..at + 2] == [0, 0];
    assert_eq!(unused(before), unused(after), "a UDP checksum comes from nowhere");
    if !unused(before) {
        let sum = |ip: &[u8]| inet::payload_sum(ip, header_length, protocol);
        assert_eq!(sum(before), sum(after), "the checksum covers what changed");
    }
}

/// Source and destination.
pub fn ends(ip: &[u8]) -> (IpAddr, IpAddr) {
    if inet::is_v6(ip) {
        let address = |at: usize| <[u8; 16]>::try_from(&ip[at..at + 16]).expect("16 bytes");
        (address(8).into(), address(24).into())
    } else {
        let address = |at: usize| <[u8; 4]>::try_from(&ip[at..at + 4]).expect("4 bytes");
        (address(12).into(), address(16).into())
    }
}
