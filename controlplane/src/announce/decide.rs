//! What to announce, from what should be and what is. Pure.
//!
//! An address is announced while the dataplane has agreed to serve it and does so. Routes ask for a backend that is up,
//! too, unless the settings say otherwise. What leaves the configuration is withdrawn before the dataplane hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use shunt_api::config::{AnnounceL2, AnnounceRoutes, Config};
use shunt_api::snapshot::Snapshot;
use shunt_api::status::WorkerState;

use super::{Wanted, l2, route};
use crate::roster::Roster;
use crate::state::State;

/// What to announce by each way.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    /// On the segments.
    pub l2: Wanted<l2::Settings>,
    /// By routes.
    pub routes: Wanted<route::Settings>,
}

/// Everything a decision depends on, to tell whether it needs to be made anew.
#[derive(Debug, PartialEq, Eq)]
pub struct Grounds {
    /// Of the roster, when it last changed.
    revision: u64,
    forwarding: Forwarding,
}

/// What the dataplane does.
#[derive(Clone, Debug)]
enum Forwarding {
    /// It has not been asked, or has not answered to what this control plane wants.
    Unknown,
    /// Nothing.
    Nothing,
    /// It forwards by this snapshot, with all of its workers or with some.
    By { snapshot: Arc<Snapshot>, all: bool },
}

impl PartialEq for Forwarding {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unknown, Self::Unknown) | (Self::Nothing, Self::Nothing) => true,
            (Self::By { snapshot, all }, Self::By { snapshot: other, all: other_all }) => {
                Arc::ptr_eq(snapshot, other) && all == other_all
            }
            _ => false,
        }
    }
}

impl Eq for Forwarding {}

/// What a decision would be made of now.
pub fn grounds(state: &State, roster: &Roster) -> Grounds {
    Grounds { revision: roster.revision(), forwarding: forwarding(state) }
}

/// Decides.
pub fn decide(grounds: &Grounds, roster: &Roster) -> Decision {
    let Some(config) = roster.config() else {
        return Decision { l2: Wanted::Unknown, routes: Wanted::Unknown };
    };
    let forwarding = &grounds.forwarding;
    Decision {
        l2: config.announce.l2.map_or(Wanted::Unused, |settings| on_segments(config, settings, forwarding)),
        routes: config
            .announce
            .routes
            .map_or(Wanted::Unused, |settings| by_routes(roster, config, settings, forwarding)),
    }
}

/// A box without partners goes on with the workers it has; with some, one of them does better.
fn on_segments(config: &Config, l2: AnnounceL2, forwarding: &Forwarding) -> Wanted<l2::Settings> {
    let (able, addresses) = match forwarding {
        Forwarding::Unknown => return Wanted::Unknown,
        Forwarding::Nothing => (false, BTreeSet::new()),
        Forwarding::By { all: false, .. } if l2.election.is_some() => (false, BTreeSet::new()),
        Forwarding::By { snapshot, .. } => {
            let sources = config.nat.sources.iter().filter(|source| snapshot.nat.sources.contains(source));
            (true, vips(config, snapshot).into_iter().chain(sources.copied()).collect())
        }
    };
    let nics = config.nics.iter().map(|nic| nic.name.clone()).collect();
    Wanted::These { settings: l2::Settings { nics, l2, able }, addresses }
}

fn by_routes(
    roster: &Roster,
    config: &Config,
    routes: AnnounceRoutes,
    forwarding: &Forwarding,
) -> Wanted<route::Settings> {
    let alive = if routes.require_backend { Some(roster.vips_with_backends()) } else { None };
    let obstacle: &dyn Fn(&IpAddr) -> Option<&'static str> = match forwarding {
        Forwarding::Unknown => return Wanted::Unknown,
        Forwarding::Nothing => &|_| Some("the dataplane does not forward"),
        Forwarding::By { all: false, .. } => &|_| Some("a worker of the dataplane stands still"),
        Forwarding::By { snapshot, .. } => {
            let served = vips(config, snapshot);
            &move |vip| match &alive {
                _ if !served.contains(vip) => Some("the dataplane does not serve it yet"),
                Some(alive) if !alive.contains(vip) => Some("no backend of it is up"),
                _ => None,
            }
        }
    };
    let (mut addresses, mut withheld) = (BTreeSet::new(), BTreeMap::new());
    for vip in config.services.iter().flat_map(|service| &service.vips) {
        match obstacle(vip) {
            None => drop(addresses.insert(*vip)),
            Some(obstacle) => drop(withheld.insert(*vip, obstacle)),
        }
    }
    Wanted::These { settings: route::Settings { routes, withheld }, addresses }
}

/// VIPs that are both wanted and served.
fn vips(config: &Config, served: &Snapshot) -> BTreeSet<IpAddr> {
    let served: BTreeSet<IpAddr> =
        served.services.iter().flat_map(|service| &service.vips).copied().collect();
    let wanted = config.services.iter().flat_map(|service| &service.vips);
    wanted.filter(|vip| served.contains(vip)).copied().collect()
}

fn forwarding(state: &State) -> Forwarding {
    let Some(status) = state.dataplane() else {
        return if state.was_asked() { Forwarding::Nothing } else { Forwarding::Unknown };
    };
    let workers = || status.workers.iter().map(|worker| worker.state != WorkerState::Stalled);
    let forwards = status.generation.is_some() && workers().any(|lives| lives);
    match state.served() {
        _ if !forwards => Forwarding::Nothing,
        None => Forwarding::Unknown,
        Some(snapshot) => {
            Forwarding::By { snapshot: Arc::clone(snapshot), all: workers().all(|lives| lives) }
        }
    }
}

#[cfg(test)]
mod tests;
