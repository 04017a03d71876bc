//! Tunnel packets in two outer fragments.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::world::{BACKENDS, CLIENTS, Links, TestWorker, Way, World, mac_of};
use super::*;
use crate::port::NicIndex;
use crate::port::memory::MemoryPort;
use crate::testing::draft::{self, Draft, IpDraft, drafts};
use crate::testing::oracle::{Seen, icmp, seen_valid};

fn splitting(workers: usize, links: Links) -> World {
    let mut world = World::new(workers, |snapshot| snapshot.tunnel.fragment = true);
    world.relink(links);
    world
}

const LINKS: Links = Links { vlan: None, mtu: 1500 };

fn client(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:c::1]:40000" } else { "198.18.0.1:40000" }.parse().unwrap()
}

/// A UDP packet for the tunnel with so many bytes of IP packet.
fn sized(way: Way, v6: bool, length: usize, dont_fragment: bool) -> Vec<u8> {
    let ip = IpDraft { dont_fragment, traffic_class: 0x2e, ..IpDraft::default() };
    let payload = (0..length - if v6 { 48 } else { 28 }).map(|i| (i / 3) as u8).collect();
    Draft { ip, payload, ..Draft::udp(b"") }.between(client(v6), way.service(v6, false))
}

fn from_client(worker: &mut TestWorker, lead: u8, ip: &[u8]) -> Vec<(NicIndex, Vec<u8>)> {
    worker.inject(CLIENTS, lead, &draft::frame(ip, &[], 0));
    worker.turn(1)
}

/// Two outer fragments that left are one tunnel packet around `ip`. Returns its number.
fn check_split(sent: &[(NicIndex, Vec<u8>)], ip: &[u8], links: Links) -> u16 {
    let seen: Vec<Seen> = sent.iter().map(|(_, frame)| seen_valid(frame)).collect();
    let [first, second] = &seen[..] else { panic!("{} frames", seen.len()) };
    let header = |seen: &Seen| etherparse::Ipv4Header::from_slice(&seen.ip).unwrap().0;
    let (one, other) = (header(first), header(second));
    for (seen, header) in [(first, &one), (second, &other)] {
        assert_eq!((sent[0].0, seen.padding), (BACKENDS, 0));
        assert_eq!(seen.vlans, links.vlan.into_iter().collect::<Vec<_>>());
        assert!(seen.ip.len() as u32 <= links.mtu, "{} bytes", seen.ip.len());
        assert_eq!(seen.destination_mac, mac_of(header.destination.into()));
        assert_eq!((header.dont_fragment, header.time_to_live), (false, 64));
        assert_eq!(header.protocol.0, if ip[0] >> 4 == 6 { 41 } else { 4 });
    }
    assert!(one.more_fragments && !other.more_fragments && one.fragment_offset.value() == 0);
    assert_eq!(usize::from(other.fragment_offset.value()) * 8, first.ip.len() - 20);
    assert_eq!(
        (one.source, one.destination, one.identification),
        (other.source, other.destination, other.identification)
    );
    let joined = draft::joined(&[first.ip.clone(), second.ip.clone()]);
    assert_eq!(joined[20..], *ip, "the packet of the client");
    one.identification
}

