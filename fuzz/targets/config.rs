//! The text that reaches the daemons: configuration files, snapshots as JSON, query strings.
//!
//! Input: a snapshot if it begins with `{`, a query if it begins with `?`, else a configuration file. Whatever is
//! accepted is served by a whole worker.

#![no_main]

use std::net::IpAddr;
use std::sync::OnceLock;

use axum::extract::Query;
use axum::http::Uri;
use libfuzzer_sys::fuzz_target;
use shunt_api::config::{Config, is_maglev_size};
use shunt_api::snapshot::{FleetKey, Protocol, Service, Snapshot};
use shunt_api::status::{ConfigProblem, FlowFilter, FlowView, Flows};
use shunt_dataplane::conntrack::Seconds;
use shunt_dataplane::control::FlowSource;
use shunt_dataplane::flows;
use shunt_dataplane::port::NicIndex;
use shunt_dataplane::table::Table;
use shunt_fuzz::setting::{self, Variant};
use shunt_fuzz::world::{Size, World};
use shunt_fuzz::{frames, inet};

/// Flows that translation is sized for here, whatever is asked: the largest tables take gigabytes.
const NAT_FLOWS_MAX: u32 = 100;
/// Slots of Maglev tables here: the largest take milliseconds to build.
const MAGLEV_SIZE: u32 = 251;
/// VIPs and ports of a service that packets are sent to.
const SAMPLES: usize = 4;
const SIZE: Size = Size { chunk: 2048, transmit_limit: 48, batch: 64 };
const FILE: &str = "shunt.toml";

fuzz_target!(|input: &[u8]| {
    match input.first() {
        Some(b'{') => snapshot(input),
        Some(b'?') => query(input),
        _ => config(input),
    }
});

fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Config::parse(text, FILE) {
        Err(problem) => stands_somewhere(&problem, text),
        Ok(config) => {
            config.warnings().iter().for_each(|warning| stands_somewhere(warning, text));
            let snapshot = shunt_api::compile::compile(&config, FleetKey([7; 16]));
            let table = accepted(&snapshot).expect("what the file may say can be served");
            serve(&snapshot, table);
        }
    }
}

/// A problem points into the text and says something.
fn stands_somewhere(problem: &ConfigProblem, text: &str) {
    let lines = text.split('\n').count();
    assert!((1..=lines).contains(&problem.line), "{problem:?}");
    assert!(problem.column > 0, "{problem:?}");
    assert!(problem.file == FILE && !problem.field.is_empty() && !problem.reason.is_empty(), "{problem:?}");
    assert!(!problem.reason.contains('\n'), "{problem:?}");
}

fn snapshot(input: &[u8]) {
    let Ok(snapshot) = serde_json::from_slice::<Snapshot>(input) else { return };
    if let Some(table) = accepted(&snapshot) {
        serve(&snapshot, table);
    }
}

/// The table of a snapshot, if it is one, made small. What is sent comes back as it was.
fn accepted(snapshot: &Snapshot) -> Option<Table> {
    let text = serde_json::to_string(snapshot).expect("a snapshot can be written");
    assert_eq!(serde_json::from_str::<Snapshot>(&text).as_ref().ok(), Some(snapshot), "{text}");
    let mut small = snapshot.clone();
    small.nat.max_flows_v4 = small.nat.max_flows_v4.min(NAT_FLOWS_MAX);
    small.nat.max_flows_v6 = small.nat.max_flows_v6.min(NAT_FLOWS_MAX);
    if is_maglev_size(small.maglev_size) {
        small.maglev_size = MAGLEV_SIZE;
    }
    let compiled = World::compiler().compile(&small);
    compiled.map_err(|error| assert!(!error.to_string().is_empty())).ok()
}

/// Sends packets of all kinds to every service.
fn serve(snapshot: &Snapshot, table: Table) {
    let owned = table.owned();
    assert!(owned.values().all(|headroom| [0, 20, 40].contains(headroom)));
    let (hops, nics) = (setting::hops(&table, 0), setting::nics(0));
    let mut world = World::new(SIZE, Seconds(1), table, hops, nics);
    for service in snapshot.services.iter().take(SAMPLES) {
        for vip in service.vips.iter().take(SAMPLES) {
            assert!(owned.contains_key(vip), "{vip}");
            visit(&mut world, service, *vip);
        }
    }
    for source in snapshot.nat.sources.iter().take(SAMPLES) {
        packets(*source, Protocol::Udp, 1024).iter().for_each(|frame| world.arrive(NicIndex(0), &[], frame));
    }
    everything_is_listed(&world);
    world.end();
}

