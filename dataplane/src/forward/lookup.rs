//! One packet of a service and the flow table: follow the flow's entry, or choose a backend and enter it.

use shunt_api::counters::DropReason;
use shunt_api::snapshot::{Mode, Protocol};

use super::{Context, Decision, Events, FlowOutcome, Verdict, next_state};
use crate::conntrack::{BackendId, Control, FlowTable, Hit, Inserted, NewFlow, Places, State};
use crate::flow::Tuple;
use crate::memo::Memo;
use crate::nat::{Begins, Binding, LastHop, Nat, Outward, Taken, Translation};
use crate::packet::transport::{FIN, RST, SYN};
use crate::packet::{Content, Packet};
use crate::table::{Affinity, Listener, Member, Pool};

/// A packet, what serves its port, and the tables of its family.
pub struct Lookup<'a, T, const K: usize, const R: usize> {
    packet: &'a Packet,
    context: Context<'a>,
    index: u32,
    listener: &'a Listener,
    pool: &'a Pool,
    flow: T,
    flows: &'a FlowTable<K, 1>,
    nat: Option<(&'a Nat, &'a FlowTable<K, R>)>,
}

/// The member that a packet goes to.
struct Chosen {
    member: u16,
    outcome: FlowOutcome,
    events: Events,
    /// The flow's entry, if it had one.
    hit: Option<Hit<1>>,
}

/// What a packet to a service is decided by.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The flow's entry.
    pub entry: Option<Hit<1>>,
    /// The member that it names, or why packets no longer go there.
    pub named: Option<Result<u16, Stale>>,
    /// The member that the client keeps, if the service has affinity.
    pub kept: Option<u16>,
    /// The member that Maglev chooses.
    pub chosen: Option<u16>,
    /// New ends of a flow that has a source already.
    pub translation: Option<Translation>,
    /// Of the flow, for the tunnel's entropy.
    pub hash: u64,
}

/// Why packets of a flow do not go where its entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// No packet came for too long.
    TimedOut,
    /// The backend left the pool.
    Gone,
    /// The connection is over, this is a new one, and the backend takes none.
    Leaves,
}

impl<'a, T: Tuple<K>, const K: usize, const R: usize> Lookup<'a, T, K, R> {
    /// `index` is the listener's.
    pub fn new(
        packet: &'a Packet,
        context: Context<'a>,
        index: u32,
        flow: T,
        flows: &'a FlowTable<K, 1>,
        nat: Option<(&'a Nat, &'a FlowTable<K, R>)>,
    ) -> Self {
        let listener = context.table.listener(index);
        Self { packet, context, index, listener, pool: context.table.pool(listener.pool), flow, flows, nat }
    }

    /// Decides a packet of the flow and lets it be remembered.
    pub fn decide(&self) -> Decision {
        if !self.listener.allows(self.packet.flow.client()) {
            return Decision::drop(DropReason::SourceDenied);
        }
        let key = self.flow.words();
        let places = self.flows.places(&key);
        let found = self.find(&key, places);
        if found.is_none() && self.context.table.owned_as(self.packet.flow.client()).is_some() {
            return Decision::drop(DropReason::FromOurAddress);
        }
        let Some(chosen) = found.or_else(|| self.choose()) else {
            return Decision::drop(DropReason::NoBackend);
        };
        let (listener, member) = (self.index, self.pool.member(chosen.member));
        if member.mode != Mode::Nat {
            let memo = Memo::new(self.listener.version, member.mode);
            let Chosen { member, outcome, events, .. } = self.enter(&chosen, &key, places, memo);
            let verdict = Verdict::Forward { listener, member };
            return Decision { verdict, outcome, events, hash: places.hash };
        }
        match self.bind(&chosen, member, places.hash) {
            Ok((memo, translation, created)) => {
                let entered = self.enter(&chosen, &key, places, memo);
                let verdict = Verdict::Translate { listener, member: chosen.member, translation };
                let events = entered.events.and(Events::NAT_CREATED.only_if(created));
                Decision { verdict, outcome: entered.outcome, events, hash: places.hash }
            }
            Err(reason) => {
                // What the entry may say of a source is no longer the flow's.
                if let Some(hit) = chosen.hit {
                    self.flows.replace(&hit, 0, Memo::NONE.0);
                }
                Decision::drop(reason)
            }
        }
    }

