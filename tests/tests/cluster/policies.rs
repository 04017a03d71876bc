//! What a Service says of its ports, its clients and its nodes, and what becomes of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};
use shunt_api::snapshot::Protocol;
use shunt_tests::attempt::Outcome;
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::ping::{self, ping};

use crate::client::{answers, attempt, source, until_answered};
use crate::cluster::Cluster;
use crate::objects::{EXCLUDE_LABEL, POD_PORT, PORT, annotated, service, service_with, slice, with};
use crate::ports;
use crate::space::Space;
use crate::table::{self, Case};

pub fn run(cluster: &Cluster) -> Result<()> {
    table::run(cluster, "policies", &[ports::CASES, CASES].concat())
}

const CASES: &[Case] = &[
    ("ipMode is VIP for dr and ipip, Proxy for nat; a change of mode keeps the address", modes),
    ("a wrong annotation is told by an event, and the usual holds", wrong_annotation),
    ("source ranges: allowed, denied, split in two, none, cleared, the annotation of old", source_ranges),
    ("Local narrows to nodes with endpoints, follows them, and has none without any", local_follows),
    ("of a node with endpoints that are about to go, others take the new flows", terminating),
    ("the exclude label: true, false, empty, garbage, gone", exclude_label),
    ("all nodes excluded: told by an event, and the address stays", all_excluded),
    ("a cordoned node stays", cordoned),
    ("a VIP answers pings, and refuses a port that no Service has, at once and without a loop", unlisted),
];

/// Waits until a Service's backends have these weights; nodes that are not named are none.
fn until_weights(space: &Space, name: &str, expected: &[(&str, u16)]) -> Result<()> {
    let expected: BTreeMap<String, u16> =
        expected.iter().map(|(node, weight)| ((*node).to_owned(), *weight)).collect();
    let reached = || Ok((space.weights(name)? == expected).then_some(()));
    space
        .until(&format!("backends {expected:?}"), reached)
        .map_err(|error| Error::Wrong(format!("{error}; they are {:?}", space.weights(name))))
}

/// Names of two nodes.
fn two<'s>(space: &Space<'s>) -> (&'s str, &'s str) {
    (&space.cluster.nodes[0], &space.cluster.nodes[1])
}

fn modes(space: &Space) -> Result<()> {
    let vip = space.create_and_wait(&service("a"))?;
    for (mode, shown) in [("dr", "VIP"), ("ipip", "VIP"), ("nat", "Proxy"), ("dr", "VIP")] {
        space.annotate("a", &json!({ "shunt.dev/mode": mode }))?;
        space.until(&format!("{mode} to be shown"), || {
            let ingress = &space.service("a")?["status"]["loadBalancer"]["ingress"];
            Ok((*ingress == json!([{ "ip": vip.to_string(), "ipMode": shown }])).then_some(()))
        })?;
    }
    Ok(())
}

fn wrong_annotation(space: &Space) -> Result<()> {
    let annotations = json!({ "shunt.dev/mode": "fast", "shunt.dev/health-interval": "soon" });
    space.create_and_wait(&annotated("a", annotations))?;
    space.until_event(
        "a",
        "InvalidAnnotation",
        "shunt.dev/mode: `fast` is not known here; write one of dr, ipip, nat",
    )?;
    space.until_event("a", "InvalidAnnotation", "shunt.dev/health-interval: `soon`")
}

fn source_ranges(space: &Space) -> Result<()> {
    let cluster = space.cluster;
    let (first, _) = two(space);
    space.start_pods(&[first])?;
    let vip = space.create_and_wait(&service("a"))?;
    until_answered(cluster, vip)?;
    let client = format!("{}/32", source(vip));
    let annotation = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let field = |ranges: Value| json!({ "spec": { "loadBalancerSourceRanges": ranges } });
    let steps = [
        (field(json!(["192.0.2.0/24"])), false),
        (field(json!(["192.0.2.0/24", client])), true),
        (field(json!(["255.0.0.0/32"])), false),
        (field(json!(["0.0.0.0/1", "128.0.0.0/1"])), true),
        (field(json!(["192.0.2.1/32"])), false),
        (field(Value::Null), true),
        (json!({ "metadata": { "annotations": { annotation: "192.0.2.0/24" } } }), false),
        (field(json!([client])), true),
    ];
    // Each but for the second of a pair is the opposite of the one before.
    for (change, allowed) in steps {
        space.change("a", &change)?;
        space
            .until(&format!("{change} to hold"), || Ok((answers(cluster, vip)? == allowed).then_some(())))?;
    }
    Ok(())
}

/// A Service with the policy `Local` and endpoints that are the scenario's own.
fn local(space: &Space, endpoints: Endpoints) -> Result<()> {
    let annotations = json!({ "shunt.dev/health-check": "none" });
    let spec = json!({ "spec": { "externalTrafficPolicy": "Local", "selector": null } });
    space.create(&with(annotated("a", annotations), spec))?;
    space.cluster.api.create(&space.path("endpointslices"), &slice("a", endpoints))?;
    space.address("a").map(drop)
}

