//! From the API's objects to [`Facts`]. Pure; whatever is missing or malformed in an object is taken for absent, for a
//! watched cluster may hold objects of any age.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use shunt_api::snapshot::Protocol;

use super::facts::{Endpoint, Facts, Family, FamilyPolicy, Ingress, Labels, Node, Port, Service, ServiceKey};
use super::report::ownership::FINALIZER;
use super::translate::nodes::EXCLUDE_LABEL;

/// The prefix of our own conditions.
pub const OWN_CONDITIONS: &str = "shunt.dev/";
/// Says which Service a slice belongs to.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The cluster autoscaler is about to remove the node.
const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// What there was before `spec.loadBalancerSourceRanges`.
const SOURCE_RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// All of a cluster.
pub fn facts<'o>(
    services: impl Iterator<Item = &'o core::Service>,
    slices: impl Iterator<Item = &'o EndpointSlice>,
    nodes: impl Iterator<Item = &'o core::Node>,
    namespaces: impl Iterator<Item = &'o core::Namespace>,
) -> Facts {
    let name = |metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        metadata.name.clone().unwrap_or_default()
    };
    let labels = |namespace: &core::Namespace| namespace.metadata.labels.clone().unwrap_or_default();
    Facts {
        services: services.map(service).collect(),
        endpoints: endpoints(slices),
        nodes: nodes.map(|of| (name(&of.metadata), node(of))).collect(),
        namespaces: namespaces.map(|of| (name(&of.metadata), labels(of))).collect(),
    }
}

fn service(object: &core::Service) -> (ServiceKey, Service) {
    let metadata = &object.metadata;
    let key = ServiceKey {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    };
    let none = core::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&none);
    let annotations = metadata.annotations.clone().unwrap_or_default();
    let is = |field: &Option<String>, value: &str| field.as_deref() == Some(value);
    let affinity = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let service = Service {
        uid: metadata.uid.clone().unwrap_or_default(),
        created_s: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        deleting: metadata.deletion_timestamp.is_some(),
        wants_load_balancer: is(&spec.type_, "LoadBalancer"),
        class: spec.load_balancer_class.clone(),
        labels: metadata.labels.clone().unwrap_or_default(),
        requested_ip: spec.load_balancer_ip.clone().filter(|ip| !ip.is_empty()),
        families: spec.ip_families.iter().flatten().filter_map(|family| self::family(family)).collect(),
        family_policy: match spec.ip_family_policy.as_deref() {
            Some("PreferDualStack") => FamilyPolicy::PreferDualStack,
            Some("RequireDualStack") => FamilyPolicy::RequireDualStack,
            _ => FamilyPolicy::SingleStack,
        },
        headless: is(&spec.cluster_ip, "None"),
        ports: spec.ports.iter().flatten().filter_map(port).collect(),
        local: is(&spec.external_traffic_policy, "Local"),
        health_check_node_port: spec.health_check_node_port.and_then(number),
        source_ranges: source_ranges(spec, &annotations),
        affinity_s: is(&spec.session_affinity, "ClientIP").then(|| {
            let timeout = affinity.and_then(|client_ip| client_ip.timeout_seconds);
            timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(AFFINITY_DEFAULT_S)
        }),
        has_finalizer: metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER),
        ingress: object.status.iter().flat_map(ingress).collect(),
        conditions: object.status.iter().flat_map(conditions).collect(),
        condition_times: object.status.iter().flat_map(condition_times).collect(),
        annotations,
    };
    (key, service)
}

/// `spec.sessionAffinityConfig.clientIP.timeoutSeconds`, where nothing is written: three hours.
const AFFINITY_DEFAULT_S: u32 = 10_800;

fn family(text: &str) -> Option<Family> {
    match text {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    }
}

fn port(port: &core::ServicePort) -> Option<Port> {
    let protocol_name = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let protocol = match protocol_name.as_str() {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        protocol_name,
        port: number(port.port)?,
        node_port: port.node_port.and_then(number),
    })
}

/// A port; 0 is none.
fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

/// The annotation counts only where the field is empty.
fn source_ranges(spec: &core::ServiceSpec, annotations: &Labels) -> Vec<String> {
    let of_spec: Vec<String> = spec.load_balancer_source_ranges.iter().flatten().cloned().collect();
    if !of_spec.is_empty() {
        return of_spec;
    }
    let of_annotation = annotations.get(SOURCE_RANGES_ANNOTATION).map(String::as_str).unwrap_or_default();
    let ranges = of_annotation.split(',').map(str::trim).filter(|range| !range.is_empty());
    ranges.map(str::to_owned).collect()
}

fn ingress(status: &core::ServiceStatus) -> Vec<Ingress> {
    let all = status.load_balancer.iter().flat_map(|status| status.ingress.iter().flatten());
    let one = |ingress: &core::LoadBalancerIngress| Ingress {
        ip: ingress.ip.as_ref().and_then(|ip| ip.parse().ok()),
        ip_mode: ingress.ip_mode.clone(),
        ports: ingress
            .ports
            .iter()
            .flatten()
            .filter_map(|port| Some((number(port.port)?, port.protocol.clone(), port.error.clone())))
            .collect(),
    };
    all.map(one).collect()
}

fn conditions(status: &core::ServiceStatus) -> BTreeMap<String, (bool, String, String)> {
    let own =
        status.conditions.iter().flatten().filter(|condition| condition.type_.starts_with(OWN_CONDITIONS));
    own.map(|condition| {
        let told = (condition.status == "True", condition.reason.clone(), condition.message.clone());
        (condition.type_.clone(), told)
    })
    .collect()
}

/// Those of the same conditions.
fn condition_times(status: &core::ServiceStatus) -> BTreeMap<String, String> {
    let own =
        status.conditions.iter().flatten().filter(|condition| condition.type_.starts_with(OWN_CONDITIONS));
    own.map(|condition| (condition.type_.clone(), condition.last_transition_time.0.to_string())).collect()
}

/// By Service; a pod that stands in several slices counts once.
fn endpoints<'o>(slices: impl Iterator<Item = &'o EndpointSlice>) -> BTreeMap<ServiceKey, Vec<Endpoint>> {
    let mut by_service: BTreeMap<ServiceKey, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for slice in slices {
        let Some(name) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL))
        else {
            continue;
        };
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let of_service = by_service.entry(ServiceKey { namespace, name: name.clone() }).or_default();
        for endpoint in slice.endpoints.iter().flatten() {
            // In a dual-stack cluster a pod has a slice for each family; its name tells that it is the same.
            let pod = endpoint
                .target_ref
                .as_ref()
                .and_then(|target| target.uid.clone().or_else(|| target.name.clone()));
            let identity = pod.or_else(|| endpoint.addresses.first().cloned()).unwrap_or_default();
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let ready = conditions.ready.unwrap_or(true);
            of_service.insert(
                identity,
                Endpoint {
                    node: endpoint.node_name.clone(),
                    ready,
                    serving: conditions.serving.unwrap_or(ready),
                    terminating: conditions.terminating.unwrap_or(false),
                },
            );
        }
    }
    by_service.into_iter().map(|(key, endpoints)| (key, endpoints.into_values().collect())).collect()
}

fn node(object: &core::Node) -> Node {
    let status = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let internal = status.filter(|address| address.type_ == "InternalIP");
    let taints = object.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    Node {
        addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
        exclude_label: object.metadata.labels.as_ref().and_then(|labels| labels.get(EXCLUDE_LABEL).cloned()),
        leaving: taints.map(|taint| &taint.key).any(|key| key == LEAVING_TAINT),
        deleting: object.metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests;