    /// Where packets of the flow go, as it is: the member, the source of a translated flow, and the flow's hash.
    pub fn peek(&self) -> Option<(u16, Option<Translation>, u64)> {
        let key = self.flow.words();
        let places = self.flows.places(&key);
        let hit = self.flows.find(&key, places);
        let known = hit.and_then(|hit| self.pool.member_of(hit.control.backend()));
        let member = known.or_else(|| self.choose().map(|chosen| chosen.member))?;
        if self.pool.member(member).mode != Mode::Nat {
            return Some((member, None, places.hash));
        }
        Some((member, Some(self.translation(member, hit, places.hash)?), places.hash))
    }

    /// The ends that the flow has by way of a member in mode `nat`, if it has a source already.
    fn translation(&self, member: u16, entry: Option<Hit<1>>, hash: u64) -> Option<Translation> {
        let member = self.pool.member(member);
        let (nat, table) = self.nat.filter(|_| member.mode == Mode::Nat)?;
        let outward = self.outward(member, hash, State::Unconfirmed, LastHop::NONE);
        let named = entry.map_or(Binding::NONE, |hit| Memo(hit.value[0]).binding());
        let source = nat.peek(table, &outward, named)?;
        Some(Translation { source, destination: outward.end })
    }

    /// What there is to decide by; changes nothing.
    pub fn known(&self) -> Known {
        let key = self.flow.words();
        let places = self.flows.places(&key);
        let entry = self.flows.find(&key, places);
        let named = entry.map(|hit| self.named(hit.control));
        let kept = self.listener.affinity.and_then(|affinity| self.kept(affinity));
        let chosen = self.context.table.choose(self.listener, &self.packet.flow);
        let member = named.and_then(Result::ok).or(kept).or(chosen);
        let translation = member.and_then(|member| self.translation(member, entry, places.hash));
        Known { entry, hash: places.hash, named, kept, chosen, translation }
    }

    /// Follows the flow's entry, if it has one.
    fn find(&self, key: &[u64; K], places: Places) -> Option<Chosen> {
        let mut found = self.flows.find(key, places);
        // A lost race shows what the entry says now; more than a few in a row cannot happen to one flow.
        for _ in 0..4 {
            match self.follow(found?) {
                Ok(chosen) => return chosen,
                Err(newer) => found = newer,
            }
        }
        None
    }

    /// Goes where the entry says, or changes what it says. `Err`: another worker changed it meanwhile.
    fn follow(&self, hit: Hit<1>) -> Result<Option<Chosen>, Option<Hit<1>>> {
        let Ok(member) = self.named(hit.control) else { return self.rechoose(hit) };
        let (state, idle_s) = (hit.control.state(), hit.control.idle_s(self.context.now));
        let limit_s = self.context.table.idle_limits[state as usize];
        let next = next_state(self.packet, state);
        let confirmed = state == State::Unconfirmed && next != State::Unconfirmed;
        let fresh =
            hit.control.is_fresh(self.context.now, limit_s) && idle_s <= u32::from(self.listener.fresh_s);
        let mut touched = hit.control;
        if next != state || !fresh {
            touched = touched.with_state(next).with_time(self.context.now);
            self.flows.update(hit, touched)?;
            if let Some(affinity) = self.listener.affinity.filter(|_| next != State::Unconfirmed) {
                self.keep(affinity, hit.control.backend());
            }
        }
        let outcome = if confirmed { FlowOutcome::Confirmed } else { FlowOutcome::Hit };
        let hit = hit.with(touched);
        Ok(Some(Chosen { member, outcome, events: Events::default(), hit: Some(hit) }))
    }

