//! From a snapshot to a table: checks it whole, gives backends their identities and builds Maglev tables,
//! reusing those whose backends did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ahash::{HashMap, HashSet};
use shunt_api::config::is_maglev_size;
use shunt_api::snapshot::{self, FleetKey, ServicePort, Snapshot};

use super::{Member, NOT_A_MEMBER, Pool, Table, idle_limits};
use crate::conntrack::BackendId;
use crate::flow::SlotHasher;
use crate::limits;
use crate::maglev::{Candidate, Maglev};

/// Why a snapshot cannot be served. The control plane checks the same before it sends one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TableError {
    /// A service points beyond the pools.
    #[error(
        "service `{service}` names pool number {pool}, but there are only {pools}; are both daemons of one version?"
    )]
    NoSuchPool {
        /// Name of the service.
        service: String,
        /// Index it gave.
        pool: u32,
        /// How many there are.
        pools: usize,
    },
    /// Two services claim one address and port.
    #[error(
        "{vip} {port} belongs to service `{first}` and to `{second}`; give one of them another address or port"
    )]
    Taken {
        /// Address claimed twice.
        vip: IpAddr,
        /// Port claimed twice.
        port: ServicePort,
        /// Who had it.
        first: String,
        /// Who wants it.
        second: String,
    },
    /// One address twice in a pool.
    #[error(
        "pool `{pool}` has backend address {address} twice; an address is a backend's identity: remove one"
    )]
    DuplicateBackend {
        /// Name of the pool.
        pool: String,
        /// The address.
        address: IpAddr,
    },
    /// More backends than Maglev slots can tell apart.
    #[error(
        "pool `{pool}` has {count} backends; split it, at most {} are possible",
        limits::MAX_POOL_BACKENDS
    )]
    TooManyBackends {
        /// Name of the pool.
        pool: String,
        /// How many it has.
        count: usize,
    },
    /// The table size is no prime in range.
    #[error("maglev_size {0} is not a prime in 251…655373; 65537 is the usual one")]
    MaglevSize(u32),
    /// More backend addresses than flow entries can name.
    #[error("more than {} backend addresses have been in use; restart shunt-dataplane", BackendId::LIMIT)]
    OutOfIdentities,
}

type MaglevKey = (u32, Vec<(IpAddr, u16)>);

/// Keeps from one snapshot to the next what must stay the same: identities of backends and Maglev tables.
#[derive(Debug, Default)]
pub struct Compiler {
    ids: BTreeMap<IpAddr, BackendId>,
    fleet_key: Option<FleetKey>,
    maglevs: HashMap<MaglevKey, Arc<Maglev>>,
}

