//! 50 downloads, half of a Service with the policy `Cluster` and half of one with `Local`, while something changes. Those
//! from pods that stay for as long as they last have to end whole, every byte right. A pod that is told to end serves
//! for its grace, which is longer than a download.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use shunt_tests::client::Transfer;
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::wait;

use crate::client::{ask, expect_nodes, until_answered};
use crate::cluster::Cluster;
use crate::download::Downloads;
use crate::objects::{EXCLUDE_LABEL, LEAVING_TAINT, service_with};
use crate::space::{Space, in_space};

/// Of each of the two Services.
const DOWNLOADS: usize = 25;
/// Pods, evenly on all nodes.
const PODS: usize = 4;
/// Of a pod that is told to end.
const GRACE_S: u32 = 40;
/// For which the API server does not answer.
const OUTAGE: Duration = Duration::from_secs(60);
/// New connections that have to be answered while something changes.
const REQUESTS: usize = 20;

/// What a disturbance has at hand.
struct Scene<'s> {
    space: &'s Space<'s>,
    downloads: &'s Downloads,
    /// Of the Services `all` and `local`.
    vips: [IpAddr; 2],
}

impl Scene<'_> {
    fn cluster(&self) -> &Cluster {
        self.space.cluster
    }

    /// The node that something happens to, and the others.
    fn nodes(&self) -> (&str, Vec<&str>) {
        let nodes: Vec<&str> = self.cluster().nodes.iter().map(String::as_str).collect();
        (nodes[1], nodes.iter().copied().filter(|name| *name != nodes[1]).collect())
    }

    /// New connections of both Services are answered.
    fn expect_answers(&self) -> Result<()> {
        self.vips.iter().try_for_each(|vip| ask(self.cluster(), *vip, REQUESTS).map(drop))
    }

    /// Waits until a node takes no new flows of either Service, or takes some of both.
    fn until_weight(&self, node: &str, takes: bool) -> Result<()> {
        self.space.until(&format!("{node} to take new flows: {takes}"), || {
            for service in ["all", "local"] {
                let weights = self.space.weights(service)?;
                let none = || Error::Wrong(format!("{node} is no backend of {service}: {weights:?}"));
                let weight = weights.get(node).ok_or_else(none)?;
                if (*weight > 0) != takes {
                    return Ok(None);
                }
            }
            Ok(self.cluster().is_acknowledged()?.then_some(()))
        })
    }
}

pub fn roll(cluster: &Cluster) -> Result<()> {
    survive(cluster, "roll", 20, |scene| {
        let annotations = json!({ "template": { "metadata": { "annotations": { "roll": "1" } } } });
        let path = scene.space.path("deployments/web");
        let begin = Instant::now();
        let old: BTreeSet<String> = pod_names(&scene.space.pods()?);
        cluster.api.merge(&path, &json!({ "spec": annotations }))?;
        scene.space.until("all old pods to be about to go", || {
            let pods = scene.space.pods()?;
            let going = pods.iter().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
            Ok((pod_names(going) == old).then_some(()))
        })?;
        scene.space.until_ready(PODS)?;
        println!("   rolled in {:.1} s", begin.elapsed().as_secs_f64());
        scene.expect_answers()
    })
}

pub fn drain(cluster: &Cluster) -> Result<()> {
    survive(cluster, "drain", 20, |scene| {
        let (node, others) = scene.nodes();
        let drained = with_node(cluster, node, &json!({ "spec": { "unschedulable": true } }), || {
            for pod in scene.space.pods()?.iter().filter(|pod| pod["spec"]["nodeName"] == node) {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                cluster.api.delete(&scene.space.path(&format!("pods/{name}")))?;
            }
            scene.space.until_ready(PODS)?;
            scene.space.until("new connections to go elsewhere", || {
                Ok(expect_nodes(cluster, scene.vips[1], REQUESTS, &others).is_ok().then_some(()))
            })?;
            scene.expect_answers()
        });
        let back = json!({ "spec": { "unschedulable": null } });
        cluster.api.merge(&format!("/api/v1/nodes/{node}"), &back)?;
        drained
    })
}

pub fn exclude(cluster: &Cluster) -> Result<()> {
    let change = json!({ "metadata": { "labels": { EXCLUDE_LABEL: "true" } } });
    let back = json!({ "metadata": { "labels": { EXCLUDE_LABEL: null } } });
    leave(cluster, "exclude", &change, &back)
}

pub fn autoscaler(cluster: &Cluster) -> Result<()> {
    let taint = json!([{ "key": LEAVING_TAINT, "value": "1", "effect": "NoSchedule" }]);
    leave(
        cluster,
        "autoscaler",
        &json!({ "spec": { "taints": taint } }),
        &json!({ "spec": { "taints": null } }),
    )
}

