//! The one place where the pure [`State`] and [`Roster`] meet the world: events go in, effects come out, whoever asks
//! may look. Shared by the tasks of the single-threaded runtime; no lock is held across an `await`.

mod succession;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shunt_api::compile::compile;
use shunt_api::config::{Config, Kubernetes, LeftOut, Part};
use shunt_api::snapshot::{FleetKey, ProbeWay, Snapshot};
use shunt_api::status::{ClusterStatus, ConfigProblem, DataplaneStatus, DrainRequest};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tracing::Level;

use self::succession::{carried_over, left_behind};
use crate::announce::decide::{self, Grounds};
use crate::announce::{Announcing, Wanted, l2, route};
use crate::health::{HealthEvent, Runner};
use crate::journal::{Happening, Journal};
use crate::kubernetes::facts::Family;
use crate::kubernetes::seen::Seen;
use crate::kubernetes::translate::wanted::Wanted as ClusterWanted;
use crate::kubernetes::wants::{Name, Remembered, Wants};
use crate::kubernetes::{Clusters, subject};
use crate::roster::{Balance, Hops, Memory, Roster};
use crate::source::{Desired, Reading};
use crate::state::{Agreement, Effects, Event, Notice, State};
use crate::until::until;

/// Most results of checks taken in at once: what comes while one round is worked on.
const RESULTS_MAX: usize = 4_096;

/// What should be and what is.
#[derive(Debug)]
pub struct Model {
    /// The agreement with the dataplane.
    pub state: State,
    /// The backends.
    pub roster: Roster,
    watched: Watched,
    /// What the file says.
    file: Option<Desired>,
    /// What the clusters want.
    wants: Wants,
    /// What is seen of the clusters.
    seen: BTreeMap<Name, watch::Receiver<Seen>>,
}

/// What the checks were last set from, apart from the configuration.
#[derive(Debug, Default, PartialEq, Eq)]
struct Watched {
    ways: Vec<ProbeWay>,
    hops: Hops,
}

/// Tells what to announce.
#[derive(Debug, Default)]
struct Announce {
    l2: watch::Sender<Wanted<l2::Settings>>,
    routes: watch::Sender<Wanted<route::Settings>>,
    /// What was last told was decided from this.
    grounds: Option<Grounds>,
}

/// The model and its outlets.
pub struct Control {
    model: Mutex<Model>,
    /// The snapshot last published. Watched by the dataplane's task: only the newest matters.
    publish: watch::Sender<Option<Arc<Snapshot>>>,
    /// A snapshot is on its way. Watched by whoever waits for the answer.
    awaits_answer: watch::Sender<bool>,
    /// When to balance again.
    next_step: watch::Sender<Option<Instant>>,
    /// What a restart must not forget.
    memory: watch::Sender<Memory>,
    cluster_memory: watch::Sender<Remembered>,
    /// What of the clusters contradicts the file or each other.
    left_out: watch::Sender<Arc<Vec<LeftOut>>>,
    clusters: watch::Sender<Clusters>,
    /// What the file says.
    config: watch::Sender<Option<Arc<Config>>>,
    /// What the dataplane last agreed to.
    served: watch::Sender<Option<Arc<Snapshot>>>,
    /// Whether it can be relied on.
    agreement: watch::Sender<Agreement>,
    /// What to announce; `None` once that has ended.
    announce: Mutex<Option<Announce>>,
    runner: Runner,
    journal: Journal,
}

/// What all is decided by.
pub struct InForce {
    /// The backends.
    pub roster: Roster,
    /// Of the fleet.
    pub fleet_key: FleetKey,
    /// What clusters want.
    pub wanted: ClusterWanted,
    /// Number of the snapshot.
    pub generation: u64,
}

/// What came of taking a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Generation now wanted.
    pub generation: u64,
    /// Something differs from the configuration before.
    pub changed: bool,
}

impl Model {
    /// How the clusters are, in the order of the file.
    pub fn clusters(&self) -> Vec<ClusterStatus> {
        let clusters = self.file.iter().flat_map(|file| &file.config.kubernetes);
        let status = |Kubernetes { name, .. }: &Kubernetes| {
            let seen = self.seen.get(name).map(|seen| seen.borrow().clone()).unwrap_or_default();
            seen.status(name, self.wants.source(name))
        };
        clusters.map(status).collect()
    }
}

