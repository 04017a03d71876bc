//! What is read from messages that etherparse wrote, cut short and damaged at every place.

use std::net::{IpAddr, SocketAddr};

use shunt_api::snapshot::Protocol;

use super::*;
use crate::packet::transport::{ACK, TCP, UDP};
use crate::packet::{self, Content, Packet};
use crate::testing::draft::{self, Draft, IpDraft};
use crate::testing::parsed;

/// The service's end, the client's end and a router, of each family.
const FAMILIES: [[&str; 3]; 2] = [
    ["203.0.113.10:80", "192.0.2.1:40000", "198.51.100.1:0"],
    ["[2001:db8::10]:80", "[2001:db8::1]:40000", "[2001:db8:f::1]:0"],
];

fn families() -> [[SocketAddr; 3]; 2] {
    FAMILIES.map(|ends| ends.map(|end| end.parse().unwrap()))
}

fn of<T>(address: SocketAddr, v4: T, v6: T) -> T {
    if address.is_ipv4() { v4 } else { v6 }
}

/// The frame of an error from a router.
fn error(kind: [u8; 2], value: u32, quote: &[u8], from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let ip = draft::icmp(&IpDraft::default(), kind, value.to_be_bytes(), quote, from.ip(), to.ip());
    draft::frame(&ip, &[], 0)
}

fn check(frame: &[u8]) -> Result<Packet, DropReason> {
    packet::parse(frame, frame.len())
}

/// A packet of ours in a tunnel to a backend.
fn tunnelled(source: IpAddr, backend: IpAddr, inner: &[u8]) -> Vec<u8> {
    let protocol = if inner[0] >> 4 == 4 { IPV4_IN_IP } else { IPV6_IN_IP };
    IpDraft::default().packet(etherparse::IpNumber(protocol), source, backend, inner)
}

#[test]
fn every_error_names_the_flow_from_the_services_side() {
    for [vip, client, router] in families() {
        let kinds = of(
            vip,
            [[3, 0], [3, 1], [3, 3], [3, 4], [3, 13], [11, 0], [11, 1], [12, 0]],
            [[1, 0], [1, 4], [2, 0], [3, 0], [3, 1], [4, 0], [4, 1], [1, 6]],
        );
        for kind in kinds {
            for (draft, protocol) in
                [(Draft::udp(b"answer"), Protocol::Udp), (Draft::tcp(ACK, b"answer"), Protocol::Tcp)]
            {
                let packet = parsed(&error(kind, 1400, &draft.between(vip, client), router, vip));
                assert_eq!(packet.content, Content::Error, "{kind:?}");
                let end = |end: SocketAddr| (end.ip(), end.port());
                assert_eq!(Some(packet.flow), FlowKey::new(end(client), end(vip), protocol), "{kind:?}");
            }
        }
    }
}

#[test]
fn of_the_quoted_transport_header_eight_bytes_suffice() {
    for [vip, client, router] in families() {
        let kind = of(vip, [3, 1], [1, 0]);
        for (options, extensions) in [(vec![], vec![]), (vec![1, 1, 1, 0], vec![(0, 0), (60, 1)])] {
            let ip = IpDraft { options, extensions, ..IpDraft::default() };
            let sent = Draft { ip, ..Draft::tcp(ACK, b"answer") }.between(vip, client);
            let headers = sent.len() - 6 - 20;
            for length in 0..sent.len() {
                let read = check(&error(kind, 0, &sent[..length], router, vip)).map(|packet| packet.content);
                let expected =
                    if length < headers + 8 { Err(DropReason::BadIcmp) } else { Ok(Content::Error) };
                assert_eq!(read, expected, "{length} bytes of quote, headers have {headers}");
            }
        }
    }
}

#[test]
fn a_damaged_message_is_dropped_wherever_it_is_damaged() {
    for [vip, client, router] in families() {
        let quote = Draft::udp(b"answer").between(vip, client);
        let frame = error(of(vip, [3, 1], [1, 0]), 0, &quote, router, vip);
        let message = frame.len() - quote.len() - 8;
        for at in message + 2..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x10;
            assert_eq!(check(&damaged), Err(DropReason::BadIcmp), "byte {at}");
        }
        for length in message..frame.len() {
            assert!(check(&frame[..length]).is_err(), "{length} bytes");
        }
    }
}

/// Without all of its bytes at hand a checksum says nothing.
#[test]
fn a_message_in_several_pieces_is_dropped() {
    for [vip, client, router] in families() {
        let quote = Draft::udp(&[7; 400]).between(vip, client);
        let frame = error(of(vip, [3, 1], [1, 0]), 0, &quote, router, vip);
        assert!(check(&frame).is_ok());
        assert_eq!(packet::parse(&frame[..300], frame.len()), Err(DropReason::BadIcmp));
    }
}

