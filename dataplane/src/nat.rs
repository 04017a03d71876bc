//! Source address and port of translated flows (mode `nat`), and the way back from a reply to its flow.
//!
//! A flow from a client to a VIP leaves as `source:port → backend:target`; the reply comes to `source:port`
//! from `backend:target`. That pair of ends is the key of a table like the flow table, whose value is the
//! client's flow and the way to the client, so a reply is found on any queue. Taking a port *is* entering that
//! key: of two inserts of one key at most one succeeds (`conntrack`), so no pair is ever handed out twice, no
//! worker owns a share of the ports, and a port serves as many flows as there are backends.
//!
//! Candidates for a flow are a fixed sequence, derived from its hash. So two workers that see a new flow at
//! once come upon the same pair and share it, and a flow that lost its flow-table entry finds its pair again
//! among the first of them. A pair of which only first packets were seen makes room for another flow when
//! nothing is free, so that a flood of them shuts nobody out.

use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::Protocol;

use crate::conntrack::{BackendId, FlowTable, Hit, IdleLimits, Inserted, NewFlow, Places, Seconds, State};
use crate::flow::{End, FlowKey, Tuple};
use crate::index::Index;
use crate::limits::{MAX_NICS, NAT_ATTEMPTS, NAT_OWN_ATTEMPTS, NAT_PORT_MIN};
use crate::packet::ethernet::{Tags, VlanTag};
use crate::port::NicIndex;

/// Translated flows of both families, by their replies' ends. Values are the client's flow and its last hop.
pub struct NatTables {
    /// IPv4
    pub v4: FlowTable<2, 3>,
    /// IPv6
    pub v6: FlowTable<5, 6>,
}

impl NatTables {
    /// Sized for so many flows of each family.
    pub fn new(flows_v4: usize, flows_v6: usize, seed: &RandomState) -> Self {
        Self { v4: FlowTable::new(flows_v4, seed), v6: FlowTable::new(flows_v6, seed) }
    }
}

/// Translation as the workers see it.
pub struct Nat {
    /// Kept from table to table.
    pub tables: Arc<NatTables>,
    /// Addresses to take ports of, IPv4.
    pub v4: Box<[SourceId]>,
    /// Addresses to take ports of, IPv6.
    pub v6: Box<[SourceId]>,
    /// By [`SourceId`]; `None` for one that is no longer configured.
    pub addresses: Box<[Option<IpAddr>]>,
    sources_v4: Index<1>,
    sources_v6: Index<2>,
}

/// A source address, numbered for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId(pub u16);

/// The source that a flow leaves by, in 28 bits: number of the address and port. 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding(pub u32);

impl Binding {
    /// Of a flow that is not translated.
    pub const NONE: Self = Self(0);

    fn new(source: SourceId, port: u16) -> Self {
        debug_assert!(usize::from(source.0) < SourceId::LIMIT && port >= NAT_PORT_MIN);
        Self(u32::from(source.0) << 16 | u32::from(port))
    }

    fn parts(self) -> Option<(SourceId, u16)> {
        (self != Self::NONE).then_some((SourceId((self.0 >> 16) as u16), self.0 as u16))
    }
}

impl SourceId {
    /// One more than the largest.
    pub const LIMIT: usize = 1 << 12;
}

/// The station and NIC that a client's packets come in by, which is where replies go: one word.
///
/// ```text
///  63      59 58        47 46               0
/// +----------+------------+------------------+
/// |  NIC (5) |  VLAN (12) |  MAC address (47) |
/// +----------+------------+------------------+
/// ```
/// The group bit of a source MAC address is never set and is left out; VLAN 0 is no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastHop(pub(crate) u64);

const _: () = assert!(MAX_NICS <= 32, "a NIC is kept in five bits");

const GROUP_BIT: u64 = 1 << 40;
const TPID: u16 = 0x8100;

impl LastHop {
    /// Of nobody.
    pub const NONE: Self = Self(0);

    /// Of a frame with these fields; `None` if its tags cannot be kept: two of them, or a service tag.
    pub fn new(nic: NicIndex, source: MacAddress, tags: Tags) -> Option<Self> {
        let id = match tags {
            Tags::None => 0,
            Tags::One(VlanTag { tpid: TPID, id }) => id,
            Tags::One(_) | Tags::Stacked => return None,
        };
        let [a, b, c, d, e, f] = source.0;
        let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let packed = (mac >> 41) << 40 | mac & (GROUP_BIT - 1);
        Some(Self(u64::from(nic.0) << 59 | u64::from(id) << 47 | packed))
    }

