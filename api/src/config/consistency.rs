//! What must hold between the parts of a configuration: names that are unique or must exist, listeners that
//! no two services share, backends that are no VIP. Values are kept with their places, so that a problem can
//! point at one and name the other. What mode `nat` asks is in `nat.rs`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::net::IpAddr;

use super::check::HealthRead;
use super::document::{Value, nearest};
use super::{Backend, Pool};
use crate::snapshot::{Mode, PortMapping, ServicePort, Tunnel, UnlistedPorts};
use crate::status::ConfigProblem;

/// Values seen so far, each with its place.
pub struct Unique<'d, T>(HashMap<T, Value<'d>>);

impl<T> Default for Unique<'_, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<'d, T: Clone + Eq + Hash + Display> Unique<'d, T> {
    /// Gives the key back, or a problem that names the line of the one before; `what` is what such keys are,
    /// with its article.
    pub fn insert(&mut self, key: T, value: &Value<'d>, what: &str) -> Result<T, ConfigProblem> {
        if let Some(first) = self.0.insert(key.clone(), value.clone()) {
            let line = first.line();
            return Err(value
                .problem(format!("`{key}` is already {what} (line {line}); remove one or write another")));
        }
        Ok(key)
    }
}

/// Reads elements that must differ, each with its value; two are the same if their keys are.
pub fn distinct<'d, T, K: Clone + Eq + Hash + Display>(
    elements: Vec<Value<'d>>,
    read: impl Fn(&Value<'d>) -> Result<T, ConfigProblem>,
    key: impl Fn(&T) -> K,
) -> Result<Vec<(T, Value<'d>)>, ConfigProblem> {
    let mut unique = Unique::default();
    let element = |value: Value<'d>| {
        let element = read(&value)?;
        unique.insert(key(&element), &value, "in this list")?;
        Ok((element, value))
    };
    elements.into_iter().map(element).collect()
}

/// What a service does with packets to its VIPs, with the places to point at.
pub struct Listening<'d> {
    /// Its name.
    pub service: String,
    /// At least one.
    pub vips: Vec<(IpAddr, Value<'d>)>,
    /// At least one.
    pub ports: Vec<(PortMapping, Value<'d>)>,
    /// What other ports of the VIPs get.
    pub unlisted_ports: UnlistedPorts,
    /// Where that is written, if it is.
    pub unlisted_ports_value: Option<Value<'d>>,
}

/// Who listens where.
#[derive(Default)]
pub struct Listeners {
    services: HashMap<(IpAddr, ServicePort), String>,
    vips: HashMap<IpAddr, Owner>,
}

/// The first service that has a VIP.
struct Owner {
    service: String,
    unlisted_ports: UnlistedPorts,
}

impl Listeners {
    /// Enters a service, or points at what contradicts a service before: a VIP on the same port, or other
    /// treatment of a shared VIP's unlisted ports.
    pub fn insert(&mut self, listening: &Listening<'_>) -> Result<(), ConfigProblem> {
        for (vip, value) in &listening.vips {
            for (PortMapping { port, .. }, _) in &listening.ports {
                if let Some(other) = self.services.insert((*vip, *port), listening.service.clone()) {
                    return Err(value.problem(format!(
                        "{vip} {port} already belongs to service `{other}`; use another address or port"
                    )));
                }
            }
            let owner = self.vips.entry(*vip).or_insert_with(|| Owner {
                service: listening.service.clone(),
                unlisted_ports: listening.unlisted_ports,
            });
            if owner.unlisted_ports != listening.unlisted_ports {
                return Err(owner.disagreement(*vip, value, listening));
            }
        }
        Ok(())
    }

    /// A service that has this VIP.
    pub fn owner(&self, vip: &IpAddr) -> Option<&str> {
        self.vips.get(vip).map(|owner| owner.service.as_str())
    }
}

impl Owner {
    fn disagreement(&self, vip: IpAddr, value: &Value<'_>, listening: &Listening<'_>) -> ConfigProblem {
        let Self { service, unlisted_ports: first } = self;
        let why = format!(
            "service `{service}` shares {vip} and has unlisted_ports = \"{first}\"; services that share a VIP \
             must agree"
        );
        match &listening.unlisted_ports_value {
            Some(key) => {
                let second = listening.unlisted_ports;
                key.problem(format!("{why}: write \"{first}\" here, or \"{second}\" there"))
            }
            None => value.problem(format!("{why}: add unlisted_ports = \"{first}\" here")),
        }
    }
}

/// The pools read so far, with what is needed to point at them.
#[derive(Default)]
pub struct Pools<'d> {
    pools: Vec<PoolRead<'d>>,
    by_name: BTreeMap<String, usize>,
}

/// A pool and its places.
pub struct PoolRead<'d> {
    /// Unique among pools.
    pub name: String,
    /// Its check, and what follows from it.
    pub health: HealthRead<'d>,
    place: Value<'d>,
    backends: Vec<(Backend, Value<'d>)>,
    used: bool,
    // Found once, because many services may share a large pool.
    first_nat_v4: Option<usize>,
    first_nat_v6: Option<usize>,
    first_not_nat: Option<usize>,
}