#[test]
fn what_may_be_fragmented_and_does_not_fit_goes_in_two() {
    for vlan in [None, Some(7)] {
        let links = Links { vlan, ..LINKS };
        let mut worker = splitting(1, links).worker(0);
        for (lead, length) in [(20, 1481), (0, 1481), (20, 1488), (20, 1499), (20, 1500), (40, 1500)] {
            let ip = sized(Way::Ipip4, false, length, false);
            let before = worker.values();
            let sent = from_client(&mut worker, lead, &ip);
            check_split(&sent, &ip, links);
            let values = worker.values();
            let grew = |counter| values.counter(counter) - before.counter(counter);
            assert_eq!((grew(Counter::OuterFragmented), grew(Counter::TxPackets)), (1, 1));
            let bytes: usize = sent.iter().map(|(_, frame)| frame.len()).sum();
            assert_eq!(grew(Counter::TxBytes), bytes as u64);
        }
        let fits = sized(Way::Ipip4, false, 1480, false);
        assert_eq!(from_client(&mut worker, 20, &fits).len(), 1);
        assert_eq!(worker.values().dropped_total(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_packet_that_two_fragments_can_hold(draft in drafts(1400), mtu in 600u32..1500, v6: bool) {
        let draft = Draft { ip: IpDraft { dont_fragment: false, ..draft.ip.clone() }, ..draft };
        let ip = draft.between(client(v6), Way::Ipip4.service(v6, draft.tcp.is_some()));
        let links = Links { vlan: None, mtu };
        let mut worker = splitting(1, links).worker(0);
        let sent = from_client(&mut worker, 20, &ip);
        let (fits, told) = (ip.len() as u32 + 20 <= mtu, v6 && ip.len() > 1280);
        let two = ip.len() as u32 <= (mtu - 20) / 8 * 8 + mtu - 20;
        match sent.len() {
            2 => { check_split(&sent, &ip, links); prop_assert!(!fits && !told && two); }
            1 => prop_assert!(fits || told),
            _ => prop_assert!(!fits && !told && !two),
        }
    }
}

#[test]
fn who_can_be_told_is_told() {
    let mut worker = splitting(1, LINKS).worker(0);
    for (v6, kind) in [(false, [3, 4]), (true, [2, 0])] {
        let ip = sized(Way::Ipip4, v6, 1500, true);
        let [(nic, frame)] = &from_client(&mut worker, 20, &ip)[..] else { panic!("one answer") };
        let error = icmp(&seen_valid(frame).ip);
        assert_eq!((*nic, error.kind, error.value), (CLIENTS, kind, 1480u32.to_be_bytes()));
    }
    assert_eq!(worker.values().counter(Counter::OuterFragmented), 0);
}

/// IPv6 routers fragment nothing, and neither does the box on their behalf.
#[test]
fn tunnels_in_ipv6_are_not_split() {
    let mut worker = splitting(1, LINKS).worker(0);
    assert!(from_client(&mut worker, 40, &sized(Way::Ipip6, false, 1500, false)).is_empty());
    assert_eq!(worker.values().dropped(DropReason::TooBig), 1);
}

#[test]
fn unless_configured_nothing_is_split() {
    let mut worker = World::new(1, |_| ()).worker(0);
    assert!(from_client(&mut worker, 20, &sized(Way::Ipip4, false, 1500, false)).is_empty());
    assert_eq!(worker.values().dropped(DropReason::TooBig), 1);
}

/// A small IPv6 packet cannot be told to be smaller.
#[test]
fn ipv6_below_its_least_mtu_is_split() {
    let links = Links { mtu: 1290, ..LINKS };
    let mut worker = splitting(1, links).worker(0);
    let ip = sized(Way::Ipip4, true, 1280, false);
    check_split(&from_client(&mut worker, 20, &ip), &ip, links);
}

#[test]
fn numbers_differ_from_packet_to_packet_and_worker_to_worker() {
    let world = splitting(3, LINKS);
    let ip = sized(Way::Ipip4, false, 1500, false);
    let mut numbers = std::collections::HashSet::new();
    for index in 0..3 {
        let mut worker = world.worker(index);
        for _ in 0..100 {
            assert!(numbers.insert(check_split(&from_client(&mut worker, 20, &ip), &ip, LINKS)));
        }
    }
}

#[test]
fn without_room_for_both_the_packet_is_dropped_once() {
    let world = splitting(1, LINKS);
    let ip = sized(Way::Ipip4, false, 1500, false);
    // No room in the transmit ring for the first, or for the second; no buffer for the second.
    for (frames, transmit_limit, leave) in [(8, 0, 0), (8, 1, 1), (1, 8, 0)] {
        let mut worker = world.worker_on(0, MemoryPort::new(frames, transmit_limit));
        let before = worker.values();
        assert_eq!(from_client(&mut worker, 20, &ip).len(), leave);
        let values = worker.values();
        assert_eq!(values.dropped(DropReason::TxRingFull) - before.dropped(DropReason::TxRingFull), 1);
        assert_eq!(values.counter(Counter::OuterFragmented), 0);
    }
}

/// A fragment of the client's may be split once more.
#[test]
fn fragments_of_fragments_join_to_the_clients() {
    let mut worker = splitting(1, LINKS).worker(0);
    let whole = Draft::udp(&[7; 3000]).between(client(false), Way::Ipip4.service(false, false));
    for ip in draft::fragments(&whole, 1480) {
        let sent = from_client(&mut worker, 20, &ip);
        if ip.len() > 1480 {
            check_split(&sent, &ip, LINKS);
        } else {
            assert_eq!(sent.len(), 1);
        }
    }
    assert_eq!(worker.values().dropped_total(), 0);
}

/// A packet in several buffers is not split: the second fragment would begin in any of them.
#[test]
fn packets_of_several_pieces_are_not_split() {
    let world = splitting(1, LINKS);
    let mut worker = world.worker_on(0, MemoryPort::with_chunk_size(8, 8, 1024));
    assert!(from_client(&mut worker, 20, &sized(Way::Ipip4, false, 1500, false)).is_empty());
    assert_eq!(worker.values().dropped(DropReason::TooBig), 1);
    assert_eq!(from_client(&mut worker, 20, &sized(Way::Ipip4, false, 1480, false)).len(), 1);
}
