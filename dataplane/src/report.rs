//! Answers to "how are you?": status, counters and the list of flows, from what the control thread holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use shunt_api::counters::DropReason;
use shunt_api::snapshot::{Backend, Nic, Service, Snapshot, XdpMode};
use shunt_api::status::{
    DataplaneStatus, FlowTableStatus, FlowTablesStatus, NextHopStatus, NicStatus, ResolvedHop,
    SocketCounters, Stats, WorkerState, WorkerStatus,
};

use crate::conntrack::FlowTable;
use crate::control::{Applied, Control};
use crate::engine::{self, Engine, EngineNic, EngineWorker};
use crate::huge_pages::HugePages;
use crate::neighbor::{self, LinkMap};
use crate::port::NicIndex;
use crate::port::xsk;
use crate::probe;
use crate::program::AttachedMode;
use crate::rewrite::Link;
use crate::table::Hop;

/// Most backends named in the list of problems, which a person reads.
const MAX_BACKEND_PROBLEMS: usize = 8;

/// Everything about the dataplane but its counters.
pub fn status(control: &Control) -> DataplaneStatus {
    let applied = control.applied.as_ref();
    let engine = control.engine.as_ref();
    let mut status = DataplaneStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: control.instance,
        uptime_s: u64::from(control.clock.now().0),
        generation: applied.filter(|_| engine.is_some()).map(|applied| applied.snapshot.generation),
        generation_age_s: applied.map(|applied| applied.at.elapsed().as_secs()),
        problems: Vec::new(),
        restart_needed: applied.map(|applied| applied.restart_needed.clone()).unwrap_or_default(),
        nics: engine.map(|engine| nics(control, engine)).unwrap_or_default(),
        workers: engine.map(|engine| workers(control, engine)).unwrap_or_default(),
        flows: engine.map(|engine| flow_tables(control, engine)).unwrap_or_default(),
        next_hops: engine.map(|engine| next_hops(control, engine)).unwrap_or_default(),
        probes: control.probes.counters(),
    };
    status.problems = problems(control, &status);
    status
}

/// Counters of all workers.
pub fn stats(control: &Control) -> Stats {
    let workers = control
        .engine
        .as_ref()
        .map(|engine| engine.shared.stats.iter().map(|worker| worker.values()).collect());
    Stats { workers: workers.unwrap_or_default() }
}

fn nics(control: &Control, engine: &Engine) -> Vec<NicStatus> {
    let links = control.links.borrow();
    let nic = |(index, nic): (usize, &EngineNic)| {
        let link = links.get(&nic.ifindex);
        let sockets = sockets_of(engine, NicIndex(index as u8));
        NicStatus {
            name: nic.configured.name.clone(),
            ifindex: nic.ifindex,
            mac: link.map(|link| link.mac).unwrap_or_default(),
            mtu: link.map_or(0, |link| link.mtu),
            up: link.is_some_and(|link| link.up),
            xdp: if nic.attached.mode == AttachedMode::Native { "native" } else { "generic" }.to_owned(),
            zero_copy: sockets.clone().all(|socket| socket.mode == xsk::Mode::ZeroCopy),
            multi_buffer: sockets.clone().all(|socket| socket.multi_buffer),
            rings: engine.settings.rings,
            queues: nic.queues,
            xdp_packets: control.steering.counters(&nic.configured.name).unwrap_or_default(),
            sockets: sockets.filter_map(|socket| socket.counters().ok()).fold(SocketCounters::default(), add),
        }
    };
    engine.nics.iter().enumerate().map(nic).collect()
}

fn sockets_of(engine: &Engine, nic: NicIndex) -> impl Iterator<Item = &xsk::SocketHandle> + Clone {
    engine.workers.iter().flat_map(|worker| &worker.sockets).filter(move |socket| socket.queue.nic == nic)
}

fn add(sum: SocketCounters, other: SocketCounters) -> SocketCounters {
    SocketCounters {
        rx_dropped: sum.rx_dropped + other.rx_dropped,
        rx_ring_full: sum.rx_ring_full + other.rx_ring_full,
        rx_fill_ring_empty: sum.rx_fill_ring_empty + other.rx_fill_ring_empty,
        tx_invalid: sum.tx_invalid + other.tx_invalid,
    }
}

