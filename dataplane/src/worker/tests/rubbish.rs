//! Whatever comes in: nothing panics, nothing is lost, and what leaves is no worse than what came.

use std::cell::RefCell;

use proptest::prelude::*;

use super::random::{cases, run, unwrapped};
use super::world::{BACKENDS, CLIENTS, Way, World};
use crate::port::memory::MemoryPort;
use crate::testing::draft::{self, ip_drafts};
use crate::testing::oracle::{Seen, seen_if_any, validity};

/// Random bytes; a client's frame with some bytes changed or cut off; or a message that may be an ICMP error.
fn rubbish() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let changes = prop::collection::vec((0usize..120, any::<u8>()), 0..4);
    let length = prop::option::weighted(0.2, any::<u8>());
    let damaged = (cases(200), changes, 0usize..80, length).prop_map(|(case, changes, cut, length)| {
        let mut frame = case.frames().remove(0);
        // Lengths are what parsers stumble over.
        let at = 14 + 4 * case.tags.len() + if case.v6() { 5 } else { 3 };
        for (at, value) in changes.into_iter().chain(length.map(|length| (at, length))) {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(frame.len() - if cut < 20 { cut } else { 0 });
        frame
    });
    let message = (ip_drafts(), 0u8..13, any::<([u8; 4], bool)>(), cases(100), 0usize..100);
    let message = message.prop_map(|(ip, kind, (value, echo), case, cut)| {
        let quote = case.draft.between(case.service(), case.client);
        let quote = &quote[..quote.len().min(cut)];
        let (from, to) = (case.client.ip(), case.service().ip());
        let request = if case.v6() { 128 } else { 8 };
        let kind = if echo { request } else { kind };
        draft::frame(&draft::icmp(&ip, [kind, 0], value, quote, from, to), &case.tags, 0)
    });
    prop_oneof![bytes, damaged, message]
}

/// By which NIC, with how much headroom, what.
fn arrivals() -> impl Strategy<Value = (bool, u8, Vec<u8>)> {
    (any::<bool>(), prop::sample::select(vec![0u8, 20, 40]), rubbish())
}

#[test]
fn batches_of_anything_are_sent_or_dropped() {
    let world = World::new(1, |snapshot| {
        snapshot.tunnel.fragment = true;
        snapshot.reply_rate = 3;
    });
    for (transmit_limit, chunk_size) in [(64, 2048), (5, 2048), (64, 96), (7, 256)] {
        let port = MemoryPort::with_chunk_size(512, transmit_limit, chunk_size);
        let worker = RefCell::new(world.worker_on(0, port));
        run(prop::collection::vec(arrivals(), 1..20), |arrivals, now| {
            let mut worker = worker.borrow_mut();
            for (by_backends, lead, frame) in &arrivals {
                worker.inject(if *by_backends { BACKENDS } else { CLIENTS }, *lead, frame);
            }
            let sent = worker.turn(now);
            assert!(sent.len() <= arrivals.len().min(transmit_limit));
        });
    }
}

/// The IP packet that a client sent, of what left for a backend.
fn inner(Seen { ip, .. }: Seen, v6: bool) -> Vec<u8> {
    match etherparse::IpSlice::from_slice(&ip).unwrap().source_addr().to_string() {
        source if source.starts_with("10.200.") => unwrapped(Way::Ipip4, &ip, v6).1,
        source if source.starts_with("fd00:200:") => unwrapped(Way::Ipip6, &ip, v6).1,
        _ => ip,
    }
}

#[test]
fn a_checksum_is_as_right_or_wrong_as_it_came() {
    let world = World::new(1, |snapshot| snapshot.reply_rate = u32::MAX);
    let worker = RefCell::new(world.worker(0));
    let (sent, damaged) = (RefCell::new(0), RefCell::new(0));
    run(arrivals(), |(_, lead, frame), now| {
        let mut worker = worker.borrow_mut();
        worker.inject(CLIENTS, lead, &frame);
        let out = worker.turn(now).pop();
        // What etherparse is too strict for says nothing.
        let (Some(came), Some((nic, out))) = (seen_if_any(&frame), out) else { return };
        let Some(came_right) = validity(&came.ip) else { return };
        let left = seen_if_any(&out).expect("what left can be read");
        let left = if nic == BACKENDS { inner(left, came.ip[0] >> 4 == 6) } else { left.ip };
        let is_echo = came.ip.len() == left.len() && nic == CLIENTS;
        let expected = came_right || (nic == CLIENTS && !is_echo);
        assert_eq!(validity(&left), Some(expected), "{frame:02x?} became {out:02x?}");
        *sent.borrow_mut() += 1;
        *damaged.borrow_mut() += u32::from(!came_right);
    });
    assert!(*sent.borrow() > 50 && *damaged.borrow() > 0, "{sent:?} of them {damaged:?} damaged: no test");
}