impl Control {
    /// Nothing configured, nothing connected; `memory` is that of the process before.
    pub fn new(runner: Runner, journal: Journal, memory: Memory) -> Self {
        let roster = Roster::new(memory.clone());
        let watched = Watched::default();
        let model = Model {
            state: State::default(),
            roster,
            watched,
            file: None,
            wants: Wants::default(),
            seen: BTreeMap::new(),
        };
        Self {
            model: Mutex::new(model),
            publish: watch::Sender::new(None),
            awaits_answer: watch::Sender::new(false),
            next_step: watch::Sender::new(None),
            memory: watch::Sender::new(memory),
            cluster_memory: watch::Sender::default(),
            left_out: watch::Sender::default(),
            clusters: watch::Sender::default(),
            config: watch::Sender::default(),
            served: watch::Sender::default(),
            agreement: watch::Sender::default(),
            announce: Mutex::new(Some(Announce::default())),
            runner,
            journal,
        }
    }

    /// Knows what the clusters wanted of the process before.
    pub fn remembering(self, remembered: Remembered) -> Self {
        self.cluster_memory.send_replace(remembered.clone());
        self.model().wants = Wants::new(remembered);
        self
    }

    /// Snapshots to send. Marked as changed by every publication, even of the same snapshot.
    pub fn published(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.publish.subscribe()
    }

    /// Starts to announce.
    pub fn announcing(&self) -> Announcing {
        let announce = self.announce();
        let announce = announce.as_ref().expect("it starts before it ends");
        Announcing::start(announce.l2.subscribe(), announce.routes.subscribe(), &self.journal)
    }

    /// Nothing is to be announced any more, by a control plane that stops.
    pub fn stop_announcing(&self) {
        self.announce().take();
    }

    /// What the file says.
    pub fn config(&self) -> watch::Receiver<Option<Arc<Config>>> {
        self.config.subscribe()
    }

    /// The clusters to serve.
    pub fn clusters(&self) -> watch::Receiver<Clusters> {
        self.clusters.subscribe()
    }

    /// What the dataplane serves; `None` while it has said nothing.
    pub fn served(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.served.subscribe()
    }

    /// Whether the dataplane can be relied on.
    pub fn agreement(&self) -> watch::Receiver<Agreement> {
        self.agreement.subscribe()
    }

    /// What a restart must not forget, as it changes.
    pub fn memory(&self) -> watch::Receiver<Memory> {
        self.memory.subscribe()
    }

    /// What a restart must not forget of the clusters, as it changes.
    pub fn cluster_memory(&self) -> watch::Receiver<Remembered> {
        self.cluster_memory.subscribe()
    }

    /// What of the clusters is not served as they want it, because of what else is configured.
    pub fn left_out(&self) -> watch::Receiver<Arc<Vec<LeftOut>>> {
        self.left_out.subscribe()
    }

    /// Shows people what is seen of a cluster.
    pub fn show_cluster(&self, name: &Name, seen: watch::Receiver<Seen>) {
        self.model().seen.insert(name.clone(), seen);
    }

    /// The health checks.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// What happened.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Takes in what the dataplane said, and carries out what follows.
    pub fn apply(&self, event: Event) {
        let mut model = self.model();
        let effects = model.state.apply(event, Instant::now());
        self.carry_out(&mut model, effects, false);
    }

    /// Takes in what a source gave.
    pub fn configure(&self, reading: Reading) -> Result<Reload, ConfigProblem> {
        let desired = match reading {
            Ok(desired) => desired,
            Err(problem) => {
                self.apply(Event::ConfigRefused(problem.clone()));
                return Err(problem);
            }
        };
        let mut model = self.model();
        let clusters = clusters(&desired.config);
        // One that is configured otherwise is asked anew, and until it answers what it wanted before holds.
        let carried = carried_over(&self.clusters.borrow().0, &clusters.0);
        left_behind(&self.clusters.borrow().0, &clusters.0, &carried)
            .for_each(|left| self.journal.tell(left));
        model.wants.carry_over(&carried);
        model.seen.retain(|name, _| clusters.0.iter().any(|cluster| cluster.name == *name));
        self.config.send_replace(Some(Arc::clone(&desired.config)));
        model.file = Some(*desired);
        self.clusters.send_if_modified(|before| replace(before, clusters));
        let changed = self.load(&mut model);
        Ok(Reload { generation: model.state.generation(), changed })
    }

    /// Takes in what a cluster wants.
    pub fn set_cluster(&self, name: &Name, wanted: ClusterWanted) {
        let mut model = self.model();
        if self.clusters.borrow().0.iter().any(|cluster| cluster.name == *name) {
            model.wants.set(name, wanted);
            self.load(&mut model);
        }
    }

