//! Every answer is the one that etherparse would write, and none is given that must not be.

use std::net::SocketAddr;

use etherparse::{IpNumber, IpSlice, TcpSlice};

use super::*;
use crate::testing::draft::{self, BOX_MAC, CLIENT_MAC, Draft, IpDraft};
use crate::testing::oracle::{Seen, icmp as message, seen_valid};
use crate::testing::parsed;

const FAMILIES: [[&str; 2]; 2] =
    [["192.0.2.1:40000", "203.0.113.10:79"], ["[2001:db8::1]:40000", "[2001:db8::10]:79"]];

/// Client and VIP of a family.
fn ends([client, vip]: [&str; 2]) -> (SocketAddr, SocketAddr) {
    (client.parse().unwrap(), vip.parse().unwrap())
}

/// Tags and padding that must not matter, nor where in its buffer a frame lies.
const FRAMES: [(&[u16], usize, usize); 4] = [(&[], 0, 0), (&[5], 30, 20), (&[5, 6], 0, 40), (&[], 7, 40)];

/// What is made of an IP packet in a frame of that shape: read back, but for its padding.
fn answer(
    ip: &[u8],
    (tags, padding, lead): (&[u16], usize, usize),
    make: impl Fn(&mut [u8], Range<usize>, &Packet) -> Option<Range<usize>>,
) -> Option<Vec<u8>> {
    let frame = draft::frame(ip, tags, padding);
    let mut buffer = vec![0xdd; 2048];
    buffer[lead..lead + frame.len()].copy_from_slice(&frame);
    let at = lead..lead + frame.len();
    let before = buffer.clone();
    let Some(range) = make(&mut buffer, at, &parsed(&frame)) else {
        assert!(buffer == before, "what is not answered stays as it is");
        return None;
    };
    assert_eq!(range.start, lead);
    assert!(range.len() >= 60, "{} bytes are no frame", range.len());
    let Seen { destination_mac, source_mac, vlans, ip, padding } = seen_valid(&buffer[range.clone()]);
    assert_eq!((destination_mac, source_mac, vlans), (CLIENT_MAC, BOX_MAC, tags.to_vec()));
    assert!(padding == 0 || range.len() == 60, "{padding} bytes of padding");
    assert!(buffer[range][14 + 4 * tags.len() + ip.len()..].iter().all(|&byte| byte == 0), "old bytes leak");
    Some(ip)
}

fn check_reset(draft: &Draft, expected: Option<(u32, u32, u8)>) {
    for (client, vip) in FAMILIES.map(ends) {
        for shape in FRAMES {
            let made = answer(&draft.between(client, vip), shape, reset);
            let wanted = expected.map(|(sequence, acknowledged, flags)| {
                let mut header = etherparse::TcpHeader::new(vip.port(), client.port(), sequence, 0);
                header.acknowledgment_number = acknowledged;
                (header.rst, header.ack) = (true, flags & ACK != 0);
                header
            });
            let read = made.as_ref().map(|ip| {
                let packet = IpSlice::from_slice(ip).unwrap();
                assert_eq!((packet.source_addr(), packet.destination_addr()), (vip.ip(), client.ip()));
                assert_eq!(packet.payload().ip_number, IpNumber::TCP);
                assert_eq!(packet.payload().payload.len(), 20, "no options, no data");
                let mut tcp = TcpSlice::from_slice(packet.payload().payload).unwrap().to_header();
                tcp.checksum = 0;
                tcp
            });
            assert_eq!(read, wanted, "{draft:?}");
        }
    }
}

#[test]
fn a_reset_is_what_the_sender_can_believe() {
    const SEQUENCE: u32 = 0x0102_0304;
    const ACKNOWLEDGED: u32 = 0xf1f2_f3f4;
    let by_number = |counted: u32| Some((0, SEQUENCE + counted, RST | ACK));
    let cases = [
        (SYN, 0, by_number(1)),
        (SYN, 5, by_number(6)),
        (FIN, 0, by_number(1)),
        (FIN, 1000, by_number(1001)),
        (SYN | FIN, 2, by_number(4)),
        (0, 0, by_number(0)),
        (0, 77, by_number(77)),
        (ACK, 0, Some((ACKNOWLEDGED, 0, RST))),
        (ACK, 500, Some((ACKNOWLEDGED, 0, RST))),
        (SYN | ACK, 0, Some((ACKNOWLEDGED, 0, RST))),
        (FIN | ACK, 3, Some((ACKNOWLEDGED, 0, RST))),
        (RST, 0, None),
        (RST | ACK, 0, None),
        (RST | SYN | FIN, 9, None),
    ];
    for (flags, payload, expected) in cases {
        for tcp_options in [0, 12, 40] {
            for (options, extensions) in [(vec![], vec![]), (vec![1, 1, 1, 0], vec![(60, 1)])] {
                let draft = Draft::tcp(flags, &vec![9; payload]);
                let ip = IpDraft { options, extensions, ..IpDraft::default() };
                check_reset(&Draft { ip, tcp_options, ..draft }, expected);
            }
        }
    }
}

