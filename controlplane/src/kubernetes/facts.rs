//! What of a cluster matters to a load balancer, free of the API's optional fields. Made from the watched objects, and
//! all that is decided is decided from these.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use shunt_api::snapshot::Protocol;

/// Everything that is known of one cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// All Services, whatever their type: one that ceases to be ours has to be cleaned up.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Endpoints of Services, over all their slices, each pod once.
    pub endpoints: BTreeMap<ServiceKey, Vec<Endpoint>>,
    /// By name.
    pub nodes: BTreeMap<String, Node>,
    /// Labels of namespaces, by name.
    pub namespaces: BTreeMap<String, Labels>,
}

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// Names a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name in that.
    pub name: String,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Tells it from an earlier one of the same name.
    pub uid: String,
    /// When it was made, in seconds since 1970: who came first has its address first.
    pub created_s: i64,
    /// It waits for finalizers to be removed.
    pub deleting: bool,
    /// `spec.type` is `LoadBalancer`.
    pub wants_load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// `spec.loadBalancerIP`, as written.
    pub requested_ip: Option<String>,
    /// `spec.ipFamilies`, the primary one first.
    pub families: Vec<Family>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// `spec.clusterIP` is `None`: kube-proxy does nothing for it.
    pub headless: bool,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// `spec.externalTrafficPolicy` is `Local`.
    pub local: bool,
    /// `spec.healthCheckNodePort`, of those that are `Local`.
    pub health_check_node_port: Option<u16>,
    /// `spec.loadBalancerSourceRanges`, or the annotation of old, as written.
    pub source_ranges: Vec<String>,
    /// Seconds of `spec.sessionAffinityConfig`, if `spec.sessionAffinity` is `ClientIP`.
    pub affinity_s: Option<u32>,
    /// It has the finalizer `service.kubernetes.io/load-balancer-cleanup`.
    pub has_finalizer: bool,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<Ingress>,
    /// `status.conditions` of ours, by type: status, reason and message.
    pub conditions: BTreeMap<String, (bool, String, String)>,
    /// `lastTransitionTime` of those, by type, as written.
    pub condition_times: BTreeMap<String, String>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How many families a Service wants (KEP-563).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the API's names")]
pub enum FamilyPolicy {
    /// The primary one.
    #[default]
    SingleStack,
    /// Both if both can be had.
    PreferDualStack,
    /// Both or none.
    RequireDualStack,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty if it has none.
    pub name: String,
    /// `None` for SCTP and whatever else cannot be served.
    pub protocol: Option<Protocol>,
    /// As written: `TCP`, `UDP`, `SCTP`.
    pub protocol_name: String,
    /// What clients use.
    pub port: u16,
    /// What nodes listen on for mode `nat`; `None` if none is allocated.
    pub node_port: Option<u16>,
}

/// An address in a Service's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// `None` for a hostname, which is never ours.
    pub ip: Option<IpAddr>,
    /// `VIP` or `Proxy`.
    pub ip_mode: Option<String>,
    /// Port, protocol and error of each port.
    pub ports: Vec<(u16, String, Option<String>)>,
}

/// A pod behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The node that it runs on, if that is known.
    pub node: Option<String>,
    /// It takes new connections.
    pub ready: bool,
    /// It answers, though perhaps only those it has.
    pub serving: bool,
    /// It is about to go.
    pub terminating: bool,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `InternalIP` addresses, in the API's order.
    pub addresses: Vec<IpAddr>,
    /// Value of the label `node.kubernetes.io/exclude-from-external-load-balancers`.
    pub exclude_label: Option<String>,
    /// It has the taint `ToBeDeletedByClusterAutoscaler`.
    pub leaving: bool,
    /// It is being deleted.
    pub deleting: bool,
}

impl Service {
    /// It has a TCP port, and so connections that end when they are moved to another node.
    pub fn has_connections(&self) -> bool {
        self.ports.iter().any(|port| port.protocol == Some(Protocol::Tcp))
    }
}

impl Family {
    /// Of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
