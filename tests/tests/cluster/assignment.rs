//! Who gets which address, and keeps it. No packets: what the API shows, and what the dataplane serves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};
use shunt_tests::error::{Result, ensure};

use crate::cluster::{Cluster, Pool};
use crate::objects::{annotated, service, service_with, with};
use crate::ownership;
use crate::space::{Space, addresses_of, has_finalizer};
use crate::table;

/// What an address that Services cannot have is told by.
const FAILED: &str = "SyncLoadBalancerFailed";
const ONE: &[Pool] = &[("one", &["198.51.100.10"], "")];
const FEW: &[Pool] = &[("few", &["198.51.100.10-198.51.100.13"], "")];

pub fn run(cluster: &Cluster) -> Result<()> {
    table::run(cluster, "assignment", &[ownership::CASES, CASES].concat())
}

const CASES: &[table::Case] = &[
    ("an address is free after a change to ClusterIP and after a deletion; who waits gets it", freed),
    ("20 Services at once have 20 addresses", distinct),
    ("addresses are kept over a restart of the control plane, whoever was deleted", kept),
    ("what is deleted while the control plane is away is released when it is back", deleted_meanwhile),
    ("the API server is killed and started: nothing is withdrawn, and what changed is seen", api_restarted),
    ("a request outside of all pools is refused, by annotation and by loadBalancerIP", outside),
    ("a request for an address in use is refused, and granted when it is free", in_use),
    ("a request that changes moves a living Service", moved),
    ("two requests that disagree are refused", disagreeing),
    ("Services with one key share an address; a port in common is refused", shared),
    ("a key given to living Services lets the next request share", shared_live),
    ("a changed key or port that collides moves the younger Service", unshared),
    ("all pools removed: no address; a pool is back: an address again", pools_removed),
    ("a pool replaced by another: addresses of that", reallocated),
    ("pools by namespace come first, and are for nobody else", by_namespace),
    ("pools by label of the namespace and of the Service", by_labels),
    ("of pools for all, the one with the highest priority", by_priority),
    ("a pool that gives nothing by itself, by its name; an unknown name is refused", by_name),
];

fn freed(space: &Space) -> Result<()> {
    space.cluster.with_pools(ONE, || {
        space.create_and_wait(&service("a"))?;
        space.create(&service("b"))?;
        space.until_refused("b", "PoolExhausted")?;
        space.until_event("b", FAILED, "pool `one` is exhausted")?;
        space.change("a", &json!({ "spec": { "type": "ClusterIP" } }))?;
        space.until_addresses("b", &["198.51.100.10"])?;
        let a = space.service("a")?;
        ensure(!has_finalizer(&a) && addresses_of(&a).is_empty(), || format!("a ClusterIP Service: {a}"))?;
        space.change("a", &json!({ "spec": { "type": "LoadBalancer" } }))?;
        space.until_refused("a", "PoolExhausted")?;
        space.delete_service("b")?;
        space.until_addresses("a", &["198.51.100.10"])
    })
}

fn distinct(space: &Space) -> Result<()> {
    let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    names.iter().try_for_each(|name| space.create(&service(name)).map(drop))?;
    let all: Result<BTreeSet<IpAddr>> = names.iter().map(|name| space.address(name)).collect();
    let all = all?;
    ensure(all.len() == names.len(), || format!("{all:?}"))
}

fn kept(space: &Space) -> Result<()> {
    let cluster = space.cluster;
    cluster.with_pools(FEW, || {
        let names = ["d", "c", "b", "a"];
        let before: Vec<_> =
            names.iter().map(|name| space.create_and_wait(&service(name))).collect::<Result<_>>()?;
        cluster.restart_controlplane(|| space.delete_service("d"))?;
        space.until_gone("d")?;
        let others = || names[1..].iter().map(|name| space.addresses(name)).collect::<Result<Vec<_>>>();
        let wanted: Vec<_> = before[1..].iter().map(|address| vec![*address]).collect();
        space.stays("addresses are as they were", || Ok(others()? == wanted))?;
        let next = space.create_and_wait(&service("e"))?;
        ensure(next == before[0], || format!("{next} was given, though {} is free", before[0]))
    })
}

fn deleted_meanwhile(space: &Space) -> Result<()> {
    let cluster = space.cluster;
    let [a, b] = ["a", "b"].map(|name| space.create_and_wait(&service(name)));
    let (a, b) = (a?, b?);
    cluster.restart_controlplane(|| {
        space.delete_service("a")?;
        space.change("b", &json!({ "spec": { "type": "NodePort" } }))?;
        let waits = space.service("a")?;
        ensure(has_finalizer(&waits), || "a Service went before it was released".to_owned())
    })?;
    space.until_gone("a")?;
    space.until("b to be released", || Ok((!has_finalizer(&space.service("b")?)).then_some(())))?;
    let served = cluster.serves(a)? || cluster.serves(b)?;
    ensure(!served, || "released addresses are still served".to_owned())?;
    // Another Service of the same name.
    space.create_and_wait(&service("a")).map(drop)
}

