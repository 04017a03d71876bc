//! A double of the Kubernetes API for tests: in memory, without a socket, and by the clock that tests may stop. It keeps
//! objects of any kind and answers lists by pages, watches, JSON patches and applies of a status as the API server does,
//! as far as the provider can tell; and it can be late, broken or away. It notes what is written, in order.

pub mod objects;
mod patch;
mod respond;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// The double; clones are the same.
#[derive(Clone, Default)]
pub struct Api {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By kind, as in paths, and `NAMESPACE/NAME` or `NAME`.
    objects: BTreeMap<(String, String), Value>,
    /// What a watch is told: version, kind, type and object.
    history: Vec<(u64, String, &'static str, Value)>,
    /// Watches from before are told 410 Gone.
    oldest: u64,
    /// By whom, and what.
    writes: Vec<(&'static str, String)>,
    /// Most writes that were under way at once, and those that are.
    writing: (usize, usize),
    /// What is wrong, by request; the last rule is the first to be asked.
    rules: Vec<Rule>,
    /// Grows with every time that watches are broken; and how.
    breaks: u64,
    broken: Broken,
    silent: bool,
    /// Watches begun, and how many of the first of them are silent for ever.
    begun: u64,
    dead: u64,
    gone_as_event: bool,
}

type Rule = Arc<dyn Fn(&Request) -> Option<Fault> + Send + Sync>;

/// A request, as rules see it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Whose client sent it.
    pub from: &'static str,
    /// `list`, `watch`, `get`, `create`, `patch` (also of a status), `update` or `delete`.
    pub verb: &'static str,
    /// As in paths: `services`.
    pub kind: String,
    /// `NAMESPACE/NAME` or `NAME`; empty for lists.
    pub key: String,
    /// `status`.
    pub subresource: Option<String>,
    pub query: BTreeMap<String, String>,
    pub body: Value,
    /// Of a patch: the content type's last part.
    pub patch: String,
}

/// What a request meets with.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nobody listens.
    Refused,
    /// An answer with this code.
    Status(u16),
    /// It is answered so much later.
    Late(Duration),
    /// No answer, ever.
    Silence,
}

/// How a watch breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// As the API server ends one.
    #[default]
    Ended,
    /// In the middle of a line.
    MidLine,
}

impl Api {
    /// A client of it.
    pub fn client(&self) -> Client {
        self.client_of("")
    }

    /// A client of it that rules can tell from others.
    pub fn client_of(&self, from: &'static str) -> Client {
        let api = self.clone();
        Client::new(tower::service_fn(move |request| api.clone().serve(from, request)), "default")
    }

    /// Puts an object there, new or changed; its kind is as in paths.
    pub fn put(&self, kind: &str, object: Value) {
        self.state().put(kind, object);
        self.inner.changed.notify_waiters();
    }

    /// Changes an object.
    pub fn change(&self, kind: &str, key: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.object(kind, key).unwrap_or_else(|| panic!("there is no {kind} {key}"));
        change(&mut object);
        self.put(kind, object);
    }

    /// Deletes an object, or marks it if it has finalizers.
    pub fn delete(&self, kind: &str, key: &str) {
        let mut state = self.state();
        let mut object = state.objects[&(kind.to_owned(), key.to_owned())].clone();
        object["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        state.put(kind, object);
        drop(state);
        self.inner.changed.notify_waiters();
    }

    /// An object as it is.
    pub fn object(&self, kind: &str, key: &str) -> Option<Value> {
        self.state().objects.get(&(kind.to_owned(), key.to_owned())).cloned()
    }

    /// What was written since this was last asked, in words, with the code of what was refused; Leases apart.
    pub fn writes(&self) -> Vec<String> {
        self.writes_by_client().into_iter().map(|(_, write)| write).collect()
    }

    /// The same with whose client wrote it.
    pub fn writes_by_client(&self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.state().writes)
    }

    /// Most writes that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.state().writing.0
    }

    /// From now on, where a rule of later has nothing to say.
    pub fn rule(&self, rule: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) {
        self.state().rules.push(Arc::new(rule));
    }

    /// No rule holds any longer, and watches speak again.
    pub fn mend(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.silent = false;
    }

    /// Nobody listens any more, until [`Self::mend`].
    pub fn go_away(&self) {
        self.rule(|_| Some(Fault::Refused));
        self.break_watches(Broken::MidLine);
    }

    /// Nobody listens to one client any more, until [`Self::mend`].
    pub fn cut_off(&self, from: &'static str) {
        self.rule(move |request| (request.from == from).then_some(Fault::Refused));
        self.break_watches(Broken::MidLine);
    }

    /// Ends all watches.
    pub fn break_watches(&self, broken: Broken) {
        let mut state = self.state();
        state.breaks += 1;
        state.broken = broken;
        drop(state);
        self.inner.changed.notify_waiters();
    }

    /// Watches say nothing any more, and do not end.
    pub fn fall_silent(&self) {
        self.state().silent = true;
    }

    /// Watches that begin from now on do; those of before stay silent.
    pub fn speak_on_new_watches(&self) {
        let mut state = self.state();
        state.silent = false;
        state.dead = state.begun;
    }

    /// Forgets all that has been: watches begin anew with a list. They are told by an event, or else by the answer.
    pub fn compact(&self, as_event: bool) {
        let mut state = self.state();
        state.oldest = state.version;
        state.history.clear();
        state.gone_as_event = as_event;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }
}

impl State {
    fn put(&mut self, kind: &str, mut object: Value) {
        let key = (kind.to_owned(), key_of(&object));
        let same = |before: &Value| {
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            object == *before
        };
        if self.objects.get(&key).is_some_and(same) {
            return;
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let metadata = &object["metadata"];
        let held = metadata["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
        let gone = !metadata["deletionTimestamp"].is_null() && !held;
        let before = if gone { self.objects.remove(&key) } else { self.objects.insert(key, object.clone()) };
        let event = match (gone, before) {
            (true, _) => "DELETED",
            (false, Some(_)) => "MODIFIED",
            (false, None) => "ADDED",
        };
        self.history.push((self.version, kind.to_owned(), event, object));
    }
}

fn key_of(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().expect("objects have names");
    metadata["namespace"].as_str().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}