fn workers(control: &Control, engine: &Engine) -> Vec<WorkerStatus> {
    let generation = control.applied.as_ref().map(|applied| applied.snapshot.generation);
    let sequence = engine.forwarding().sequence;
    let worker = |(index, worker): (usize, &EngineWorker)| {
        let stats = &engine.shared.stats[index];
        let waiting = stats.waiting.load(Ordering::Relaxed);
        WorkerStatus {
            index: index as u32,
            core: worker.core.map(|core| core as u32),
            state: match (control.watchdog.is_stalled(index), waiting) {
                (true, _) => WorkerState::Stalled,
                (false, true) => WorkerState::Waiting,
                (false, false) => WorkerState::Running,
            },
            generation: generation.filter(|_| stats.seen.load(Ordering::Relaxed) >= sequence),
            queues: worker
                .sockets
                .iter()
                .map(|socket| format!("{}:{}", socket.queue.name, socket.queue.queue))
                .collect(),
        }
    };
    engine.workers.iter().enumerate().map(worker).collect()
}

fn flow_tables(control: &Control, engine: &Engine) -> FlowTablesStatus {
    let (flows, census) = (&engine.shared.flows, control.sweep.census());
    let forwarding = engine.forwarding();
    let nat = forwarding.table.nat.as_ref().map(|nat| &nat.tables);
    FlowTablesStatus {
        v4: flow_table(&flows.v4, census.v4, &control.huge_pages),
        v6: flow_table(&flows.v6, census.v6, &control.huge_pages),
        nat_v4: nat.map(|nat| flow_table(&nat.v4, census.nat_v4, &control.huge_pages)),
        nat_v6: nat.map(|nat| flow_table(&nat.v6, census.nat_v6, &control.huge_pages)),
    }
}

fn flow_table<const K: usize, const V: usize>(
    table: &FlowTable<K, V>,
    used: u64,
    huge_pages: &HugePages,
) -> FlowTableStatus {
    FlowTableStatus {
        capacity: table.capacity() as u64,
        used,
        size_bytes: table.size_bytes() as u64,
        huge_page_bytes: huge_pages.bytes_in(&table.addresses()) as u64,
    }
}

/// Of backends, then of probes to other addresses.
fn next_hops(control: &Control, engine: &Engine) -> Vec<NextHopStatus> {
    let forwarding = engine.forwarding();
    let flows = &control.sweep.census().by_backend;
    let of_backend = |(id, address): (crate::conntrack::BackendId, IpAddr)| {
        let hop = forwarding.hops.get(id.0 as usize).copied();
        let hop = hop.unwrap_or(Hop::Closed(DropReason::NeighborUnresolved));
        next_hop(control, engine, address, hop, flows.get(id.0 as usize).copied().unwrap_or(0))
    };
    let mut next_hops: Vec<_> = forwarding.table.backends().map(of_backend).collect();
    let backends: BTreeSet<IpAddr> = forwarding.table.backends().map(|(_, address)| address).collect();
    let others = control.probes.hops().iter().filter(|(address, _)| !backends.contains(address));
    next_hops.extend(others.map(|(address, hop)| next_hop(control, engine, *address, *hop, 0)));
    next_hops
}

fn next_hop(control: &Control, engine: &Engine, address: IpAddr, hop: Hop, flows: u64) -> NextHopStatus {
    let (resolved, unresolved) = match hop {
        Hop::Open(hop) => {
            let nic = &engine.nics[usize::from(hop.nic.0)].configured.name;
            (Some(resolved(nic, &hop.link, control.hops.borrow().get(&address))), None)
        }
        Hop::Closed(reason) => (None, Some(reason.name().to_owned())),
    };
    NextHopStatus { address, resolved, unresolved, flows }
}

/// A way that is open, by the name of its NIC and what is known of the backend.
pub fn resolved(nic: &str, link: &Link, hop: Option<&neighbor::Hop>) -> ResolvedHop {
    let gateway = match hop {
        Some(neighbor::Hop::Resolved(resolved)) => resolved.gateway,
        _ => None,
    };
    let vlan = link.vlan.map(|tag| tag.id);
    ResolvedHop { nic: nic.to_owned(), vlan, mac: link.destination, gateway, mtu: link.mtu }
}

type Hops<'a> = BTreeMap<IpAddr, &'a NextHopStatus>;

fn problems(control: &Control, status: &DataplaneStatus) -> Vec<String> {
    if let Some(nic) = &control.lost_nic {
        return vec![format!("{nic} is gone; forwarding starts again when `ip link show {nic}` finds it")];
    }
    let Some(applied) = &control.applied else {
        return vec![
            "the dataplane has no configuration yet; shunt-controlplane sends one once it has a valid file"
                .to_owned(),
        ];
    };
    let mut problems = Vec::new();
    if let Some(error) = &*control.not_following.borrow() {
        problems.push(format!("ways to the backends are not followed: {error}"));
    }
    for (nic, running) in status.nics.iter().zip(control.engine.iter().flat_map(|engine| &engine.nics)) {
        problems.extend(nic_problems(control, nic, running));
    }
    for WorkerStatus { index, queues, state, core, .. } in &status.workers {
        if *state == WorkerState::Stalled {
            problems.push(format!("worker {index} does not go round; {queues:?} are not served until it does or the dataplane restarts"));
        }
        if core.is_none() {
            problems.push(format!(
                "worker {index} is not pinned to a core; compare dataplane.cores with `nproc`"
            ));
        }
    }
    if control.losses.are_growing(NAT_EXHAUSTED, std::time::Instant::now()) {
        problems.push(
            "mode nat runs out of source ports or entries; add addresses to [nat] sources, or raise [nat] max_flows_v4 and max_flows_v6"
                .to_owned(),
        );
    }
    let hops: Hops<'_> = status.next_hops.iter().map(|hop| (hop.address, hop)).collect();
    problems.extend(service_problems(applied, &hops));
    problems.extend(backend_problems(control, applied, &hops));
    problems.extend(probe_problems(control));
    problems
}

