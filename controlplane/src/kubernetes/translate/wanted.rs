//! What the dataplane shall serve for a cluster, in the types of the configuration. Pools are named after their service,
//! with `/v4` or `/v6` at the end, or after what they have in common ([`super`]); services `CLUSTER/NAMESPACE/NAME`, with
//! the family unless it is the primary one.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
pub use shunt_api::config::{Backend, Pool, Service};

/// Pools and the services that use them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// No two of the same name.
    pub pools: Vec<Pool>,
    /// No two of the same name.
    pub services: Vec<Service>,
    /// When the Service of each of these was made, in seconds since 1970: where there is not room for all, those that came
    /// first are served. What was stored without counts as old.
    #[serde(default)]
    pub created_s: Vec<i64>,
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
            created_s: self.created_s.clone(),
        }
    }
}

/// Everything that several want, the oldest Services first, and of one age in their order. Pools of the same name are the
/// same, and are there once.
pub fn merged<'w>(all: impl Iterator<Item = &'w Wanted>) -> Wanted {
    let dated = |wanted: &'w Wanted| {
        let created_s = |at: usize| wanted.created_s.get(at).copied().unwrap_or_default();
        let pool = |service: &Service| &wanted.pools[service.pool];
        wanted.services.iter().enumerate().map(move |(at, service)| (created_s(at), service, pool(service)))
    };
    let mut services: Vec<(i64, &Service, &Pool)> = all.flat_map(dated).collect();
    services.sort_by_key(|(created_s, ..)| *created_s);
    let mut merged = Wanted::default();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (created_s, service, pool) in services {
        let place = *places.entry(&pool.name).or_insert_with(|| {
            merged.pools.push(pool.clone());
            merged.pools.len() - 1
        });
        merged.services.push(Service { pool: place, ..service.clone() });
        merged.created_s.push(created_s);
    }
    merged
}

#[cfg(test)]
mod tests {
    use shunt_api::config::Config;

    use super::*;

    #[test]
    fn the_oldest_come_first_whatever_they_are_called() {
        let text = r#"
            nic = [{ name = "eth1" }]
            pools.shared = { backends = [{ name = "n", address = "10.0.0.9" }] }
            pools.own = { backends = [{ name = "n", address = "10.0.0.9" }] }
            service = [
                { name = "a", vip = "203.0.113.1", ports = ["tcp/80"], pool = "own" },
                { name = "b", vip = "203.0.113.2", ports = ["tcp/80"], pool = "shared" },
                { name = "c", vip = "203.0.113.3", ports = ["tcp/80"], pool = "shared" },
            ]
        "#;
        let Config { pools, services, .. } = Config::parse(text, "f").unwrap();
        let wanted = |created_s: &[i64]| Wanted {
            pools: pools.clone(),
            services: services.clone(),
            created_s: created_s.into(),
        };
        let shown = |wanted: &[Wanted]| {
            let all = merged(wanted.iter());
            let shown = |service: &Service| format!("{}:{}", service.name, all.pools[service.pool].name);
            all.services.iter().map(shown).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&[wanted(&[3, 2, 2])]), "b:shared c:shared a:own");
        assert_eq!(
            shown(&[wanted(&[9, 5, 5]), wanted(&[1, 5, 7])]),
            "a:own b:shared c:shared b:shared c:shared a:own"
        );
        // Of a memory that has no times.
        assert_eq!(shown(&[wanted(&[])]), "a:own b:shared c:shared");
        assert_eq!(merged([wanted(&[3, 2, 2])].iter()).pools.len(), 2);
    }
}
