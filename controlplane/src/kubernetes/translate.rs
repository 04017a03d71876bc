//! What the dataplane shall serve for a cluster: from its facts and the addresses of its Services. Pure.
//!
//! A Service becomes, for each family of its addresses, a pool of nodes and a service that uses it; mode `nat` cannot
//! change the family, and the other modes are then treated alike. Services whose backends are all nodes, and whose check
//! asks the nodes and not the Service, have their pools in common ([`shared_name`]): thousands of them then cost no more
//! than one, and a node is drained for all at once. Those that are `Local`, and those whose ports are probed, have pools
//! of their own, because what is found for one says nothing about another. What cannot be done as the Service says is a
//! [`Problem`] of it, or a [`PortError`] of one of its ports, and the rest is served.

pub mod annotations;
pub mod health;
pub mod nodes;
pub mod ranges;
pub mod wanted;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use shunt_api::config::{OnDown, WhenAllDown};
use shunt_api::snapshot::{Mode, PortMapping, Protocol, ServicePort, UnlistedPorts};

use super::facts::{Facts, Family, Port, Service, ServiceKey};
use super::ipam;
use super::report::ownership::MARK;
use annotations::Annotations;
use wanted::{Pool, Wanted};

/// How packets get to the nodes of a Service: `dr`, `ipip` or `nat`.
pub const MODE: &str = "shunt.dev/mode";
/// Every annotation of ours.
const SETTINGS: [&str; 11] = [
    MODE,
    ipam::ADDRESSES,
    ipam::POOL,
    ipam::SHARE,
    health::HEALTH_CHECK,
    health::HEALTH_INTERVAL,
    health::HEALTH_TIMEOUT,
    health::HEALTH_RISE,
    health::HEALTH_FALL,
    health::ON_DOWN,
    // Set by ourselves.
    MARK,
];
/// Reason of a problem that leaves a Service without nodes, as the cloud provider calls it.
pub const UNAVAILABLE: &str = "UnAvailableLoadBalancer";

/// What the configuration says of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Begins the names of its pools and services; for boxes that serve several clusters.
    pub cluster: Option<String>,
    /// The mode of Services that name none.
    pub mode: Mode,
    /// Nodes with the exclude label are backends too.
    pub include_excluded_nodes: bool,
    /// The families in which there is an address that flows of mode `nat` come from.
    pub nat_families: BTreeSet<Family>,
}

/// The addresses of the Services that are ours, in the order of their families.
pub type Addresses = BTreeMap<ServiceKey, Vec<IpAddr>>;

/// What is wrong with a Service, for a human.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// One word in CamelCase.
    pub reason: String,
    /// What is wrong and what to do next.
    pub message: String,
}

/// Why a port of a Service is not served; for `status.loadBalancer.ingress[].ports[].error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortError {
    /// What clients would use.
    pub port: u16,
    /// As the Service writes it.
    pub protocol: String,
    /// `shunt.dev/` and a word in CamelCase (KEP-1435).
    pub error: &'static str,
}

/// What became of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// How packets get to its nodes.
    pub mode: Mode,
    /// Its pools and services; none if nothing of it can be served.
    pub wanted: Wanted,
    /// What is wrong with it; those of ports too.
    pub problems: Vec<Problem>,
    /// Its ports that are not served.
    pub port_errors: Vec<PortError>,
}

impl Problem {
    /// See its fields.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

impl Translated {
    /// The addresses that the dataplane shall serve.
    pub fn vips(&self) -> Vec<IpAddr> {
        self.wanted.services.iter().flat_map(|service| service.vips.iter().copied()).collect()
    }
}

/// Translates every Service that has addresses: give it those that may be served
/// ([`super::report::ownership::may_be_served`]). Those that cannot have any ([`refusal`]) are not served.
pub fn translate(
    facts: &Facts,
    addresses: &Addresses,
    settings: &Settings,
) -> BTreeMap<ServiceKey, Translated> {
    let vips: HashSet<IpAddr> = addresses.values().flatten().copied().collect();
    let unavailable = nodes::unavailable(&facts.nodes, settings.include_excluded_nodes);
    let all_nodes = AllNodes::new(facts, settings, &vips);
    let one = |(key, addresses): (&ServiceKey, &Vec<IpAddr>)| {
        let service = facts.services.get(key)?;
        let mut translated =
            one(&Inputs { facts, settings, vips: &vips, all_nodes: &all_nodes, key, service }, addresses);
        translated.problems.extend(unavailable.clone());
        Some((key.clone(), translated))
    };
    addresses.iter().filter_map(one).collect()
}

/// All that shall be served.
pub fn merged<'a>(translated: impl IntoIterator<Item = &'a Translated>) -> Wanted {
    wanted::merged(translated.into_iter().map(|translated| &translated.wanted))
}

