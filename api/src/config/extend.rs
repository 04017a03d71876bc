//! Pools and services from elsewhere, such as a cluster, beside those of the file. What contradicts the file, or what
//! came before it, is left out with the reason, and all else is served: nobody can mend a cluster by editing a file.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::{Config, POOLS_MAX, PROBES_MAX, Pool, SERVICES_MAX, Service, Targets};
use crate::snapshot::{Mode, ServicePort};

/// What is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeftOut {
    /// What kind of thing.
    pub part: Part,
    /// The name of the service, or of the pool.
    pub name: String,
    /// Why, and what to do.
    pub reason: String,
}

/// Services and pools may be left out in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// A service, wholly.
    Service,
    /// The check of a pool: its services are served.
    Check,
    /// A backend of a pool: its services are served by the others.
    Backend,
}

/// What is taken already, and by whom.
struct Taken<'c> {
    /// Names of services by what clients can reach.
    endpoints: HashMap<(IpAddr, ServicePort), String>,
    services: HashSet<String>,
    backends: HashSet<IpAddr>,
    vips: HashSet<IpAddr>,
    config: &'c Config,
}

impl Config {
    /// With these services and the pools that they point at, by index. Pools of services that are left out stay away.
    ///
    /// The result is valid as one that was parsed is, but that an added pool may have more backends than its Maglev
    /// table has slots.
    pub fn extended(&self, pools: &[Pool], services: &[Service]) -> (Self, Vec<LeftOut>) {
        let mut extended = self.clone();
        let mut left_out = Vec::new();
        let mut taken = Taken::by(self);
        // Where the pools that are used went.
        let mut places: HashMap<usize, usize> = HashMap::new();
        for service in services {
            let is_new = !places.contains_key(&service.pool);
            let full = extended.services.len() == SERVICES_MAX
                || extended.pools.len() + usize::from(is_new) > POOLS_MAX;
            let obstacle = if full {
                Some(format!(
                    "there is room for {SERVICES_MAX} services and {POOLS_MAX} pools; let another box serve it"
                ))
            } else {
                taken.obstacle(service, is_new.then_some(&pools[service.pool]))
            };
            if let Some(reason) = obstacle {
                left_out.push(LeftOut { part: Part::Service, name: service.name.clone(), reason });
                continue;
            }
            let place = *places.entry(service.pool).or_insert_with(|| {
                extended.pools.push(taken.usable(service, &pools[service.pool], &mut left_out));
                extended.pools.len() - 1
            });
            taken.take(service, is_new.then(|| &extended.pools[place]));
            extended.services.push(Service { pool: place, ..service.clone() });
        }
        extended.limit_probes(self.pools.len(), &mut left_out);
        (extended, left_out)
    }

    /// Takes checks of pools from `first` on away until there are no more probes than a box makes: those that matter to
    /// the fewest services first, so that what many have in common goes last; of these those with most probes, and then
    /// those that came last.
    fn limit_probes(&mut self, first: usize, left_out: &mut Vec<LeftOut>) {
        // Most of the time far fewer, and then they need not be compared with each other.
        if self.probes_at_most() <= PROBES_MAX {
            return;
        }
        let Targets { targets, backends } = self.targets();
        let mut asked: Vec<Vec<usize>> = vec![Vec::new(); self.pools.len()];
        backends.into_iter().for_each(|of| asked[of.pool].extend(of.targets));
        // By how many backends of pools each is asked for.
        let mut askers = vec![0_usize; targets.len()];
        asked.iter().flatten().for_each(|target| askers[*target] += 1);
        let mut users = vec![0_usize; self.pools.len()];
        self.services.iter().for_each(|service| users[service.pool] += 1);
        let mut order: Vec<usize> = (first..self.pools.len()).collect();
        order.sort_by_key(|pool| (users[*pool], Reverse((asked[*pool].len(), *pool))));
        let mut probes = targets.len();
        for index in order {
            if probes <= PROBES_MAX {
                return;
            }
            let pool = &mut self.pools[index];
            if pool.check.take().is_none() {
                continue;
            }
            for target in &asked[index] {
                askers[*target] -= 1;
                probes -= usize::from(askers[*target] == 0);
            }
            let reason =
                format!("its backends are not checked: there would be more than {PROBES_MAX} probes");
            left_out.push(LeftOut { part: Part::Check, name: pool.name.clone(), reason });
        }
    }
}

impl<'c> Taken<'c> {
    fn by(config: &'c Config) -> Self {
        let mut taken = Self {
            endpoints: HashMap::new(),
            services: HashSet::new(),
            backends: HashSet::new(),
            vips: HashSet::new(),
            config,
        };
        // Backends of pools that nobody uses are no VIPs either.
        for pool in &config.pools {
            taken.backends.extend(pool.backends.iter().map(|backend| backend.address));
        }
        for service in &config.services {
            taken.take(service, None);
        }
        taken
    }

    fn take(&mut self, service: &Service, new_pool: Option<&Pool>) {
        self.services.insert(service.name.clone());
        self.vips.extend(&service.vips);
        let backends = new_pool.into_iter().flat_map(|pool| &pool.backends);
        self.backends.extend(backends.map(|backend| backend.address));
        for vip in &service.vips {
            for mapping in &service.ports {
                self.endpoints.insert((*vip, mapping.port), service.name.clone());
            }
        }
    }

    /// A pool as a service can use it first: one bad backend is no reason to do without the others. Those of a pool that
    /// is not new are known, and no VIP was taken that is one of them.
    fn usable(&self, service: &Service, pool: &Pool, left_out: &mut Vec<LeftOut>) -> Pool {
        let is_usable = |address: &IpAddr| {
            let vip = self.vips.contains(address) || service.vips.contains(address);
            !vip && !self.config.nat.sources.contains(address)
        };
        let (usable, others): (Vec<_>, Vec<_>) =
            pool.backends.iter().cloned().partition(|backend| is_usable(&backend.address));
        left_out.extend(others.into_iter().map(|backend| LeftOut {
            part: Part::Backend,
            name: pool.name.clone(),
            reason: format!(
                "backend {} has {}, which is a VIP or a NAT source, and gets no traffic; give one of the two another \
                 address",
                backend.name, backend.address
            ),
        }));
        Pool { backends: usable, ..pool.clone() }
    }

    fn obstacle(&self, service: &Service, new_pool: Option<&Pool>) -> Option<String> {
        if self.services.contains(&service.name) {
            return Some("there is another service of this name".into());
        }
        let sources = &self.config.nat.sources;
        for vip in &service.vips {
            if self.backends.contains(vip) || sources.contains(vip) {
                return Some(format!(
                    "{vip} is a backend or a NAT source; take it out of the pools of addresses"
                ));
            }
            let ports = service.ports.iter();
            let other = ports
                .filter_map(|mapping| Some((mapping, self.endpoints.get(&(*vip, mapping.port))?)))
                .next();
            if let Some((mapping, other)) = other {
                return Some(format!("{vip} {} is served for {other} already", mapping.port));
            }
        }
        let translated = new_pool.into_iter().flat_map(|pool| &pool.backends);
        let mut translated = translated.filter(|backend| backend.mode == Mode::Nat);
        let has_source = |address: IpAddr| sources.iter().any(|source| source.is_ipv4() == address.is_ipv4());
        if translated.any(|backend| !has_source(backend.address)) {
            return Some("its mode is nat, and nat.sources has no address of its family; add one".into());
        }
        None
    }
}

#[cfg(test)]
mod tests;
