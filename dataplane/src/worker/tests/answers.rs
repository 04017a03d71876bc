//! Answers through a worker: how many, to whom, by which NIC, and what is not answered.

use std::net::{IpAddr, SocketAddr};

use shunt_api::snapshot::UnlistedPorts;

use super::world::{BACKENDS, CLIENTS, Links, TestWorker, Way, World, mac_of};
use super::*;
use crate::packet::transport::{ACK, FIN, RST};
use crate::port::memory::MemoryPort;
use crate::testing::draft::{self, CLIENT_MAC, Draft, IpDraft};
use crate::testing::oracle::{ends, icmp, seen_valid};

fn client(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:c::1]:40000" } else { "198.18.0.1:40000" }.parse().unwrap()
}

fn unlisted(v6: bool) -> SocketAddr {
    (Way::Dr.vip(v6), 7).into()
}

fn echo(v6: bool, data: &[u8]) -> Vec<u8> {
    let request = if v6 { [128, 0] } else { [8, 0] };
    draft::icmp(&IpDraft::default(), request, [0, 1, 0, 2], data, client(v6).ip(), Way::Dr.vip(v6))
}

/// A packet that is answered in each of the four ways, given an MTU of 1400.
fn provoking(v6: bool) -> [Vec<u8>; 4] {
    let large = Draft::tcp(ACK, &[7; 1400]).between(client(v6), Way::Dr.service(v6, true));
    let segment = Draft::tcp(SYN, b"").between(client(v6), unlisted(v6));
    let datagram = Draft::udp(b"hello").between(client(v6), unlisted(v6));
    [echo(v6, b"ping"), segment, datagram, large]
}

const KINDS: [(Counter, DropReason); 4] = [
    (Counter::EchoReplies, DropReason::EchoLimited),
    (Counter::ResetReplies, DropReason::UnlistedPort),
    (Counter::UnreachableReplies, DropReason::UnlistedPort),
    (Counter::TooBigReplies, DropReason::TooBig),
];

fn small_world(change: impl FnOnce(&mut shunt_api::snapshot::Snapshot)) -> World {
    let mut world = World::new(2, change);
    world.relink(Links { vlan: None, mtu: 1400 });
    world
}

#[test]
fn each_kind_has_its_own_budget_in_each_second() {
    for v6 in [false, true] {
        let world = small_world(|snapshot| snapshot.reply_rate = 2);
        let mut worker = world.worker(0);
        for (second, sent_before) in [(1, 0), (2, 2), (3, 4)] {
            for (ip, (counter, reason)) in provoking(v6).iter().zip(KINDS) {
                let sent: Vec<bool> = (0..4).map(|_| worker.client_sends(ip, second).is_some()).collect();
                assert_eq!(sent, [true, true, false, false], "{counter:?}");
                assert_eq!(worker.values().counter(counter), sent_before + 2);
                assert!(worker.values().dropped(reason) >= sent_before + 2);
            }
        }
        let unlisted = worker.values().dropped(DropReason::UnlistedPort);
        assert_eq!((unlisted, worker.values().dropped_total()), (12, 24));
        // Another worker has budgets of its own.
        let mut other = world.worker(1);
        assert!(provoking(v6).iter().all(|ip| other.client_sends(ip, 3).is_some()));
    }
}

#[test]
fn a_rate_of_none_is_silence() {
    let world = small_world(|snapshot| snapshot.reply_rate = 0);
    let mut worker = world.worker(0);
    for ip in [false, true].map(provoking).as_flattened() {
        assert_eq!(worker.client_sends(ip, 1), None);
    }
    assert_eq!(worker.values().dropped_total(), 8);
}

#[test]
fn answers_leave_by_the_nic_station_and_tags_that_packets_came_by() {
    let world = small_world(|_| ());
    let mut worker = world.worker(0);
    for v6 in [false, true] {
        for ip in provoking(v6) {
            for (nic, tags) in [(CLIENTS, vec![]), (BACKENDS, vec![5]), (CLIENTS, vec![5, 6])] {
                let (by, frame) = worker.pass(nic, &draft::frame(&ip, &tags, 0), 1).unwrap();
                let seen = seen_valid(&frame);
                assert_eq!((by, seen.destination_mac, seen.vlans), (nic, CLIENT_MAC, tags));
                let sliced = etherparse::IpSlice::from_slice(&seen.ip).unwrap();
                assert_eq!(
                    (sliced.source_addr(), sliced.destination_addr()),
                    (Way::Dr.vip(v6), client(v6).ip())
                );
            }
        }
    }
}

