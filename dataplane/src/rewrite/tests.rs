//! What leaves, checked by an independent parser.

use etherparse::{IpSlice, LaxNetSlice, LaxSlicedPacket, NetSlice, PacketBuilder, SlicedPacket};
use proptest::prelude::*;

use super::*;
use crate::packet;

const LINK: Link = Link {
    destination: MacAddress([2, 0, 0, 0, 0, 0xbb]),
    source: MacAddress([2, 0, 0, 0, 0, 0xaa]),
    vlan: None,
    mtu: 1500,
};

fn frame(v6: bool, payload: &[u8], padding: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    if v6 {
        ethernet.ipv6([0x20; 16], [0x30; 16], 9).udp(1234, 53).write(&mut frame, payload).unwrap();
        frame[15] |= 0xb0; // traffic class bits
    } else {
        let ip = etherparse::Ipv4Header {
            dscp: 46.try_into().unwrap(),
            ecn: 1.try_into().unwrap(),
            time_to_live: 9,
            source: [192, 0, 2, 1],
            destination: [203, 0, 113, 10],
            ..Default::default()
        };
        ethernet
            .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
            .udp(1234, 53)
            .write(&mut frame, payload)
            .unwrap();
    }
    frame.resize(frame.len() + padding, 0xee);
    frame
}

fn outer(v6: bool, hash: u64) -> Outer {
    let tunnel = Tunnel {
        source_v4: Some("10.200.0.0/16".parse().unwrap()),
        source_v6: Some("fd00:200::/64".parse().unwrap()),
        fragment: false,
    };
    let (own, backend) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
    Ends::of(&tunnel, own.parse().ok(), backend.parse().unwrap()).unwrap().outer(hash)
}

fn in_buffer(lead: usize, frame: &[u8]) -> (Vec<u8>, Range<usize>) {
    let mut buffer = vec![0; 2048];
    buffer[lead..lead + frame.len()].copy_from_slice(frame);
    (buffer, lead..lead + frame.len())
}