/// The name of what is served for a Service, but for the family at its end.
pub fn name(settings: &Settings, key: &ServiceKey) -> String {
    format!("{}{key}", wanted::prefix(settings.cluster.as_deref()))
}

/// Why a Service that is ours cannot have an address at all.
pub fn refusal(service: &Service) -> Option<Problem> {
    let message = "clusterIP is None, and for such a Service kube-proxy forwards nothing; leave clusterIP out, or use \
                   type ClusterIP";
    service.headless.then(|| Problem::new("HeadlessService", message))
}

/// Everything one Service is translated by.
struct Inputs<'a> {
    facts: &'a Facts,
    settings: &'a Settings,
    /// Of all Services.
    vips: &'a HashSet<IpAddr>,
    all_nodes: &'a AllNodes<'a>,
    key: &'a ServiceKey,
    service: &'a Service,
}

/// What is alike for all Services that are not `Local`, and so is found once.
struct AllNodes<'a> {
    candidates: Vec<nodes::Candidate<'a>>,
    /// By family and mode.
    backends: HashMap<(Family, Mode), nodes::Backends>,
}

impl<'a> AllNodes<'a> {
    fn new(facts: &'a Facts, settings: &Settings, vips: &HashSet<IpAddr>) -> Self {
        let candidates =
            nodes::candidates(&facts.nodes, &Service::default(), &[], settings.include_excluded_nodes);
        let backends = |key: (Family, Mode)| (key, nodes::backends(&candidates, key.0, key.1, vips));
        let modes = [Mode::Dr, Mode::Ipip, Mode::Nat];
        let keys = modes.iter().flat_map(|mode| [(Family::V4, *mode), (Family::V6, *mode)]);
        let backends = keys.map(backends).collect();
        Self { candidates, backends }
    }
}

/// What the families of a Service have in common.
struct Common<'a> {
    candidates: Cow<'a, [nodes::Candidate<'a>]>,
    ports: Vec<PortMapping>,
    pool: Pool,
    service: wanted::Service,
}

fn one(inputs: &Inputs<'_>, addresses: &[IpAddr]) -> Translated {
    let service = inputs.service;
    if let Some(problem) = refusal(service) {
        return Translated { mode: inputs.settings.mode, problems: vec![problem], ..Translated::default() };
    }
    let mut annotations = Annotations::of(service);
    let words = [("dr", Mode::Dr), ("ipip", Mode::Ipip), ("nat", Mode::Nat)];
    let mode = annotations.one_of(MODE, &words, inputs.settings.mode);
    let (ports, port_errors) = ports(&service.ports, mode);
    let mut translated =
        Translated { mode, problems: annotations.problems, port_errors, ..Translated::default() };
    translated.problems.extend(translated.port_errors.iter().map(PortError::problem));
    let common = common(inputs, mode, ports, &mut translated.problems);
    translated.problems.extend(annotations::unknown(service, &SETTINGS));
    if common.ports.is_empty() {
        return translated;
    }
    for family in families(addresses) {
        let vips: Vec<_> =
            addresses.iter().copied().filter(|address| Family::of(*address) == family).collect();
        add_family(inputs, &common, family, vips, &mut translated);
    }
    translated
}

fn common<'a>(
    inputs: &Inputs<'a>,
    mode: Mode,
    ports: Vec<PortMapping>,
    problems: &mut Vec<Problem>,
) -> Common<'a> {
    let Inputs { facts, settings, all_nodes, key, service, .. } = *inputs;
    let (check, of_check) = health::check(service, mode);
    let (source_ranges, of_ranges) = ranges::source_ranges(&service.source_ranges);
    let (on_down, of_on_down) = health::on_down(service);
    problems.extend(of_check.into_iter().chain(of_on_down).chain(of_ranges));
    let of_endpoints = || {
        let endpoints = facts.endpoints.get(key).map_or(&[][..], Vec::as_slice);
        nodes::candidates(&facts.nodes, service, endpoints, settings.include_excluded_nodes)
    };
    let name = name(settings, key);
    Common {
        candidates: if service.local { of_endpoints().into() } else { (&all_nodes.candidates).into() },
        pool: Pool { name: name.clone(), backends: Vec::new(), check, on_down, slow_start: None },
        service: wanted::Service {
            name,
            vips: Vec::new(),
            ports: ports.clone(),
            pool: 0,
            source_ranges,
            client_ip_affinity_s: service.affinity_s,
            unlisted_ports: UnlistedPorts::default(),
            when_all_down: WhenAllDown::default(),
        },
        ports,
    }
}

