//! What the control plane tells of itself, read from the [`State`]. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use shunt_api::snapshot::{Backend, Pool, Snapshot};
use shunt_api::status::{BackendView, ControlStatus, DataplaneStatus, NextHopStatus, ServiceView};

use crate::state::State;

/// Reachable and with a weight.
const REACHABLE: &str = "reachable";
/// Weight 0: keeps its flows and gets no new ones.
const DRAINING: &str = "draining";
/// The dataplane is not connected, or has not looked for the way yet.
const UNKNOWN: &str = "unknown";

/// The answer to `GET /v1/status`.
pub fn status(state: &State, config_file: &str, uptime_s: u64) -> ControlStatus {
    let backends = |snapshot: &Snapshot| {
        let addresses = snapshot.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.address);
        addresses.collect::<HashSet<_>>().len()
    };
    ControlStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s,
        config_file: config_file.into(),
        config_problem: state.config_problem().cloned(),
        generation: state.generation(),
        acknowledged: state.acknowledgement().map(|ack| ack.generation),
        dataplane_problem: state.dataplane_problem(),
        services: state.wanted().map_or(0, |snapshot| snapshot.services.len()),
        backends: state.wanted().map_or(0, backends),
        dataplane: state.dataplane().cloned(),
    }
}

/// The answer to `GET /v1/services`.
pub fn services(state: &State) -> Vec<ServiceView> {
    let Some(snapshot) = state.wanted() else { return Vec::new() };
    let ways = Ways::new(state.dataplane());
    let usable: Vec<usize> = snapshot.pools.iter().map(|pool| ways.usable(pool)).collect();
    let mut views = Vec::new();
    for service in &snapshot.services {
        let pool = service.pool as usize;
        for vip in &service.vips {
            views.extend(service.ports.iter().map(|mapping| ServiceView {
                name: service.name.clone(),
                vip: *vip,
                port: *mapping,
                pool: snapshot.pools[pool].name.clone(),
                backends_usable: usable[pool],
                backends_total: snapshot.pools[pool].backends.len(),
            }));
        }
    }
    views
}

/// The answer to `GET /v1/backends`.
pub fn backends(state: &State) -> Vec<BackendView> {
    let Some(snapshot) = state.wanted() else { return Vec::new() };
    let ways = Ways::new(state.dataplane());
    let view = |pool: &Pool, backend: &Backend| {
        let hop = ways.0.get(&backend.address);
        BackendView {
            pool: pool.name.clone(),
            name: backend.name.clone(),
            address: backend.address,
            mode: backend.mode,
            weight: backend.weight,
            state: ways.state(backend).into(),
            next_hop: hop.and_then(|hop| hop.resolved.clone()),
            flows: hop.map_or(0, |hop| hop.flows),
        }
    };
    let of_pool = |pool: &Pool| pool.backends.iter().map(|backend| view(pool, backend)).collect::<Vec<_>>();
    snapshot.pools.iter().flat_map(of_pool).collect()
}

/// The ways to backends that the dataplane knows, by address.
struct Ways<'s>(HashMap<IpAddr, &'s NextHopStatus>);

impl<'s> Ways<'s> {
    fn new(dataplane: Option<&'s DataplaneStatus>) -> Self {
        let hops = dataplane.map_or(&[][..], |status| &status.next_hops);
        Self(hops.iter().map(|hop| (hop.address, hop)).collect())
    }

    fn usable(&self, pool: &Pool) -> usize {
        pool.backends.iter().filter(|backend| self.state(backend) == REACHABLE).count()
    }

    fn state(&self, backend: &Backend) -> &str {
        if backend.weight == 0 {
            return DRAINING;
        }
        let Some(hop) = self.0.get(&backend.address) else { return UNKNOWN };
        hop.obstacle(backend.mode).unwrap_or(REACHABLE)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use shunt_api::config::Config;
    use shunt_api::snapshot::FleetKey;
    use shunt_api::status::FlowTablesStatus;

    use super::*;
    use crate::source::Desired;
    use crate::state::Event;
    use shunt_api::compile::compile;

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
        ]
        [[service]]
        name = "web"
        vip = ["203.0.113.10", "2001:db8::10"]
        ports = ["tcp/80", "udp/80"]
        pool = "web"
    "#;

    fn configured() -> State {
        let config = Config::parse(CONFIG, "f").unwrap();
        let desired = Desired { snapshot: compile(&config, FleetKey([0; 16])), warnings: vec![] };
        let mut state = State::default();
        state.apply(Event::ConfigLoaded(Box::new(desired)), Instant::now());
        state
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

    fn connect(state: &mut State) {
        let next_hops = vec![
            hop("10.0.0.1", None, None),
            hop("10.9.0.2", Some("10.0.0.254"), None),
            hop("10.9.0.3", Some("10.0.0.254"), None),
            hop("10.0.0.4", None, Some("neighbor_unresolved")),
            hop("10.0.0.6", None, None),
        ];
        let status = DataplaneStatus {
            version: "1".into(),
            instance: 1,
            uptime_s: 0,
            generation: None,
            generation_age_s: None,
            problems: vec![],
            restart_needed: vec![],
            nics: vec![],
            workers: vec![],
            flows: FlowTablesStatus::default(),
            next_hops,
            probes: None,
        };
        state.apply(Event::DataplaneStatus(Box::new(status)), Instant::now());
    }

    fn states(state: &State) -> Vec<(String, String)> {
        backends(state).into_iter().map(|backend| (backend.name, backend.state)).collect()
    }

    #[test]
    fn a_backend_is_what_its_next_hop_says() {
        let mut state = configured();
        assert!(states(&state)[..5].iter().all(|(_, state)| state == "unknown"));
        connect(&mut state);
        let expected = [
            ("near", "reachable"),
            ("routed", "backend_not_on_link"),
            ("tunneled", "reachable"),
            ("lost", "neighbor_unresolved"),
            ("new", "unknown"),
            ("drained", "draining"),
        ];
        assert_eq!(states(&state), expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
        let near = &backends(&state)[0];
        assert_eq!((near.flows, near.next_hop.as_ref().unwrap().mtu), (7, 1500));
    }

    #[test]
    fn a_service_is_listed_per_vip_and_port_with_its_usable_backends() {
        let mut state = configured();
        assert!(services(&state).iter().all(|service| service.backends_usable == 0));
        connect(&mut state);
        let services = services(&state);
        let listed: Vec<String> =
            services.iter().map(|s| format!("{} {} {}", s.name, s.vip, s.port)).collect();
        let expected = [
            "web 203.0.113.10 tcp/80",
            "web 203.0.113.10 udp/80",
            "web 2001:db8::10 tcp/80",
            "web 2001:db8::10 udp/80",
        ];
        assert_eq!(listed, expected);
        assert!(services.iter().all(|service| (service.backends_usable, service.backends_total) == (2, 6)));
    }

    #[test]
    fn the_status_counts_and_names_what_is_configured() {
        let status = status(&configured(), "/etc/shunt/shunt.toml", 5);
        assert_eq!((status.generation, status.services, status.backends, status.uptime_s), (1, 1, 6, 5));
        assert_eq!(
            (status.config_problem, status.acknowledged, status.dataplane.is_some()),
            (None, None, false)
        );
    }
}
