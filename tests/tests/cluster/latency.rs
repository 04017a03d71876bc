//! How long changes take.

use std::time::{Duration, Instant};

use serde_json::json;
use shunt_tests::error::{Result, ensure};
use shunt_tests::wait;

use crate::client::first_answer;
use crate::cluster::Cluster;
use crate::objects::{annotated, slice, with};
use crate::space::{Space, in_space};

/// Changes at most, unless `--changes=N` says otherwise.
const CHANGES: usize = 200;
/// For each of the two kinds, unless the number of changes was given.
const TIME: Duration = Duration::from_secs(30);
/// For one change to be programmed.
const LIMIT: Duration = Duration::from_secs(10);
/// kube-proxy writes its rules at most once a second, and its share of this is not ours. On a busy machine.
const ANSWERED_P99: Duration = Duration::from_secs(10);
const PROGRAMMED_P99: Duration = Duration::from_secs(2);

pub fn run(cluster: &Cluster) -> Result<()> {
    in_space(cluster, "latency", |space| {
        let nodes: Vec<&str> = cluster.nodes.iter().map(String::as_str).collect();
        space.start_pods(&nodes)?;
        let (answered, gone) = repeat(|number| life(space, number))?.into_iter().unzip();
        tell("Service created to first answered connection", answered, ANSWERED_P99)?;
        tell("Service deleted to released", gone, PROGRAMMED_P99)?;
        let service = with(
            annotated("watched", json!({ "shunt.dev/health-check": "none" })),
            json!({ "spec": { "externalTrafficPolicy": "Local", "selector": null } }),
        );
        space.create(&service)?;
        cluster.api.create(&space.path("endpointslices"), &slice("watched", &[(nodes[0], true)]))?;
        space.address("watched")?;
        let programmed = repeat(|number| programmed(space, number))?;
        tell("endpoint changed to acknowledged by the dataplane", programmed, PROGRAMMED_P99)
    })
}

/// The number of changes that was asked for, if it was.
fn changes() -> Option<usize> {
    std::env::args().find_map(|argument| argument.strip_prefix("--changes=")?.parse().ok())
}

fn repeat<T>(mut once: impl FnMut(usize) -> Result<T>) -> Result<Vec<T>> {
    let begin = Instant::now();
    let (count, time) = changes().map_or((CHANGES, TIME), |changes| (changes, Duration::MAX));
    let mut took = Vec::new();
    while took.len() < count && begin.elapsed() < time {
        took.push(once(took.len())?);
    }
    Ok(took)
}

fn tell(what: &str, mut took: Vec<Duration>, limit: Duration) -> Result<()> {
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let (p50, p99) = (at(50), at(99));
    println!("   {what}: p50 {:.0} ms, p99 {:.0} ms of {} changes", ms(p50), ms(p99), took.len());
    ensure(p99 <= limit, || format!("p99 should be {limit:?} at most"))
}

/// How long it takes until a Service is answered, and until it is gone. The client knows the address beforehand, so that
/// it can begin at once.
fn life(space: &Space, number: usize) -> Result<(Duration, Duration)> {
    let name = format!("web{number}");
    let vip = format!("198.51.100.{}", 100 + number % 100);
    let service = annotated(&name, json!({ "shunt.dev/addresses": vip }));
    let begin = Instant::now();
    space.create(&service)?;
    first_answer(space.cluster, vip.parse().expect("an address"))?;
    let answered = begin.elapsed();
    let begin = Instant::now();
    space.delete_service(&name)?;
    space.until_gone(&name)?;
    Ok((answered, begin.elapsed()))
}

/// How long it takes until the dataplane has acknowledged that the one endpoint moved to the next node.
fn programmed(space: &Space, number: usize) -> Result<Duration> {
    let cluster = space.cluster;
    let node = &cluster.nodes[(number + 1) % cluster.nodes.len()];
    ensure(!is_alone(space, node)?, || format!("{node} has the endpoint already"))?;
    let begin = Instant::now();
    let path = space.path("endpointslices/watched");
    cluster.api.replace(&path, &slice("watched", &[(node, true)]))?;
    // Weights and generation change together, so one that is agreed upon after the look holds what was seen.
    let acknowledged = || Ok((is_alone(space, node)? && cluster.is_acknowledged()?).then_some(()));
    wait::until("the dataplane to acknowledge a change", LIMIT, acknowledged)?;
    Ok(begin.elapsed())
}

/// Whether new flows go to this node and no other.
fn is_alone(space: &Space, node: &str) -> Result<bool> {
    let weights = space.weights("watched")?;
    Ok(weights.iter().all(|(name, weight)| (*weight > 0) == (name == node)) && weights.contains_key(node))
}
