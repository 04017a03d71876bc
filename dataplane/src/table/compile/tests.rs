//! What a table keeps from one snapshot to the next, and what it refuses.

use shunt_api::snapshot::Mode::{Dr, Ipip, Nat};
use shunt_api::snapshot::UnlistedPorts;

use super::*;
use crate::conntrack::State;
use crate::conntrack::kept_s;
use crate::testing::snapshot;

#[test]
fn order_of_the_configuration_never_matters() {
    let backends = ["10.0.0.3", "10.0.0.1", "fd00::1", "10.0.0.2"].map(|address| (address, 1, Dr));
    let mut reversed = backends;
    reversed.reverse();
    let one = Compiler::default().compile(&snapshot(&[&backends], &[])).unwrap();
    let other = Compiler::default().compile(&snapshot(&[&reversed], &[])).unwrap();
    assert_eq!(one.pools[0].maglev, other.pools[0].maglev);
    let addresses = |table: &Table| table.pools[0].members.iter().map(|m| m.address).collect::<Vec<_>>();
    assert_eq!(addresses(&one), addresses(&other));
}

#[test]
fn pools_with_the_same_backends_share_a_table_and_unchanged_ones_keep_it() {
    let mut compiler = Compiler::default();
    let set = [("10.0.0.1", 1, Dr), ("10.0.0.2", 2, Dr)];
    let ipip = [("10.0.0.1", 1, Ipip), ("10.0.0.2", 2, Dr)];
    let first = compiler.compile(&snapshot(&[&set, &ipip], &[])).unwrap();
    assert!(Arc::ptr_eq(&first.pools[0].maglev, &first.pools[1].maglev));
    let second = compiler.compile(&snapshot(&[&[], &set], &[])).unwrap();
    assert!(Arc::ptr_eq(&first.pools[0].maglev, &second.pools[1].maglev));
}

#[test]
fn an_identity_survives_a_backend_that_goes_and_comes_back() {
    let mut compiler = Compiler::default();
    let both = [("10.0.0.1", 1, Dr), ("10.0.0.2", 1, Dr)];
    let first = compiler.compile(&snapshot(&[&both], &[])).unwrap();
    let id = first.pools[0].members[1].backend;
    let without = compiler.compile(&snapshot(&[&both[..1]], &[])).unwrap();
    assert_eq!((without.address(id), without.pools[0].member_of(id)), (None, None));
    let again = compiler.compile(&snapshot(&[&both], &[])).unwrap();
    assert_eq!(again.pools[0].member_of(id), Some(1));
    assert_eq!(again.address(id), Some("10.0.0.2".parse().unwrap()));
}

