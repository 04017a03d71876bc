//! From a snapshot to a table: checks it whole, gives backends their identities and builds Maglev tables,
//! reusing those whose backends did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ahash::HashMap;
use shunt_api::config::is_maglev_size;
use shunt_api::snapshot::{self, FleetKey, Mode, ServicePort, Snapshot};

use super::version::{Backends, Versions};
use super::{
    Affinity, Listener, Member, NOT_A_MEMBER, Owned, Permit, Pool, Ranges, Table, TableError, idle_limits,
};
use crate::conntrack::{BackendId, kept_s};
use crate::flow::{FlowKey, FlowKey4, FlowKey6, SlotHasher, Tuple};
use crate::index::Index;
use crate::limits;
use crate::maglev::{Candidate, Maglev};
use crate::nat::{Nat, NatTables, SourceId};

type MaglevKey = (u32, Vec<(IpAddr, u16)>);

/// Keeps from one snapshot to the next what must stay the same: identities of backends, translated flows and
/// Maglev tables.
#[derive(Clone, Default)]
pub struct Compiler {
    ids: BTreeMap<IpAddr, BackendId>,
    sources: BTreeMap<IpAddr, SourceId>,
    /// Numbers of services with affinity, by name.
    services: BTreeMap<String, u32>,
    versions: Versions,
    permits: Option<Arc<[Permit]>>,
    nat: Option<((u32, u32), Arc<NatTables>)>,
    fleet_key: Option<FleetKey>,
    maglevs: HashMap<MaglevKey, Arc<Maglev>>,
    /// Of the tables that this process alone reads.
    seed: Option<ahash::RandomState>,
}

impl Compiler {
    /// A compiler whose tables are the same in every run.
    pub fn with_seed(seed: ahash::RandomState) -> Self {
        Self { seed: Some(seed), ..Self::default() }
    }

    /// Compiles a snapshot. On an error nothing has changed but identities and versions
    /// that are not used.
    pub fn compile(&mut self, snapshot: &Snapshot) -> Result<Table, TableError> {
        if !is_maglev_size(snapshot.maglev_size) {
            return Err(TableError::MaglevSize(snapshot.maglev_size));
        }
        check_nat(snapshot)?;
        let Listeners { by_port, listeners, owned } = self.listeners(snapshot)?;
        let seed = self.seed.clone().unwrap_or_default();
        let hasher = SlotHasher::new(&snapshot.fleet_key);
        let same_key = self.fleet_key == Some(snapshot.fleet_key);
        let mut maglevs = HashMap::default();
        let mut pools = Vec::with_capacity(snapshot.pools.len());
        for pool in &snapshot.pools {
            let members = self.members(pool)?;
            let key = (snapshot.maglev_size, weights(pool));
            let known = self.maglevs.get(&key).filter(|_| same_key).cloned();
            let build = || known.unwrap_or_else(|| Arc::new(build(&hasher, &key)));
            let maglev = maglevs.entry(key.clone()).or_insert_with(build).clone();
            pools.push(Pool { maglev, member_of: member_of(&members), members });
        }
        self.maglevs = maglevs;
        self.versions.keep(&snapshot.services);
        self.fleet_key = Some(snapshot.fleet_key);
        let longest_s = listeners.iter().filter_map(|listener| Some(listener.affinity?.timeout_s)).max();
        Ok(Table {
            generation: snapshot.generation,
            idle_limits: idle_limits(&snapshot.timeouts, longest_s.unwrap_or(0)),
            tunnel: snapshot.tunnel,
            reply_rate: snapshot.reply_rate,
            nat: self.nat(&snapshot.nat)?,
            hasher,
            addresses: self.addresses(&pools),
            tunnelled: tunnelled(&pools),
            services_v4: services(&by_port, &seed, |flow| match flow {
                FlowKey::V4(flow) => Some(FlowKey4::service_key(&flow.words())),
                FlowKey::V6(_) => None,
            }),
            services_v6: services(&by_port, &seed, |flow| match flow {
                FlowKey::V4(_) => None,
                FlowKey::V6(flow) => Some(FlowKey6::service_key(&flow.words())),
            }),
            permits: permits(&listeners, &mut self.permits),
            served: by_port.iter().map(|(&(vip, _), &at)| (vip, listeners[at as usize].pool)).collect(),
            listeners,
            owned,
            pools,
        })
    }

    /// Flows of each family that there is room for in the tables of translated flows; `None` if there are none.
    pub fn nat_sizes(&self) -> Option<(u32, u32)> {
        self.nat.as_ref().map(|(sizes, _)| *sizes)
    }

