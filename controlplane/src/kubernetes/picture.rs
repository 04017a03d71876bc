//! Keeps a picture of a cluster: lists everything once, then follows the changes. When the API server is away, or says
//! that what was seen is too old (410 Gone), the picture stays as it is until the next list is complete.

mod kept;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::{Notify, watch};

use self::kept::{Needed, kept};
use super::facts::{Facts, ServiceKey};
use super::shunt_pool::ShuntPool;
use super::{extract, term};

/// What is known of a cluster.
pub struct Picture {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    nodes: Store<Node>,
    namespaces: Store<Namespace>,
    pools: Store<ShuntPool>,
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

    /// Whether something is wrong that was not before, or otherwise.
    pub fn is_worse_than(&self, before: &Self) -> bool {
        self.problems.iter().any(|(kind, problem)| before.problems.get(kind) != Some(problem))
    }

    /// What is wrong with a kind from now on, if anything. Whether that is news.
    fn tell(&mut self, kind: &'static str, problem: Option<String>) -> bool {
        match problem {
            None => self.problems.remove(kind).is_some(),
            Some(problem) => {
                self.problems.insert(kind, problem.clone()).is_none_or(|before| before != problem)
            }
        }
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
            self.pools.wait_until_ready(),
        );
    }

    /// Returns once the Services and the pools are as new as they were at the call, or newer. A kind that is new to the
    /// cluster is asked for now and then only, and then this takes until it was.
    pub fn is_current(&self, client: Client) -> impl Future<Output = ()> + Send + use<> {
        let services = term::caught_up(client.clone(), self.services.clone());
        let pools = term::caught_up(client, self.pools.clone());
        async {
            services.await;
            pools.await;
        }
    }

    /// A Service as the API has it.
    pub fn service(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        self.services.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    /// The pools that the cluster defines, as of now.
    pub fn pools(&self) -> Vec<Arc<ShuntPool>> {
        self.pools.state()
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
    let (services, of_services) = kept(client, "services", Needed::Yes, changed, &contact);
    let (slices, of_slices) = kept(client, "endpointslices", Needed::Yes, changed, &contact);
    let (nodes, of_nodes) = kept(client, "nodes", Needed::Yes, changed, &contact);
    let (namespaces, of_namespaces) = kept(client, "namespaces", Needed::Yes, changed, &contact);
    let (pools, of_pools) = kept(client, "shuntpools", Needed::No, changed, &contact);
    let all = async {
        tokio::join!(of_services, of_slices, of_nodes, of_namespaces, of_pools);
    };
    (Picture { services, slices, nodes, namespaces, pools }, all)
}
