use std::time::Instant;

use shunt_api::compile::compile;
use shunt_api::config::Config;
use shunt_api::snapshot::{Ack, FleetKey};
use shunt_api::status::{DataplaneStatus, WorkerStatus};

use super::*;
use crate::health::{Health, HealthEvent, Transition};
use crate::roster::{Balance, Memory};
use crate::state::Event;

/// Two services of a pool each, and a translated one.
fn config(announce: &str, third_vip: &str) -> Arc<Config> {
    let text = format!(
        r#"
        nic = [{{ name = "eth1" }}, {{ name = "eth2" }}]
        nat.sources = "10.0.0.250"
        announce = {{ {announce} }}
        pools.a = {{ check = {{ type = "tcp", via = "direct" }}, backends = [{{ name = "a", address = "10.0.0.1" }}] }}
        pools.b = {{ backends = [{{ name = "b", address = "10.0.0.2", weight = 0 }}] }}
        pools.c = {{ mode = "nat", backends = [{{ name = "c", address = "10.0.0.3" }}] }}
        service = [
            {{ name = "a", vip = "203.0.113.1", ports = ["tcp/80"], pool = "a" }},
            {{ name = "b", vip = ["203.0.113.1", "203.0.113.2"], ports = ["tcp/81"], pool = "b" }},
            {{ name = "c", vip = "{third_vip}", ports = ["tcp/80"], pool = "c" }},
            {{ name = "d", vip = "203.0.113.4", ports = ["tcp/80"], pool = "a" }},
        ]
        "#
    );
    Arc::new(Config::parse(&text, "f").unwrap_or_else(|problem| panic!("{problem}")))
}

struct World {
    state: State,
    roster: Roster,
}

impl World {
    fn new() -> Self {
        Self { state: State::default(), roster: Roster::new(Memory::default()) }
    }

    /// A world in which everything is served.
    fn serving(config: &Arc<Config>) -> Self {
        let mut world = Self::new();
        world.load(config);
        world.connect(Some(1), &[WorkerState::Running, WorkerState::Waiting]);
        world.acknowledge(1);
        world
    }

    fn load(&mut self, config: &Arc<Config>) {
        self.roster.load(Arc::clone(config), compile(config, FleetKey([1; 16])));
        let Balance { snapshot, .. } = self.roster.balance(Instant::now()).unwrap();
        let event = Event::ConfigLoaded { snapshot: Box::new(snapshot), warnings: vec![] };
        self.state.apply(event, Instant::now());
    }

    fn connect(&mut self, generation: Option<u64>, workers: &[WorkerState]) {
        let worker = |(index, state): (usize, &WorkerState)| WorkerStatus {
            index: index as u32,
            core: None,
            state: *state,
            generation,
            queues: vec![],
        };
        let status = serde_json::json!({
            "version": "1", "instance": 1, "uptime_s": 0, "generation": generation, "generation_age_s": null,
            "problems": [], "restart_needed": [], "nics": [], "flows": { "v4": flows(), "v6": flows() },
            "next_hops": [], "workers": [], "probes": null,
        });
        let mut status: DataplaneStatus = serde_json::from_value(status).unwrap();
        status.workers = workers.iter().enumerate().map(worker).collect();
        self.state.apply(Event::DataplaneStatus(Box::new(status)), Instant::now());
    }

    /// The dataplane agrees to the configuration as it is.
    fn acknowledge(&mut self, generation: u64) {
        let config = self.roster.config().unwrap();
        let snapshot = Arc::new(Snapshot { generation, ..compile(config, FleetKey([1; 16])) });
        let ack = Ack { generation, restart_needed: vec![] };
        self.state.apply(Event::Acknowledged(ack, snapshot), Instant::now());
    }

    fn lose(&mut self) {
        self.state.apply(Event::Disconnected("gone".into()), Instant::now());
    }

    /// Backend a goes down.
    fn fail(&mut self) {
        let watches = self.roster.watches(&[], &std::collections::HashMap::new());
        let event = |watch| HealthEvent {
            watch: Arc::new(watch),
            transition: Transition {
                from: Health::Unknown,
                to: Health::Down,
                reason: "refused".into(),
                at: Instant::now(),
            },
        };
        self.roster.observe(watches.into_iter().map(event).collect());
        self.roster.balance(Instant::now());
    }

