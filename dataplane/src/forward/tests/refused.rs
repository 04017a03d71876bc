//! Clients outside a service's source ranges, and packets to ports without a service.

use shunt_api::snapshot::Snapshot;

use super::*;
use crate::testing::draft::{self, Draft, IpDraft};

const VIP6: &str = "2001:db8::10";

/// One service on both families with these ranges.
fn ranged(ranges: &[&str]) -> Snapshot {
    let mut snapshot = snapshot(&[&[("10.0.0.1", 1, Dr)]], &[(VIP, "tcp/80", 0), (VIP, "tcp/90", 0)]);
    snapshot.services[0].vips.push(VIP6.parse().unwrap());
    snapshot.services[0].source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    snapshot
}

#[test]
fn source_ranges_decide_who_is_served() {
    let cases: [(&[&str], [bool; 4]); 6] = [
        (&[], [true; 4]),
        (&["192.0.2.0/24"], [true, false, false, false]),
        (&["0.0.0.0/0"], [true, true, false, false]),
        (&["2001:db8:c::/48"], [false, false, true, false]),
        (&["198.51.100.7/32", "::/0"], [false, true, true, true]),
        (&["0.0.0.0/0", "::/0"], [true; 4]),
    ];
    let clients = ["192.0.2.255", "198.51.100.7", "2001:db8:c:1::1", "2001:db8:d::1"];
    for (ranges, expected) in cases {
        let table = table(&ranged(ranges));
        for (client, served) in clients.into_iter().zip(expected) {
            let vip = if client.contains(':') { VIP6 } else { VIP };
            let flows = flows();
            for flags in [SYN, ACK] {
                let decision = at(&parsed(&tcp(client, 1, vip, 80, flags)), &table, &flows, Seconds(0));
                let denied = decision.verdict == Verdict::Drop(DropReason::SourceDenied);
                assert_eq!(denied, !served, "{client} with {ranges:?}");
                assert_eq!(decision.outcome == FlowOutcome::None, denied, "nothing is remembered");
            }
        }
    }
}

#[test]
fn ranges_are_of_one_service_not_of_its_address() {
    let table = table(&ranged(&["10.0.0.0/8"]));
    let decision = at(&parsed(&tcp("192.0.2.1", 1, VIP, 90, SYN)), &table, &flows(), Seconds(0));
    assert_eq!(decision.outcome, FlowOutcome::Created);
}

#[test]
fn connections_end_when_their_client_is_denied() {
    let mut compiler = Compiler::default();
    let (flows, all) = (flows(), compiler.compile(&ranged(&[])).unwrap());
    at(&client(1, SYN), &all, &flows, Seconds(0));
    assert_eq!(at(&client(1, ACK), &all, &flows, Seconds(0)).outcome, FlowOutcome::Confirmed);
    let none = compiler.compile(&ranged(&["10.0.0.0/8"])).unwrap();
    assert_eq!(
        at(&client(1, ACK), &none, &flows, Seconds(1)).verdict,
        Verdict::Drop(DropReason::SourceDenied)
    );
    let again = compiler.compile(&ranged(&["192.0.2.0/24"])).unwrap();
    assert_eq!(at(&client(1, ACK), &again, &flows, Seconds(2)).outcome, FlowOutcome::Hit);
}

#[test]
fn what_unlisted_ports_get() {
    use shunt_api::snapshot::UnlistedPorts::{Drop, Reject};
    let nothing = Verdict::Drop(DropReason::UnlistedPort);
    let ends = ("192.0.2.1:1".parse().unwrap(), format!("{VIP}:79").parse().unwrap());
    let segment = |flags| Draft::tcp(flags, &[7; 100]).between(ends.0, ends.1);
    let datagram = Draft::udp(&[7; 100]).between(ends.0, ends.1);
    let echo = draft::icmp(&IpDraft::default(), [8, 0], [0; 4], b"", ends.0.ip(), ends.1.ip());
    let cases = [
        ("SYN", segment(SYN), Verdict::Reply(Reply::Reset), nothing),
        ("ACK", segment(ACK), Verdict::Reply(Reply::Reset), nothing),
        ("FIN", segment(FIN), Verdict::Reply(Reply::Reset), nothing),
        ("RST", segment(RST), nothing, nothing),
        ("RST and ACK", segment(RST | ACK), nothing, nothing),
        ("UDP", datagram.clone(), Verdict::Reply(Reply::Unreachable), nothing),
        ("first fragment, TCP", draft::fragments(&segment(ACK), 64).remove(0), nothing, nothing),
        ("first fragment, UDP", draft::fragments(&datagram, 64).remove(0), nothing, nothing),
        ("echo", echo, Verdict::Reply(Reply::Echo), Verdict::Reply(Reply::Echo)),
    ];
    for (what, ip, reject, drop) in cases {
        for (policy, expected) in [(Reject, reject), (Drop, drop)] {
            let mut snapshot = snapshot(&[&[("10.0.0.1", 1, Dr)]], &[(VIP, "tcp/80", 0)]);
            snapshot.services[0].unlisted_ports = policy;
            let packet = parsed(&draft::frame(&ip, &[], 0));
            let decision = at(&packet, &table(&snapshot), &flows(), Seconds(0));
            assert_eq!(decision, Decision::only(expected), "{what}, {policy}");
        }
    }
}

/// A service that is taken away leaves nothing that goes on.
#[test]
fn flows_of_a_service_that_is_gone_are_refused() {
    let mut compiler = Compiler::default();
    let (flows, before) =
        (flows(), compiler.compile(&snapshot(&[&[("10.0.0.1", 1, Dr)]], SERVICES)).unwrap());
    at(&client(1, SYN), &before, &flows, Seconds(0));
    at(&client(1, ACK), &before, &flows, Seconds(0));
    let other = compiler.compile(&snapshot(&[&[("10.0.0.1", 1, Dr)]], &[(VIP, "tcp/81", 0)])).unwrap();
    assert_eq!(at(&client(1, ACK), &other, &flows, Seconds(0)).verdict, Verdict::Reply(Reply::Reset));
    let none = compiler.compile(&snapshot(&[], &[])).unwrap();
    let gone = at(&client(1, ACK), &none, &flows, Seconds(0));
    assert_eq!(gone.verdict, Verdict::Drop(DropReason::NotOurAddress));
}
