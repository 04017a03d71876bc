//! From what the kernel says of ways and NICs to what the workers read.

use std::time::Instant;

use shunt_api::mac::MacAddress;
use shunt_api::snapshot::Mode::{self, Dr, Ipip};

use super::*;
use crate::neighbor::ResolvedHop;
use crate::packet::ethernet::VlanTag;
use crate::testing::{snapshot, table};

const IFINDEXES: &[u32] = &[7, 3];

fn resolved() -> ResolvedHop {
    ResolvedHop {
        ifindex: 3,
        vlan: None,
        source_mac: MacAddress([2; 6]),
        destination_mac: MacAddress([4; 6]),
        gateway: None,
        source_address: Some([10, 0, 0, 254].into()),
        mtu: 1500,
    }
}

fn open() -> OpenHop {
    let link = Link { destination: MacAddress([4; 6]), source: MacAddress([2; 6]), vlan: None, mtu: 1500 };
    OpenHop { nic: NicIndex(1), link, on_link: true, source: Some([10, 0, 0, 254].into()) }
}

fn address(host: u8) -> IpAddr {
    [10, 0, 0, host].into()
}

fn one() -> Table {
    table(&snapshot(&[&[("10.0.0.1", 1, Dr)]], &[]))
}

fn ways<'a>(hops: &'a HopMap, path_mtus: &'a PathMtus) -> Ways<'a> {
    static LINKS: LinkMap = LinkMap::new();
    Ways { hops, links: &LINKS, ifindexes: IFINDEXES, path_mtus, mtu_limit: None }
}

#[test]
fn every_word_of_the_kernel_has_its_meaning() {
    let tag = VlanTag { tpid: 0x8100, id: 20 };
    let kernel = neighbor::Hop::Resolved;
    let cases = [
        (kernel(resolved()), Hop::Open(open())),
        (
            kernel(ResolvedHop { ifindex: 7, gateway: Some(address(9)), source_address: None, ..resolved() }),
            Hop::Open(OpenHop { nic: NicIndex(0), on_link: false, source: None, ..open() }),
        ),
        (
            kernel(ResolvedHop { vlan: Some(tag), mtu: 1400, ..resolved() }),
            Hop::Open(OpenHop { link: Link { vlan: Some(tag), mtu: 1400, ..open().link }, ..open() }),
        ),
        (kernel(ResolvedHop { ifindex: 8, ..resolved() }), Hop::Closed(DropReason::RouteElsewhere)),
        (neighbor::Hop::NoRoute, Hop::Closed(DropReason::NoRoute)),
        (neighbor::Hop::RouteElsewhere { ifname: "lo".into() }, Hop::Closed(DropReason::RouteElsewhere)),
        (neighbor::Hop::Unresolved, Hop::Closed(DropReason::NeighborUnresolved)),
    ];
    for (said, expected) in cases {
        let known = HopMap::from([(address(1), said.clone())]);
        let hops = ways(&known, &PathMtus::default()).to_backends(&one());
        assert_eq!(*hops, [expected], "{said:?}");
    }
}

#[test]
fn hops_are_by_backend_and_lowered_to_what_paths_carry() {
    let backends = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| (address, 1, Dr));
    let table = table(&snapshot(&[&backends], &[]));
    let kernel = neighbor::Hop::Resolved;
    // Of the second nothing is known, and the fourth is no backend.
    let known = HopMap::from([
        (address(1), kernel(resolved())),
        (address(3), kernel(ResolvedHop { mtu: 1400, ..resolved() })),
        (address(4), kernel(resolved())),
    ]);
    let mut paths = PathMtus::default();
    let now = Instant::now();
    paths.heard(address(1), 1300, now);
    paths.heard(address(2), 1300, now);
    paths.heard(address(3), 1450, now);
    let hops = ways(&known, &paths).to_backends(&table);
    assert_eq!(hops.len(), 3);
    for (id, backend) in table.backends() {
        let expected = match hops[id.0 as usize] {
            Hop::Open(hop) => Some(hop.link.mtu),
            Hop::Closed(reason) => {
                assert_eq!(reason, DropReason::NeighborUnresolved);
                None
            }
        };
        let wanted = [(address(1), Some(1300)), (address(2), None), (address(3), Some(1400))];
        assert!(wanted.contains(&(backend, expected)), "{backend}: {expected:?}");
    }
}

