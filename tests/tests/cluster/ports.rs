//! Ports of a Service, and node ports: upstream's `test/integration/service/loadbalancer_test.go`, with a provider there.

use serde_json::{Value, json};
use shunt_api::snapshot::Protocol;
use shunt_tests::error::{Result, ensure};

use crate::objects::{POD_PORT, PORT, annotated, service, service_with, with};
use crate::space::Space;
use crate::table::Case;

/// Of `policies`.
pub const CASES: &[Case] = &[
    ("node ports: off from the beginning", off),
    ("node ports: on, then off, are kept", |space| on_then_off(space, false)),
    ("node ports: on, then off and cleared, are gone, and the address stays", |space| {
        on_then_off(space, true)
    }),
    ("node ports: off, then on, are given, and the address stays", off_then_on),
    ("node ports: mode nat without any is an error of the port, until it has one", nat_without),
    ("TCP and UDP on one port; SCTP is an error of the port", mixed),
    ("a changed port: the address stays, the old port is served no more", changed),
];

fn node_port(space: &Space) -> Result<Value> {
    Ok(space.service("a")?["spec"]["ports"][0]["nodePort"].clone())
}

fn expect_node_port(space: &Space, expected: bool) -> Result<()> {
    let port = node_port(space)?;
    ensure(port.is_null() != expected, || format!("nodePort is {port}"))
}

/// A change of what is allocated, which must not change the address.
fn allocate(space: &Space, value: bool, ports: Option<Value>) -> Result<()> {
    let before = space.address("a")?;
    let mut change = json!({ "spec": { "allocateLoadBalancerNodePorts": value } });
    if let Some(ports) = ports {
        change["spec"]["ports"] = ports;
    }
    space.change("a", &change)?;
    space.stays("the address is kept", || Ok(space.addresses("a")? == [before]))?;
    ensure(space.cluster.serves(before)?, || format!("{before} is served no more"))
}

fn bare() -> Value {
    service_with("a", json!({ "allocateLoadBalancerNodePorts": false }))
}

fn off(space: &Space) -> Result<()> {
    let vip = space.create_and_wait(&bare())?;
    expect_node_port(space, false)?;
    ensure(space.cluster.serves(vip)?, || format!("{vip} is not served"))
}

fn on_then_off(space: &Space, cleared: bool) -> Result<()> {
    space.create_and_wait(&service("a"))?;
    expect_node_port(space, true)?;
    let ports = json!([{ "name": "tcp", "port": PORT, "targetPort": POD_PORT, "nodePort": 0 }]);
    allocate(space, false, cleared.then_some(ports))?;
    expect_node_port(space, !cleared)
}

fn off_then_on(space: &Space) -> Result<()> {
    space.create_and_wait(&bare())?;
    allocate(space, true, None)?;
    expect_node_port(space, true)
}

fn nat_without(space: &Space) -> Result<()> {
    let without = with(
        annotated("a", json!({ "shunt.dev/mode": "nat" })),
        json!({ "spec": { "allocateLoadBalancerNodePorts": false } }),
    );
    space.create(&without)?;
    space.until_event("a", "SyncLoadBalancerFailed", "mode nat needs a node port")?;
    until_port_error(space, 0, Some("shunt.dev/NoNodePort"))?;
    space.change("a", &json!({ "spec": { "allocateLoadBalancerNodePorts": true } }))?;
    until_port_error(space, 0, None)?;
    let vip = space.address("a")?;
    space.until("it to be served", || Ok(space.cluster.serves(vip)?.then_some(())))
}

fn until_port_error(space: &Space, number: usize, expected: Option<&str>) -> Result<()> {
    space.until(&format!("the error {expected:?} of a port"), || {
        let entry = space.service("a")?["status"]["loadBalancer"]["ingress"][0].clone();
        let error = entry["ports"][number]["error"].as_str();
        Ok((entry["ip"].is_string() && error == expected).then_some(()))
    })
}

fn mixed(space: &Space) -> Result<()> {
    let port = |protocol: &str| json!({ "name": protocol.to_lowercase(), "port": 53, "targetPort": POD_PORT, "protocol": protocol });
    let vip = space.create_and_wait(&service_with("a", json!({ "ports": [port("TCP"), port("UDP")] })))?;
    expect_served(space, vip, &[(Protocol::Tcp, 53), (Protocol::Udp, 53)])?;
    space.change("a", &json!({ "spec": { "ports": [port("TCP"), port("SCTP")] } }))?;
    until_port_error(space, 1, Some("shunt.dev/ProtocolNotSupported"))?;
    space.until_event("a", "SyncLoadBalancerFailed", "only TCP and UDP are served")?;
    expect_served(space, vip, &[(Protocol::Tcp, 53)])
}

fn expect_served(space: &Space, vip: std::net::IpAddr, expected: &[(Protocol, u16)]) -> Result<()> {
    space.until(&format!("ports {expected:?}"), || {
        let services = space.cluster.services()?;
        let of_vip = services.iter().filter(|service| service.vip == vip);
        let mut found: Vec<_> =
            of_vip.map(|service| (service.port.port.protocol, service.port.port.port)).collect();
        found.sort();
        Ok((found == expected).then_some(()))
    })
}

fn changed(space: &Space) -> Result<()> {
    let vip = space.create_and_wait(&service("a"))?;
    space.change(
        "a",
        &json!({ "spec": { "ports": [{ "name": "tcp", "port": 81, "targetPort": POD_PORT }] } }),
    )?;
    expect_served(space, vip, &[(Protocol::Tcp, 81)])?;
    ensure(space.addresses("a")? == [vip], || "the address went with the port".to_owned())
}
