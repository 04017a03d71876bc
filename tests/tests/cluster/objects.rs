//! Objects as scenarios make them, each as its manifest would say.

use serde_json::{Value, json};

/// The port that pods listen on, TCP and UDP.
pub const POD_PORT: u16 = 8080;
/// The port of Services.
pub const PORT: u16 = 80;
/// The finalizer of load balancers (KEP-980).
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// Keeps a node from being a backend.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// What the autoscaler puts on a node before it removes it.
pub const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// A Service of type `LoadBalancer` without a class, for pods with the label `app=web`.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": {
            "type": "LoadBalancer",
            "selector": { "app": "web" },
            "ports": [{ "name": "tcp", "port": PORT, "targetPort": POD_PORT }],
        },
    })
}

/// The same with other fields of its specification.
pub fn service_with(name: &str, spec: Value) -> Value {
    let mut object = service(name);
    merge(&mut object["spec"], spec);
    object
}

/// The same with annotations.
pub fn annotated(name: &str, annotations: Value) -> Value {
    let mut object = service(name);
    object["metadata"]["annotations"] = annotations;
    object
}

/// An object with some fields changed (RFC 7386, but that nothing is removed).
pub fn with(mut object: Value, change: Value) -> Value {
    merge(&mut object, change);
    object
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

/// What a pod is made of: `shunt-echo`, which calls itself NODE/POD. `program` is where the nodes have it. As the first
/// process of its container it takes no notice of SIGTERM, so it serves for all of its grace.
pub fn pod_template(image: &str, program: &str, grace_s: u32) -> Value {
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": {
            "terminationGracePeriodSeconds": grace_s,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{
                "name": "web",
                "image": image,
                "command": ["/shunt-echo", "--name", "$(NODE)/$(POD)", "--listen", format!("[::]:{POD_PORT}")],
                "env": [field("NODE", "spec.nodeName"), field("POD", "metadata.name")],
                "readinessProbe": { "tcpSocket": { "port": POD_PORT }, "periodSeconds": 1 },
                "volumeMounts": [{ "name": "program", "mountPath": "/shunt-echo", "readOnly": true }],
            }],
            "volumes": [{ "name": "program", "hostPath": { "path": program, "type": "File" } }],
        },
    })
}

/// A slice of endpoints that nobody but a scenario keeps: on each node one, ready or not. For a Service without a
/// selector.
pub fn slice(service: &str, endpoints: &[(&str, bool)]) -> Value {
    let endpoint = |(number, (node, ready)): (usize, &(&str, bool))| {
        json!({
            "addresses": [format!("10.244.250.{}", number + 1)],
            "nodeName": node,
            "conditions": { "ready": ready, "serving": ready, "terminating": false },
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": service, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "ports": [{ "name": "tcp", "port": POD_PORT, "protocol": "TCP" }],
        "endpoints": endpoints.iter().enumerate().map(endpoint).collect::<Vec<_>>(),
    })
}