#[test]
fn a_fragment_is_not_reset() {
    for (client, vip) in FAMILIES.map(ends) {
        let whole = Draft::tcp(ACK, &[9; 100]).between(client, vip);
        assert_eq!(answer(&draft::fragments(&whole, 64)[0], FRAMES[0], reset), None);
    }
}

/// The error about a packet: type, code, value and how much of the packet it quotes.
fn check_error(ip: &[u8], made: Option<&Vec<u8>>, expected: Option<([u8; 2], u32, usize)>) {
    let Some((kind, value, most)) = expected else {
        assert_eq!(made, None);
        return;
    };
    let made = made.expect("an answer");
    let about = IpSlice::from_slice(ip).unwrap();
    let read = message(made);
    assert_eq!((read.source, read.destination), (about.destination_addr(), about.source_addr()));
    assert_eq!((read.kind, u32::from_be_bytes(read.value)), (kind, value));
    assert_eq!(read.data.len(), ip.len().min(most), "of {} bytes", ip.len());
    assert_eq!(read.data, ip[..read.data.len()]);
}

#[test]
fn port_unreachable_quotes_as_much_as_may_be() {
    for payload in [0, 1, 2, 519, 520, 521, 1183, 1184, 1185, 1400] {
        for (options, extensions) in [(vec![], vec![]), (vec![1, 1, 1, 0], vec![(0, 0), (60, 1)])] {
            let ip = IpDraft { options, extensions, traffic_class: 0xb9, ..IpDraft::default() };
            let draft = Draft { ip, ..Draft::udp(&vec![9; payload]) };
            for (family, expected) in FAMILIES.into_iter().zip([([3, 3], 0, 548), ([1, 4], 0, 1232)]) {
                let (client, vip) = ends(family);
                let ip = draft.between(client, vip);
                for shape in FRAMES {
                    check_error(&ip, answer(&ip, shape, unreachable).as_ref(), Some(expected));
                }
            }
        }
    }
}

#[test]
fn too_big_says_what_fits() {
    let (v4, v6) = (ends(FAMILIES[0]), ends(FAMILIES[1]));
    let may_fragment = |dont_fragment| IpDraft { dont_fragment, ..IpDraft::default() };
    // Family, DF, bytes of IP packet, MTU; and what is said.
    let cases = [
        (v4, true, 1500, 1480, Some(([3, 4], 1480, 548))),
        (v4, true, 1500, 0x1_0000, Some(([3, 4], 0xffff, 548))),
        (v4, true, 100, 68, Some(([3, 4], 68, 548))),
        (v4, false, 1500, 1480, None),
        (v6, false, 1500, 1460, Some(([2, 0], 1460, 1232))),
        (v6, false, 1281, 1280, Some(([2, 0], 1280, 1232))),
        (v6, false, 1500, 1240, Some(([2, 0], 1280, 1232))),
        (v6, false, 1280, 1240, None),
        (v6, false, 1280, 1500, None),
    ];
    for ((client, vip), dont_fragment, length, mtu, expected) in cases {
        let header = if client.is_ipv4() { 28 } else { 48 };
        let draft = Draft { ip: may_fragment(dont_fragment), ..Draft::udp(&vec![9; length - header]) };
        let ip = draft.between(client, vip);
        assert_eq!(is_told_too_big(&parsed(&draft::frame(&ip, &[], 0))), expected.is_some());
        for shape in FRAMES {
            let made = answer(&ip, shape, |buffer, at, packet| too_big(buffer, at, packet, mtu));
            check_error(&ip, made.as_ref(), expected);
        }
    }
}

type Make = fn(&mut [u8], Range<usize>, &Packet) -> Option<Range<usize>>;

#[test]
fn what_finds_no_room_changes_nothing() {
    let check = |ip: &[u8], room: usize, make: Make| {
        let frame = draft::frame(ip, &[], 0);
        for (room, expected) in [(room - 1, false), (room, true)] {
            let mut tight = frame.clone();
            tight.resize(room.max(frame.len()), 0);
            let before = tight.clone();
            let made = make(&mut tight, 0..frame.len(), &parsed(&frame));
            assert_eq!((made.is_some(), tight == before), (expected, !expected), "{room} bytes");
        }
    };
    for (client, vip) in FAMILIES.map(ends) {
        let ip = Draft::udp(&[9; 100]).between(client, vip);
        check(&ip, 14 + ip.len() + if client.is_ipv4() { 28 } else { 48 }, unreachable);
    }
    // Only a short IPv4 segment's answer is longer than itself: it is filled up.
    let (client, vip) = ends(FAMILIES[0]);
    check(&Draft::tcp(SYN, b"").between(client, vip), 60, reset);
}

