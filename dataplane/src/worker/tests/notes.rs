//! What the control thread is told: packets that backends sent back, and what routers say about tunnels.

use std::net::{IpAddr, SocketAddr};

use super::world::{BACKENDS, CLIENTS, TestWorker, Way, World, mac_of};
use super::*;
use crate::conntrack::BackendId;
use crate::notices::Notice;
use crate::testing::draft::{self, Draft, IpDraft};
use crate::testing::oracle::seen_valid;

fn notices(world: &World) -> Vec<Notice> {
    world.shared.notices.take().collect()
}

fn address(world: &World, backend: BackendId) -> IpAddr {
    world.shared.forwarding.load().table.address(backend).unwrap()
}

fn client(v6: bool, port: u16) -> SocketAddr {
    (if v6 { "2001:db8:c::1" } else { "198.18.0.1" }.parse::<IpAddr>().unwrap(), port).into()
}

fn request(way: Way, client: SocketAddr) -> Vec<u8> {
    Draft::tcp(SYN, b"").between(client, way.service(client.is_ipv6(), true))
}

/// The station that a packet goes to.
fn station(worker: &mut TestWorker, ip: &[u8]) -> [u8; 6] {
    let (nic, frame) = worker.client_sends(ip, 1).unwrap();
    assert_eq!(nic, BACKENDS);
    seen_valid(&frame).destination_mac
}

fn from_station(mac: [u8; 6], ip: &[u8]) -> Vec<u8> {
    let mut frame = draft::frame(ip, &[], 0);
    frame[6..12].copy_from_slice(&mac);
    frame
}

#[test]
fn what_a_backend_sends_back_is_dropped_and_reported() {
    for v6 in [false, true] {
        let world = World::new(1, |_| ());
        let mut worker = world.worker(0);
        let ip = request(Way::Dr, client(v6, 1));
        let mac = station(&mut worker, &ip);
        assert_eq!(worker.pass(BACKENDS, &from_station(mac, &ip), 1), None);
        assert_eq!(worker.values().dropped(DropReason::Looped), 1);
        let [Notice::Looped { backend }] = notices(&world)[..] else { panic!("one notice") };
        assert_eq!(mac_of(address(&world, backend)), mac);
        // Not from another station, and not by another NIC.
        assert!(worker.pass(BACKENDS, &from_station([2; 6], &ip), 1).is_some());
        assert!(worker.pass(CLIENTS, &from_station(mac, &ip), 1).is_some());
        assert_eq!(notices(&world), []);
    }
}

/// One that is a client of its own service is served.
#[test]
fn a_backend_may_be_a_client_even_of_itself() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    let backend: IpAddr = [10, 0, 0, 1].into();
    let served = (1..60u16).filter(|&port| {
        let ip = request(Way::Dr, (backend, port).into());
        let (_, frame) = worker.pass(BACKENDS, &from_station(mac_of(backend), &ip), 1).unwrap();
        frame[..6] == mac_of(backend)
    });
    assert!(served.count() > 5, "some flows go to the sender itself");
    assert_eq!((worker.values().dropped_total(), notices(&world)), (0, vec![]));
}

/// A tunnel's far end is behind routers, whose station says nothing about who sent a packet; a translated packet
/// has ends of its own.
#[test]
fn only_direct_routing_can_loop() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    for way in [Way::Ipip4, Way::Ipip6, Way::Nat] {
        let ip = request(way, client(false, 1));
        let mac = station(&mut worker, &ip);
        assert!(worker.pass(BACKENDS, &from_station(mac, &ip), 1).is_some(), "{way:?}");
    }
    assert_eq!(notices(&world), []);
}

/// A router's error about a tunnel packet that left.
fn error_about(tunnel: &[u8], kind: [u8; 2], mtu: u32, quoted: usize) -> Vec<u8> {
    let outer = etherparse::IpSlice::from_slice(tunnel).unwrap();
    let router: IpAddr =
        if outer.source_addr().is_ipv4() { [198, 51, 100, 1].into() } else { [1; 16].into() };
    let quote = &tunnel[..quoted.min(tunnel.len())];
    draft::icmp(&IpDraft::default(), kind, mtu.to_be_bytes(), quote, router, outer.source_addr())
}

#[test]
fn a_routers_word_on_a_tunnel_is_noted_and_goes_nowhere() {
    for (way, too_big, other, headers) in [(Way::Ipip4, [3, 4], [3, 1], 28), (Way::Ipip6, [2, 0], [1, 0], 48)]
    {
        for v6 in [false, true] {
            let world = World::new(1, |_| ());
            let mut worker = world.worker(0);
            let (_, frame) = worker.client_sends(&request(way, client(v6, 1)), 1).unwrap();
            let sent = seen_valid(&frame);
            for quoted in [headers, 2000] {
                let error = error_about(&sent.ip, too_big, 1380, quoted);
                assert_eq!(worker.pass(BACKENDS, &draft::frame(&error, &[], 0), 1), None);
                let [Notice::TunnelTooBig { backend, mtu: 1380 }] = notices(&world)[..] else {
                    panic!("{way:?}: one notice")
                };
                assert_eq!(mac_of(address(&world, backend)), sent.destination_mac);
            }
            assert_eq!(
                worker.pass(BACKENDS, &draft::frame(&error_about(&sent.ip, other, 0, 100), &[], 0), 1),
                None
            );
            assert_eq!((worker.values().dropped(DropReason::TunnelError), notices(&world)), (3, vec![]));
        }
    }
}

#[test]
fn a_word_on_a_tunnel_that_is_not_ours_is_not_believed() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    let inner = request(Way::Ipip4, client(false, 1));
    // From outside the prefix of our tunnels; to no backend; to a backend that is not tunnelled to.
    for (source, backend) in [
        ([10, 201, 0, 1], [10, 0, 1, 1]),
        ([10, 200, 0, 1], [10, 0, 1, 77]),
        ([10, 200, 0, 1], [10, 0, 0, 1]),
    ] {
        let tunnel =
            IpDraft::default().packet(etherparse::IpNumber(4), source.into(), backend.into(), &inner);
        let error = error_about(&tunnel, [3, 4], 1000, 100);
        assert_eq!(worker.pass(BACKENDS, &draft::frame(&error, &[], 0), 1), None);
    }
    assert_eq!((worker.values().dropped(DropReason::IcmpUnmatched), notices(&world)), (3, vec![]));
}