fn visit(world: &mut World, service: &Service, vip: IpAddr) {
    for mapping in service.ports.iter().take(SAMPLES) {
        for frame in packets(vip, mapping.port.protocol, mapping.port.port) {
            world.arrive(NicIndex(0), &[], &frame);
        }
        world.turn();
        let answered = world.last().cloned();
        if let Some(last) = answered.filter(|last| last.bytes.len() > 54 && last.bytes[12..14] == [8, 0]) {
            world.arrive(NicIndex(1), &[], &frames::reversed(&last.bytes, 14, inet::HEADER_V4));
        }
        world.sleep(service.client_ip_affinity_s.unwrap_or(1).min(1 << 19));
    }
}

/// First, second and last packet of a client, one to the port after, and an echo request.
fn packets(vip: IpAddr, protocol: Protocol, port: u16) -> Vec<Vec<u8>> {
    let source = setting::client(0, vip.is_ipv6()).0;
    let number = if protocol == Protocol::Tcp { inet::TCP } else { inet::UDP };
    let icmp = if vip.is_ipv6() { inet::ICMP6 } else { inet::ICMP };
    let header = |protocol| frames::Ip {
        source,
        destination: vip,
        protocol,
        fragment: None,
        dont_fragment: true,
        extras: 0,
    };
    let segment =
        |port, flags| frames::packet(&header(number), &frames::segment(number, 40_000, port, flags, 9));
    let next = port.wrapping_add(1);
    let mut packets: Vec<_> = [2, 16, 17, 4, 2].into_iter().map(|flags| segment(port, flags)).collect();
    packets.push(segment(next, 2));
    packets.push(frames::packet(&header(icmp), &[if vip.is_ipv6() { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1]));
    let router = setting::router(vip.is_ipv6());
    packets.push(frames::error_about(
        &frames::packet(
            &frames::Ip { source: vip, destination: source, ..header(number) },
            &frames::segment(number, port, 40_000, 16, 0),
        ),
        router,
        0x20ff,
    ));
    packets.iter().map(|ip| frames::ethernet([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 9], &[], ip)).collect()
}

fn listed(world: &World, filter: &FlowFilter) -> Flows {
    let (shared, now) = (world.shared().clone(), world.now());
    let forwarding = shared.forwarding.load_full();
    flows::list(&FlowSource { shared, forwarding, now }, filter)
}

fn everything_is_listed(world: &World) {
    let flows = listed(world, &FlowFilter::default());
    let text = serde_json::to_string(&flows).expect("flows can be written");
    assert_eq!(serde_json::from_str::<Flows>(&text).ok(), Some(flows), "{text}");
}

/// A filter chooses what it says of the flows of a world that stays the same.
fn query(input: &[u8]) {
    static FLOWS: OnceLock<World> = OnceLock::new();
    let Ok(uri) = Uri::try_from([b"/v1/flows", input].concat()) else { return };
    let Ok(Query(filter)) = Query::<FlowFilter>::try_from_uri(&uri) else { return };
    let world = FLOWS.get_or_init(with_flows);
    let all = listed(world, &FlowFilter::default()).flows;
    let wanted = all.iter().filter(|flow| matches(&filter, flow)).count();
    let chosen = listed(world, &filter);
    let limit = filter.limit.unwrap_or(1000);
    assert_eq!(chosen.flows.len(), wanted.min(limit), "{filter:?}");
    assert_eq!(chosen.truncated, wanted > limit, "{filter:?}");
    assert!(chosen.flows.iter().all(|flow| matches(&filter, flow)), "{filter:?}");
}

fn matches(filter: &FlowFilter, flow: &FlowView) -> bool {
    let same = |is: bool, asked: bool| is || !asked;
    same(filter.client == Some(flow.client), filter.client.is_some())
        && same(filter.vip == Some(flow.vip), filter.vip.is_some())
        && same(filter.port == Some(flow.port.port), filter.port.is_some())
        && same(filter.protocol == Some(flow.port.protocol), filter.protocol.is_some())
        && same(filter.backend == flow.backend, filter.backend.is_some())
}

/// A world in which clients of both families talk to every service.
fn with_flows() -> World {
    let snapshot = Variant::default().snapshot();
    let table = World::compiler().compile(&snapshot).expect("the plainest variant can be served");
    let (hops, nics) = (setting::hops(&table, 0), setting::nics(0));
    let mut world = World::new(SIZE, Seconds(1), table, hops, nics);
    for service in &snapshot.services {
        for vip in &service.vips {
            packets(*vip, Protocol::Udp, 53).iter().for_each(|frame| world.arrive(NicIndex(0), &[], frame));
        }
    }
    world.turn();
    assert!(listed(&world, &FlowFilter::default()).flows.len() > 4);
    world
}