/// Nodes, and whether what they have is ready.
type Endpoints<'a> = &'a [(&'a str, bool)];

fn local_follows(space: &Space) -> Result<()> {
    let (one, other) = two(space);
    local(space, &[(one, true)])?;
    until_weights(space, "a", &[(one, 1)])?;
    let address = space.address("a")?;
    let steps: [(Endpoints, &[(&str, u16)]); 5] = [
        (&[(one, true), (other, true)], &[(one, 1), (other, 1)]),
        (&[(one, true), (other, true), (other, true)], &[(one, 1), (other, 2)]),
        // Its connections stay where they are.
        (&[(one, false), (other, true)], &[(one, 0), (other, 1)]),
        (&[(other, true)], &[(other, 1)]),
        (&[], &[]),
    ];
    for (endpoints, expected) in steps {
        space.cluster.api.replace(&space.path("endpointslices/a"), &slice("a", endpoints))?;
        until_weights(space, "a", expected)?;
    }
    ensure(space.addresses("a")? == [address], || "the address went with the endpoints".to_owned())
}

fn terminating(space: &Space) -> Result<()> {
    let (one, other) = two(space);
    local(space, &[(one, true), (other, true)])?;
    let mut slice = slice("a", &[(one, false), (other, true)]);
    slice["endpoints"][0]["conditions"] = json!({ "ready": false, "serving": true, "terminating": true });
    space.cluster.api.replace(&space.path("endpointslices/a"), &slice)?;
    until_weights(space, "a", &[(one, 0), (other, 1)])?;
    slice["endpoints"].as_array_mut().expect("a list").pop();
    space.cluster.api.replace(&space.path("endpointslices/a"), &slice)?;
    // Nobody else has any.
    until_weights(space, "a", &[(one, 1)])
}

fn label(space: &Space, node: &str, value: &Value) -> Result<()> {
    let change = json!({ "metadata": { "labels": { EXCLUDE_LABEL: value } } });
    space.cluster.api.merge(&format!("/api/v1/nodes/{node}"), &change).map(drop)
}

fn exclude_label(space: &Space) -> Result<()> {
    let (one, other) = two(space);
    space.create_and_wait(&service("a"))?;
    let values = [("true", 0), ("false", 1), ("", 0), ("F", 1), ("no", 0), ("0", 1)];
    let tried = values.iter().try_for_each(|(value, weight)| {
        label(space, other, &(*value).into())?;
        until_weights(space, "a", &[(one, 1), (other, *weight)])
    });
    label(space, other, &Value::Null)?;
    tried?;
    until_weights(space, "a", &[(one, 1), (other, 1)])
}

fn all_excluded(space: &Space) -> Result<()> {
    let address = space.create_and_wait(&service("a"))?;
    let label_all = |value: &Value| space.cluster.nodes.iter().try_for_each(|node| label(space, node, value));
    let tried = label_all(&"".into())
        .and_then(|()| space.until_event("a", "UnAvailableLoadBalancer", "nodes carry the label"));
    label_all(&Value::Null)?;
    tried?;
    let (one, other) = two(space);
    until_weights(space, "a", &[(one, 1), (other, 1)])?;
    ensure(space.addresses("a")? == [address], || "the address went with the nodes".to_owned())
}

fn cordoned(space: &Space) -> Result<()> {
    let (one, other) = two(space);
    space.create_and_wait(&service("a"))?;
    let path = format!("/api/v1/nodes/{other}");
    space.cluster.api.merge(&path, &json!({ "spec": { "unschedulable": true } }))?;
    let stays = space.stays("a cordoned node stays", || Ok(space.weights("a")?.get(other) == Some(&1)));
    space.cluster.api.merge(&path, &json!({ "spec": { "unschedulable": null } }))?;
    stays?;
    until_weights(space, "a", &[(one, 1), (other, 1)])
}

fn unlisted(space: &Space) -> Result<()> {
    let cluster = space.cluster;
    let vip: IpAddr =
        space.create_and_wait(&service_with("a", json!({ "externalTrafficPolicy": "Cluster" })))?;
    let pings = ping(&cluster.client, vip, ping::Manner { count: 5, ..ping::Manner::default() })?;
    ensure(pings.received == pings.sent, || format!("{pings:?}"))?;
    let before = cluster.received()?;
    for (protocol, port) in [(Protocol::Tcp, PORT + 1), (Protocol::Udp, PORT), (Protocol::Tcp, POD_PORT)] {
        let outcome = attempt(cluster, protocol, (vip, port).into())?;
        ensure(outcome == Outcome::Refused, || format!("{protocol:?} port {port}: {outcome:?}"))?;
    }
    let packets = cluster.received()? - before;
    // Each is one packet, and 63 if it goes round; health checks do not come by here.
    ensure(packets < 20, || format!("three refusals took {packets} packets"))
}
