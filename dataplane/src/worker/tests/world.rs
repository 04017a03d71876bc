//! A box with clients on its first NIC and backends of every mode on its second.

use std::net::{IpAddr, SocketAddr};

use shunt_api::counters::CounterValues;
use shunt_api::counters::DropReason;
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::{Mode, Nat, PortMapping, Snapshot, Timeouts, Tunnel};

use super::super::*;
use crate::packet::ethernet::VlanTag;
use crate::port::memory::MemoryPort;
use crate::port::{Census, NicIndex};
use crate::rewrite::Link;
use crate::table::{Compiler, Hop, NicLink, OpenHop, Table};
use crate::testing::{Backends, draft, snapshot};

pub const CLIENTS: NicIndex = NicIndex(0);
pub const BACKENDS: NicIndex = NicIndex(1);
/// Of every flow, in seconds.
pub const IDLE_S: u32 = 30;

/// How the packets of a VIP get to its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Dr,
    /// In IPv4.
    Ipip4,
    /// In IPv6.
    Ipip6,
    Nat,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Dr, Self::Ipip4, Self::Ipip6, Self::Nat];

    pub fn vip(self, v6: bool) -> IpAddr {
        let host = 10 + self as u8;
        if v6 { [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)].into() } else { [203, 0, 113, host].into() }
    }

    /// Where clients send to: TCP port 80 or UDP port 53.
    pub fn service(self, v6: bool, tcp: bool) -> SocketAddr {
        (self.vip(v6), if tcp { 80 } else { 53 }).into()
    }

    /// Bytes of tunnel header.
    pub fn outer_length(self) -> usize {
        match self {
            Self::Dr | Self::Nat => 0,
            Self::Ipip4 => 20,
            Self::Ipip6 => 40,
        }
    }
}

/// Port of translated flows: TCP 30080 or UDP 30053.
pub fn target(tcp: bool) -> u16 {
    if tcp { 30_080 } else { 30_053 }
}

/// The station of a backend, by its address.
pub fn mac_of(backend: IpAddr) -> [u8; 6] {
    match backend {
        IpAddr::V4(address) => [2, 4, 0, 0, address.octets()[2], address.octets()[3]],
        IpAddr::V6(address) => [2, 6, 0, 0, address.segments()[1] as u8, address.segments()[7] as u8],
    }
}

pub fn nic_mac(nic: NicIndex) -> [u8; 6] {
    [2, 0, 0, 0, 0xff, nic.0]
}

/// How backends are reached.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    pub vlan: Option<u16>,
    pub mtu: u32,
}

pub struct World {
    pub shared: Arc<Shared>,
    compiler: Compiler,
    pub snapshot: Snapshot,
    links: Links,
}

impl World {
    /// With so many workers; `change` changes the snapshot.
    pub fn new(workers: usize, change: impl FnOnce(&mut Snapshot)) -> Self {
        let mut snapshot = every_way();
        change(&mut snapshot);
        let mut compiler = Compiler::with_seed(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let table = compiler.compile(&snapshot).unwrap();
        let links = Links { vlan: None, mtu: 1500 };
        let flows = FlowTables::with_seed(1000, 1000, &ahash::RandomState::with_seeds(5, 6, 7, 8));
        let shared = Shared::new(forwarding(table.into(), links), Arc::new(flows), workers);
        Self { shared: Arc::new(shared), compiler, snapshot, links }
    }

    /// Backends are reached another way.
    pub fn relink(&mut self, links: Links) {
        self.links = links;
        let table = self.shared.forwarding.load().table.clone();
        self.shared.forwarding.store(Arc::new(forwarding(table, links)));
    }

    /// Another configuration.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.snapshot);
        let table = self.compiler.compile(&self.snapshot).unwrap();
        self.shared.forwarding.store(Arc::new(forwarding(table.into(), self.links)));
    }

    /// A worker with 128 buffers, half of which can be on their way out.
    pub fn worker(&self, index: usize) -> TestWorker {
        self.worker_on(index, MemoryPort::new(128, 64))
    }

    pub fn worker_on(&self, index: usize, port: MemoryPort) -> TestWorker {
        TestWorker(Worker::new(port, self.shared.clone(), index, MAX_BATCH, false))
    }
}

pub struct TestWorker(pub Worker<MemoryPort>);

impl TestWorker {
    /// Lets a packet in. The world gives frames no more headroom than the steering program would, `lead` bytes.
    pub fn inject(&mut self, nic: NicIndex, lead: u8, frame: &[u8]) {
        assert!(self.0.port().inject_from(nic, &steering::lead(lead), frame), "too few buffers");
    }

