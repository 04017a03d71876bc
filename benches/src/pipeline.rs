//! What a worker spends on a packet: whole batches through [`Worker::turn`] on a port in memory, established
//! flows, one thread. Putting frames in and taking them out is not timed. The floor is the same port with a
//! loop that only swaps MAC addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shunt_api::mac::MacAddress;
use shunt_api::snapshot::{
    Backend, DataplaneSettings, FleetKey, Mode, Nat, Pool, Protocol, Rings, Service, ServicePort, Snapshot,
    Timeouts, Tunnel, UnlistedPorts,
};
use shunt_dataplane::conntrack::Seconds;
use shunt_dataplane::forward::FlowTables;
use shunt_dataplane::packet::{checksum, steering};
use shunt_dataplane::port::memory::MemoryPort;
use shunt_dataplane::port::{NicIndex, Port};
use shunt_dataplane::rewrite::Link;
use shunt_dataplane::table::{Compiler, Forwarding, Hop, OpenHop};
use shunt_dataplane::worker::{Shared, Worker};

use crate::Spread;

const BATCH: usize = 64;
const FLOWS: usize = 1024;
const PACKETS: usize = 200_000;
const RUNS: usize = 9;

pub fn run() {
    println!(
        "Pipeline, {FLOWS} established flows, batches of {BATCH} (ns a packet, {RUNS} runs of {PACKETS} packets)\n"
    );
    println!("{:<22} {:>8} {:>8} {:>8}", "", "least", "median", "most");
    row("floor: MAC swap", || floor(&frames(false)));
    for (name, mode, v6) in [
        ("dr, IPv4", Mode::Dr, false),
        ("dr, IPv6", Mode::Dr, true),
        ("ipip, IPv4 in IPv4", Mode::Ipip, false),
        ("ipip, IPv6 in IPv4", Mode::Ipip, true),
    ] {
        row(name, || pipeline(mode, &frames(v6)));
    }
}

fn row(name: &str, once: impl Fn() -> f64) {
    let Spread { least, median, most } = Spread::of((0..RUNS).map(|_| once()).collect());
    println!("{name:<22} {least:>8.1} {median:>8.1} {most:>8.1}");
}

/// Nanoseconds a packet of receive, MAC swap, transmit.
fn floor(frames: &[Vec<u8>]) -> f64 {
    let mut port = MemoryPort::new(2 * BATCH, BATCH);
    let mut taken = Vec::with_capacity(BATCH);
    per_packet(frames, |batch| {
        batch.iter().for_each(|frame| assert!(port.inject(&[], frame)));
        let start = Instant::now();
        port.receive(&mut taken, BATCH);
        for frame in taken.drain(..) {
            let range = frame.range();
            let (destination, source) = port.buffer(&frame)[range][..12].split_at_mut(6);
            destination.swap_with_slice(source);
            port.transmit(NicIndex(0), frame).expect("room for a batch");
        }
        port.flush();
        let elapsed = start.elapsed();
        port.drain(|_, _| ());
        elapsed
    })
}

/// Nanoseconds a packet of a worker's whole round.
fn pipeline(mode: Mode, frames: &[Vec<u8>]) -> f64 {
    let table = Arc::new(Compiler::default().compile(&snapshot(mode)).expect("a valid snapshot"));
    let hops = vec![hop(); table.backend_limit()].into_boxed_slice();
    let flows = Arc::new(FlowTables::new(100_000, 100_000));
    let shared = Arc::new(Shared::new(Forwarding::new(1, table, hops, Box::default()), flows, 1));
    let mut worker = Worker::new(MemoryPort::new(2 * BATCH, BATCH), shared, 0, BATCH, false);
    let lead = steering::lead(if mode == Mode::Ipip { 20 } else { 0 });
    let mut round = |batch: &[Vec<u8>]| {
        batch.iter().for_each(|frame| assert!(worker.port().inject(&lead, frame)));
        let start = Instant::now();
        assert_eq!(worker.turn(Seconds(1)), batch.len());
        let elapsed = start.elapsed();
        let mut sent = 0;
        worker.port().drain(|_, _| sent += 1);
        assert_eq!(sent, batch.len(), "all are forwarded");
        elapsed
    };
    // Twice through all flows confirms them.
    frames.chunks(BATCH).chain(frames.chunks(BATCH)).for_each(|batch| assert!(round(batch) > Duration::ZERO));
    per_packet(frames, round)
}

fn per_packet(frames: &[Vec<u8>], mut round: impl FnMut(&[Vec<u8>]) -> Duration) -> f64 {
    let mut total = Duration::ZERO;
    for batch in frames.chunks(BATCH).cycle().take(PACKETS / BATCH) {
        total += round(batch);
    }
    total.as_nanos() as f64 / (PACKETS / BATCH * BATCH) as f64
}

fn hop() -> Hop {
    let (destination, source) = (MacAddress([2, 0, 0, 0, 0, 2]), MacAddress([2, 0, 0, 0, 0, 1]));
    let own = Some(IpAddr::from([10, 0, 0, 1]));
    Hop::Open(OpenHop {
        nic: NicIndex(0),
        link: Link { destination, source, vlan: None, mtu: 1500 },
        on_link: true,
        source: own,
    })
}

fn snapshot(mode: Mode) -> Snapshot {
    let backend = |i: u8| Backend { name: format!("b{i}"), address: [10, 0, 1, i].into(), weight: 1, mode };
    Snapshot {
        generation: 1,
        fleet_key: FleetKey([7; 16]),
        maglev_size: 65537,
        nics: vec![],
        dataplane: DataplaneSettings {
            cores: vec![],
            busy_poll: false,
            batch: BATCH as u32,
            ring_size: 64,
            rings: Rings::Own,
            max_flows_v4: 100_000,
            max_flows_v6: 100_000,
        },
        timeouts: Timeouts {
            unconfirmed_s: 30,
            tcp_established_s: 900,
            tcp_fin_s: 120,
            tcp_reset_s: 10,
            udp_s: 300,
        },
        tunnel: Tunnel { source_v4: "10.200.0.0/16".parse().ok(), ..Tunnel::default() },
        nat: Nat::default(),
        reply_rate: 1000,
        pools: vec![Pool { name: "pool".to_owned(), backends: (1..=100).map(backend).collect() }],
        services: vec![Service {
            name: "service".to_owned(),
            vips: vec![[203, 0, 113, 10].into(), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10])],
            ports: vec![ServicePort { protocol: Protocol::Udp, port: 53 }.into()],
            pool: 0,
            source_ranges: vec![],
            client_ip_affinity_s: None,
            unlisted_ports: UnlistedPorts::Reject,
        }],
    }
}

/// 64-byte UDP frames (IPv6: 62 bytes and an empty payload), one for each flow.
fn frames(v6: bool) -> Vec<Vec<u8>> {
    (0..FLOWS as u16).map(|flow| if v6 { frame_v6(flow) } else { frame_v4(flow) }).collect()
}

fn frame_v4(flow: u16) -> Vec<u8> {
    let [high, low] = flow.to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0];
    let mut ip = [0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 203, 0, 113, 10];
    let sum = checksum::of(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend([0x80 | high, low, 0, 53, 0, 30, 0, 0]);
    frame.resize(64, 0);
    frame
}

fn frame_v6(flow: u16) -> Vec<u8> {
    let [high, low] = flow.to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
    frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
    frame.extend([0x80 | high, low, 0, 53, 0, 8, 0, 0]);
    frame
}
