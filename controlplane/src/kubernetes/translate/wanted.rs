//! What the dataplane shall serve for a cluster, in the types of the configuration. Pools are named after their service,
//! with `/v4` or `/v6` at the end, or after what they have in common ([`super`]); services `CLUSTER/NAMESPACE/NAME`, with
//! the family unless it is the primary one.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
pub use shunt_api::config::{Backend, Pool, Service};

/// Pools and the services that use them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// In the order of the Services, no two of the same name.
    pub pools: Vec<Pool>,
    /// In the order of the Services, no two of the same name.
    pub services: Vec<Service>,
}

/// Begins the names of the pools and services of a cluster.
pub fn prefix(cluster: Option<&str>) -> String {
    cluster.map_or_else(String::new, |cluster| format!("{cluster}/"))
}

impl Wanted {
    /// The same of a cluster that is called otherwise.
    pub fn renamed(&self, before: Option<&str>, now: Option<&str>) -> Self {
        let (before, now) = (prefix(before), prefix(now));
        let name = |name: &str| format!("{now}{}", name.strip_prefix(&before).unwrap_or(name));
        Self {
            pools: self.pools.iter().map(|pool| Pool { name: name(&pool.name), ..pool.clone() }).collect(),
            services: self
                .services
                .iter()
                .map(|service| Service { name: name(&service.name), ..service.clone() })
                .collect(),
        }
    }
}

/// Everything that several want. Pools of the same name are the same, and are there once.
pub fn merged<'w>(all: impl Iterator<Item = &'w Wanted>) -> Wanted {
    let mut merged = Wanted::default();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for wanted in all {
        let mut place = |pool: &'w Pool| {
            *places.entry(&pool.name).or_insert_with(|| {
                merged.pools.push(pool.clone());
                merged.pools.len() - 1
            })
        };
        let places: Vec<usize> = wanted.pools.iter().map(&mut place).collect();
        let moved = |service: &Service| Service { pool: places[service.pool], ..service.clone() };
        merged.services.extend(wanted.services.iter().map(moved));
    }
    merged
}
