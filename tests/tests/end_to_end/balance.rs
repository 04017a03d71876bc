//! Requests through direct routing and all four tunnels: all answered, client address preserved, shares by
//! weight.

use std::collections::BTreeSet;
use std::net::IpAddr;

use shunt_tests::client;
use shunt_tests::decapsulator::{Decapsulated, Decapsulator};
use shunt_tests::error::{Result, While, ensure};
use shunt_tests::settings::{Settings, is_tunnel_source, like_v4, like_v6, vips};
use shunt_tests::shares::Shares;
use shunt_tests::topology::{Arms, Shape, Topology};

use crate::stage::{ECHO_PORT, request, request_udp, start_servers, with_shunt};

const BACKENDS: usize = 8;
/// Weights of the pools with unequal ones, for their first backends.
const WEIGHTS: [u16; 3] = [1, 2, 5];
const REQUESTS: u16 = 2_000;
/// Percentage points a share may be off its weight.
const MARGIN: f64 = 3.0;
/// A service each: name, last number of its VIPs, mode, whether backends are known by IPv6, weighted.
const SERVICES: [(&str, u8, &str, bool, bool); 5] = [
    ("dr", 10, "dr", false, false),
    ("far-by-v4", 20, "ipip", false, false),
    ("far-by-v6", 30, "ipip", true, false),
    ("dr-weighted", 40, "dr", true, true),
    ("far-weighted", 50, "ipip", false, true),
];

pub fn run() -> Result<()> {
    let vips = SERVICES.iter().flat_map(|(_, number, ..)| vips(*number)).collect();
    let shape = Shape { arms: Arms::Two, queues: 1, dr: BACKENDS, far: BACKENDS, vips };
    with_shunt("balance", shape, settings, |topology, _| {
        let _servers = start_servers(topology)?;
        for (round, service) in (0..).zip(SERVICES) {
            let first_port = 10_000 + round * REQUESTS;
            one_service(topology, service, first_port)?;
        }
        tunnels_are_well_formed(topology)
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    for (name, number, mode, by_v6, weighted) in SERVICES {
        let nodes = if mode == "dr" { &topology.dr } else { &topology.far };
        let like = if by_v6 { like_v6() } else { like_v4() };
        let nodes = &nodes[..if weighted { WEIGHTS.len() } else { BACKENDS }];
        settings.serve(name, mode, nodes, like, (&vips(number), &["tcp/80", "udp/7"]));
        if weighted && let Some(pool) = settings.pools.last_mut() {
            pool.backends.iter_mut().zip(WEIGHTS).for_each(|(backend, weight)| backend.weight = weight);
        }
    }
    settings
}

fn one_service(topology: &Topology, service: (&str, u8, &str, bool, bool), first_port: u16) -> Result<()> {
    let (name, number, mode, by_v6, weighted) = service;
    let nodes = if mode == "dr" { &topology.dr } else { &topology.far };
    let weights = if weighted { WEIGHTS.to_vec() } else { vec![1; BACKENDS] };
    let weights = || nodes.iter().map(|node| node.name.as_str()).zip(weights.clone());
    let within = |shares: Shares| -> Result<()> {
        let largest = shares.follow(weights(), MARGIN)?;
        println!("   {:<20} largest deviation {largest:.1} points", "");
        Ok(())
    };
    for (vip, family) in vips(number).into_iter().zip(["4", "6"]) {
        let kind = match (mode, by_v6) {
            ("dr", _) => format!("{name} v{family}"),
            (_, false) => format!("{name} {family}in4"),
            (_, true) => format!("{name} {family}in6"),
        };
        let before = topology.decapsulated()?;
        within(request(topology, &kind, vip, REQUESTS, first_port)?)?;
        within(request_udp(topology, &format!("{kind} udp"), vip, REQUESTS, first_port)?)?;
        only_this_kind(&kind, before, topology.decapsulated()?)?;
    }
    Ok(())
}

/// The backends' tunnels saw packets of this combination and of no other.
fn only_this_kind(kind: &str, before: Decapsulated, after: Decapsulated) -> Result<()> {
    let grown = [
        ("4in4", after.four_in_four - before.four_in_four),
        ("6in4", after.six_in_four - before.six_in_four),
        ("4in6", after.four_in_six - before.four_in_six),
        ("6in6", after.six_in_six - before.six_in_six),
        ("malformed", after.malformed - before.malformed),
    ];
    for (name, packets) in grown {
        // A TCP request takes at least SYN, ACK, request and FIN; a UDP request one packet.
        let wanted = if kind.ends_with(name) { u64::from(REQUESTS) * 5 } else { 0 };
        let right = if wanted > 0 { packets >= wanted } else { packets == 0 };
        ensure(right, || format!("{kind}: the backends saw {packets} {name} packets"))?;
    }
    Ok(())
}

/// Outer sources come from the configured prefix and spread, TOS and ECN are copied, TTL starts at 64.
fn tunnels_are_well_formed(topology: &Topology) -> Result<()> {
    /// DSCP AF22 and ECT(0).
    const TOS: u8 = 0x52;
    for number in [20, 30] {
        for vip in vips(number) {
            ask_with_tos(topology, vip, TOS)?;
        }
    }
    let sources =
        topology.decapsulators.iter().map(Decapsulator::outer_sources).collect::<Result<Vec<_>>>()?;
    let sources: BTreeSet<IpAddr> = sources.into_iter().flatten().map(|(address, _)| address).collect();
    let stranger = sources.iter().find(|source| !is_tunnel_source(**source));
    ensure(stranger.is_none(), || format!("{stranger:?} is not a configured tunnel source"))?;
    ensure(sources.len() > 1_000, || format!("only {} outer sources: no entropy", sources.len()))?;

    let marks = topology.decapsulators.iter().map(Decapsulator::marks).collect::<Result<Vec<_>>>()?;
    let marks: Vec<_> = marks.into_iter().flatten().map(|(marks, _)| marks).collect();
    // The client's 64 is not touched by direct routing into the tunnel, the router takes one off the outer.
    let wrong = marks.iter().find(|m| m.outer_tos != m.inner_tos || m.outer_ttl != 63 || m.inner_ttl != 64);
    ensure(wrong.is_none(), || format!("a tunnel header is wrong: {wrong:?}"))?;
    let marked = marks.iter().filter(|marks| marks.outer_tos == TOS).count();
    ensure(marked > 0, || format!("no tunnel packet carries the TOS {TOS:#x} that was sent"))?;
    println!("   tunnels: {} outer sources, TOS and ECN copied, TTL 64", sources.len());
    Ok(())
}

fn ask_with_tos(topology: &Topology, vip: IpAddr, tos: u8) -> Result<()> {
    let source = topology.client_addresses(vip)[0];
    let asked = client::run_inside(&topology.client, || async move {
        client::ask_udp_marked((source, 0).into(), (vip, ECHO_PORT).into(), tos).await
    })?;
    asked.map(drop).to(|| format!("get an answer from {vip} to a request with TOS {tos:#x}"))
}
