//! Fragments that a NIC spreads over two workers, which share the tables.

use std::net::SocketAddr;

use super::world::{BACKENDS, CLIENTS, Way, World};
use super::*;
use crate::limits::FRAGMENT_IDLE_S;
use crate::testing::draft::{self, Draft};
use crate::testing::oracle::seen_valid;

fn client(v6: bool, host: u16) -> SocketAddr {
    let ip = if v6 { [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, host].into() } else { [198, 18, 0, host as u8].into() };
    SocketAddr::new(ip, 40_000)
}

fn fragments(way: Way, v6: bool, host: u16, id: u16) -> Vec<Vec<u8>> {
    let mut draft = Draft::udp(&[7; 300]);
    draft.ip.id = id;
    let mut fragments = draft::fragments(&draft.between(client(v6, host), way.service(v6, false)), 128);
    if v6 {
        fragments.iter_mut().for_each(|ip| ip[44..46].copy_from_slice(&id.to_be_bytes()));
    }
    fragments
}

#[test]
fn later_fragments_follow_the_first_on_another_worker() {
    let world = World::new(2, |_| ());
    let [mut one, mut other] = [world.worker(0), world.worker(1)];
    for way in Way::ALL {
        for (v6, host) in [false, true].into_iter().flat_map(|v6| (1..30).map(move |host| (v6, host))) {
            let mut stations = fragments(way, v6, host, 7).into_iter().enumerate().map(|(i, ip)| {
                let worker = if i == 0 { &mut one } else { &mut other };
                let (nic, frame) = worker.client_sends(&ip, 1).unwrap();
                assert_eq!(nic, BACKENDS);
                seen_valid(&frame).destination_mac
            });
            let first = stations.next().unwrap();
            assert_eq!(stations.collect::<Vec<_>>(), [first; 2], "{way:?}");
        }
    }
    assert_eq!(other.values().counter(Counter::FragmentsFollowed), 2 * 4 * 58);
    assert_eq!(other.values().counter(Counter::FlowsCreated), 0);
}

#[test]
fn a_later_fragment_without_a_first_is_dropped_and_changes_nothing() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    for v6 in [false, true] {
        let [first, second, last] = fragments(Way::Dr, v6, 1, 7).try_into().unwrap();
        assert_eq!(worker.client_sends(&last, 1), None, "it came too early");
        assert!(worker.client_sends(&first, 1).is_some());
        assert!(worker.client_sends(&second, 1).is_some());
        let of_another_packet = fragments(Way::Dr, v6, 1, 8).remove(1);
        assert_eq!(worker.client_sends(&of_another_packet, 1), None);
        let of_another_client = fragments(Way::Dr, v6, 2, 7).remove(1);
        assert_eq!(worker.client_sends(&of_another_client, 1), None);
        let to_another_vip = fragments(Way::Nat, v6, 1, 7).remove(1);
        assert_eq!(worker.client_sends(&to_another_vip, 1), None);
    }
    let values = worker.values();
    assert_eq!((values.dropped(DropReason::FragmentWithoutFirst), values.dropped_total()), (8, 8));
    assert_eq!(values.counter(Counter::FlowsCreated), 2);
}

#[test]
fn a_late_fragment_is_dropped() {
    let world = World::new(1, |snapshot| snapshot.timeouts.unconfirmed_s = 1000);
    let mut worker = world.worker(0);
    for v6 in [false, true] {
        let [first, second, last] = fragments(Way::Dr, v6, 1, 7).try_into().unwrap();
        worker.client_sends(&first, 10).unwrap();
        assert!(worker.client_sends(&second, 10 + FRAGMENT_IDLE_S - 1).is_some());
        assert_eq!(worker.client_sends(&last, 10 + FRAGMENT_IDLE_S), None, "counted from the first");
    }
    assert_eq!(worker.values().dropped(DropReason::FragmentWithoutFirst), 2);
}

/// What is refused leaves no way for the rest.
#[test]
fn fragments_of_what_is_not_served_are_all_dropped() {
    let world = World::new(1, |snapshot| {
        for service in &mut snapshot.services {
            service.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
        }
    });
    let mut worker = world.worker(0);
    for v6 in [false, true] {
        let fragments = fragments(Way::Dr, v6, 1, 7);
        assert!(fragments.iter().all(|ip| worker.client_sends(ip, 1).is_none()));
    }
    let values = worker.values();
    assert_eq!(values.dropped(DropReason::SourceDenied), 2);
    assert_eq!(values.dropped(DropReason::FragmentWithoutFirst), 4);
}

#[test]
fn the_second_fragment_of_a_batch_finds_the_first() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    for ip in fragments(Way::Nat, false, 1, 7) {
        worker.inject(CLIENTS, 0, &draft::frame(&ip, &[], 0));
    }
    let sent: Vec<Vec<u8>> = worker.turn(1).iter().map(|(_, frame)| seen_valid(frame).ip).collect();
    assert_eq!(sent.len(), 3);
    let sources: std::collections::HashSet<&[u8]> = sent.iter().map(|ip| &ip[12..20]).collect();
    assert_eq!(sources.len(), 1, "all have one source and backend");
}