/// A node ceases to take new flows, and its pods stay.
fn leave(cluster: &Cluster, name: &str, change: &Value, back: &Value) -> Result<()> {
    survive(cluster, name, 8, |scene| {
        let (node, others) = scene.nodes();
        let begin = Instant::now();
        let left = with_node(cluster, node, change, || {
            scene.until_weight(node, false)?;
            println!("   no new flows after {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
            // With Local, a connection's node is its pod's. A port that is used again within a second goes where it went.
            scene.space.until("new connections to go elsewhere", || {
                Ok(expect_nodes(cluster, scene.vips[1], REQUESTS, &others).is_ok().then_some(()))
            })?;
            scene.expect_answers()
        });
        let remaining = scene.downloads.expect_running();
        cluster.api.merge(&format!("/api/v1/nodes/{node}"), back)?;
        left.and(remaining)?;
        scene.until_weight(node, true)
    })
}

/// Changes a node and calls `work`.
fn with_node(cluster: &Cluster, node: &str, change: &Value, work: impl FnOnce() -> Result<()>) -> Result<()> {
    cluster.api.merge(&format!("/api/v1/nodes/{node}"), change)?;
    work()
}

pub fn controlplane(cluster: &Cluster) -> Result<()> {
    survive(cluster, "controlplane", 8, |scene| {
        let before = scene.vips;
        cluster.restart_controlplane(|| scene.expect_answers())?;
        scene.expect_answers()?;
        let after = [scene.space.address("all")?, scene.space.address("local")?];
        ensure(before == after, || format!("addresses {before:?} became {after:?}"))?;
        scene.downloads.expect_running()
    })
}

pub fn outage(cluster: &Cluster) -> Result<()> {
    survive(cluster, "outage", OUTAGE.as_secs() + 8, |scene| {
        cluster.signal("cp-apiserver", Signal::STOP)?;
        let begin = Instant::now();
        let mut answered = Ok(());
        while begin.elapsed() < OUTAGE && answered.is_ok() {
            answered = scene.expect_answers();
            wait::pass(Duration::from_secs(1));
        }
        cluster.signal("cp-apiserver", Signal::CONT)?;
        answered?;
        let begin = Instant::now();
        let vip = scene.space.create_and_wait(&service_with("new", json!({})))?;
        until_answered(cluster, vip)?;
        println!("   a new Service is answered {:.1} s after the outage", begin.elapsed().as_secs_f64());
        scene.downloads.expect_running()
    })
}

fn survive(
    cluster: &Cluster,
    name: &str,
    seconds: u64,
    disturb: impl FnOnce(&Scene) -> Result<()>,
) -> Result<()> {
    in_space(cluster, name, |space| {
        deploy(space)?;
        let vips = [
            space.create_and_wait(&service_with("all", json!({})))?,
            space.create_and_wait(&service_with("local", json!({ "externalTrafficPolicy": "Local" })))?,
        ];
        vips.iter().try_for_each(|vip| until_answered(cluster, *vip))?;
        space.until("Local to use all nodes", || {
            let all: Vec<&str> = cluster.nodes.iter().map(String::as_str).collect();
            Ok(expect_nodes(cluster, vips[1], REQUESTS, &all).is_ok().then_some(()))
        })?;
        let downloads = Downloads::start(cluster, &vips, DOWNLOADS, seconds)?;
        let disturbed = disturb(&Scene { space, downloads: &downloads, vips });
        let transfers = downloads.finish()?;
        let judged = judge(&transfers, &pod_names(&space.pods()?));
        disturbed.and(judged)
    })
}

/// Pods that stay, evenly on all nodes.
pub fn deploy(space: &Space) -> Result<()> {
    let spread = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": { "app": "web" } },
        "matchLabelKeys": ["pod-template-hash"],
    }]);
    let mut template = space.pod_template(GRACE_S)?;
    template["spec"]["topologySpreadConstraints"] = spread;
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "web" },
        "spec": {
            "replicas": PODS,
            "selector": { "matchLabels": { "app": "web" } },
            // All new pods at once, and the old ones go as these get ready.
            "strategy": { "rollingUpdate": { "maxSurge": "100%", "maxUnavailable": 0 } },
            "template": template,
        },
    });
    space.cluster.api.create(&space.path("deployments"), &deployment)?;
    space.until_ready(PODS)
}

/// Of pods, as the API lists them.
pub fn pod_names<'p>(pods: impl IntoIterator<Item = &'p Value>) -> BTreeSet<String> {
    pods.into_iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

/// An error unless all downloads from pods that are still there are whole, and all are from such.
pub fn judge(transfers: &[Transfer], there: &BTreeSet<String>) -> Result<()> {
    let stayed = |transfer: &&Transfer| {
        let pod = transfer.server.as_deref().and_then(|server| server.split_once('/'));
        // One that never began has nobody else to blame.
        pod.is_none_or(|(_, pod)| there.contains(pod))
    };
    let (stayed, went): (Vec<_>, Vec<_>) = transfers.iter().partition(stayed);
    let broken: Vec<_> = stayed.iter().filter(|transfer| transfer.broken.is_some()).collect();
    let lost = went.iter().filter(|transfer| transfer.broken.is_some()).count();
    println!(
        "   {} downloads: {} from pods that stayed, {} broken; {} from pods that went, {lost} broken",
        transfers.len(),
        stayed.len(),
        broken.len(),
        went.len()
    );
    ensure(broken.is_empty(), || format!("e.g. {:?}", broken[0]))?;
    ensure(stayed.len() == transfers.len(), || "a pod went before its grace was over".to_owned())
}
