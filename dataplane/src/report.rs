//! Answers to "how are you?": status, counters and the list of flows, from what the control thread holds.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use shunt_api::counters::DropReason;
use shunt_api::snapshot::{Mode, XdpMode};
use shunt_api::status::{
    DataplaneStatus, FlowTableStatus, FlowTablesStatus, NextHopStatus, NicStatus, ResolvedHop,
    SocketCounters, Stats, WorkerState, WorkerStatus,
};

use crate::control::Control;
use crate::engine::{Engine, EngineNic, EngineWorker};
use crate::neighbor;
use crate::port::NicIndex;
use crate::port::xsk;
use crate::program::AttachedMode;
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
        generation: applied.map(|applied| applied.snapshot.generation),
        generation_age_s: applied.map(|applied| applied.at.elapsed().as_secs()),
        problems: Vec::new(),
        restart_needed: applied.map(|applied| applied.restart_needed.clone()).unwrap_or_default(),
        nics: engine.map(|engine| nics(control, engine)).unwrap_or_default(),
        workers: engine.map(|engine| workers(control, engine)).unwrap_or_default(),
        flows: engine.map(|engine| flow_tables(control, engine)).unwrap_or_default(),
        next_hops: engine.map(|engine| next_hops(control, engine)).unwrap_or_default(),
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
    let status = |capacity: usize, used, size_bytes: usize| FlowTableStatus {
        capacity: capacity as u64,
        used,
        size_bytes: size_bytes as u64,
    };
    FlowTablesStatus {
        v4: status(flows.v4.capacity(), census.v4, flows.v4.size_bytes()),
        v6: status(flows.v6.capacity(), census.v6, flows.v6.size_bytes()),
    }
}

fn next_hops(control: &Control, engine: &Engine) -> Vec<NextHopStatus> {
    let forwarding = engine.forwarding();
    let gateways = control.hops.borrow();
    let next_hop = |(id, address): (crate::conntrack::BackendId, IpAddr)| {
        let hop = forwarding.hops.get(id.0 as usize).copied();
        let hop = hop.unwrap_or(Hop::Closed(DropReason::NeighborUnresolved));
        let (resolved, unresolved) = match hop {
            Hop::Open(hop) => {
                let gateway = match gateways.get(&address) {
                    Some(neighbor::Hop::Resolved(resolved)) => resolved.gateway,
                    _ => None,
                };
                let nic = engine.nics[usize::from(hop.nic.0)].configured.name.clone();
                (Some(ResolvedHop { nic, mac: hop.link.destination, gateway, mtu: hop.link.mtu }), None)
            }
            Hop::Closed(reason) => (None, Some(reason.name().to_owned())),
        };
        let flows = control.sweep.census().by_backend.get(id.0 as usize).copied().unwrap_or(0);
        NextHopStatus { address, resolved, unresolved, flows }
    };
    forwarding.table.backends().map(next_hop).collect()
}

fn problems(control: &Control, status: &DataplaneStatus) -> Vec<String> {
    let Some(applied) = &control.applied else {
        return vec![
            "no configuration yet: start shunt-controlplane, or see why it sends none with `lbctl status`"
                .to_owned(),
        ];
    };
    let mut problems = Vec::new();
    for (nic, running) in status.nics.iter().zip(control.engine.iter().flat_map(|engine| &engine.nics)) {
        if !nic.up {
            problems.push(format!("{} is gone or has no carrier; check the cable and `ip link`", nic.name));
        }
        if nic.xdp_packets.dropped_no_socket > 0 {
            let (name, lost) = (&nic.name, nic.xdp_packets.dropped_no_socket);
            problems.push(format!(
                "{lost} packets came in on queues of {name} that nobody serves; compare nic.queues with `ethtool -l {name}` and restart shunt-dataplane"
            ));
        }
        if nic.xdp == "generic" && running.configured.xdp == XdpMode::Auto {
            problems.push(format!(
                "{} runs XDP in generic mode, which is slow: its driver has no native XDP",
                nic.name
            ));
        }
    }
    for worker in &status.workers {
        if worker.state == WorkerState::Stalled {
            problems.push(format!(
                "worker {} hangs; its queues {:?} are not served",
                worker.index, worker.queues
            ));
        }
        if worker.core.is_none() {
            problems.push(format!(
                "worker {} is not pinned; check dataplane.cores against `nproc`",
                worker.index
            ));
        }
    }
    problems.extend(backend_problems(applied, status));
    problems
}

fn backend_problems(applied: &crate::control::Applied, status: &DataplaneStatus) -> Vec<String> {
    let hops: std::collections::BTreeMap<IpAddr, &NextHopStatus> =
        status.next_hops.iter().map(|hop| (hop.address, hop)).collect();
    let mut problems = Vec::new();
    for (pool, backend) in
        applied.snapshot.pools.iter().flat_map(|pool| pool.backends.iter().map(move |b| (pool, b)))
    {
        let hop = hops.get(&backend.address);
        let gateway =
            hop.and_then(|hop| hop.resolved.as_ref()).is_some_and(|resolved| resolved.gateway.is_some());
        let reason = match hop.and_then(|hop| hop.unresolved.as_deref()) {
            Some(reason) => DropReason::from_name(reason),
            None if gateway && backend.mode == Mode::Dr => Some(DropReason::BackendNotOnLink),
            None => None,
        };
        if let Some(reason) = reason {
            let (pool, name, address) = (&pool.name, &backend.name, backend.address);
            problems
                .push(format!("backend {name} ({address}) of pool {pool}: {}", reason.description().trim()));
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
