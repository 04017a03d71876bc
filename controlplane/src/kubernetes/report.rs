//! What a cluster is told of its Services: finalizers, status and events. Pure: gives [`Action`]s, which only the leader
//! carries out, in order and per Service until one fails. Actions are given anew until the watched object shows that
//! they were done.
//!
//! ```text
//!            AddFinalizer          an address        the dataplane has it
//! Claiming ──────────────→ Waiting ─────────→ Programming ─────────────→ Serving
//!                             │ none to be had     ↑                        │
//!                             └──→ Refused ────────┘                        │ deleted, or no longer ours
//!                                                                           ↓
//!                NotOurs ←────────────────────────── Releasing ←──────── Withdrawing
//!                         ClearStatus, RemoveFinalizer        the dataplane has nothing of it
//! ```
//!
//! | phase | holds when it | writes | tells once |
//! |---|---|---|---|
//! | NotOurs | is not ours, or was released | nothing | nothing |
//! | Claiming | lacks finalizer or mark | both | `EnsuringLoadBalancer` |
//! | Waiting | has neither address nor a reason | nothing | nothing |
//! | Refused | has a reason why it has no address | conditions; the old address once withdrawn | `SyncLoadBalancerFailed` |
//! | Programming | is not served yet | conditions, if that is overdue | its problems |
//! | Serving | is served, whatever its nodes' health | ingress, conditions | `EnsuredLoadBalancer`, `UpdatedLoadBalancer`, its problems |
//! | Withdrawing | is no longer wanted, but may be served | nothing | `DeletingLoadBalancer` |
//! | Releasing | is no longer served | the status, finalizer and mark away | `DeletedLoadBalancer` |

pub mod bodies;
pub mod events;
pub mod ownership;
pub mod status;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use shunt_api::config::IpMode;

use super::facts::{Service, ServiceKey};
use super::translate::{self, Problem, Translated};
use events::{Event, Told};
use ownership::{Class, is_claimed, is_ours, needs_cleanup};
use status::Status;

/// What there is to be done for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// And the mark: [`bodies::claim`].
    AddFinalizer,
    /// And the mark: [`bodies::release`].
    RemoveFinalizer,
    /// [`bodies::status`].
    PatchStatus(Status),
    /// [`bodies::status`] of the default. The Service may be gone, which is as well.
    ClearStatus,
    /// Say something about it.
    Event(Event),
}

/// What became of a Service on our side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome<'a> {
    /// Its addresses, in the order of their families.
    pub addresses: &'a [IpAddr],
    /// Why it has none, or not all.
    pub address_problem: Option<&'a Problem>,
    /// Why it had to leave an address since it was looked at last.
    pub moved: Option<&'a Problem>,
    /// What the dataplane shall do.
    pub translated: Option<&'a Translated>,
    /// Its addresses that the dataplane has acknowledged to serve, those of before included. `None`: it has not said
    /// anything since the start, so nothing can be taken to be served or withdrawn.
    pub programmed: Option<&'a [IpAddr]>,
    /// The dataplane, which is there, has not taken over what it shall do for this one for so long, a second or two, that
    /// people should know.
    pub overdue: bool,
}

/// Where a Service is in its life; see the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the module's head has a table")]
pub enum Phase {
    NotOurs,
    Claiming,
    Waiting,
    Refused,
    Programming,
    Serving,
    Withdrawing,
    Releasing,
}

/// Decides over all Services of a cluster, and remembers what was told of them.
#[derive(Debug)]
pub struct Reporter {
    class: Class,
    nat_ip_mode: IpMode,
    /// By uid; of Services that there are and are ours, so it grows no larger than the cluster.
    told: HashMap<String, Told>,
}

impl Reporter {
    /// One that has told nothing. `nat_ip_mode` is for Services of mode `nat`; others have [`IpMode::Vip`].
    pub fn new(class: Class, nat_ip_mode: IpMode) -> Self {
        Self { class, nat_ip_mode, told: HashMap::new() }
    }