    fn decide(&self) -> Decision {
        decide(&grounds(&self.state, &self.roster), &self.roster)
    }

    /// Last numbers of the addresses announced on the segments, and whether this box is able; then by routes.
    fn check(&self, l2: Option<(bool, &[u8])>, routes: Option<&[u8]>) {
        let numbers = |addresses: &BTreeSet<IpAddr>| {
            let last =
                |address: &IpAddr| address.to_string().rsplit('.').next().unwrap().parse::<u8>().unwrap();
            addresses.iter().map(last).collect::<Vec<u8>>()
        };
        let decision = self.decide();
        let on_segments = match &decision.l2 {
            Wanted::These { settings, addresses } => Some((settings.able, numbers(addresses))),
            Wanted::Unknown | Wanted::Unused => None,
        };
        assert_eq!(on_segments, l2.map(|(able, numbers)| (able, numbers.to_vec())), "{decision:?}");
        let by_routes = match &decision.routes {
            Wanted::These { addresses, .. } => Some(numbers(addresses)),
            Wanted::Unknown | Wanted::Unused => None,
        };
        assert_eq!(by_routes.as_deref(), routes, "{decision:?}");
    }
}

fn flows() -> serde_json::Value {
    serde_json::json!({ "capacity": 0, "used": 0, "size_bytes": 0 })
}

const BOTH: &str = "l2 = true, routes = true";
const ALL: &[u8] = &[250, 1, 2, 3, 4];

#[test]
fn nothing_is_known_before_the_dataplane_says_what_it_does() {
    let mut world = World::new();
    assert_eq!(world.decide(), Decision { l2: Wanted::Unknown, routes: Wanted::Unknown });
    world.load(&config(BOTH, "203.0.113.3"));
    world.check(None, None);
    // It serves what another control plane sent, of which this one knows nothing.
    world.connect(Some(7), &[WorkerState::Running]);
    world.check(None, None);
    world.acknowledge(8);
    world.connect(Some(8), &[WorkerState::Running]);
    world.check(Some((true, ALL)), Some(&[1, 2, 3, 4]));
    world.lose();
    world.check(Some((false, &[])), Some(&[]));
}

#[test]
fn what_is_not_configured_is_not_used() {
    let world = World::serving(&config("", "203.0.113.3"));
    assert_eq!(world.decide(), Decision { l2: Wanted::Unused, routes: Wanted::Unused });
}

#[test]
fn a_dataplane_that_serves_nothing_or_stalls_announces_nothing() {
    let mut world = World::serving(&config(BOTH, "203.0.113.3"));
    world.connect(None, &[WorkerState::Running]);
    world.check(Some((false, &[])), Some(&[]));
    world.connect(Some(1), &[]);
    world.check(Some((false, &[])), Some(&[]));
    // Alone on its segment, half a box is better than none.
    world.connect(Some(1), &[WorkerState::Running, WorkerState::Stalled]);
    world.check(Some((true, ALL)), Some(&[]));
    let mut elected = World::serving(&config("l2 = { priority = 100 }", "203.0.113.3"));
    elected.connect(Some(1), &[WorkerState::Running, WorkerState::Stalled]);
    elected.check(Some((false, &[])), None);
}

#[test]
fn an_address_is_announced_when_it_is_served_and_withdrawn_before_it_is_not() {
    let mut world = World::serving(&config(BOTH, "203.0.113.3"));
    world.load(&config(BOTH, "203.0.113.5"));
    world.check(Some((true, &[250, 1, 2, 4])), Some(&[1, 2, 4]));
    world.acknowledge(2);
    world.connect(Some(2), &[WorkerState::Running]);
    world.check(Some((true, &[250, 1, 2, 4, 5])), Some(&[1, 2, 4, 5]));
}

#[test]
fn routes_need_a_backend_that_is_up_unless_told_otherwise() {
    let mut world = World::serving(&config(BOTH, "203.0.113.3"));
    world.fail();
    // 203.0.113.1 has another service, whose backend drains but lives.
    world.check(Some((true, ALL)), Some(&[1, 2, 3]));
    let indifferent = config("l2 = true, routes = { require_backend = false }", "203.0.113.3");
    let mut world = World::serving(&indifferent);
    world.fail();
    world.check(Some((true, ALL)), Some(&[1, 2, 3, 4]));
}
