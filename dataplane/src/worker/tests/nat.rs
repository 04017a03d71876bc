//! Translation there and back, on one worker or two: for both ends it is as if the box were not there.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::random::run;
use super::world::{BACKENDS, CLIENTS, IDLE_S, TestWorker, Way, World, mac_of, nic_mac, target};
use super::*;
use crate::conntrack::kept_s;
use crate::testing::draft::{self, Draft, IpDraft, drafts, ip_drafts};
use crate::testing::oracle::{Seen, ends, icmp, seen, seen_valid};

/// A client of each family.
fn client(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:c::1]:40000" } else { "198.18.0.1:40000" }.parse().unwrap()
}

fn router(v6: bool) -> IpAddr {
    if v6 { "2001:db8:f::1" } else { "198.51.100.1" }.parse().unwrap()
}

/// A frame that a station sends.
fn from_station(mac: [u8; 6], ip: &[u8]) -> Vec<u8> {
    let mut frame = draft::frame(ip, &[], 0);
    frame[6..12].copy_from_slice(&mac);
    frame
}

/// What leaves for a backend when a client sends this.
fn outward(worker: &mut TestWorker, frame: &[u8], now: u32) -> Seen {
    let (nic, frame) = worker.pass(CLIENTS, frame, now).unwrap_or_else(|| panic!("{:?}", worker.values()));
    assert_eq!(nic, BACKENDS);
    seen_valid(&frame)
}

/// What a client gets when a backend sends this.
fn homeward(worker: &mut TestWorker, backend: IpAddr, ip: &[u8], now: u32) -> Seen {
    let (nic, frame) = worker
        .pass(BACKENDS, &from_station(mac_of(backend), ip), now)
        .unwrap_or_else(|| panic!("{:?}", worker.values()));
    assert_eq!((nic, seen(&frame).source_mac), (CLIENTS, nic_mac(CLIENTS)));
    seen_valid(&frame)
}

/// A flow of a client and the draft of the answer, with whatever may lie about them.
#[derive(Clone, Debug)]
struct Case {
    v6: bool,
    request: Draft,
    answer: Draft,
    client_port: u16,
    client_mac: [u8; 6],
    tag: Option<u16>,
    /// The answer comes in fragments.
    fragments: bool,
    /// Bytes that a router quotes behind the IP header, and the router's own header.
    quoted: usize,
    error: IpDraft,
}

impl Case {
    fn client(&self) -> SocketAddr {
        (client(self.v6).ip(), self.client_port).into()
    }

    fn service(&self) -> SocketAddr {
        Way::Nat.service(self.v6, self.request.tcp.is_some())
    }

    fn client_frame(&self, ip: &[u8]) -> Vec<u8> {
        let tags: Vec<u16> = self.tag.into_iter().collect();
        let mut frame = draft::frame(ip, &tags, 0);
        frame[6..12].copy_from_slice(&self.client_mac);
        frame
    }

    fn quote(&self, ip: &[u8]) -> Vec<u8> {
        // Half a TCP checksum cannot be mended.
        let quoted = if self.quoted == 17 { 18 } else { self.quoted };
        ip[..ip.len().min(draft::header_length(ip) + quoted)].to_vec()
    }

