use serde_json::{Value, json};

use super::*;

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn service_of(value: Value) -> Service {
    service(&object(value)).1
}

fn everything() -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": "web", "uid": "u1", "creationTimestamp": "2026-01-31T12:00:00Z",
            "labels": { "app": "web" }, "annotations": { "shunt.dev/mode": "dr" },
            "finalizers": ["other", "service.kubernetes.io/load-balancer-cleanup"],
        },
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "shunt.dev/l4", "loadBalancerIP": "198.51.100.7",
            "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack", "clusterIP": "10.96.0.10",
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } },
            "ports": [
                { "name": "http", "port": 80, "nodePort": 30080 },
                { "port": 53, "protocol": "UDP" },
                { "port": 9, "protocol": "SCTP", "nodePort": 30009 },
            ],
        },
        "status": {
            "loadBalancer": { "ingress": [
                { "ip": "2001:db8::7", "ipMode": "VIP", "ports": [{ "port": 80, "protocol": "TCP", "error": "x.y/Z" }] },
                { "hostname": "elsewhere.example" },
            ] },
            "conditions": [
                { "type": "shunt.dev/Programmed", "status": "True", "reason": "R", "message": "m",
                    "lastTransitionTime": "2026-01-31T12:00:00Z" },
                { "type": "LoadBalancerPortsError", "status": "True", "reason": "R", "message": "m",
                    "lastTransitionTime": "2026-01-31T12:00:00Z" },
            ],
        },
    })
}

#[test]
fn a_service_with_everything() {
    let (key, service) = service(&object(everything()));
    assert_eq!(key.to_string(), "shop/web");
    let port = |name: &str, protocol, protocol_name: &str, port, node_port| Port {
        name: name.into(),
        protocol,
        protocol_name: protocol_name.into(),
        port,
        node_port,
    };
    let expected = Service {
        uid: "u1".into(),
        created_s: 1_769_860_800,
        wants_load_balancer: true,
        class: Some("shunt.dev/l4".into()),
        labels: [("app".into(), "web".into())].into(),
        annotations: [("shunt.dev/mode".into(), "dr".into())].into(),
        requested_ip: Some("198.51.100.7".into()),
        families: vec![Family::V6, Family::V4],
        family_policy: FamilyPolicy::RequireDualStack,
        ports: vec![
            port("http", Some(Protocol::Tcp), "TCP", 80, Some(30080)),
            port("", Some(Protocol::Udp), "UDP", 53, None),
            port("", None, "SCTP", 9, Some(30009)),
        ],
        local: true,
        health_check_node_port: Some(31000),
        source_ranges: vec!["192.0.2.0/24".into()],
        affinity_s: Some(60),
        has_finalizer: true,
        ingress: vec![
            Ingress {
                ip: "2001:db8::7".parse().ok(),
                ip_mode: Some("VIP".into()),
                ports: vec![(80, "TCP".into(), Some("x.y/Z".into()))],
            },
            Ingress { ip: None, ip_mode: None, ports: vec![] },
        ],
        conditions: [("shunt.dev/Programmed".into(), (true, "R".into(), "m".into()))].into(),
        condition_times: [("shunt.dev/Programmed".into(), "2026-01-31T12:00:00Z".into())].into(),
        ..Service::default()
    };
    assert_eq!(service, expected);
}

#[test]
fn what_is_missing_or_malformed_is_absent() {
    assert_eq!(service_of(json!({ "metadata": {} })), Service::default());
    let odd = service_of(json!({
        "metadata": {
            "deletionTimestamp": "2026-01-31T12:00:00Z",
            "annotations": { "service.beta.kubernetes.io/load-balancer-source-ranges": "192.0.2.0/24, 10.0.0.0/8 ,," },
        },
        "spec": {
            "type": "ExternalName", "clusterIP": "None", "loadBalancerIP": "", "healthCheckNodePort": 0,
            "sessionAffinity": "ClientIP", "ipFamilies": ["IPv9"],
            "ports": [{ "port": 0 }, { "port": 70000 }, { "port": 80, "nodePort": 0 }],
        },
        "status": { "loadBalancer": { "ingress": [{ "ip": "no address" }] } },
    }));
    assert_eq!((odd.deleting, odd.headless, odd.wants_load_balancer), (true, true, false));
    assert_eq!(odd.source_ranges, ["192.0.2.0/24", "10.0.0.0/8"]);
    assert_eq!((odd.requested_ip, odd.health_check_node_port, odd.affinity_s), (None, None, Some(10_800)));
    let ports: Vec<_> = odd.ports.iter().map(|port| (port.port, port.node_port)).collect();
    assert_eq!((ports, odd.families, odd.ingress[0].ip), (vec![(80, None)], vec![], None));
}

/// KEP-1672: an endpoint without conditions is ready; without `serving` it serves if it is ready.
#[test]
fn endpoints_are_those_of_all_slices_and_each_pod_counts_once() {
    let slice = |name: &str, endpoints: Value| -> EndpointSlice {
        object(json!({
            "metadata": { "namespace": "shop", "name": name, "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4", "endpoints": endpoints,
        }))
    };
    let pod = |uid: &str, node: &str, conditions: Value| {
        json!({ "addresses": ["10.0.0.1"], "nodeName": node, "conditions": conditions,
            "targetRef": { "kind": "Pod", "uid": uid } })
    };
    let slices = [
        slice(
            "a",
            json!([
                pod("1", "n1", json!({})),
                pod("2", "n2", json!({ "ready": false, "serving": true, "terminating": true }))
            ]),
        ),
        slice("b", json!([pod("1", "n1", json!({})), { "addresses": ["192.0.2.9"] }])),
        object(
            json!({ "metadata": { "namespace": "shop" }, "addressType": "IPv4", "endpoints": [{ "addresses": ["10.0.0.9"] }] }),
        ),
    ];
    let found = endpoints(slices.iter());
    let key = ServiceKey { namespace: "shop".into(), name: "web".into() };
    let endpoint = |node: Option<&str>, ready, serving, terminating| Endpoint {
        node: node.map(str::to_owned),
        ready,
        serving,
        terminating,
    };
    let expected = vec![
        endpoint(Some("n1"), true, true, false),
        endpoint(None, true, true, false),
        endpoint(Some("n2"), false, true, true),
    ];
    let mut of_web = found[&key].clone();
    of_web.sort_by_key(|endpoint| (!endpoint.ready, endpoint.node.is_none()));
    assert_eq!((found.len(), of_web), (1, expected));
}

#[test]
fn a_node_is_its_internal_addresses_and_what_speaks_against_it() {
    let found = node(&object(json!({
        "metadata": { "labels": { "node.kubernetes.io/exclude-from-external-load-balancers": "false" } },
        "spec": { "taints": [{ "key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule" }], "unschedulable": true },
        "status": { "addresses": [
            { "type": "Hostname", "address": "n1" }, { "type": "InternalIP", "address": "10.0.0.1" },
            { "type": "ExternalIP", "address": "192.0.2.1" }, { "type": "InternalIP", "address": "fd00::1" },
        ] },
    })));
    let expected = Node {
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        exclude_label: Some("false".into()),
        leaving: true,
        deleting: false,
    };
    assert_eq!(found, expected);
}
