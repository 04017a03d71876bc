//! Small worlds for unit tests: snapshots, tables and frames.

pub mod draft;
pub mod oracle;

use std::net::IpAddr;

use etherparse::PacketBuilder;
use shunt_api::snapshot::*;

use crate::conntrack::Seconds;
use crate::forward::{Context, Decision, FlowTables, decide};
use crate::packet::{self, Packet};
use crate::port::NicIndex;
use crate::table::{Compiler, Table};

/// A pool's backends as `(address, weight, mode)`.
pub type Backends<'a> = &'a [(&'a str, u16, Mode)];

/// A snapshot with one pool per entry and services `(vip, port, pool)`.
pub fn snapshot(pools: &[Backends], services: &[(&str, &str, u32)]) -> Snapshot {
    let backend = |&(address, weight, mode): &(&str, u16, Mode)| Backend {
        name: address.to_owned(),
        address: address.parse().unwrap(),
        weight,
        mode,
    };
    Snapshot {
        generation: 1,
        fleet_key: FleetKey([7; 16]),
        maglev_size: 1009,
        nics: vec![],
        dataplane: DataplaneSettings::default(),
        timeouts: Timeouts::default(),
        tunnel: Tunnel::default(),
        nat: Nat::default(),
        reply_rate: 1000,
        pools: pools
            .iter()
            .enumerate()
            .map(|(i, backends)| Pool {
                name: format!("p{i}"),
                backends: backends.iter().map(backend).collect(),
            })
            .collect(),
        services: services
            .iter()
            .map(|&(vip, port, pool)| Service {
                name: format!("{vip} {port}"),
                vips: vec![vip.parse().unwrap()],
                ports: vec![port.to_owned().try_into().unwrap()],
                pool,
                source_ranges: vec![],
                client_ip_affinity_s: None,
                unlisted_ports: UnlistedPorts::Reject,
            })
            .collect(),
        probes: Vec::new(),
    }
}

/// The table of a snapshot, by a compiler of its own.
pub fn table(snapshot: &Snapshot) -> Table {
    Compiler::default().compile(snapshot).unwrap()
}

/// A TCP frame of either family with these flags.
pub fn tcp(client: &str, client_port: u16, vip: &str, port: u16, flags: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match (client.parse().unwrap(), vip.parse().unwrap()) {
        (IpAddr::V4(client), IpAddr::V4(vip)) => ethernet.ipv4(client.octets(), vip.octets(), 64),
        (IpAddr::V6(client), IpAddr::V6(vip)) => ethernet.ipv6(client.octets(), vip.octets(), 64),
        mixed => panic!("{mixed:?}"),
    };
    ip.tcp(client_port, port, 1, 1024).write(&mut frame, b"").unwrap();
    let flags_at = frame.len() - 20 + 13;
    frame[flags_at] = flags;
    frame
}

/// A UDP frame over IPv4.
pub fn udp(client: [u8; 4], client_port: u16, vip: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    ethernet.ipv4(client, vip, 64).udp(client_port, port).write(&mut frame, b"query").unwrap();
    frame
}

/// The frame, parsed.
pub fn parsed(frame: &[u8]) -> Packet {
    packet::parse(frame, frame.len()).unwrap()
}

/// The decision on a packet that came in by the first NIC.
pub fn decided(packet: &Packet, table: &Table, flows: &FlowTables, now: Seconds) -> Decision {
    decide(packet, Context { table, flows, nic: NicIndex(0), now })
}
