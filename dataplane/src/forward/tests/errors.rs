//! ICMP errors: to whom the packet they quote belongs, and to nobody else.

use std::net::{IpAddr, SocketAddr};

use shunt_api::snapshot::Mode::{self, Nat};
use shunt_api::snapshot::Snapshot;

use super::*;
use crate::testing::draft::{self, Draft, IpDraft};

const VIP6: &str = "2001:db8::10";

/// One service per family; more backends than before make Maglev alone choose others.
fn services(mode: Mode, backends: usize) -> Snapshot {
    let pool =
        |prefix: &str| -> Vec<_> { (1..=backends).map(|i| (format!("{prefix}{i}"), 1, mode)).collect() };
    let pools = [pool("10.0.0."), pool("fd00::")];
    let borrowed =
        pools.each_ref().map(|pool| pool.iter().map(|(a, w, m)| (&**a, *w, *m)).collect::<Vec<_>>());
    let pools = [&borrowed[0][..], &borrowed[1][..]];
    let mut snapshot = snapshot(&pools, &[(VIP, "tcp/80", 0), (VIP6, "tcp/80", 1)]);
    snapshot.nat.sources = ["10.0.9.1", "fd00:9::1"].map(|source| source.parse().unwrap()).into();
    (snapshot.nat.max_flows_v4, snapshot.nat.max_flows_v6) = (1000, 1000);
    snapshot
}

fn client(v6: bool, port: u16) -> SocketAddr {
    (if v6 { "2001:db8:c::1" } else { "192.0.2.1" }.parse::<IpAddr>().unwrap(), port).into()
}

fn service(v6: bool) -> SocketAddr {
    (if v6 { VIP6 } else { VIP }.parse::<IpAddr>().unwrap(), 80).into()
}

fn flow_packet(v6: bool, port: u16, flags: u8) -> Packet {
    parsed(&draft::frame(&Draft::tcp(flags, b"").between(client(v6, port), service(v6)), &[], 0))
}

/// A router's error about a packet between these ends, of whose transport header it quotes the least.
fn error(from: SocketAddr, to: SocketAddr) -> Packet {
    let (router, kind, headers): (IpAddr, _, _) =
        if from.is_ipv4() { ([198, 51, 100, 1].into(), [11, 0], 20) } else { ([1; 16].into(), [3, 0], 40) };
    let quote = &Draft::tcp(ACK, b"answer").between(from, to)[..headers + 8];
    parsed(&draft::frame(&draft::icmp(&IpDraft::default(), kind, [0; 4], quote, router, from.ip()), &[], 0))
}

/// The backend's address; in mode `nat` both new ends.
fn way(table: &Table, decision: Decision) -> (IpAddr, Option<Translation>) {
    let (listener, member, translation) = match decision.verdict {
        Verdict::Forward { listener, member } => (listener, member, None),
        Verdict::Translate { listener, member, translation } => (listener, member, Some(translation)),
        other => panic!("{other:?}"),
    };
    (table.pool(table.listener(listener).pool).member(member).address, translation)
}

#[test]
fn errors_go_the_way_of_their_flow() {
    for mode in [Dr, Ipip, Nat] {
        for v6 in [false, true] {
            let mut compiler = Compiler::default();
            let (flows, first) = (flows(), compiler.compile(&services(mode, 2)).unwrap());
            let before: Vec<_> = (0..100)
                .map(|port| {
                    at(&flow_packet(v6, port, SYN), &first, &flows, Seconds(0));
                    way(&first, at(&flow_packet(v6, port, ACK), &first, &flows, Seconds(0)))
                })
                .collect();
            let second = compiler.compile(&services(mode, 9)).unwrap();
            for (port, expected) in (0..100).zip(before) {
                let decision = at(&error(service(v6), client(v6, port)), &second, &flows, Seconds(1));
                assert_eq!(way(&second, decision), expected, "{mode} {port}");
                assert_eq!((decision.outcome, decision.events), (FlowOutcome::None, Events::ICMP_ERROR));
            }
        }
    }
}

/// A tunnel's outer source is the flow's, so that the error takes the same way through the network.
#[test]
fn errors_have_the_entropy_of_their_flow() {
    let (flows, table) = (flows(), table(&services(Ipip, 2)));
    for port in 0..20 {
        let packet = at(&flow_packet(false, port, SYN), &table, &flows, Seconds(0));
        let error = at(&error(service(false), client(false, port)), &table, &flows, Seconds(0));
        assert_eq!(error.hash, packet.hash);
    }
}

