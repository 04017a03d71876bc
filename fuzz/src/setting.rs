//! The addresses, services and next hops that the worker target plays with, and how an input varies them.

use std::net::IpAddr;

use shunt_api::counters::DropReason;
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::{
    Backend, DataplaneSettings, FleetKey, Mode, Nat, Pool, Rings, Service, Snapshot, Timeouts, Tunnel,
    UnlistedPorts,
};
use shunt_dataplane::packet::ethernet::VlanTag;
use shunt_dataplane::port::NicIndex;
use shunt_dataplane::rewrite::Link;
use shunt_dataplane::table::{Hop, NicLink, OpenHop, Table};

use crate::frames::End;

/// NICs that there are; frames say that they came in by one more.
pub const NICS: usize = 2;

const CLIENTS: [&str; 8] = [
    "192.0.2.1",
    "192.0.2.2",
    "198.51.100.7",
    "10.0.0.1",
    "127.0.0.1",
    "224.0.0.1",
    "203.0.113.1",
    "255.255.255.255",
];
const CLIENTS_V6: [&str; 8] =
    ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::7", "fd00::1", "::1", "ff02::1", "2001:db8::1", "::"];
const SERVERS: [&str; 12] = [
    "203.0.113.1",
    "203.0.113.2",
    "203.0.113.3",
    "203.0.113.4",
    "203.0.113.5",
    "203.0.113.6",
    "10.0.9.1",
    "10.0.9.2",
    "10.0.1.1",
    "10.200.0.7",
    "192.0.2.99",
    "10.0.2.1",
];
const SERVERS_V6: [&str; 12] = [
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8::3",
    "2001:db8::4",
    "2001:db8::5",
    "2001:db8::6",
    "fd00:9::1",
    "fd00:9::2",
    "fd00:1::1",
    "fd00:200::7",
    "2001:db8:99::1",
    "fd00:2::1",
];
const PORTS: [u16; 8] = [80, 53, 443, 8080, 81, 1024, 65535, 0];

/// Pools in the order of their services' VIPs: addresses, and modes of IPv4 and IPv6 VIPs' services.
const POOLS: [(&str, &[(&str, Mode)]); 7] = [
    ("dr", &[("10.0.0.1", Mode::Dr), ("10.0.0.2", Mode::Dr), ("fd00::1", Mode::Dr)]),
    ("ipip", &[("10.0.1.1", Mode::Ipip), ("10.0.1.2", Mode::Ipip)]),
    ("ipip6", &[("fd00:1::1", Mode::Ipip)]),
    ("nat", &[("10.0.2.1", Mode::Nat), ("10.0.2.2", Mode::Nat)]),
    ("mixed", &[("10.0.0.1", Mode::Dr), ("10.0.1.1", Mode::Ipip), ("fd00:1::1", Mode::Ipip)]),
    ("empty", &[]),
    ("nat6", &[("fd00:2::1", Mode::Nat), ("fd00:2::2", Mode::Nat)]),
];
/// The place of `nat6`, which serves the IPv6 VIP of the service that `nat` serves.
const NAT: usize = 3;
const NAT_V6: usize = 6;

fn address(text: &str) -> IpAddr {
    text.parse().expect("addresses here are valid")
}

/// A client's end by one byte.
pub fn client(byte: u8, v6: bool) -> End {
    let list = if v6 { CLIENTS_V6 } else { CLIENTS };
    (address(list[usize::from(byte & 7)]), 40_000 + u16::from(byte >> 3))
}

/// A destination by one byte.
pub fn server(byte: u8, v6: bool) -> End {
    let list = if v6 { SERVERS_V6 } else { SERVERS };
    (address(list[usize::from(byte & 0x1f) % list.len()]), PORTS[usize::from(byte >> 5)])
}

/// Who complains about packets.
pub fn router(v6: bool) -> IpAddr {
    address(if v6 { "2001:db8:ee::1" } else { "192.0.2.254" })
}

/// Ethernet address of a backend's next hop.
pub fn station(backend: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, backend]
}

/// How a snapshot and its next hops differ from the plainest ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variant {
    /// Bits: first backends are missing, first backends drain, modes are others, first services are missing, other
    /// sources, tunnels are fragmented, tunnels without entropy, no answers.
    pub services: u8,
    /// What next hops are like; see [`hops`].
    pub hops: u8,
}

impl Variant {
    fn has(self, bit: u8) -> bool {
        self.services & 1 << bit != 0
    }

