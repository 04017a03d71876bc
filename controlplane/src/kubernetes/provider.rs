//! Serves one cluster: what it asks for goes to the control plane, and what came of it back to the cluster.
//!
//! One task looks at everything anew after each change, so that there is no order of events to get wrong. As long as
//! the cluster does not answer, what was decided stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kube::Client;
use shunt_api::config::{Config, Kubernetes, LeftOut, Taken};
use shunt_api::snapshot::Snapshot;
use shunt_api::status::TimeMs;
use tokio::sync::{Notify, watch};
use tracing::Level;

use super::access::connect;
use super::defined::{Judged, Teller};
use super::election::Seat;
use super::facts::{Facts, Family, ServiceKey};
use super::ipam::{Allocation, Ipam, Refusal};
use super::picture::{Contact, Picture, follow};
use super::report::ownership::{Class, may_be_served};
use super::report::{Action, Outcome, Reporter};
use super::seen::{self, Seen, add_left_out, left_out};
use super::subject;
use super::term::{Role, Terms, Turn};
use super::translate::wanted::Wanted;
use super::translate::{self, Addresses, Problem, Translated};
use super::write::{Job, Writer, Written};
use crate::journal::{Happening, Journal};
use crate::until::{now, until};

/// Changes that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Until a kubeconfig that could not be used is tried again.
const CONNECT_PAUSE: Duration = Duration::from_secs(5);
/// For so long the cluster waits until the dataplane was told.
const TELL_WITHIN: Duration = Duration::from_millis(100);
/// After so long without the dataplane's word people should know that it is waited for.
const OVERDUE: Duration = Duration::from_secs(2);

/// What a provider is connected to.
pub struct Outlets {
    /// What the cluster wants; `None` until that is known.
    pub wanted: watch::Sender<Option<Wanted>>,
    /// What people are shown.
    pub seen: watch::Sender<Seen>,
    /// What the dataplane serves, all clusters and the file together.
    pub served: watch::Receiver<Option<Arc<Snapshot>>>,
    /// What of all clusters cannot be served as they want it.
    pub left_out: watch::Receiver<Arc<Vec<LeftOut>>>,
    /// The file, which has addresses, too.
    pub config: watch::Receiver<Option<Arc<Config>>>,
    /// Families in which there are addresses for mode `nat`.
    pub nat_families: BTreeSet<Family>,
    /// How this box stands in the election.
    pub seat: watch::Receiver<Seat>,
    /// Where people look.
    pub journal: Journal,
}

impl Outlets {
    /// Shows people whether the API server answers, by the watches and by the Lease.
    fn show_contact(&self, contact: &Contact) {
        // What is borrowed of a channel must be given back before it is written.
        let reason = seen::absence(contact, &self.seen.borrow().seat);
        self.set_away(reason);
    }

    fn set_away(&self, reason: Option<String>) {
        let now = TimeMs::of(SystemTime::now());
        self.seen.send_if_modified(|seen| seen.set_away(reason, now));
    }
}

/// Serves a cluster for ever.
pub async fn serve(cluster: Kubernetes, client: Client, outlets: Outlets) {
    let changed = Arc::new(Notify::new());
    let (contact, contacts) = watch::channel(Contact::default());
    let (picture, following) = follow(&client, &changed, contact);
    let provider = Provider::new(cluster, client, picture, outlets);
    tokio::join!(following, provider.run(&changed, contacts));
}