impl<'d> Pools<'d> {
    /// Adds a pool; TOML itself refuses the same key twice. `place` is where to point for the whole pool.
    pub fn insert(
        &mut self,
        name: String,
        place: Value<'d>,
        backends: Vec<(Backend, Value<'d>)>,
        health: HealthRead<'d>,
    ) {
        self.by_name.insert(name.clone(), self.pools.len());
        let first =
            |wanted: &dyn Fn(&Backend) -> bool| backends.iter().position(|(backend, _)| wanted(backend));
        let nat = |backend: &Backend| backend.mode == Mode::Nat;
        self.pools.push(PoolRead {
            first_nat_v4: first(&|backend| nat(backend) && backend.address.is_ipv4()),
            first_nat_v6: first(&|backend| nat(backend) && backend.address.is_ipv6()),
            first_not_nat: first(&|backend| !nat(backend)),
            name,
            place,
            backends,
            health,
            used: false,
        });
    }

    /// Index of the pool that a service names.
    pub fn used(&mut self, value: &Value<'_>) -> Result<usize, ConfigProblem> {
        let name = value.string("\"web\"")?;
        let Some(index) = self.by_name.get(name) else {
            return Err(value.problem(self.unknown(name)));
        };
        self.pools[*index].used = true;
        Ok(*index)
    }

    /// The pool of an index that [`Pools::used`] gave.
    pub fn at(&self, index: usize) -> &PoolRead<'d> {
        &self.pools[index]
    }

    /// All pools, in the order of the file.
    pub fn as_slice(&self) -> &[PoolRead<'d>] {
        &self.pools
    }

    /// Every backend with its pool.
    pub fn backends(&self) -> impl Iterator<Item = (&PoolRead<'d>, &Backend)> {
        self.pools.iter().flat_map(|pool| pool.backends().map(move |backend| (pool, backend)))
    }

    /// Whether any backend is of mode `nat`.
    pub fn have_nat(&self) -> bool {
        self.pools.iter().any(|pool| pool.first_nat_v4.or(pool.first_nat_v6).is_some())
    }

    fn unknown(&self, name: &str) -> String {
        let name_shown = name.escape_debug();
        let known: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        match nearest(name, &known) {
            Some(near) => format!("there is no pool `{name_shown}`; did you mean `{near}`?"),
            None => format!("there is no pool `{name_shown}`; add [pools.{name_shown}] or name another"),
        }
    }

    /// A packet sent to a backend that is a VIP would come straight back.
    pub fn refuse_vips(&self, listeners: &Listeners) -> Result<(), ConfigProblem> {
        for (backend, value) in self.pools.iter().flat_map(|pool| &pool.backends) {
            if let Some(service) = listeners.owner(&backend.address) {
                return Err(value.problem(format!(
                    "{} is a VIP of service `{service}`; write the backend's own address",
                    backend.address
                )));
            }
        }
        Ok(())
    }

    /// What is allowed but hardly meant.
    pub fn warnings(&self, tunnel: &Tunnel) -> Vec<ConfigProblem> {
        self.pools.iter().flat_map(|pool| pool.warnings(tunnel)).collect()
    }

    /// The pools without their places.
    pub fn into_pools(self) -> Vec<Pool> {
        let pool = |read: PoolRead<'_>| Pool {
            name: read.name,
            check: read.health.check.map(|read| read.check),
            on_down: read.health.on_down,
            slow_start: read.health.slow_start,
            backends: read.backends.into_iter().map(|(backend, _)| backend).collect(),
        };
        self.pools.into_iter().map(pool).collect()
    }
}

impl<'d> PoolRead<'d> {
    /// Its backends, in the order of the file.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().map(|(backend, _)| backend)
    }

    /// The first backend of mode `nat` and of a family, with the value that holds its address.
    pub fn first_nat(&self, v4: bool) -> Option<&(Backend, Value<'d>)> {
        let index = if v4 { self.first_nat_v4 } else { self.first_nat_v6 };
        index.map(|index| &self.backends[index])
    }

    /// The first backend that gets packets with the client's port, with the value that holds its address.
    pub fn first_not_nat(&self) -> Option<&(Backend, Value<'d>)> {
        self.first_not_nat.map(|index| &self.backends[index])
    }

    fn warnings(&self, tunnel: &Tunnel) -> Vec<ConfigProblem> {
        let name = &self.name;
        let mut warnings = Vec::new();
        if self.backends.is_empty() {
            let reason = format!("pool `{name}` has no backend: its services drop every packet");
            warnings.push(self.place.problem(reason));
        } else if self.backends.iter().all(|(backend, _)| backend.weight == 0) {
            let reason = format!("every weight of pool `{name}` is 0: its services take no new flow");
            warnings.push(self.place.problem(reason));
        }
        if !self.used {
            warnings.push(self.place.problem(format!("no service uses pool `{name}`")));
        }
        let no_entropy = self.backends.iter().find(|(backend, _)| {
            backend.mode == Mode::Ipip
                && match backend.address {
                    IpAddr::V4(_) => tunnel.source_v4.is_none(),
                    IpAddr::V6(_) => tunnel.source_v6.is_none(),
                }
        });
        if let Some((backend, value)) = no_entropy {
            let family = if backend.address.is_ipv4() { "v4" } else { "v6" };
            warnings.push(value.problem(format!(
                "without [tunnel] source_{family} all tunnels to a backend look alike, and its NIC handles \
                 them on one queue"
            )));
        }
        warnings
    }
}
