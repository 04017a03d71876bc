//! The decision: from a parsed packet to a [`Verdict`]. No I/O, no clock, no log; the only thing it changes
//! is the tables of flows and fragments. Called by the worker for every packet that does not
//! go the express way (`worker::express`).

mod errors;
mod lookup;
mod returns;

use ahash::RandomState;
use shunt_api::counters::{Counter, DropReason};
use shunt_api::snapshot::{Protocol, UnlistedPorts};

use crate::conntrack::{BackendId, FlowTable, Seconds, State};
use crate::flow::FlowKey;
use crate::fragments::Fragments;
use crate::nat::{LastHop, Translation};
use crate::packet::transport::{FIN, RST, SYN};
use crate::packet::{Content, Packet};
use crate::port::NicIndex;
use crate::table::{Owned, Table};
use lookup::Lookup;
pub use lookup::{Known, Stale};

/// What is remembered of flows. Translated ones are in the table's [`crate::nat::Nat`] besides.
pub struct FlowTables {
    /// IPv4
    pub v4: FlowTable<2, 1>,
    /// IPv6
    pub v6: FlowTable<5, 1>,
    /// Which flow fragments belong to.
    pub fragments: Fragments,
}

impl FlowTables {
    /// Sized for so many flows of each family.
    pub fn new(flows_v4: usize, flows_v6: usize) -> Self {
        Self::with_seed(flows_v4, flows_v6, &RandomState::new())
    }

    /// As [`Self::new`], the same in every run.
    pub fn with_seed(flows_v4: usize, flows_v6: usize, seed: &RandomState) -> Self {
        Self {
            v4: FlowTable::new(flows_v4, seed),
            v6: FlowTable::new(flows_v6, seed),
            fragments: Fragments::new(seed),
        }
    }
}

/// What to do with a packet. Listeners and members are indices into the table that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it is to a member of the listener's pool.
    Forward {
        /// Index of the listener.
        listener: u32,
        /// Index of the member.
        member: u16,
    },
    /// With new ends to a member of the listener's pool.
    Translate {
        /// Index of the listener.
        listener: u32,
        /// Index of the member.
        member: u16,
        /// The new ends.
        translation: Translation,
    },
    /// With new ends back to the client of a translated flow.
    Return {
        /// Where it comes from.
        backend: BackendId,
        /// The new ends.
        translation: Translation,
        /// The way.
        last_hop: LastHop,
    },
    /// Nowhere; the sender is answered.
    Reply(Reply),
    /// Nowhere.
    Drop(DropReason),
}

/// An answer to a packet's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To an echo request.
    Echo,
    /// Nobody listens on the TCP port.
    Reset,
    /// Nobody listens on the UDP port.
    Unreachable,
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

impl FlowOutcome {
    /// What it counts as.
    pub fn counters(self) -> &'static [Counter] {
        match self {
            Self::None => &[],
            Self::Hit => &[Counter::FlowHits],
            Self::Confirmed => &[Counter::FlowHits, Counter::FlowsConfirmed],
            Self::Created => &[Counter::FlowsCreated],
            Self::CreatedEvicting => &[Counter::FlowsCreated, Counter::FlowsEvicted],
            Self::Rehashed => &[Counter::FlowsRehashed],
            Self::TableFull => &[Counter::FlowTableFull],
        }
    }
}

/// A verdict and how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// What the flow table had to do with it.
    pub outcome: FlowOutcome,
    /// What else is to be counted.
    pub events: Events,
    /// Hash of the flow, for the tunnel's entropy.
    pub hash: u64,
}

/// Things that happen to few packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u8);

impl Events {
    /// A TCP packet that begins nothing, of a flow without an entry.
    pub const MIDSTREAM: Self = Self(1);
    /// The client's earlier connection decided.
    pub const AFFINITY: Self = Self(2);
    /// A later fragment found its first one.
    pub const FRAGMENT: Self = Self(4);
    /// A source address and port was taken.
    pub const NAT_CREATED: Self = Self(8);
    /// An ICMP error found its flow.
    pub const ICMP_ERROR: Self = Self(16);

    const COUNTERS: [(Self, Counter); 5] = [
        (Self::MIDSTREAM, Counter::MidstreamMisses),
        (Self::AFFINITY, Counter::AffinityHits),
        (Self::FRAGMENT, Counter::FragmentsFollowed),
        (Self::NAT_CREATED, Counter::NatFlowsCreated),
        (Self::ICMP_ERROR, Counter::IcmpErrorsForwarded),
    ];

    /// Both of two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These if `happened`, else none.
    #[must_use]
    pub fn only_if(self, happened: bool) -> Self {
        if happened { self } else { Self::default() }
    }

    /// Whether nothing happened.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What they count as.
    pub fn counters(self) -> impl Iterator<Item = Counter> {
        let happened = Self::COUNTERS.into_iter().filter(move |(event, _)| self.0 & event.0 != 0);
        happened.map(|(_, counter)| counter)
    }
}

impl Decision {
    fn only(verdict: Verdict) -> Self {
        Self { verdict, outcome: FlowOutcome::None, events: Events::default(), hash: 0 }
    }

    fn drop(reason: DropReason) -> Self {
        Self::only(Verdict::Drop(reason))
    }

