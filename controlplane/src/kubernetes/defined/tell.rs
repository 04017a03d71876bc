//! Tells the cluster what became of its pools: a condition `Accepted`, and an event when a pool is refused. The
//! condition is the record of what was told, so that a restart repeats nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use crate::kubernetes::shunt_pool::ShuntPool;
use crate::kubernetes::write::publish;

/// The one condition.
const ACCEPTED: &str = "Accepted";
/// Until something is told again that does not show.
const PAUSE: Duration = Duration::from_secs(30);

/// Tells one cluster.
pub struct Teller {
    client: Client,
    /// By uid: what was told last, and when.
    told: HashMap<String, (Option<String>, Instant)>,
}

impl Teller {
    /// Nothing was told yet.
    pub fn new(client: Client) -> Self {
        Self { client, told: HashMap::new() }
    }

    /// Tells what does not show yet, without waiting for it.
    pub fn tell(&mut self, verdicts: &[(Arc<ShuntPool>, Option<String>)]) {
        let now = Instant::now();
        self.told.retain(|_, (_, at)| now.duration_since(*at) < PAUSE);
        for (pool, problem) in verdicts {
            let uid = pool.metadata.uid.clone().unwrap_or_default();
            let is_told = self.told.get(&uid).is_some_and(|(told, _)| told == problem);
            if !is_told && !shows(pool, problem.as_deref()) {
                self.told.insert(uid, (problem.clone(), now));
                tokio::spawn(write(self.client.clone(), Arc::clone(pool), problem.clone()));
            }
        }
    }
}

/// Whether the pool's status says so already.
fn shows(pool: &ShuntPool, problem: Option<&str>) -> bool {
    let conditions = pool.status.iter().flat_map(|status| &status.conditions);
    let shown = conditions.into_iter().find(|condition| condition.type_ == ACCEPTED);
    shown.is_some_and(|shown| (shown.status == word(problem)) && shown.message == message(problem))
}

fn word(problem: Option<&str>) -> &'static str {
    if problem.is_none() { "True" } else { "False" }
}

fn message(problem: Option<&str>) -> &str {
    problem.unwrap_or("Services get addresses from it")
}

/// For server-side apply to `shuntpools/status`.
fn body(pool: &ShuntPool, problem: Option<&str>, now: Timestamp) -> Value {
    let before = pool.status.iter().flat_map(|status| &status.conditions);
    let since = before
        .into_iter()
        .find(|condition: &&Condition| condition.type_ == ACCEPTED && condition.status == word(problem))
        .map_or_else(|| now.strftime("%FT%TZ").to_string(), |same| same.last_transition_time.0.to_string());
    let condition = json!({
        "type": ACCEPTED,
        "status": word(problem),
        "reason": if problem.is_none() { "Valid" } else { "Invalid" },
        "message": message(problem),
        "lastTransitionTime": since,
        "observedGeneration": pool.metadata.generation,
    });
    json!({
        "apiVersion": ShuntPool::api_version(&()),
        "kind": ShuntPool::kind(&()),
        "metadata": { "name": pool.metadata.name, "uid": pool.metadata.uid },
        "status": { "conditions": [condition] },
    })
}

async fn write(client: Client, pool: Arc<ShuntPool>, problem: Option<String>) {
    let name = pool.metadata.name.clone().unwrap_or_default();
    if let Some(problem) = &problem {
        tracing::warn!("ShuntPool {name} is left out: {problem}");
        let event = Event {
            type_: EventType::Warning,
            reason: "InvalidPool".into(),
            note: Some(problem.clone()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = publish(&client, &event, &pool.object_ref(&())).await {
            tracing::warn!("event of ShuntPool {name}: {error}");
        }
    }
    let api: Api<ShuntPool> = Api::all(client);
    let body = body(&pool, problem.as_deref(), Timestamp::now());
    let applied = api.patch_status(&name, &PatchParams::apply("shunt").force(), &Patch::Apply(body)).await;
    if let Err(error) = applied {
        tracing::warn!("status of ShuntPool {name}: {error}; trying again in {PAUSE:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_is_not_told_again_and_a_time_stays_with_its_status() {
        let text = r#"{"apiVersion": "shunt.dev/v1alpha1", "kind": "ShuntPool",
            "metadata": {"name": "p", "uid": "u", "generation": 2}, "spec": {"addresses": ["192.0.2.0/24"]}}"#;
        let mut pool: ShuntPool = serde_json::from_str(text).unwrap();
        let (first, later) = (Timestamp::from_second(1_000).unwrap(), Timestamp::from_second(2_000).unwrap());
        for problem in [None, Some("it overlaps"), Some("it overlaps another")] {
            assert!(!shows(&pool, problem));
            let told = body(&pool, problem, first);
            assert_eq!(told["metadata"], json!({ "name": "p", "uid": "u" }));
            pool.status = Some(serde_json::from_value(told["status"].clone()).unwrap());
            assert!(shows(&pool, problem), "{problem:?}");
        }
        let time =
            |problem| body(&pool, problem, later)["status"]["conditions"][0]["lastTransitionTime"].clone();
        assert_eq!(time(Some("x")), "1970-01-01T00:16:40Z");
        assert_eq!(time(None), "1970-01-01T00:33:20Z");
    }
}
