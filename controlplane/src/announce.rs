//! Makes the network deliver VIPs to this box: by answering for them on its segment ([`l2`]), and by routes that a
//! routing daemon exports ([`route`]). Each follows what it is told to announce, which is what [`decide`] says.

pub mod decide;
pub mod l2;
pub mod route;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use shunt_api::status::{L2Conflict, L2Status, RoutesStatus};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::journal::Journal;

/// Until a route is withdrawn: a few milliseconds, unless the kernel refuses.
const WITHDRAW_TIMEOUT: Duration = Duration::from_millis(500);

/// What to announce by one of the ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted<S> {
    /// Not known yet, as just after the start: what is announced stays, and nothing is added.
    #[default]
    Unknown,
    /// This way is not used: what is announced goes.
    Unused,
    /// Exactly these addresses.
    These {
        /// How.
        settings: S,
        /// Each as a single host.
        addresses: BTreeSet<IpAddr>,
    },
}

/// How announcing stands.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    /// On the segments.
    pub l2: L2Status,
    /// By routes.
    pub routes: RoutesStatus,
}

impl Announced {
    /// What is wrong, in words with a remedy.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let conflict = |conflict: &L2Conflict| {
            let L2Conflict { address, mac, nic, last_ms, .. } = conflict;
            format!(
                "address {address}: {mac} on {nic} claims it, too, last at {last_ms}; take it from that machine"
            )
        };
        let (l2, routes) = (&self.l2, &self.routes);
        l2.problems
            .iter()
            .cloned()
            .chain(l2.conflicts.iter().map(conflict))
            .chain(routes.problems.iter().cloned())
    }
}

/// Where to look up how announcing stands; clones look at the same.
#[derive(Clone, Debug)]
pub struct Standings {
    l2: watch::Receiver<L2Status>,
    routes: watch::Receiver<RoutesStatus>,
}

impl Standings {
    /// Returns once there is no route to an address that is not among these, or when that takes too long.
    pub async fn withdrawn_but(&self, addresses: &BTreeSet<IpAddr>) {
        let mut routes = self.routes.clone();
        let only =
            |status: &RoutesStatus| status.prefixes.iter().all(|prefix| addresses.contains(&prefix.addr()));
        // Fails if announcing has ended, and then there is nothing to wait for.
        let _ = tokio::time::timeout(WITHDRAW_TIMEOUT, routes.wait_for(only)).await;
    }

    /// Now.
    pub fn standing(&self) -> Announced {
        Announced { l2: self.l2.borrow().clone(), routes: self.routes.borrow().clone() }
    }
}

/// Both ways of announcing, at work.
pub struct Announcing {
    standings: Standings,
    l2: JoinHandle<()>,
    routes: JoinHandle<()>,
}

impl Announcing {
    /// Starts to announce what is decided.
    pub fn start(
        l2: watch::Receiver<Wanted<l2::Settings>>,
        routes: watch::Receiver<Wanted<route::Settings>>,
        journal: &Journal,
    ) -> Self {
        let (l2_standing, l2_seen) = watch::channel(L2Status::default());
        let (routes_standing, routes_seen) = watch::channel(RoutesStatus::default());
        Self {
            standings: Standings { l2: l2_seen, routes: routes_seen },
            l2: tokio::spawn(l2::run(l2, journal.clone(), l2_standing)),
            routes: tokio::spawn(route::run(routes, journal.clone(), routes_standing)),
        }
    }

    /// Where to look.
    pub fn standings(&self) -> Standings {
        self.standings.clone()
    }

    /// Returns once all is withdrawn and, if there were routes, the network has had so long to take note. What is
    /// wanted must have no sender any more.
    pub async fn end(self, withdraw_delay: Duration) {
        let routes = self.standings.routes.borrow().present;
        // A task that panicked has nothing to withdraw any more.
        let _ = self.l2.await;
        let _ = self.routes.await;
        let standing = self.standings.routes.borrow().clone();
        if routes > 0 && standing.present == 0 && standing.problems.is_empty() {
            tracing::info!("routes are withdrawn; the dataplane forwards on, stopping in {withdraw_delay:?}");
            tokio::time::sleep(withdraw_delay).await;
        }
    }
}
