//! What the dataplane shall serve for a cluster, in the types of the configuration. Pools are named after their service,
//! with `/v4` or `/v6` at the end, and services `CLUSTER/NAMESPACE/NAME`, with the family unless it is the primary one.

use serde::{Deserialize, Serialize};
pub use shunt_api::config::{Backend, Pool, Service};

/// Pools and the services that use them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// In the order of the Services, no two of the same name.
    pub pools: Vec<Pool>,
    /// Likewise.
    pub services: Vec<Service>,
}

impl Wanted {
    /// Appends what another Service wants.
    pub fn append(&mut self, other: &Self) {
        let offset = self.pools.len();
        self.pools.extend(other.pools.iter().cloned());
        let moved =
            other.services.iter().map(|service| Service { pool: service.pool + offset, ..service.clone() });
        self.services.extend(moved);
    }
}

/// Everything that several want.
pub fn merged<'w>(all: impl Iterator<Item = &'w Wanted>) -> Wanted {
    let mut merged = Wanted::default();
    all.for_each(|wanted| merged.append(wanted));
    merged
}
