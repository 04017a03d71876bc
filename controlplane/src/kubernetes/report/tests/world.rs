//! A Service in a small double of the API, and a dataplane that does what it is told.

use shunt_api::config::{LeftOut, Part};
use shunt_api::snapshot::Protocol;

use super::super::events::Event;
use super::super::ownership::{MARK, may_be_served};
use super::super::*;
use crate::kubernetes::facts::{Facts, Family, Node, Port};
use crate::kubernetes::seen::add_left_out;
use crate::kubernetes::translate::translate;

pub const CLASS: &str = "shunt.dev/l4";
pub const NOW: &str = "2026-01-02T03:04:05Z";

/// A Service, the world around it, and what was done.
pub struct World {
    pub reporter: Reporter,
    pub service: Service,
    pub addresses: Vec<IpAddr>,
    pub problem: Option<Problem>,
    /// Told with the next look.
    pub moved: Option<Problem>,
    pub nodes: u8,
    pub nat_families: Vec<Family>,
    pub programmed: Option<Vec<IpAddr>>,
    pub overdue: bool,
    pub left_out: Vec<LeftOut>,
    log: Vec<String>,
}

pub fn key() -> ServiceKey {
    ServiceKey { namespace: "shop".into(), name: "web".into() }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn service() -> Service {
    Service {
        uid: "u1".into(),
        wants_load_balancer: true,
        class: Some(CLASS.into()),
        families: vec![Family::V4],
        ports: vec![port("TCP", 80, Some(30_080))],
        ..Service::default()
    }
}

pub fn port(protocol: &str, port: u16, node_port: Option<u16>) -> Port {
    let known = match protocol {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    };
    Port { name: String::new(), protocol: known, protocol_name: protocol.into(), port, node_port }
}

pub fn reporter() -> Reporter {
    Reporter::new(Class { name: CLASS.into(), default_class: false }, IpMode::Proxy)
}

impl World {
    pub fn new(service: Service) -> Self {
        Self {
            reporter: reporter(),
            service,
            addresses: vec![ip("203.0.113.10")],
            problem: None,
            moved: None,
            nodes: 2,
            nat_families: vec![Family::V4],
            programmed: Some(vec![]),
            overdue: false,
            left_out: Vec::new(),
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
        let settings = translate::Settings {
            nat_families: self.nat_families.iter().copied().collect(),
            ..translate::Settings::default()
        };
        let mut translated = translate(&facts, &addresses, &settings);
        add_left_out(&mut translated, &self.left_out);
        translated.remove(&key()).filter(|_| !self.addresses.is_empty())
    }

    /// What is to be done now.
    pub fn look(&mut self) -> Vec<Action> {
        let translated = self.translated();
        let moved = self.moved.take();
        let outcome = Outcome {
            addresses: &self.addresses,
            address_problem: self.problem.as_ref(),
            moved: moved.as_ref(),
            translated: translated.as_ref(),
            programmed: self.programmed.as_deref(),
            overdue: self.overdue,
        };
        let services = [(key(), self.service.clone())].into();
        self.reporter.report(&services, |_| Some(outcome)).remove(&key()).unwrap_or_default()
    }

    /// Does what is to be done, once; tells whether there was anything.
    pub fn step(&mut self) -> bool {
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
    pub fn program(&mut self) {
        let left_out = self.left_out.iter().any(|left| left.part == Part::Service);
        let served = may_be_served(&self.service, &self.reporter.class) && !left_out;
        let vips = self.translated().filter(|_| served).map(|translated| translated.vips());
        self.programmed = Some(vips.unwrap_or_default());
    }

    /// Until nothing is left to do; what was done meanwhile.
    pub fn settle(&mut self) -> String {
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
    pub fn retype(&mut self, load_balancer: bool, class: Option<&str>) {
        self.service.wants_load_balancer = load_balancer;
        self.service.class = class.map(String::from);
        if !load_balancer {
            self.service.ingress.clear();
        }
    }

    pub fn condition(&self, kind: &str) -> (bool, &str) {
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

impl World {
    /// How often an event is told until all is settled.
    pub fn look_for(&mut self, reason: &str) -> usize {
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
