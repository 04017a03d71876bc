//! Whose a Service is, and what is never written to another's.

use serde_json::json;
use shunt_tests::error::{Result, ensure};

use crate::objects::{service, service_with};
use crate::space::{Space, addresses_of, has_finalizer};
use crate::table::Case;

/// Shunt's class.
const CLASS: &str = "shunt.dev/l4";

/// Of `assignment`.
pub const CASES: &[Case] = &[
    ("a Service of Shunt's class is served, and its class cannot be changed", own_class),
    ("a Service without a class is served, and cannot be given one", default_class),
    ("a Service of another class gets no finalizer, no event, no status", foreign_class),
    ("a Service goes to another class by way of ClusterIP, and comes back", class_by_type),
    ("Services without a class are left alone if Shunt is not the default", not_default),
    ("a status that another controller owns is left to it, with an event", foreign_status),
    ("finalizer, status and VIP come and go with the type", finalizer),
    ("a headless Service is refused by the API server, ExternalName is ignored", headless),
];

fn own_class(space: &Space) -> Result<()> {
    space.create_and_wait(&service_with("a", json!({ "loadBalancerClass": CLASS })))?;
    expect_immutable(space, "example.com/other")
}

fn default_class(space: &Space) -> Result<()> {
    space.create_and_wait(&service("a"))?;
    expect_immutable(space, CLASS)?;
    space.stays("it keeps its address", || Ok(space.addresses("a")?.len() == 1))
}

fn expect_immutable(space: &Space, class: &str) -> Result<()> {
    let change = json!({ "spec": { "loadBalancerClass": class } });
    let answer = space.cluster.api.try_merge(&space.path("services/a"), &change)?;
    ensure(answer.status == 422, || format!("the API server took another class: {}", answer.message()))
}

fn foreign_class(space: &Space) -> Result<()> {
    let made = space.create(&service_with("a", json!({ "loadBalancerClass": "example.com/other" })))?;
    // By then Shunt has seen it.
    space.create_and_wait(&service("b"))?;
    let version = |service: &serde_json::Value| service["metadata"]["resourceVersion"].clone();
    space.stays("nobody writes to it", || Ok(version(&space.service("a")?) == version(&made)))?;
    let events = space.events("a")?;
    ensure(events.is_empty(), || format!("events about another's Service: {events:?}"))
}

fn class_by_type(space: &Space) -> Result<()> {
    space.create_and_wait(&service("a"))?;
    to_type(space, "ClusterIP", None)?;
    to_type(space, "LoadBalancer", Some("example.com/other"))?;
    space.stays("it has no address", || Ok(space.addresses("a")?.is_empty()))?;
    to_type(space, "ClusterIP", None)?;
    to_type(space, "LoadBalancer", Some(CLASS))?;
    space.address("a").map(drop)
}

fn to_type(space: &Space, kind: &str, class: Option<&str>) -> Result<()> {
    space.change("a", &json!({ "spec": { "type": kind, "loadBalancerClass": class } }))?;
    if kind == "LoadBalancer" {
        return Ok(());
    }
    space.until("it to be released", || Ok((!has_finalizer(&space.service("a")?)).then_some(())))
}

fn not_default(space: &Space) -> Result<()> {
    let not_default = |table: &mut toml::Table| {
        if let Some(cluster) = table.get_mut("kubernetes").and_then(toml::Value::as_table_mut) {
            cluster.insert("default_class".into(), false.into());
        }
    };
    space.cluster.with_config(not_default, || {
        space.create(&service("a"))?;
        space.create_and_wait(&service_with("b", json!({ "loadBalancerClass": CLASS })))?;
        space.stays("it is left alone", || {
            let service = space.service("a")?;
            Ok(!has_finalizer(&service) && addresses_of(&service).is_empty())
        })
    })?;
    space.address("a").map(drop)
}

fn foreign_status(space: &Space) -> Result<()> {
    // Another controller's word, given before Shunt's.
    let api = &space.cluster.api;
    space.create(&service_with("b", json!({ "type": "ClusterIP" })))?;
    let not_default = |table: &mut toml::Table| {
        if let Some(cluster) = table.get_mut("kubernetes").and_then(toml::Value::as_table_mut) {
            cluster.insert("default_class".into(), false.into());
        }
    };
    let status = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "b", "namespace": space.name },
        "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.99" }] } },
    });
    space.cluster.with_config(not_default, || {
        space.change("b", &json!({ "spec": { "type": "LoadBalancer" } }))?;
        api.apply(&space.path("services/b/status"), "other", &status).map(drop)
    })?;
    space.until_event("b", "SyncLoadBalancerFailed", "another controller owns this Service's status")?;
    space.stays("the other's status stays", || {
        Ok(addresses_of(&space.service("b")?) == [std::net::IpAddr::from([192, 0, 2, 99])])
    })?;
    let events = space.events("b")?;
    let told = events.iter().filter(|(_, note)| note.contains("another controller")).count();
    ensure(told == 1, || format!("told {told} times: {events:?}"))
}

fn finalizer(space: &Space) -> Result<()> {
    let vip = space.create_and_wait(&service("a"))?;
    space.expect_finalizer("a", true)?;
    ensure(space.cluster.serves(vip)?, || format!("{vip} is shown and not served"))?;
    // Told once the status is seen, of a Service that still wants it.
    space.until_event("a", "EnsuredLoadBalancer", &vip.to_string())?;
    for kind in ["NodePort", "ClusterIP"] {
        to_type(space, kind, None)?;
        let service = space.service("a")?;
        ensure(addresses_of(&service).is_empty(), || format!("{kind}: {}", service["status"]))?;
        ensure(!space.cluster.serves(vip)?, || format!("{kind}: {vip} is still served"))?;
        space.change("a", &json!({ "spec": { "type": "LoadBalancer" } }))?;
        space.address("a")?;
        space.expect_finalizer("a", true)?;
    }
    let reasons: Vec<String> = space.events("a")?.into_iter().map(|(reason, _)| reason).collect();
    for reason in
        ["EnsuringLoadBalancer", "EnsuredLoadBalancer", "DeletingLoadBalancer", "DeletedLoadBalancer"]
    {
        ensure(reasons.iter().any(|told| told == reason), || format!("no event {reason}: {reasons:?}"))?;
    }
    space.delete_service("a")?;
    space.until_gone("a")?;
    ensure(!space.cluster.serves(vip)?, || format!("deleted: {vip} is still served"))
}

fn headless(space: &Space) -> Result<()> {
    let path = space.path("services");
    let answer = space.cluster.api.try_create(&path, &service_with("a", json!({ "clusterIP": "None" })))?;
    ensure(answer.status == 422, || format!("{}: {}", answer.status, answer.message()))?;
    let external = json!({
        "metadata": { "name": "b" },
        "spec": { "type": "ExternalName", "externalName": "example.com" },
    });
    let made = space.create(&external)?;
    space.create_and_wait(&service("c"))?;
    let service = space.service("b")?;
    let unchanged = service["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"];
    ensure(unchanged, || format!("ExternalName: {service}"))
}
