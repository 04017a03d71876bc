//! Which nodes are backends of a Service, and what share of its new flows each gets.
//!
//! Nodes are chosen as the cloud provider does (KEP-3458): neither NotReady nor cordoned counts, health checks tell.
//! Unlike there, a node that may take no new flow stays in the pool with weight 0 while it exists, because to remove a
//! backend is to reset its connections.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use shunt_api::config::WEIGHT;
use shunt_api::snapshot::Mode;

use super::wanted::Backend;
use super::{Problem, UNAVAILABLE};
use crate::kubernetes::facts::{Endpoint, Family, Node, Service};

/// The label that keeps a node from being a backend.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Reason of the problem that a node gets no traffic, because its address is another's.
pub const NODE_ADDRESS_TAKEN: &str = "NodeAddressTaken";

/// How well a node suits new flows. Those get them that suit best of the nodes there are, the others drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It should have them.
    Active,
    /// The autoscaler is about to remove it. The cloud provider leaves such a node out at its next sync; here it keeps
    /// its flows, and gets new ones only if there is no other.
    Leaving,
    /// For `Local`: of its pods, only such answer as are about to go (KEP-1669).
    Terminating,
    /// It must not have any: excluded, being deleted, or for `Local` with pods of which none answers.
    Draining,
}

/// A node that may have flows of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is known of it.
    pub node: &'a Node,
    /// How well it suits.
    pub standing: Standing,
    /// Its weight if its standing is the best there is: 1, or for `Local` the number of pods.
    pub share: u16,
}

/// The backends of a pool, and what is wrong with those that are missing.
pub type Backends = (Vec<Backend>, Vec<Problem>);

/// The nodes that may have flows of a Service, by name. Those of one that is not `Local` are the same for all.
///
/// Endpoints decide for `Local` only. Otherwise all nodes do, even while there is no endpoint: kube-proxy then refuses
/// connections, which tells a client more than silence, and nothing has to be moved when the next pod comes.
pub fn candidates<'a>(
    nodes: &'a BTreeMap<String, Node>,
    service: &Service,
    endpoints: &[Endpoint],
    include_excluded: bool,
) -> Vec<Candidate<'a>> {
    let pods = Pods::by_node(if service.local { endpoints } else { &[] });
    let candidate = |(name, node): (&'a String, &'a Node)| {
        let (of_pods, share) =
            if service.local { pods.get(name.as_str())?.standing() } else { (Standing::Active, 1) };
        if of_pods == Standing::Draining && !service.has_connections() {
            return None;
        }
        let standing = of_pods.max(of_node(node, include_excluded));
        Some(Candidate { name, node, standing, share })
    };
    nodes.iter().filter_map(candidate).collect()
}

