//! The way of a client's packets to pods on all nodes, in each mode.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;
use shunt_tests::client::Answered;
use shunt_tests::decapsulator::Decapsulator;
use shunt_tests::error::{Result, ensure};

use crate::client::{self, ask, ask_datagram, node_of, source, until_answered};
use crate::cluster::Cluster;
use crate::objects::{POD_PORT, PORT, service, with};
use crate::space::{Space, in_space};

const REQUESTS: usize = 40;

pub fn dr(cluster: &Cluster) -> Result<()> {
    in_space(cluster, "dr", |space| both_policies(space, "dr", true))
}

pub fn ipip(cluster: &Cluster) -> Result<()> {
    // This kernel has no tunnel devices; this program does what they do.
    let attach = |node: &String| Decapsulator::attach(&cluster.node(node), "eth0");
    let tunnels: Vec<_> = cluster.nodes.iter().map(attach).collect::<Result<_>>()?;
    in_space(cluster, "ipip", |space| both_policies(space, "ipip", true))?;
    for (node, tunnel) in cluster.nodes.iter().zip(tunnels) {
        let counted = tunnel.decapsulated()?;
        ensure(counted.four_in_four > 0 && counted.malformed == 0, || {
            format!("{node} took out {counted:?}")
        })?;
        println!("   {node} took {} packets out of tunnels", counted.four_in_four);
    }
    Ok(())
}

pub fn nat(cluster: &Cluster) -> Result<()> {
    in_space(cluster, "nat", |space| both_policies(space, "nat", false))
}

/// A Service with two pods on each node, first with the policy `Cluster`, then with `Local`: the address stays, and
/// `preserves` tells whether pods then see the client's, or one of the box.
fn both_policies(space: &Space, mode: &str, preserves: bool) -> Result<()> {
    let cluster = space.cluster;
    let nodes: Vec<&str> = cluster.nodes.iter().map(String::as_str).collect();
    space.start_pods(&[&nodes[..], &nodes[..]].concat())?;
    let udp = json!([
        { "name": "tcp", "port": PORT, "targetPort": POD_PORT },
        { "name": "udp", "port": PORT, "targetPort": POD_PORT, "protocol": "UDP" },
    ]);
    let annotations = json!({ "shunt.dev/mode": mode });
    let service =
        with(service("web"), json!({ "metadata": { "annotations": annotations }, "spec": { "ports": udp } }));
    let vip = space.create_and_wait(&service)?;
    until_answered(cluster, vip)?;
    let shown = space.service("web")?["status"]["loadBalancer"]["ingress"][0]["ipMode"].clone();
    ensure(shown == if mode == "nat" { "Proxy" } else { "VIP" }, || format!("ipMode is {shown}"))?;
    every_pod_answers(cluster, vip, nodes.len() * 2, mode)?;
    space.change("web", &json!({ "spec": { "externalTrafficPolicy": "Local" } }))?;
    // Shunt and each kube-proxy learn of it in their own time.
    space.until("Local to hold", || {
        let answers = ask(cluster, vip, REQUESTS)?;
        Ok(if preserves { sees_clients(&answers, vip) } else { sees_box(&answers) }.then_some(()))
    })?;
    let answers = every_pod_answers(cluster, vip, nodes.len() * 2, mode)?;
    ensure(if preserves { sees_clients(&answers, vip) } else { sees_box(&answers) }, || {
        format!("whom pods saw: {:?}", answers[0].answer)
    })?;
    ensure(space.addresses("web")? == [vip], || "the address changed with the policy".to_owned())?;
    let datagram = ask_datagram(cluster, (vip, PORT).into())?;
    ensure(!node_of(&datagram.answer.server).is_empty(), || format!("{datagram:?}"))
}

fn sees_clients(answers: &[Answered], vip: IpAddr) -> bool {
    answers.iter().all(|answered| answered.answer.client == source(vip))
}

/// By `[nat] sources` (tests/cluster/shunt.sh).
fn sees_box(answers: &[Answered]) -> bool {
    answers.iter().all(|answered| answered.answer.client == IpAddr::from([192, 168, 77, 1]))
}

fn every_pod_answers(cluster: &Cluster, vip: IpAddr, count: usize, mode: &str) -> Result<Vec<Answered>> {
    let answers = ask(cluster, vip, REQUESTS)?;
    let pods = client::pods(&answers);
    let seen: BTreeSet<IpAddr> = answers.iter().map(|answered| answered.answer.client).collect();
    println!(
        "   {mode}: {REQUESTS} of {REQUESTS} answered by {} of {count} pods, which saw {seen:?}",
        pods.len()
    );
    ensure(client::nodes(&answers).len() == cluster.nodes.len() && pods.len() > 1, || format!("{pods:?}"))?;
    Ok(answers)
}
