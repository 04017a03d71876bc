//! Objects to put into the double.

use serde_json::{Value, json};

/// The class of the Services here.
pub const CLASS: &str = "shunt.dev/l4";

/// A Service `shop/NAME` of type LoadBalancer on TCP port 80; `number` is for its uid and ports.
pub fn service(name: &str, number: u16, local: bool) -> Value {
    let mut spec = json!({
        "type": "LoadBalancer",
        "loadBalancerClass": CLASS,
        "clusterIP": format!("10.96.{}.{}", number / 250, number % 250 + 1),
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "externalTrafficPolicy": if local { "Local" } else { "Cluster" },
        "ports": [{ "port": 80, "protocol": "TCP", "nodePort": 30_000 + number }],
    });
    if local {
        spec["healthCheckNodePort"] = (20_000 + number).into();
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "namespace": "shop", "name": name, "uid": format!("uid-{name}"),
            "creationTimestamp": format!("2026-01-01T{:02}:{:02}:{:02}Z", number / 3600, number / 60 % 60, number % 60),
        },
        "spec": spec,
        "status": { "loadBalancer": {} },
    })
}

/// Node `nNUMBER` with an IPv4 address.
pub fn node(number: u8) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": format!("n{number}"), "uid": format!("uid-n{number}") },
        "status": { "addresses": [
            { "type": "Hostname", "address": format!("n{number}") },
            { "type": "InternalIP", "address": format!("192.168.76.{number}") },
        ] },
    })
}

/// The namespace of the Services.
pub fn namespace() -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop", "uid": "uid-shop" } })
}

/// A ready pod of a Service on each of these nodes.
pub fn slice(service: &str, nodes: &[u8]) -> Value {
    let pod = |node: &u8| {
        json!({
            "addresses": [format!("10.244.{node}.9")],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": format!("n{node}"),
            "targetRef": { "kind": "Pod", "name": format!("{service}-{node}"), "uid": format!("uid-{service}-{node}") },
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": format!("{service}-1"), "uid": format!("uid-{service}-1"),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "endpoints": nodes.iter().map(pod).collect::<Vec<_>>(),
        "ports": [{ "port": 8080, "protocol": "TCP" }],
    })
}

/// A `ShuntPool` with a prefix.
pub fn pool(name: &str, prefix: &str) -> Value {
    json!({
        "apiVersion": "shunt.dev/v1alpha1", "kind": "ShuntPool",
        "metadata": { "name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "addresses": [prefix] },
    })
}