    /// The member that an entry names, or why packets like this one no longer go there.
    fn named(&self, control: Control) -> Result<u16, Stale> {
        if control.idle_s(self.context.now) >= self.context.table.idle_limits[control.state() as usize] {
            return Err(Stale::TimedOut);
        }
        let member = self.pool.member_of(control.backend()).ok_or(Stale::Gone)?;
        if self.leaves(member, control) { Err(Stale::Leaves) } else { Ok(member) }
    }

    fn rechoose(&self, hit: Hit<1>) -> Result<Option<Chosen>, Option<Hit<1>>> {
        let Some(chosen) = self.choose() else { return Ok(None) };
        let backend = self.pool.member(chosen.member).backend;
        let control = Control::new(backend, self.context.now, State::Unconfirmed, hit.control.version());
        self.flows.update(hit, control)?;
        let hit = hit.with(control);
        Ok(Some(Chosen { outcome: FlowOutcome::Rehashed, hit: Some(hit), ..chosen }))
    }

    /// The backend of a flow without an entry: the one of the client's earlier connections, else Maglev's.
    fn choose(&self) -> Option<Chosen> {
        let kept = self.listener.affinity.and_then(|affinity| self.kept(affinity));
        let member = kept.or_else(|| self.context.table.choose(self.listener, &self.packet.flow))?;
        let events = Events::AFFINITY.only_if(kept.is_some());
        Some(Chosen { member, outcome: FlowOutcome::None, events, hit: None })
    }

    /// An entry for a flow that has none, and another memo for one whose way has changed.
    fn enter(&self, chosen: &Chosen, key: &[u64; K], places: Places, memo: Memo) -> Chosen {
        let unchanged = Chosen { ..*chosen };
        if let Some(hit) = chosen.hit {
            if hit.value != [memo.0] {
                self.flows.replace(&hit, 0, memo.0);
            }
            return unchanged;
        }
        if matches!(self.packet.content, Content::LaterFragment { .. }) {
            return unchanged;
        }
        let begins = self.packet.tcp_flags & SYN != 0;
        let midstream = self.packet.flow.protocol() == Protocol::Tcp && !begins;
        let events = chosen.events.and(Events::MIDSTREAM.only_if(midstream));
        if midstream && self.packet.tcp_flags & (RST | FIN) != 0 {
            return Chosen { events, ..unchanged };
        }
        let backend = self.pool.member(chosen.member).backend;
        let new = NewFlow { key: *key, value: [memo.0], backend };
        let (member, outcome) =
            match self.flows.insert(&new, places, self.context.now, &self.context.table.idle_limits) {
                Inserted::New => (chosen.member, FlowOutcome::Created),
                Inserted::Evicting => (chosen.member, FlowOutcome::CreatedEvicting),
                Inserted::Full => (chosen.member, FlowOutcome::TableFull),
                Inserted::Lost(winner) => (self.member_or(winner, chosen.member), FlowOutcome::Hit),
            };
        Chosen { member, outcome, events, hit: None }
    }

    fn member_or(&self, backend: BackendId, otherwise: u16) -> u16 {
        self.pool.member_of(backend).unwrap_or(otherwise)
    }

    /// Whether a new connection reuses the tuple of one that is over, and its backend drains. A backend that
    /// takes new flows keeps it, so that a forged RST and SYN move nothing; the quiet second is for one that
    /// drains.
    fn leaves(&self, member: u16, control: Control) -> bool {
        let over =
            matches!(control.state(), State::Closing | State::Reset) && control.idle_s(self.context.now) > 0;
        over && self.packet.tcp_flags & SYN != 0 && !self.pool.member(member).takes_new
    }

