//! Carries out what [`super::report`] asks for. A failure is logged, and since actions are given anew as long as the
//! watched object does not show them done, nothing more is needed to try again, but not at once.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Error};
use serde_json::Value;

use super::facts::{self, ServiceKey};
use super::report::status::Status;
use super::report::{self, Action, bodies};

/// Whose the fields are that we apply, and who reports events.
const MANAGER: &str = "shunt";
/// Until a Service of which something could not be written is tried again, doubled for each further time.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// Then it is as seldom as the cloud provider's (facts: 5 min).
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// What became of the actions for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All were carried out.
    Yes,
    /// The status is another manager's.
    Owned,
    /// Something else; logged. Or something failed before, and it is too early to try again.
    Failed,
}

/// Writes to one cluster.
pub struct Writer {
    client: Client,
    class: String,
    /// By uid: when to try again, and how long was waited before.
    waiting: HashMap<String, (Instant, Duration)>,
}

impl Writer {
    /// `class` is the value of the mark.
    pub fn new(client: Client, class: String) -> Self {
        Self { client, class, waiting: HashMap::new() }
    }

    /// When something is to be tried again.
    pub fn next_try(&self) -> Option<Instant> {
        self.waiting.values().map(|(at, _)| *at).min()
    }

    /// Carries out the actions for a Service, in order, until one fails.
    pub async fn carry_out(
        &mut self,
        key: &ServiceKey,
        service: &facts::Service,
        object: &Service,
        actions: &[Action],
    ) -> Written {
        let now = Instant::now();
        let before = self.waiting.get(&service.uid).copied();
        if before.is_some_and(|(at, _)| now < at) {
            return Written::Failed;
        }
        for action in actions {
            let Err(error) = self.one(key, service, object, action).await else { continue };
            let pause = before.map_or(BACK_OFF_MIN, |(_, pause)| (pause * 2).min(BACK_OFF_MAX));
            self.waiting.insert(service.uid.clone(), (now + pause, pause));
            if is_owned(&error) {
                return Written::Owned;
            }
            tracing::warn!("Service {key}: {error}; trying again in {pause:?}");
            return Written::Failed;
        }
        self.waiting.remove(&service.uid);
        Written::Yes
    }

    /// Says something about a Service. What cannot be said is logged: nothing depends on it.
    pub async fn tell(&self, key: &ServiceKey, uid: &str, event: &report::events::Event) {
        let event = Event {
            type_: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.clone(),
            note: Some(event.message.clone()),
            action: "Reconcile".into(),
            secondary: None,
        };
        // One that is kept takes an event with the reason of an earlier one for its repetition, and drops the note.
        // Nothing that is said here is a repetition.
        let reporter = Reporter { controller: "shunt.dev/controlplane".into(), instance: None };
        let recorder = Recorder::new(self.client.clone(), reporter);
        if let Err(error) = recorder.publish(&event, &reference(key, uid)).await {
            tracing::warn!("event {} of Service {key}: {error}", event.reason);
        }
    }

    async fn one(
        &self,
        key: &ServiceKey,
        service: &facts::Service,
        object: &Service,
        action: &Action,
    ) -> Result<(), Error> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let finalizers = object.metadata.finalizers.clone().unwrap_or_default();
        let uid = &service.uid;
        match action {
            Action::AddFinalizer => {
                patched(&api, key, bodies::claim(uid, &finalizers, &service.annotations, &self.class)).await
            }
            Action::RemoveFinalizer => {
                patched(&api, key, bodies::release(uid, &finalizers, &service.annotations)).await
            }
            Action::PatchStatus(status) => applied(&api, key, uid, status).await,
            Action::ClearStatus => match applied(&api, key, uid, &Status::default()).await {
                Err(Error::Api(status)) if status.code == 404 => Ok(()),
                other => other,
            },
            Action::Event(event) => {
                self.tell(key, uid, event).await;
                Ok(())
            }
        }
    }
}

async fn patched(api: &Api<Service>, key: &ServiceKey, body: Option<Value>) -> Result<(), Error> {
    let Some(body) = body else { return Ok(()) };
    let patch = serde_json::from_value(body).map_err(Error::SerdeError)?;
    api.patch(&key.name, &PatchParams::default(), &Patch::<()>::Json(patch)).await.map(drop)
}

/// Without force: fields of another manager are an error.
async fn applied(api: &Api<Service>, key: &ServiceKey, uid: &str, status: &Status) -> Result<(), Error> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let body = bodies::status(key, uid, status, &now);
    api.patch_status(&key.name, &PatchParams::apply(MANAGER), &Patch::Apply(body)).await.map(drop)
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