    fn listeners(&mut self, snapshot: &Snapshot) -> Result<Listeners, TableError> {
        let nat = (snapshot.nat.max_flows_v4, snapshot.nat.max_flows_v6);
        let of_pool = |pool: &snapshot::Pool| self.versions.backends(&pool.backends);
        let backends: Vec<Backends> = snapshot.pools.iter().map(of_pool).collect();
        let mut owners: HashMap<(IpAddr, ServicePort), &str> = HashMap::default();
        let mut made = Listeners::default();
        for &source in &snapshot.nat.sources {
            made.owned.insert(source, Owned::Source);
        }
        for service in &snapshot.services {
            let pools = snapshot.pools.len();
            if service.pool as usize >= pools {
                return Err(TableError::NoSuchPool {
                    service: service.name.clone(),
                    pool: service.pool,
                    pools,
                });
            }
            for &vip in &service.vips {
                if made.owned.insert(vip, Owned::Vip(service.unlisted_ports)) == Some(Owned::Source) {
                    return Err(TableError::SourceIsVip(vip));
                }
            }
            let members = backends[service.pool as usize];
            for (mapping, listener) in service.ports.iter().zip(self.listeners_of(service, members, nat)) {
                for key in service.vips.iter().map(|&vip| (vip, mapping.port)) {
                    if let Some(first) = owners.insert(key, &service.name) {
                        let ((vip, port), first) = (key, first.to_owned());
                        return Err(TableError::Taken { vip, port, first, second: service.name.clone() });
                    }
                    made.by_port.insert(key, made.listeners.len() as u32);
                }
                made.listeners.push(listener);
            }
        }
        Ok(made)
    }

    /// One for each port of a service.
    fn listeners_of(
        &mut self,
        service: &snapshot::Service,
        backends: Backends,
        nat: (u32, u32),
    ) -> Vec<Listener> {
        let sources =
            (!service.source_ranges.is_empty()).then(|| Arc::new(Ranges::new(&service.source_ranges)));
        let affinity = service.client_ip_affinity_s.map(|timeout_s| {
            let next = self.services.len() as u32;
            let service = *self.services.entry(service.name.clone()).or_insert(next);
            Affinity { service, timeout_s: kept_s(timeout_s) }
        });
        let versions = self.versions.of(service, backends, nat);
        let name: Arc<str> = service.name.as_str().into();
        let listener = |(mapping, version): (&snapshot::PortMapping, u32)| Listener {
            service: name.clone(),
            pool: service.pool,
            target: mapping.target.unwrap_or(mapping.port.port),
            affinity,
            version,
            fresh_s: affinity
                .map_or(u16::MAX, |affinity| (affinity.timeout_s / 64).min(u16::MAX.into()) as u16),
            sources: sources.clone(),
        };
        service.ports.iter().zip(versions).map(listener).collect()
    }

    /// Translation; its tables are made when it is first configured, and anew when their sizes change.
    fn nat(&mut self, nat: &snapshot::Nat) -> Result<Option<Nat>, TableError> {
        if nat.sources.is_empty() {
            return Ok(None);
        }
        let mut ids: [Vec<SourceId>; 2] = Default::default();
        for &source in &nat.sources {
            let next = SourceId(self.sources.len() as u16);
            if usize::from(next.0) >= SourceId::LIMIT && !self.sources.contains_key(&source) {
                return Err(TableError::OutOfSources);
            }
            let id = *self.sources.entry(source).or_insert(next);
            ids[usize::from(source.is_ipv6())].push(id);
        }
        let mut addresses = vec![None; self.sources.len()];
        for (&source, id) in self.sources.iter().filter(|(source, _)| nat.sources.contains(source)) {
            addresses[usize::from(id.0)] = Some(source);
        }
        let sizes = (nat.max_flows_v4, nat.max_flows_v6);
        let kept = self.nat.take().filter(|(kept, _)| *kept == sizes).map(|(_, tables)| tables);
        let tables = kept.unwrap_or_else(|| {
            let seed = self.seed.clone().unwrap_or_default();
            Arc::new(NatTables::new(sizes.0 as usize, sizes.1 as usize, &seed))
        });
        self.nat = Some((sizes, tables.clone()));
        let [v4, v6] = ids.map(Vec::into_boxed_slice);
        let seed = self.seed.clone().unwrap_or_default();
        Ok(Some(Nat::new(tables, v4, v6, addresses.into(), &seed)))
    }

    /// Members sorted by address: the order Maglev needs, whatever the order of the configuration.
    fn members(&mut self, pool: &snapshot::Pool) -> Result<Box<[Member]>, TableError> {
        let count = pool.backends.len();
        if count > limits::MAX_POOL_BACKENDS {
            return Err(TableError::TooManyBackends { pool: pool.name.clone(), count });
        }
        let mut members = BTreeMap::new();
        for backend in &pool.backends {
            let id = self.id(backend.address)?;
            let (address, mode, takes_new) = (backend.address, backend.mode, backend.weight > 0);
            let member = Member { backend: id, address, mode, takes_new };
            if members.insert(backend.address, member).is_some() {
                return Err(TableError::DuplicateBackend {
                    pool: pool.name.clone(),
                    address: backend.address,
                });
            }
        }
        Ok(members.into_values().collect())
    }

