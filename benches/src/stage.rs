//! A worker on a port in memory, whose packets tell where they went: the MAC address of each backend holds its IP
//! address. Configured as by an operator, so that what is built is what a dataplane builds.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use shunt_api::compile::compile;
use shunt_api::config::Config;
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::{FleetKey, Protocol, Snapshot};
use shunt_dataplane::conntrack::Seconds;
use shunt_dataplane::flow::{FlowKey, FlowKey4};
use shunt_dataplane::forward::FlowTables;
use shunt_dataplane::neighbor::{Hop, HopMap, Link, LinkMap, ResolvedHop};
use shunt_dataplane::packet::checksum;
use shunt_dataplane::path_mtu::PathMtus;
use shunt_dataplane::port::memory::MemoryPort;
use shunt_dataplane::stats::WorkerStats;
use shunt_dataplane::table::{Forwarding, Table};
use shunt_dataplane::ways::Ways;
use shunt_dataplane::worker::{Shared, Worker};
use shunt_tests::error::{Error, Result};

/// Packets that a worker takes at once, as by default.
pub const BATCH: usize = 64;
/// Packets between two looks at the clock: some batches, so that looking costs nothing.
pub const ROUND: usize = 4 * BATCH;

/// TCP flags.
pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

const BOX_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const NIC: u32 = 1;
const MTU: u32 = 1500;

/// The snapshot of a configuration file with this text.
pub fn snapshot(text: &str) -> Result<Snapshot> {
    let config = Config::parse(text, "shunt.toml").map_err(|problem| Error::Wrong(problem.to_string()))?;
    Ok(compile(&config, FleetKey([7; 16])))
}

/// The network as the kernel would tell of it: backends are on the segment of the only NIC.
pub struct Network {
    hops: HopMap,
    links: LinkMap,
    path_mtus: PathMtus,
}

impl Network {
    /// With all backends of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let backends = snapshot.pools.iter().flat_map(|pool| &pool.backends);
        let link = Link { name: "eth1".to_owned(), mac: BOX_MAC, mtu: MTU, up: true, vlan: None };
        Self {
            hops: backends.map(|backend| (backend.address, hop(backend.address))).collect(),
            links: LinkMap::from([(NIC, link)]),
            path_mtus: PathMtus::default(),
        }
    }

    /// What workers forward by.
    pub fn forwarding(&self, sequence: u64, table: Arc<Table>) -> Forwarding {
        let Self { hops, links, path_mtus } = self;
        let ways = Ways { hops, links, ifindexes: &[NIC], path_mtus, mtu_limit: None };
        let (hops, nics) = (ways.to_backends(&table), ways.nics());
        Forwarding::new(sequence, table, hops, nics)
    }
}

fn hop(backend: IpAddr) -> Hop {
    let IpAddr::V4(address) = backend else { unreachable!("backends here are of IPv4") };
    let [a, b, c, d] = address.octets();
    Hop::Resolved(ResolvedHop {
        ifindex: NIC,
        vlan: None,
        source_mac: BOX_MAC,
        destination_mac: MacAddress([2, 1, a, b, c, d]),
        gateway: None,
        source_address: Some([10, 255, 255, 254].into()),
        mtu: MTU,
    })
}

/// A client's connection to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client's address.
    pub client: u32,
    /// The client's port.
    pub client_port: u16,
    /// The service's address.
    pub vip: [u8; 4],
    /// The service's port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl Flow {
    /// As the flow table knows it.
    pub fn key(&self) -> FlowKey {
        FlowKey::V4(FlowKey4 {
            client: Ipv4Addr::from_bits(self.client),
            vip: self.vip.into(),
            client_port: self.client_port,
            port: self.port,
            protocol: self.protocol,
        })
    }

    /// A packet of it: 60 bytes, the least that Ethernet carries. UDP has no flags.
    pub fn packet(&self, tcp_flags: u8) -> [u8; 60] {
        let mut bytes = [0; 60];
        bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]);
        let number = if self.protocol == Protocol::Tcp { 6 } else { 17 };
        bytes[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, number]);
        bytes[26..30].copy_from_slice(&self.client.to_be_bytes());
        bytes[30..34].copy_from_slice(&self.vip);
        let sum = checksum::of(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        bytes[34..36].copy_from_slice(&self.client_port.to_be_bytes());
        bytes[36..38].copy_from_slice(&self.port.to_be_bytes());
        match self.protocol {
            Protocol::Tcp => bytes[46..48].copy_from_slice(&[5 << 4, tcp_flags]),
            Protocol::Udp => bytes[39] = 20,
        }
        bytes
    }
}