#[test]
fn nobody_is_answered_that_could_make_a_storm() {
    let world = small_world(|_| ());
    let mut worker = world.worker(0);
    let mut silent = |frame: &[u8]| assert_eq!(worker.pass(CLIENTS, frame, 1), None);
    for v6 in [false, true] {
        for ip in provoking(v6) {
            let mut frame = draft::frame(&ip, &[], 0);
            frame[..6].fill(0xff);
            silent(&frame);
        }
        let group: IpAddr = if v6 { "ff02::1" } else { "224.0.0.1" }.parse().unwrap();
        silent(&draft::frame(&Draft::tcp(SYN, b"").between((group, 1).into(), unlisted(v6)), &[], 0));
        silent(&draft::frame(&Draft::udp(b"").between((group, 1).into(), unlisted(v6)), &[], 0));
        let reset = Draft::tcp(RST | ACK, b"").between(client(v6), unlisted(v6));
        silent(&draft::frame(&reset, &[], 0));
        let fragments = draft::fragments(&Draft::udp(&[7; 100]).between(client(v6), unlisted(v6)), 64);
        fragments.iter().for_each(|ip| silent(&draft::frame(ip, &[], 0)));
    }
    let values = worker.values();
    assert_eq!((values.dropped(DropReason::EchoLimited), values.dropped(DropReason::TooBig)), (2, 2));
    assert_eq!(values.dropped(DropReason::UnlistedPort), 12);
    assert_eq!(values.dropped(DropReason::FragmentWithoutFirst), 2);
    assert!(KINDS.iter().all(|(counter, _)| values.counter(*counter) == 0));
}

#[test]
fn unlisted_ports_may_be_silent_but_for_pings() {
    let world = small_world(|snapshot| {
        snapshot.services.iter_mut().for_each(|service| service.unlisted_ports = UnlistedPorts::Drop);
    });
    let mut worker = world.worker(0);
    for v6 in [false, true] {
        let [echo, segment, datagram, _] = provoking(v6);
        assert!(worker.client_sends(&echo, 1).is_some());
        assert_eq!((worker.client_sends(&segment, 1), worker.client_sends(&datagram, 1)), (None, None));
    }
    assert_eq!(worker.values().dropped(DropReason::UnlistedPort), 4);
}

#[test]
fn an_address_that_is_not_ours_is_not_spoken_for() {
    let world = small_world(|_| ());
    let mut worker = world.worker(0);
    let stranger: SocketAddr = "203.0.113.99:80".parse().unwrap();
    let ping = draft::icmp(&IpDraft::default(), [8, 0], [0; 4], b"", client(false).ip(), stranger.ip());
    for ip in [
        ping,
        Draft::tcp(SYN, b"").between(client(false), stranger),
        Draft::udp(b"").between(client(false), stranger),
        draft::fragments(&Draft::udp(&[7; 100]).between(client(false), stranger), 64).remove(1),
    ] {
        assert_eq!(worker.client_sends(&ip, 1), None);
    }
    assert_eq!(worker.values().dropped(DropReason::NotOurAddress), 4);
}

/// A source address of translated flows is a host like any other.
#[test]
fn a_source_address_answers_pings() {
    let world = small_world(|_| ());
    let mut worker = world.worker(0);
    let source: IpAddr = "10.0.9.1".parse().unwrap();
    let ping = draft::icmp(&IpDraft::default(), [8, 0], [0; 4], b"x", [10, 0, 3, 1].into(), source);
    let (_, frame) = worker.pass(BACKENDS, &draft::frame(&ping, &[], 0), 1).unwrap();
    let reply = icmp(&seen_valid(&frame).ip);
    assert_eq!((reply.source, reply.kind), (source, [0, 0]));
}

/// What a backend sends back on a translated flow, with its own station.
fn answer_of(worker: &mut TestWorker, v6: bool, answer: &Draft) -> (Vec<u8>, SocketAddr, SocketAddr) {
    let request = Draft::udp(b"query").between(client(v6), Way::Nat.service(v6, false));
    let (_, frame) = worker.client_sends(&request, 1).unwrap();
    let (source, backend) = ends(&seen_valid(&frame).ip);
    let ip = answer.between(backend, source);
    let mut frame = draft::frame(&ip, &[], 0);
    frame[6..12].copy_from_slice(&mac_of(backend.ip()));
    (frame, source, backend)
}

