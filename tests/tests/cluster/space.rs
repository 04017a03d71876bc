//! A Kubernetes namespace of a scenario's own, and what there is to know of the objects in it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::wait;

use crate::cluster::Cluster;
use crate::objects;

/// For anything that a controller does.
pub const LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at an object.
const PERIOD: Duration = Duration::from_millis(25);
/// For what must not happen.
const QUIET: Duration = Duration::from_secs(1);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The namespace. [`in_space`] makes and removes it.
pub struct Space<'c> {
    /// Where it is.
    pub cluster: &'c Cluster,
    /// Its name.
    pub name: String,
}

/// Calls `work` in a new namespace, and removes that whatever came of it; its Services have to go, too.
pub fn in_space<T>(cluster: &Cluster, name: &str, work: impl FnOnce(&Space) -> Result<T>) -> Result<T> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    in_space_named(cluster, &format!("{name}-{}-{number}", std::process::id()), work)
}

/// The same in a namespace of this very name, which must not exist.
pub fn in_space_named<T>(cluster: &Cluster, name: &str, work: impl FnOnce(&Space) -> Result<T>) -> Result<T> {
    let object = json!({ "metadata": { "name": name } });
    cluster.api.create("/api/v1/namespaces", &object)?;
    let space = Space { cluster, name: name.to_owned() };
    let outcome = work(&space);
    let left = space.remove();
    let value = outcome?;
    left.map(|()| value)
}

