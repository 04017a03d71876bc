//! What the control plane tells of itself, read from the [`Model`]. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use shunt_api::config::{Backend, Pool, Target};
use shunt_api::status::{
    BackendHealth, BackendView, ChecksStatus, ControlStatus, DataplaneStatus, HealthState, NextHopStatus,
    ProbeView, ServiceView, TimeMs,
};

use crate::announce::Announced;
use crate::control::Model;
use crate::health::{Figures, Health, Status};
use crate::kubernetes::seen;
use crate::roster::{Standing, question};

/// Can be reached, is not down and has a weight.
const REACHABLE: &str = "reachable";
/// By its weight of 0 or by an operator: keeps its flows and gets no new ones.
const DRAINING: &str = "draining";
/// Its checks fail.
const DOWN: &str = "down";
/// The dataplane is not connected, or has not looked for the way yet.
const UNKNOWN: &str = "unknown";

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    instant: Instant,
    time: SystemTime,
}

impl Now {
    /// Reads both.
    pub fn read() -> Self {
        Self { instant: Instant::now(), time: SystemTime::now() }
    }

    fn time_of(self, instant: Instant) -> TimeMs {
        TimeMs::of(self.time - self.instant.saturating_duration_since(instant))
    }
}

/// The answer to `GET /v1/status`.
pub fn status(
    model: &Model,
    figures: &Figures,
    announced: &Announced,
    config_file: &str,
    uptime_s: u64,
) -> ControlStatus {
    let Model { state, roster, .. } = model;
    let announce = roster.config().map(|config| config.announce).unwrap_or_default();
    let pools = || roster.config().into_iter().flat_map(|config| &config.pools);
    let clusters = model.clusters();
    let of_clusters = clusters.iter().flat_map(seen::problems);
    let addresses = pools().flat_map(|pool| &pool.backends).map(|backend| backend.address);
    ControlStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s,
        config_file: config_file.into(),
        config_problem: state.config_problem().cloned(),
        generation: state.generation(),
        acknowledged: state.acknowledgement().map(|ack| ack.generation),
        dataplane_problem: state.dataplane_problem(),
        problems: roster
            .problems()
            .into_iter()
            .chain(of_clusters)
            .chain(unable(figures))
            .chain(announced.problems())
            .collect(),
        checks: (figures.checks > 0).then(|| checks(figures)),
        l2: announce.l2.map(|_| announced.l2.clone()),
        routes: announce.routes.map(|_| announced.routes.clone()),
        clusters,
        services: roster.config().map_or(0, |config| config.services.len()),
        backends: addresses.collect::<HashSet<_>>().len(),
        dataplane: state.dataplane().cloned(),
    }
}

fn unable(figures: &Figures) -> Option<String> {
    let (checks, reason) = figures.unable.as_ref()?;
    Some(format!(
        "{checks} of {} health checks cannot be made, and count for nothing: {reason}",
        figures.checks
    ))
}

fn checks(figures: &Figures) -> ChecksStatus {
    ChecksStatus {
        probes: figures.checks,
        made: figures.probes,
        left_out: figures.left_out,
        own_faults: figures.own_faults,
        late_p99: figures.lateness(0.99),
    }
}

/// The answer to `GET /v1/services`.
pub fn services(model: &Model) -> Vec<ServiceView> {
    let Some(config) = model.roster.config() else { return Vec::new() };
    let ways = Ways::new(model.state.dataplane());
    let usable = |(index, pool): (usize, &Pool)| {
        let members = pool.backends.iter().enumerate();
        let states = members.map(|(backend, value)| ways.state(value, model.roster.standing(index, backend)));
        states.filter(|state| *state == REACHABLE).count()
    };
    let usable: Vec<usize> = config.pools.iter().enumerate().map(usable).collect();
    let mut views = Vec::new();
    for service in &config.services {
        let pool = &config.pools[service.pool];
        for vip in &service.vips {
            views.extend(service.ports.iter().map(|mapping| ServiceView {
                name: service.name.clone(),
                vip: *vip,
                port: *mapping,
                pool: pool.name.clone(),
                backends_usable: usable[service.pool],
                backends_total: pool.backends.len(),
            }));
        }
    }
    views
}

