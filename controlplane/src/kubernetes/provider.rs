//! Serves one cluster: what it asks for goes to the control plane, and what came of it back to the cluster.
//!
//! One task looks at everything anew after each change, so that there is no order of events to get wrong. As long as
//! the cluster does not answer, what was decided stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use shunt_api::config::{IpMode, Kubernetes};
use shunt_api::snapshot::Snapshot;
use tokio::sync::{Notify, watch};
use tracing::Level;

use super::access::connect;
use super::defined::{Judged, Teller};
use super::facts::{Facts, Family, ServiceKey};
use super::ipam::{Allocation, Ipam};
use super::picture::{Contact, Picture, follow};
use super::report::ownership::{Class, may_be_served};
use super::report::{self, Action, Outcome, Reporter};
use super::translate::wanted::Wanted;
use super::translate::{self, Addresses, Problem, Translated};
use super::write::{Writer, Written};
use crate::journal::{Happening, Journal};
use crate::until::until;

/// Changes that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Until a kubeconfig that could not be used is tried again.
const CONNECT_PAUSE: Duration = Duration::from_secs(5);
/// After so long without the dataplane's word people should know that it is waited for.
const OVERDUE: Duration = Duration::from_secs(2);

/// What a provider is connected to.
pub struct Outlets {
    /// What the cluster wants; `None` until that is known.
    pub wanted: watch::Sender<Option<Wanted>>,
    /// What the dataplane serves, all clusters and the file together.
    pub served: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Families in which there are addresses for mode `nat`.
    pub nat_families: BTreeSet<Family>,
    /// Where people look.
    pub journal: Journal,
}

/// Serves a cluster for ever.
pub async fn serve(cluster: Kubernetes, outlets: Outlets) {
    let client = connected(&cluster, &outlets.journal).await;
    let changed = Arc::new(Notify::new());
    let (contact, contacts) = watch::channel(Contact::default());
    let (picture, following) = follow(&client, &changed, contact);
    let provider = Provider::new(cluster, client, picture, outlets);
    tokio::join!(following, provider.run(&changed, contacts));
}

