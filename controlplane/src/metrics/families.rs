//! Which metrics there are.

use std::collections::BTreeMap;

use shunt_api::counters::{Counter, DropReason};
use shunt_api::status::{
    BackendView, ClusterRole, ClusterSource, ClusterStatus, DataplaneStatus, FlowTableStatus, HealthState,
    NicStatus, ProbeView, ServiceView, Stats, WorkerState,
};

use super::Facts;
use super::page::{Family, Labels, Samples};

/// In the order in which a person would ask.
pub fn families(facts: &Facts<'_>) -> Vec<Family> {
    let mut families = of_control(facts);
    families.extend(of_services(facts));
    families.extend(of_backends(facts.backends));
    families.extend(of_clusters(facts));
    families.extend(facts.status.dataplane.iter().flat_map(of_dataplane));
    families.extend(facts.stats.into_iter().flat_map(of_workers));
    families
}

fn of_control(facts: &Facts<'_>) -> Vec<Family> {
    let status = facts.status;
    let connected = status.dataplane.is_some() && status.dataplane_problem.is_none();
    let problems =
        status.problems.len() + status.dataplane.as_ref().map_or(0, |dataplane| dataplane.problems.len());
    let mut families = vec![
        one(
            "shunt_controlplane_info",
            "The control plane's version",
            vec![("version", status.version.clone())],
            1,
        ),
        one("shunt_controlplane_uptime_seconds", "Since the control plane started", vec![], status.uptime_s),
        one(
            "shunt_dataplane_connected",
            "Whether the dataplane answers and obeys",
            vec![],
            u64::from(connected),
        ),
        one(
            "shunt_config_refused",
            "Whether the configuration file was refused and an older one is in force",
            vec![],
            u64::from(status.config_problem.is_some()),
        ),
        one(
            "shunt_generation_wanted",
            "Number of the snapshot that should be in force",
            vec![],
            status.generation,
        ),
        one(
            "shunt_generation_acknowledged",
            "Number of the snapshot that all workers forward by",
            vec![],
            status.acknowledged.unwrap_or(0),
        ),
        one("shunt_problems", "What `lbctl status` finds wrong", vec![], problems as u64),
    ];
    if let Some(checks) = &status.checks {
        families.push(counter("shunt_checks", "Health checks made", checks.made));
        families.push(counter(
            "shunt_checks_left_out",
            "Health checks left out because the box was busy",
            checks.left_out,
        ));
        families.push(counter(
            "shunt_checks_own_faults",
            "Health checks that this box could not make",
            checks.own_faults,
        ));
    }
    if let Some(l2) = &status.l2 {
        families.push(one(
            "shunt_announced_l2_addresses",
            "VIPs announced on the segment",
            vec![],
            l2.addresses as u64,
        ));
    }
    if let Some(routes) = &status.routes {
        families.push(one(
            "shunt_announced_routes",
            "VIPs with a route in the kernel's table",
            vec![],
            routes.present as u64,
        ));
    }
    families
}

fn of_services(facts: &Facts<'_>) -> Vec<Family> {
    let labels = |service: &ServiceView| -> Labels {
        vec![
            ("service", service.name.clone()),
            ("vip", service.vip.to_string()),
            ("protocol", service.port.port.protocol.to_string()),
            ("port", service.port.port.port.to_string()),
            ("pool", service.pool.clone()),
        ]
    };
    let each = |value: fn(&ServiceView) -> usize| {
        facts.services.iter().map(|service| (labels(service), value(service) as f64)).collect()
    };
    let usable = each(|service| service.backends_usable);
    let total = each(|service| service.backends_total);
    vec![
        gauges("shunt_service_backends_usable", "Backends that take new flows of the service", usable),
        gauges("shunt_service_backends", "Backends of the service's pool", total),
    ]
}

