//! A number stands for what established flows must obey, and never for two things at once.

use shunt_api::snapshot::{Protocol, UnlistedPorts};

use super::*;

fn mapping(port: u16, target: Option<u16>) -> PortMapping {
    PortMapping { port: ServicePort { protocol: Protocol::Tcp, port }, target }
}

fn service(name: &str, ports: &[PortMapping]) -> Service {
    Service {
        name: name.to_owned(),
        vips: vec![[203, 0, 113, 10].into()],
        ports: ports.to_vec(),
        pool: 0,
        source_ranges: vec!["192.0.2.0/24".parse().unwrap()],
        client_ip_affinity_s: None,
        unlisted_ports: UnlistedPorts::Reject,
    }
}

fn backend(last: u8, weight: u16, mode: Mode) -> Backend {
    Backend { name: format!("b{last}"), address: [10, 0, 0, last].into(), weight, mode }
}

const NAT: (u32, u32) = (1000, 1000);

/// All that numbers are made of.
#[derive(Clone)]
struct Made {
    service: Service,
    pool: Vec<Backend>,
    nat: (u32, u32),
}

fn numbers(versions: &mut Versions, made: &Made) -> Vec<u32> {
    let backends = versions.backends(&made.pool);
    versions.of(&made.service, backends, made.nat)
}

/// Of a service without backends.
fn of_none(versions: &mut Versions, service: &Service) -> Vec<u32> {
    let backends = versions.backends(&[]);
    versions.of(service, backends, NAT)
}

#[test]
fn a_number_changes_with_what_flows_must_obey_and_with_nothing_else() {
    let first = Made {
        service: service("a", &[mapping(80, None), mapping(443, None)]),
        pool: vec![backend(1, 1, Mode::Dr), backend(2, 1, Mode::Nat)],
        nat: NAT,
    };
    let check = |what: &str, expected: [bool; 2], change: &dyn Fn(&mut Made)| {
        let mut versions = Versions::default();
        let before = numbers(&mut versions, &first);
        let mut made = first.clone();
        change(&mut made);
        let after = numbers(&mut versions, &made);
        assert_eq!([0, 1].map(|port| before[port] != after[port]), expected, "{what}");
    };
    check("nothing", [false, false], &|_| ());
    check("weights", [false, false], &|made| made.pool[0].weight = 0);
    check("order", [false, false], &|made| made.pool.reverse());
    check("number of the pool", [false, false], &|made| made.service.pool = 7);
    check("one target", [false, true], &|made| made.service.ports[1].target = Some(8443));
    check("VIPs", [true, true], &|made| made.service.vips.push([203, 0, 113, 11].into()));
    check("sources", [true, true], &|made| made.service.source_ranges.clear());
    check("affinity", [true, true], &|made| made.service.client_ip_affinity_s = Some(60));
    check("a mode", [true, true], &|made| made.pool[0].mode = Mode::Ipip);
    check("a backend", [true, true], &|made| drop(made.pool.pop()));
    check("tables of translated flows", [true, true], &|made| made.nat.0 = 2000);
}

#[test]
fn a_port_that_comes_again_gets_another_number() {
    let mut versions = Versions::default();
    let both = service("a", &[mapping(80, None), mapping(443, None)]);
    let one = service("a", &[mapping(80, None)]);
    let before = of_none(&mut versions, &both);
    versions.keep(std::slice::from_ref(&one));
    assert_eq!(of_none(&mut versions, &one), before[..1]);
    let after = of_none(&mut versions, &both);
    assert_eq!((after[0], after[1] != before[1]), (before[0], true));
    versions.keep(&[]);
    assert_eq!((versions.listeners.len(), versions.taken.len()), (0, 0));
}

#[test]
fn numbers_that_come_round_pass_over_those_in_use() {
    let mut versions = Versions::default();
    let old = service("old", &[mapping(80, None), mapping(443, None)]);
    assert_eq!(of_none(&mut versions, &old), [1, 2]);
    versions.last = VERSIONS - 2;
    let new = service("new", &[mapping(80, None), mapping(81, None), mapping(82, None)]);
    assert_eq!(of_none(&mut versions, &new), [VERSIONS - 1, 3, 4]);
    assert_eq!(of_none(&mut versions, &old), [1, 2]);
}
