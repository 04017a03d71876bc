//! Packets larger than a buffer: sent on in their pieces, of which only the first is ever touched.

use std::net::SocketAddr;

use super::random::unwrapped;
use super::world::{BACKENDS, CLIENTS, Links, TestWorker, Way, World, mac_of};
use super::*;
use crate::port::NicIndex;
use crate::port::memory::MemoryPort;
use crate::testing::draft::{self, Draft, IpDraft};
use crate::testing::oracle::{Seen, ends, seen_valid};

const SIZES: [usize; 7] = [400, 1500, 1801, 2048, 4000, 8000, 8900];

fn client(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:c::1]:40000" } else { "198.18.0.1:40000" }.parse().unwrap()
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * i / 7) as u8).collect()
}

fn pass(worker: &mut TestWorker, nic: NicIndex, lead: u8, frame: &[u8]) -> (NicIndex, Seen) {
    worker.inject(nic, lead, frame);
    let mut sent = worker.turn(1);
    assert_eq!(sent.len(), 1, "{} bytes: {:?}", frame.len(), worker.values());
    let (nic, frame) = sent.remove(0);
    (nic, seen_valid(&frame))
}

fn worlds() -> impl Iterator<Item = TestWorker> {
    [600, 1024, 2048].into_iter().map(|chunk_size| {
        let mut world = World::new(1, |_| ());
        world.relink(Links { vlan: None, mtu: 9000 });
        world.worker_on(0, MemoryPort::with_chunk_size(64, 64, chunk_size))
    })
}

#[test]
fn every_mode_sends_all_pieces_on() {
    for mut worker in worlds() {
        for (way, v6, length) in Way::ALL
            .into_iter()
            .flat_map(|way| [false, true].map(|v6| (way, v6)))
            .flat_map(|(way, v6)| SIZES.map(|length| (way, v6, length)))
        {
            let tcp = length.is_multiple_of(2);
            let draft = if tcp { Draft::tcp(SYN, &payload(length)) } else { Draft::udp(&payload(length)) };
            let ip = draft.between(client(v6), way.service(v6, tcp));
            // The steering program makes as much room as the VIP needs, and padding does not leave.
            let frame = draft::frame(&ip, &[], 5);
            let (nic, seen) = pass(&mut worker, CLIENTS, way.outer_length() as u8, &frame);
            assert_eq!((nic, seen.padding), (BACKENDS, 0));
            match way {
                Way::Dr => assert!(seen.ip == ip, "{length} bytes"),
                Way::Ipip4 | Way::Ipip6 => assert!(unwrapped(way, &seen.ip, v6).1 == ip, "{length} bytes"),
                Way::Nat => {
                    let (source, backend) = ends(&seen.ip);
                    assert!(seen.ip == draft.between(source, backend), "{length} bytes");
                }
            }
        }
    }
}

#[test]
fn replies_of_translated_flows_come_back_in_pieces() {
    for mut worker in worlds() {
        for v6 in [false, true] {
            let service = Way::Nat.service(v6, false);
            let request = draft::frame(&Draft::udp(b"query").between(client(v6), service), &[], 0);
            let (_, seen) = pass(&mut worker, CLIENTS, 0, &request);
            let (source, backend) = ends(&seen.ip);
            for length in SIZES {
                let answer = Draft::udp(&payload(length));
                let mut frame = draft::frame(&answer.between(backend, source), &[], 0);
                frame[6..12].copy_from_slice(&mac_of(backend.ip()));
                let (nic, seen) = pass(&mut worker, BACKENDS, 0, &frame);
                assert_eq!(nic, CLIENTS);
                assert!(seen.ip == answer.between(service, client(v6)), "{length} bytes");
            }
        }
    }
}

/// Headers that go on in the next buffer are not read.
#[test]
fn headers_in_two_pieces_are_a_counted_drop() {
    let world = World::new(1, |_| ());
    for chunk_size in 20..90 {
        let mut worker = world.worker_on(0, MemoryPort::with_chunk_size(64, 64, chunk_size));
        for v6 in [false, true] {
            let ip = Draft::tcp(SYN, &payload(300)).between(client(v6), Way::Dr.service(v6, true));
            let headers = 14 + if v6 { 60 } else { 40 };
            let sent = worker.client_sends(&ip, 1);
            assert_eq!(sent.is_some(), chunk_size >= headers, "{chunk_size} bytes");
            assert!(sent.is_none_or(|(_, frame)| seen_valid(&frame).ip == ip));
        }
    }
}

/// Too many pieces never reach the worker; the port counts them.
#[test]
fn an_oversized_packet_leaves_no_trace() {
    let mut world = World::new(1, |_| ());
    world.relink(Links { vlan: None, mtu: 9000 });
    let mut worker = world.worker_on(0, MemoryPort::with_chunk_size(64, 64, 256));
    let sized = |length: usize| {
        let ip = IpDraft { dont_fragment: true, ..IpDraft::default() };
        Draft { ip, ..Draft::udp(&payload(length)) }.between(client(false), Way::Dr.service(false, false))
    };
    assert_eq!(worker.client_sends(&sized(17 * 256), 1), None);
    assert_eq!((worker.values().counter(Counter::RxPackets), worker.0.port().counters().oversized), (0, 1));
    assert!(worker.client_sends(&sized(17 * 256 - 42), 1).is_some());
}

/// Without headroom in front of a full buffer a tunnel header has no place.
#[test]
fn a_full_first_piece_without_headroom_is_too_big_for_a_tunnel() {
    let mut world = World::new(1, |_| ());
    world.relink(Links { vlan: None, mtu: 9000 });
    let mut worker = world.worker(0);
    let ip = Draft::udp(&payload(4000)).between(client(false), Way::Ipip4.service(false, false));
    assert_eq!(worker.client_sends(&ip, 1), None);
    assert_eq!(worker.values().dropped(DropReason::TooBig), 1);
}
