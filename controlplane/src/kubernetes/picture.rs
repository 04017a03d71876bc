//! Keeps a picture of a cluster: lists everything once, then follows the changes. When the API server is away, or says
//! that what was seen is too old (410 Gone), the picture stays as it is until the next list is complete.

use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use super::defined::{self, watched};
use super::facts::{Facts, ServiceKey};
use super::shunt_pool::ShuntPool;
use super::{extract, term};

/// How long a watch lasts; a connection that died without a word is noticed a few seconds after that.
const WATCH_TIMEOUT_S: u32 = 45;

/// What is known of a cluster.
pub struct Picture {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    nodes: Store<Node>,
    namespaces: Store<Namespace>,
    pools: defined::Watched,
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
            self.pools.complete(),
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

    /// The pools that the cluster defines, as of now.
    pub fn pools(&self) -> Vec<Arc<ShuntPool>> {
        self.pools.pools()
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
    let say = {
        let contact = Arc::clone(&contact);
        move |problem| {
            contact.send_if_modified(|contact| told(contact, "shuntpools", problem));
        }
    };
    let (pools, of_pools) = watched(client, WATCH_TIMEOUT_S, changed, say);
    let all = async {
        tokio::join!(of_services, of_slices, of_nodes, of_namespaces, of_pools);
    };
    (Picture { services, slices, nodes, namespaces, pools }, all)
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
    // Lists are the most recent there are: an older one may lack the status that says who has an address.
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_S);
    let (changed, contact) = (Arc::clone(changed), Arc::clone(contact));
    let watched = begun_again(Api::<K>::all(client.clone()), config).default_backoff();
    // They are most of an object, and of no use here.
    let events = watched.modify(|object| object.managed_fields_mut().clear()).reflect(writer);
    let work = async move {
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            let problem = match event {
                // Said before the API is asked, and shown only once the list is complete.
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => continue,
                Ok(_) => None,
                Err(error) => Some(format!("{kind}: {error}")),
            };
            if problem.is_none() {
                changed.notify_one();
            }
            contact.send_if_modified(|contact| told(contact, kind, problem));
        }
    };
    (store, work)
}

/// A watcher that is begun anew, with a list, when the API refuses to watch from where it was. (It does so by itself when
/// it is told so in a watch, but not when it is the answer to one.)
fn begun_again<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let begin = move || watcher(api.clone(), config.clone()).boxed();
    stream::unfold((begin(), begin), |(mut events, begin)| async {
        let event = events.next().await?;
        if let Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) = &event
            && status.code == 410
        {
            events = begin();
        }
        Some((event, (events, begin)))
    })
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
