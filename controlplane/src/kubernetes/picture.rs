//! Keeps a picture of a cluster: lists everything once, then follows the changes. When the API server is away, or says
//! that what was seen is too old (410 Gone), the picture stays as it is until the next list is complete.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use super::facts::{Facts, ServiceKey};
use super::{extract, term};

/// How long a watch lasts; a connection that died without a word is noticed a few seconds after that.
const WATCH_TIMEOUT_S: u32 = 45;

/// What is known of a cluster.
pub struct Picture {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    nodes: Store<Node>,
    namespaces: Store<Namespace>,
}

/// Whether the API server answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// What does not, and why; empty if all is well.
    pub problems: std::collections::BTreeMap<&'static str, String>,
}

impl Contact {
    /// Why the API server does not answer; `None` if it does.
    pub fn reason(&self) -> Option<String> {
        let problems: Vec<&str> = self.problems.values().map(String::as_str).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}

impl Picture {
    /// Returns once everything was listed: before, nothing may be concluded from what is missing.
    pub async fn complete(&self) {
        // Fails only if the watches have ended, and then nobody waits.
        let _ = tokio::join!(
            self.services.wait_until_ready(),
            self.slices.wait_until_ready(),
            self.nodes.wait_until_ready(),
            self.namespaces.wait_until_ready(),
        );
    }

    /// Returns once the Services are as new as they were at the call, or newer.
    pub fn is_current(&self, client: Client) -> impl Future<Output = ()> + Send + use<> {
        term::caught_up(client, self.services.clone())
    }

    /// A Service as the API has it.
    pub fn service(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        self.services.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    /// As of now.
    pub fn facts(&self) -> Facts {
        let (services, slices) = (self.services.state(), self.slices.state());
        let (nodes, namespaces) = (self.nodes.state(), self.namespaces.state());
        extract::facts(
            services.iter().map(AsRef::as_ref),
            slices.iter().map(AsRef::as_ref),
            nodes.iter().map(AsRef::as_ref),
            namespaces.iter().map(AsRef::as_ref),
        )
    }
}

/// A picture, and what keeps it up to date for ever. `changed` is notified of every change.
pub fn follow(
    client: &Client,
    changed: &Arc<Notify>,
    contact: watch::Sender<Contact>,
) -> (Picture, impl Future<Output = ()> + Send + 'static) {
    let contact = Arc::new(contact);
    let (services, of_services) = kept(client, "services", changed, &contact);
    let (slices, of_slices) = kept(client, "endpointslices", changed, &contact);
    let (nodes, of_nodes) = kept(client, "nodes", changed, &contact);
    let (namespaces, of_namespaces) = kept(client, "namespaces", changed, &contact);
    let all = async {
        tokio::join!(of_services, of_slices, of_nodes, of_namespaces);
    };
    (Picture { services, slices, nodes, namespaces }, all)
}

/// All objects of a kind.
fn kept<K>(
    client: &Client,
    kind: &'static str,
    changed: &Arc<Notify>,
    contact: &Arc<watch::Sender<Contact>>,
) -> (Store<K>, impl Future<Output = ()> + Send + 'static + use<K>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_S).any_semantic();
    let (changed, contact) = (Arc::clone(changed), Arc::clone(contact));
    let watched = watcher(Api::<K>::all(client.clone()), config).default_backoff();
    // They are most of an object, and of no use here.
    let events = watched.modify(|object| object.managed_fields_mut().clear()).reflect(writer);
    let work = async move {
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            let problem = event.err().map(|error| format!("{kind}: {error}"));
            let well = problem.is_none();
            contact.send_if_modified(|contact| told(contact, kind, problem));
            if well {
                changed.notify_one();
            }
        }
    };
    (store, work)
}

/// Whether that is news.
fn told(contact: &mut Contact, kind: &'static str, problem: Option<String>) -> bool {
    match problem {
        None => contact.problems.remove(kind).is_some(),
        Some(problem) => {
            contact.problems.insert(kind, problem.clone()).is_none_or(|before| before != problem)
        }
    }
}