async fn connected(cluster: &Kubernetes, journal: &Journal) -> Client {
    let mut told = None;
    loop {
        let problem = match connect(&cluster.kubeconfig).await {
            Ok(client) => return client,
            Err(problem) => format!("{}: {problem}", cluster.kubeconfig.display()),
        };
        if told.as_ref() != Some(&problem) {
            tell(journal, cluster, Level::ERROR, "cannot be reached", Some(problem.clone()));
            told = Some(problem);
        }
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

fn tell(journal: &Journal, cluster: &Kubernetes, level: Level, text: &str, reason: Option<String>) {
    let name = cluster.name.as_ref().map_or_else(|| "cluster".to_owned(), |name| format!("cluster {name}"));
    journal.tell(Happening { level, subject: name, text: text.to_owned(), reason });
}

struct Provider {
    cluster: Kubernetes,
    class: Class,
    settings: translate::Settings,
    picture: Picture,
    outlets: Outlets,
    /// The file's pools and those of the cluster.
    defined: Judged,
    teller: Teller,
    ipam: Ipam,
    reporter: Reporter,
    writer: Writer,
    /// Since when the dataplane serves something else than what is wanted.
    waiting_since: Option<Instant>,
}

impl Provider {
    fn new(cluster: Kubernetes, client: Client, picture: Picture, outlets: Outlets) -> Self {
        let class = Class { name: cluster.class.clone(), default_class: cluster.default_class };
        let nat_ip_mode = match cluster.nat_ip_mode {
            IpMode::Vip => report::IpMode::Vip,
            IpMode::Proxy => report::IpMode::Proxy,
        };
        let settings = translate::Settings {
            cluster: cluster.name.clone(),
            mode: cluster.mode,
            include_excluded_nodes: cluster.include_excluded_nodes,
            nat_families: outlets.nat_families.clone(),
        };
        Self {
            reporter: Reporter::new(class.clone(), nat_ip_mode),
            teller: Teller::new(client.clone()),
            writer: Writer::new(client, class.name.clone()),
            cluster,
            class,
            settings,
            picture,
            outlets,
            defined: Judged::default(),
            ipam: Ipam::default(),
            waiting_since: None,
        }
    }

    async fn run(mut self, changed: &Notify, mut contacts: watch::Receiver<Contact>) {
        let mut served = self.outlets.served.clone();
        let mut complete = false;
        loop {
            tokio::select! {
                () = changed.notified(), if complete => {}
                () = self.picture.complete(), if !complete => {
                    complete = true;
                    tell(&self.outlets.journal, &self.cluster, Level::INFO, "is known", None);
                }
                // Fails only if the control plane is gone, and this with it.
                Ok(()) = served.changed(), if complete => {}
                Ok(()) = contacts.changed() => self.tell_contact(&contacts.borrow_and_update().clone()),
                () = until(self.next_look()), if complete => {}
            }
            if complete {
                tokio::time::sleep(DEBOUNCE).await;
                self.look().await;
            }
        }
    }

    /// Looks at everything, and does what follows.
    async fn look(&mut self) {
        let facts = self.picture.facts();
        let ours = facts.services.iter().filter(|(_, service)| may_be_served(service, &self.class));
        let ours: Vec<&ServiceKey> = ours.map(|(key, _)| key).collect();
        self.defined.update(&self.cluster.pools, self.picture.pools());
        let allocations = self.ipam.assign(&self.defined.pools, &facts, ours);
        let addresses: Addresses =
            allocations.iter().map(|(key, of)| (key.clone(), of.addresses.clone())).collect();
        let translated = translate::translate(&facts, &addresses, &self.settings);
        let wanted = translate::merged(translated.values());
        self.outlets.wanted.send_if_modified(|before| {
            let changes = before.as_ref() != Some(&wanted);
            *before = Some(wanted);
            changes
        });
        self.teller.tell(&self.defined.verdicts);
        let actions = self.report(&facts, &allocations, &translated);
        self.write(&facts, actions).await;
    }

    fn report(
        &mut self,
        facts: &Facts,
        allocations: &BTreeMap<ServiceKey, Allocation>,
        translated: &BTreeMap<ServiceKey, Translated>,
    ) -> BTreeMap<ServiceKey, Vec<Action>> {
        let served = self.outlets.served.borrow().clone();
        let programmed = served.as_ref().map(|snapshot| self.programmed(snapshot, facts));
        let problems: BTreeMap<&ServiceKey, Problem> = allocations
            .iter()
            .filter_map(|(key, of)| Some((key, of.problem.as_ref()?)))
            .map(|(key, refusal)| (key, Problem::new(refusal.reason.word(), refusal.message.clone())))
            .collect();
        let all = translated.iter().all(|(key, translated)| {
            let of = programmed.as_ref().and_then(|programmed| programmed.get(key));
            translated.vips().iter().all(|vip| of.is_some_and(|of| of.contains(vip)))
        });
        let now = Instant::now();
        self.waiting_since = if all { None } else { self.waiting_since.or(Some(now)) };
        let overdue = self.waiting_since.is_some_and(|since| now.duration_since(since) >= OVERDUE);
        self.reporter.report(&facts.services, |key| Outcome {
            addresses: allocations.get(key).map_or(&[][..], |of| &of.addresses),
            address_problem: problems.get(key),
            translated: translated.get(key),
            programmed: programmed
                .as_ref()
                .map(|programmed| programmed.get(key).map_or(&[][..], Vec::as_slice)),
            overdue,
        })
    }

    /// The addresses that the dataplane serves for each Service; names of services say whose they are.
    fn programmed(&self, snapshot: &Snapshot, facts: &Facts) -> BTreeMap<ServiceKey, Vec<IpAddr>> {
        let mut by_name: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for service in &snapshot.services {
            by_name.entry(&service.name).or_default().extend(&service.vips);
        }
        let of = |key: &ServiceKey| {
            let name = translate::name(&self.settings, key);
            let names = [name.clone(), format!("{name}/v4"), format!("{name}/v6")];
            names.iter().filter_map(|name| by_name.get(name.as_str())).flatten().copied().collect()
        };
        facts.services.keys().map(|key| (key.clone(), of(key))).collect()
    }

    async fn write(&mut self, facts: &Facts, actions: BTreeMap<ServiceKey, Vec<Action>>) {
        for (key, actions) in actions {
            let (Some(service), Some(object)) = (facts.services.get(&key), self.picture.service(&key)) else {
                continue;
            };
            match self.writer.carry_out(&key, service, &object, &actions).await {
                Written::Yes => self.reporter.written(service),
                Written::Owned => {
                    if let Some(event) = self.reporter.conflict(service) {
                        self.writer.tell(&key, &service.uid, &event).await;
                    }
                }
                Written::Failed => {}
            }
        }
    }

    fn next_look(&self) -> Option<Instant> {
        let overdue = self.waiting_since.map(|since| since + OVERDUE).filter(|at| *at > Instant::now());
        self.writer.next_try().into_iter().chain(overdue).min()
    }

    fn tell_contact(&self, contact: &Contact) {
        let problems: Vec<&str> = contact.problems.values().map(String::as_str).collect();
        let (level, text) = match problems.is_empty() {
            true => (Level::INFO, "answers again"),
            false => (Level::WARN, "does not answer; what is served stays as it is"),
        };
        let reason = (!problems.is_empty()).then(|| problems.join("; "));
        tell(&self.outlets.journal, &self.cluster, level, text, reason);
    }
}
