//! The decision: from a parsed packet to a [`Verdict`]. No I/O, no clock, no log; the only thing it changes
//! is the flow table. Called by the worker for every packet that parsed.

use shunt_api::counters::DropReason;
use shunt_api::snapshot::Protocol;

use crate::conntrack::{BackendId, Control, FlowTable, Hit, Inserted, Places, Seconds, State};
use crate::flow::FlowKey;
use crate::packet::Packet;
use crate::packet::transport::{FIN, RST, SYN};
use crate::table::{Pool, Table};

/// Both flow tables.
pub struct FlowTables {
    /// IPv4
    pub v4: FlowTable<2>,
    /// IPv6
    pub v6: FlowTable<5>,
}

impl FlowTables {
    /// Sized for so many flows of each family.
    pub fn new(flows_v4: usize, flows_v6: usize) -> Self {
        let seed = ahash::RandomState::new();
        Self { v4: FlowTable::new(flows_v4, seed.clone()), v6: FlowTable::new(flows_v6, seed) }
    }
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To a member of a pool, both by index into the table that decided.
    Forward {
        /// Index of the pool.
        pool: u32,
        /// Index of the member.
        member: u16,
    },
    /// Nowhere.
    Drop(DropReason),
}

/// What the flow table had to do with it, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowOutcome {
    /// Not asked: dropped before, or a packet that makes no flow.
    None,
    /// Followed an entry.
    Hit,
    /// Followed an entry and made it safe from eviction.
    Confirmed,
    /// Entered.
    Created,
    /// Entered in place of an unconfirmed flow.
    CreatedEvicting,
    /// Had an entry, but chose anew: its backend is gone, it was idle for too long, or a new connection reuses
    /// the tuple of one on a backend that drains.
    Rehashed,
    /// No room: served by Maglev alone.
    TableFull,
}

/// A verdict and how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// What the flow table had to do with it.
    pub outcome: FlowOutcome,
    /// A TCP packet that begins nothing, of a flow without an entry.
    pub midstream: bool,
    /// Hash of the flow, for the tunnel's entropy.
    pub hash: u64,
}

impl Decision {
    fn drop(reason: DropReason) -> Self {
        Self { verdict: Verdict::Drop(reason), outcome: FlowOutcome::None, midstream: false, hash: 0 }
    }
}

/// Decides one packet (DESIGN §2): service, then flow table, then Maglev.
pub fn decide(packet: &Packet, table: &Table, flows: &FlowTables, now: Seconds) -> Decision {
    let pool = match table.pool_of(&packet.flow) {
        Ok(pool) => pool,
        Err(reason) => return Decision::drop(reason),
    };
    let lookup = Lookup { packet, table, pool: table.pool(pool), now };
    let (chosen, hash) = match &packet.flow {
        FlowKey::V4(flow) => lookup.through(&flows.v4, &flow.words()),
        FlowKey::V6(flow) => lookup.through(&flows.v6, &flow.words()),
    };
    match chosen {
        Some(Chosen { member, outcome, midstream }) => {
            Decision { verdict: Verdict::Forward { pool, member }, outcome, midstream, hash }
        }
        None => Decision::drop(DropReason::NoBackend),
    }
}

struct Lookup<'a> {
    packet: &'a Packet,
    table: &'a Table,
    pool: &'a Pool,
    now: Seconds,
}

struct Chosen {
    member: u16,
    outcome: FlowOutcome,
    midstream: bool,
}

