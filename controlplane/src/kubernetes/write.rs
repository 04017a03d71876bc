//! Carries out what [`super::report`] asks for: several Services at once, what is to be done for one in order until
//! something fails. A failure is logged, and since actions are given anew as long as the watched object does not show
//! them done, nothing more is needed to try again, but not at once. Events are given only once, so those that were not
//! told are kept until what goes before them is done.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Error};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::election::{DEADLINE, LEASE};
use super::facts::{Labels, ServiceKey};
use super::report::status::Status;
use super::report::{self, Action, bodies};
use super::term::Gate;
use crate::until::now;

/// Whose the fields are that we apply, and who reports events.
const MANAGER: &str = "shunt";
/// Until a Service of which something could not be written is tried again, doubled for each further time.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// Then it is as seldom as the cloud provider's (facts: 5 min).
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// Services written to at once: a slow API then holds up few, and a quick one gets no flood.
const AT_ONCE: usize = 16;
/// Without an answer for so long a write has failed. What a leader does last has ended before another may lead.
const ANSWER_WITHIN: Duration = LEASE.saturating_sub(DEADLINE);
/// For so long what was written is expected to be seen, before it is written again.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// What is to be done for a Service.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub key: ServiceKey,
    /// As it was seen.
    pub object: Arc<Service>,
    /// In order.
    pub actions: Vec<Action>,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All was carried out.
    Yes,
    /// The status is another manager's: it was refused, or taken and nothing came of it.
    Owned,
    /// Something else; logged, unless the gate was shut.
    Failed,
}

/// Writes to one cluster.
pub struct Writer {
    hand: Hand,
    /// By uid: Services that are let alone for now.
    resting: HashMap<String, Rest>,
    /// By uid: how long was waited after the last of the failures in a row.
    pauses: HashMap<String, Duration>,
    /// By uid: events that are still to be told.
    owed: HashMap<String, Job>,
    queue: VecDeque<Job>,
    /// By uid: Services that are being written to.
    busy: HashSet<String>,
    running: JoinSet<(Job, Result<(), Failure>)>,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    /// Or until it looks otherwise than in this version; `None`: whatever it looks like.
    written: Option<String>,
}

/// The action that failed, and why.
type Failure = (usize, Why);

enum Why {
    /// The gate was shut.
    Shut,
    /// The API took it, and nothing came of it: another manager has the same in its share.
    Futile,
    Api(Box<Error>),
}

impl Writer {
    /// `class` is the value of the mark; nothing is written while the gate is shut.
    pub fn new(client: Client, class: String, gate: Gate) -> Self {
        Self {
            hand: Hand { client, class: class.into(), gate },
            resting: HashMap::new(),
            pauses: HashMap::new(),
            owed: HashMap::new(),
            queue: VecDeque::new(),
            busy: HashSet::new(),
            running: JoinSet::new(),
        }
    }

    /// When something is to be tried again.
    pub fn next_try(&self) -> Option<Instant> {
        self.resting.values().map(|rest| rest.until).min()
    }

    /// Whether it makes sense to ask what is to be done for a Service: it does not while what was decided last is being
    /// written, or was and is not seen yet, or failed a moment ago.
    pub fn is_free(&self, uid: &str, version: impl FnOnce() -> Option<String>) -> bool {
        let rests = |rest: &Rest| now() < rest.until && (rest.written.is_none() || version() == rest.written);
        !self.busy.contains(uid) && !self.resting.get(uid).is_some_and(rests)
    }

    /// What is to be done for Services that are free. Takes the place of what was not begun.
    pub fn set(&mut self, jobs: Vec<Job>) {
        std::mem::take(&mut self.queue).into_iter().for_each(|job| self.owe(job));
        let asked: HashSet<&str> = jobs.iter().map(Job::uid).collect();
        self.resting.retain(|uid, rest| !asked.contains(uid.as_str()) && now() < rest.until);
        let (busy, resting) = (&self.busy, &self.resting);
        self.pauses
            .retain(|uid, _| asked.contains(uid.as_str()) || busy.contains(uid) || resting.contains_key(uid));
        for mut job in jobs {
            job.actions.extend(self.owed.remove(job.uid()).into_iter().flat_map(|owed| owed.actions));
            self.queue.push_back(job);
        }
        let told = |uid: &String, _: &mut Job| !busy.contains(uid) && !resting.contains_key(uid);
        self.queue.extend(self.owed.extract_if(told).map(|(_, job)| job));
        self.start();
    }

    /// The next job to end, and what became of it; `None` if none is under way.
    pub async fn ended(&mut self) -> Option<(Job, Written)> {
        let (job, result) = self.running.join_next().await?.expect("a write neither panics nor is aborted");
        self.busy.remove(job.uid());
        let written = self.note(&job, result);
        self.start();
        Some((job, written))
    }

    /// Says something about a Service as soon as may be.
    pub fn tell(&mut self, job: &Job, event: report::events::Event) {
        let job = Job { actions: vec![Action::Event(event)], ..job.clone() };
        self.queue.push_front(job);
        self.start();
    }

    fn start(&mut self) {
        while self.running.len() < AT_ONCE && self.hand.gate.is_open() {
            let Some(job) = self.queue.pop_front() else { return };
            self.busy.insert(job.uid().to_owned());
            let hand = self.hand.clone();
            self.running.spawn(async move {
                let result = hand.carry_out(&job).await;
                (job, result)
            });
        }
    }