    /// Goes by what is remembered of a cluster, unless it said what it wants.
    pub fn recall_cluster(&self, name: &Name) {
        let mut model = self.model();
        if !model.wants.knows(name) && model.wants.recall(name) {
            let text = "has not answered; what it wanted before is served from memory until it does";
            let (level, subject) = (Level::WARN, subject(name));
            self.journal.tell(Happening { level, subject, text: text.into(), reason: None });
            self.load(&mut model);
        }
    }

    /// Waits no longer for a cluster that has said nothing and of which nothing is remembered.
    pub fn do_without_cluster(&self, name: &Name) {
        let mut model = self.model();
        if model.wants.do_without(name) {
            let text = "has not answered, and nothing is known of before; all else is served without it";
            let (level, subject) = (Level::WARN, subject(name));
            self.journal.tell(Happening { level, subject, text: text.into(), reason: None });
            self.load(&mut model);
        }
    }

    /// Goes by the file and the clusters as they are. Returns whether anything changed.
    ///
    /// A control plane that has just started waits for a while until it knows what its clusters want, or remembers it:
    /// the dataplane goes on with what it has, and nothing is taken away because it is not known yet.
    fn load(&self, model: &mut Model) -> bool {
        self.cluster_memory.send_if_modified(|memory| replace(memory, model.wants.memory()));
        let Some(Desired { config, snapshot }) = model.file.clone() else { return false };
        let fresh = model.roster.config().is_none();
        if fresh && config.kubernetes.iter().any(|cluster| model.wants.is_awaited(&cluster.name)) {
            tracing::info!("waiting for what the clusters want; what is served stays");
            return false;
        }
        let warnings = config.warnings().to_vec();
        let (config, snapshot, left_out) = with_clusters(&model.wants.merged(), config, snapshot);
        self.tell_left_out(left_out);
        let changed = model.roster.load(config, snapshot);
        self.runner.set_never_from(model.roster.own_addresses());
        let loaded = |snapshot| Event::ConfigLoaded { snapshot: Box::new(snapshot), warnings };
        self.balance(model, loaded, true);
        changed
    }

    /// Says what is left out from now on.
    fn tell_left_out(&self, left_out: Vec<LeftOut>) {
        let before = Arc::clone(&self.left_out.borrow());
        for left in left_out.iter().filter(|left| !before.contains(left)) {
            let LeftOut { part, name, reason } = left;
            match part {
                Part::Service => tracing::warn!("service {name} is left out: {reason}"),
                Part::Check | Part::Backend => tracing::warn!("pool {name}: {reason}"),
            }
        }
        self.left_out.send_if_modified(|before| replace(before, Arc::new(left_out)));
    }

    /// Drains backends, or ends that. The error says that there is no such backend.
    pub fn set_drained(&self, request: &DrainRequest) -> Result<(), String> {
        let mut model = self.model();
        model.roster.set_drained(request)?;
        self.rebalance(&mut model);
        Ok(())
    }

    /// Takes in what checks find, for ever.
    pub async fn follow_checks(&self, mut results: UnboundedReceiver<HealthEvent>) {
        let mut taken = Vec::new();
        while results.recv_many(&mut taken, RESULTS_MAX).await > 0 {
            let mut model = self.model();
            model.roster.observe(std::mem::take(&mut taken));
            self.rebalance(&mut model);
        }
    }

    /// Balances again at each step of a slow start, for ever.
    pub async fn follow_steps(&self) {
        let mut next_step = self.next_step.subscribe();
        loop {
            let next = *next_step.borrow_and_update();
            tokio::select! {
                // Fails only if the sender is gone, and `self` holds it.
                _ = next_step.changed() => {}
                () = until(next) => self.rebalance(&mut self.model()),
            }
        }
    }

    /// A copy of what all is decided by; `None` before the first configuration.
    pub fn in_force(&self) -> Option<InForce> {
        let model = self.model();
        let fleet_key = model.file.as_ref()?.snapshot.fleet_key;
        let (roster, wanted) = (model.roster.clone(), model.wants.merged());
        Some(InForce { roster, fleet_key, wanted, generation: model.state.generation() })
    }

    /// Reads something from the model.
    pub fn look<T>(&self, read: impl FnOnce(&Model) -> T) -> T {
        read(&self.model())
    }

    /// Returns once no snapshot is on its way.
    pub async fn answered(&self) {
        let mut awaits_answer = self.awaits_answer.subscribe();
        // Fails only if the sender is gone, and `self` holds it.
        let _ = awaits_answer.wait_for(|awaits| !awaits).await;
    }

