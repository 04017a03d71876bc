//! The tables `[kubernetes]`: clusters whose Services of type `LoadBalancer` are served beside those of the file.
//!
//! Types, and how a cluster is read; `kubernetes/pools.rs` reads its pools of addresses and holds them against all
//! else that has addresses. Nothing here talks to a cluster.

pub mod names;
pub mod pools;

use std::collections::HashSet;
use std::path::PathBuf;

use self::pools::Ranges;
use super::consistency::{Pools, Unique};
use super::document::{Table, Value};
use super::nat::Section;
use super::{CLUSTERS_MAX, Service, at_most, or_default, value};
use crate::address_pool::AddressPool;
use crate::snapshot::Mode;
use crate::status::ConfigProblem;

/// The class of Services that are ours unless the file names another.
const CLASS: &str = "shunt.dev/l4";
/// Where the Lease is unless the file names another namespace.
const NAMESPACE: &str = "shunt-system";

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kubernetes {
    /// A DNS label, unique among clusters; `None` only if there is no other.
    pub name: Option<String>,
    /// How to reach it and as whom.
    pub kubeconfig: PathBuf,
    /// Services with this `loadBalancerClass` are ours.
    pub class: String,
    /// Whether Services without a class are ours too.
    pub default_class: bool,
    /// How packets get to nodes, unless a Service says otherwise.
    pub mode: Mode,
    /// What the status of a Service of mode `nat` says of its addresses.
    pub nat_ip_mode: IpMode,
    /// Whether nodes with the label `node.kubernetes.io/exclude-from-external-load-balancers` get packets too.
    pub include_excluded_nodes: bool,
    /// By which the boxes of a class agree on the one that writes.
    pub lease: Lease,
    /// Where Services get addresses from, beside the pools that the cluster itself defines.
    pub pools: Vec<AddressPool>,
}

/// `status.loadBalancer.ingress[].ipMode` (KEP-1860).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpMode {
    /// Nodes do not expect packets to the VIP, so that pods that use it go through this box too.
    #[default]
    Proxy,
    /// Nodes take packets to the VIP for their own, so that pods that use it never leave the cluster.
    Vip,
}

/// A Lease of the API group `coordination.k8s.io`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl IpMode {
    /// As the API writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Proxy => "Proxy",
            Self::Vip => "VIP",
        }
    }
}

/// What else in the file has addresses.
pub struct Others<'o, 'd> {
    /// Every service.
    pub services: &'o [Service],
    /// Every backend.
    pub pools: &'o Pools<'d>,
    /// Where translated flows come from.
    pub nat: &'o Section<'d>,
}

/// Reads every cluster; `file` is where relative paths start.
pub fn read(root: &Table<'_>, file: &str, others: &Others<'_, '_>) -> Result<Vec<Kubernetes>, ConfigProblem> {
    let example = "[kubernetes] with kubeconfig = \"/etc/shunt/kubeconfig\"";
    let Some(section) = root.optional("kubernetes") else { return Ok(Vec::new()) };
    let elements = at_most(&section, section.one_or_more(example)?, CLUSTERS_MAX, "clusters")?;
    let several = elements.len() > 1;
    let mut names = Unique::default();
    let mut kubeconfigs = HashSet::new();
    let mut ranges = Ranges::default();
    let mut clusters = Vec::new();
    for element in &elements {
        let table = element.table(example)?;
        let name = name(&table, several, &mut names)?;
        let cluster = cluster(&table, name, file, &mut ranges)?;
        if !kubeconfigs.insert(cluster.kubeconfig.clone()) {
            return Err(table.required("kubeconfig", "\"/etc/shunt/kubeconfig\"")?.problem(
                "another [[kubernetes]] has this kubeconfig; write that of another cluster, or remove one of the two",
            ));
        }
        refuse_without_source(&table, &cluster, others.nat)?;
        clusters.push(cluster);
    }
    ranges.refuse_overlap()?;
    ranges.refuse_taken(others)?;
    Ok(clusters)
}

fn name<'d>(
    table: &Table<'d>,
    several: bool,
    names: &mut Unique<'d, String>,
) -> Result<Option<String>, ConfigProblem> {
    let example = "\"berlin\"";
    let value = if several { Some(table.required("name", example)?) } else { table.optional("name") };
    let Some(value) = value else { return Ok(None) };
    names.insert(names::label(&value, example)?, &value, "a cluster").map(Some)
}

fn cluster<'d>(
    table: &Table<'d>,
    name: Option<String>,
    file: &str,
    ranges: &mut Ranges<'d>,
) -> Result<Kubernetes, ConfigProblem> {
    table.allow_only(&[
        "kubeconfig",
        "name",
        "class",
        "default_class",
        "mode",
        "nat_ip_mode",
        "include_excluded_nodes",
        "namespace",
        "pools",
    ])?;
    let ip_modes = [("Proxy", IpMode::Proxy), ("VIP", IpMode::Vip)];
    let kubeconfig = table.required("kubeconfig", "\"/etc/shunt/kubeconfig\"")?;
    let pools = table.optional("pools");
    let class = or_default(table, "class", CLASS.into(), names::class)?;
    let label = |value: &Value<'_>| names::label(value, "\"shunt-system\"");
    let namespace = or_default(table, "namespace", NAMESPACE.into(), label)?;
    Ok(Kubernetes {
        kubeconfig: value::path(&kubeconfig, file, "\"/etc/shunt/kubeconfig\"")?,
        default_class: or_default(table, "default_class", false, Value::boolean)?,
        mode: or_default(table, "mode", Mode::default(), value::mode)?,
        nat_ip_mode: or_default(table, "nat_ip_mode", IpMode::default(), |value| value.one_of(&ip_modes))?,
        include_excluded_nodes: or_default(table, "include_excluded_nodes", false, Value::boolean)?,
        lease: Lease { namespace, name: lease_name(&class) },
        pools: pools.map_or(Ok(Vec::new()), |list| pools::read(&list, name.as_deref(), ranges))?,
        class,
        name,
    })
}

/// The boxes of one class have one Lease. Of a class, which may have capital letters, `_` and `/`, it has what the name
/// of an object may have.
fn lease_name(class: &str) -> String {
    let (prefix, word) = class.split_once('/').map_or(("", class), |(prefix, word)| (prefix, word));
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let word: String = word.chars().map(allowed).collect();
    if prefix.is_empty() { word } else { format!("{prefix}-{word}") }
}

/// A translated flow comes from an address of the family of its VIP.
fn refuse_without_source(
    table: &Table<'_>,
    cluster: &Kubernetes,
    nat: &Section<'_>,
) -> Result<(), ConfigProblem> {
    let Some(mode) = table.optional("mode").filter(|_| cluster.mode == Mode::Nat) else { return Ok(()) };
    let without = |v4: &bool| {
        let has_vips = cluster.pools.iter().any(|pool| pool.count(*v4) > 0);
        has_vips && !nat.sources().any(|(source, _)| source.is_ipv4() == *v4)
    };
    let Some(v4) = [true, false].into_iter().find(without) else { return Ok(()) };
    let family = if v4 { "IPv4" } else { "IPv6" };
    Err(mode.problem(format!(
        "flows of mode nat need an {family} address to come from; add one that is routed to this box to sources in \
         [nat]"
    )))
}

#[cfg(test)]
mod tests;