impl Lookup<'_> {
    fn through<const K: usize>(&self, flows: &FlowTable<K>, key: &[u64; K]) -> (Option<Chosen>, u64) {
        let places = flows.places(key);
        let mut found = flows.find(key, places);
        // A lost race shows what the entry says now; more than a few in a row cannot happen to one flow.
        for _ in 0..4 {
            let Some(hit) = found else { break };
            match self.follow(flows, hit) {
                Ok(chosen) => return (chosen, places.hash),
                Err(newer) => found = newer,
            }
        }
        (self.enter(flows, key, places), places.hash)
    }

    /// Goes where the entry says, or changes what it says. `Err`: another worker changed it meanwhile.
    fn follow<const K: usize>(&self, flows: &FlowTable<K>, hit: Hit) -> Result<Option<Chosen>, Option<Hit>> {
        let state = hit.control.state();
        let timed_out = hit.control.idle_s(self.now) >= self.table.idle_limits[state as usize];
        let member = self.pool.member_of(hit.control.backend());
        let member = member.filter(|&member| !timed_out && !self.leaves(member, hit.control));
        let Some(member) = member else { return self.rechoose(flows, hit) };
        let next = self.next_state(state);
        let confirmed = state == State::Unconfirmed && next != State::Unconfirmed;
        let touched = hit.control.with_state(next).with_time(self.now);
        if touched != hit.control {
            flows.update(hit, touched)?;
        }
        let outcome = if confirmed { FlowOutcome::Confirmed } else { FlowOutcome::Hit };
        Ok(Some(Chosen { member, outcome, midstream: false }))
    }

    fn rechoose<const K: usize>(
        &self,
        flows: &FlowTable<K>,
        hit: Hit,
    ) -> Result<Option<Chosen>, Option<Hit>> {
        let Some(member) = self.table.choose(self.pool, &self.packet.flow) else { return Ok(None) };
        let backend = self.pool.member(member).backend;
        flows.update(hit, Control::new(backend, self.now, State::Unconfirmed, hit.control.version()))?;
        Ok(Some(Chosen { member, outcome: FlowOutcome::Rehashed, midstream: false }))
    }

    /// Maglev's choice for a flow without an entry, and an entry for it.
    fn enter<const K: usize>(&self, flows: &FlowTable<K>, key: &[u64; K], places: Places) -> Option<Chosen> {
        let member = self.table.choose(self.pool, &self.packet.flow)?;
        let begins = self.packet.tcp_flags & SYN != 0;
        let midstream = self.protocol() == Protocol::Tcp && !begins;
        if midstream && self.packet.tcp_flags & (RST | FIN) != 0 {
            return Some(Chosen { member, outcome: FlowOutcome::None, midstream });
        }
        let backend = self.pool.member(member).backend;
        let chosen = |member, outcome| Some(Chosen { member, outcome, midstream });
        match flows.insert(key, places, backend, self.now, &self.table.idle_limits) {
            Inserted::New => chosen(member, FlowOutcome::Created),
            Inserted::Evicting => chosen(member, FlowOutcome::CreatedEvicting),
            Inserted::Full => chosen(member, FlowOutcome::TableFull),
            Inserted::Lost(winner) => chosen(self.member_or(winner, member), FlowOutcome::Hit),
        }
    }

    fn member_or(&self, backend: BackendId, otherwise: u16) -> u16 {
        self.pool.member_of(backend).unwrap_or(otherwise)
    }

    fn protocol(&self) -> Protocol {
        self.packet.flow.service_port().protocol
    }

    /// Whether a new connection reuses the tuple of one that is over, and its backend drains. A backend that
    /// takes new flows keeps it, so that a forged RST and SYN move nothing; the quiet second is for one that
    /// drains.
    fn leaves(&self, member: u16, control: Control) -> bool {
        let over = matches!(control.state(), State::Closing | State::Reset) && control.idle_s(self.now) > 0;
        over && self.packet.tcp_flags & SYN != 0 && !self.pool.member(member).takes_new
    }

    fn next_state(&self, state: State) -> State {
        match self.protocol() {
            Protocol::Udp => State::Confirmed,
            Protocol::Tcp => next_tcp_state(state, self.packet.tcp_flags),
        }
    }
}

/// A flow is confirmed by its second packet that is not a SYN (DESIGN §2.4); an RST alone confirms nothing,
/// so that a flood of SYN and RST pairs stays evictable. A connection that goes on after an RST was not reset:
/// the backend ignored it (RFC 5961). A SYN on a tuple whose connection is over begins the next one.
fn next_tcp_state(state: State, flags: u8) -> State {
    match state {
        State::Unconfirmed if flags & (SYN | RST) != 0 => State::Unconfirmed,
        State::Closing | State::Reset if flags & SYN != 0 => State::Unconfirmed,
        _ if flags & RST != 0 => State::Reset,
        State::Closing => State::Closing,
        _ if flags & FIN != 0 => State::Closing,
        _ => State::Established,
    }
}

#[cfg(test)]
mod tests;
