//! The Service LoadBalancer provider: what a cluster asks for becomes pools and services, and the cluster is told what
//! came of it.
//!
//! ```text
//!  picture → facts ──→ ipam: addresses ──→ translate: pools, services ──→ the control plane's configuration
//!  (I/O)    (pure)    (pure)              (pure)
//!                          └──→ report: finalizers, status, events (pure) ──→ write (I/O, the leader alone)
//! ```

pub mod access;
pub mod defined;
#[cfg(test)]
mod double;
pub mod election;
pub mod extract;
pub mod facts;
pub mod ipam;
pub mod picture;
pub mod provider;
pub mod report;
#[cfg(test)]
mod scale;
pub mod seen;
pub mod shunt_pool;
pub mod term;
pub mod translate;
pub mod wants;
pub mod write;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shunt_api::config::Kubernetes;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::control::Control;
use election::Seat;
use election::lease::Candidate;
use facts::Family;
use provider::Outlets;
use seen::Seen;
use translate::wanted::Wanted;
use wants::Name;

/// So long after a start what a cluster wanted before counts, if it has not said what it wants. It would rather be
/// asked: what is remembered may lack its last change, and what is missing from it would lose its connections.
const PATIENCE: Duration = Duration::from_secs(3);

/// And after so long all else is served without one of which nothing is remembered.
const LONG_PATIENCE: Duration = Duration::from_secs(10);

/// Serves the clusters that the configuration names, and others when it names others.
pub struct Providers {
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Providers {
    /// Begins. `identity` tells this box from all others.
    pub fn start(control: Arc<Control>, identity: String) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, running: tokio::spawn(run(control, identity.into(), stopped)) }
    }

    /// Ends, after another box was let lead where this one does.
    pub async fn end(self) {
        self.stop.send_replace(true);
        // A task that panicked has said so.
        let _ = self.running.await;
    }
}

async fn run(control: Arc<Control>, identity: Arc<str>, mut stopped: watch::Receiver<bool>) {
    let mut configured = control.clusters();
    while !*stopped.borrow() {
        let (clusters, nat_families) = configured.borrow_and_update().clone();
        let (current, ends) = watch::channel(());
        let mut serving = JoinSet::new();
        for cluster in clusters {
            let (control, identity, ends) = (Arc::clone(&control), Arc::clone(&identity), ends.clone());
            serving.spawn(one(control, cluster, nat_families.clone(), identity, ends));
        }
        // These fail only if the senders are gone, and `control` and `Providers` hold them.
        tokio::select! {
            _ = configured.changed() => {}
            _ = stopped.changed() => {}
        }
        drop(current);
        while serving.join_next().await.is_some() {}
    }
}

/// What clusters there are, and the families that mode `nat` has addresses of.
pub type Clusters = (Vec<Kubernetes>, BTreeSet<Family>);

/// Serves a cluster until the sender of `ends` is gone.
async fn one(
    control: Arc<Control>,
    cluster: Kubernetes,
    nat_families: BTreeSet<Family>,
    identity: Arc<str>,
    mut ends: watch::Receiver<()>,
) {
    let name = cluster.name.clone();
    let (sender, mut wanted) = watch::channel(None::<Wanted>);
    let (seat, seated) = watch::channel(Seat::default());
    let (seen, shown) = watch::channel(Seen { identity: identity.to_string(), ..Seen::default() });
    control.show_cluster(&name, shown);
    let outlets = Outlets {
        wanted: sender,
        seen,
        served: control.served(),
        left_out: control.left_out(),
        config: control.config(),
        nat_families,
        seat: seated,
        journal: control.journal().clone(),
    };
    let handing_on = async {
        while wanted.changed().await.is_ok() {
            let latest = wanted.borrow_and_update().clone();
            latest.into_iter().for_each(|latest| control.set_cluster(&name, latest));
        }
    };
    let recalling = async {
        tokio::time::sleep(PATIENCE).await;
        control.recall_cluster(&name);
        tokio::time::sleep(LONG_PATIENCE.saturating_sub(PATIENCE)).await;
        control.do_without_cluster(&name);
    };
    let mut candidate = None;
    let serving = async {
        let client = provider::connected(&cluster, &outlets).await;
        let candidate =
            candidate.insert(Candidate::new(&client, cluster.lease.clone(), &identity, control.agreement()));
        tokio::join!(provider::serve(cluster, client, outlets), candidate.run(&seat));
    };
    tokio::select! {
        _ = async { tokio::join!(serving, handing_on, recalling) } => {}
        // Says that the sender is gone.
        _ = ends.changed() => {}
    }
    if let Some(candidate) = candidate {
        candidate.release().await;
    }
}

/// What people call a cluster.
pub fn subject(name: &Name) -> String {
    name.as_ref().map_or_else(|| "cluster".to_owned(), |name| format!("cluster {name}"))
}