fn of_backends(backends: &[BackendView]) -> Vec<Family> {
    let labels = |backend: &BackendView| -> Labels {
        vec![
            ("pool", backend.pool.clone()),
            ("backend", backend.name.clone()),
            ("address", backend.address.to_string()),
        ]
    };
    let each = |value: &dyn Fn(&BackendView) -> Option<f64>| {
        backends.iter().filter_map(|backend| Some((labels(backend), value(backend)?))).collect()
    };
    let counted = |value: &dyn Fn(&ProbeView) -> u64| {
        let sum = |backend: &BackendView| {
            backend.health.as_ref().map(|health| health.probes.iter().map(value).sum::<u64>())
        };
        Samples::Counters(
            backends.iter().filter_map(|backend| Some((labels(backend), sum(backend)?))).collect(),
        )
    };
    // Flows are known by address, over all pools.
    let flows: BTreeMap<_, _> = backends.iter().map(|backend| (backend.address, backend.flows)).collect();
    let flows =
        flows.into_iter().map(|(address, flows)| (vec![("address", address.to_string())], flows as f64));
    let checked = |backend: &BackendView| {
        let health = backend.health.as_ref()?;
        (health.state != HealthState::Unknown).then(|| f64::from(u8::from(health.state == HealthState::Up)))
    };
    let latency = |backend: &BackendView| Some(backend.health.as_ref()?.last_latency_us? as f64 / 1e6);
    let family =
        |name: &str, help: &str, samples| Family { name: name.to_owned(), help: help.to_owned(), samples };
    vec![
        gauges(
            "shunt_backend_up",
            "What the backend's checks say; absent while they have said nothing",
            each(&checked),
        ),
        gauges(
            "shunt_backend_reachable",
            "Whether the backend takes new flows",
            each(&|backend| Some(f64::from(u8::from(backend.state == "reachable")))),
        ),
        gauges(
            "shunt_backend_weight",
            "Share of new flows; 0 drains",
            each(&|backend| Some(f64::from(backend.weight))),
        ),
        gauges(
            "shunt_backend_flows",
            "Flows in the flow table at the last sweep, by the backend's address",
            flows.collect(),
        ),
        gauges("shunt_backend_check_latency_seconds", "What the last good answer took", each(&latency)),
        family("shunt_backend_check_successes", "Checks that succeeded", counted(&|probe| probe.successes)),
        family("shunt_backend_check_failures", "Checks that failed", counted(&|probe| probe.failures)),
    ]
}

fn of_clusters(facts: &Facts<'_>) -> Vec<Family> {
    let clusters = &facts.status.clusters;
    let label = |name: &Option<String>| vec![("cluster", name.clone().unwrap_or_default())];
    let flag = |is_it: &dyn Fn(&ClusterStatus) -> bool| {
        clusters.iter().map(|cluster| (label(&cluster.name), f64::from(u8::from(is_it(cluster))))).collect()
    };
    let services = clusters.iter().filter_map(|cluster| Some((&cluster.name, cluster.services?)));
    let services = services.flat_map(|(name, counts)| {
        [("served", counts.served), ("waiting", counts.waiting), ("refused", counts.refused)].map(
            |(state, count)| {
                let mut labels = label(name);
                labels.push(("state", state.to_owned()));
                (labels, count as f64)
            },
        )
    });
    if clusters.is_empty() {
        return Vec::new();
    }
    vec![
        gauges(
            "shunt_cluster_up",
            "Whether the cluster's API server answers",
            flag(&|cluster| cluster.away.is_none() && cluster.source == ClusterSource::Live),
        ),
        gauges(
            "shunt_cluster_leader",
            "Whether this box writes to the cluster",
            flag(&|cluster| cluster.role == ClusterRole::Leader),
        ),
        gauges(
            "shunt_cluster_services",
            "Services of type LoadBalancer that are this box's to serve",
            services.collect(),
        ),
    ]
}

