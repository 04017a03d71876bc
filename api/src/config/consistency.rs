//! What must hold between the parts of a configuration: names that are unique or must exist, listeners that
//! no two services share, backends that are no VIP. Values are kept with their places, so that a problem can
//! point at one and name the other.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::net::IpAddr;

use super::document::{Value, nearest};
use super::{Backend, Pool};
use crate::snapshot::{Mode, ServicePort, TunnelSource};
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

/// Who listens where.
#[derive(Default)]
pub struct Listeners {
    services: HashMap<(IpAddr, ServicePort), String>,
    vips: HashMap<IpAddr, String>,
}

impl Listeners {
    /// Enters a service, or points at the VIP that another service has on the same port.
    pub fn insert(
        &mut self,
        service: &str,
        vips: &[(IpAddr, Value<'_>)],
        ports: &[(ServicePort, Value<'_>)],
    ) -> Result<(), ConfigProblem> {
        for (vip, value) in vips {
            self.vips.entry(*vip).or_insert_with(|| service.to_owned());
            for (port, _) in ports {
                if let Some(other) = self.services.insert((*vip, *port), service.to_owned()) {
                    return Err(value.problem(format!(
                        "{vip} {port} already belongs to service `{other}`; use another address or port"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// The pools read so far, with what is needed to point at them.
#[derive(Default)]
pub struct Pools<'d> {
    pools: Vec<Read<'d>>,
    by_name: BTreeMap<String, usize>,
}

struct Read<'d> {
    name: String,
    place: Value<'d>,
    backends: Vec<(Backend, Value<'d>)>,
    used: bool,
}

impl<'d> Pools<'d> {
    /// Adds a pool; TOML itself refuses the same key twice. `place` is where to point for the whole pool.
    pub fn insert(&mut self, name: String, place: Value<'d>, backends: Vec<(Backend, Value<'d>)>) {
        self.by_name.insert(name.clone(), self.pools.len());
        self.pools.push(Read { name, place, backends, used: false });
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
            if let Some(service) = listeners.vips.get(&backend.address) {
                return Err(value.problem(format!(
                    "{} is a VIP of service `{service}`; write the backend's own address",
                    backend.address
                )));
            }
        }
        Ok(())
    }

    /// What is allowed but hardly meant.
    pub fn warnings(&self, tunnel: &TunnelSource) -> Vec<ConfigProblem> {
        self.pools.iter().flat_map(|pool| pool.warnings(tunnel)).collect()
    }

    /// The pools without their places.
    pub fn into_pools(self) -> Vec<Pool> {
        let pool = |read: Read<'_>| Pool {
            name: read.name,
            backends: read.backends.into_iter().map(|(backend, _)| backend).collect(),
        };
        self.pools.into_iter().map(pool).collect()
    }
}

impl Read<'_> {
    fn warnings(&self, tunnel: &TunnelSource) -> Vec<ConfigProblem> {
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
                    IpAddr::V4(_) => tunnel.v4.is_none(),
                    IpAddr::V6(_) => tunnel.v6.is_none(),
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