    /// What there is to be done, for Services for which there is something. Those without an outcome are not looked at.
    pub fn report<'a>(
        &mut self,
        services: &BTreeMap<ServiceKey, Service>,
        outcome: impl Fn(&ServiceKey) -> Option<Outcome<'a>>,
    ) -> BTreeMap<ServiceKey, Vec<Action>> {
        let uids: HashSet<_> = services.values().map(|service| service.uid.as_str()).collect();
        self.told.retain(|uid, _| uids.contains(uid.as_str()));
        let one = |(key, service)| {
            let actions = self.one(service, &outcome(key)?);
            (!actions.is_empty()).then(|| (key.clone(), actions))
        };
        services.iter().filter_map(one).collect()
    }

    /// The API refused a status because another manager owns it ([`bodies::is_owned_by_another`]), or took it and the other
    /// one's entry stays: says so once until
    /// [`Reporter::written`]. Whoever writes tries again ever more seldom.
    pub fn conflict(&mut self, uid: &str) -> Option<Event> {
        self.told.get_mut(uid)?.conflict()
    }

    /// The API took a status.
    pub fn written(&mut self, uid: &str) {
        if let Some(told) = self.told.get_mut(uid) {
            told.written();
        }
    }

    fn one(&mut self, service: &Service, outcome: &Outcome<'_>) -> Vec<Action> {
        let phase = phase(service, &self.class, outcome);
        if phase == Phase::NotOurs {
            self.told.remove(&service.uid);
            return Vec::new();
        }
        let status = wanted_status(service, phase, outcome, self.nat_ip_mode);
        let patch = status.filter(|status| !status::is_shown(service, status));
        let told = self.told.entry(service.uid.clone()).or_insert_with(|| Told::of(service));
        let (before, after) = told.events(service, phase, outcome, patch.is_some());
        let writes = match phase {
            Phase::Claiming => vec![Action::AddFinalizer],
            Phase::Releasing => release(service),
            _ => patch.map(Action::PatchStatus).into_iter().collect(),
        };
        let (before, after) = (before.into_iter().map(Action::Event), after.into_iter().map(Action::Event));
        before.chain(writes).chain(after).collect()
    }
}

/// Where a Service is in its life.
pub fn phase(service: &Service, class: &Class, outcome: &Outcome<'_>) -> Phase {
    if needs_cleanup(service, class) {
        let withdrawn = outcome.programmed.is_some_and(<[IpAddr]>::is_empty);
        return if withdrawn { Phase::Releasing } else { Phase::Withdrawing };
    }
    // The API takes no new finalizer on what is being deleted.
    if !is_ours(service, class) || service.deleting {
        return Phase::NotOurs;
    }
    if !is_claimed(service, class) {
        return Phase::Claiming;
    }
    if translate::refusal(service).is_some() {
        return Phase::Refused;
    }
    match (outcome.addresses, outcome.address_problem) {
        ([], Some(_)) => Phase::Refused,
        ([], None) => Phase::Waiting,
        _ if is_served(outcome) => Phase::Serving,
        _ => Phase::Programming,
    }
}

/// The dataplane serves all that it shall.
fn is_served(outcome: &Outcome<'_>) -> bool {
    let Some(translated) = outcome.translated else { return false };
    let programmed = outcome.programmed.unwrap_or_default();
    translated.vips().iter().all(|vip| programmed.contains(vip))
}

/// The status that a Service should show; `None` leaves it as it is.
fn wanted_status(service: &Service, phase: Phase, outcome: &Outcome<'_>, nat: IpMode) -> Option<Status> {
    match phase {
        Phase::Refused => {
            let problem = translate::refusal(service).or_else(|| outcome.address_problem.cloned())?;
            Some(status::refused(service, outcome, &problem))
        }
        Phase::Programming => status::waiting(service, outcome),
        Phase::Serving => Some(status::serving(service, outcome, outcome.translated?, nat)),
        Phase::NotOurs | Phase::Claiming | Phase::Waiting | Phase::Withdrawing | Phase::Releasing => None,
    }
}

/// The status goes first: an address that is given to another Service must not still be shown here, or kube-proxy
/// takes packets to it for this one.
fn release(service: &Service) -> Vec<Action> {
    let shows = !service.ingress.is_empty() || !service.conditions.is_empty();
    let clear = shows.then_some(Action::ClearStatus);
    clear.into_iter().chain([Action::RemoveFinalizer]).collect()
}

#[cfg(test)]
mod tests;
