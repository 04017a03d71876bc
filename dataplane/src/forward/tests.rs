//! Decisions packet by packet: which backend, which state, over changes of the configuration.

mod affinity;
mod errors;
mod nat;
mod refused;

use shunt_api::snapshot::Mode::{Dr, Ipip};

use super::*;
use crate::conntrack::kept_s;
use crate::table::Compiler;
use crate::testing::{decided as at, parsed, snapshot, table, tcp, udp};

const ACK: u8 = 0x10;
const VIP: &str = "203.0.113.10";
const SERVICES: &[(&str, &str, u32)] =
    &[(VIP, "tcp/80", 0), (VIP, "udp/53", 0), ("2001:db8::10", "tcp/80", 0)];

fn flows() -> FlowTables {
    FlowTables::new(1000, 1000)
}

fn client(port: u16, flags: u8) -> Packet {
    parsed(&tcp("192.0.2.1", port, VIP, 80, flags))
}

fn member(decision: Decision) -> u16 {
    match decision.verdict {
        Verdict::Forward { member, .. } => member,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_states_of_a_tcp_flow() {
    use State::*;
    let cases = [
        (Unconfirmed, SYN, Unconfirmed),
        (Unconfirmed, RST, Unconfirmed),
        (Unconfirmed, ACK, Established),
        (Unconfirmed, FIN | ACK, Closing),
        (Established, SYN, Established),
        (Established, ACK, Established),
        (Established, FIN | ACK, Closing),
        (Established, RST, Reset),
        (Closing, ACK, Closing),
        (Closing, RST, Reset),
        (Closing, SYN, Unconfirmed),
        (Reset, RST, Reset),
        (Reset, ACK, Established),
        (Reset, FIN, Closing),
        (Reset, SYN, Unconfirmed),
    ];
    for (state, flags, expected) in cases {
        assert_eq!(next_tcp_state(state, flags), expected, "{state:?} {flags:#04x}");
    }
}

#[test]
fn a_connection_from_syn_to_fin() {
    let table = table(&snapshot(&[&[("10.0.0.1", 1, Dr), ("10.0.0.2", 1, Dr)]], SERVICES));
    let flows = flows();
    let steps = [
        (SYN, FlowOutcome::Created),
        (SYN, FlowOutcome::Hit),
        (ACK, FlowOutcome::Confirmed),
        (ACK, FlowOutcome::Hit),
        (FIN | ACK, FlowOutcome::Hit),
        (ACK, FlowOutcome::Hit),
        (SYN, FlowOutcome::Hit),
        (ACK, FlowOutcome::Confirmed),
    ];
    let mut backends = std::collections::HashSet::new();
    for (flags, expected) in steps {
        let decision = at(&client(40000, flags), &table, &flows, Seconds(5));
        assert_eq!((decision.outcome, decision.events), (expected, Events::default()), "{flags:#04x}");
        backends.insert(member(decision));
    }
    assert_eq!(backends.len(), 1);
}

#[test]
fn what_is_not_served_is_not_forwarded() {
    let table = table(&snapshot(
        &[&[("10.0.0.1", 1, Dr)], &[], &[("10.0.0.9", 0, Dr)]],
        &[(VIP, "tcp/80", 0), (VIP, "tcp/81", 1), (VIP, "tcp/82", 2)],
    ));
    let verdict = |frame: &[u8]| at(&parsed(frame), &table, &flows(), Seconds(0)).verdict;
    let dropped = Verdict::Drop;
    let unlisted = tcp("192.0.2.1", 1, VIP, 79, SYN);
    assert_eq!(verdict(&unlisted), Verdict::Reply(Reply::Reset));
    assert_eq!(verdict(&tcp("192.0.2.1", 1, VIP, 79, RST)), dropped(DropReason::UnlistedPort));
    let unlisted = udp([192, 0, 2, 1], 1, [203, 0, 113, 10], 80);
    assert_eq!(verdict(&unlisted), Verdict::Reply(Reply::Unreachable));
    assert_eq!(verdict(&tcp("192.0.2.1", 1, "203.0.113.11", 80, SYN)), dropped(DropReason::NotOurAddress));
    assert_eq!(verdict(&tcp("192.0.2.1", 1, VIP, 81, SYN)), dropped(DropReason::NoBackend));
    assert_eq!(verdict(&tcp("192.0.2.1", 1, VIP, 82, SYN)), dropped(DropReason::NoBackend));
}

#[test]
fn established_flows_stay_over_every_change_that_leaves_their_backend() {
    let mut compiler = Compiler::default();
    let flows = flows();
    let two = compiler.compile(&snapshot(&[&[("10.0.0.1", 1, Dr), ("10.0.0.2", 1, Dr)]], SERVICES)).unwrap();
    let before: Vec<_> = (0..400)
        .map(|port| {
            at(&client(port, SYN), &two, &flows, Seconds(0));
            let decision = at(&client(port, ACK), &two, &flows, Seconds(0));
            two.pool(0).member(member(decision)).address
        })
        .collect();
    let more = [("10.0.0.1", 1, Dr), ("10.0.0.2", 9, Ipip), ("10.0.0.3", 5, Dr), ("10.0.0.4", 5, Dr)];
    let drained = [("10.0.0.1", 0, Dr), ("10.0.0.2", 0, Ipip), ("10.0.0.3", 5, Dr)];
    for backends in [&more[..], &drained[..]] {
        let changed = compiler.compile(&snapshot(&[backends], SERVICES)).unwrap();
        for (port, address) in before.iter().enumerate() {
            let decision = at(&client(port as u16, ACK), &changed, &flows, Seconds(1));
            assert_eq!(
                (changed.pool(0).member(member(decision)).address, decision.outcome),
                (*address, FlowOutcome::Hit)
            );
        }
    }
    let only_first =
        compiler.compile(&snapshot(&[&[("10.0.0.1", 1, Dr), ("10.0.0.3", 1, Dr)]], SERVICES)).unwrap();
    for (port, address) in before.iter().enumerate() {
        let decision = at(&client(port as u16, ACK), &only_first, &flows, Seconds(2));
        let gone = address.to_string() == "10.0.0.2";
        assert_eq!(decision.outcome, if gone { FlowOutcome::Rehashed } else { FlowOutcome::Hit });
    }
}

#[test]
fn flows_survive_a_service_that_changes_to_a_pool_with_the_same_backend() {
    let mut compiler = Compiler::default();
    let flows = flows();
    let pools: [&[_]; 2] = [&[("10.0.0.1", 1, Dr)], &[("10.0.0.1", 0, Dr), ("10.0.0.2", 1, Dr)]];
    let first = compiler.compile(&snapshot(&pools, &[(VIP, "tcp/80", 0)])).unwrap();
    at(&client(1, SYN), &first, &flows, Seconds(0));
    let second = compiler.compile(&snapshot(&pools, &[(VIP, "tcp/80", 1)])).unwrap();
    let decision = at(&client(1, ACK), &second, &flows, Seconds(0));
    assert_eq!(second.pool(1).member(member(decision)).address.to_string(), "10.0.0.1");
}

#[test]
fn a_flow_without_an_entry_goes_where_maglev_says_on_every_box() {
    let backends = [("10.0.0.1", 1, Dr), ("10.0.0.2", 1, Dr), ("10.0.0.3", 1, Dr)];
    let mut reversed = backends;
    reversed.reverse();
    let (one, other) = (table(&snapshot(&[&backends], SERVICES)), table(&snapshot(&[&reversed], SERVICES)));
    for port in 0..60 {
        let syn = at(&client(port, SYN), &one, &flows(), Seconds(0));
        let midstream = at(&client(port, ACK), &other, &flows(), Seconds(77));
        assert_eq!((member(syn), midstream.events), (member(midstream), Events::MIDSTREAM));
        let rst = at(&client(port, RST), &other, &flows(), Seconds(77));
        assert_eq!((member(rst), rst.outcome), (member(syn), FlowOutcome::None));
    }
}

#[test]
fn a_forged_reset_and_syn_move_nothing() {
    let mut compiler = Compiler::default();
    let flows = flows();
    let both = compiler.compile(&snapshot(&[&[("10.0.0.1", 1, Dr), ("10.0.0.2", 1, Dr)]], SERVICES)).unwrap();
    let shifted = [("10.0.0.1", 1000, Dr), ("10.0.0.2", 1, Dr)];
    let shifted = compiler.compile(&snapshot(&[&shifted], SERVICES)).unwrap();
    for port in 0..100 {
        at(&client(port, SYN), &both, &flows, Seconds(0));
        let before = member(at(&client(port, ACK), &both, &flows, Seconds(0)));
        for (flags, now) in [(RST, 5), (SYN, 8), (ACK, 9), (RST, 9), (ACK, 18)] {
            let decision = at(&client(port, flags), &shifted, &flows, Seconds(now));
            assert_eq!(member(decision), before, "{flags:#04x}");
        }
    }
}

#[test]
fn a_tuple_used_again_leaves_a_backend_that_drains() {
    let mut compiler = Compiler::default();
    let flows = flows();
    let first = compiler.compile(&snapshot(&[&[("10.0.0.1", 1, Dr)]], SERVICES)).unwrap();
    for flags in [SYN, ACK, FIN | ACK] {
        at(&client(1, flags), &first, &flows, Seconds(0));
    }
    let drains =
        compiler.compile(&snapshot(&[&[("10.0.0.1", 0, Dr), ("10.0.0.2", 1, Dr)]], SERVICES)).unwrap();
    assert_eq!(at(&client(1, ACK), &drains, &flows, Seconds(1)).outcome, FlowOutcome::Hit);
    assert_eq!(at(&client(1, SYN), &drains, &flows, Seconds(2)).outcome, FlowOutcome::Rehashed);
}

#[test]
fn idle_flows_are_chosen_anew() {
    let mut compiler = Compiler::default();
    let flows = flows();
    let first = compiler.compile(&snapshot(&[&[("10.0.0.1", 1, Dr)]], SERVICES)).unwrap();
    at(&client(1, SYN), &first, &flows, Seconds(0));
    at(&client(1, ACK), &first, &flows, Seconds(0));
    let drained =
        compiler.compile(&snapshot(&[&[("10.0.0.1", 0, Dr), ("10.0.0.2", 1, Dr)]], SERVICES)).unwrap();
    assert_eq!(at(&client(1, ACK), &drained, &flows, Seconds(899)).outcome, FlowOutcome::Hit);
    assert_eq!(
        at(&client(1, ACK), &drained, &flows, Seconds(899 + kept_s(900))).outcome,
        FlowOutcome::Rehashed
    );
}

#[test]
fn udp_is_confirmed_by_its_second_packet() {
    let table = table(&snapshot(&[&[("10.0.0.1", 1, Dr)]], SERVICES));
    let flows = flows();
    let query = parsed(&udp([192, 0, 2, 1], 5353, [203, 0, 113, 10], 53));
    let outcomes: Vec<_> = (0..3).map(|now| at(&query, &table, &flows, Seconds(now)).outcome).collect();
    assert_eq!(outcomes, [FlowOutcome::Created, FlowOutcome::Confirmed, FlowOutcome::Hit]);
}

#[test]
fn ipv6_flows_have_their_own_table() {
    let table = table(&snapshot(&[&[("10.0.0.1", 1, Dr)]], SERVICES));
    let flows = flows();
    let packet = parsed(&tcp("2001:db8::1", 1, "2001:db8::10", 80, SYN));
    assert_eq!(at(&packet, &table, &flows, Seconds(0)).outcome, FlowOutcome::Created);
    assert_eq!(at(&packet, &table, &flows, Seconds(0)).outcome, FlowOutcome::Hit);
}
