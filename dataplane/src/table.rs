//! What the workers read: services, pools and next hops, immutable once published.
//!
//! [`Compiler`] turns snapshots into [`Table`]s on the control thread. Workers see a [`Forwarding`], swapped
//! as one pointer, so a table and its next hops always belong together. Nothing here does I/O.

mod compile;
mod error;
mod exit;
mod ranges;
mod version;

pub use compile::Compiler;
pub use error::TableError;
pub use exit::Exit;
pub use ranges::Ranges;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::HashMap;
use shunt_api::counters::DropReason;
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::{Mode, Tunnel, UnlistedPorts};

use crate::conntrack::{BackendId, IdleLimits, State, fresh_s, kept_s};
use crate::flow::{FlowKey, FlowKey4, FlowKey6, SlotHasher, Tuple};
use crate::index::Index;
use crate::maglev::Maglev;
use crate::nat::Nat;
use crate::packet::transport::{FIN, RST, SYN};
use crate::port::NicIndex;
use crate::rewrite::Link;

/// One consistent view for one batch.
pub struct Forwarding {
    /// Grows with every publication, of tables and of next hops.
    pub sequence: u64,
    /// Services and pools.
    pub table: Arc<Table>,
    /// By `BackendId`.
    pub hops: Box<[Hop]>,
    /// By `NicIndex`: what replies to clients leave by.
    pub nics: Box<[NicLink]>,
    /// By `BackendId`: what `hops` come to for packets.
    pub exits: Arc<[Option<Exit>]>,
    /// By state of a flow: which of its packets leave no trace in it.
    pub quiet: [Quiet; State::BITS],
}

/// What a packet must be like to leave its flow's entry as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quiet {
    /// Less than so many seconds after the last one that was noted.
    pub known_for_s: u32,
    /// None of these TCP flags is set.
    pub moving: u8,
}

impl Forwarding {
    /// Number `sequence` of the views, made of these.
    pub fn new(sequence: u64, table: Arc<Table>, hops: Box<[Hop]>, nics: Box<[NicLink]>) -> Self {
        let exits = exit::exits(&table, &hops);
        let quiet = quiet(&table.idle_limits);
        Self { sequence, table, hops, nics, exits, quiet }
    }

    /// The same with the ways out of the view before where they are equal: those the workers have in their caches.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        if self.exits == before.exits {
            self.exits = before.exits.clone();
        }
        self
    }

    /// The way to a backend, or the reason its packets are dropped for.
    pub fn exit(&self, backend: BackendId) -> Result<&Exit, DropReason> {
        let id = backend.0 as usize;
        self.exits.get(id).and_then(Option::as_ref).ok_or_else(|| match self.hops.get(id) {
            Some(Hop::Closed(reason)) => *reason,
            Some(Hop::Open(_)) | None => DropReason::NeighborUnresolved,
        })
    }

    /// Whether tunnels to a backend have this outer source: where no prefix is configured, the box's own address
    /// towards it.
    pub fn tunnels_come_from(&self, source: IpAddr, backend: BackendId) -> bool {
        let prefix = match source {
            IpAddr::V4(_) => self.table.tunnel.source_v4.is_some(),
            IpAddr::V6(_) => self.table.tunnel.source_v6.is_some(),
        };
        let own = match self.hops.get(backend.0 as usize) {
            Some(Hop::Open(hop)) => hop.source,
            _ => None,
        };
        prefix || own == Some(source)
    }
}

fn quiet(limits: &IdleLimits) -> [Quiet; State::BITS] {
    let mut quiet = [Quiet::default(); State::BITS];
    for (state, moving) in
        [(State::Confirmed, 0), (State::Established, FIN | RST), (State::Closing, SYN | RST)]
    {
        let known_for_s = fresh_s(limits[state as usize]) + 1;
        quiet[state as usize] = Quiet { known_for_s, moving };
    }
    quiet
}

/// A NIC as far as sending through it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicLink {
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Bytes of IP packet that fit.
    pub mtu: u32,
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
pub struct Table {
    /// The snapshot's.
    pub generation: u64,
    /// Idle times by state of a flow.
    pub idle_limits: IdleLimits,
    /// How tunnels are made.
    pub tunnel: Tunnel,
    /// Most answers of each kind per second and worker.
    pub reply_rate: u32,
    /// Translation, if any source address is configured.
    pub nat: Option<Nat>,
    hasher: SlotHasher,
    services_v4: Index<1>,
    services_v6: Index<3>,
    /// By [`Listener::version`].
    permits: Arc<[Permit]>,
    listeners: Vec<Listener>,
    /// Each VIP with each pool that serves it, once or more often.
    served: Vec<(IpAddr, u32)>,
    owned: HashMap<IpAddr, Owned>,
    pools: Vec<Pool>,
    addresses: Box<[Option<IpAddr>]>,
    /// Backends that are tunnelled to.
    tunnelled: HashMap<IpAddr, BackendId>,
}

/// What serves a port of a service's VIPs.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Name of the service.
    pub service: Arc<str>,
    /// Index of the pool.
    pub pool: u32,
    /// Port that `nat` backends listen on.
    pub target: u16,
    /// Whether a client keeps its backend.
    pub affinity: Option<Affinity>,
    /// Another number whenever something changes that established flows must obey: who may come, which backends
    /// there are and how packets get there. What was found out under one version needs no second look.
    pub version: u32,
    /// Seconds for which a touched flow need not be touched again, however long its idle time.
    pub fresh_s: u16,
    sources: Option<Arc<Ranges>>,
}