/// Of a packet that goes on in other buffers no more than the head piece is quoted.
#[test]
fn a_packet_of_several_pieces_is_quoted_from_its_first() {
    for (client, vip) in FAMILIES.map(ends) {
        let ip =
            Draft { ip: IpDraft { dont_fragment: true, ..IpDraft::default() }, ..Draft::udp(&[9; 5000]) }
                .between(client, vip);
        let frame = draft::frame(&ip, &[], 0);
        let mut buffer = [&frame[..300], &[0; 300]].concat();
        let packet = crate::packet::parse(&frame[..300], frame.len()).unwrap();
        let range = too_big(&mut buffer, 0..300, &packet, 1400).unwrap();
        let quote = message(&seen_valid(&buffer[range]).ip).data;
        assert_eq!(quote, ip[..300 - 14]);
    }
}

fn check_echo(ip: &IpDraft, family: [&str; 2], value: [u8; 4], data: &[u8]) {
    let (client, vip) = (ends(family).0.ip(), ends(family).1.ip());
    let (request, reply) = if client.is_ipv4() { (8, 0) } else { (128, 129) };
    let asked = draft::icmp(ip, [request, 0], value, data, client, vip);
    let answered = IpDraft { ttl: 64, ..ip.clone() };
    let expected = draft::icmp(&answered, [reply, 0], value, data, vip, client);
    let mut frame = draft::frame(&asked, &[5], 3);
    let packet = parsed(&frame);
    assert_eq!(packet.content, Content::Echo);
    echo(&mut frame, &packet);
    assert_eq!(frame[18..18 + expected.len()], expected, "{value:02x?} {} bytes", data.len());
    assert_eq!((&frame[..6], &frame[6..12]), (&CLIENT_MAC[..], &BOX_MAC[..]));
    assert_eq!((&frame[12..16], &frame[18 + expected.len()..]), (&[0x81, 0, 0, 5][..], &[0xee; 3][..]));
}

#[test]
fn every_identifier_is_answered_with_a_checksum_that_adds_up() {
    for family in FAMILIES {
        for id in 0..=u16::MAX {
            let [high, low] = id.to_be_bytes();
            check_echo(&IpDraft::default(), family, [high, low, 0, 0], b"");
        }
    }
}

#[test]
fn echoes_keep_their_data_and_options() {
    let odd = IpDraft { ttl: 1, traffic_class: 0xff, dont_fragment: true, ..IpDraft::default() };
    let long = IpDraft { options: vec![0x94, 4, 0, 0], extensions: vec![(0, 0), (60, 1)], ttl: 255, ..odd };
    for family in FAMILIES {
        for ip in [&odd, &long] {
            for length in [0, 1, 2, 3, 56, 1400] {
                for byte in [0, 0xff, 0x5a] {
                    check_echo(ip, family, [0, 0, 0, 1], &vec![byte; length]);
                    check_echo(ip, family, [0xff; 4], &vec![byte; length]);
                    check_echo(ip, family, [0; 4], &vec![byte; length]);
                }
            }
        }
    }
}

#[test]
fn only_one_station_and_one_host_is_answered() {
    let cases = [
        ("192.0.2.1:1", true),
        ("10.255.255.255:1", true),
        ("223.255.255.255:1", true),
        ("0.0.0.0:1", false),
        ("0.1.2.3:1", false),
        ("127.0.0.1:1", false),
        ("224.0.0.1:1", false),
        ("239.255.255.255:1", false),
        ("240.0.0.1:1", false),
        ("255.255.255.255:1", false),
        ("[2001:db8::1]:1", true),
        ("[fe80::1]:1", true),
        ("[::]:1", false),
        ("[::1]:1", false),
        ("[ff02::1]:1", false),
        ("[ff05::1:3]:1", false),
    ];
    for (client, expected) in cases {
        let client: SocketAddr = client.parse().unwrap();
        let vip = ends(FAMILIES[usize::from(client.is_ipv6())]).1;
        let request = if client.is_ipv4() { 8 } else { 128 };
        let echo = draft::icmp(&IpDraft::default(), [request, 0], [0; 4], b"", client.ip(), vip.ip());
        for ip in [Draft::tcp(SYN, b"").between(client, vip), Draft::udp(b"").between(client, vip), echo] {
            let mut frame = draft::frame(&ip, &[], 0);
            let packet = parsed(&frame);
            assert_eq!(may_answer(&frame, &packet), expected, "{client}");
            for group in [[1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [0xff; 6]] {
                frame[..6].copy_from_slice(&group);
                assert!(!may_answer(&frame, &packet), "to {group:02x?}");
            }
        }
    }
}

#[test]
fn errors_and_later_fragments_are_not_answered() {
    for (client, vip) in FAMILIES.map(ends) {
        let flow = Draft::udp(&[9; 100]).between(vip, client);
        let unreachable = if client.is_ipv4() { [3, 3] } else { [1, 4] };
        let error = draft::icmp(&IpDraft::default(), unreachable, [0; 4], &flow, client.ip(), vip.ip());
        let whole = Draft::udp(&[9; 100]).between(client, vip);
        let mut fragments = draft::fragments(&whole, 64).into_iter();
        let (first, later) = (fragments.next().unwrap(), fragments.next().unwrap());
        for (ip, expected) in [(error, false), (later, false), (first, true)] {
            let frame = draft::frame(&ip, &[], 0);
            assert_eq!(may_answer(&frame, &parsed(&frame)), expected);
        }
    }
}
