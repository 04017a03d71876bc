//! What the workers read: services, pools and next hops, immutable once published.
//!
//! [`Compiler`] turns snapshots into [`Table`]s on the control thread. Workers see a [`Forwarding`], swapped
//! as one pointer, so a table and its next hops always belong together. Nothing here does I/O.

mod compile;

pub use compile::{Compiler, TableError};

use std::net::IpAddr;
use std::sync::Arc;

use ahash::{HashMap, HashSet};
use shunt_api::counters::DropReason;
use shunt_api::snapshot::{Mode, ServicePort, TunnelSource};

use crate::conntrack::{BackendId, IdleLimits};
use crate::flow::{FlowKey, SlotHasher};
use crate::maglev::Maglev;
use crate::port::NicIndex;
use crate::rewrite::Link;

/// One consistent view for one batch.
#[derive(Debug)]
pub struct Forwarding {
    /// Grows with every publication, of tables and of next hops.
    pub sequence: u64,
    /// Services and pools.
    pub table: Arc<Table>,
    /// By `BackendId`.
    pub hops: Box<[Hop]>,
}

/// The way to a backend, or the reason its packets are dropped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Packets can leave.
    Open(OpenHop),
    /// Packets cannot leave.
    Closed(DropReason),
}

/// A way that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenHop {
    /// NIC to leave by.
    pub nic: NicIndex,
    /// Ethernet header to write.
    pub link: Link,
    /// No gateway in between: direct routing works.
    pub on_link: bool,
    /// The box's own address towards the backend, if it has one.
    pub source: Option<IpAddr>,
}

/// Services, pools and settings of one snapshot.
#[derive(Debug)]
pub struct Table {
    /// The snapshot's.
    pub generation: u64,
    /// Idle times by state of a flow.
    pub idle_limits: IdleLimits,
    /// Outer source addresses.
    pub tunnel: TunnelSource,
    hasher: SlotHasher,
    services: HashMap<(IpAddr, ServicePort), u32>,
    vips: HashSet<IpAddr>,
    pools: Vec<Pool>,
    addresses: Box<[Option<IpAddr>]>,
}

/// A set of backends as the workers see it.
#[derive(Debug)]
pub struct Pool {
    maglev: Arc<Maglev>,
    members: Box<[Member]>,
    /// By `BackendId`; `NOT_A_MEMBER` where it is none.
    member_of: Box<[u16]>,
}

/// A backend in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Identity, also the index of its next hop.
    pub backend: BackendId,
    /// Where tunnels end.
    pub address: IpAddr,
    /// How packets get there.
    pub mode: Mode,
    /// Whether it takes new flows: its weight is above 0.
    pub takes_new: bool,
}

const NOT_A_MEMBER: u16 = u16::MAX;

impl Table {
    /// The pool that serves a flow's VIP, protocol and port.
    pub fn pool_of(&self, flow: &FlowKey) -> Result<u32, DropReason> {
        let vip = flow.vip();
        match self.services.get(&(vip, flow.service_port())) {
            Some(&pool) => Ok(pool),
            None if self.vips.contains(&vip) => Err(DropReason::UnlistedPort),
            None => Err(DropReason::NotOurAddress),
        }
    }

    /// A pool by the index that [`Self::pool_of`] gave.
    pub fn pool(&self, index: u32) -> &Pool {
        &self.pools[index as usize]
    }

    /// The backend that Maglev alone chooses for a flow.
    pub fn choose(&self, pool: &Pool, flow: &FlowKey) -> Option<u16> {
        pool.maglev.choose(self.hasher.flow(flow))
    }

    /// The address behind an identity, if it is still configured.
    pub fn address(&self, backend: BackendId) -> Option<IpAddr> {
        self.addresses.get(backend.0 as usize).copied().flatten()
    }

    /// Configured backends by identity.
    pub fn backends(&self) -> impl Iterator<Item = (BackendId, IpAddr)> {
        let pairs = self.addresses.iter().enumerate();
        pairs.filter_map(|(id, address)| Some((BackendId(id as u32), (*address)?)))
    }

    /// One more than the largest identity in use.
    pub fn backend_limit(&self) -> usize {
        self.addresses.len()
    }

    /// Every VIP with the headroom its packets need for a tunnel header: 0, 20 or 40 bytes.
    pub fn owned(&self) -> std::collections::BTreeMap<IpAddr, u32> {
        let mut owned: std::collections::BTreeMap<_, _> = self.vips.iter().map(|&vip| (vip, 0)).collect();
        for (&(vip, _), &pool) in &self.services {
            let headroom = owned.entry(vip).or_default();
            *headroom = self.pool(pool).members.iter().map(headroom_for).fold(*headroom, u32::max);
        }
        owned
    }
}

fn headroom_for(member: &Member) -> u32 {
    match (member.mode, member.address) {
        (Mode::Dr, _) => 0,
        (Mode::Ipip, IpAddr::V4(_)) => crate::packet::ipv4::HEADER_LENGTH as u32,
        (Mode::Ipip, IpAddr::V6(_)) => crate::packet::ipv6::HEADER_LENGTH as u32,
    }
}

impl Pool {
    /// A member by its index.
    pub fn member(&self, index: u16) -> &Member {
        &self.members[usize::from(index)]
    }

    /// The index of a backend, if it belongs to this pool; draining backends do.
    pub fn member_of(&self, backend: BackendId) -> Option<u16> {
        let member = self.member_of.get(backend.0 as usize).copied();
        member.filter(|&member| member != NOT_A_MEMBER)
    }
}

/// Idle limits by state from the configured timeouts.
fn idle_limits(timeouts: &shunt_api::snapshot::Timeouts) -> IdleLimits {
    use crate::conntrack::State;
    let mut limits = [0; State::COUNT];
    limits[State::Unconfirmed as usize] = timeouts.unconfirmed_s;
    limits[State::Confirmed as usize] = timeouts.udp_s;
    limits[State::Established as usize] = timeouts.tcp_established_s;
    limits[State::Closing as usize] = timeouts.tcp_fin_s;
    limits[State::Reset as usize] = timeouts.tcp_reset_s;
    limits
}