/// The answer to `GET /v1/backends`, in the order of the configuration. `statuses` are those of the checks.
pub fn backends(model: &Model, statuses: &[Status], now: Now) -> Vec<BackendView> {
    let Some(config) = model.roster.config() else { return Vec::new() };
    let ways = Ways::new(model.state.dataplane());
    let statuses: HashMap<&Target, &Status> =
        statuses.iter().map(|status| (&status.watch.subject, status)).collect();
    let targets = model.roster.targets();
    let view = |&(pool, index): &(usize, usize)| {
        let (of, standing) = (&config.pools[pool], model.roster.standing(pool, index));
        let backend = &of.backends[index];
        let hop = ways.0.get(&backend.address);
        let asked = targets.get(&(pool, index)).map_or(&[][..], Vec::as_slice);
        BackendView {
            pool: of.name.clone(),
            name: backend.name.clone(),
            address: backend.address,
            mode: backend.mode,
            weight: backend.weight,
            state: ways.state(backend, standing).into(),
            health: of.check.is_some().then(|| health(standing, asked, &statuses, now)),
            next_hop: hop.and_then(|hop| hop.resolved.clone()),
            flows: hop.map_or(0, |hop| hop.flows),
        }
    };
    model.roster.places().iter().map(view).collect()
}

fn health(
    standing: &Standing,
    asked: &[&Target],
    statuses: &HashMap<&Target, &Status>,
    now: Now,
) -> BackendHealth {
    let statuses: Vec<&Status> = asked.iter().filter_map(|target| statuses.get(target).copied()).collect();
    let latency = statuses.iter().filter_map(|status| status.last_latency).max();
    BackendHealth {
        state: health_state(standing.health),
        since_ms: standing.since.map(|since| now.time_of(since)),
        reason: standing.reason.clone(),
        last_latency_us: latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
        probes: statuses.into_iter().map(probe).collect(),
    }
}

fn probe(status: &Status) -> ProbeView {
    ProbeView {
        question: question(&status.watch.subject),
        state: health_state(status.health),
        last_failure: status.last_failure.clone(),
        successes: status.successes,
        failures: status.failures,
        own_faults: status.own_faults,
    }
}

fn health_state(health: Health) -> HealthState {
    match health {
        Health::Up => HealthState::Up,
        Health::Down => HealthState::Down,
        Health::Unknown => HealthState::Unknown,
    }
}

/// The ways to backends that the dataplane knows, by address.
struct Ways<'s>(HashMap<IpAddr, &'s NextHopStatus>);

impl<'s> Ways<'s> {
    fn new(dataplane: Option<&'s DataplaneStatus>) -> Self {
        let hops = dataplane.map_or(&[][..], |status| &status.next_hops);
        Self(hops.iter().map(|hop| (hop.address, hop)).collect())
    }