fn api_restarted(space: &Space) -> Result<()> {
    let cluster = space.cluster;
    let vip = space.create_and_wait(&service("a"))?;
    cluster.restart_apiserver(|| {
        space.stays("it is served", || cluster.serves(vip))?;
        ensure(space.service("a").is_err(), || "the API server answers, though it was killed".to_owned())
    })?;
    space.stays("it is served", || cluster.serves(vip))?;
    ensure(space.addresses("a")? == [vip], || "the address changed".to_owned())?;
    let other = space.create_and_wait(&service("b"))?;
    ensure(other != vip, || format!("{vip} was given twice"))
}

fn outside(space: &Space) -> Result<()> {
    space.create(&annotated("a", json!({ "shunt.dev/addresses": "192.0.2.1" })))?;
    space.until_refused("a", "AddressNotInPool")?;
    space.until_event("a", FAILED, "192.0.2.1 is in no pool")?;
    space.create(&service_with("b", json!({ "loadBalancerIP": "192.0.2.2" })))?;
    space.until_refused("b", "AddressNotInPool")?;
    space.create(&annotated("c", json!({ "shunt.dev/addresses": "198.51.100.255" })))?;
    space.until_refused("c", "AddressAvoided")?;
    space.create(&annotated("d", json!({ "shunt.dev/addresses": "web" })))?;
    space.until_refused("d", "InvalidRequest")?;
    space.annotate("d", &json!({ "shunt.dev/addresses": "198.51.100.77" }))?;
    space.until_addresses("d", &["198.51.100.77"])
}

fn in_use(space: &Space) -> Result<()> {
    space.create(&service_with("a", json!({ "loadBalancerIP": "198.51.100.50" })))?;
    space.until_addresses("a", &["198.51.100.50"])?;
    space.create(&annotated("b", json!({ "shunt.dev/addresses": "198.51.100.50" })))?;
    space.until_refused("b", "AddressInUse")?;
    space.until_event("b", FAILED, "198.51.100.50 is in use by")?;
    space.delete_service("a")?;
    space.until_addresses("b", &["198.51.100.50"])
}

fn moved(space: &Space) -> Result<()> {
    let first = space.create_and_wait(&service("a"))?;
    space.annotate("a", &json!({ "shunt.dev/addresses": "198.51.100.60" }))?;
    space.until_addresses("a", &["198.51.100.60"])?;
    space.until("the old address to be withdrawn", || Ok((!space.cluster.serves(first)?).then_some(())))?;
    space.annotate("a", &json!({ "shunt.dev/addresses": null }))?;
    space.stays("the address is kept", || {
        Ok(space.addresses("a")? == ["198.51.100.60".parse::<IpAddr>().expect("one")])
    })
}

fn disagreeing(space: &Space) -> Result<()> {
    let both = with(
        annotated("a", json!({ "shunt.dev/addresses": "198.51.100.60" })),
        json!({ "spec": { "loadBalancerIP": "198.51.100.61" } }),
    );
    space.create(&both)?;
    space.until_refused("a", "InvalidRequest")?;
    space.until_event("a", FAILED, "remove one of the two")
}

/// A Service that shares, at a port.
fn sharing(name: &str, key: &str, port: u16) -> Value {
    with(
        annotated(name, json!({ "shunt.dev/share": key })),
        json!({ "spec": { "ports": [{ "name": "tcp", "port": port, "targetPort": 8080 }] } }),
    )
}

fn shared(space: &Space) -> Result<()> {
    space.cluster.with_pools(ONE, || {
        space.create_and_wait(&sharing("a", "web", 80))?;
        space.create(&sharing("b", "web", 443))?;
        space.until_addresses("b", &["198.51.100.10"])?;
        space.create(&sharing("c", "web", 80))?;
        space.until_refused("c", "PoolExhausted")?;
        space.create(&sharing("d", "other", 81))?;
        space.until_refused("d", "PoolExhausted")?;
        // What one has is withdrawn, what the other has is not.
        space.delete_service("a")?;
        space.until_addresses("c", &["198.51.100.10"])?;
        space.delete_service("c")?;
        space.until_gone("c")?;
        ensure(space.cluster.serves([198, 51, 100, 10].into())?, || "b is no longer served".to_owned())
    })
}

fn shared_live(space: &Space) -> Result<()> {
    let address = space.create_and_wait(&service("a"))?;
    let request = with(
        annotated("b", json!({ "shunt.dev/addresses": address.to_string() })),
        json!({ "spec": { "ports": [{ "name": "tcp", "port": 443, "targetPort": 8080 }] } }),
    );
    space.create(&request)?;
    space.until_refused("b", "AddressInUse")?;
    space.annotate("a", &json!({ "shunt.dev/share": "web" }))?;
    space.annotate("b", &json!({ "shunt.dev/share": "web" }))?;
    space.until_addresses("b", &[&address.to_string()])
}