    /// One batch. What leaves, and what has been counted so far; nothing may be lost.
    pub fn turn(&mut self, now: u32) -> Vec<(NicIndex, Vec<u8>)> {
        self.0.turn(Seconds(now));
        self.assert_conserved();
        let sent = self.0.port().take_transmitted();
        let Census { fill, total, .. } = self.0.port().census();
        assert_eq!(fill, total, "buffers are lost");
        sent
    }

    /// What becomes of one packet that comes in by a NIC.
    pub fn pass(&mut self, nic: NicIndex, frame: &[u8], now: u32) -> Option<(NicIndex, Vec<u8>)> {
        self.inject(nic, 0, frame);
        let mut sent = self.turn(now);
        assert!(sent.len() <= 1, "one packet in, {} out", sent.len());
        sent.pop()
    }

    /// What becomes of one packet from a client.
    pub fn client_sends(&mut self, ip: &[u8], now: u32) -> Option<(NicIndex, Vec<u8>)> {
        self.pass(CLIENTS, &draft::frame(ip, &[], 0), now)
    }

    pub fn values(&self) -> CounterValues {
        self.0.shared.stats[self.0.index].values()
    }

    /// received = transmitted + dropped, and no frame lost.
    pub fn assert_conserved(&mut self) {
        let values = self.values();
        let sent = values.counter(Counter::TxPackets);
        assert_eq!(values.counter(Counter::RxPackets), sent + values.dropped_total(), "{values:?}");
        let census = self.0.port().census();
        assert!(census.is_conserved() && census.worker == 0, "{census:?}");
    }
}

fn every_way() -> Snapshot {
    let three = |prefix: &str, mode| ["1", "2", "3"].map(|host| (format!("{prefix}{host}"), 1, mode));
    let pools = [
        three("10.0.0.", Mode::Dr),
        three("10.0.1.", Mode::Ipip),
        three("fd00:2::", Mode::Ipip),
        three("10.0.3.", Mode::Nat),
        three("fd00:4::", Mode::Nat),
    ];
    let pools =
        pools.each_ref().map(|pool| pool.each_ref().map(|(name, weight, mode)| (&**name, *weight, *mode)));
    let pools: Vec<Backends> = pools.iter().map(|pool| &pool[..]).collect();
    let families = [false, true].into_iter();
    let vips: Vec<(String, u32)> = families
        .flat_map(|v6| Way::ALL.map(|way| (way, v6)))
        .map(|(way, v6)| (way.vip(v6).to_string(), way as u32 + u32::from(way == Way::Nat && v6)))
        .collect();
    let services: Vec<(&str, &str, u32)> =
        vips.iter().flat_map(|(vip, pool)| [(&**vip, "tcp/80", *pool), (&**vip, "udp/53", *pool)]).collect();
    let mut snapshot = snapshot(&pools, &services);
    for service in &mut snapshot.services {
        let PortMapping { port, target } = &mut service.ports[0];
        *target = Some(self::target(port.port == 80));
    }
    let sources = ["10.0.9.1", "10.0.9.2", "fd00:9::1"].map(|source| source.parse().unwrap());
    Snapshot {
        nat: Nat { sources: sources.into(), max_flows_v4: 1000, max_flows_v6: 1000 },
        tunnel: Tunnel {
            source_v4: Some("10.200.0.0/16".parse().unwrap()),
            source_v6: Some("fd00:200::/64".parse().unwrap()),
            fragment: false,
        },
        timeouts: Timeouts {
            unconfirmed_s: IDLE_S,
            tcp_established_s: IDLE_S,
            tcp_fin_s: IDLE_S,
            tcp_reset_s: IDLE_S,
            udp_s: IDLE_S,
        },
        ..snapshot
    }
}

fn forwarding(table: Arc<Table>, links: Links) -> Forwarding {
    let mut hops = vec![Hop::Closed(DropReason::NoRoute); table.backend_limit()];
    for (id, address) in table.backends() {
        let own: IpAddr =
            if address.is_ipv4() { [10, 0, 0, 254].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, 0xfe].into() };
        hops[id.0 as usize] = Hop::Open(OpenHop {
            nic: BACKENDS,
            link: Link {
                destination: MacAddress(mac_of(address)),
                source: MacAddress(nic_mac(BACKENDS)),
                vlan: links.vlan.map(|id| VlanTag { tpid: 0x8100, id }),
                mtu: links.mtu,
            },
            on_link: true,
            source: Some(own),
        });
    }
    let nics = [CLIENTS, BACKENDS].map(|nic| NicLink { mac: MacAddress(nic_mac(nic)), mtu: links.mtu });
    Forwarding::new(1, table, hops.into(), nics.into())
}