impl Space<'_> {
    fn remove(&self) -> Result<()> {
        let names = self.service_names()?;
        names.iter().try_for_each(|name| self.delete_service(name))?;
        let outcome = names.iter().try_for_each(|name| self.until_gone(name));
        self.cluster.api.delete(&format!("/api/v1/namespaces/{}", self.name))?;
        // Else they would stay for their grace. The namespace takes no new ones any more.
        self.cluster.api.delete(&format!("{}?gracePeriodSeconds=1", self.path("pods")))?;
        outcome
    }

    fn service_names(&self) -> Result<Vec<String>> {
        let list = self.cluster.api.get(&self.path("services"))?;
        let name = |service: &Value| service["metadata"]["name"].as_str().map(str::to_owned);
        Ok(list["items"].as_array().into_iter().flatten().filter_map(name).collect())
    }

    /// Path of a kind's objects, or of one: `services/web`.
    pub fn path(&self, what: &str) -> String {
        let group = match what.split('/').next() {
            Some("deployments") => "/apis/apps/v1",
            Some("endpointslices") => "/apis/discovery.k8s.io/v1",
            Some("events") => "/apis/events.k8s.io/v1",
            _ => "/api/v1",
        };
        format!("{group}/namespaces/{}/{what}", self.name)
    }

    /// Makes a Service.
    pub fn create(&self, service: &Value) -> Result<Value> {
        self.cluster.api.create(&self.path("services"), service)
    }

    /// Makes a Service and waits for an address.
    pub fn create_and_wait(&self, service: &Value) -> Result<IpAddr> {
        self.create(service)?;
        self.address(service["metadata"]["name"].as_str().unwrap_or_default())
    }

    /// Changes a Service (RFC 7386).
    pub fn change(&self, name: &str, change: &Value) -> Result<Value> {
        self.cluster.api.merge(&self.path(&format!("services/{name}")), change)
    }

    /// Changes annotations of a Service.
    pub fn annotate(&self, name: &str, annotations: &Value) -> Result<()> {
        self.change(name, &json!({ "metadata": { "annotations": annotations } })).map(drop)
    }

    /// A Service as it is.
    pub fn service(&self, name: &str) -> Result<Value> {
        self.cluster.api.get(&self.path(&format!("services/{name}")))
    }

    /// Begins to remove a Service.
    pub fn delete_service(&self, name: &str) -> Result<()> {
        self.cluster.api.delete(&self.path(&format!("services/{name}")))
    }

    /// Waits until a Service is no more.
    pub fn until_gone(&self, name: &str) -> Result<()> {
        let path = self.path(&format!("services/{name}"));
        self.until(&format!("Service {name} to go"), || {
            Ok(self.cluster.api.find(&path)?.is_none().then_some(()))
        })
    }

    /// Weights of a Service's backends in its primary family, by node; none if it is not served.
    pub fn weights(&self, service: &str) -> Result<BTreeMap<String, u16>> {
        let name = format!("{}/{service}", self.name);
        let Some(service) = self.cluster.services()?.into_iter().find(|service| service.name == name) else {
            return Ok(BTreeMap::new());
        };
        // Services may have it in common, and then it is not named like this one.
        let backends = self.cluster.first().backends()?.into_iter();
        let of_pool = backends.filter(|backend| backend.pool == service.pool);
        Ok(of_pool.map(|backend| (backend.name, backend.weight)).collect())
    }

    /// The addresses that a Service shows.
    pub fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        Ok(addresses_of(&self.service(name)?))
    }

    /// Waits for a Service's address; the first one.
    pub fn address(&self, name: &str) -> Result<IpAddr> {
        self.until(&format!("an address of {name}"), || Ok(self.addresses(name)?.first().copied()))
    }

    /// Waits until a Service shows these addresses.
    pub fn until_addresses(&self, name: &str, wanted: &[&str]) -> Result<()> {
        let wanted: Vec<IpAddr> = wanted.iter().filter_map(|text| text.parse().ok()).collect();
        let shows = || Ok((self.addresses(name)? == wanted).then_some(()));
        self.until(&format!("{name} to show {wanted:?}"), shows)
            .map_err(|error| Error::Wrong(format!("{error}; it shows {}", self.told(name))))
    }

    /// Waits until a Service has no address, and a condition gives this reason.
    pub fn until_refused(&self, name: &str, reason: &str) -> Result<()> {
        let condition = "shunt.dev/AddressAllocated";
        self.until(&format!("{name} to be refused for {reason}"), || {
            let service = self.service(name)?;
            let refused = addresses_of(&service).is_empty() && reason_of(&service, condition) == Some(reason);
            Ok(refused.then_some(()))
        })
        .map_err(|error| Error::Wrong(format!("{error}; it shows {}", self.told(name))))
    }

    /// Waits for an event about a Service whose note contains `part`.
    pub fn until_event(&self, name: &str, reason: &str, part: &str) -> Result<()> {
        self.until(&format!("event {reason} of {name} with `{part}`"), || {
            let events = self.events(name)?;
            Ok(events.iter().any(|(word, note)| word == reason && note.contains(part)).then_some(()))
        })
        .map_err(|error| Error::Wrong(format!("{error}; there are {:?}", self.events(name))))
    }

    /// Reasons and notes of Shunt's events about a Service.
    pub fn events(&self, name: &str) -> Result<Vec<(String, String)>> {
        let list = self.cluster.api.get(&self.path("events"))?;
        let about = |event: &&Value| {
            event["regarding"]["name"] == name && event["reportingController"] == "shunt.dev/controlplane"
        };
        let word = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let events = list["items"].as_array().into_iter().flatten().filter(about);
        Ok(events.map(|event| (word(event, "reason"), word(event, "note"))).collect())
    }

    /// Waits for something that a controller does.
    pub fn until<T>(&self, what: &str, condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        wait::until_every(PERIOD, what, LIMIT, condition).map(|(value, _)| value)
    }

    /// Something that must not change for a while.
    pub fn stays(&self, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        let broken = wait::until_every(PERIOD, what, QUIET, || Ok((!condition()?).then_some(())));
        match broken {
            Err(Error::Timeout { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::Wrong(format!("{what}: not so for {QUIET:?}"))),
        }
    }

    /// What a Service shows, for messages.
    fn told(&self, name: &str) -> String {
        self.service(name).map(|service| service["status"].to_string()).unwrap_or_default()
    }

    /// Starts a pod on each of these nodes, and waits until they are ready. A node may be named twice.
    pub fn start_pods(&self, nodes: &[&str]) -> Result<()> {
        self.start_pods_named("web", nodes)
    }

    /// The same, of pods whose names begin like this.
    pub fn start_pods_named(&self, name: &str, nodes: &[&str]) -> Result<()> {
        for (number, node) in nodes.iter().enumerate() {
            let more = json!({
                "metadata": { "name": format!("{name}{number}") },
                "spec": { "nodeSelector": { "kubernetes.io/hostname": node } },
            });
            let pod = objects::with(self.pod_template(0)?, more);
            // Refused until the namespace has its service account.
            self.until("a pod to be taken", || {
                Ok((self.cluster.api.try_create(&self.path("pods"), &pod)?.status < 300).then_some(()))
            })?;
        }
        self.until_ready(nodes.len())
    }

    /// What pods of this namespace are made of.
    pub fn pod_template(&self, grace_s: u32) -> Result<Value> {
        let program = self.cluster.program("shunt-echo")?;
        Ok(objects::pod_template(&self.cluster.image()?, &program.display().to_string(), grace_s))
    }

    /// Waits until so many pods are ready and not about to go.
    pub fn until_ready(&self, count: usize) -> Result<()> {
        let limit = LIMIT * 3;
        let ready = || Ok((self.pods()?.iter().filter(|pod| is_ready(pod)).count() == count).then_some(()));
        wait::until_every(PERIOD * 4, &format!("{count} pods to be ready"), limit, ready).map(drop)
    }

    /// All pods.
    pub fn pods(&self) -> Result<Vec<Value>> {
        let list = self.cluster.api.get(&self.path("pods"))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// An error unless a Service has the finalizer, or has it not.
    pub fn expect_finalizer(&self, name: &str, expected: bool) -> Result<()> {
        let service = self.service(name)?;
        ensure(has_finalizer(&service) == expected, || format!("{name}: {}", service["metadata"]))
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    pod["metadata"]["deletionTimestamp"].is_null() && conditions.is_some_and(|all| all.iter().any(ready))
}

/// Whether a Service has the finalizer of load balancers.
pub fn has_finalizer(service: &Value) -> bool {
    let finalizers = service["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|all| all.iter().any(|name| name == objects::FINALIZER))
}

/// The addresses that a Service shows.
pub fn addresses_of(service: &Value) -> Vec<IpAddr> {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    ingress.into_iter().flatten().filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect()
}

/// The reason of a condition.
pub fn reason_of<'s>(service: &'s Value, condition: &str) -> Option<&'s str> {
    let conditions = service["status"]["conditions"].as_array()?;
    conditions.iter().find(|each| each["type"] == condition)?["reason"].as_str()
}
