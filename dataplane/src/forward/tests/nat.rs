//! The states of translated flows, seen from both ends, and changes of mode.

use shunt_api::snapshot::Mode::{self, Nat};
use shunt_api::snapshot::Snapshot;

use super::*;
use crate::flow::{End, FlowKey4, Tuple};

const BACKENDS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];

fn services(mode: Mode, weights: &[u16]) -> Snapshot {
    let pool: Vec<_> =
        BACKENDS.into_iter().zip(weights).map(|(address, &weight)| (address, weight, mode)).collect();
    let mut snapshot = snapshot(&[&pool], &[(VIP, "tcp/80:30080", 0), (VIP, "udp/53", 0)]);
    snapshot.nat.sources = vec!["10.0.9.1".parse().unwrap()];
    (snapshot.nat.max_flows_v4, snapshot.nat.max_flows_v6) = (1000, 1);
    snapshot
}

/// Both ends that a packet of the client's gets.
fn translation(decision: Decision) -> Translation {
    match decision.verdict {
        Verdict::Translate { translation, .. } => translation,
        other => panic!("{other:?}"),
    }
}

fn reply(Translation { source, destination }: Translation, flags: u8) -> Packet {
    parsed(&tcp(&destination.0.to_string(), destination.1, &source.0.to_string(), source.1, flags))
}

/// The state and idle time of the way back.
fn way_back(
    table: &Table,
    Translation { source, destination }: Translation,
    now: u32,
) -> Option<(State, u32)> {
    let key = FlowKey::new(destination, source, Protocol::Tcp).and_then(|key| FlowKey4::of(&key))?.words();
    let ways = &table.nat.as_ref()?.tables.v4;
    let control = ways.find(&key, ways.places(&key))?.control;
    Some((control.state(), control.idle_s(Seconds(now))))
}

#[test]
fn both_ends_move_the_state_of_the_way_back() {
    let (table, flows) = (table(&services(Nat, &[1])), flows());
    let ends = translation(at(&client(1, SYN), &table, &flows, Seconds(0)));
    assert_eq!((ends.source.0.to_string(), ends.destination.1), ("10.0.9.1".to_owned(), 30_080));
    // Whether the client sends, flags, and the state after it.
    let steps = [
        (false, SYN | ACK, State::Unconfirmed),
        (true, SYN, State::Unconfirmed),
        (true, ACK, State::Established),
        (false, ACK, State::Established),
        (false, FIN | ACK, State::Closing),
        (true, ACK, State::Established),
        (true, FIN | ACK, State::Closing),
        (false, ACK, State::Closing),
        (false, RST, State::Reset),
        (true, SYN, State::Reset),
        (false, SYN | ACK, State::Unconfirmed),
        (true, ACK, State::Established),
    ];
    for (now, (from_client, flags, expected)) in (1..).zip(steps) {
        let packet = if from_client { client(1, flags) } else { reply(ends, flags) };
        let decision = at(&packet, &table, &flows, Seconds(now));
        match decision.verdict {
            Verdict::Translate { translation, .. } => assert_eq!((from_client, translation), (true, ends)),
            Verdict::Return { translation, .. } => {
                let back: Translation = translation;
                let service: End = (VIP.parse().unwrap(), 80);
                assert_eq!((from_client, back.source, back.destination.1), (false, service, 1));
            }
            other => panic!("{other:?}"),
        }
        let (state, idle_s) = way_back(&table, ends, now).expect("it is remembered");
        assert_eq!(state, expected, "step {now}, {flags:#04x}");
        assert!(idle_s <= 1, "step {now}: idle for {idle_s} s");
    }
}

