//! What became another, in words.

use std::collections::{BTreeSet, HashMap, HashSet};

use shunt_api::config::{Backend, Config, Service, WhenAllDown};
use tracing::Level;

use super::Standing;
use crate::health::Health;
use crate::journal::Happening;

/// Pools named in one line; of more, the number is told.
const POOLS_NAMED: usize = 3;

/// From how backends were to how they are. What is alike in several pools is one line.
pub fn of_backends(config: &Config, before: &[Vec<Standing>], after: &[Vec<Standing>]) -> Vec<Happening> {
    let mut happenings: Vec<Happening> = Vec::new();
    let mut pools: Vec<Vec<&str>> = Vec::new();
    let mut known = HashMap::new();
    for (pool, (before, after)) in config.pools.iter().zip(before.iter().zip(after)) {
        for (backend, (before, after)) in pool.backends.iter().zip(before.iter().zip(after)) {
            for happening in of_backend(backend, before, after) {
                let key = (backend.address, happening.clone());
                let line = *known.entry(key).or_insert_with(|| {
                    happenings.push(happening);
                    pools.push(Vec::new());
                    pools.len() - 1
                });
                pools[line].push(&pool.name);
            }
        }
    }
    for (happening, pools) in happenings.iter_mut().zip(&pools) {
        happening.subject += &of_pools(pools);
    }
    happenings
}

/// Services whose backends all went down, and those that have some again.
pub fn of_services(before: &BTreeSet<String>, after: &[&Service]) -> Vec<Happening> {
    let happening = |service: &str, level, text: &str, reason: Option<&str>| Happening {
        level,
        subject: format!("service {service}"),
        text: text.to_owned(),
        reason: reason.map(str::to_owned),
    };
    let lost = after.iter().filter(|service| !before.contains(&service.name)).map(|service| {
        let [text, reason] = forsaken(service);
        happening(&service.name, Level::ERROR, text, Some(reason))
    });
    let lost_now: HashSet<&str> = after.iter().map(|service| service.name.as_str()).collect();
    let regained = before.iter().filter(|name| !lost_now.contains(name.as_str()));
    lost.chain(regained.map(|name| happening(name, Level::INFO, "has backends again", None))).collect()
}

/// What a service without backends does, and why.
pub fn forsaken(service: &Service) -> [&'static str; 2] {
    match service.when_all_down {
        WhenAllDown::UseAll => [
            "all backends are down, and flows go to all of them as if they were up",
            "when_all_down = \"use-all\"",
        ],
        WhenAllDown::Refuse => {
            ["all backends are down, and new flows are dropped", "when_all_down = \"refuse\""]
        }
    }
}

fn of_backend(backend: &Backend, before: &Standing, after: &Standing) -> Vec<Happening> {
    let subject = || format!("backend {}", backend.name);
    let mut happenings = Vec::new();
    if before.health != after.health && after.health != Health::Unknown {
        let level = if after.health == Health::Down { Level::WARN } else { Level::INFO };
        happenings.push(Happening {
            level,
            subject: subject(),
            text: after.health.to_string(),
            reason: after.reason.clone(),
        });
    }
    if before.drained != after.drained {
        let text = if after.drained { "draining" } else { "no longer draining" };
        happenings.push(Happening {
            level: Level::INFO,
            subject: subject(),
            text: text.into(),
            reason: None,
        });
    }
    happenings
}

fn of_pools(pools: &[&str]) -> String {
    match pools {
        [pool] => format!(" of pool {pool}"),
        pools if pools.len() <= POOLS_NAMED => format!(" of pools {}", pools.join(", ")),
        pools => {
            let others = pools.len() - POOLS_NAMED;
            format!(" of pools {} and {others} more", pools[..POOLS_NAMED].join(", "))
        }
    }
}