    /// A router's word on a packet of which it quotes the beginning.
    fn error(&self, about: &[u8], from: IpAddr, to: IpAddr) -> Vec<u8> {
        let kind = if self.v6 { [1, 0] } else { [3, 1] };
        draft::icmp(&self.error, kind, [0; 4], &self.quote(about), from, to)
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let frame = (any::<u16>(), any::<[u8; 6]>(), prop::option::of(1u16..4095));
    let rest = (any::<(bool, bool)>(), 8usize..200, ip_drafts());
    (drafts(600), drafts(600), frame, rest).prop_map(
        |(request, answer, (client_port, mut client_mac, tag), ((v6, fragments), quoted, error))| {
            client_mac[0] &= 0xfe;
            // A flow begins with a SYN, and any packet may follow.
            let tcp = request.tcp.map(|_| SYN);
            let answer = Draft { tcp: tcp.and(answer.tcp.or(Some(0x12))), ..answer };
            let request = Draft { tcp, ..request };
            Case { v6, request, answer, client_port, client_mac, tag, fragments, quoted, error }
        },
    )
}

fn check(case: &Case, workers: &mut [TestWorker; 2], now: u32) {
    let (client, service) = (case.client(), case.service());
    let sent = case.request.between(client, service);
    let out = outward(&mut workers[0], &case.client_frame(&sent), now);
    let (source, backend) = ends(&out.ip);
    assert_eq!(out.ip, case.request.between(source, backend), "the request");

    // The backend's NIC is served by both workers.
    let answer = case.answer.between(backend, source);
    let parts = if case.fragments { draft::fragments(&answer, 128) } else { vec![answer] };
    let home: Vec<Seen> = parts
        .iter()
        .enumerate()
        .map(|(i, part)| homeward(&mut workers[(i + 1) % 2], backend.ip(), part, now + 1))
        .collect();
    for seen in &home {
        assert_eq!(
            (seen.destination_mac, seen.vlans.clone()),
            (case.client_mac, case.tag.into_iter().collect())
        );
    }
    let ips: Vec<Vec<u8>> = home.into_iter().map(|seen| seen.ip).collect();
    let got = if case.fragments { draft::joined(&ips) } else { ips[0].clone() };
    assert_eq!(got, case.answer.between(service, client), "the answer");

    check_errors(case, workers, (source, backend), now + 1);
}

/// Routers complain on both sides, and who sent the packet recognises it.
fn check_errors(
    case: &Case,
    workers: &mut [TestWorker; 2],
    (source, backend): (SocketAddr, SocketAddr),
    now: u32,
) {
    let (client, service, router) = (case.client(), case.service(), router(case.v6));
    let about_request = case.error(&case.request.between(source, backend), router, source.ip());
    let told = homeward(&mut workers[1], backend.ip(), &about_request, now);
    let expected = case.error(&case.request.between(client, service), service.ip(), client.ip());
    assert_eq!(told.ip, expected, "about the request");
    assert_eq!((told.destination_mac, told.vlans), (case.client_mac, case.tag.into_iter().collect()));

    let about_answer = case.error(&case.answer.between(service, client), router, service.ip());
    let told = outward(&mut workers[1], &case.client_frame(&about_answer), now);
    let expected = case.error(&case.answer.between(backend, source), source.ip(), backend.ip());
    assert_eq!(told.ip, expected, "about the answer");
    assert_eq!(told.destination_mac, mac_of(backend.ip()));
}

#[test]
fn there_and_back_is_as_if_nothing_was_between() {
    let world = World::new(2, |_| ());
    let workers = RefCell::new([world.worker(0), world.worker(1)]);
    run(cases(), |case, now| check(&case, &mut workers.borrow_mut(), now));
}

/// A UDP flow that has a source: its client's frame and the ends that the backend sees.
fn udp_flow(worker: &mut TestWorker, v6: bool, now: u32) -> (Vec<u8>, SocketAddr, SocketAddr) {
    let frame = draft::frame(&Draft::udp(b"query").between(client(v6), Way::Nat.service(v6, false)), &[], 0);
    let (source, backend) = ends(&outward(worker, &frame, now).ip);
    (frame, source, backend)
}

#[test]
fn a_flow_lives_on_by_its_replies_alone() {
    for v6 in [false, true] {
        let world = World::new(2, |_| ());
        let [mut one, mut other] = [world.worker(0), world.worker(1)];
        let (frame, source, backend) = udp_flow(&mut one, v6, 0);
        let answer = Draft::udp(b"answer").between(backend, source);
        // Far beyond the idle time of a flow whose client is silent.
        let step = IDLE_S as usize - 1;
        for now in (step as u32..10 * IDLE_S).step_by(step) {
            homeward(&mut other, backend.ip(), &answer, now);
        }
        let last = 10 * IDLE_S - 10;
        homeward(&mut one, backend.ip(), &answer, last);
        let again = outward(&mut one, &frame, last + IDLE_S - 1);
        assert_eq!(ends(&again.ip), (source, backend), "the same source");
        assert_eq!(one.values().counter(Counter::NatFlowsCreated), 1);
    }
}

#[test]
fn a_flow_without_any_packets_is_over() {
    for v6 in [false, true] {
        let world = World::new(1, |_| ());
        let mut worker = world.worker(0);
        let (_, source, backend) = udp_flow(&mut worker, v6, 0);
        let answer = from_station(mac_of(backend.ip()), &Draft::udp(b"answer").between(backend, source));
        let (nic, refusal) = worker.pass(BACKENDS, &answer, IDLE_S).unwrap();
        let kind = if v6 { [1, 4] } else { [3, 3] };
        assert_eq!((nic, icmp(&seen_valid(&refusal).ip).kind), (BACKENDS, kind), "port unreachable");
        let segment = Draft::tcp(0x10, b"").between(backend, source);
        let (_, reset) =
            worker.pass(BACKENDS, &from_station(mac_of(backend.ip()), &segment), IDLE_S).unwrap();
        let tcp = etherparse::SlicedPacket::from_ethernet(&reset).unwrap().transport.unwrap();
        assert!(matches!(tcp, etherparse::TransportSlice::Tcp(tcp) if tcp.rst()));
    }
}

#[test]
fn only_the_backend_that_was_asked_may_answer() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    let (_, source, backend) = udp_flow(&mut worker, false, 0);
    let other_port = SocketAddr::new(backend.ip(), backend.port() + 1);
    let other_host = SocketAddr::new("10.0.3.77".parse().unwrap(), backend.port());
    for stranger in [other_port, other_host] {
        let forged = Draft::udp(b"poison").between(stranger, source);
        let (nic, _) = worker.pass(BACKENDS, &from_station([2; 6], &forged), 0).unwrap();
        assert_eq!(nic, BACKENDS, "refused, not passed on");
    }
    let tcp = Draft::tcp(0x10, b"").between(backend, source);
    assert_eq!(
        worker.pass(BACKENDS, &from_station([2; 6], &tcp), 0).unwrap().0,
        BACKENDS,
        "another protocol"
    );
}