    /// The snapshot; not every one can be served.
    pub fn snapshot(self) -> Snapshot {
        let prefixes = !self.has(6);
        let sources: &[&str] = if self.has(4) { &["10.0.9.2"] } else { &["10.0.9.1", "fd00:9::1"] };
        Snapshot {
            generation: 1,
            fleet_key: FleetKey([7; 16]),
            maglev_size: 251,
            nics: vec![],
            dataplane: DataplaneSettings {
                cores: vec![],
                busy_poll: false,
                batch: 64,
                ring_size: 64,
                rings: Rings::Own,
                max_flows_v4: 5,
                max_flows_v6: 5,
            },
            timeouts: Timeouts {
                unconfirmed_s: 5,
                tcp_established_s: 130,
                tcp_fin_s: 10,
                tcp_reset_s: 3,
                udp_s: 70,
            },
            tunnel: Tunnel {
                source_v4: "10.200.0.0/16".parse().ok().filter(|_| prefixes),
                source_v6: "fd00:200::/64".parse().ok().filter(|_| prefixes),
                fragment: self.has(5),
            },
            nat: Nat {
                sources: sources.iter().map(|source| address(source)).collect(),
                max_flows_v4: 5,
                max_flows_v6: 5,
            },
            reply_rate: if self.has(7) { 0 } else { 3 },
            pools: POOLS.iter().map(|(name, backends)| self.pool(name, backends)).collect(),
            services: (0..NAT_V6).filter(|&i| i > 1 || !self.has(3)).flat_map(services).collect(),
            probes: vec![],
        }
    }

    fn pool(self, name: &str, backends: &[(&str, Mode)]) -> Pool {
        let backend = |(index, &(address_text, mode)): (usize, &(&str, Mode))| Backend {
            name: format!("{name}{index}"),
            address: address(address_text),
            weight: if index == 0 && self.has(1) { 0 } else { 1 + index as u16 },
            mode: match mode {
                Mode::Dr if self.has(2) => Mode::Ipip,
                Mode::Ipip | Mode::Nat if self.has(2) => Mode::Dr,
                mode => mode,
            },
        };
        let skipped = usize::from(self.has(0));
        let backends = backends.iter().enumerate().skip(skipped).map(backend).collect();
        Pool { name: name.to_owned(), backends }
    }
}

/// The service of a pool, or both services of the two pools that translate.
fn services(index: usize) -> Vec<Service> {
    let service = |vips: &[&str], pool: usize| Service {
        name: format!("{index}-{pool}"),
        vips: vips.iter().map(|vip| address(vip)).collect(),
        ports: ["tcp/80:8080", "udp/53", "udp/443"]
            .map(|port| port.to_owned().try_into().expect("a port"))
            .to_vec(),
        pool: pool as u32,
        source_ranges: match index {
            2 => vec!["192.0.2.0/24".parse().expect("a prefix"), "::/0".parse().expect("a prefix")],
            _ => vec![],
        },
        client_ip_affinity_s: (index == 4).then_some(90),
        unlisted_ports: if index == 1 { UnlistedPorts::Drop } else { UnlistedPorts::Reject },
    };
    let (v4, v6) = (SERVERS[index], SERVERS_V6[index]);
    match index {
        NAT => vec![service(&[v4], NAT), service(&[v6], NAT_V6)],
        _ => vec![service(&[v4, v6], index)],
    }
}

/// Ways to the table's backends. `how` is mixed with each identity, so that all kinds occur in most variants.
pub fn hops(table: &Table, how: u8) -> Box<[Hop]> {
    (0..table.backend_limit()).map(|id| hop(id as u8, how)).collect()
}

fn hop(id: u8, how: u8) -> Hop {
    let mixed = if how == 0 { 0 } else { how.wrapping_mul(37).wrapping_add(id.wrapping_mul(101)) };
    if mixed & 0x0f == 0x0f {
        return Hop::Closed(DropReason::NeighborUnresolved);
    }
    let tag = |tpid| Some(VlanTag { tpid, id: u16::from(id) + 100 });
    Hop::Open(OpenHop {
        nic: NicIndex(mixed >> 4 & 1),
        link: Link {
            destination: MacAddress(station(id)),
            source: MacAddress([2, 0, 0, 0, 2, mixed >> 4 & 1]),
            vlan: [None, tag(0x8100), None, tag(0x88a8)][usize::from(mixed & 3)],
            mtu: [1500, 9000, 1500, 600, 1480, 1280, 300, 65_535][usize::from(mixed >> 5)],
        },
        on_link: mixed & 0x0c != 0x0c,
        source: match mixed >> 2 & 7 {
            7 => None,
            4..=6 => Some(address("fd00:ffff::1")),
            _ => Some(address("10.255.0.1")),
        },
    })
}

/// NICs that replies to clients leave by.
pub fn nics(how: u8) -> Box<[NicLink]> {
    let mtu = if how & 1 == 0 { 1500 } else { 400 };
    [NicLink { mac: MacAddress([2, 0, 0, 0, 0, 2]), mtu }; NICS].into()
}
