//! What is told of a Service, and when: on transitions only. The names are the cloud provider's, so that people and
//! tools find what they know.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use super::status::{PROGRAMMED, cut, is_whole};
use super::{Outcome, Phase};
use crate::kubernetes::facts::Service;
use crate::kubernetes::translate::{self, Problem, Translated, UNAVAILABLE};

/// Bytes of an event's note that the API takes (events.k8s.io/v1).
const NOTE_MAX: usize = 1_024;
const FAILED: &str = "SyncLoadBalancerFailed";

/// An event about a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Of type `Warning`, else `Normal`.
    pub warning: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// For a human.
    pub message: String,
}

/// What was told of one Service. After a restart it is taken from what the Service shows, so that nothing is repeated.
#[derive(Clone, Debug)]
pub struct Told {
    /// At the last look.
    phase: Option<Phase>,
    problems: BTreeSet<Problem>,
    /// Hash of what was last told to be ensured, with its addresses.
    ensured: Option<(Vec<IpAddr>, u64)>,
    /// The messages that the Service showed when it was first seen.
    shown: Vec<String>,
    /// The addresses with which it then showed to be served, until its status is to be another.
    shown_served: Option<Vec<IpAddr>>,
    conflict: bool,
}

impl Told {
    /// Nothing yet, but for what the Service shows.
    pub fn of(service: &Service) -> Self {
        let shown = service.conditions.values().map(|(_, _, message)| message.clone()).collect();
        let served = service.conditions.get(PROGRAMMED).is_some_and(|(status, ..)| *status);
        let shown_served = served.then(|| service.ingress.iter().filter_map(|ingress| ingress.ip).collect());
        Self { phase: None, problems: BTreeSet::new(), ensured: None, shown, shown_served, conflict: false }
    }

    /// What to tell before and after the writes of this phase. `patching`: the status is not yet what it should be.
    pub fn events(
        &mut self,
        service: &Service,
        phase: Phase,
        outcome: &Outcome<'_>,
        patching: bool,
    ) -> (Vec<Event>, Vec<Event>) {
        let last = self.phase.replace(phase);
        let entered = last != Some(phase);
        let cleaning = |phase| matches!(phase, Phase::Withdrawing | Phase::Releasing);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        if phase == Phase::Claiming && entered && !service.has_finalizer {
            before.push(normal("EnsuringLoadBalancer", "Ensuring load balancer"));
        }
        if cleaning(phase) && !last.is_some_and(cleaning) {
            before.push(normal("DeletingLoadBalancer", "Deleting load balancer"));
        }
        if phase == Phase::Releasing && entered {
            after.push(normal("DeletedLoadBalancer", "Deleted load balancer"));
        }
        if !cleaning(phase) {
            // It explains those that follow.
            before.extend(outcome.moved.map(|moved| warning(&moved.reason, &moved.message)));
        }
        if matches!(phase, Phase::Refused | Phase::Programming | Phase::Serving) {
            after.extend(self.problems(service, phase, outcome));
        }
        if patching {
            self.shown_served = None;
        }
        if phase == Phase::Serving && !patching {
            after.extend(self.ensured(service, outcome));
        }
        (before, after)
    }

    /// Another manager owns the status.
    pub fn conflict(&mut self) -> Option<Event> {
        let known = std::mem::replace(&mut self.conflict, true);
        let message = "another controller owns this Service's status; give the Service a loadBalancerClass, or stop one \
                       of the two from taking Services without. If it is gone, take away what it left: kubectl patch \
                       service NAME --subresource status --type merge -p \
                       '{\"status\":{\"loadBalancer\":{\"ingress\":null}}}'";
        (!known).then(|| warning(FAILED, message))
    }

    /// A status was taken.
    pub fn written(&mut self) {
        self.conflict = false;
    }

    /// Those that were not there at the last look.
    fn problems(&mut self, service: &Service, phase: Phase, outcome: &Outcome<'_>) -> Vec<Event> {
        let of_address = translate::refusal(service).or_else(|| outcome.address_problem.cloned());
        // Without an address, nothing else matters yet.
        let translated = outcome.translated.filter(|_| phase != Phase::Refused);
        let translated = translated.map_or(&[][..], |translated| &translated.problems);
        let current: BTreeSet<Problem> = of_address.iter().chain(translated).cloned().collect();
        let shown = std::mem::take(&mut self.shown);
        let known = |problem: &Problem| {
            self.problems.contains(problem) || shown.iter().any(|message| message.contains(&problem.message))
        };
        let event = |problem: &Problem| {
            let reason = if of_address.as_ref() == Some(problem) { FAILED } else { event_reason(problem) };
            warning(reason, &problem.message)
        };
        let events = current.iter().filter(|problem| !known(problem)).map(event).collect();
        self.problems = current;
        events
    }

    /// The Service shows what it should. If it did so when it was first seen, nothing happened.
    fn ensured(&mut self, service: &Service, outcome: &Outcome<'_>) -> Option<Event> {
        let translated = outcome.translated.filter(|translated| is_whole(outcome, translated))?;
        let now = (outcome.addresses.to_vec(), fingerprint(service, translated));
        let last = self.ensured.replace(now.clone());
        match last {
            None if self.shown_served.as_deref() == Some(outcome.addresses) => None,
            Some(last) if last == now => None,
            Some((addresses, _)) if addresses == now.0 => {
                Some(normal("UpdatedLoadBalancer", "Updated load balancer"))
            }
            _ => {
                let addresses: Vec<_> = now.0.iter().map(IpAddr::to_string).collect();
                let message = format!("Ensured load balancer: {}", addresses.join(", "));
                Some(normal("EnsuredLoadBalancer", &message))
            }
        }
    }
}

/// Of what people change about the Service: neither of pods, which come and go with every roll-out, nor of nodes, which
/// thousands of Services have in common.
fn fingerprint(service: &Service, translated: &Translated) -> u64 {
    let mut hasher = DefaultHasher::new();
    (translated.mode, &translated.wanted.services, service.local).hash(&mut hasher);
    translated.wanted.pools.iter().for_each(|pool| pool.check.hash(&mut hasher));
    hasher.finish()
}

/// Ports that are not served have failed; what else is wrong has a name of its own.
fn event_reason(problem: &Problem) -> &str {
    match problem.reason.as_str() {
        UNAVAILABLE => UNAVAILABLE,
        "NoNodePort" | "ProtocolNotSupported" | "NoNatSource" | "HeadlessService" => FAILED,
        reason => reason,
    }
}

fn normal(reason: &str, message: &str) -> Event {
    Event { warning: false, reason: reason.into(), message: cut(message, NOTE_MAX) }
}

fn warning(reason: &str, message: &str) -> Event {
    Event { warning: true, reason: reason.into(), message: cut(message, NOTE_MAX) }
}