#[test]
fn replies_follow_a_client_to_its_new_station() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    let (mut frame, source, backend) = udp_flow(&mut worker, false, 0);
    let answer = Draft::udp(b"answer").between(backend, source);
    assert_eq!(homeward(&mut worker, backend.ip(), &answer, 0).destination_mac, draft::CLIENT_MAC);
    frame[6..12].copy_from_slice(&[4, 4, 4, 4, 4, 4]);
    outward(&mut worker, &frame, 0);
    assert_eq!(homeward(&mut worker, backend.ip(), &answer, 0).destination_mac, [4; 6]);
    // And by another NIC, with a tag.
    frame.splice(12..12, [0x81, 0, 0xe0, 9]);
    worker.pass(BACKENDS, &frame, 0).unwrap();
    let (nic, home) = worker.pass(BACKENDS, &from_station(mac_of(backend.ip()), &answer), 0).unwrap();
    assert_eq!((nic, seen(&home).vlans, seen(&home).source_mac), (BACKENDS, vec![9], nic_mac(BACKENDS)));
}

#[test]
fn a_source_that_is_taken_from_the_configuration_is_left() {
    let mut world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    let (frame, source, backend) = udp_flow(&mut worker, false, 0);
    world.reconfigure(|snapshot| snapshot.nat.sources.retain(|address| *address != source.ip()));
    let (next, same_backend) = ends(&outward(&mut worker, &frame, 1).ip);
    assert_ne!(next.ip(), source.ip());
    assert_eq!(same_backend, backend);
    let answer = |source| Draft::udp(b"answer").between(backend, source);
    let home = homeward(&mut worker, backend.ip(), &answer(next), 1);
    assert_eq!(ends(&home.ip), (Way::Nat.service(false, false), client(false)));
    // What still comes to the address that is gone is nobody's.
    assert_eq!(worker.pass(BACKENDS, &from_station([2; 6], &answer(source)), 1), None);
    assert_eq!(worker.values().dropped(DropReason::NotOurAddress), 1);
    // The flow keeps its new source.
    assert_eq!(ends(&outward(&mut worker, &frame, 2).ip).0, next);
}