    /// NIC to leave by.
    pub fn nic(self) -> NicIndex {
        NicIndex((self.0 >> 59) as u8)
    }

    /// Station to send to.
    pub fn mac(self) -> MacAddress {
        let packed = self.0 & ((1 << 47) - 1);
        let mac = (packed >> 40) << 41 | packed & (GROUP_BIT - 1);
        let [_, _, a, b, c, d, e, f] = mac.to_be_bytes();
        MacAddress([a, b, c, d, e, f])
    }

    /// Tag to send with.
    pub fn vlan(self) -> Option<VlanTag> {
        let id = (self.0 >> 47) as u16 & 0xfff;
        (id != 0).then_some(VlanTag { tpid: TPID, id })
    }
}

/// New ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Becomes its source.
    pub source: End,
    /// Becomes its destination.
    pub destination: End,
}

/// A translated flow: the client's packets leave as `source → backend`.
#[derive(Clone, Copy, Debug)]
pub struct Outward<'a, T> {
    /// As the client sends it.
    pub flow: &'a T,
    /// Its hash, from which candidates follow.
    pub hash: u64,
    /// Identity of the backend.
    pub backend: BackendId,
    /// Address and port of the backend.
    pub end: End,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where replies go.
    pub last_hop: LastHop,
    /// State of the client's flow.
    pub state: State,
    /// Whether the packet may be the flow's first.
    pub begins: Begins,
    /// Now.
    pub now: Seconds,
    /// Idle times.
    pub limits: &'a IdleLimits,
}

/// Whether a packet may be the first of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// It is one, or its repetition.
    Surely,
    /// As far as can be told.
    Maybe,
    /// It is not: nothing is taken for it.
    Never,
}

/// What became of asking for a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The flow's own, from before.
    Adopted(Binding),
    /// A free one.
    New(Binding),
    /// None is free.
    Exhausted,
    /// It has none, and the packet begins nothing.
    NoFlow,
}

/// A reply's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<T, const R: usize> {
    /// As the client sends it.
    pub flow: T,
    /// The way to the client.
    pub last_hop: LastHop,
    /// Where it was found.
    pub hit: Hit<R>,
}

impl Nat {
    /// Of these tables and sources.
    pub fn new(
        tables: Arc<NatTables>,
        v4: Box<[SourceId]>,
        v6: Box<[SourceId]>,
        addresses: Box<[Option<IpAddr>]>,
        seed: &RandomState,
    ) -> Self {
        let numbered = || (0u32..).zip(&addresses);
        let of_v4 = numbered().filter_map(|(id, address)| match address {
            Some(IpAddr::V4(address)) => Some(([u64::from(address.to_bits())], id)),
            _ => None,
        });
        let of_v6 = numbered().filter_map(|(id, address)| match address {
            Some(IpAddr::V6(address)) => {
                let bits = address.to_bits();
                Some(([(bits >> 64) as u64, bits as u64], id))
            }
            _ => None,
        });
        let sources_v4 = Index::new(&of_v4.collect::<Vec<_>>(), seed);
        let sources_v6 = Index::new(&of_v6.collect::<Vec<_>>(), seed);
        Self { tables, v4, v6, addresses, sources_v4, sources_v6 }
    }

    /// Whether a packet with these words of its flow's key goes to a source of ours.
    #[inline(always)]
    pub fn is_reply_v4(&self, &[addresses, _]: &[u64; 2]) -> bool {
        self.sources_v4.find(&[addresses & u64::from(u32::MAX)]).is_some()
    }

    /// Likewise.
    #[inline(always)]
    pub fn is_reply_v6(&self, &[_, _, high, low, _]: &[u64; 5]) -> bool {
        self.sources_v6.find(&[high, low]).is_some()
    }

    /// The source end that a binding stands for, if its address is still configured.
    pub fn source(&self, binding: Binding) -> Option<End> {
        let (id, port) = binding.parts()?;
        Some((self.addresses.get(usize::from(id.0)).copied().flatten()?, port))
    }

    /// Keeps a flow's binding alive. `false` if the binding is no longer the flow's.
    pub fn refresh<T: Tuple<K>, const K: usize, const R: usize>(
        &self,
        table: &FlowTable<K, R>,
        outward: &Outward<'_, T>,
        binding: Binding,
    ) -> bool {
        self.own(table, outward, binding).is_some_and(|hit| outward.touch(table, hit))
    }