/// How to reach a cluster, once its kubeconfig can be used.
pub async fn connected(cluster: &Kubernetes, outlets: &Outlets) -> Client {
    let mut told = None;
    loop {
        let problem = match connect(&cluster.kubeconfig).await {
            Ok(client) => {
                outlets.set_away(None);
                return client;
            }
            Err(problem) => format!("{}: {problem}", cluster.kubeconfig.display()),
        };
        if told.as_ref() != Some(&problem) {
            tell(&outlets.journal, cluster, Level::ERROR, "cannot be reached", Some(problem.clone()));
            outlets.set_away(Some(problem.clone()));
            told = Some(problem);
        }
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

fn tell(journal: &Journal, cluster: &Kubernetes, level: Level, text: &str, reason: Option<String>) {
    journal.tell(Happening { level, subject: subject(&cluster.name), text: text.to_owned(), reason });
}

/// What of the allocations is to be told, for a human.
fn problems(
    allocations: &BTreeMap<ServiceKey, Allocation>,
    of: impl Fn(&Allocation) -> Option<&Refusal>,
) -> BTreeMap<ServiceKey, Problem> {
    let problem = |(key, allocation): (&ServiceKey, &Allocation)| {
        let refusal = of(allocation)?;
        Some((key.clone(), Problem::new(refusal.reason.word(), refusal.message.clone())))
    };
    allocations.iter().filter_map(problem).collect()
}

struct Provider {
    cluster: Kubernetes,
    class: Class,
    settings: translate::Settings,
    picture: Picture,
    contact: Contact,
    outlets: Outlets,
    /// What the file gives to whom but this cluster's pools.
    taken: Vec<Taken>,
    /// The file's pools and those of the cluster.
    defined: Judged,
    teller: Teller,
    ipam: Ipam,
    /// Why Services had to leave an address, for those that were not told yet.
    moved: BTreeMap<ServiceKey, Problem>,
    reporter: Reporter,
    client: Client,
    writer: Writer,
    terms: Terms,
    /// Since when the dataplane serves something else for a Service than what is wanted.
    waiting_since: BTreeMap<ServiceKey, Instant>,
    /// Since when the cluster is to be told something.
    untold_since: Option<Instant>,
}

impl Provider {
    fn new(cluster: Kubernetes, client: Client, picture: Picture, outlets: Outlets) -> Self {
        let class = Class { name: cluster.class.clone(), default_class: cluster.default_class };
        let nat_ip_mode = cluster.nat_ip_mode;
        let settings = translate::Settings {
            cluster: cluster.name.clone(),
            mode: cluster.mode,
            include_excluded_nodes: cluster.include_excluded_nodes,
            nat_families: outlets.nat_families.clone(),
        };
        let terms = Terms::new(outlets.seat.clone());
        Self {
            reporter: Reporter::new(class.clone(), nat_ip_mode),
            teller: Teller::new(client.clone(), terms.gate()),
            writer: Writer::new(client.clone(), class.name.clone(), terms.gate()),
            client,
            terms,
            cluster,
            class,
            settings,
            picture,
            contact: Contact::default(),
            outlets,
            taken: Vec::new(),
            defined: Judged::default(),
            ipam: Ipam::default(),
            moved: BTreeMap::new(),
            waiting_since: BTreeMap::new(),
            untold_since: None,
        }
    }

    async fn run(mut self, changed: &Notify, mut contacts: watch::Receiver<Contact>) {
        let (mut served, mut left_out) = (self.outlets.served.clone(), self.outlets.left_out.clone());
        let mut config = self.outlets.config.clone();
        config.mark_changed();
        let mut complete = false;
        // When to look next, and the earliest time for it.
        let (mut due, mut rested) = (None, now());
        loop {
            if complete {
                let (picture, client) = (&self.picture, &self.client);
                self.terms.prepare(|| picture.is_current(client.clone()));
            }
            let due_by_itself = self.next_look().filter(|_| complete);
            let calls_for_look = tokio::select! {
                () = changed.notified(), if complete => true,
                turn = self.terms.turn() => {
                    self.turn(&turn);
                    complete
                }
                () = self.picture.complete(), if !complete => {
                    complete = true;
                    tell(&self.outlets.journal, &self.cluster, Level::INFO, "is known", None);
                    true
                }
                // Fails only if the control plane is gone, and this with it.
                Ok(()) = served.changed(), if complete => true,
                Ok(()) = left_out.changed(), if complete => true,
                Ok(()) = config.changed() => {
                    self.take_file(config.borrow_and_update().as_deref());
                    complete
                }
                Ok(()) = contacts.changed() => {
                    let before = std::mem::replace(&mut self.contact, contacts.borrow_and_update().clone());
                    self.tell_contact(&before);
                    false
                }
                Some((job, written)) = self.writer.ended() => self.take_note(&job, written),
                () = until(due.into_iter().chain(due_by_itself).min()) => {
                    let began = now();
                    self.look().await;
                    // While much changes, half of the time is for other tasks.
                    rested = now() + (now() - began);
                    due = None;
                    false
                }
            };
            if calls_for_look {
                due = due.or_else(|| Some(rested.max(now() + DEBOUNCE)));
            }
        }
    }

    fn take_file(&mut self, config: Option<&Config>) {
        self.taken =
            config.map(|config| config.taken_beside(self.cluster.name.as_deref())).unwrap_or_default();
        self.defined = Judged::default();
    }

    /// Looks at everything, and does what follows.
    async fn look(&mut self) {
        let facts = self.picture.facts();
        let ours = facts.services.iter().filter(|(_, service)| may_be_served(service, &self.class));
        let ours: Vec<&ServiceKey> = ours.map(|(key, _)| key).collect();
        let role = self.terms.role();
        self.defined.update(&self.cluster.pools, &self.taken, self.picture.pools());
        let allocations = self.allocate(role, &facts, ours);
        let addresses: Addresses =
            allocations.iter().map(|(key, of)| (key.clone(), of.addresses.clone())).collect();
        let mut translated = translate::translate(&facts, &addresses, &self.settings);
        add_left_out(&mut translated, &self.outlets.left_out.borrow());
        let wanted = translate::merged(translated.values());
        let changes = self.outlets.wanted.send_if_modified(|before| {
            let changes = before.as_ref() != Some(&wanted);
            *before = Some(wanted);
            changes
        });
        self.show(&facts, &allocations, &translated);
        if role != Role::Leader {
            return;
        }
        self.moved.extend(problems(&allocations, |of| of.moved.as_ref()));
        if self.is_told_later(changes) {
            // What is wanted goes to the dataplane now, and counts as part of the look.
            tokio::task::yield_now().await;
            return;
        }
        self.teller.tell(&self.defined.verdicts);
        let actions = self.report(&facts, &allocations, &translated);
        self.writer.set(self.jobs(actions));
    }

    fn show(
        &self,
        facts: &Facts,
        allocations: &BTreeMap<ServiceKey, Allocation>,
        translated: &BTreeMap<ServiceKey, Translated>,
    ) {
        let served = self.outlets.served.borrow().clone();
        let services = seen::count(facts, &self.class, allocations, translated, served.as_deref());
        self.outlets.seen.send_modify(|seen| seen.services = Some(services));
    }

    fn allocate(
        &mut self,
        role: Role,
        facts: &Facts,
        ours: Vec<&ServiceKey>,
    ) -> BTreeMap<ServiceKey, Allocation> {
        let offer = self.defined.offer();
        match role {
            Role::Leader => self.ipam.assign(offer, facts, ours),
            Role::Nobody => self.ipam.keep(offer, facts, ours),
            Role::Follower => {
                // What another decides is in the status, and there alone.
                self.ipam = Ipam::default();
                self.ipam.keep(offer, facts, ours)
            }
        }
    }

    fn turn(&mut self, turn: &Turn) {
        match turn {
            Turn::Begun => {
                let class = self.class.clone();
                self.writer = Writer::new(self.client.clone(), class.name.clone(), self.terms.gate());
                self.teller = Teller::new(self.client.clone(), self.terms.gate());
                self.reporter = Reporter::new(class, self.cluster.nat_ip_mode);
                self.ipam = Ipam::default();
                self.moved.clear();
            }
            Turn::Seat(seat) => {
                self.outlets.seen.send_modify(|seen| seen.seat = seat.clone());
                self.outlets.show_contact(&self.contact);
                let (level, text, reason) = seat.words();
                tell(&self.outlets.journal, &self.cluster, level, &text, reason);
            }
        }
    }

    /// What is wanted changed, and so the dataplane comes first: its answer calls for a look that tells all, or, if there
    /// is none, the time does.
    fn is_told_later(&mut self, changes: bool) -> bool {
        let since = *self.untold_since.get_or_insert_with(now);
        if changes && now() < since + TELL_WITHIN {
            return true;
        }
        self.untold_since = None;
        false
    }

    fn report(
        &mut self,
        facts: &Facts,
        allocations: &BTreeMap<ServiceKey, Allocation>,
        translated: &BTreeMap<ServiceKey, Translated>,
    ) -> BTreeMap<ServiceKey, Vec<Action>> {
        let served = self.outlets.served.borrow().clone();
        let programmed = served.as_ref().map(|snapshot| self.programmed(snapshot, facts));
        let problems = problems(allocations, |of| of.problem.as_ref());
        let overdue = self.overdue(translated, programmed.as_ref());
        let (writer, picture) = (&self.writer, &self.picture);
        let version = |key: &ServiceKey| picture.service(key)?.metadata.resource_version.clone();
        let is_free = |key: &ServiceKey| writer.is_free(&facts.services[key].uid, || version(key));
        let moved = std::mem::take(&mut self.moved);
        let actions = self.reporter.report(&facts.services, |key| {
            is_free(key).then(|| Outcome {
                addresses: allocations.get(key).map_or(&[][..], |of| &of.addresses),
                address_problem: problems.get(key),
                moved: moved.get(key),
                translated: translated.get(key),
                programmed: programmed
                    .as_ref()
                    .map(|programmed| programmed.get(key).map_or(&[][..], Vec::as_slice)),
                overdue: overdue.contains(key),
            })
        });
        let later = |(key, _): &(ServiceKey, _)| facts.services.contains_key(key) && !is_free(key);
        self.moved = moved.into_iter().filter(later).collect();
        actions
    }

    /// Services that the dataplane, which is there, should serve by now and does not.
    fn overdue(
        &mut self,
        translated: &BTreeMap<ServiceKey, Translated>,
        programmed: Option<&BTreeMap<ServiceKey, Vec<IpAddr>>>,
    ) -> BTreeSet<ServiceKey> {
        let waits = |(key, translated): &(&ServiceKey, &Translated)| {
            let served =
                |vip: &IpAddr| programmed.is_none_or(|all| all.get(*key).is_some_and(|of| of.contains(vip)));
            !translated.vips().iter().all(served) && left_out(translated).is_none()
        };
        let (now, before) = (now(), std::mem::take(&mut self.waiting_since));
        let since = |key: &ServiceKey| before.get(key).copied().unwrap_or(now);
        let waiting = translated.iter().filter(waits).map(|(key, _)| (key.clone(), since(key)));
        self.waiting_since = waiting.collect();
        let overdue = self.waiting_since.iter().filter(|(_, since)| now.duration_since(**since) >= OVERDUE);
        overdue.map(|(key, _)| key.clone()).collect()
    }

    /// The addresses that the dataplane serves for each Service; names of services say whose they are.
    fn programmed(&self, snapshot: &Snapshot, facts: &Facts) -> BTreeMap<ServiceKey, Vec<IpAddr>> {
        let mut by_name: HashMap<&str, Vec<IpAddr>> = HashMap::new();
        for service in &snapshot.services {
            by_name.entry(&service.name).or_default().extend(&service.vips);
        }
        let mut of = |key: &ServiceKey| {
            let mut name = translate::name(&self.settings, key);
            let mut vips = by_name.remove(name.as_str()).unwrap_or_default();
            let whole = name.len();
            for family in ["/v4", "/v6"] {
                name.truncate(whole);
                name += family;
                vips.extend(by_name.remove(name.as_str()).unwrap_or_default());
            }
            vips
        };
        facts.services.keys().map(|key| (key.clone(), of(key))).collect()
    }

    fn jobs(&self, actions: BTreeMap<ServiceKey, Vec<Action>>) -> Vec<Job> {
        let job = |(key, actions)| Some(Job { object: self.picture.service(&key)?, key, actions });
        actions.into_iter().filter_map(job).collect()
    }

    /// Whether to look again: what was written is seen already, so no change will call for a look.
    fn take_note(&mut self, job: &Job, written: Written) -> bool {
        let uid = job.uid();
        match written {
            Written::Yes if job.writes() => self.reporter.written(uid),
            Written::Owned => {
                if let Some(event) = self.reporter.conflict(uid) {
                    self.writer.tell(job, event);
                }
            }
            Written::Yes | Written::Failed => {}
        }
        self.picture.service(&job.key).is_none_or(|object| !Arc::ptr_eq(&object, &job.object))
    }

    fn next_look(&self) -> Option<Instant> {
        if self.terms.role() != Role::Leader {
            return None;
        }
        let overdue = self.waiting_since.values().map(|since| *since + OVERDUE);
        let overdue = overdue.filter(|at| *at > now()).min();
        let untold = self.untold_since.map(|since| since + TELL_WITHIN);
        let tries = self.writer.next_try().into_iter().chain(self.teller.next_try());
        tries.chain(overdue).chain(untold).min()
    }

    fn tell_contact(&self, before: &Contact) {
        self.outlets.show_contact(&self.contact);
        let reason = self.contact.reason();
        let (level, text) = match &reason {
            None if before.reason().is_some() => (Level::INFO, "answers again"),
            Some(_) if self.contact.is_worse_than(before) => {
                (Level::WARN, "does not answer; what is served stays as it is")
            }
            // Over before anybody looked, or over in part.
            _ => return,
        };
        tell(&self.outlets.journal, &self.cluster, level, text, reason);
    }
}

#[cfg(test)]
mod tests;