#[test]
fn a_client_behind_two_tags_is_refused() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    let ip = Draft::udp(b"query").between(client(false), Way::Nat.service(false, false));
    assert_eq!(worker.pass(CLIENTS, &draft::frame(&ip, &[5, 6], 0), 0), None);
    let mut service_tag = draft::frame(&ip, &[5], 0);
    service_tag[12..14].copy_from_slice(&[0x88, 0xa8]);
    assert_eq!(worker.pass(CLIENTS, &service_tag, 0), None);
    assert_eq!(worker.values().dropped(DropReason::StackedVlan), 2);
    assert_eq!(worker.values().counter(Counter::NatFlowsCreated), 0, "no source is wasted");
}

#[test]
fn a_flow_that_finds_no_source_is_dropped_and_counted() {
    let world = World::new(1, |snapshot| {
        (snapshot.nat.max_flows_v4, snapshot.nat.max_flows_v6) = (1, 1);
        snapshot.timeouts.udp_s = 300;
    });
    let mut worker = world.worker(0);
    let flow = |host: u8| {
        let client = SocketAddr::new([198, 18, 0, host].into(), 4000);
        draft::frame(&Draft::udp(b"q").between(client, Way::Nat.service(false, false)), &[], 0)
    };
    let mut served = Vec::new();
    for host in 1..100 {
        // The second packet confirms, and what is confirmed keeps its source.
        if worker.pass(CLIENTS, &flow(host), 0).is_some() && worker.pass(CLIENTS, &flow(host), 0).is_some() {
            served.push(host);
        }
    }
    assert_eq!(worker.values().dropped(DropReason::NatExhausted), 99 - served.len() as u64);
    assert!((1..=4).contains(&served.len()), "{served:?}");
    assert!(served.iter().all(|&host| worker.pass(CLIENTS, &flow(host), 1).is_some()));
    // Idle ones make room.
    assert!(worker.pass(CLIENTS, &flow(200), 1 + kept_s(300)).is_some());
}

/// Of many flows with room for few, those whose source was taken by another do not go on by it.
#[test]
fn what_has_become_another_flow_s_source_is_not_used() {
    let world = World::new(1, |snapshot| (snapshot.nat.max_flows_v4, snapshot.nat.max_flows_v6) = (1, 1));
    let mut worker = world.worker(0);
    let mut send = |host: u8| {
        let client = SocketAddr::new([198, 18, 0, host].into(), 4000);
        let query = Draft::udp(b"q").between(client, Way::Nat.service(false, false));
        worker.pass(CLIENTS, &draft::frame(&query, &[], 0), 0).map(|(_, frame)| ends(&seen_valid(&frame).ip))
    };
    let mut round = || (1..100).filter_map(&mut send).collect::<Vec<_>>();
    assert_eq!(round().len(), 99, "a first packet takes the source of another flow's first packet");
    let settled = (0..4).map(|_| round()).last().unwrap();
    assert!((1..=4).contains(&settled.len()), "{} {settled:?}", settled.len());
    assert_eq!(round(), settled);
    let different: std::collections::HashSet<_> = settled.iter().collect();
    assert_eq!(different.len(), settled.len());
}

/// Another box has neither the flow nor its source.
#[test]
fn another_box_does_not_guess() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    let (frame, source, backend) = udp_flow(&mut worker, false, 0);
    let other = World::new(1, |_| ());
    let mut other = other.worker(0);
    let answer = Draft::udp(b"answer").between(Way::Nat.service(false, false), client(false));
    let error =
        draft::icmp(&IpDraft::default(), [3, 1], [0; 4], &answer[..28], router(false), Way::Nat.vip(false));
    assert_eq!(other.client_sends(&error, 0), None);
    let request = Draft::udp(b"query").between(source, backend);
    let error = draft::icmp(&IpDraft::default(), [3, 1], [0; 4], &request[..28], router(false), source.ip());
    assert_eq!(other.pass(BACKENDS, &from_station([2; 6], &error), 0), None);
    assert_eq!(other.values().dropped(DropReason::IcmpUnmatched), 2);
    // A packet of the flow itself is served, by the same backend.
    assert_eq!(ends(&outward(&mut other, &frame, 0).ip).1, backend);
    assert_eq!(backend.port(), target(false));
}
