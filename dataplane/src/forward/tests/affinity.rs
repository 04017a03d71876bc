//! Client-IP affinity: a client keeps its backend over connections, for as long as it may.

use std::net::IpAddr;

use shunt_api::snapshot::Mode::Dr;
use shunt_api::snapshot::{PortMapping, Snapshot};

use super::*;
use crate::conntrack::kept_s;
use crate::testing::Backends;

const KEPT_S: u32 = 1000;
const TWO: Backends = &[("10.0.0.1", 1, Dr), ("10.0.0.2", 1, Dr)];
/// So many others that Maglev alone would move nearly every client.
const MANY: Backends = &[
    ("10.0.0.1", 1, Dr),
    ("10.0.0.2", 1, Dr),
    ("10.0.0.3", 1000, Dr),
    ("10.0.0.4", 1000, Dr),
    ("10.0.0.5", 1000, Dr),
];

/// Two ports of TCP and one of UDP that are one service, and another service.
fn services(backends: Backends, other: Backends) -> Snapshot {
    let mut snapshot = snapshot(&[backends, other], &[(VIP, "tcp/80", 0), (VIP, "tcp/90", 1)]);
    let more: [PortMapping; 2] = ["tcp/443", "udp/53"].map(|port| port.to_owned().try_into().unwrap());
    snapshot.services[0].ports.extend(more);
    snapshot.services[0].vips.push("2001:db8::10".parse().unwrap());
    snapshot.services.iter_mut().for_each(|service| service.client_ip_affinity_s = Some(KEPT_S));
    snapshot
}

/// A network of clients over changes of the configuration.
struct Net {
    compiler: Compiler,
    flows: FlowTables,
    table: Table,
    next_port: u16,
}

impl Net {
    fn new(backends: Backends) -> Self {
        let mut compiler = Compiler::default();
        let table = compiler.compile(&services(backends, TWO)).unwrap();
        Self { compiler, flows: FlowTables::new(4000, 4000), table, next_port: 1 }
    }

    fn change(&mut self, snapshot: &Snapshot) {
        self.table = self.compiler.compile(snapshot).unwrap();
    }

    fn packet(&self, host: u8, client_port: u16, port: u16, flags: u8, now: u32) -> (IpAddr, Decision) {
        let packet = parsed(&tcp(&format!("192.0.2.{host}"), client_port, VIP, port, flags));
        let decision = at(&packet, &self.table, &self.flows, Seconds(now));
        (self.backend(decision), decision)
    }

    fn backend(&self, decision: Decision) -> IpAddr {
        let Verdict::Forward { listener, member } = decision.verdict else { panic!("{decision:?}") };
        self.table.pool(self.table.listener(listener).pool).member(member).address
    }

    /// A new connection, confirmed: its backend, and whether the client's earlier ones decided.
    fn connect(&mut self, host: u8, port: u16, now: u32) -> (IpAddr, bool) {
        self.next_port += 1;
        let (backend, syn) = self.packet(host, self.next_port, port, SYN, now);
        let (same, _) = self.packet(host, self.next_port, port, ACK, now);
        assert_eq!(backend, same);
        (backend, syn.events == Events::AFFINITY)
    }

    /// Where Maglev sends a client whose earlier connections are forgotten.
    fn by_maglev(&self, host: u8) -> IpAddr {
        let packet = parsed(&tcp(&format!("192.0.2.{host}"), 1, VIP, 80, SYN));
        let listener = self.table.listener(self.table.listener_of(&packet.flow).unwrap());
        let member = self.table.choose(listener, &packet.flow).unwrap();
        self.table.pool(listener.pool).member(member).address
    }

    fn remembered_clients(&self) -> usize {
        let mut count = 0;
        for bucket in 0..self.flows.v4.buckets() {
            self.flows
                .v4
                .visit(bucket, |_, hit| count += usize::from(hit.control.state() == State::Affinity));
        }
        count
    }
}

#[test]
fn all_connections_of_a_client_go_to_one_backend() {
    let mut net = Net::new(TWO);
    for host in 0..50 {
        let (first, kept) = net.connect(host, 80, 0);
        assert!(!kept, "nothing to go by");
        for port in [80, 443, 80, 443] {
            assert_eq!(net.connect(host, port, 1), (first, true));
        }
        let query = parsed(&udp([192, 0, 2, host], 7, [203, 0, 113, 10], 53));
        let decision = at(&query, &net.table, &net.flows, Seconds(1));
        assert_eq!((net.backend(decision), decision.events), (first, Events::AFFINITY));
    }
    assert_eq!(net.remembered_clients(), 50);
}

#[test]
fn a_client_keeps_its_backend_over_changes_of_the_others() {
    let mut net = Net::new(TWO);
    let before: Vec<IpAddr> = (0..100).map(|host| net.connect(host, 80, 0).0).collect();
    net.change(&services(MANY, TWO));
    let moved = (0..100u8).filter(|&host| net.by_maglev(host) != before[usize::from(host)]).count();
    assert!(moved > 90, "only {moved} would have moved: no test");
    for host in 0..100 {
        assert_eq!(net.connect(host, 80, KEPT_S - 1), (before[usize::from(host)], true));
    }
}

#[test]
fn a_client_that_was_silent_for_too_long_is_balanced_anew() {
    let mut net = Net::new(TWO);
    (0..100).for_each(|host| _ = net.connect(host, 80, 5));
    net.change(&services(MANY, TWO));
    for host in 0..100 {
        let expected = net.by_maglev(host);
        assert_eq!(net.connect(host, 80, 5 + kept_s(KEPT_S)), (expected, false));
        assert_eq!(net.connect(host, 80, 5 + kept_s(KEPT_S)), (expected, true), "and keeps that one");
    }
}