#[test]
fn contradictions_are_refused_by_name() {
    let mut compiler = Compiler::default();
    let twice = [("10.0.0.1", 1, Dr), ("10.0.0.1", 2, Dr)];
    let mut size = snapshot(&[], &[]);
    size.maglev_size = 65_536;
    let cases = [
        (snapshot(&[], &[("192.0.2.1", "tcp/80", 0)]), "names pool number 0"),
        (snapshot(&[&[]], &[("192.0.2.1", "tcp/80", 0), ("192.0.2.1", "tcp/80", 0)]), "belongs to service"),
        (snapshot(&[&twice], &[]), "10.0.0.1 twice"),
        (size, "65536 is not a prime"),
    ];
    for (snapshot, expected) in cases {
        let error = compiler.compile(&snapshot).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn headroom_follows_the_largest_tunnel_header_of_a_vip() {
    let dr = [("10.0.0.1", 1, Dr)];
    let mixed = [("10.0.0.1", 1, Dr), ("10.0.0.2", 1, Ipip)];
    let six = [("fd00::2", 1, Ipip)];
    let services = [
        ("192.0.2.1", "tcp/80", 0),
        ("192.0.2.2", "tcp/80", 0),
        ("192.0.2.2", "udp/53", 1),
        ("192.0.2.3", "tcp/1", 2),
        ("192.0.2.3", "tcp/2", 1),
    ];
    let table = Compiler::default().compile(&snapshot(&[&dr, &mixed, &six], &services)).unwrap();
    let headrooms: Vec<u32> = table.owned().into_values().collect();
    assert_eq!(headrooms, [0, 20, 40]);
}

const VIP: &str = "192.0.2.1";
const NAT4: [(&str, u16, Mode); 1] = [("10.0.0.1", 1, Nat)];

/// One translated service, with these sources.
fn translated(sources: &[&str]) -> Snapshot {
    let mut snapshot = snapshot(&[&NAT4], &[(VIP, "tcp/80:30080", 0), (VIP, "tcp/90", 0)]);
    snapshot.nat.sources = sources.iter().map(|source| source.parse().unwrap()).collect();
    (snapshot.nat.max_flows_v4, snapshot.nat.max_flows_v6) = (100, 100);
    snapshot
}

#[test]
fn translation_that_cannot_be_is_refused_by_name() {
    let mut other_family = translated(&["10.0.9.1", "fd00:9::1"]);
    other_family.services[1].vips.push("2001:db8::1".parse().unwrap());
    let mut mixed = translated(&["10.0.9.1"]);
    mixed.pools[0].backends.push(snapshot(&[&[("fd00::1", 0, Nat)]], &[]).pools[0].backends[0].clone());
    let cases = [
        (
            translated(&[]),
            "service `192.0.2.1 tcp/80:30080` has VIP 192.0.2.1 and nat backends; give [nat] sources",
        ),
        (translated(&["fd00:9::1"]), "give [nat] sources an address of that family"),
        (other_family, "has VIP 2001:db8::1 and nat backend 10.0.0.1"),
        (mixed, "has VIP 192.0.2.1 and nat backend fd00::1"),
        (translated(&["10.0.9.1", VIP]), "192.0.2.1 is in [nat] sources and a VIP"),
    ];
    for (snapshot, expected) in cases {
        let error = Compiler::default().compile(&snapshot).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_refused_snapshot_changes_nothing_for_the_next() {
    let mut compiler = Compiler::default();
    let before = compiler.compile(&translated(&["10.0.9.1"])).unwrap();
    assert!(compiler.compile(&translated(&[])).is_err());
    let after = compiler.compile(&translated(&["10.0.9.1"])).unwrap();
    assert!(Arc::ptr_eq(&before.pools[0].maglev, &after.pools[0].maglev));
    let tables = |table: &Table| table.nat.as_ref().unwrap().tables.clone();
    assert!(Arc::ptr_eq(&tables(&before), &tables(&after)));
}

#[test]
fn targets_are_the_services_ports_unless_named() {
    let table = Compiler::default().compile(&translated(&["10.0.9.1"])).unwrap();
    let targets =
        table.listeners.iter().map(|listener| (&*listener.service, listener.target)).collect::<Vec<_>>();
    assert_eq!(targets, [("192.0.2.1 tcp/80:30080", 30_080), ("192.0.2.1 tcp/90", 90)]);
}

#[test]
fn sources_keep_their_numbers_and_flows_their_tables() {
    let mut compiler = Compiler::default();
    let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let first = compiler.compile(&translated(&["10.0.9.1", "10.0.9.2"])).unwrap().nat.unwrap();
    assert_eq!((&*first.v4, first.v6.len()), (&[SourceId(0), SourceId(1)][..], 0));
    let second = compiler.compile(&translated(&["fd00:9::1", "10.0.9.3", "10.0.9.2"])).unwrap().nat.unwrap();
    assert_eq!((&*second.v4, &*second.v6), (&[SourceId(3), SourceId(1)][..], &[SourceId(2)][..]));
    let expected = [None, address("10.0.9.2"), address("fd00:9::1"), address("10.0.9.3")];
    assert_eq!(*second.addresses, expected);
    assert!(Arc::ptr_eq(&first.tables, &second.tables));

    // Over a time without translation, too; but not over another size.
    let none = snapshot(&[&[("10.0.0.1", 1, Dr)]], &[(VIP, "tcp/80", 0)]);
    assert!(compiler.compile(&none).unwrap().nat.is_none());
    let third = compiler.compile(&translated(&["10.0.9.1"])).unwrap().nat.unwrap();
    assert_eq!((&*third.v4, third.addresses[0]), (&[SourceId(0)][..], address("10.0.9.1")));
    assert!(Arc::ptr_eq(&first.tables, &third.tables));
    let mut larger = translated(&["10.0.9.1"]);
    larger.nat.max_flows_v4 = 1000;
    let fourth = compiler.compile(&larger).unwrap().nat.unwrap();
    assert!(!Arc::ptr_eq(&first.tables, &fourth.tables) && fourth.tables.v4.capacity() >= 1000);
}

#[test]
fn what_each_address_is() {
    let mut snapshot = translated(&["10.0.9.1"]);
    snapshot.services.iter_mut().for_each(|service| service.unlisted_ports = UnlistedPorts::Drop);
    let table = Compiler::default().compile(&snapshot).unwrap();
    let owned = |address: &str| table.owned_as(address.parse().unwrap());
    assert_eq!(owned(VIP), Some(Owned::Vip(UnlistedPorts::Drop)));
    assert_eq!((owned("10.0.9.1"), owned("10.0.0.1")), (Some(Owned::Source), None));
    let headrooms: Vec<_> =
        table.owned().into_iter().map(|(address, bytes)| (address.to_string(), bytes)).collect();
    assert_eq!(headrooms, [("10.0.9.1".to_owned(), 0), (VIP.to_owned(), 0)]);
}

#[test]
fn only_tunnels_of_ours_are_known() {
    let pools: [&[_]; 3] =
        [&[("10.0.0.1", 1, Ipip), ("10.0.0.2", 1, Dr)], &[("fd00::1", 0, Ipip)], &[("10.0.0.2", 1, Dr)]];
    let mut snapshot = snapshot(&pools, &[]);
    snapshot.tunnel.source_v4 = Some("10.200.0.0/16".parse().unwrap());
    let table = Compiler::default().compile(&snapshot).unwrap();
    assert!(table.has_tunnels());
    let cases = [
        ("10.200.255.255", "10.0.0.1", true),
        ("10.201.0.0", "10.0.0.1", false),
        ("10.200.0.1", "10.0.0.2", false),
        ("10.200.0.1", "10.0.0.3", false),
        ("fd00:77::1", "fd00::1", true),
    ];
    for (source, backend, ours) in cases {
        let backend: IpAddr = backend.parse().unwrap();
        let found = table.tunnelled(source.parse().unwrap(), backend);
        assert_eq!(found.and_then(|id| table.address(id)), ours.then_some(backend), "{source} → {backend}");
    }
    assert!(!Compiler::default().compile(&translated(&["10.0.9.1"])).unwrap().has_tunnels());
}

#[test]
fn idle_limits_are_those_of_each_state() {
    let mut snapshot = snapshot(&[&[]], &[(VIP, "tcp/80", 0), (VIP, "tcp/81", 0), (VIP, "tcp/82", 0)]);
    (snapshot.services[0].client_ip_affinity_s, snapshot.services[1].client_ip_affinity_s) =
        (Some(500), Some(10_800));
    let limits = Compiler::default().compile(&snapshot).unwrap().idle_limits;
    let timeouts = snapshot.timeouts;
    let cases = [
        (State::Unconfirmed, timeouts.unconfirmed_s),
        (State::Confirmed, timeouts.udp_s),
        (State::Established, timeouts.tcp_established_s),
        (State::Closing, timeouts.tcp_fin_s),
        (State::Reset, timeouts.tcp_reset_s),
        (State::Affinity, 10_800),
    ];
    for (state, expected) in cases {
        assert_eq!(limits[state as usize], kept_s(expected), "{state:?}");
    }
}

#[test]
fn services_with_affinity_keep_their_numbers() {
    let with_affinity = |names: &[&str]| {
        let ports: Vec<String> = (0..names.len()).map(|i| format!("tcp/{}", 80 + i)).collect();
        let services: Vec<_> = ports.iter().map(|port| (VIP, &**port, 0)).collect();
        let mut snapshot = snapshot(&[&[]], &services);
        for (service, name) in snapshot.services.iter_mut().zip(names) {
            (service.name, service.client_ip_affinity_s) = ((*name).to_owned(), Some(9));
        }
        snapshot
    };
    let mut compiler = Compiler::default();
    let mut numbers = |names: &[&str]| {
        let table = compiler.compile(&with_affinity(names)).unwrap();
        table.listeners.iter().map(|listener| listener.affinity.unwrap().service).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&["a", "b"]), [0, 1]);
    assert_eq!(numbers(&["c", "b"]), [2, 1]);
    assert_eq!(numbers(&["b", "c", "a"]), [1, 2, 0]);
}

#[test]
fn tunnels_come_from_the_box_and_never_from_a_vip() {
    let backends = [("10.0.0.1", 1, Ipip), ("10.0.0.2", 1, Dr)];
    let mut snapshot = snapshot(&[&backends], &[("203.0.113.10", "tcp/80", 0)]);
    let mut check = |prefix: Option<&str>, source: &str, backend: &str, expected| {
        snapshot.tunnel.source_v4 = prefix.map(|prefix| prefix.parse().unwrap());
        let table = Compiler::default().compile(&snapshot).unwrap();
        let found = table.tunnelled(source.parse().unwrap(), backend.parse().unwrap());
        assert_eq!(found.is_some(), expected, "{prefix:?} {source} {backend}");
    };
    for (source, with_prefix) in [("10.200.1.1", true), ("10.0.0.254", false)] {
        check(Some("10.200.0.0/16"), source, "10.0.0.1", with_prefix);
        check(None, source, "10.0.0.1", true);
        check(None, source, "10.0.0.2", false);
    }
    check(None, "203.0.113.10", "10.0.0.1", false);
    check(Some("203.0.113.0/24"), "203.0.113.10", "10.0.0.1", false);
}