#[test]
fn a_box_that_does_not_know_the_flow_agrees() {
    for mode in [Dr, Ipip] {
        for v6 in [false, true] {
            let (one, other) = (table(&services(mode, 7)), table(&services(mode, 7)));
            let (knows, empty) = (flows(), flows());
            for port in 0..100 {
                let packet = at(&flow_packet(v6, port, SYN), &one, &knows, Seconds(0));
                let decision = at(&error(service(v6), client(v6, port)), &other, &empty, Seconds(9));
                assert_eq!(way(&other, decision), way(&one, packet));
            }
        }
    }
}

#[test]
fn nothing_is_remembered_of_an_error() {
    let (flows, table) = (flows(), table(&services(Dr, 3)));
    at(&flow_packet(false, 1, SYN), &table, &flows, Seconds(0));
    for port in 0..10 {
        at(&error(service(false), client(false, port)), &table, &flows, Seconds(29));
    }
    let mut found = Vec::new();
    for bucket in 0..flows.v4.buckets() {
        flows.v4.visit(bucket, |_, hit| found.push((hit.control.state(), hit.control.idle_s(Seconds(29)))));
    }
    assert_eq!(found, [(State::Unconfirmed, 29)], "neither entered, nor confirmed, nor kept alive");
}

#[test]
fn a_draining_backend_hears_of_its_flows() {
    let mut compiler = Compiler::default();
    let (flows, first) = (flows(), compiler.compile(&services(Dr, 1)).unwrap());
    at(&flow_packet(false, 1, SYN), &first, &flows, Seconds(0));
    let mut drains = services(Dr, 2);
    drains.pools[0].backends[0].weight = 0;
    let drains = compiler.compile(&drains).unwrap();
    let decision = at(&error(service(false), client(false, 1)), &drains, &flows, Seconds(1));
    assert_eq!(way(&drains, decision).0.to_string(), "10.0.0.1");
    let without = compiler.compile(&services(Dr, 0)).unwrap();
    let decision = at(&error(service(false), client(false, 1)), &without, &flows, Seconds(1));
    assert_eq!(decision.verdict, Verdict::Drop(DropReason::IcmpUnmatched), "nobody is left");
}

#[test]
fn errors_about_translated_packets_go_to_their_client() {
    for v6 in [false, true] {
        let (flows, table) = (flows(), table(&services(Nat, 3)));
        let (backend, translation) = way(&table, at(&flow_packet(v6, 1, SYN), &table, &flows, Seconds(0)));
        let Translation { source, destination } = translation.unwrap();
        assert_eq!(destination, (backend, 80));
        let decision = at(&error(source.into(), destination.into()), &table, &flows, Seconds(1));
        let Verdict::Return { translation, .. } = decision.verdict else { panic!("{decision:?}") };
        let (client, service) = (client(v6, 1), service(v6));
        assert_eq!(
            translation,
            Translation { source: (service.ip(), 80), destination: (client.ip(), client.port()) }
        );
        assert_eq!(decision.events, Events::ICMP_ERROR);
        // As long as the flow lives; and only about a packet that it can have sent.
        let unmatched = Verdict::Drop(DropReason::IcmpUnmatched);
        let late = at(&error(source.into(), destination.into()), &table, &flows, Seconds(30));
        assert_eq!(late.verdict, unmatched);
        for (source, destination) in
            [((source.0, source.1 ^ 1), destination), (source, (destination.0, destination.1 + 1))]
        {
            let decision = at(&error(source.into(), destination.into()), &table, &flows, Seconds(1));
            assert_eq!(decision.verdict, unmatched);
        }
    }
}

#[test]
fn errors_that_belong_to_nobody_are_dropped() {
    let mut ranged = services(Dr, 2);
    ranged.services[0].source_ranges = vec!["10.0.0.0/8".parse().unwrap()];
    let (flows, table) = (flows(), table(&ranged));
    let unlisted: SocketAddr = (VIP.parse::<IpAddr>().unwrap(), 81).into();
    let stranger: SocketAddr = "203.0.113.99:80".parse().unwrap();
    for (from, to) in
        [(unlisted, client(false, 1)), (stranger, client(false, 1)), (service(false), client(false, 1))]
    {
        let decision = at(&error(from, to), &table, &flows, Seconds(0));
        assert_eq!(decision.verdict, Verdict::Drop(DropReason::IcmpUnmatched), "{from} → {to}");
    }
    let allowed = at(&error(service(false), "10.1.2.3:1".parse().unwrap()), &table, &flows, Seconds(0));
    assert!(matches!(allowed.verdict, Verdict::Forward { .. }));
}