/// The time counts from the last packet of any connection.
#[test]
fn a_connection_that_goes_on_keeps_its_client_known() {
    let mut net = Net::new(TWO);
    let (backend, _) = net.connect(1, 80, 0);
    let port = net.next_port;
    net.change(&services(MANY, TWO));
    for now in [600, 1200, 1800] {
        assert_eq!(net.packet(1, port, 80, ACK, now).0, backend);
    }
    assert_eq!(net.connect(1, 80, 1800 + KEPT_S - 1), (backend, true));
}

#[test]
fn new_connections_leave_a_backend_that_drains_or_is_gone() {
    let drained: Backends = &[("10.0.0.1", 0, Dr), ("10.0.0.2", 1, Dr), ("10.0.0.3", 1, Dr)];
    let gone: Backends = &[("10.0.0.2", 1, Dr), ("10.0.0.3", 1, Dr)];
    let leaving: IpAddr = "10.0.0.1".parse().unwrap();
    for rest in [drained, gone] {
        let mut net = Net::new(TWO);
        let before: Vec<(IpAddr, u16)> =
            (0..60).map(|host| (net.connect(host, 80, 0).0, net.next_port)).collect();
        assert!(before.iter().any(|(backend, _)| *backend == leaving));
        net.change(&services(rest, TWO));
        for (host, (backend, port)) in (0..60).zip(before) {
            let moves = backend == leaving;
            let (next, kept) = net.connect(host, 80, 1);
            assert_eq!((next != backend, kept), (moves, !moves), "{backend} then {next}");
            // A connection that goes on at a draining backend does not call the client back.
            let goes_on = moves && rest.len() == 3;
            if goes_on {
                assert_eq!(net.packet(host, port, 80, ACK, 2).0, leaving);
            }
            assert_eq!(net.connect(host, 443, 3), (next, true));
        }
    }
}

#[test]
fn services_do_not_share_what_they_know_of_a_client() {
    let mut net = Net::new(TWO);
    let hosts = 0..100u8;
    for host in hosts.clone() {
        net.connect(host, 80, 0);
        let (_, kept) = net.connect(host, 90, 0);
        assert!(!kept);
    }
    let before: Vec<_> =
        hosts.clone().map(|host| (net.connect(host, 80, 1), net.connect(host, 90, 1))).collect();
    // In another order, and with backends that Maglev alone would prefer.
    let mut swapped = services(MANY, MANY);
    swapped.services.reverse();
    net.change(&swapped);
    for (host, (first, second)) in hosts.zip(before) {
        assert_eq!((net.connect(host, 80, 2), net.connect(host, 90, 2)), (first, second));
    }
}

#[test]
fn a_flood_of_first_packets_leaves_no_client_behind() {
    let net = Net::new(TWO);
    for host in 0..=255u8 {
        for port in 0..8 {
            net.packet(host, port, 80, SYN, 0);
            net.packet(host, port, 80, SYN, 0);
        }
        let query = parsed(&udp([192, 0, 2, host], 7, [203, 0, 113, 10], 53));
        at(&query, &net.table, &net.flows, Seconds(0));
    }
    assert_eq!(net.remembered_clients(), 0);
}

#[test]
fn a_reset_alone_makes_no_client_known() {
    let net = Net::new(TWO);
    for (flags, expected) in [(SYN, 0), (RST, 0), (RST | ACK, 0), (FIN | ACK, 1)] {
        net.packet(1, 7, 80, flags, 0);
        assert_eq!(net.remembered_clients(), expected, "{flags:#04x}");
    }
}

#[test]
fn ipv6_clients_are_known_by_their_whole_address() {
    let mut net = Net::new(TWO);
    let connect = |net: &Net, client: &str, port: u16| {
        let packet = |flags| parsed(&tcp(client, port, "2001:db8::10", 80, flags));
        let syn = at(&packet(SYN), &net.table, &net.flows, Seconds(0));
        at(&packet(ACK), &net.table, &net.flows, Seconds(0));
        (net.backend(syn), syn.events == Events::AFFINITY)
    };
    let clients: Vec<String> = (0..40).map(|host| format!("2001:db8:{host:x}::{host:x}")).collect();
    let before: Vec<_> = clients.iter().map(|client| connect(&net, client, 1)).collect();
    net.change(&services(MANY, TWO));
    for (client, (backend, kept)) in clients.iter().zip(before) {
        assert!(!kept);
        assert_eq!(connect(&net, client, 2), (backend, true));
        assert!(!connect(&net, &format!("{client}:1"), 2).1, "another host of the network");
    }
}

/// The errors of a client without an entry go where its packets would.
#[test]
fn errors_of_unknown_flows_follow_affinity() {
    let mut net = Net::new(TWO);
    let before: Vec<IpAddr> = (0..50).map(|host| net.connect(host, 80, 0).0).collect();
    net.change(&services(MANY, TWO));
    for (host, backend) in (0..50).zip(before) {
        let error =
            Packet { content: Content::Error, ..parsed(&tcp(&format!("192.0.2.{host}"), 999, VIP, 80, 0)) };
        let decision = at(&error, &net.table, &net.flows, Seconds(1));
        assert_eq!((net.backend(decision), decision.events), (backend, Events::ICMP_ERROR));
    }
}