fn of_dataplane(status: &DataplaneStatus) -> Vec<Family> {
    let tables = [
        ("v4", Some(status.flows.v4)),
        ("v6", Some(status.flows.v6)),
        ("nat_v4", status.flows.nat_v4),
        ("nat_v6", status.flows.nat_v6),
    ];
    let tables = |value: &dyn Fn(&FlowTableStatus) -> u64| {
        let there = tables.iter().filter_map(|(name, table)| Some((name, (*table)?)));
        there.map(|(name, table)| (vec![("table", (*name).to_owned())], value(&table) as f64)).collect()
    };
    let nics = |value: &dyn Fn(&NicStatus) -> f64| {
        status.nics.iter().map(|nic| (vec![("nic", nic.name.clone())], value(nic))).collect()
    };
    let stalled = status.workers.iter().map(|worker| {
        (
            vec![("worker", worker.index.to_string())],
            f64::from(u8::from(worker.state == WorkerState::Stalled)),
        )
    });
    vec![
        one("shunt_dataplane_info", "The dataplane's version", vec![("version", status.version.clone())], 1),
        one("shunt_dataplane_uptime_seconds", "Since the dataplane started", vec![], status.uptime_s),
        one(
            "shunt_generation_age_seconds",
            "Since the snapshot in force arrived",
            vec![],
            status.generation_age_s.unwrap_or(0),
        ),
        gauges("shunt_flow_table_entries", "Entries in use at the last sweep", tables(&|table| table.used)),
        gauges("shunt_flow_table_capacity", "Entries there is room for", tables(&|table| table.capacity)),
        gauges("shunt_flow_table_bytes", "Bytes of memory", tables(&|table| table.size_bytes)),
        gauges("shunt_worker_stalled", "Whether the worker does not go round its loop", stalled.collect()),
        gauges(
            "shunt_nic_up",
            "Whether the NIC is up and has a carrier",
            nics(&|nic| f64::from(u8::from(nic.up))),
        ),
        gauges(
            "shunt_nic_zero_copy",
            "Whether all sockets of the NIC got zero-copy",
            nics(&|nic| f64::from(u8::from(nic.zero_copy))),
        ),
        nic_packets(&status.nics),
    ]
}

/// What becomes of packets before a worker sees them, and of those that the kernel does not take from one.
fn nic_packets(nics: &[NicStatus]) -> Family {
    let of_nic = |nic: &NicStatus| {
        let (xdp, sockets, name) = (nic.xdp_packets, nic.sockets, nic.name.clone());
        [
            ("redirected", xdp.redirected),
            ("passed", xdp.passed),
            ("dropped_no_socket", xdp.dropped_no_socket),
            ("dropped_no_headroom", xdp.dropped_no_headroom),
            ("dropped_bad_source_mac", xdp.dropped_bad_source_mac),
            ("dropped_rx", sockets.rx_dropped),
            ("dropped_rx_ring_full", sockets.rx_ring_full),
            ("fill_ring_empty", sockets.rx_fill_ring_empty),
            ("tx_invalid", sockets.tx_invalid),
        ]
        .map(|(fate, count)| (vec![("nic", name.clone()), ("fate", fate.to_owned())], count))
    };
    let samples = Samples::Counters(nics.iter().flat_map(of_nic).collect());
    let help = "What the steering program and the sockets did with packets, by NIC";
    Family { name: "shunt_nic_packets".into(), help: help.into(), samples }
}

/// One family for each thing that workers count, and one for what they drop.
fn of_workers(stats: &Stats) -> Vec<Family> {
    let workers = || stats.workers.iter().enumerate();
    let label = |index: usize| ("worker", index.to_string());
    let counted = Counter::ALL.iter().map(|counter| {
        let samples =
            workers().map(|(index, values)| (vec![label(index)], values.counter(*counter))).collect();
        let name = format!("shunt_worker_{}", counter.name());
        Family { name, help: counter.description().trim().to_owned(), samples: Samples::Counters(samples) }
    });
    let dropped = workers().flat_map(|(index, values)| {
        DropReason::ALL.iter().map(move |reason| {
            (vec![label(index), ("reason", reason.name().to_owned())], values.dropped(*reason))
        })
    });
    let samples = Samples::Counters(dropped.collect());
    let help = "Packets that workers dropped, by reason; docs/packets.md tells of each";
    let dropped = Family { name: "shunt_worker_dropped_packets".into(), help: help.into(), samples };
    counted.chain([dropped]).collect()
}

fn one(name: &str, help: &str, labels: Labels, value: u64) -> Family {
    gauges(name, help, vec![(labels, value as f64)])
}

fn counter(name: &str, help: &str, value: u64) -> Family {
    Family { name: name.to_owned(), help: help.to_owned(), samples: Samples::Counters(vec![(vec![], value)]) }
}

fn gauges(name: &str, help: &str, samples: Vec<(Labels, f64)>) -> Family {
    Family { name: name.to_owned(), help: help.to_owned(), samples: Samples::Gauges(samples) }
}
