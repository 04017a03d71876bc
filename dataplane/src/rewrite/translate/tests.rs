//! A translated packet is, byte for byte, the one that etherparse writes between the new ends.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::packet::transport::ACK;
use crate::testing::draft::{self, Draft, IpDraft, drafts, ip_drafts};
use crate::testing::oracle::{ends, is_valid};
use crate::testing::parsed;

/// Two ends before and two after: of the first family IPv4.
const ENDS: [[&str; 4]; 2] = [
    ["192.0.2.1:40000", "203.0.113.10:80", "10.0.9.1:1024", "10.0.0.1:30080"],
    ["[2001:db8::1]:40000", "[2001:db8::10]:80", "[fd00:9::1]:65535", "[fd00::1]:30080"],
];

fn families() -> [[SocketAddr; 4]; 2] {
    ENDS.map(|ends| ends.map(|end| end.parse().unwrap()))
}

fn end(address: SocketAddr) -> crate::flow::End {
    (address.ip(), address.port())
}

/// An IP packet with new ends.
fn translated(ip: &[u8], source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let frame = draft::frame(ip, &[], 0);
    let mut ip = ip.to_vec();
    translate(&mut ip, &parsed(&frame), &Translation { source: end(source), destination: end(destination) });
    ip
}

fn address(v6: bool) -> impl Strategy<Value = SocketAddr> {
    let any_address = any::<(u128, u16)>();
    any_address.prop_map(move |(bits, port)| {
        let ip: IpAddr = if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
        (ip, port).into()
    })
}

fn four_ends() -> impl Strategy<Value = [SocketAddr; 4]> {
    any::<bool>().prop_flat_map(|v6| [address(v6), address(v6), address(v6), address(v6)])
}

proptest! {
    #[test]
    fn every_packet_is_as_if_sent_between_the_new_ends(draft in drafts(120), ends in four_ends()) {
        let [a, b, c, d] = ends;
        let before = draft.between(a, b);
        let after = translated(&before, c, d);
        prop_assert_eq!(&after, &draft.between(c, d));
        prop_assert_eq!(translated(&after, a, b), before);
    }

    #[test]
    fn plain_packets_are_too(draft in drafts(120), ends in four_ends()) {
        let draft = Draft { ip: IpDraft { options: Vec::new(), extensions: Vec::new(), ..draft.ip }, ..draft };
        let [a, b, c, d] = ends;
        let mut ip = draft.between(a, b);
        let protocol = if draft.tcp.is_some() { Protocol::Tcp } else { Protocol::Udp };
        let translation = Translation { source: end(c), destination: end(d) };
        prop_assert_eq!(translate_plain(&mut ip, protocol, &translation), Some(()));
        prop_assert_eq!(ip, draft.between(c, d));
    }

    #[test]
    fn fragments_join_to_the_translated_packet(draft in drafts(400), ends in four_ends()) {
        let [a, b, c, d] = ends;
        let fragments = draft::fragments(&draft.between(a, b), 64);
        let after: Vec<_> = fragments.iter().map(|ip| translated(ip, c, d)).collect();
        prop_assert_eq!(draft::joined(&after), draft.between(c, d));
        prop_assert!(after.iter().all(|ip| is_valid(ip)));
    }

    /// An error about a packet that left as `c → d` becomes one about `a → b`, however much it quotes.
    #[test]
    fn quotes_are_of_the_packet_that_its_sender_knows(
        draft in drafts(60), outer in ip_drafts(), ends in four_ends(), router in any::<u128>(), most in 8usize..120,
        error in prop::sample::select(vec![([3u8, 4u8], [2u8, 0u8]), ([11, 0], [3, 0]), ([12, 0], [4, 1])]), fragment: bool,
    ) {
        let [a, b, c, d] = ends;
        let router = if c.is_ipv4() { IpAddr::V4((router as u32).into()) } else { IpAddr::V6(router.into()) };
        let cut = |ip: Vec<u8>| {
            let ip = if fragment { draft::fragments(&ip, 64).remove(0) } else { ip };
            ip[..ip.len().min(draft::header_length(&ip) + most)].to_vec()
        };
        let kind = if c.is_ipv4() { error.0 } else { error.1 };
        let error = |from, to, quote: &[u8]| draft::icmp(&outer, kind, [0, 0, 5, 0x78], quote, from, to);
        let before = error(router, c.ip(), &cut(draft.between(c, d)));
        // Sent on as if the service had sent it.
        let after = translated(&before, b, a);
        prop_assert!(is_valid(&after));
        // Half a TCP checksum is left as it is: it says nothing.
        if draft.tcp.is_none() || most != 17 {
            prop_assert_eq!(&after, &error(b.ip(), a.ip(), &cut(draft.between(a, b))));
        }
    }

    #[test]
    fn a_damaged_packet_stays_damaged(draft in drafts(60), ends in four_ends(), at in 0usize..60, bit in 0u8..8) {
        let [a, b, c, d] = ends;
        let draft = Draft { unsummed: false, ip: IpDraft::default(), tcp_options: 0, ..draft };
        let mut damaged = draft.between(a, b);
        let headers = damaged.len() - draft.payload.len();
        prop_assume!(!draft.payload.is_empty());
        let at = headers + at % draft.payload.len();
        damaged[at] ^= 1 << bit;
        let after = translated(&damaged, c, d);
        let mut expected = draft.between(c, d);
        expected[at] ^= 1 << bit;
        prop_assert_eq!(&after, &expected);
        prop_assert!(!is_valid(&after));
    }
}