    fn note(&mut self, job: &Job, result: Result<(), Failure>) -> Written {
        let uid = job.uid().to_owned();
        let Err((at, why)) = result else {
            if job.writes() {
                self.pauses.remove(&uid);
                let written = job.object.metadata.resource_version.clone();
                self.resting.insert(uid, Rest { until: now() + SHOWN_WITHIN, written });
            }
            return Written::Yes;
        };
        if matches!(why, Why::Shut) {
            return Written::Failed;
        }
        let pause = self.pauses.get(&uid).map_or(BACK_OFF_MIN, |pause| (*pause * 2).min(BACK_OFF_MAX));
        self.pauses.insert(uid.clone(), pause);
        self.resting.insert(uid, Rest { until: now() + pause, written: None });
        self.owe(Job { actions: job.actions[at..].to_vec(), ..job.clone() });
        match why {
            Why::Api(error) if !is_owned(&error) => {
                tracing::warn!("Service {}: {error}; trying again in {pause:?}", job.key);
                Written::Failed
            }
            _ => Written::Owned,
        }
    }

    /// Keeps the events of a job that was not, or not wholly, carried out.
    fn owe(&mut self, mut job: Job) {
        job.actions.retain(|action| matches!(action, Action::Event(_)));
        if job.actions.is_empty() {
            return;
        }
        match self.owed.get_mut(job.uid()) {
            Some(owed) => owed.actions.append(&mut job.actions),
            None => drop(self.owed.insert(job.uid().to_owned(), job)),
        }
    }
}

impl Job {
    /// Of its object.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// More than events.
    pub fn writes(&self) -> bool {
        self.actions.iter().any(|action| !matches!(action, Action::Event(_)))
    }
}

/// What does the writing.
#[derive(Clone)]
struct Hand {
    client: Client,
    class: Arc<str>,
    gate: Gate,
}

impl Hand {
    async fn carry_out(&self, job: &Job) -> Result<(), Failure> {
        for (at, action) in job.actions.iter().enumerate() {
            if !self.gate.is_open() {
                return Err((at, Why::Shut));
            }
            let done = answered(self.one(job, action)).await;
            if !done.map_err(|error| (at, Why::Api(Box::new(error))))? {
                return Err((at, Why::Futile));
            }
        }
        Ok(())
    }

    /// Whether anything came of it, as far as it matters: what is released is so even if another shows the same.
    async fn one(&self, job: &Job, action: &Action) -> Result<bool, Error> {
        let (key, uid) = (&job.key, job.uid());
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let finalizers = job.object.metadata.finalizers.as_deref().unwrap_or_default();
        let none = Labels::new();
        let annotations = job.object.metadata.annotations.as_ref().unwrap_or(&none);
        match action {
            Action::AddFinalizer => {
                patched(&api, key, bodies::claim(uid, finalizers, annotations, &self.class)).await?;
            }
            Action::RemoveFinalizer => {
                patched(&api, key, bodies::release(uid, finalizers, annotations)).await?;
            }
            Action::PatchStatus(status) => {
                let after = applied(&api, key, uid, status).await?;
                return Ok(after.metadata.resource_version != job.object.metadata.resource_version);
            }
            Action::ClearStatus => match applied(&api, key, uid, &Status::default()).await {
                Err(Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            },
            Action::Event(event) => self.tell(key, uid, event).await,
        }
        Ok(true)
    }

    /// What cannot be said is logged: nothing depends on it.
    async fn tell(&self, key: &ServiceKey, uid: &str, event: &report::events::Event) {
        let event = Event {
            type_: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.clone(),
            note: Some(event.message.clone()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = publish(&self.client, &event, &reference(key, uid)).await {
            tracing::warn!("event {} of Service {key}: {error}", event.reason);
        }
    }
}

/// By way of the status, which changes metadata, too: so nobody need let this box change what Services are.
async fn patched(api: &Api<Service>, key: &ServiceKey, body: Option<Value>) -> Result<(), Error> {
    let Some(body) = body else { return Ok(()) };
    let patch = serde_json::from_value(body).map_err(Error::SerdeError)?;
    api.patch_status(&key.name, &PatchParams::default(), &Patch::<()>::Json(patch)).await.map(drop)
}

/// Without force: fields of another manager are an error. What came of it; one that nothing came of has its old version.
async fn applied(api: &Api<Service>, key: &ServiceKey, uid: &str, status: &Status) -> Result<Service, Error> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let body = bodies::status(key, uid, status, &now);
    api.patch_status(&key.name, &PatchParams::apply(MANAGER), &Patch::Apply(body)).await
}

/// Tells something of an object.
pub async fn publish(client: &Client, event: &Event, about: &ObjectReference) -> Result<(), Error> {
    // One that is kept takes an event with the reason of an earlier one for its repetition, and drops the note.
    // Nothing that is said here is a repetition.
    let reporter = Reporter { controller: "shunt.dev/controlplane".into(), instance: None };
    Recorder::new(client.clone(), reporter).publish(event, about).await
}

/// What came of a write; without an answer in time it has failed.
pub async fn answered<T>(write: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let no_answer = |_| Err(Error::Service(format!("no answer within {ANSWER_WITHIN:?}").into()));
    timeout(ANSWER_WITHIN, write).await.unwrap_or_else(no_answer)
}

fn is_owned(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
    serde_json::to_value(status).is_ok_and(|answer| bodies::is_owned_by_another(&answer))
}

fn reference(key: &ServiceKey, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
