//! Numbers for what established flows must obey of a listener: while its number stands still, a flow that was
//! let in and sent to a backend once may go on without being looked at again.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;
use shunt_api::snapshot::{Backend, Mode, PortMapping, Service, ServicePort};

use crate::memo::VERSIONS;

/// Numbers given so far.
#[derive(Clone, Default)]
pub struct Versions {
    last: u32,
    listeners: HashMap<(String, ServicePort), (Essence, u32)>,
    /// All numbers of `listeners`.
    taken: HashSet<u32>,
    hasher: ahash::RandomState,
}

/// What the number stands for. Lists are kept as hashes of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Essence {
    vips: u64,
    sources: u64,
    backends: u64,
    affinity_s: Option<u32>,
    nat: Option<(u32, u32)>,
    target: Option<u16>,
}

/// Of a pool; see [`Versions::backends`].
#[derive(Clone, Copy)]
pub struct Backends {
    hash: u64,
    translated: bool,
}

impl Versions {
    /// Forgets ports that are gone; one that comes again gets another number.
    pub fn keep(&mut self, services: &[Service]) {
        let ports = |service: &'_ Service| service.ports.iter().map(|mapping| mapping.port).collect();
        let kept: HashMap<&str, HashSet<ServicePort>> =
            services.iter().map(|service| (service.name.as_str(), ports(service))).collect();
        self.listeners.retain(|(name, port), (_, version)| {
            let stays = kept.get(name.as_str()).is_some_and(|ports| ports.contains(port));
            if !stays {
                self.taken.remove(version);
            }
            stays
        });
    }

    /// The numbers of a service's ports, with these backends: from 1 to [`VERSIONS`] - 1, no two ports the same,
    /// another one than before if anything has changed. One that was given up comes again after about a million
    /// changes. `nat` are the sizes of the tables of translated flows, which begin anew when they change.
    pub fn of(&mut self, service: &Service, backends: Backends, nat: (u32, u32)) -> Vec<u32> {
        let common = Essence {
            vips: self.hash(service.vips.iter().collect::<Vec<&IpAddr>>()),
            sources: self.hash(service.source_ranges.iter().collect::<Vec<&IpNet>>()),
            backends: backends.hash,
            affinity_s: service.client_ip_affinity_s,
            nat: backends.translated.then_some(nat),
            target: None,
        };
        let of_port = |mapping: &PortMapping| {
            let essence = Essence { target: mapping.target, ..common };
            self.of_port((service.name.clone(), mapping.port), essence)
        };
        service.ports.iter().map(of_port).collect()
    }

    /// What [`Self::of`] has to know of the backends of a pool, which many services may share.
    pub fn backends(&self, backends: &[Backend]) -> Backends {
        let ways = backends.iter().map(|backend| (backend.address, backend.mode as u8));
        let translated = backends.iter().any(|backend| backend.mode == Mode::Nat);
        Backends { hash: self.hash(ways.collect::<Vec<_>>()), translated }
    }

    fn of_port(&mut self, key: (String, ServicePort), essence: Essence) -> u32 {
        if let Some((known, version)) = self.listeners.get(&key)
            && *known == essence
        {
            return *version;
        }
        // There are fewer listeners than numbers, so some number is free.
        loop {
            self.last = self.last % (VERSIONS - 1) + 1;
            if self.taken.insert(self.last) {
                break;
            }
        }
        if let Some((_, given_up)) = self.listeners.insert(key, (essence, self.last)) {
            self.taken.remove(&given_up);
        }
        self.last
    }

    fn hash(&self, mut list: Vec<impl Hash + Ord>) -> u64 {
        list.sort_unstable();
        self.hasher.hash_one(list)
    }
}

#[cfg(test)]
mod tests;