#[test]
fn nics_are_in_the_order_of_the_configuration() {
    let link = |name: &str, last: u8, mtu: u32| neighbor::Link {
        name: name.to_owned(),
        mac: MacAddress([2, 0, 0, 0, 0, last]),
        mtu,
        up: true,
        vlan: None,
    };
    let links =
        LinkMap::from([(3, link("eth1", 3, 1500)), (7, link("eth0", 7, 9000)), (9, link("other", 9, 99))]);
    let path_mtus = &PathMtus::default();
    let nics = |ifindexes, mtu_limit| {
        Ways { hops: &HopMap::new(), links: &links, ifindexes, path_mtus, mtu_limit }.nics()
    };
    let expected =
        [(7, 9000), (3, 1500)].map(|(last, mtu)| NicLink { mac: MacAddress([2, 0, 0, 0, 0, last]), mtu });
    assert_eq!(*nics(IFINDEXES, None), expected);
    assert_eq!(nics(IFINDEXES, Some(1730))[0].mtu, 1730, "what the sockets carry");
    assert_eq!(nics(&[8], None)[0].mtu, 0, "one that is gone carries nothing");
}

#[test]
fn errors_are_heard_where_tunnels_come_from() {
    let six = OpenHop { source: Some("fd00::fe".parse().unwrap()), ..open() };
    let hops = [Hop::Open(open()), Hop::Open(six), Hop::Closed(DropReason::NoRoute)];
    let sources = |mode: Mode, prefix: bool| {
        let mut snapshot = snapshot(&[&[("10.0.0.1", 1, mode), ("fd00::1", 1, mode)]], &[]);
        snapshot.tunnel.source_v4 = prefix.then(|| "10.200.0.0/16".parse().unwrap());
        let sources = tunnel_sources(&table(&snapshot), &hops);
        sources.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(sources(Dr, true), [""; 0], "without tunnels nowhere");
    assert_eq!(sources(Ipip, false), ["10.0.0.254/32", "fd00::fe/128"]);
    assert_eq!(sources(Ipip, true), ["10.200.0.0/16", "fd00::fe/128"]);
}

#[test]
fn a_tag_needs_room_for_itself_and_the_mark() {
    let tag = VlanTag { tpid: 0x8100, id: 20 };
    let services = &[("192.0.2.1", "tcp/80", 0), ("192.0.2.2", "tcp/80", 1)];
    let mut snapshot = snapshot(&[&[("10.0.0.1", 1, Dr)], &[("10.0.0.2", 1, Ipip)]], services);
    let room = |table: &Table, vlan, mtu| {
        let hops = [Hop::Open(OpenHop { link: Link { vlan, ..open().link }, ..open() })];
        let nics = [NicLink { mac: MacAddress([2; 6]), mtu }];
        headrooms(table, &hops, &nics).into_values().collect::<Vec<_>>()
    };
    assert_eq!(room(&table(&snapshot), None, 9000), [0, 20]);
    assert_eq!(room(&table(&snapshot), Some(tag), 1500), [MIN_HEADROOM, 24]);
    // Translated replies may get their client's tag, for which a full buffer has no other room.
    snapshot.nat.sources = vec![address(250)];
    assert_eq!(room(&table(&snapshot), None, 1500), [0, 0, 20]);
    assert_eq!(room(&table(&snapshot), None, 9000), [MIN_HEADROOM, MIN_HEADROOM, 24]);
}

#[test]
fn a_nic_is_addressed_by_its_own_address_and_those_of_the_vlan_devices_on_it() {
    let link = |mac: u8, parent: Option<u32>| crate::neighbor::Link {
        name: String::new(),
        mac: MacAddress([mac; 6]),
        mtu: 1500,
        up: true,
        vlan: parent.map(|parent| crate::neighbor::Vlan { parent, tag: VlanTag { tpid: 0x8100, id: 20 } }),
    };
    let links = LinkMap::from([
        (1, link(0, None)),
        (3, link(2, None)),
        (4, link(2, Some(3))),
        (5, link(6, Some(3))),
        (6, link(8, Some(5))),
        (7, link(9, None)),
        (8, link(10, Some(7))),
        // A device that the kernel would not make.
        (20, link(11, Some(21))),
        (21, link(12, Some(20))),
    ]);
    let macs = |nic| stations(&links, nic).into_iter().map(|mac| mac.0[0]).collect::<Vec<_>>();
    assert_eq!(macs(3), [2, 6, 8]);
    assert_eq!(macs(7), [9, 10]);
    assert_eq!((macs(1), macs(99)), (vec![], vec![]), "not known");
}