/// The backends for VIPs of one family. Leaves out nodes without a fitting address, and says so if it was needed.
pub fn backends(
    candidates: &[Candidate<'_>],
    family: Family,
    mode: Mode,
    vips: &HashSet<IpAddr>,
) -> Backends {
    let mut seen = HashSet::new();
    let mut taken = Vec::new();
    let mut usable = Vec::new();
    for candidate in candidates {
        let Some(address) = address(candidate.node, family, mode) else { continue };
        if vips.contains(&address) || !seen.insert(address) {
            taken.push(format!("{} of node {}", address, candidate.name));
            continue;
        }
        usable.push((candidate, address));
    }
    let best = usable.iter().map(|(candidate, _)| candidate.standing).min();
    let takes = |standing| standing != Standing::Draining && Some(standing) == best;
    let backend = |(candidate, address): &(&Candidate<'_>, IpAddr)| Backend {
        name: candidate.name.into(),
        address: *address,
        weight: if takes(candidate.standing) { candidate.share } else { 0 },
        mode,
    };
    let backends: Vec<_> = usable.iter().map(backend).collect();
    let problems = [other_owner(&taken), unaddressed(candidates, &backends, family, mode)];
    (backends, problems.into_iter().flatten().collect())
}

/// Why no node can be a backend of anything, if that is so.
pub fn unavailable(nodes: &BTreeMap<String, Node>, include_excluded: bool) -> Option<Problem> {
    let refused = |node: &Node| of_node(node, include_excluded) == Standing::Draining;
    if nodes.values().any(|node| !refused(node)) {
        return None;
    }
    let excluded = nodes.values().filter(|node| !include_excluded && excluded(node)).count();
    let all = nodes.len();
    let message = match (all, excluded) {
        (0, _) => "the cluster has no node; join one".to_owned(),
        (_, 0) => format!("all nodes ({all}) are being deleted; join another"),
        _ => format!(
            "{excluded} of {all} nodes carry the label {EXCLUDE_LABEL}, and none is left; remove it from those that \
             should take traffic (kubectl label node NAME {EXCLUDE_LABEL}-), or write include_excluded_nodes = true \
             into [kubernetes] of Shunt's configuration"
        ),
    };
    Some(Problem::new(UNAVAILABLE, message))
}

fn of_node(node: &Node, include_excluded: bool) -> Standing {
    if node.deleting || (!include_excluded && excluded(node)) {
        return Standing::Draining;
    }
    if node.leaving { Standing::Leaving } else { Standing::Active }
}

/// The label's value is a bool since Kubernetes 1.34, as Go's `strconv.ParseBool` reads one; what is none excludes, as
/// the label alone did before.
fn excluded(node: &Node) -> bool {
    let Some(value) = &node.exclude_label else { return false };
    !["0", "f", "F", "false", "FALSE", "False"].contains(&value.as_str())
}

/// Where a node is reached: by `nat` in the family of the VIP only. By `dr` and `ipip` rather in that, though its MAC
/// address and its tunnels can be had by the other one too.
fn address(node: &Node, family: Family, mode: Mode) -> Option<IpAddr> {
    let of_family = node.addresses.iter().find(|address| Family::of(**address) == family);
    let any = node.addresses.first().filter(|_| mode != Mode::Nat);
    of_family.or(any).copied()
}

fn other_owner(taken: &[String]) -> Option<Problem> {
    let message = format!(
        "{} also is the address of another node, or a VIP; that node gets no traffic. Give each node an InternalIP of \
         its own, and take nodes' addresses out of the address pools",
        taken.join(", ")
    );
    (!taken.is_empty()).then(|| Problem::new(NODE_ADDRESS_TAKEN, message))
}

/// Nodes would take flows, but none of them can be reached.
fn unaddressed(
    candidates: &[Candidate<'_>],
    backends: &[Backend],
    family: Family,
    mode: Mode,
) -> Option<Problem> {
    let wanted = candidates.iter().any(|candidate| candidate.standing != Standing::Draining);
    if !wanted || backends.iter().any(|backend| backend.weight > 0) {
        return None;
    }
    let message = match mode {
        Mode::Nat => format!(
            "no node that should take traffic has an {family} InternalIP, and mode nat cannot change the family; give \
             nodes one, or use mode dr or ipip"
        ),
        Mode::Dr | Mode::Ipip => {
            "no node that should take traffic has a usable InternalIP; look at `kubectl get nodes \
                                  -o wide`, and set the kubelet's --node-ip"
                .to_owned()
        }
    };
    Some(Problem::new(UNAVAILABLE, message))
}

/// Pods of one Service on one node.
#[derive(Clone, Copy, Default)]
struct Pods {
    ready: u16,
    terminating: u16,
}

impl Pods {
    /// Those whose node is known.
    fn by_node(endpoints: &[Endpoint]) -> BTreeMap<&str, Self> {
        let mut by_node: BTreeMap<&str, Self> = BTreeMap::new();
        for endpoint in endpoints {
            let Some(node) = &endpoint.node else { continue };
            let pods = by_node.entry(node).or_default();
            if endpoint.ready && !endpoint.terminating {
                pods.ready = pods.ready.saturating_add(1);
            } else if endpoint.serving && endpoint.terminating {
                pods.terminating = pods.terminating.saturating_add(1);
            }
        }
        by_node
    }

    /// And the share that goes with it. A pod that does not answer may still have connections, which kube-proxy leaves
    /// alone; datagrams it would drop, though another node may have a pod for them.
    fn standing(self) -> (Standing, u16) {
        let (standing, pods) = match (self.ready, self.terminating) {
            (0, 0) => (Standing::Draining, 0),
            (0, terminating) => (Standing::Terminating, terminating),
            (ready, _) => (Standing::Active, ready),
        };
        (standing, pods.min(u16::try_from(*WEIGHT.end()).expect("weights fit")))
    }
}

#[cfg(test)]
mod tests;