#[test]
fn a_backend_is_told_that_its_reply_does_not_fit_the_way_to_the_client() {
    for v6 in [false, true] {
        let world = small_world(|_| ());
        let mut worker = world.worker(0);
        let ip = IpDraft { dont_fragment: true, ..IpDraft::default() };
        let large = Draft { ip, ..Draft::udp(&[7; 1400]) };
        let (frame, source, backend) = answer_of(&mut worker, v6, &large);
        let (nic, told) = worker.pass(BACKENDS, &frame, 1).unwrap();
        let told = seen_valid(&told);
        assert_eq!((nic, told.destination_mac), (BACKENDS, mac_of(backend.ip())));
        let error = icmp(&told.ip);
        assert_eq!((error.source, error.destination), (source.ip(), backend.ip()));
        let (kind, most) = if v6 { ([2, 0], 1232) } else { ([3, 4], 548) };
        assert_eq!((error.kind, u32::from_be_bytes(error.value)), (kind, 1400));
        // The backend knows its packet by what it sent.
        assert_eq!(error.data, frame[14..14 + most]);
        let fits = Draft { payload: vec![7; 1400 - if v6 { 48 } else { 28 }], ..large };
        let (frame, ..) = answer_of(&mut worker, v6, &fits);
        assert_eq!(worker.pass(BACKENDS, &frame, 1).unwrap().0, CLIENTS);
    }
    let world = small_world(|_| ());
    let mut worker = world.worker(0);
    let (frame, ..) = answer_of(&mut worker, false, &Draft::udp(&[7; 1400]));
    assert_eq!(worker.pass(BACKENDS, &frame, 1), None, "routers may fragment it, so nobody is told");
    assert_eq!(worker.values().dropped(DropReason::TooBig), 1);
}

/// An answer takes none of the buffers that a large packet came in.
#[test]
fn packets_of_several_pieces_are_answered() {
    let mut world = World::new(1, |_| ());
    world.relink(Links { vlan: None, mtu: 4000 });
    for chunk_size in [256, 2048] {
        let mut worker = world.worker_on(0, MemoryPort::with_chunk_size(64, 64, chunk_size));
        for v6 in [false, true] {
            let data: Vec<u8> = (0..3900u32).map(|i| i as u8).collect();
            let (_, frame) = worker.client_sends(&echo(v6, &data), 1).unwrap();
            let reply = icmp(&seen_valid(&frame).ip);
            assert_eq!((reply.data, reply.value), (data.clone(), [0, 1, 0, 2]));

            let segment = Draft::tcp(FIN, &data).between(client(v6), unlisted(v6));
            let (_, frame) = worker.client_sends(&segment, 1).unwrap();
            assert_eq!(frame.len(), if v6 { 74 } else { 60 }, "nothing of the other pieces leaves");
            let reset = seen_valid(&frame).ip;
            let acknowledged = u32::from_be_bytes(reset[reset.len() - 12..][..4].try_into().unwrap());
            assert_eq!(acknowledged, 0x0102_0304 + 3900 + 1, "all pieces are counted");

            for (ip, kind) in [
                (Draft::udp(&data).between(client(v6), unlisted(v6)), if v6 { [1, 4] } else { [3, 3] }),
                (
                    Draft::tcp(ACK, &[7; 4000]).between(client(v6), Way::Dr.service(v6, true)),
                    if v6 { [2, 0] } else { [3, 4] },
                ),
            ] {
                // The head piece is the quote, so the answer's headers need room beside it.
                let answer = worker.client_sends(&ip, 1);
                assert_eq!(answer.is_some(), chunk_size == 2048);
                let Some((_, frame)) = answer else { continue };
                let seen = seen_valid(&frame);
                let error = icmp(&seen.ip);
                assert_eq!((error.kind, error.data.len()), (kind, if v6 { 1232 } else { 548 }));
                assert_eq!(seen.padding, 0, "nothing of the other pieces leaves");
                assert_eq!(error.data, ip[..error.data.len()]);
            }
        }
    }
}