/// A packet that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The client's address.
    pub client: u32,
    /// The client's port.
    pub client_port: u16,
    /// Where it went.
    pub backend: Ipv4Addr,
}

impl Sent {
    fn read(frame: &[u8]) -> Self {
        let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let client_port = u16::from_be_bytes([frame[34], frame[35]]);
        Self { client: word(26), client_port, backend: Ipv4Addr::from_bits(word(2)) }
    }
}

/// The worker.
pub struct Stage {
    worker: Worker<MemoryPort>,
    /// What it shares with the control thread.
    pub shared: Arc<Shared>,
}

impl Stage {
    /// Begins with this view and with empty tables for as many IPv4 flows, whose places are the same in every run.
    pub fn new(forwarding: Forwarding, flows: usize) -> Self {
        let flows = FlowTables::with_seed(flows, 1, &RandomState::with_seeds(1, 2, 3, 4));
        let shared = Arc::new(Shared::new(forwarding, Arc::new(flows), 1));
        let worker = Worker::new(MemoryPort::new(2 * ROUND, ROUND), shared.clone(), 0, BATCH, false);
        Self { worker, shared }
    }

    /// The worker's counters.
    pub fn stats(&self) -> &WorkerStats {
        &self.shared.stats[0]
    }

    /// Lets the worker take a round of packets, of [`ROUND`] at most. Returns the time that it took for them;
    /// putting them in and taking them out is not counted.
    pub fn round(&mut self, packets: impl Iterator<Item = [u8; 60]>, now: Seconds) -> Duration {
        let mut injected = 0;
        for packet in packets {
            assert!(self.worker.port().inject(&[], &packet), "a round fits the port");
            injected += 1;
        }
        let start = Instant::now();
        let mut received = 0;
        while received < injected {
            received += self.worker.turn(now);
        }
        start.elapsed()
    }

    /// Takes out what left. Returns how many packets that were.
    pub fn drain(&mut self, mut each: impl FnMut(Sent)) -> usize {
        let mut sent = 0;
        self.worker.port().drain(|_, frame| {
            each(Sent::read(frame));
            sent += 1;
        });
        sent
    }
}

/// Numbers in no order, the same in every run (xorshift64, Marsaglia 2003).
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of 0 to `limit` - 1.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_arrives_where_its_mac_address_says() {
        let text = r#"
            nic = [{ name = "eth1" }]
            pools.a.backends = [{ name = "a", address = "10.1.2.3" }]
            service = [{ name = "s", vip = "203.0.113.10", ports = ["tcp/80", "udp/53"], pool = "a" }]
        "#;
        let snapshot = snapshot(text).unwrap();
        let table = shunt_dataplane::table::Compiler::default().compile(&snapshot).unwrap();
        let mut stage = Stage::new(Network::of(&snapshot).forwarding(1, Arc::new(table)), 100);
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
            let flow =
                Flow { client: 0x0b00_0001, client_port: 4000, vip: [203, 0, 113, 10], port, protocol };
            stage.round([flow.packet(SYN)].into_iter(), Seconds(1));
            let mut sent = vec![];
            assert_eq!(stage.drain(|packet| sent.push(packet)), 1);
            let backend = [10, 1, 2, 3].into();
            assert_eq!(sent, [Sent { client: flow.client, client_port: 4000, backend }]);
        }
    }

    #[test]
    fn random_numbers_reach_all_that_they_may() {
        let mut random = Random::new(1);
        let mut seen = [0; 10];
        (0..1000).for_each(|_| seen[random.below(10)] += 1);
        assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
    }
}