fn probe_problems(control: &Control) -> Vec<String> {
    if control.probes.is_empty() {
        return Vec::new();
    }
    let links = control.links.borrow();
    let served =
        |ifindex: &u32| control.engine.iter().flat_map(|e| &e.nics).any(|nic| nic.ifindex == *ifindex);
    let receives = |(ifindex, link): &(&u32, &neighbor::Link)| {
        served(ifindex) || link.vlan.is_some_and(|vlan| served(&vlan.parent))
    };
    let devices = links.iter().filter(receives).map(|(_, link)| link.name.as_str());
    let strict = probe::strict_filters(devices).into_iter().map(|device| {
        format!(
            "{device} drops the answers to health checks, which come from VIPs (strict reverse-path filter); `sysctl -w net/ipv4/conf/{device}/rp_filter=2`, or 0 if no route of the box leads to the VIPs"
        )
    });
    strict.chain(control.probes.problem().map(str::to_owned)).collect()
}

fn service_problems(applied: &Applied, hops: &Hops<'_>) -> Vec<String> {
    let pools = &applied.snapshot.pools;
    let takes_new =
        |b: &Backend| b.weight > 0 && hops.get(&b.address).is_some_and(|hop| hop.obstacle(b.mode).is_none());
    let serves = |pool: usize| pools[pool].backends.iter().any(takes_new);
    let out = applied.snapshot.services.iter().filter(|service| !serves(service.pool as usize));
    let problem = |service: &Service| {
        let (name, pool) = (&service.name, &pools[service.pool as usize].name);
        format!(
            "service {name} takes no new connection: pool {pool} has no backend with a weight above 0 and an open way"
        )
    };
    out.take(MAX_BACKEND_PROBLEMS).map(problem).collect()
}

fn nic_problems(control: &Control, nic: &NicStatus, running: &EngineNic) -> Vec<String> {
    let name = &nic.name;
    let mut problems = Vec::new();
    if !nic.up {
        problems
            .push(format!("{name} has no carrier or is down; check the cable and `ip link set {name} up`"));
    }
    if let Some(limit) = control.engine.as_ref().and_then(Engine::mtu_limit).filter(|limit| nic.mtu > *limit)
    {
        problems.push(format!(
            "{name} has an MTU of {}, but only packets up to {limit} bytes pass its driver's sockets; lower it (`ip link set {name} mtu {limit}`) or try zero_copy = \"off\"",
            nic.mtu
        ));
    }
    if control.losses.are_growing(name, std::time::Instant::now()) {
        problems.push(format!(
            "packets come in on queues of {name} that nobody serves; compare nic.queues with `ethtool -l {name}` and restart shunt-dataplane"
        ));
    }
    if nic.xdp == "generic" && running.configured.xdp == XdpMode::Auto {
        problems.push(format!(
            "{name} runs XDP in generic mode, which is slow: see `nic-config show {name}` for what its driver can, or accept it with xdp = \"generic\""
        ));
    }
    problems
}

/// The name under which the growth of [`DropReason::NatExhausted`] is followed; no NIC has one with a space.
pub const NAT_EXHAUSTED: &str = "nat exhausted";

const LOOPS: &str =
    "it sends packets to VIPs back (looped); add the VIP to its lo, and never let it forward packets";

fn backend_problems(control: &Control, applied: &Applied, hops: &Hops<'_>) -> Vec<String> {
    let (known, links) = (control.hops.borrow(), control.links.borrow());
    let mut problems = Vec::new();
    for (pool, backend) in
        applied.snapshot.pools.iter().flat_map(|pool| pool.backends.iter().map(move |b| (pool, b)))
    {
        let Some(hop) = hops.get(&backend.address) else { continue };
        let obstacle = hop.obstacle(backend.mode).and_then(DropReason::from_name);
        let obstacle = obstacle
            .map(|reason| remedy(reason, backend.address, known.get(&backend.address), &links))
            .or_else(|| control.looped.contains_key(&backend.address).then(|| LOOPS.to_owned()));
        if let Some(what) = obstacle {
            problems.push(format!(
                "backend {} ({}) of pool {}: {what}",
                backend.name, backend.address, pool.name
            ));
        }
    }
    let more = problems.len().saturating_sub(MAX_BACKEND_PROBLEMS);
    problems.truncate(MAX_BACKEND_PROBLEMS);
    if more > 0 {
        problems
            .push(format!("and {more} more backends that packets cannot reach; see `lbctl get backends`"));
    }
    problems
}