#[test]
fn what_is_no_error_about_a_flow_has_its_own_reason() {
    use DropReason::{BadIcmp, IcmpUnhandled, IcmpUnmatched};
    for [vip, client, router] in families() {
        let sent = Draft::udp(&[7; 200]).between(vip, client);
        let kind = of(vip, [3, 1], [1, 0]);
        let sctp = IpDraft::default().packet(etherparse::IpNumber(132), vip.ip(), client.ip(), &[0; 20]);
        let to_somebody = Draft::udp(b"answer").between(client, vip);
        let own = of(vip, ICMP_V4_IN_ICMP, ICMP_V6_IN_ICMP);
        let icmp = draft::icmp(&IpDraft::default(), own, [0; 4], b"", vip.ip(), client.ip());
        let cases = [
            ("a later fragment", kind, draft::fragments(&sent, 64).remove(1), IcmpUnmatched),
            ("SCTP", kind, sctp, IcmpUnmatched),
            ("an echo", kind, icmp, IcmpUnmatched),
            ("a packet of somebody else's", kind, to_somebody, IcmpUnmatched),
            ("nothing", kind, vec![], BadIcmp),
            ("the other family", kind, vec![of(vip, 0x60, 0x45); 80], BadIcmp),
            ("redirect", of(vip, [5, 1], [137, 0]), sent.clone(), IcmpUnhandled),
            ("source quench or unknown", of(vip, [4, 0], [100, 0]), sent.clone(), IcmpUnhandled),
            ("echo reply", of(vip, [0, 0], [129, 0]), sent.clone(), IcmpUnhandled),
            ("echo request with a code", of(vip, [8, 1], [128, 1]), sent.clone(), IcmpUnhandled),
        ];
        for (what, kind, quote, reason) in cases {
            assert_eq!(check(&error(kind, 0, &quote, router, vip)), Err(reason), "{what}");
        }
        let first = draft::fragments(&sent, 64).remove(0);
        assert_eq!(check(&error(kind, 0, &first, router, vip)).unwrap().content, Content::Error);
    }
}

const ICMP_V4_IN_ICMP: [u8; 2] = [0, 0];
const ICMP_V6_IN_ICMP: [u8; 2] = [129, 0];

#[test]
fn a_message_for_somebody_else_is_no_ones() {
    for [vip, client, router] in families() {
        let quote = Draft::udp(b"answer").between(vip, client);
        let frame = error(of(vip, [3, 1], [1, 0]), 0, &quote, router, client);
        assert_eq!(check(&frame), Err(DropReason::IcmpUnmatched), "told to another than its sender");
    }
}

#[test]
fn tunnel_errors_say_which_tunnel_and_what_fits() {
    let [[vip4, client4, router4], [vip6, client6, router6]] = families();
    let inners = [Draft::udp(b"q").between(client4, vip4), Draft::udp(b"q").between(client6, vip6)];
    // Type and code, value, and the MTU that it means.
    let v4 = [([3, 4], 1400, Some(1400)), ([3, 4], 0, Some(576)), ([3, 1], 1400, None), ([11, 0], 0, None)];
    let v6 = [([2, 0], 1400, Some(1400)), ([2, 0], 0, Some(0)), ([1, 0], 1400, None), ([3, 0], 0, None)];
    for inner in inners {
        for (router, source, backend, cases) in
            [(router4, "10.200.3.4:0", "10.0.0.1:0", v4), (router6, "[fd00:200::7]:0", "[fd00::1]:0", v6)]
        {
            let (source, backend): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), backend.parse().unwrap());
            let outer = tunnelled(source.ip(), backend.ip(), &inner);
            for (kind, value, mtu) in cases {
                // Routers need not quote more than eight bytes behind the outer header, some not even those.
                for length in [of(source, 20, 40), of(source, 28, 48), outer.len()] {
                    let packet = parsed(&error(kind, value, &outer[..length], router, source));
                    assert_eq!(packet.content, Content::TunnelError { mtu }, "{kind:?} {value}");
                    assert_eq!((packet.flow.vip(), packet.flow.client()), (source.ip(), backend.ip()));
                }
            }
        }
    }
}

/// RFC 1191 has the MTU in the last two of four bytes, and the others unused.
#[test]
fn what_stands_before_an_ipv4_mtu_is_not_part_of_it() {
    let [[_, _, router], _] = families();
    let (source, backend): (SocketAddr, SocketAddr) =
        ("10.200.3.4:0".parse().unwrap(), "10.0.0.1:0".parse().unwrap());
    let outer = tunnelled(source.ip(), backend.ip(), &Draft::udp(b"").between(router, router));
    let packet = parsed(&error([3, 4], 0xffff_0578, &outer, router, source));
    assert_eq!(packet.content, Content::TunnelError { mtu: Some(1400) });
}

#[test]
fn echo_requests_are_known_and_fragments_of_them_are_not_answered() {
    for [vip, client, _] in families() {
        let request = of(vip, [8, 0], [128, 0]);
        let ip = draft::icmp(&IpDraft::default(), request, [0, 1, 0, 2], &[7; 200], client.ip(), vip.ip());
        let packet = parsed(&draft::frame(&ip, &[], 0));
        assert_eq!((packet.content, packet.flow.client()), (Content::Echo, client.ip()));
        assert_eq!((packet.flow.client_port(), packet.flow.service_port().port), (0, 0));
        let fragments = draft::fragments(&ip, 64);
        assert_eq!(check(&draft::frame(&fragments[0], &[], 0)), Err(DropReason::IcmpUnhandled));
        let later = parsed(&draft::frame(&fragments[1], &[], 0)).content;
        assert!(matches!(later, Content::LaterFragment { .. }), "{later:?}");
        assert_eq!(check(&draft::frame(&ip[..of(vip, 27, 47)], &[], 0)), Err(DropReason::Truncated));
    }
}

#[test]
fn numbers_of_protocols_are_those_of_iana() {
    assert_eq!([V4, V6, IPV4_IN_IP, IPV6_IN_IP, TCP, UDP], [1, 58, 4, 41, 6, 17]);
}
