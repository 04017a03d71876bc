//! Tells the cluster what became of its pools: a condition `Accepted`, and then an event if a pool is refused. The
//! condition is the record of what was told, so that a restart repeats nothing. Only the leader tells anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use super::Verdict;
use crate::kubernetes::shunt_pool::ShuntPool;
use crate::kubernetes::term::Gate;
use crate::kubernetes::write::{answered, publish};
use crate::until::now;

/// The one condition.
const ACCEPTED: &str = "Accepted";
/// Until something is told again that does not show.
const PAUSE: Duration = Duration::from_secs(30);

/// Tells one cluster.
pub struct Teller {
    client: Client,
    gate: Gate,
    /// By uid: what was told last, and when.
    told: HashMap<String, (Option<String>, Instant)>,
}

impl Teller {
    /// Nothing was told yet, and nothing is while the gate is shut.
    pub fn new(client: Client, gate: Gate) -> Self {
        Self { client, gate, told: HashMap::new() }
    }

    /// When to look whether what was told shows.
    pub fn next_try(&self) -> Option<Instant> {
        self.told.values().map(|(_, at)| *at + PAUSE).min()
    }

    /// Tells what does not show yet, without waiting for it.
    pub fn tell(&mut self, verdicts: &[Verdict]) {
        let now = now();
        self.told.retain(|_, (_, at)| now < *at + PAUSE);
        for (pool, problem) in verdicts {
            let uid = pool.metadata.uid.clone().unwrap_or_default();
            let is_told = self.told.get(&uid).is_some_and(|(told, _)| told == problem);
            if !is_told && !shows(pool, problem.as_deref()) {
                self.told.insert(uid, (problem.clone(), now));
                let (client, gate) = (self.client.clone(), self.gate.clone());
                tokio::spawn(write(client, gate, Arc::clone(pool), problem.clone()));
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

async fn write(client: Client, gate: Gate, pool: Arc<ShuntPool>, problem: Option<String>) {
    if !gate.is_open() {
        return;
    }
    let name = pool.metadata.name.clone().unwrap_or_default();
    if let Some(problem) = &problem {
        tracing::warn!("ShuntPool {name} is left out: {problem}");
    }
    let api: Api<ShuntPool> = Api::all(client.clone());
    let (params, body) =
        (PatchParams::apply("shunt").force(), body(&pool, problem.as_deref(), Timestamp::now()));
    let body = Patch::Apply(body);
    if let Err(error) = answered(api.patch_status(&name, &params, &body)).await {
        tracing::warn!("status of ShuntPool {name}: {error}; trying again in {PAUSE:?}");
        return;
    }
    let Some(problem) = problem.filter(|_| gate.is_open()) else { return };
    let event = Event {
        type_: EventType::Warning,
        reason: "InvalidPool".into(),
        note: Some(problem),
        action: "Reconcile".into(),
        secondary: None,
    };
    if let Err(error) = answered(publish(&client, &event, &pool.object_ref(&()))).await {
        tracing::warn!("event of ShuntPool {name}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::time::sleep;

    use super::*;
    use crate::kubernetes::double::objects::pool;
    use crate::kubernetes::double::{Api as Double, Fault};
    use crate::kubernetes::election::{Seat, Standing};

    fn leads() -> Seat {
        let until = now() + Duration::from_hours(1);
        Seat { standing: Standing::Leads { term: 1, until }, trouble: None }
    }

    /// A teller, how its box stands, and a pool that is refused.
    fn rig() -> (Double, Teller, watch::Sender<Seat>, Vec<Verdict>) {
        let api = Double::default();
        api.put("shuntpools", pool("p", "192.0.2.0/24"));
        let object = serde_json::from_value(api.object("shuntpools", "p").unwrap()).unwrap();
        let (seat, seated) = watch::channel(Seat::default());
        let teller = Teller::new(api.client(), Gate::new(seated));
        (api, teller, seat, vec![(Arc::new(object), Some("it overlaps".into()))])
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_leader_tells_anything() {
        let (api, mut teller, seat, verdicts) = rig();
        for standing in [Standing::Unknown, Standing::Lapsed, Standing::Follows { leader: "b".into() }] {
            seat.send_replace(Seat { standing, trouble: None });
            teller.tell(&verdicts);
            sleep(PAUSE).await;
            assert_eq!(api.writes(), [""; 0]);
        }
        seat.send_replace(leads());
        teller.tell(&verdicts);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(api.writes(), ["p status[]", "p (InvalidPool)"]);
        teller.tell(&verdicts);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(api.writes(), [""; 0], "it will show");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_ceases_to_lead_begins_no_further_write() {
        let (api, mut teller, seat, verdicts) = rig();
        seat.send_replace(leads());
        api.rule(|request| (request.verb == "patch").then_some(Fault::Late(Duration::from_secs(3))));
        teller.tell(&verdicts);
        sleep(Duration::from_secs(1)).await;
        seat.send_replace(Seat { standing: Standing::Lapsed, trouble: None });
        sleep(PAUSE).await;
        assert_eq!(api.writes(), ["p status[]"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_found_no_answer_is_told_again() {
        let (api, mut teller, seat, verdicts) = rig();
        seat.send_replace(leads());
        api.rule(|request| (request.verb == "patch").then_some(Fault::Silence));
        teller.tell(&verdicts);
        assert_eq!(teller.next_try(), Some(now() + PAUSE));
        sleep(PAUSE).await;
        assert_eq!(api.writes(), [""; 0], "without the record no event");
        api.mend();
        teller.tell(&verdicts);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(api.writes(), ["p status[]", "p (InvalidPool)"]);
    }

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