fn remedy(reason: DropReason, address: IpAddr, known: Option<&neighbor::Hop>, links: &LinkMap) -> String {
    match (reason, known) {
        (DropReason::RouteElsewhere, Some(neighbor::Hop::RouteElsewhere { ifname })) => {
            elsewhere(ifname, links)
        }
        (DropReason::NoRoute, _) => format!("no route; `ip route get {address}` says why"),
        (DropReason::NeighborUnresolved, _) => {
            "its MAC address, or its router's, is not known; is it up? see `ip neigh`".to_owned()
        }
        (DropReason::BackendNotOnLink, _) => {
            "mode dr needs it on the same segment, but the route goes through a gateway; use mode = \"ipip\""
                .to_owned()
        }
        (other, _) => other.description().trim().to_owned(),
    }
}

fn elsewhere(ifname: &str, links: &LinkMap) -> String {
    let below = |link: &neighbor::Link| links.get(&link.vlan?.parent);
    let parent = links.values().find(|link| link.name == ifname).and_then(below);
    if let Some(middle) = parent.filter(|parent| parent.vlan.is_some()) {
        let middle = &middle.name;
        return format!(
            "the route leaves by {ifname}, a VLAN on the VLAN {middle}, and Shunt writes one tag only; change the route"
        );
    }
    let nic = parent.map_or(ifname, |parent| &parent.name);
    format!(
        "the route leaves by {ifname}, which Shunt does not serve; add [[nic]] name = \"{nic}\" or change the route"
    )
}

/// What of a snapshot the running engine cannot take over, in words.
pub fn restart_needed(engine: &Engine, snapshot: &Snapshot) -> Vec<String> {
    let nics = engine.nics.iter().map(|nic| &nic.configured);
    let mut differing = Vec::new();
    if let Err(error) = engine::ifindexes(&snapshot.nics) {
        differing.push(format!("[[nic]]: {error}; mend that first, a restart would fail"));
    } else if !nics.clone().eq(&snapshot.nics) {
        let names = |nics: Vec<&Nic>| nics.iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>().join(", ");
        let (runs, wants) = (names(nics.collect()), names(snapshot.nics.iter().collect()));
        differing.push(format!("[[nic]]: runs on {runs}; the configuration for {wants} differs"));
    }
    let fields = |settings| serde_json::to_value(settings).ok().and_then(|value| value.as_object().cloned());
    let (runs, wants) =
        (fields(&engine.settings).unwrap_or_default(), fields(&snapshot.dataplane).unwrap_or_default());
    for (key, value) in runs.iter().filter(|(key, value)| wants.get(*key) != Some(value)) {
        let becomes = wants.get(key).cloned().unwrap_or_default();
        differing.push(format!("dataplane.{key} is {value} and becomes {becomes}"));
    }
    differing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbor::{Link, Vlan};
    use crate::packet::ethernet::VlanTag;

    #[test]
    fn a_route_elsewhere_is_mended_by_serving_the_nic_below() {
        let link = |name: &str, parent: Option<u32>| Link {
            name: name.to_owned(),
            mac: Default::default(),
            mtu: 1500,
            up: true,
            vlan: parent.map(|parent| Vlan { parent, tag: VlanTag { tpid: 0x8100, id: 20 } }),
        };
        let links = LinkMap::from([
            (2, link("eth1", None)),
            (3, link("eth1.20", Some(2))),
            (4, link("eth1.20.30", Some(3))),
            (5, link("lone.20", Some(77))),
        ]);
        for (ifname, remedy) in [
            ("eth1", "which Shunt does not serve; add [[nic]] name = \"eth1\" or"),
            ("eth1.20", "which Shunt does not serve; add [[nic]] name = \"eth1\" or"),
            ("eth1.20.30", "a VLAN on the VLAN eth1.20, and Shunt writes one tag only;"),
            ("lone.20", "which Shunt does not serve; add [[nic]] name = \"lone.20\" or"),
            ("ifindex 9", "which Shunt does not serve; add [[nic]] name = \"ifindex 9\" or"),
        ] {
            let expected = format!("the route leaves by {ifname}, {remedy} change the route");
            assert_eq!(elsewhere(ifname, &links), expected);
        }
    }
}