    fn with(self, event: Events) -> Self {
        Self { events: self.events.and(event), ..self }
    }

    /// Whether the packet goes on to a backend or client.
    pub fn goes_on(&self) -> bool {
        matches!(self.verdict, Verdict::Forward { .. } | Verdict::Translate { .. } | Verdict::Return { .. })
    }
}

/// What a decision is made by.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Services, pools and settings.
    pub table: &'a Table,
    /// Flows and fragments.
    pub flows: &'a FlowTables,
    /// NIC that the packet came in by.
    pub nic: NicIndex,
    /// Now.
    pub now: Seconds,
}

/// Decides one packet (DESIGN §2): service, then flow table, then Maglev.
pub fn decide(packet: &Packet, context: Context<'_>) -> Decision {
    match packet.content {
        Content::Whole => segment(packet, context),
        Content::FirstFragment { id } => first_fragment(packet, id, context),
        Content::LaterFragment { id, protocol } => later_fragment(packet, id, protocol, context),
        Content::Echo => echo(packet, context.table),
        Content::Error => errors::about_flow(packet, context),
        Content::TunnelError { .. } => errors::about_tunnel(packet, context.table),
    }
}

/// Where a packet to a service or to a source of ours would go as things are, with its flow; changes nothing.
pub fn peek(packet: &Packet, context: Context<'_>) -> Option<Verdict> {
    let decision = errors::about_flow(packet, context);
    decision.goes_on().then_some(decision.verdict)
}

/// A packet with ports.
fn segment(packet: &Packet, context: Context<'_>) -> Decision {
    let Some(index) = context.table.listener_of(&packet.flow) else { return unlisted(packet, context) };
    match packet.flow {
        FlowKey::V4(flow) => {
            let nat = context.table.nat.as_ref().map(|nat| (nat, &nat.tables.v4));
            Lookup::new(packet, context, index, flow, &context.flows.v4, nat).decide()
        }
        FlowKey::V6(flow) => {
            let nat = context.table.nat.as_ref().map(|nat| (nat, &nat.tables.v6));
            Lookup::new(packet, context, index, flow, &context.flows.v6, nat).decide()
        }
    }
}

/// What a packet to listener `index` is decided by; changes nothing.
pub fn known(packet: &Packet, context: Context<'_>, index: u32) -> Known {
    let nat = context.table.nat.as_ref();
    match packet.flow {
        FlowKey::V4(flow) => {
            let nat = nat.map(|nat| (nat, &nat.tables.v4));
            Lookup::new(packet, context, index, flow, &context.flows.v4, nat).known()
        }
        FlowKey::V6(flow) => {
            let nat = nat.map(|nat| (nat, &nat.tables.v6));
            Lookup::new(packet, context, index, flow, &context.flows.v6, nat).known()
        }
    }
}

fn first_fragment(packet: &Packet, id: u32, context: Context<'_>) -> Decision {
    let decision = segment(packet, context);
    if decision.goes_on() {
        context.flows.fragments.remember(&packet.flow, id, context.now);
    }
    decision
}

fn later_fragment(packet: &Packet, id: u32, protocol: u8, context: Context<'_>) -> Decision {
    match context.flows.fragments.recall(&packet.flow, id, protocol, context.now) {
        Some(flow) => segment(&Packet { flow, ..*packet }, context).with(Events::FRAGMENT),
        None if context.table.owned_as(packet.flow.vip()).is_none() => {
            Decision::drop(DropReason::NotOurAddress)
        }
        None => Decision::drop(DropReason::FragmentWithoutFirst),
    }
}

fn echo(packet: &Packet, table: &Table) -> Decision {
    match table.owned_as(packet.flow.vip()) {
        Some(_) => Decision::only(Verdict::Reply(Reply::Echo)),
        None => Decision::drop(DropReason::NotOurAddress),
    }
}

/// A packet to a port without a service: a translated flow's, or nobody's.
fn unlisted(packet: &Packet, context: Context<'_>) -> Decision {
    let policy = match context.table.owned_as(packet.flow.vip()) {
        None => return Decision::drop(DropReason::NotOurAddress),
        Some(Owned::Vip(policy)) => policy,
        Some(Owned::Source) => match returns::returned(packet, context) {
            Some(decision) => return decision,
            None => UnlistedPorts::Reject,
        },
    };
    Decision::only(refusal(packet, policy))
}

/// What a packet to an address of ours gets where nobody listens.
pub fn refusal(packet: &Packet, policy: UnlistedPorts) -> Verdict {
    match (policy, packet.content, packet.flow.protocol()) {
        (UnlistedPorts::Reject, Content::Whole, Protocol::Tcp) if packet.tcp_flags & RST == 0 => {
            Verdict::Reply(Reply::Reset)
        }
        (UnlistedPorts::Reject, Content::Whole, Protocol::Udp) => Verdict::Reply(Reply::Unreachable),
        _ => Verdict::Drop(DropReason::UnlistedPort),
    }
}

/// The state that a packet leaves its flow in.
fn next_state(packet: &Packet, state: State) -> State {
    match (packet.content, packet.flow.protocol()) {
        (Content::LaterFragment { .. }, _) => state,
        (_, Protocol::Udp) => State::Confirmed,
        (_, Protocol::Tcp) => next_tcp_state(state, packet.tcp_flags),
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