    fn state(&self, backend: &Backend, standing: &Standing) -> &str {
        if standing.drained || backend.weight == 0 {
            return DRAINING;
        }
        if standing.down {
            return DOWN;
        }
        let Some(hop) = self.0.get(&backend.address) else { return UNKNOWN };
        hop.obstacle(backend.mode).unwrap_or(REACHABLE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use shunt_api::compile::compile;
    use shunt_api::config::Config;
    use shunt_api::snapshot::FleetKey;

    use super::*;
    use crate::control::Control;
    use crate::health::{Prober, Runner};
    use crate::journal::Journal;
    use crate::roster::{Member, Memory};
    use crate::source::Desired;
    use crate::state::Event;

    const CONFIG: &str = r#"
        nic = [{ name = "eth1" }]
        [pools.web]
        backends = [
            { name = "near", address = "10.0.0.1" },
            { name = "routed", address = "10.9.0.2" },
            { name = "tunneled", address = "10.9.0.3", mode = "ipip" },
            { name = "lost", address = "10.0.0.4" },
            { name = "new", address = "10.0.0.5" },
            { name = "drained", address = "10.0.0.6", weight = 0 },
            { name = "asked", address = "10.0.0.7" },
        ]
        [[service]]
        name = "web"
        vip = ["203.0.113.10", "2001:db8::10"]
        ports = ["tcp/80", "udp/80"]
        pool = "web"
    "#;

    fn configured() -> Control {
        let config = Arc::new(Config::parse(CONFIG, "f").unwrap());
        let snapshot = compile(&config, FleetKey([0; 16]));
        let member = |backend: &str| Member { pool: "web".into(), backend: backend.parse().unwrap() };
        let memory = Memory { drained: BTreeSet::from([member("10.0.0.7")]), down: BTreeSet::new() };
        let control = Control::new(Runner::new(Prober::new(), 0).0, Journal::default(), memory);
        control.configure(Ok(Box::new(Desired { config, snapshot }))).unwrap();
        control
    }

    fn hop(address: &str, gateway: Option<&str>, unresolved: Option<&str>) -> NextHopStatus {
        let hop = serde_json::json!({
            "address": address,
            "resolved": unresolved.is_none().then(|| serde_json::json!({
                "nic": "eth1", "mac": "02:00:00:00:00:01", "gateway": gateway, "mtu": 1500,
            })),
            "unresolved": unresolved,
            "flows": 7,
        });
        serde_json::from_value(hop).unwrap()
    }

    fn connect(control: &Control) {
        let next_hops = vec![
            hop("10.0.0.1", None, None),
            hop("10.9.0.2", Some("10.0.0.254"), None),
            hop("10.9.0.3", Some("10.0.0.254"), None),
            hop("10.0.0.4", None, Some("neighbor_unresolved")),
            hop("10.0.0.6", None, None),
        ];
        let status =
            DataplaneStatus { version: "1".into(), instance: 1, next_hops, ..DataplaneStatus::default() };
        control.apply(Event::DataplaneStatus(Box::new(status)));
    }

    fn all(control: &Control) -> Vec<BackendView> {
        control.look(|model| backends(model, &control.runner().statuses(), Now::read()))
    }

    fn states(control: &Control) -> Vec<(String, String)> {
        all(control).into_iter().map(|backend| (backend.name, backend.state)).collect()
    }

    #[test]
    fn a_backend_is_what_its_next_hop_says() {
        let control = configured();
        assert!(states(&control)[..5].iter().all(|(_, state)| state == "unknown"));
        connect(&control);
        let expected = [
            ("near", "reachable"),
            ("routed", "backend_not_on_link"),
            ("tunneled", "reachable"),
            ("lost", "neighbor_unresolved"),
            ("new", "unknown"),
            ("drained", "draining"),
            ("asked", "draining"),
        ];
        assert_eq!(states(&control), expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
        let near = &all(&control)[0];
        assert_eq!((near.flows, near.next_hop.as_ref().unwrap().mtu), (7, 1500));
    }

    #[test]
    fn a_service_is_listed_per_vip_and_port_with_its_usable_backends() {
        let control = configured();
        assert!(control.look(services).iter().all(|service| service.backends_usable == 0));
        connect(&control);
        let services = control.look(services);
        let listed: Vec<String> =
            services.iter().map(|s| format!("{} {} {}", s.name, s.vip, s.port)).collect();
        let expected = [
            "web 203.0.113.10 tcp/80",
            "web 203.0.113.10 udp/80",
            "web 2001:db8::10 tcp/80",
            "web 2001:db8::10 udp/80",
        ];
        assert_eq!(listed, expected);
        assert!(services.iter().all(|service| (service.backends_usable, service.backends_total) == (2, 7)));
    }

    #[test]
    fn the_status_counts_and_names_what_is_configured() {
        let control = configured();
        let figures = control.runner().figures();
        let status =
            control.look(|model| status(model, &figures, &Announced::default(), "/etc/shunt/shunt.toml", 5));
        assert_eq!((status.generation, status.services, status.backends, status.uptime_s), (1, 1, 7, 5));
        assert_eq!(
            (status.config_problem, status.acknowledged, status.dataplane.is_some()),
            (None, None, false)
        );
    }
}
