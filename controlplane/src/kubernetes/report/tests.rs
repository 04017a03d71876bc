//! A Service in a small double of the API, and a dataplane that does what it is told.

use proptest::prelude::*;
use shunt_api::snapshot::Protocol;

use super::events::Event;
use super::ownership::{FINALIZER, MARK, may_be_served};
use super::status::{ADDRESS_ALLOCATED, PROGRAMMED};
use super::*;
use crate::kubernetes::facts::{Facts, Family, Ingress, Node, Port};
use crate::kubernetes::translate::translate;

const CLASS: &str = "shunt.dev/l4";
const NOW: &str = "2026-01-02T03:04:05Z";

/// A Service, the world around it, and what was done.
struct World {
    reporter: Reporter,
    service: Service,
    addresses: Vec<IpAddr>,
    problem: Option<Problem>,
    nodes: u8,
    programmed: Option<Vec<IpAddr>>,
    overdue: bool,
    log: Vec<String>,
}

fn key() -> ServiceKey {
    ServiceKey { namespace: "shop".into(), name: "web".into() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service() -> Service {
    Service {
        uid: "u1".into(),
        wants_load_balancer: true,
        class: Some(CLASS.into()),
        families: vec![Family::V4],
        ports: vec![port("TCP", 80, Some(30_080))],
        ..Service::default()
    }
}

fn port(protocol: &str, port: u16, node_port: Option<u16>) -> Port {
    let known = match protocol {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    };
    Port { name: String::new(), protocol: known, protocol_name: protocol.into(), port, node_port }
}

fn reporter() -> Reporter {
    Reporter::new(Class { name: CLASS.into(), default_class: false }, IpMode::Proxy)
}

impl World {
    fn new(service: Service) -> Self {
        Self {
            reporter: reporter(),
            service,
            addresses: vec![ip("203.0.113.10")],
            problem: None,
            nodes: 2,
            programmed: Some(vec![]),
            overdue: false,
            log: Vec::new(),
        }
    }

    fn translated(&self) -> Option<Translated> {
        let node = |n: u8| (n.to_string(), Node { addresses: vec![[10, 0, 0, n].into()], ..Node::default() });
        let facts = Facts {
            services: [(key(), self.service.clone())].into(),
            nodes: (0..self.nodes).map(node).collect(),
            ..Facts::default()
        };
        let addresses = [(key(), self.addresses.clone())].into();
        let settings = translate::Settings { nat_families: [Family::V4].into(), ..Default::default() };
        translate(&facts, &addresses, &settings).remove(&key()).filter(|_| !self.addresses.is_empty())
    }

    /// What is to be done now.
    fn look(&mut self) -> Vec<Action> {
        let translated = self.translated();
        let outcome = Outcome {
            addresses: &self.addresses,
            address_problem: self.problem.as_ref(),
            translated: translated.as_ref(),
            programmed: self.programmed.as_deref(),
            overdue: self.overdue,
        };
        let services = [(key(), self.service.clone())].into();
        self.reporter.report(&services, |_| outcome).remove(&key()).unwrap_or_default()
    }

    /// Does what is to be done, once; tells whether there was anything.
    fn step(&mut self) -> bool {
        let actions = self.look();
        let any = !actions.is_empty();
        actions.into_iter().for_each(|action| self.act(action));
        any
    }

    fn act(&mut self, action: Action) {
        let service = &mut self.service;
        let word = match action {
            Action::AddFinalizer => {
                service.has_finalizer = true;
                service.annotations.insert(MARK.into(), CLASS.into());
                "finalizer".into()
            }
            Action::RemoveFinalizer => {
                service.has_finalizer = false;
                service.annotations.remove(MARK);
                "-finalizer".into()
            }
            Action::PatchStatus(status) => {
                let words: Vec<_> = status.ingress.iter().map(|i| i.ip.unwrap().to_string()).collect();
                show(service, status);
                format!("status[{}]", words.join(","))
            }
            Action::ClearStatus => {
                show(service, Status::default());
                service.conditions.clear();
                "-status".into()
            }
            Action::Event(Event { warning, reason, .. }) => {
                assert_eq!(
                    warning,
                    !reason.ends_with("ingLoadBalancer") && !reason.ends_with("edLoadBalancer")
                );
                format!("({reason})")
            }
        };
        self.log.push(word);
    }

    /// The dataplane does what it is told: nothing for a Service that is not, or no longer, served.
    fn program(&mut self) {
        let served = may_be_served(&self.service, &self.reporter.class);
        let vips = self.translated().filter(|_| served).map(|translated| translated.vips());
        self.programmed = Some(vips.unwrap_or_default());
    }

    /// Until nothing is left to do; what was done meanwhile.
    fn settle(&mut self) -> String {
        for _ in 0..10 {
            let any = self.step();
            self.program();
            if !any && self.look().is_empty() {
                return std::mem::take(&mut self.log).join(" ");
            }
        }
        panic!("never settles: {:?}", self.log);
    }

    /// As the API does when the type changes.
    fn retype(&mut self, load_balancer: bool, class: Option<&str>) {
        self.service.wants_load_balancer = load_balancer;
        self.service.class = class.map(String::from);
        if !load_balancer {
            self.service.ingress.clear();
        }
    }

    fn condition(&self, kind: &str) -> (bool, &str) {
        let (status, reason, _) = &self.service.conditions[kind];
        (*status, reason)
    }
}

fn show(service: &mut Service, status: Status) {
    service.ingress = status.ingress;
    for condition in status.conditions {
        let since = condition.since.unwrap_or_else(|| NOW.into());
        service.condition_times.insert(condition.kind.into(), since);
        service
            .conditions
            .insert(condition.kind.into(), (condition.status, condition.reason, condition.message));
    }
}

const START: &str = "(EnsuringLoadBalancer) finalizer status[203.0.113.10] (EnsuredLoadBalancer)";
const END: &str = "(DeletingLoadBalancer) -status -finalizer (DeletedLoadBalancer)";

/// A Service that is served, with what was told of it forgotten.
fn served(service: Service) -> World {
    let mut world = World::new(service);
    world.settle();
    world
}

#[test]
fn a_service_lives_from_its_finalizer_to_its_release() {
    let mut world = World::new(service());
    assert_eq!(world.settle(), START);
    assert_eq!(world.condition(PROGRAMMED), (true, "Programmed"));
    assert_eq!(world.condition(ADDRESS_ALLOCATED), (true, "Allocated"));
    world.service.deleting = true;
    assert_eq!(world.settle(), END);
    assert!(!world.service.has_finalizer && world.service.annotations.is_empty());
}

#[test]
fn nothing_is_shown_before_the_dataplane_has_it_nor_released_while_it_has() {
    let mut world = World::new(service());
    for programmed in [None, Some(vec![]), Some(vec![ip("203.0.113.99")])] {
        world.programmed = programmed;
        while world.step() {}
        assert_eq!((&world.service.ingress, &world.service.conditions), (&vec![], &BTreeMap::new()));
    }
    world.overdue = true;
    while world.step() {}
    assert_eq!(world.service.ingress, []);
    assert_eq!(world.condition(PROGRAMMED), (false, "WaitingForDataplane"));
    world.settle();
    world.service.deleting = true;
    for programmed in [None, Some(vec![ip("203.0.113.10")]), Some(vec![ip("203.0.113.99")])] {
        world.programmed = programmed;
        while world.step() {}
        assert!(world.service.has_finalizer);
    }
    world.programmed = Some(vec![]);
    while world.step() {}
    assert!(!world.service.has_finalizer);
}

#[test]
fn a_restart_writes_and_tells_nothing() {
    let mut world =
        served(Service { annotations: [("shunt.dev/mode".into(), "x".into())].into(), ..service() });
    world.reporter = reporter();
    world.programmed = None;
    assert_eq!(world.look(), []);
    assert_eq!(world.settle(), "");
    world.nodes = 0;
    assert_eq!(world.settle(), "status[203.0.113.10] (UnAvailableLoadBalancer)");
    assert_eq!(world.condition(PROGRAMMED), (false, "UnAvailableLoadBalancer"));
    world.reporter = reporter();
    assert_eq!(world.settle(), "");
    world.nodes = 1;
    assert_eq!(world.settle(), "status[203.0.113.10] (EnsuredLoadBalancer)");
}

#[test]
fn a_dataplane_that_stays_away_is_told_but_takes_no_address_away() {
    let mut world = served(service());
    (world.programmed, world.overdue) = (None, true);
    while world.step() {}
    assert_eq!(world.condition(PROGRAMMED), (false, "WaitingForDataplane"));
    assert_eq!(world.service.ingress.len(), 1);
    assert_eq!(world.settle(), "status[203.0.113.10] status[203.0.113.10]", "and that it came back");
    assert_eq!(world.condition(PROGRAMMED), (true, "Programmed"));
}

#[test]
fn a_restart_in_the_middle_of_a_release_goes_on() {
    let mut world = served(service());
    world.service.deleting = true;
    world.reporter = reporter();
    assert_eq!(world.settle(), END);
}

#[test]
fn a_changed_type_releases_and_claims_again() {
    let mut world = served(service());
    world.retype(false, None);
    assert_eq!(world.settle(), END);
    world.retype(true, Some(CLASS));
    assert_eq!(world.settle(), START);
    // A class may change by way of another type; then it is somebody else's.
    world.retype(false, None);
    world.settle();
    world.retype(true, Some("other.example/lb"));
    assert_eq!(world.settle(), "");
}

#[test]
fn a_new_service_of_the_same_name_starts_anew() {
    let mut world = served(service());
    world.service = Service { uid: "u2".into(), ..service() };
    world.programmed = Some(vec![]);
    assert_eq!(world.settle(), START);
    assert_eq!(world.reporter.told.len(), 1);
}

// The cases of Kubernetes' own test/integration/service/loadbalancer_test.go.

#[test]
fn ports_without_node_ports_are_served_but_by_nat() {
    let without = vec![port("TCP", 80, None), port("TCP", 443, None)];
    let mut world = World::new(Service { ports: without.clone(), ..service() });
    assert_eq!(world.settle(), START);
    assert_eq!(world.service.ingress[0].ports, []);

    let annotations: BTreeMap<_, _> = [("shunt.dev/mode".to_owned(), "nat".to_owned())].into();
    let mut nat = World::new(Service { ports: without, annotations, ..service() });
    nat.settle();
    let error = || Some("shunt.dev/NoNodePort".to_owned());
    assert_eq!(nat.service.ingress[0].ports, [(80, "TCP".into(), error()), (443, "TCP".into(), error())]);
    assert_eq!(nat.condition(PROGRAMMED), (false, "NoNodePort"));
    // One is allocated: the address stays, the other port still has its error.
    nat.service.ports[0].node_port = Some(30_080);
    assert_eq!(nat.settle(), "status[203.0.113.10] (EnsuredLoadBalancer)");
    assert_eq!(nat.service.ingress[0].ports, [(80, "TCP".into(), None), (443, "TCP".into(), error())]);
    nat.service.ports[1].node_port = Some(30_443);
    assert_eq!(nat.settle(), "status[203.0.113.10] (UpdatedLoadBalancer)");
    assert_eq!(nat.service.ingress[0].ports, []);
    // And cleared again.
    nat.service.ports[0].node_port = None;
    nat.settle();
    assert_eq!(nat.service.ingress[0].ports[0], (80, "TCP".into(), error()));
}

#[test]
fn node_ports_that_come_and_go_mean_nothing_to_dr() {
    let mut world = served(service());
    world.service.ports[0].node_port = None;
    assert_eq!(world.settle(), "");
    world.service.ports[0].node_port = Some(30_099);
    assert_eq!(world.settle(), "");
}

#[test]
fn a_foreign_class_gets_no_action_ever() {
    let classes = [Some("other.example/lb"), None];
    for class in classes {
        for deleting in [false, true] {
            let foreign =
                Service { class: class.map(String::from), has_finalizer: true, deleting, ..service() };
            let mut world = World::new(foreign);
            assert_eq!(world.settle(), "", "{class:?}");
            assert!(world.service.has_finalizer && world.reporter.told.is_empty());
        }
    }
}

#[test]
fn a_service_without_class_is_the_default_ones() {
    let mut world = World::new(Service { class: None, ..service() });
    world.reporter.class.default_class = true;
    assert_eq!(world.settle(), START);
    world.reporter.class.default_class = false;
    assert_eq!(world.settle(), END);
}

#[test]
fn mixed_protocols_are_served_and_what_cannot_be_has_an_error() {
    let mut world =
        World::new(Service { ports: vec![port("TCP", 53, None), port("UDP", 53, None)], ..service() });
    assert_eq!(world.settle(), START);
    world.service.ports.push(port("SCTP", 53, None));
    assert_eq!(
        world.settle(),
        "status[203.0.113.10] (SyncLoadBalancerFailed) (UpdatedLoadBalancer)"
            .replace(" (UpdatedLoadBalancer)", "")
    );
    let errors: Vec<_> = world.service.ingress[0]
        .ports
        .iter()
        .map(|(_, name, error)| (name.as_str(), error.is_some()))
        .collect();
    assert_eq!(errors, [("TCP", false), ("UDP", false), ("SCTP", true)]);
}

#[test]
fn the_ip_mode_follows_the_mode() {
    for (mode, expected) in [("dr", "VIP"), ("ipip", "VIP"), ("nat", "Proxy")] {
        let annotations = [("shunt.dev/mode".to_owned(), mode.to_owned())].into();
        let world = served(Service { annotations, ..service() });
        assert_eq!(world.service.ingress[0].ip_mode.as_deref(), Some(expected), "{mode}");
    }
}

// Addresses.

#[test]
fn an_address_that_cannot_be_had_is_told_once() {
    let mut world = World::new(service());
    world.addresses.clear();
    world.problem = Some(Problem::new("PoolExhausted", "pool `a` has no free address; add a range"));
    assert_eq!(world.settle(), "(EnsuringLoadBalancer) finalizer status[] (SyncLoadBalancerFailed)");
    assert_eq!(world.condition(ADDRESS_ALLOCATED), (false, "PoolExhausted"));
    world.reporter = reporter();
    assert_eq!(world.settle(), "");
    world.addresses = vec![ip("203.0.113.10")];
    world.problem = None;
    assert_eq!(world.settle(), "status[203.0.113.10] (EnsuredLoadBalancer)");
}

#[test]
fn an_address_that_is_lost_is_shown_until_it_is_withdrawn() {
    let mut world = served(service());
    world.addresses.clear();
    world.problem = Some(Problem::new("NoPool", "no pool has 203.0.113.10; add one"));
    world.step();
    assert_eq!(world.service.ingress.len(), 1);
    world.settle();
    assert_eq!(world.service.ingress, []);
}

#[test]
fn without_an_address_or_a_reason_nothing_is_done() {
    let mut world = served(service());
    world.addresses.clear();
    assert_eq!(world.settle(), "");
}

#[test]
fn a_moved_address_is_shown_when_the_new_one_is_served() {
    let mut world = served(service());
    world.addresses = vec![ip("203.0.113.11")];
    world.step();
    assert_eq!(world.service.ingress[0].ip, Some(ip("203.0.113.10")));
    assert_eq!(world.settle(), "status[203.0.113.11] (EnsuredLoadBalancer)");
}

#[test]
fn a_second_family_is_added_behind_the_first() {
    let mut world = served(service());
    world.addresses.push(ip("2001:db8::10"));
    assert_eq!(world.settle(), "status[203.0.113.10,2001:db8::10] (EnsuredLoadBalancer)");
}

#[test]
fn a_headless_service_is_refused() {
    let mut world = World::new(Service { headless: true, ..service() });
    assert_eq!(world.settle(), "(EnsuringLoadBalancer) finalizer status[] (SyncLoadBalancerFailed)");
    assert_eq!(world.condition(ADDRESS_ALLOCATED), (false, "HeadlessService"));
}

// Transitions.

#[test]
fn changes_are_told_but_not_every_pod() {
    let mut world = served(service());
    world.service.ports[0].port = 81;
    // The dataplane is asked first, and what is shown needs no change.
    assert_eq!(world.settle(), "(UpdatedLoadBalancer)");
    world.nodes = 3;
    assert_eq!(world.settle(), "(UpdatedLoadBalancer)");
    world.service.source_ranges = vec!["192.0.2.0/24".into()];
    assert_eq!(world.settle(), "(UpdatedLoadBalancer)");
}

#[test]
fn a_wrong_annotation_is_told_and_served_by_the_default() {
    let mut world = served(service());
    world.service.annotations.insert("shunt.dev/mode".into(), "x".into());
    assert_eq!(world.look_for("InvalidAnnotation"), 1);
    assert_eq!(world.condition(PROGRAMMED), (true, "Programmed"));
    assert_eq!(world.look_for("InvalidAnnotation"), 0);
}

impl World {
    /// How often an event is told until all is settled.
    fn look_for(&mut self, reason: &str) -> usize {
        let mut found = 0;
        for _ in 0..5 {
            let actions = self.look();
            found += actions.iter().filter(|a| matches!(a, Action::Event(e) if e.reason == reason)).count();
            for action in actions {
                if !matches!(&action, Action::Event(event) if event.reason == reason) {
                    self.act(action);
                }
            }
            self.program();
        }
        found
    }
}

#[test]
fn a_conflict_is_told_once_until_a_status_is_taken() {
    let mut world = served(service());
    let service = world.service.clone();
    assert!(world.reporter.conflict(&service).is_some_and(|event| event.warning));
    assert_eq!(world.reporter.conflict(&service), None);
    world.reporter.written(&service);
    assert!(world.reporter.conflict(&service).is_some());
}

#[test]
fn a_lost_finalizer_or_mark_is_set_again() {
    let mut world = served(service());
    world.service.has_finalizer = false;
    assert_eq!(world.settle(), "(EnsuringLoadBalancer) finalizer");
    world.service.annotations.clear();
    assert_eq!(world.settle(), "finalizer");
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let mut world = served(service());
    world.service.condition_times.insert(PROGRAMMED.into(), "earlier".into());
    world.service.annotations.insert("shunt.dev/mode".into(), "ipip".into());
    world.settle();
    assert_eq!(world.service.condition_times[PROGRAMMED], "earlier");
    world.nodes = 0;
    world.settle();
    assert_eq!(world.service.condition_times[PROGRAMMED], NOW);
}

#[test]
fn what_is_equal_is_not_written() {
    let mut world =
        served(Service { ports: vec![port("TCP", 80, None), port("SCTP", 9, None)], ..service() });
    world.service.ingress[0].ports.reverse();
    world.service.ingress[0].ip_mode = None;
    assert_eq!(world.settle(), "");
    world.service.ingress[0].ip_mode = Some("Proxy".into());
    assert_eq!(world.settle(), "status[203.0.113.10]");
    world.service.ingress.push(Ingress { ip: None, ip_mode: None, ports: vec![] });
    assert_eq!(world.settle(), "status[203.0.113.10]");
}

fn any_service() -> impl Strategy<Value = Service> {
    let class = prop::sample::select(vec![None, Some(CLASS), Some("other.example/lb")]);
    let mode = prop::sample::select(vec![None, Some("nat"), Some("ipip"), Some("?")]);
    let mark = prop::sample::select(vec![None, Some(CLASS), Some("other")]);
    let ports = prop::collection::vec(
        (prop::sample::select(vec!["TCP", "UDP", "SCTP"]), 1..9u16, any::<bool>()),
        0..3,
    );
    let ingress = prop::sample::select(vec![None, Some("203.0.113.10"), Some("198.51.100.1")]);
    (class, mode, mark, ports, ingress, any::<[bool; 5]>()).prop_map(
        |(class, mode, mark, ports, shown, [wants, deleting, has_finalizer, local, headless])| {
            let annotations = [("shunt.dev/mode", mode), (MARK, mark)];
            let annotation = |(name, value): (&str, Option<&str>)| Some((name.to_owned(), value?.to_owned()));
            let ports = ports
                .into_iter()
                .map(|(name, at, node_port)| port(name, at, node_port.then_some(30_000 + at)));
            let entry = |ip: &str| Ingress { ip: ip.parse().ok(), ip_mode: None, ports: vec![] };
            Service {
                wants_load_balancer: wants,
                class: class.map(String::from),
                annotations: annotations.into_iter().filter_map(annotation).collect(),
                ports: ports.collect(),
                ingress: shown.filter(|_| wants).map(entry).into_iter().collect(),
                deleting,
                has_finalizer,
                local,
                headless,
                ..service()
            }
        },
    )
}

fn any_addresses() -> impl Strategy<Value = (Vec<IpAddr>, Option<Problem>)> {
    let addresses = prop::sample::subsequence(vec!["203.0.113.10", "2001:db8::10"], 0..=2);
    let problem =
        prop::sample::select(vec![None, Some(Problem::new("PoolExhausted", "none is free; add a range"))]);
    (addresses, problem).prop_map(|(addresses, problem)| (addresses.into_iter().map(ip).collect(), problem))
}

proptest! {
    /// Whatever the Service is and becomes: acting comes to an end, then a restart has nothing to say, and a finalizer
    /// is where it should be. What is another controller's stays as it is.
    #[test]
    fn always_converges(
        steps in prop::collection::vec((any_service(), any_addresses(), 0..3u8, any::<[bool; 2]>()), 1..4),
        default_class in any::<bool>(),
    ) {
        let mut world = World::new(Service::default());
        world.reporter.class.default_class = default_class;
        for (wanted, (addresses, problem), nodes, [unknown, overdue]) in steps {
            world.service = wanted;
            (world.addresses, world.problem, world.nodes) = (addresses, problem, nodes);
            world.overdue = overdue;
            if unknown {
                world.programmed = None;
            }
            let before = world.service.clone();
            world.settle();
            let class = world.reporter.class.clone();
            let foreign = before.class.as_ref().is_some_and(|name| name != CLASS);
            if foreign {
                prop_assert_eq!(&world.service, &before);
            }
            let ours = is_ours(&world.service, &class);
            if ours {
                prop_assert_eq!(world.service.has_finalizer, !world.service.deleting);
            }
            prop_assert!(!needs_cleanup(&world.service, &class));
            let nat_ip_mode = world.reporter.nat_ip_mode;
            world.reporter = Reporter::new(class, nat_ip_mode);
            prop_assert!(!world.look().iter().any(|action| !matches!(action, Action::Event(_))));
        }
    }
}

#[test]
fn the_finalizer_is_the_one_that_kubernetes_knows() {
    assert_eq!(FINALIZER, "service.kubernetes.io/load-balancer-cleanup");
}