#[test]
fn a_flow_that_is_moved_gets_a_source_towards_its_new_backend() {
    let mut compiler = Compiler::default();
    let (flows, first) = (flows(), compiler.compile(&services(Nat, &[1])).unwrap());
    let before = translation(at(&client(1, SYN), &first, &flows, Seconds(0)));
    at(&client(1, ACK), &first, &flows, Seconds(0));
    let mut moved = services(Nat, &[1, 1]);
    moved.pools[0].backends.remove(0);
    let moved = compiler.compile(&moved).unwrap();
    let decision = at(&client(1, ACK), &moved, &flows, Seconds(1));
    let after = translation(decision);
    assert_eq!((decision.outcome, decision.events), (FlowOutcome::Rehashed, Events::NAT_CREATED));
    assert_eq!(
        (after.destination.0.to_string(), before.destination.0.to_string()),
        ("10.0.0.2".into(), "10.0.0.1".into())
    );
    assert!(matches!(at(&reply(after, ACK), &moved, &flows, Seconds(1)).verdict, Verdict::Return { .. }));
    let again = at(&client(1, ACK), &moved, &flows, Seconds(1));
    assert_eq!((translation(again), again.events), (after, Events::default()), "it is kept");
}

/// Established flows stay with their backend when its mode changes, either way.
#[test]
fn a_change_of_mode_keeps_backend_and_flow() {
    let mut compiler = Compiler::default();
    let flows = flows();
    let by_mode = |compiler: &mut Compiler, mode| compiler.compile(&services(mode, &[1, 1, 1])).unwrap();
    let address = |table: &Table, decision: Decision| match decision.verdict {
        Verdict::Forward { member, .. } | Verdict::Translate { member, .. } => {
            table.pool(0).member(member).address
        }
        other => panic!("{other:?}"),
    };
    let direct = by_mode(&mut compiler, Dr);
    let before: Vec<_> = (0..20)
        .map(|port| {
            at(&client(port, SYN), &direct, &flows, Seconds(0));
            address(&direct, at(&client(port, ACK), &direct, &flows, Seconds(0)))
        })
        .collect();
    let (mut sources, mut created) = (std::collections::HashSet::new(), 0);
    for (now, mode) in [(1, Nat), (2, Dr), (3, Nat), (4, Ipip)] {
        let table = by_mode(&mut compiler, mode);
        for (port, expected) in (0..20).zip(&before) {
            let decision = at(&client(port, ACK), &table, &flows, Seconds(now));
            assert_eq!((address(&table, decision), decision.outcome), (*expected, FlowOutcome::Hit));
            assert_eq!(matches!(decision.verdict, Verdict::Translate { .. }), mode == Nat);
            if mode == Nat {
                let Translation { source, destination } = translation(decision);
                sources.insert((source, destination));
                created += usize::from(decision.events == Events::NAT_CREATED);
            }
        }
    }
    assert_eq!((sources.len(), created), (20, 20), "a flow finds its source again");
}

#[test]
fn what_nobody_asked_for_is_refused() {
    let (table, flows) = (table(&services(Nat, &[1])), flows());
    let nobodys = Translation {
        source: ("10.0.9.1".parse().unwrap(), 5000),
        destination: ("10.0.0.1".parse().unwrap(), 30_080),
    };
    let verdict = |flags| at(&reply(nobodys, flags), &table, &flows, Seconds(0)).verdict;
    assert_eq!(verdict(SYN | ACK), Verdict::Reply(Reply::Reset), "so that the backend forgets it");
    assert_eq!(verdict(RST), Verdict::Drop(DropReason::UnlistedPort));
}

#[test]
fn without_translation_configured_any_more_flows_are_dropped_and_counted() {
    let mut compiler = Compiler::default();
    let (flows, first) = (flows(), compiler.compile(&services(Nat, &[1])).unwrap());
    let ends = translation(at(&client(1, SYN), &first, &flows, Seconds(0)));
    let mut without = services(Dr, &[1]);
    without.nat.sources.clear();
    let without = compiler.compile(&without).unwrap();
    let late = at(&reply(ends, ACK), &without, &flows, Seconds(1));
    assert_eq!(late.verdict, Verdict::Drop(DropReason::NotOurAddress));
    assert!(matches!(at(&client(1, ACK), &without, &flows, Seconds(1)).verdict, Verdict::Forward { .. }));
}
