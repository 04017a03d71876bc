//! What would become of a packet: the dataplane says, of what is in force or of what is supposed; how the backend is,
//! is said here.

use std::sync::Arc;
use std::time::Instant;

use shunt_api::client::{Client, ClientError};
use shunt_api::compile::compile;
use shunt_api::config::Config;
use shunt_api::explain::{Asked, ExplainRequest, Explanation, Rule, Step};
use shunt_api::snapshot::Snapshot;

use crate::control::{Control, InForce, with_clusters};
use crate::health::Health;
use crate::roster::{Roster, Standing};

/// Most backends that can be supposed to be down.
const DOWN_MAX: usize = 1_024;

/// Answers. The error says what is wrong with the question, or that the dataplane does not answer.
pub async fn explain(
    request: ExplainRequest,
    control: &Control,
    dataplane: &Client,
) -> Result<Explanation, String> {
    let packet = request.packet;
    if request.config.is_none() && request.down.is_empty() {
        let told = ask(dataplane, &Asked { packet, snapshot: None }).await?;
        return Ok(control.look(|model| with_health(told, &model.roster, Instant::now())));
    }
    let in_force = control.in_force().ok_or("there is no configuration yet; lbctl status says why")?;
    // All else goes on meanwhile.
    let supposing = tokio::task::spawn_blocking(move || suppose(&request, in_force));
    let (roster, snapshot) = supposing.await.map_err(|_| "this cannot be supposed")??;
    let told = ask(dataplane, &Asked { packet, snapshot: Some(Box::new(snapshot)) }).await?;
    Ok(with_health(told, &roster, Instant::now()))
}

async fn ask(dataplane: &Client, asked: &Asked) -> Result<Explanation, String> {
    dataplane.post("/v1/explain", asked).await.map_err(|error| match error {
        ClientError::Refused { message, .. } => message,
        other => other.to_string(),
    })
}

/// What would be balanced over, and the backends with it: by another file, which has the fleet key in force whatever it
/// says, or with backends down of these names or addresses.
fn suppose(request: &ExplainRequest, in_force: InForce) -> Result<(Roster, Snapshot), String> {
    let InForce { roster, fleet_key, wanted, generation } = in_force;
    if request.down.len() > DOWN_MAX {
        return Err(format!(
            "{} backends are too many to be supposed down; {DOWN_MAX} can",
            request.down.len()
        ));
    }
    let config = request.config.as_ref().map(|file| Config::parse(&file.text, &file.file)).transpose();
    let other = config.map_err(|problem| problem.to_string())?.map(|config| {
        let snapshot = compile(&config, fleet_key);
        let (config, whole, _) = with_clusters(&wanted, Arc::new(config), snapshot);
        (config, whole)
    });
    let supposed = roster.supposing(other, &request.down, Instant::now());
    let (roster, snapshot) = supposed.ok_or("there is no configuration yet; lbctl status says why")??;
    Ok((roster, Snapshot { generation, ..snapshot }))
}

/// With how the backend is, behind who it is.
fn with_health(mut told: Explanation, roster: &Roster, now: Instant) -> Explanation {
    let place = told.steps.iter().position(|step| step.rule == Rule::Backend);
    if let Some((place, finding)) = place.zip(finding(&told, roster, now)) {
        told.steps.insert(place + 1, Step { rule: Rule::Health, finding, decides: false });
    }
    told
}

fn finding(told: &Explanation, roster: &Roster, now: Instant) -> Option<String> {
    let config = roster.config()?;
    let service = config.services.iter().find(|service| Some(&service.name) == told.service.as_ref())?;
    let pool = &config.pools[service.pool];
    let index = pool.backends.iter().position(|backend| Some(backend.address) == told.backend)?;
    let (backend, standing) = (&pool.backends[index], roster.standing(service.pool, index));
    let weight = if standing.drained { "draining".to_owned() } else { format!("weight {}", backend.weight) };
    Some(format!("{} of pool {} is {}, {weight}", backend.name, pool.name, health(standing, now)))
}

fn health(standing: &Standing, now: Instant) -> String {
    let word = match standing.health {
        Health::Up => "up",
        Health::Down => "down",
        Health::Unknown if standing.down => "down, as it was before a restart",
        Health::Unknown => "taken for up: no check has said anything",
    };
    let since = standing.since.map_or_else(String::new, |since| {
        let seconds = now.saturating_duration_since(since).as_secs();
        format!(" for {}", humantime::format_duration(std::time::Duration::from_secs(seconds)))
    });
    let reason = standing.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    format!("{word}{since}{reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_backend_is_in_words() {
        let now = Instant::now();
        let standing = |health, down, reason: Option<&str>| Standing {
            health,
            down,
            since: reason.and_then(|_| now.checked_sub(std::time::Duration::from_secs(90))),
            reason: reason.map(str::to_owned),
            ..Standing::default()
        };
        for (standing, expected) in [
            (standing(Health::Up, false, Some("connected")), "up for 1m 30s (connected)"),
            (standing(Health::Down, true, Some("refused")), "down for 1m 30s (refused)"),
            (standing(Health::Unknown, true, None), "down, as it was before a restart"),
            (standing(Health::Unknown, false, None), "taken for up: no check has said anything"),
        ] {
            assert_eq!(health(&standing, now), expected);
        }
    }
}
