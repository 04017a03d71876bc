//! What the dataplane shall serve for a cluster: the content of a configuration's pools and services, in plain types
//! that need no file.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use shunt_api::config::{Check, OnDown, WhenAllDown};
use shunt_api::snapshot::{Mode, PortMapping, UnlistedPorts};

/// Pools and the services that use them, as in [`shunt_api::config::Config`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// In the order of the Services, no two of the same name.
    pub pools: Vec<Pool>,
    /// Likewise.
    pub services: Vec<Service>,
}

/// As [`shunt_api::config::Pool`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// That of the service, and `/v4` or `/v6`.
    pub name: String,
    /// In the order of their names; may be empty. No address twice, none of them a VIP.
    pub backends: Vec<Backend>,
    /// How backends are found to be up; `None` takes them to be.
    pub check: Option<Check>,
    /// What becomes of the flows of a backend that goes down.
    pub on_down: OnDown,
    /// For how long the share of a backend that came up grows.
    pub slow_start: Option<Duration>,
}

/// As [`shunt_api::config::Backend`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The node's.
    pub name: String,
    /// An `InternalIP` of it.
    pub address: IpAddr,
    /// 0…1000; 0 drains.
    pub weight: u16,
    /// The same for all backends of a pool.
    pub mode: Mode,
}

/// As [`shunt_api::config::Service`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// `CLUSTER/NAMESPACE/NAME`, and the family if it is not the Service's primary one.
    pub name: String,
    /// At least one, all of one family.
    pub vips: Vec<IpAddr>,
    /// At least one. They have targets in mode `nat` only.
    pub ports: Vec<PortMapping>,
    /// Index into [`Wanted::pools`].
    pub pool: usize,
    /// Prefixes that clients may come from; empty allows all.
    pub source_ranges: Vec<IpNet>,
    /// Seconds for which a client keeps its backend.
    pub client_ip_affinity_s: Option<u32>,
    /// What packets to other ports of the VIPs get.
    pub unlisted_ports: UnlistedPorts,
    /// What it does when all its backends are down.
    pub when_all_down: WhenAllDown,
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
