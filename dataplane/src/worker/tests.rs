//! Whole batches through a worker on memory: what goes in, what comes out, and that nothing is lost.

mod answers;
mod explained;
mod fragments;
mod nat;
mod notes;
mod pieces;
mod random;
mod rubbish;
mod split;
mod world;

use shunt_api::counters::DropReason;
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::Mode::{self, Dr, Ipip};

use super::*;
use crate::conntrack::Seconds;
use crate::port::NicIndex;
use crate::port::memory::MemoryPort;
use crate::rewrite::Link;
use crate::table::{Hop, NicLink, OpenHop};
use crate::testing::{snapshot, table, tcp};

const SYN: u8 = 0x02;
const VIP: &str = "203.0.113.10";

fn open(nic: u8, last_mac_byte: u8, source: &str) -> Hop {
    Hop::Open(OpenHop {
        nic: NicIndex(nic),
        link: Link {
            destination: MacAddress([2, 0, 0, 0, 0, last_mac_byte]),
            source: MacAddress([2; 6]),
            vlan: None,
            mtu: 1500,
        },
        on_link: true,
        source: source.parse().ok(),
    })
}

fn worker(
    backends: &[(&str, u16, Mode)],
    hops: Vec<Hop>,
    frames: usize,
    transmit_limit: usize,
) -> Worker<MemoryPort> {
    let table = Arc::new(table(&snapshot(&[backends], &[(VIP, "tcp/80", 0)])));
    let nics = [NicLink { mac: MacAddress([2; 6]), mtu: 1500 }; 2];
    let forwarding = Forwarding::new(7, table, hops.into(), nics.into());
    let shared = Arc::new(Shared::new(forwarding, Arc::new(FlowTables::new(1000, 1000)), 1));
    Worker::new(MemoryPort::new(frames, transmit_limit), shared, 0, 64, false)
}

/// received = transmitted + dropped, and no frame lost.
fn assert_conserved(worker: &mut Worker<MemoryPort>) -> shunt_api::counters::CounterValues {
    let values = worker.shared.stats[0].values();
    let sent = values.counter(Counter::TxPackets);
    assert_eq!(values.counter(Counter::RxPackets), sent + values.dropped_total(), "{values:?}");
    let census = worker.port().census();
    assert!(census.is_conserved() && census.worker == 0, "{census:?}");
    values
}

#[test]
fn direct_routing_goes_out_by_the_next_hops_nic() {
    let mut worker = worker(&[("10.0.0.1", 1, Dr)], vec![open(1, 0xbb, "10.0.0.254")], 8, 8);
    let frame = tcp("192.0.2.1", 40000, VIP, 80, SYN);
    assert!(worker.port().inject(&[], &frame));
    assert_eq!(worker.turn(Seconds(1)), 1);
    let sent = worker.port().take_transmitted();
    assert_eq!(sent[0].0, NicIndex(1));
    assert_eq!(sent[0].1[..6], [2, 0, 0, 0, 0, 0xbb]);
    assert_eq!(sent[0].1[14..], frame[14..]);
    assert_conserved(&mut worker);
    assert_eq!(worker.shared.stats[0].seen.load(Ordering::Relaxed), 7);
}

#[test]
fn a_tunnel_uses_the_headroom_or_makes_some() {
    let mut worker = worker(&[("10.0.0.1", 1, Ipip)], vec![open(0, 0xbb, "10.0.0.254")], 8, 8);
    let frame = tcp("192.0.2.1", 40000, VIP, 80, SYN);
    assert!(worker.port().inject(&steering::lead(20), &frame));
    assert!(worker.port().inject(&[], &frame));
    assert_eq!(worker.turn(Seconds(1)), 2);
    let sent = worker.port().take_transmitted();
    assert_eq!(sent[0].1, sent[1].1);
    assert_eq!((sent[0].1.len(), sent[0].1[23], &sent[0].1[34..]), (frame.len() + 20, 4, &frame[14..]));
    assert_eq!(assert_conserved(&mut worker).counter(Counter::Realigned), 1);
}

#[test]
fn every_closed_way_is_a_counted_drop() {
    let gateway = match open(0, 0xbb, "10.0.0.254") {
        Hop::Open(hop) => Hop::Open(OpenHop { on_link: false, ..hop }),
        closed @ Hop::Closed(_) => closed,
    };
    let cases = [
        (vec![], Dr, DropReason::NeighborUnresolved),
        (vec![Hop::Closed(DropReason::NoRoute)], Dr, DropReason::NoRoute),
        (vec![gateway], Dr, DropReason::BackendNotOnLink),
        (vec![open(0, 0xbb, "fd00::1")], Ipip, DropReason::NoRoute),
    ];
    for (hops, mode, reason) in cases {
        let mut worker = worker(&[("10.0.0.1", 1, mode)], hops, 8, 8);
        worker.port().inject(&[], &tcp("192.0.2.1", 40000, VIP, 80, SYN));
        worker.turn(Seconds(1));
        assert_eq!(assert_conserved(&mut worker).dropped(reason), 1, "{reason:?}");
    }
}

#[test]
fn a_full_transmit_ring_drops_and_keeps_the_frames() {
    let mut worker = worker(&[("10.0.0.1", 1, Dr)], vec![open(0, 0xbb, "10.0.0.254")], 8, 2);
    for port in 0..8 {
        worker.port().inject(&[], &tcp("192.0.2.1", port, VIP, 80, SYN));
    }
    worker.turn(Seconds(1));
    assert_eq!(assert_conserved(&mut worker).dropped(DropReason::TxRingFull), 6);
    worker.port().take_transmitted();
    assert_eq!(worker.port().census().fill, 8);
}