    /// The source that a flow leaves by, as it is: the one that its entry names, or one of its candidates.
    pub fn peek<T: Tuple<K>, const K: usize, const R: usize>(
        &self,
        table: &FlowTable<K, R>,
        outward: &Outward<'_, T>,
        named: Binding,
    ) -> Option<End> {
        let named = self.own(table, outward, named).map(|_| named);
        self.source(named.or_else(|| self.own_candidate(table, outward).map(|(binding, _)| binding))?)
    }

    /// A source for a flow that has none: its own from before, or a free one.
    pub fn take<T: Tuple<K>, const K: usize, const R: usize>(
        &self,
        table: &FlowTable<K, R>,
        outward: &Outward<'_, T>,
    ) -> Taken {
        if outward.begins != Begins::Surely
            && let Some((binding, hit)) = self.own_candidate(table, outward)
            && outward.touch(table, hit)
        {
            return Taken::Adopted(binding);
        }
        if outward.begins == Begins::Never {
            return Taken::NoFlow;
        }
        let mut victim: Option<(Binding, Hit<R>)> = None;
        for (binding, key) in self.candidates(outward).take(NAT_ATTEMPTS as usize) {
            match self.try_candidate(table, outward, &key) {
                Candidate::Own => return Taken::Adopted(binding),
                Candidate::Taken => return Taken::New(binding),
                Candidate::Evictable(hit) => {
                    let idle = |hit: &Hit<R>| hit.control.idle_s(outward.now);
                    if victim.is_none_or(|(_, victim)| idle(&victim) < idle(&hit)) {
                        victim = Some((binding, hit));
                    }
                }
                Candidate::InUse => {}
            }
        }
        // A flood of first packets then churns the pairs of its own flows (DESIGN §2.4).
        let evicted = victim.filter(|(_, hit)| table.remove(*hit)).and_then(|(binding, _)| {
            let key = outward.key(self.source(binding)?)?;
            let entered = outward.enter(table, &key, table.places(&key));
            matches!(entered, Inserted::New | Inserted::Evicting).then_some(binding)
        });
        evicted.map_or(Taken::Exhausted, Taken::New)
    }

    /// A flow's candidates in order, each with the key of its replies.
    fn candidates<'a, T: Tuple<K>, const K: usize>(
        &'a self,
        outward: &'a Outward<'_, T>,
    ) -> impl Iterator<Item = (Binding, [u64; K])> + 'a {
        let sources = if outward.end.0.is_ipv4() { &self.v4 } else { &self.v6 };
        let attempts = if sources.is_empty() { 0 } else { NAT_ATTEMPTS };
        (0..attempts).filter_map(move |attempt| {
            let (id, port) = candidate(sources, outward.hash, attempt);
            let binding = Binding::new(id, port);
            Some((binding, outward.key(self.source(binding)?)?))
        })
    }

    fn own_candidate<T: Tuple<K>, const K: usize, const R: usize>(
        &self,
        table: &FlowTable<K, R>,
        outward: &Outward<'_, T>,
    ) -> Option<(Binding, Hit<R>)> {
        self.candidates(outward).take(NAT_OWN_ATTEMPTS as usize).find_map(|(binding, key)| {
            let hit = find(table, &key).filter(|hit| owned_by(hit, outward.flow))?;
            Some((binding, hit))
        })
    }

    /// The entry of a binding, if it is this flow's.
    fn own<T: Tuple<K>, const K: usize, const R: usize>(
        &self,
        table: &FlowTable<K, R>,
        outward: &Outward<'_, T>,
        binding: Binding,
    ) -> Option<Hit<R>> {
        let key = outward.key(self.source(binding)?)?;
        find(table, &key).filter(|hit| owned_by(hit, outward.flow))
    }

    fn try_candidate<T: Tuple<K>, const K: usize, const R: usize>(
        &self,
        table: &FlowTable<K, R>,
        outward: &Outward<'_, T>,
        key: &[u64; K],
    ) -> Candidate<R> {
        let places = table.places(key);
        if let Some(hit) = table.find(key, places) {
            let state = hit.control.state();
            if owned_by(&hit, outward.flow) && outward.touch(table, hit) {
                return Candidate::Own;
            }
            let over = hit.control.idle_s(outward.now) >= outward.limits[state as usize];
            if !over || !table.remove(hit) {
                return if state == State::Unconfirmed {
                    Candidate::Evictable(hit)
                } else {
                    Candidate::InUse
                };
            }
        }
        match outward.enter(table, key, places) {
            Inserted::New | Inserted::Evicting => Candidate::Taken,
            Inserted::Lost(_) if find(table, key).is_some_and(|hit| owned_by(&hit, outward.flow)) => {
                Candidate::Own
            }
            Inserted::Lost(_) | Inserted::Full => Candidate::InUse,
        }
    }
}