    /// The backend that the client keeps.
    fn kept(&self, affinity: Affinity) -> Option<u16> {
        let key = self.flow.affinity_words(affinity.service);
        let hit = self.flows.find(&key, self.flows.places(&key))?;
        self.usable(hit.control, affinity)
    }

    fn usable(&self, control: Control, affinity: Affinity) -> Option<u16> {
        let member = self.pool.member_of(control.backend())?;
        let fresh = control.idle_s(self.context.now) < affinity.timeout_s;
        (fresh && self.pool.member(member).takes_new).then_some(member)
    }

    /// A confirmed flow makes its client keep the backend, unless the client keeps another. A flood of first
    /// packets leaves nothing here.
    fn keep(&self, affinity: Affinity, backend: BackendId) {
        let (key, now) = (self.flow.affinity_words(affinity.service), self.context.now);
        let places = self.flows.places(&key);
        let kept = |version| Control::new(backend, now, State::Affinity, version);
        if self.flows.find(&key, places).is_none() {
            let new = NewFlow { key, value: [0], backend };
            self.flows.insert(&new, places, now, &self.context.table.idle_limits);
        }
        let Some(hit) = self.flows.find(&key, places) else { return };
        if hit.control.backend() == backend || self.usable(hit.control, affinity).is_none() {
            // Whoever changed it meanwhile had as good a reason.
            let _ = self.flows.update(hit, kept(hit.control.version()));
        }
    }

    /// The source that the flow leaves by, in what is to be remembered of it; also whether it was taken now.
    fn bind(
        &self,
        chosen: &Chosen,
        member: &Member,
        hash: u64,
    ) -> Result<(Memo, Translation, bool), DropReason> {
        let (nat, table) = self.nat.ok_or(DropReason::NatExhausted)?;
        let last_hop = LastHop::new(self.context.nic, self.packet.source_mac, self.packet.tags)
            .ok_or(DropReason::StackedVlan)?;
        let state = chosen.hit.map_or(State::Unconfirmed, |hit| hit.control.state());
        let outward = self.outward(member, hash, state, last_hop);
        let bound = chosen.hit.map(|hit| Memo(hit.value[0]).binding());
        let known = bound.filter(|&binding| nat.refresh(table, &outward, binding));
        let (binding, created) = match known.map_or_else(|| nat.take(table, &outward), Taken::Adopted) {
            Taken::Adopted(binding) => (binding, false),
            Taken::New(binding) => (binding, true),
            Taken::Exhausted => return Err(DropReason::NatExhausted),
            Taken::NoFlow => return Err(DropReason::NatNoFlow),
        };
        let source = nat.source(binding).ok_or(DropReason::NatExhausted)?;
        // A confirmed flow's pair is safe from others once it is in the flow's state; nothing is concluded before.
        let safe = known.is_some() || state != State::Unconfirmed && nat.refresh(table, &outward, binding);
        let version = if safe { self.listener.version } else { 0 };
        let memo = Memo::translated(version, last_hop, binding);
        Ok((memo, Translation { source, destination: outward.end }, created))
    }

    fn outward(&self, member: &Member, hash: u64, state: State, last_hop: LastHop) -> Outward<'_, T> {
        let flags = self.packet.tcp_flags;
        let begins = match (self.packet.content, self.packet.flow.protocol()) {
            (Content::LaterFragment { .. }, _) => Begins::Never,
            (_, Protocol::Tcp) if flags & RST != 0 => Begins::Never,
            (_, Protocol::Tcp) if flags & SYN != 0 => Begins::Surely,
            _ => Begins::Maybe,
        };
        Outward {
            flow: &self.flow,
            hash,
            backend: member.backend,
            end: (member.address, self.listener.target),
            protocol: self.packet.flow.protocol(),
            last_hop,
            state,
            begins,
            now: self.context.now,
            limits: &self.context.table.idle_limits,
        }
    }
}
