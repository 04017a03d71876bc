//! A configuration of many services, and changes to it.

use serde::Serialize;
use shunt_api::snapshot::{Backend, Pool, Protocol, Service, ServicePort, Snapshot};
use shunt_tests::error::Result;

use crate::stage::{self, Flow};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Each a port of a VIP.
    pub services: usize,
    /// Service n uses pool n modulo this.
    pub pools: usize,
    /// Of each pool; at most 250.
    pub backends: usize,
    /// Slots of a Maglev table.
    pub maglev_size: u32,
    /// Established flows.
    pub flows: usize,
}

/// Services of one VIP.
const PORTS: usize = 10;
/// First VIP.
const VIPS: u32 = 0xc612_0000;

/// What a new snapshot changes. It is made and taken back in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Nothing but its number.
    Nothing,
    /// A pool has one more backend.
    OnePool,
    /// A backend of every pool has more weight.
    AllWeights,
    /// Every pool has one more backend.
    AllPools,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::OnePool, Self::AllWeights, Self::AllPools];

    /// In tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::OnePool => "one pool's backends",
            Self::AllWeights => "all pools' weights",
            Self::AllPools => "all pools' backends",
        }
    }

    /// The snapshot with the change.
    pub fn made_to(self, snapshot: &Snapshot) -> Snapshot {
        let mut changed = snapshot.clone();
        let pools = changed.pools.iter_mut();
        match self {
            Self::Nothing => {}
            Self::OnePool => changed.pools[0].backends.push(backend(0, 250)),
            Self::AllWeights => pools.for_each(|pool| pool.backends[0].weight = 2),
            Self::AllPools => {
                pools.enumerate().for_each(|(at, pool)| pool.backends.push(backend(at, 250)));
            }
        }
        changed
    }
}

fn backend(pool: usize, number: usize) -> Backend {
    let address = [10, pool as u8, (pool >> 8) as u8, number as u8].into();
    Backend { name: format!("p{pool}b{number}"), address, weight: 1, mode: Default::default() }
}

/// The snapshot before any change. Filled in rather than read from a file of so many services: what that would leave
/// of free memory would hide how much a change needs.
pub fn snapshot(sizes: &Sizes) -> Result<Snapshot> {
    let mut snapshot = stage::snapshot(
        r#"
        nic = [{ name = "eth1" }]
        pools.p0.backends = [{ name = "p0b1", address = "10.0.0.1" }]
        service = [{ name = "s0", vip = "203.0.113.10", ports = "tcp/80", pool = "p0" }]
        "#,
    )?;
    let pool = |at| Pool {
        name: format!("p{at}"),
        backends: (1..=sizes.backends).map(|number| backend(at, number)).collect(),
    };
    snapshot.pools = (0..sizes.pools).map(pool).collect();
    let model = snapshot.services.remove(0);
    let service = |number: usize| {
        let Flow { vip, port, protocol, .. } = service(number);
        Service {
            name: format!("s{number}"),
            vips: vec![vip.into()],
            ports: vec![ServicePort { protocol, port }.into()],
            pool: (number % sizes.pools) as u32,
            ..model.clone()
        }
    };
    snapshot.services = (0..sizes.services).map(service).collect();
    snapshot.maglev_size = sizes.maglev_size;
    Ok(snapshot)
}

/// A flow of a service, of nobody.
pub fn service(number: usize) -> Flow {
    Flow {
        client: 0,
        client_port: 0,
        vip: (VIPS + (number / PORTS) as u32).to_be_bytes(),
        port: 8000 + (number % PORTS) as u16,
        protocol: Protocol::Tcp,
    }
}