/// What became of trying a pair.
enum Candidate<const R: usize> {
    /// The flow has it already.
    Own,
    /// It was free.
    Taken,
    /// Another flow has it, of which only first packets were seen.
    Evictable(Hit<R>),
    /// Another flow has it.
    InUse,
}

/// The flow that a packet to one of our sources answers.
pub fn owner<T: Tuple<K>, const K: usize, const R: usize>(
    table: &FlowTable<K, R>,
    reply: &T,
    now: Seconds,
    limits: &IdleLimits,
) -> Option<Owner<T, R>> {
    let hit = find(table, &reply.words())?;
    if hit.control.idle_s(now) >= limits[hit.control.state() as usize] {
        return None;
    }
    let flow = T::from_words(std::array::from_fn(|i| hit.value[i]))?;
    Some(Owner { flow, last_hop: LastHop(hit.value[K]), hit })
}

impl<T> Outward<'_, T> {
    /// The key of the flow's replies.
    fn key<const K: usize>(&self, source: End) -> Option<[u64; K]>
    where
        T: Tuple<K>,
    {
        let reply = FlowKey::new(self.end, source, self.protocol)?;
        T::of(&reply).map(|reply| reply.words())
    }

    fn value<const K: usize, const R: usize>(&self) -> [u64; R]
    where
        T: Tuple<K>,
    {
        const { assert!(R == K + 1, "a flow and its last hop") };
        let flow = self.flow.words();
        std::array::from_fn(|i| flow.get(i).copied().unwrap_or(self.last_hop.0))
    }

    fn enter<const K: usize, const R: usize>(
        &self,
        table: &FlowTable<K, R>,
        key: &[u64; K],
        places: Places,
    ) -> Inserted
    where
        T: Tuple<K>,
    {
        let new = NewFlow { key: *key, value: self.value(), backend: self.backend };
        table.insert(&new, places, self.now, self.limits)
    }

    /// Keeps the flow's entry alive. `false` if it has become another flow's meanwhile.
    fn touch<const K: usize, const R: usize>(&self, table: &FlowTable<K, R>, hit: Hit<R>) -> bool
    where
        T: Tuple<K>,
    {
        let state = match self.state {
            State::Unconfirmed => hit.control.state(),
            // A reset that the backend ignores (RFC 5961) must not cost a flow its pair.
            State::Reset => State::Closing,
            state => state,
        };
        let touched = hit.control.with_state(state).with_time(self.now);
        if touched != hit.control {
            match table.update(hit, touched) {
                Ok(()) => {}
                Err(None) => return false,
                // Another worker touched it. That is as good, unless the state is another one.
                Err(Some(newer)) if newer.control.state() != state => {
                    let _ = table.update(newer, newer.control.with_state(state).with_time(self.now));
                }
                Err(Some(_)) => {}
            }
        }
        if hit.value[K] != self.last_hop.0 {
            table.replace(&hit, K, self.last_hop.0);
        }
        true
    }
}

fn find<const K: usize, const R: usize>(table: &FlowTable<K, R>, key: &[u64; K]) -> Option<Hit<R>> {
    table.find(key, table.places(key))
}

fn owned_by<T: Tuple<K>, const K: usize, const R: usize>(hit: &Hit<R>, flow: &T) -> bool {
    hit.value[..K] == flow.words()
}

/// Number `attempt` of a flow's candidates.
fn candidate(sources: &[SourceId], hash: u64, attempt: u32) -> (SourceId, u16) {
    // SplitMix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014).
    let mut mixed = hash.wrapping_add(u64::from(attempt + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let ports = u64::from(u16::MAX - NAT_PORT_MIN) + 1;
    let port = NAT_PORT_MIN + (((mixed & 0xffff_ffff) * ports) >> 32) as u16;
    (sources[(((mixed >> 32) * sources.len() as u64) >> 32) as usize], port)
}

#[cfg(test)]
mod tests;