#[test]
fn no_checksum_stays_none_in_ipv4() {
    let [[a, b, c, d], [e, f, g, h]] = families();
    let unsummed = Draft { unsummed: true, ..Draft::udp(b"query") };
    let after = translated(&unsummed.between(a, b), c, d);
    assert_eq!((&after[26..28], ends(&after)), (&[0, 0][..], (c, d)));
    // In IPv6 it is a damaged packet, and stays one.
    let mut damaged = Draft::udp(b"query").between(e, f);
    damaged[46..48].fill(0);
    let after = translated(&damaged, g, h);
    assert_eq!((&after[46..48], ends(&after)), (&[0, 0][..], (g, h)));
}

/// A payload that makes the checksum between these ends come out as 0.
fn cancelling(draft: &Draft, source: SocketAddr, destination: SocketAddr) -> Draft {
    let with = |word: [u8; 2]| Draft { payload: [word, [0, 0]].concat(), ..draft.clone() };
    let ip = with([0, 0]).between(source, destination);
    let at = ip.len() - 4 - if draft.tcp.is_some() { 4 } else { 2 };
    with([ip[at], ip[at + 1]])
}

#[test]
fn a_sum_of_zero_is_written_as_each_protocol_wants() {
    for [a, b, c, d] in families() {
        for (draft, expected) in [(Draft::udp(b""), [0xff, 0xff]), (Draft::tcp(ACK, b""), [0, 0])] {
            let sum = |ip: &[u8]| {
                let at = ip.len() - 4 - if draft.tcp.is_some() { 4 } else { 2 };
                [ip[at], ip[at + 1]]
            };
            let afterwards = cancelling(&draft, c, d);
            let after = translated(&afterwards.between(a, b), c, d);
            assert_eq!(sum(&after), expected, "{draft:?}");
            assert_eq!(after, afterwards.between(c, d));
            let before = cancelling(&draft, a, b);
            assert_eq!(sum(&before.between(a, b)), expected, "{draft:?}");
            assert_eq!(translated(&before.between(a, b), c, d), before.between(c, d));
        }
    }
}

#[test]
fn a_later_fragment_has_new_addresses_and_nothing_else() {
    for [a, b, c, d] in families() {
        // What would be ports and checksum of a header must stay.
        let later = draft::fragments(&Draft::udp(&[0x5a; 100]).between(a, b), 64).remove(1);
        let after = translated(&later, c, d);
        let header = if a.is_ipv4() { 20 } else { 48 };
        assert_eq!(after[header..], later[header..]);
        let expected = draft::fragments(&Draft::udp(&[0x5a; 100]).between(c, d), 64).remove(1);
        assert_eq!(after[..header], expected[..header]);
    }
}

#[test]
fn a_quote_of_eight_bytes_is_enough() {
    for ([a, b, c, d], kind) in families().into_iter().zip([[3, 1], [1, 0]]) {
        for draft in [Draft::udp(b"payload"), Draft::tcp(ACK, b"payload")] {
            let header = if a.is_ipv4() { 28 } else { 48 };
            let error = |from: SocketAddr, to: SocketAddr, quote: Vec<u8>| {
                draft::icmp(&IpDraft::default(), kind, [0; 4], &quote[..header], from.ip(), to.ip())
            };
            let after = translated(&error(d, c, draft.between(c, d)), b, a);
            assert_eq!(after, error(b, a, draft.between(a, b)));
            assert!(is_valid(&after));
        }
    }
}