fn unshared(space: &Space) -> Result<()> {
    space.cluster.with_pools(FEW, || {
        space.create_and_wait(&sharing("a", "web", 80))?;
        space.create(&sharing("b", "web", 443))?;
        space.until_addresses("b", &["198.51.100.10"])?;
        space.annotate("b", &json!({ "shunt.dev/share": "other" }))?;
        space.until_addresses("b", &["198.51.100.11"])?;
        space.create(&sharing("c", "web", 81))?;
        space.until_addresses("c", &["198.51.100.10"])?;
        space.change(
            "c",
            &json!({ "spec": { "ports": [{ "name": "tcp", "port": 80, "targetPort": 8080 }] } }),
        )?;
        space.until_addresses("c", &["198.51.100.12"])?;
        space.until_addresses("a", &["198.51.100.10"])
    })
}

fn pools_removed(space: &Space) -> Result<()> {
    space.cluster.with_pools(ONE, || {
        let address = space.create_and_wait(&service("a"))?;
        space.cluster.set_pools(&[])?;
        space.until_refused("a", "NoPool")?;
        ensure(!space.cluster.serves(address)?, || format!("{address} is still served"))?;
        space.cluster.set_pools(ONE)?;
        space.until_addresses("a", &["198.51.100.10"])
    })
}

fn reallocated(space: &Space) -> Result<()> {
    space.cluster.with_pools(ONE, || {
        space.create_and_wait(&service("a"))?;
        space.cluster.set_pools(&[("two", &["198.51.100.20-198.51.100.29"], "")])?;
        space.until_addresses("a", &["198.51.100.20"])
    })
}

fn by_namespace(space: &Space) -> Result<()> {
    let here = format!("namespaces = [\"{}\"]", space.name);
    let pools: &[Pool] = &[
        ("all", &["198.51.100.10"], "priority = 9"),
        ("here", &["198.51.100.20"], &here),
        ("there", &["198.51.100.30"], "namespaces = [\"there\"]"),
    ];
    space.cluster.with_pools(pools, || {
        space.create(&service("a"))?;
        space.until_addresses("a", &["198.51.100.20"])?;
        space.create(&service("b"))?;
        space.until_addresses("b", &["198.51.100.10"])?;
        space.create(&service("c"))?;
        space.until_refused("c", "PoolExhausted")?;
        space.annotate("c", &json!({ "shunt.dev/addresses": "198.51.100.30" }))?;
        space.until_refused("c", "PoolNotAllowed")
    })
}

fn by_labels(space: &Space) -> Result<()> {
    let pools: &[Pool] = &[
        ("team", &["198.51.100.10"], "namespace_selector = { team = \"red\" }"),
        ("fast", &["198.51.100.20"], "service_selector = { speed = \"fast\" }"),
    ];
    space.cluster.with_pools(pools, || {
        space.create(&service("a"))?;
        space.until_refused("a", "NoPool")?;
        let path = format!("/api/v1/namespaces/{}", space.name);
        space.cluster.api.merge(&path, &json!({ "metadata": { "labels": { "team": "red" } } }))?;
        space.until_addresses("a", &["198.51.100.10"])?;
        space.create(&with(service("b"), json!({ "metadata": { "labels": { "speed": "fast" } } })))?;
        space.until_addresses("b", &["198.51.100.20"])
    })
}

fn by_priority(space: &Space) -> Result<()> {
    let pools: &[Pool] = &[
        ("a", &["198.51.100.10"], ""),
        ("b", &["198.51.100.20"], "priority = 10"),
        ("c", &["198.51.100.30"], "priority = 5"),
    ];
    space.cluster.with_pools(pools, || {
        [("x", "198.51.100.20"), ("y", "198.51.100.30"), ("z", "198.51.100.10")].iter().try_for_each(
            |(name, expected)| {
                space.create(&service(name))?;
                space.until_addresses(name, &[expected])
            },
        )
    })
}

fn by_name(space: &Space) -> Result<()> {
    space.cluster.with_pools(&[("kept", &["198.51.100.10"], "auto_assign = false")], || {
        space.create(&service("a"))?;
        space.until_refused("a", "NoPool")?;
        space.annotate("a", &json!({ "shunt.dev/pool": "keep" }))?;
        space.until_refused("a", "UnknownPool")?;
        space.until_event("a", FAILED, "there is no pool `keep`")?;
        space.annotate("a", &json!({ "shunt.dev/pool": "kept" }))?;
        space.until_addresses("a", &["198.51.100.10"])
    })
}