    /// An address keeps its identity for the life of the process, so that a flow's entry never comes to mean
    /// another backend.
    fn id(&mut self, address: IpAddr) -> Result<BackendId, TableError> {
        let next = BackendId(self.ids.len() as u32);
        if next.0 >= BackendId::LIMIT && !self.ids.contains_key(&address) {
            return Err(TableError::OutOfIdentities);
        }
        Ok(*self.ids.entry(address).or_insert(next))
    }

    fn addresses(&self, pools: &[Pool]) -> Box<[Option<IpAddr>]> {
        let used: BTreeSet<BackendId> =
            pools.iter().flat_map(|pool| pool.members.iter().map(|m| m.backend)).collect();
        let mut addresses = vec![None; used.last().map_or(0, |last| last.0 as usize + 1)];
        for (&address, id) in self.ids.iter().filter(|(_, id)| used.contains(id)) {
            addresses[id.0 as usize] = Some(address);
        }
        addresses.into()
    }
}

/// The ports whose flows have a key by `key`.
fn services<const W: usize>(
    by_port: &HashMap<(IpAddr, ServicePort), u32>,
    seed: &ahash::RandomState,
    key: impl Fn(&FlowKey) -> Option<[u64; W]>,
) -> Index<W> {
    let keyed = |(&(vip, port), &listener): (&(IpAddr, ServicePort), &u32)| {
        let flow = FlowKey::new((vip, 0), (vip, port.port), port.protocol)?;
        Some((key(&flow)?, listener))
    };
    Index::new(&by_port.iter().filter_map(keyed).collect::<Vec<_>>(), seed)
}

/// By version; see [`Permit`].
fn permits(listeners: &[Listener], before: &mut Option<Arc<[Permit]>>) -> Arc<[Permit]> {
    let limit = listeners.iter().map(|listener| listener.version as usize + 1).max().unwrap_or(0);
    let mut permits = vec![Permit::default(); limit];
    for listener in listeners {
        let known_for_s = listener.fresh_s.saturating_add(1);
        permits[listener.version as usize] = Permit { known_for_s, target: listener.target };
    }
    // Equal ones the workers have in their caches.
    match before {
        Some(before) if **before == *permits => before.clone(),
        _ => before.insert(permits.into()).clone(),
    }
}

/// What serves which port, and the addresses that it is on.
#[derive(Default)]
struct Listeners {
    by_port: HashMap<(IpAddr, ServicePort), u32>,
    listeners: Vec<Listener>,
    owned: HashMap<IpAddr, Owned>,
}

/// Translated services can be.
fn check_nat(snapshot: &Snapshot) -> Result<(), TableError> {
    for service in &snapshot.services {
        let pool = snapshot.pools.get(service.pool as usize);
        let backends = pool.into_iter().flat_map(|pool| &pool.backends);
        let backends: Vec<IpAddr> = backends.filter(|b| b.mode == Mode::Nat).map(|b| b.address).collect();
        for &vip in service.vips.iter().filter(|_| !backends.is_empty()) {
            let service = service.name.clone();
            if let Some(&backend) = backends.iter().find(|backend| backend.is_ipv4() != vip.is_ipv4()) {
                return Err(TableError::Family { service, vip, backend });
            }
            if !snapshot.nat.sources.iter().any(|source| source.is_ipv4() == vip.is_ipv4()) {
                return Err(TableError::NoSource { service, vip });
            }
        }
    }
    Ok(())
}

fn tunnelled(pools: &[Pool]) -> HashMap<IpAddr, BackendId> {
    let members = pools.iter().flat_map(|pool| &pool.members);
    members
        .filter(|member| member.mode == Mode::Ipip)
        .map(|member| (member.address, member.backend))
        .collect()
}

/// What a Maglev table depends on besides key and size.
fn weights(pool: &snapshot::Pool) -> Vec<(IpAddr, u16)> {
    let mut weights: Vec<_> = pool.backends.iter().map(|backend| (backend.address, backend.weight)).collect();
    weights.sort_unstable();
    weights
}

fn build(hasher: &SlotHasher, (size, weights): &MaglevKey) -> Maglev {
    let candidates: Vec<_> = weights.iter().map(|&(address, weight)| Candidate { address, weight }).collect();
    Maglev::build(hasher, *size, &candidates)
}

fn member_of(members: &[Member]) -> Box<[u16]> {
    let limit = members.iter().map(|member| member.backend.0 as usize + 1).max().unwrap_or(0);
    let mut member_of = vec![NOT_A_MEMBER; limit];
    for (index, member) in members.iter().enumerate() {
        member_of[member.backend.0 as usize] = index as u16;
    }
    member_of.into()
}

#[cfg(test)]
mod tests;