fn check_tunnel(inner_v6: bool, outer_v6: bool, lead: usize, payload: &[u8], padding: usize, hash: u64) {
    let original = frame(inner_v6, payload, padding);
    let parsed = packet::parse(&original, original.len()).unwrap();
    let (mut buffer, at) = in_buffer(lead, &original[..original.len() - padding]);
    let needed = if outer_v6 { 40 } else { 20 };
    let placed = place(&mut buffer, at, &parsed.inner(), &LINK, Some(&outer(outer_v6, hash))).unwrap();
    assert_eq!(placed.moved, lead < needed);
    let out = &buffer[placed.range];
    assert_eq!((&out[..6], &out[6..12]), (&LINK.destination.0[..], &LINK.source.0[..]));
    let inner = &original[14..original.len() - padding];
    assert_eq!(&out[14 + needed..], inner, "the inner packet is untouched and unpadded");
    let sliced = LaxSlicedPacket::from_ethernet(out).unwrap();
    match sliced.net.unwrap() {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert!(!outer_v6 && header.calc_header_checksum() == header.header_checksum);
            assert_eq!((header.time_to_live, header.dont_fragment), (64, true));
            assert_eq!(usize::from(header.total_len), out.len() - 14);
            assert_eq!((header.source[..2].to_vec(), header.destination), (vec![10, 200], [10, 0, 0, 2]));
            assert_eq!(out[15], parsed.traffic_class, "TOS and ECN are copied");
            assert_eq!(header.protocol.0, if inner_v6 { 41 } else { 4 });
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert!(outer_v6);
            assert_eq!((header.hop_limit, header.traffic_class), (64, parsed.traffic_class));
            assert_eq!(usize::from(header.payload_length), inner.len());
            assert_eq!(header.next_header.0, if inner_v6 { 41 } else { 4 });
            assert_eq!(header.source_addr().segments()[..4], [0xfd00, 0x200, 0, 0]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn direct_routing_changes_the_ethernet_header_only() {
    for v6 in [false, true] {
        let original = frame(v6, b"hello", 30);
        let parsed = packet::parse(&original, original.len()).unwrap();
        let (mut buffer, at) = in_buffer(0, &original);
        let placed = place(&mut buffer, at.clone(), &parsed.inner(), &LINK, None).unwrap();
        assert_eq!(placed, Placed { range: at.clone(), moved: false });
        assert_eq!(buffer[at.clone()][..12], [LINK.destination.0, LINK.source.0].concat());
        assert_eq!(buffer[at][12..], original[12..]);
    }
}

#[test]
fn tags_are_those_of_the_way_out() {
    let tag = VlanTag { tpid: 0x8100, id: 20 };
    let plain = frame(false, b"hello", 0);
    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x81, 0, 0, 100]);
    for (came, vlan, lead) in
        [(&plain, None, 0), (&plain, Some(tag), 4), (&tagged, None, 0), (&tagged, Some(tag), 0)]
    {
        for (lead, outer) in
            [(0, None), (lead, None), (0, Some(outer(false, 1))), (lead + 20, Some(outer(false, 1)))]
        {
            let parsed = packet::parse(came, came.len()).unwrap();
            let (mut buffer, at) = in_buffer(lead, came);
            let link = Link { vlan, ..LINK };
            let placed = place(&mut buffer, at, &parsed.inner(), &link, outer.as_ref()).unwrap();
            let before = 14 + vlan.map_or(0, |_| 4) + outer.map_or(0, |_| 20);
            assert_eq!(placed.moved, lead + usize::from(parsed.ip_offset) < before);
            let out = &buffer[placed.range];
            assert_eq!(out[before..], plain[14..], "{vlan:?} {outer:?}");
            let sliced = SlicedPacket::from_ethernet(out).unwrap();
            let id = sliced.vlan_ids().first().map(|id| id.value());
            assert_eq!((id, sliced.vlan_ids().len()), (vlan.map(|tag| tag.id), vlan.iter().count()));
            assert!(matches!(sliced.net, Some(NetSlice::Ipv4(_))));
        }
    }
}

#[test]
fn a_tunnel_header_takes_its_share_of_the_way() {
    assert_eq!(room(&LINK, None), 1500);
    assert_eq!(room(&LINK, Some(&outer(false, 1))), 1480);
    assert_eq!(room(&LINK, Some(&outer(true, 1))), 1460);
    let original = frame(false, &[7; 1454], 0);
    let parsed = packet::parse(&original, original.len()).unwrap();
    let (buffer, at) = in_buffer(0, &original);
    let mut tight = buffer[..original.len() + 19].to_vec();
    assert_eq!(
        place(&mut tight, at, &parsed.inner(), &LINK, Some(&outer(false, 1))),
        None,
        "no room in the buffer"
    );
}

#[test]
fn flows_spread_over_the_source_prefix_and_stay_in_it() {
    let sources: std::collections::HashSet<String> =
        (0..1000u64).map(|i| format!("{:?}", outer(false, i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))).collect();
    assert!(sources.len() > 900, "{}", sources.len());
    let none = Tunnel::default();
    let own = Ends::of(&none, "10.0.0.1".parse().ok(), "10.0.0.2".parse().unwrap()).unwrap().outer(99);
    assert_eq!(own, Outer::V4 { source: [10, 0, 0, 1].into(), destination: [10, 0, 0, 2].into() });
    assert_eq!(Ends::of(&none, "fd00::1".parse().ok(), "10.0.0.2".parse().unwrap()), None);
}

#[test]
fn an_encapsulated_packet_is_an_ip_packet() {
    let original = frame(false, b"hello", 0);
    let parsed = packet::parse(&original, original.len()).unwrap();
    let (mut buffer, at) = in_buffer(20, &original);
    let placed = place(&mut buffer, at, &parsed.inner(), &LINK, Some(&outer(false, 1))).unwrap();
    let inner = IpSlice::from_slice(&buffer[placed.range][34..]).unwrap();
    assert_eq!(inner.destination_addr().to_string(), "203.0.113.10");
}

proptest! {
    #[test]
    fn every_combination_with_every_headroom(
        inner_v6: bool, outer_v6: bool, lead in 0usize..60,
        payload in proptest::collection::vec(any::<u8>(), 0..1400), padding in 0usize..20, hash: u64,
    ) {
        check_tunnel(inner_v6, outer_v6, lead, &payload, padding, hash);
    }
}

/// The frame as [`place`] leaves it, filled up for the wire if it was long enough before.
fn placed(
    buffer: &mut [u8],
    at: Range<usize>,
    inner: &Inner,
    outer: Option<&Outer>,
    length: usize,
) -> Vec<u8> {
    let end = at.start + usize::from(inner.ip_offset) + usize::from(inner.ip_length);
    let range = place(buffer, at.start..end, inner, &LINK, outer).unwrap().range;
    let mut frame = buffer[range].to_vec();
    if length >= ethernet::MIN_LENGTH {
        frame.resize(frame.len().max(ethernet::MIN_LENGTH), 0);
    }
    frame
}

proptest! {
    #[test]
    fn at_once_is_as_step_by_step(
        v6: bool, payload in 0usize..100, padding in 0usize..60, lead in 0usize..100, outer_v6: bool, hash: u64,
    ) {
        let original = frame(v6, &vec![7; payload], padding);
        let inner = packet::parse(&original, original.len()).unwrap().inner();
        let (buffer, at) = in_buffer(lead, &original);

        let (mut one, mut other) = (buffer.clone(), buffer.clone());
        let range = redirect_at_once(&mut one, at.clone(), inner.ip_length, &LINK, true).unwrap();
        prop_assert_eq!(&one[range], &placed(&mut other, at.clone(), &inner, None, original.len()));

        let (mut one, mut other) = (buffer.clone(), buffer);
        let outer = outer(outer_v6, hash);
        let range = wrap_at_once(&mut one, at.clone(), &inner, &LINK, &outer);
        prop_assert_eq!(range.is_some(), lead >= outer.length());
        if let Some(range) = range {
            prop_assert_eq!(&one[range], &placed(&mut other, at, &inner, Some(&outer), original.len()));
        }
    }
}

#[test]
fn a_frame_does_not_go_back_to_where_it_came_from() {
    let mut original = frame(false, b"payload", 0);
    original[6..12].copy_from_slice(&LINK.destination.0);
    let (mut buffer, at) = in_buffer(0, &original);
    assert_eq!(redirect_at_once(&mut buffer, at.clone(), 40, &LINK, true), None);
    assert_eq!(buffer[at.clone()], original);
    assert!(redirect_at_once(&mut buffer, at, 40, &LINK, false).is_some(), "by another NIC it does");
}