/// What packets of established flows are let through by: under one version of a listener, as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// Seconds before which a touched flow need not be touched again; 0 if no listener has this version.
    pub known_for_s: u16,
    /// The listener's; see [`Listener::target`].
    pub target: u16,
}

/// Client-IP affinity of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Number of the service for the life of the process.
    pub service: u32,
    /// Seconds after a client's last packet for which it keeps its backend.
    pub timeout_s: u32,
}

/// What an address of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    /// Of services; with what other ports get.
    Vip(UnlistedPorts),
    /// Translated flows come from it.
    Source,
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

impl Listener {
    /// Whether it lets in some clients only.
    pub fn is_restricted(&self) -> bool {
        self.sources.is_some()
    }

    /// Whether a client may use the service.
    pub fn allows(&self, client: IpAddr) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.contains(client))
    }
}

impl Table {
    /// Index of what serves a flow's VIP, protocol and port.
    pub fn listener_of(&self, flow: &FlowKey) -> Option<u32> {
        match flow {
            FlowKey::V4(flow) => self.services_v4.find(&FlowKey4::service_key(&flow.words())),
            FlowKey::V6(flow) => self.services_v6.find(&FlowKey6::service_key(&flow.words())),
        }
    }

    /// What packets of flows that were let in under a version are let through by.
    #[inline(always)]
    pub fn permit(&self, version: u32) -> Option<&Permit> {
        self.permits.get(version as usize)
    }

    /// A listener by the index that [`Self::listener_of`] gave.
    pub fn listener(&self, index: u32) -> &Listener {
        &self.listeners[index as usize]
    }

    /// A pool by its index.
    pub fn pool(&self, index: u32) -> &Pool {
        &self.pools[index as usize]
    }

    /// What an address is; `None` if it is not (or no longer) ours.
    pub fn owned_as(&self, address: IpAddr) -> Option<Owned> {
        self.owned.get(&address).copied()
    }

    /// The backend that Maglev alone chooses for a flow, or, with affinity, for all flows of its client.
    pub fn choose(&self, listener: &Listener, flow: &FlowKey) -> Option<u16> {
        self.pool(listener.pool).maglev.choose(self.slot_hash(listener, flow))
    }

    /// The slot of the Maglev table that a flow, or with affinity its client, falls into, and how many there are;
    /// `None` if no backend takes new flows.
    pub fn slot(&self, listener: &Listener, flow: &FlowKey) -> Option<(u32, u32)> {
        self.pool(listener.pool).maglev.slot(self.slot_hash(listener, flow))
    }

    fn slot_hash(&self, listener: &Listener, flow: &FlowKey) -> u64 {
        match listener.affinity {
            None => self.hasher.flow(flow),
            Some(_) => self.hasher.client(flow.client()),
        }
    }

    /// The backend that tunnels from `source` to `backend` belong to, if there are any. The source is checked
    /// where a prefix is configured; else it is an address of the box. Tunnels never come from a VIP, to which
    /// anyone can send a forged error.
    pub fn tunnelled(&self, source: IpAddr, backend: IpAddr) -> Option<BackendId> {
        let in_prefix = match source {
            IpAddr::V4(source) => self.tunnel.source_v4.is_none_or(|prefix| prefix.contains(&source)),
            IpAddr::V6(source) => self.tunnel.source_v6.is_none_or(|prefix| prefix.contains(&source)),
        };
        let ours = in_prefix && self.owned_as(source).is_none();
        self.tunnelled.get(&backend).copied().filter(|_| ours)
    }

    /// Whether any backend is tunnelled to.
    pub fn has_tunnels(&self) -> bool {
        !self.tunnelled.is_empty()
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

    /// Every address of ours with the headroom its packets need for a tunnel header: 0, 20 or 40 bytes.
    pub fn owned(&self) -> BTreeMap<IpAddr, u32> {
        let needed = |pool: &Pool| pool.members.iter().map(headroom_for).max().unwrap_or(0);
        let by_pool: Vec<u32> = self.pools.iter().map(needed).collect();
        let mut owned: BTreeMap<_, _> = self.owned.keys().map(|&address| (address, 0)).collect();
        for (vip, pool) in &self.served {
            let headroom = owned.entry(*vip).or_default();
            *headroom = (*headroom).max(by_pool[*pool as usize]);
        }
        owned
    }
}

fn headroom_for(member: &Member) -> u32 {
    match (member.mode, member.address) {
        (Mode::Dr | Mode::Nat, _) => 0,
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

/// Idle limits by state from the configured timeouts; `affinity_s` is the longest of all services.
fn idle_limits(timeouts: &shunt_api::snapshot::Timeouts, affinity_s: u32) -> IdleLimits {
    let mut limits = [0; State::COUNT];
    limits[State::Unconfirmed as usize] = kept_s(timeouts.unconfirmed_s);
    limits[State::Confirmed as usize] = kept_s(timeouts.udp_s);
    limits[State::Established as usize] = kept_s(timeouts.tcp_established_s);
    limits[State::Closing as usize] = kept_s(timeouts.tcp_fin_s);
    limits[State::Reset as usize] = kept_s(timeouts.tcp_reset_s);
    limits[State::Affinity as usize] = affinity_s;
    limits
}
