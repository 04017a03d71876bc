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
pub mod extract;
pub mod facts;
pub mod ipam;
pub mod picture;
pub mod provider;
pub mod report;
pub mod shunt_pool;
pub mod translate;
pub mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use shunt_api::config::Kubernetes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::control::Control;
use facts::Family;
use provider::Outlets;
use translate::wanted::Wanted;

/// Serves the clusters that the configuration names, for ever, and others when it names others.
pub async fn run(control: Arc<Control>) {
    let mut configured = control.clusters();
    loop {
        let (clusters, nat_families) = configured.borrow_and_update().clone();
        let mut serving = JoinSet::new();
        for cluster in clusters {
            serving.spawn(one(Arc::clone(&control), cluster, nat_families.clone()));
        }
        // Fails only if the sender is gone, and `control` holds it.
        let _ = configured.changed().await;
    }
}

/// What clusters there are, and the families that mode `nat` has addresses of.
pub type Clusters = (Vec<Kubernetes>, BTreeSet<Family>);

async fn one(control: Arc<Control>, cluster: Kubernetes, nat_families: BTreeSet<Family>) {
    let name = cluster.name.clone();
    let (sender, mut wanted) = watch::channel(None::<Wanted>);
    let (served, journal) = (control.served(), control.journal().clone());
    let serving = provider::serve(cluster, Outlets { wanted: sender, served, nat_families, journal });
    let handing_on = async {
        while wanted.changed().await.is_ok() {
            let latest = wanted.borrow_and_update().clone();
            latest.into_iter().for_each(|latest| control.set_cluster(&name, latest));
        }
    };
    tokio::join!(serving, handing_on);
}