    fn rebalance(&self, model: &mut Model) {
        self.balance(model, |snapshot| Event::Rebalanced(Box::new(snapshot)), false);
    }

    fn balance(&self, model: &mut Model, event: impl FnOnce(Snapshot) -> Event, new_checks: bool) {
        let now = Instant::now();
        let Some(Balance { snapshot, happenings }) = model.roster.balance(now) else { return };
        let effects = model.state.apply(event(snapshot), now);
        self.next_step.send_replace(model.roster.next_step(now));
        self.carry_out(model, effects, new_checks);
        happenings.into_iter().for_each(|happening| self.journal.tell(happening));
        self.memory.send_if_modified(|memory| replace(memory, model.roster.memory()));
    }

    fn carry_out(&self, model: &mut Model, effects: Effects, new_checks: bool) {
        self.awaits_answer.send_replace(model.state.awaits_answer());
        // Before the dataplane: what it is to serve no longer is withdrawn first.
        self.set_announced(model);
        effects.notices.iter().for_each(log);
        if effects.publish.is_some() {
            self.publish.send_replace(effects.publish);
        }
        self.set_checks(model, new_checks);
        self.agreement.send_if_modified(|before| replace(before, model.state.agreement()));
        let served = model.state.served().cloned();
        self.served.send_if_modified(|before| {
            let same = match (&*before, &served) {
                (Some(before), Some(served)) => Arc::ptr_eq(before, served),
                (before, served) => before.is_none() && served.is_none(),
            };
            *before = served;
            !same
        });
    }

    /// Tells the runner what to check, if that has changed.
    fn set_checks(&self, model: &mut Model, new_checks: bool) {
        let (served, status) = (model.state.served(), model.state.dataplane());
        let delivers =
            |served: &Snapshot, status: &DataplaneStatus| served.probes.is_empty() || status.probes.is_some();
        let both = served.zip(status);
        self.runner.set_delivering(both.is_some_and(|(served, status)| delivers(served, status)));
        // A status of before the last snapshot says nothing of the links to its new backends.
        let current = both.filter(|(served, status)| status.generation == Some(served.generation));
        let Some((served, status)) = current else {
            // Checks that need the dataplane keep what is known of them until it is back.
            if new_checks {
                self.runner.set(model.roster.watches(&model.watched.ways, &model.watched.hops));
            }
            return;
        };
        let watched = Watched { ways: served.probes.clone(), hops: hops(status) };
        if new_checks || watched != model.watched {
            self.runner.set(model.roster.watches(&watched.ways, &watched.hops));
            model.watched = watched;
        }
    }

    fn set_announced(&self, model: &Model) {
        let mut announce = self.announce();
        let Some(Announce { l2, routes, grounds }) = announce.as_mut() else { return };
        let now = decide::grounds(&model.state, &model.roster);
        if grounds.as_ref() == Some(&now) {
            return;
        }
        let decision = decide::decide(&now, &model.roster);
        l2.send_if_modified(|wanted| replace(wanted, decision.l2));
        routes.send_if_modified(|wanted| replace(wanted, decision.routes));
        *grounds = Some(now);
    }

    fn announce(&self) -> MutexGuard<'_, Option<Announce>> {
        self.announce.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A configuration and its snapshot with what clusters want, and what of that is left out.
pub fn with_clusters(
    added: &ClusterWanted,
    config: Arc<Config>,
    snapshot: Snapshot,
) -> (Arc<Config>, Snapshot, Vec<LeftOut>) {
    let (extended, left_out) = config.extended(&added.pools, &added.services);
    if added.services.is_empty() {
        return (config, snapshot, left_out);
    }
    let whole = compile(&extended, snapshot.fleet_key);
    (Arc::new(extended), whole, left_out)
}

fn clusters(config: &Config) -> Clusters {
    (config.kubernetes.clone(), config.nat.sources.iter().map(|source| Family::of(*source)).collect())
}

/// Whether that changes anything.
fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changes = *old != new;
    *old = new;
    changes
}

fn hops(status: &DataplaneStatus) -> Hops {
    let resolved = status.next_hops.iter().filter_map(|hop| Some((hop.address, hop.resolved.as_ref()?)));
    resolved.map(|(address, hop)| (address, (hop.mtu, hop.nic.as_str().into()))).collect()
}

fn log(notice: &Notice) {
    match notice.level {
        Level::ERROR => tracing::error!("{}", notice.text),
        Level::WARN => tracing::warn!("{}", notice.text),
        _ => tracing::info!("{}", notice.text),
    }
}

#[cfg(test)]
mod tests;
