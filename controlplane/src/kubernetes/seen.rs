//! What people are shown of a cluster.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use shunt_api::config::{LeftOut, Part};
use shunt_api::snapshot::Snapshot;
use shunt_api::status::{ClusterAway, ClusterRole, ClusterServices, ClusterSource, ClusterStatus, TimeMs};

use super::election::{Seat, Standing, Trouble};
use super::facts::{Facts, ServiceKey};
use super::ipam::Allocation;
use super::picture::Contact;
use super::report::ownership::{Class, is_ours};
use super::translate::nodes::NODE_ADDRESS_TAKEN;
use super::translate::{self, Problem, Translated};
use super::wants::Name;
use super::{election, subject};

/// Reason of the problem that a Service is not served because of what else is configured.
const LEFT_OUT: &str = "LeftOut";
/// Reason of the problem that a Service's nodes are not checked because of what else is configured.
const NOT_CHECKED: &str = "NotChecked";

/// What the provider sees of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its API server does not answer.
    pub away: Option<ClusterAway>,
    /// How this box stands in the election.
    pub seat: Seat,
    /// Who this box is there.
    pub identity: String,
    /// Its Services, once it is known what it wants.
    pub services: Option<ClusterServices>,
}

impl Seen {
    /// The API server answers, or does not for this reason from now on, if it did before. Whether that changes anything.
    pub fn set_away(&mut self, reason: Option<String>, now: TimeMs) -> bool {
        let since_ms = self.away.as_ref().map_or(now, |away| away.since_ms);
        let away = reason.map(|reason| ClusterAway { since_ms, reason });
        let changes = self.away != away;
        self.away = away;
        changes
    }

    /// For people.
    pub fn status(&self, name: &Name, source: ClusterSource) -> ClusterStatus {
        let (role, leader) = match &self.seat.standing {
            Standing::Leads { .. } => (ClusterRole::Leader, Some(self.identity.clone())),
            Standing::Follows { leader } => (ClusterRole::Follower, Some(leader.clone())),
            Standing::Lapsed | Standing::Unknown => (ClusterRole::Unknown, None),
        };
        let refused = |trouble: &election::Trouble| match trouble {
            Trouble::Refused(text) | Trouble::Dataplane(text) => Some(text.clone()),
            Trouble::Away(_) => None,
        };
        ClusterStatus {
            name: name.clone(),
            source,
            away: self.away.clone(),
            role,
            leader,
            lease_problem: self.seat.trouble.as_ref().and_then(refused),
            services: self.services,
        }
    }
}

/// Why an API server does not answer, if it does not: one that hangs is noticed by the Lease long before the watches.
pub fn absence(contact: &Contact, seat: &Seat) -> Option<String> {
    let of_lease = || match &seat.trouble {
        Some(Trouble::Away(text)) => Some(text.clone()),
        Some(Trouble::Refused(_) | Trouble::Dataplane(_)) | None => None,
    };
    contact.reason().or_else(of_lease)
}

/// What is wrong with a cluster.
pub fn problems(cluster: &ClusterStatus) -> Vec<String> {
    let subject = subject(&cluster.name);
    let away = cluster.away.as_ref().map(|ClusterAway { since_ms, reason }| {
        format!(
            "{subject} does not answer since {since_ms}, and what is served stays as it is: {reason}; is its API server \
             up, and is kubernetes.kubeconfig right?"
        )
    });
    let lease = cluster.lease_problem.as_ref();
    let lease = lease.map(|problem| format!("{subject}: this box cannot lead and writes nothing: {problem}"));
    away.into_iter().chain(lease).collect()
}

/// Adds to what is wrong with Services that they were left out, wholly or in part.
pub fn add_left_out(translated: &mut BTreeMap<ServiceKey, Translated>, left_out: &[LeftOut]) {
    if left_out.is_empty() {
        return;
    }
    for translated in translated.values_mut() {
        let wanted = &translated.wanted;
        let is_its = |left: &&LeftOut| match left.part {
            Part::Service => wanted.services.iter().any(|service| service.name == left.name),
            Part::Check | Part::Backend => wanted.pools.iter().any(|pool| pool.name == left.name),
        };
        let reason = |part: Part| match part {
            Part::Service => LEFT_OUT,
            Part::Check => NOT_CHECKED,
            Part::Backend => NODE_ADDRESS_TAKEN,
        };
        let problem = |left: &LeftOut| Problem::new(reason(left.part), left.reason.clone());
        let problems: HashSet<Problem> = left_out.iter().filter(is_its).map(problem).collect();
        translated.problems.extend(problems);
    }
}

/// Why a Service is not served, wholly or in part, because of what else is configured.
pub fn left_out(translated: &Translated) -> Option<&Problem> {
    translated.problems.iter().find(|problem| problem.reason == LEFT_OUT)
}

/// How the Services that are ours fare.
pub fn count(
    facts: &Facts,
    class: &Class,
    allocations: &BTreeMap<ServiceKey, Allocation>,
    translated: &BTreeMap<ServiceKey, Translated>,
    snapshot: Option<&Snapshot>,
) -> ClusterServices {
    let served: HashSet<(&str, IpAddr)> = snapshot
        .into_iter()
        .flat_map(|snapshot| &snapshot.services)
        .flat_map(|service| service.vips.iter().map(|vip| (service.name.as_str(), *vip)))
        .collect();
    let mut counts = ClusterServices::default();
    for (key, service) in &facts.services {
        if !is_ours(service, class) || service.deleting {
            continue;
        }
        let (allocation, translated) = (allocations.get(key), translated.get(key));
        let addresses = allocation.map_or(&[][..], |allocation| &allocation.addresses);
        let without =
            addresses.is_empty() && allocation.is_some_and(|allocation| allocation.problem.is_some());
        let nothing = !addresses.is_empty() && translated.is_some_and(|of| of.wanted.services.is_empty());
        let left_out = translated.is_some_and(|translated| left_out(translated).is_some());
        let all_served = translated.is_some_and(|translated| {
            let mut services = translated.wanted.services.iter();
            services.all(|service| service.vips.iter().all(|vip| served.contains(&(&service.name, *vip))))
        });
        let refused = translate::refusal(service).is_some() || without || nothing || left_out;
        let count = match refused {
            true => &mut counts.refused,
            false if !addresses.is_empty() && all_served => &mut counts.served,
            false => &mut counts.waiting,
        };
        *count += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