impl Compiler {
    /// Compiles a snapshot. On an error nothing has changed but identities that are not used.
    pub fn compile(&mut self, snapshot: &Snapshot) -> Result<Table, TableError> {
        if !is_maglev_size(snapshot.maglev_size) {
            return Err(TableError::MaglevSize(snapshot.maglev_size));
        }
        let (services, vips) = services(snapshot)?;
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
        self.fleet_key = Some(snapshot.fleet_key);
        Ok(Table {
            generation: snapshot.generation,
            idle_limits: idle_limits(&snapshot.timeouts),
            tunnel: snapshot.tunnel,
            hasher,
            addresses: self.addresses(&pools),
            services,
            vips,
            pools,
        })
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

type Services = (HashMap<(IpAddr, ServicePort), u32>, HashSet<IpAddr>);

fn services(snapshot: &Snapshot) -> Result<Services, TableError> {
    let mut owners: HashMap<(IpAddr, ServicePort), &str> = HashMap::default();
    let mut services = HashMap::default();
    let mut vips = HashSet::default();
    for service in &snapshot.services {
        let pools = snapshot.pools.len();
        if service.pool as usize >= pools {
            return Err(TableError::NoSuchPool { service: service.name.clone(), pool: service.pool, pools });
        }
        for (&vip, &port) in
            service.vips.iter().flat_map(|vip| service.ports.iter().map(move |port| (vip, port)))
        {
            if let Some(first) = owners.insert((vip, port), &service.name) {
                let (first, second) = (first.to_owned(), service.name.clone());
                return Err(TableError::Taken { vip, port, first, second });
            }
            services.insert((vip, port), service.pool);
            vips.insert(vip);
        }
    }
    Ok((services, vips))
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
mod tests {
    use shunt_api::snapshot::Mode::{Dr, Ipip};

    use super::*;
    use crate::testing::snapshot;

    #[test]
    fn order_of_the_configuration_never_matters() {
        let backends = ["10.0.0.3", "10.0.0.1", "fd00::1", "10.0.0.2"].map(|address| (address, 1, Dr));
        let mut reversed = backends;
        reversed.reverse();
        let one = Compiler::default().compile(&snapshot(&[&backends], &[])).unwrap();
        let other = Compiler::default().compile(&snapshot(&[&reversed], &[])).unwrap();
        assert_eq!(one.pools[0].maglev, other.pools[0].maglev);
        let addresses = |table: &Table| table.pools[0].members.iter().map(|m| m.address).collect::<Vec<_>>();
        assert_eq!(addresses(&one), addresses(&other));
    }

    #[test]
    fn pools_with_the_same_backends_share_a_table_and_unchanged_ones_keep_it() {
        let mut compiler = Compiler::default();
        let set = [("10.0.0.1", 1, Dr), ("10.0.0.2", 2, Dr)];
        let ipip = [("10.0.0.1", 1, Ipip), ("10.0.0.2", 2, Dr)];
        let first = compiler.compile(&snapshot(&[&set, &ipip], &[])).unwrap();
        assert!(Arc::ptr_eq(&first.pools[0].maglev, &first.pools[1].maglev));
        let second = compiler.compile(&snapshot(&[&[], &set], &[])).unwrap();
        assert!(Arc::ptr_eq(&first.pools[0].maglev, &second.pools[1].maglev));
    }

    #[test]
    fn an_identity_survives_a_backend_that_goes_and_comes_back() {
        let mut compiler = Compiler::default();
        let both = [("10.0.0.1", 1, Dr), ("10.0.0.2", 1, Dr)];
        let first = compiler.compile(&snapshot(&[&both], &[])).unwrap();
        let id = first.pools[0].members[1].backend;
        let without = compiler.compile(&snapshot(&[&both[..1]], &[])).unwrap();
        assert_eq!((without.address(id), without.pools[0].member_of(id)), (None, None));
        let again = compiler.compile(&snapshot(&[&both], &[])).unwrap();
        assert_eq!(again.pools[0].member_of(id), Some(1));
        assert_eq!(again.address(id), Some("10.0.0.2".parse().unwrap()));
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let mut compiler = Compiler::default();
        let twice = [("10.0.0.1", 1, Dr), ("10.0.0.1", 2, Dr)];
        let mut size = snapshot(&[], &[]);
        size.maglev_size = 65_536;
        let cases = [
            (snapshot(&[], &[("192.0.2.1", "tcp/80", 0)]), "names pool number 0"),
            (
                snapshot(&[&[]], &[("192.0.2.1", "tcp/80", 0), ("192.0.2.1", "tcp/80", 0)]),
                "belongs to service",
            ),
            (snapshot(&[&twice], &[]), "10.0.0.1 twice"),
            (size, "65536 is not a prime"),
        ];
        for (snapshot, expected) in cases {
            let error = compiler.compile(&snapshot).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn headroom_follows_the_largest_tunnel_header_of_a_vip() {
        let dr = [("10.0.0.1", 1, Dr)];
        let mixed = [("10.0.0.1", 1, Dr), ("10.0.0.2", 1, Ipip)];
        let six = [("fd00::2", 1, Ipip)];
        let services = [
            ("192.0.2.1", "tcp/80", 0),
            ("192.0.2.2", "tcp/80", 0),
            ("192.0.2.2", "udp/53", 1),
            ("192.0.2.3", "tcp/1", 2),
            ("192.0.2.3", "tcp/2", 1),
        ];
        let table = Compiler::default().compile(&snapshot(&[&dr, &mixed, &six], &services)).unwrap();
        let headrooms: Vec<u32> = table.owned().into_values().collect();
        assert_eq!(headrooms, [0, 20, 40]);
    }
}