/// Adds the pool and the service of one family.
fn add_family(
    inputs: &Inputs<'_>,
    common: &Common<'_>,
    family: Family,
    vips: Vec<IpAddr>,
    translated: &mut Translated,
) {
    let mode = translated.mode;
    if mode == Mode::Nat && !inputs.settings.nat_families.contains(&family) {
        translated.problems.push(no_nat_source(family));
        return;
    }
    let (backends, of_backends) = match inputs.service.local {
        true => nodes::backends(&common.candidates, family, mode, inputs.vips),
        false => inputs.all_nodes.backends[&(family, mode)].clone(),
    };
    for problem in ranges::unreachable(&common.service.source_ranges, family).into_iter().chain(of_backends) {
        // Both families may have the same.
        if !translated.problems.contains(&problem) {
            translated.problems.push(problem);
        }
    }
    let suffix = if family == Family::V4 { "v4" } else { "v6" };
    let addresses = backends.iter().map(|backend| backend.address);
    let check = common.pool.check.clone().map(|check| health::reachable(check, inputs.service, addresses));
    let own_name = format!("{}/{suffix}", common.service.name);
    let shared_name =
        (!inputs.service.local).then(|| shared_name(inputs.settings, mode, suffix, &common.pool));
    let name = shared_name.flatten().unwrap_or_else(|| own_name.clone());
    let pool = Pool { name, backends, check, ..common.pool.clone() };
    // The primary family never changes, so a Service keeps its name when it gets a second one.
    let primary = inputs.service.families.first().is_none_or(|primary| *primary == family);
    let name = if primary { common.service.name.clone() } else { own_name };
    let wanted = &mut translated.wanted;
    wanted.services.push(wanted::Service { name, vips, pool: wanted.pools.len(), ..common.service.clone() });
    wanted.pools.push(pool);
    wanted.created_s.push(inputs.service.created_s);
}

/// The name of the pool that all Services have in common which ask of all nodes the same: `nodes:dr/v4/keep`, with the
/// check at its end if that is not the usual one. The colon keeps it apart from the names of Services. `None` if the
/// check depends on the Service.
fn shared_name(settings: &Settings, mode: Mode, family: &str, pool: &Pool) -> Option<String> {
    let cluster = wanted::prefix(settings.cluster.as_deref());
    let on_down = match pool.on_down {
        OnDown::Keep => "keep",
        OnDown::Rehash => "rehash",
    };
    let name = format!("{cluster}nodes:{mode}/{family}/{on_down}");
    match &pool.check {
        None => Some(format!("{name} (no check)")),
        Some(check) if !health::asks_nodes(check) => None,
        Some(check) if health::is_usual(check) => Some(name),
        Some(check) => Some(format!("{name} ({check})")),
    }
}

/// The families of addresses, in their order.
fn families(addresses: &[IpAddr]) -> Vec<Family> {
    let mut families = Vec::new();
    for family in addresses.iter().map(|address| Family::of(*address)) {
        if !families.contains(&family) {
            families.push(family);
        }
    }
    families
}

/// The ports that can be served in a mode, and why the others cannot.
fn ports(ports: &[Port], mode: Mode) -> (Vec<PortMapping>, Vec<PortError>) {
    let (mut mappings, mut errors) = (Vec::new(), Vec::new());
    for port in ports {
        match mapping(port, mode) {
            Ok(mapping) => mappings.push(mapping),
            Err(error) => {
                errors.push(PortError { port: port.port, protocol: port.protocol_name.clone(), error });
            }
        }
    }
    (mappings, errors)
}

/// `dr` and `ipip` deliver packets as they are, to the VIP and the port that the client used; `nat` delivers them to
/// the node port.
fn mapping(port: &Port, mode: Mode) -> Result<PortMapping, &'static str> {
    let protocol: Protocol = port.protocol.ok_or(PROTOCOL_NOT_SUPPORTED)?;
    let target = match mode {
        Mode::Dr | Mode::Ipip => None,
        Mode::Nat => Some(port.node_port.ok_or(NO_NODE_PORT)?),
    };
    Ok(PortMapping { port: ServicePort { protocol, port: port.port }, target })
}

const PROTOCOL_NOT_SUPPORTED: &str = "shunt.dev/ProtocolNotSupported";
const NO_NODE_PORT: &str = "shunt.dev/NoNodePort";

impl PortError {
    fn problem(&self) -> Problem {
        let Self { port, protocol, error } = self;
        let (reason, why) = match *error {
            NO_NODE_PORT => (
                "NoNodePort",
                "mode nat needs a node port; set allocateLoadBalancerNodePorts: true, or use mode dr or ipip",
            ),
            _ => ("ProtocolNotSupported", "only TCP and UDP are served; remove the port"),
        };
        Problem::new(reason, format!("port {port}/{protocol} is not served: {why}"))
    }
}

fn no_nat_source(family: Family) -> Problem {
    let message = format!(
        "mode nat needs an {family} address for flows to come from; add one to sources in [nat] of Shunt's \
         configuration, or use mode dr or ipip"
    );
    Problem::new("NoNatSource", message)
}

#[cfg(test)]
mod tests;
