//! The flow table: which backend an established flow goes to. One table per address family for all
//! workers, of fixed size, without locks: any worker reads and writes any entry. Translated flows and
//! fragments are remembered in tables of the same kind, with other keys and values.
//!
//! # Shape
//! Entries stand in buckets; a key hashes to two buckets, its *places*, searched in order. An entry is a
//! [`Control`] word, the key's words and the value's words, all atomics, so nothing here is `unsafe`. A value
//! belongs to its claim as the key does: it is written once, before the entry is published
//! ([`FlowTable::replace`] is the exception).
//!
//! # Protocol
//! *Reading* is a seqlock: control, key, control again; the entry counts only if its version stood still.
//! *Changing* a live entry is a compare-and-swap of its control word, whose version names the claim.
//! *Inserting* must not leave two entries for one key although two workers may insert it at once
//! (compare Purcell and Harris, "Non-blocking Hashtables with Open Addressing", 2005):
//! 1. claim a place (Empty, Unconfirmed or past its idle time) by compare-and-swap to Claimed, version + 1;
//! 2. write key and value, publish as Tentative, full fence;
//! 3. look at all places for the same key: a live one wins over us; a Tentative one at an earlier place
//!    wins over us; one at a later place is taken back by us;
//! 4. compare-and-swap Tentative → Unconfirmed, which fails if somebody took ours back.
//!
//! Of two inserts of one key the one that publishes later sees the other, so at most one gets to step 4.
//! Nobody waits for anybody: who loses forwards this packet by what it found. `loom_*` tests explore it.
//!
//! Unconfirmed flows never evict confirmed ones (DESIGN §2.4): where every place holds a confirmed flow the
//! new one is served statelessly.

mod control;
mod hash;
#[cfg(all(test, feature = "loom"))]
mod loom_tests;

pub use control::{BackendId, Control, Seconds, State, fresh_s, kept_s};
pub use hash::{KeyHasher, scaled};

use std::ops::Range;

use ahash::RandomState;

use crate::memory;
use crate::sync::{AtomicU64, Ordering, fence};

/// Entries of a bucket. Two cache lines of IPv4 entries; two in the model checker, to bound its work.
const BUCKET: usize = if cfg!(feature = "loom") { 2 } else { 4 };

/// Idle seconds after which an entry of each state may go, by `State as usize`.
pub type IdleLimits = [u32; State::COUNT];

/// Flows whose key is `K` words and whose value is `V`.
pub struct FlowTable<const K: usize, const V: usize> {
    buckets: Box<[Bucket<K, V>]>,
    hasher: KeyHasher,
}

#[repr(align(64))]
struct Bucket<const K: usize, const V: usize>([Entry<K, V>; BUCKET]);

/// Aligned so that a flow's entry never straddles a cache line: 32 bytes for IPv4, 64 for IPv6.
#[repr(align(32))]
struct Entry<const K: usize, const V: usize> {
    control: AtomicU64,
    key: [AtomicU64; K],
    value: [AtomicU64; V],
}

/// A key's places: two buckets, the same one twice if the hash wills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    first: u32,
    /// The hash, also the source of a tunnel's entropy.
    pub hash: u64,
}

/// A place that held the flow when it was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit<const V: usize> {
    at: Place,
    /// What it said.
    pub control: Control,
    /// What was stored with it.
    pub value: [u64; V],
}

impl<const V: usize> Hit<V> {
    /// The same entry after its control word was changed.
    #[must_use]
    pub fn with(self, control: Control) -> Self {
        Self { control, ..self }
    }
}

/// One entry's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    bucket: u32,
    slot: u8,
}

/// What to enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFlow<const K: usize, const V: usize> {
    /// Its key.
    pub key: [u64; K],
    /// What to store with it.
    pub value: [u64; V],
    /// Where it goes.
    pub backend: BackendId,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// In an empty or timed-out place.
    New,
    /// In the place of the longest idle unconfirmed flow.
    Evicting,
    /// Another worker was faster, or the key is in use. The place that was claimed is free, whoever stood there.
    Lost(BackendId),
    /// All places hold confirmed flows.
    Full,
}

impl<const K: usize, const V: usize> FlowTable<K, V> {
    /// Room for `flows` in half of the places, at which one flow in 3,500 finds both its buckets full and nine of ten
    /// stand in the first. All memory is taken and touched here.
    pub fn new(flows: usize, seed: &RandomState) -> Self {
        let buckets = memory::table_of(Self::buckets_for(flows), Bucket::default);
        Self { buckets, hasher: KeyHasher::new(seed) }
    }

    fn buckets_for(flows: usize) -> usize {
        (flows * 2).div_ceil(BUCKET).max(1)
    }

    /// Places in all.
    pub fn capacity(&self) -> usize {
        self.buckets.len() * BUCKET
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Where the memory is.
    pub fn addresses(&self) -> Range<usize> {
        let Range { start, end } = self.buckets.as_ptr_range();
        start.addr()..end.addr()
    }

    /// Where a key can stand.
    #[inline(always)]
    pub fn places(&self, key: &[u64; K]) -> Places {
        self.places_of(self.hasher.hash(key))
    }

    /// Likewise of a key with this hash.
    #[inline(always)]
    pub fn places_of(&self, hash: u64) -> Places {
        Places { first: scaled(hash, self.buckets.len()) as u32, hash }
    }

    /// The other bucket; asked for so seldom that it is not kept.
    #[inline(always)]
    fn second(&self, places: &Places) -> u32 {
        let hash = places.hash.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        scaled(hash, self.buckets.len()) as u32
    }

    /// Asks for the bucket in which most keys stand.
    #[inline]
    pub fn prefetch_first(&self, places: &Places) {
        self.prefetch(places.first);
    }

    /// Asks for the other bucket.
    #[inline]
    pub fn prefetch_second(&self, places: &Places) {
        self.prefetch(self.second(places));
    }

    #[inline(always)]
    fn prefetch(&self, bucket: u32) {
        if let Some(bucket) = self.buckets.get(bucket as usize) {
            memory::prefetch(bucket);
        }
    }

    /// The live entry of this key.
    #[inline(always)]
    pub fn find(&self, key: &[u64; K], places: Places) -> Option<Hit<V>> {
        self.find_first(key, &places).or_else(|| self.find_second(key, &places))
    }

    /// The live entry of this key, if it stands in the first of its buckets.
    #[inline(always)]
    pub fn find_first(&self, key: &[u64; K], places: &Places) -> Option<Hit<V>> {
        self.find_in(key, places.first)
    }

    /// The live entry of this key, if it stands in the second of its buckets.
    #[inline(always)]
    pub fn find_second(&self, key: &[u64; K], places: &Places) -> Option<Hit<V>> {
        self.find_in(key, self.second(places))
    }

    #[inline(always)]
    fn find_in(&self, key: &[u64; K], bucket: u32) -> Option<Hit<V>> {
        let entries = &self.buckets.get(bucket as usize)?.0;
        for (slot, entry) in entries.iter().enumerate() {
            if entry.may_be(key)
                && let Some((control, value)) = entry.live(key)
            {
                return Some(Hit { at: Place { bucket, slot: slot as u8 }, control, value });
            }
        }
        None
    }

    /// Enters a flow that [`Self::find`] did not find. Of two inserts of one key at once at most one succeeds.
    pub fn insert(
        &self,
        flow: &NewFlow<K, V>,
        places: Places,
        now: Seconds,
        limits: &IdleLimits,
    ) -> Inserted {
        let NewFlow { key, value, backend } = flow;
        let backend = *backend;
        let Some(Claimed { at: mine, control, evicting }) = self.claim(places, now, limits) else {
            return Inserted::Full;
        };
        let entry = self.entry(mine);
        fence(Ordering::Release);
        for (word, &stored) in entry.key.iter().zip(key).chain(entry.value.iter().zip(value)) {
            word.store(stored, Ordering::Relaxed);
        }
        let tentative = Control::new(backend, now, State::Tentative, control.version());
        entry.control.store(tentative.0, Ordering::Release);
        fence(Ordering::SeqCst);
        if let Some(winner) = self.yield_to_other(key, places, mine) {
            let _ = entry.swap(tentative, tentative.emptied());
            return Inserted::Lost(winner);
        }
        if entry.swap(tentative, tentative.with_state(State::Unconfirmed)).is_err() {
            return Inserted::Lost(self.contender(key, &places).unwrap_or(backend));
        }
        if evicting { Inserted::Evicting } else { Inserted::New }
    }

    /// Replaces what an entry says, if it still says what the hit saw; otherwise what it says now is
    /// returned, `None` if it is no longer this flow's.
    pub fn update(&self, hit: Hit<V>, control: Control) -> Result<(), Option<Hit<V>>> {
        debug_assert_eq!(hit.control.version(), control.version());
        self.entry(hit.at).swap(hit.control, control).map_err(|current| {
            let same = current.version() == hit.control.version() && current.state().is_live();
            same.then_some(Hit { control: current, ..hit })
        })
    }

    /// Replaces one word of the value, if it is still what the hit saw. If the entry has just become another flow's or
    /// another backend's with the same word, the word is put back: until this worker gets on, it may be seen.
    pub fn replace(&self, hit: &Hit<V>, index: usize, word: u64) {
        let (entry, before) = (self.entry(hit.at), hit.value[index]);
        let stored = &entry.value[index];
        if stored.compare_exchange(before, word, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        let control = Control(entry.control.load(Ordering::Acquire));
        if control.version() != hit.control.version() || control.backend() != hit.control.backend() {
            let _ = stored.compare_exchange(word, before, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Visits the live entries of bucket `index`; buckets are numbered `0..self.buckets()`.
    pub fn visit(&self, index: usize, mut visit: impl FnMut([u64; K], Hit<V>)) {
        for slot in 0..BUCKET {
            let at = Place { bucket: index as u32, slot: slot as u8 };
            if let Some((control, key, value)) = self.entry(at).read(State::is_live) {
                visit(key, Hit { at, control, value });
            }
        }
    }

    /// How many buckets there are.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Forgets the flow of a hit, unless a packet came meanwhile.
    pub fn remove(&self, hit: Hit<V>) -> bool {
        self.entry(hit.at).swap(hit.control, hit.control.emptied()).is_ok()
    }

    fn entry(&self, at: Place) -> &Entry<K, V> {
        &self.buckets[at.bucket as usize].0[usize::from(at.slot)]
    }

    /// All places, in the order in which they count.
    fn slots(&self, places: &Places) -> impl Iterator<Item = Place> + use<K, V> {
        let (first, second) = (places.first, self.second(places));
        let count = if first == second { BUCKET } else { 2 * BUCKET };
        (0..count).map(move |at| Place {
            bucket: if at < BUCKET { first } else { second },
            slot: (at % BUCKET) as u8,
        })
    }

    /// The backend of whoever has this key, or is about to.
    fn contender(&self, key: &[u64; K], places: &Places) -> Option<BackendId> {
        self.slots(places).find_map(|at| {
            let (control, _) = self.entry(at).matches(key, is_taken)?;
            Some(control.backend())
        })
    }

    /// Claims the best place that may be had: free or timed out, else an unconfirmed flow's.
    fn claim(&self, places: Places, now: Seconds, limits: &IdleLimits) -> Option<Claimed> {
        // Each failed swap means that another worker changed the place, so the places are read again; after
        // as many tries as there are places the flow is served statelessly rather than contended for.
        for _ in 0..2 * BUCKET {
            let found = self.claimable(&places, now, limits)?;
            let claimed = found.control.claimed();
            if self.entry(found.at).swap(found.control, claimed).is_ok() {
                return Some(Claimed { control: claimed, ..found });
            }
        }
        None
    }

    /// A free place in the first bucket as long as half of it is free, which makes it likely to be the one that a
    /// packet reads; else one in the emptier bucket, so that buckets fill evenly and hardly any is full before the
    /// table is (Azar et al., "Balanced Allocations", 1994).
    fn claimable(&self, places: &Places, now: Seconds, limits: &IdleLimits) -> Option<Claimed> {
        let first = self.survey(places.first, now, limits);
        if first.free >= BUCKET / 2 {
            return first.place;
        }
        let second = self.survey(self.second(places), now, limits);
        let emptier = if second.free > first.free { second.place } else { first.place };
        emptier.or_else(|| match (first.victim, second.victim) {
            (Some(one), Some(other)) => {
                Some(if one.control.idle_s(now) < other.control.idle_s(now) { other } else { one })
            }
            (one, other) => one.or(other),
        })
    }

    fn survey(&self, bucket: u32, now: Seconds, limits: &IdleLimits) -> Survey {
        let mut survey = Survey::default();
        for (slot, entry) in self.buckets[bucket as usize].0.iter().enumerate() {
            let at = Place { bucket, slot: slot as u8 };
            let control = Control(entry.control.load(Ordering::Acquire));
            let is_free = control.is_empty()
                || control.is_live() && control.idle_s(now) >= limits[control.state() as usize];
            if is_free {
                survey.free += 1;
                survey.place.get_or_insert(Claimed { at, control, evicting: false });
            } else if control.state() == State::Unconfirmed
                && survey.victim.is_none_or(|victim| victim.control.idle_s(now) < control.idle_s(now))
            {
                survey.victim = Some(Claimed { at, control, evicting: true });
            }
        }
        survey
    }

    /// Step 3 of inserting: the backend of an entry that wins over `mine`, if there is one.
    fn yield_to_other(&self, key: &[u64; K], places: Places, mine: Place) -> Option<BackendId> {
        let (first, second) = (places.first, self.second(&places));
        let among = |bucket: u32| {
            let entries = self.buckets[bucket as usize].0.iter().enumerate();
            entries.filter(|(_, entry)| entry.may_be(key)).find_map(|(slot, _)| {
                let at = Place { bucket, slot: slot as u8 };
                let earlier = if bucket == mine.bucket { at.slot < mine.slot } else { bucket == first };
                if at == mine { None } else { self.contest(key, at, earlier) }
            })
        };
        among(first).or_else(|| if second == first { None } else { among(second) })
    }

    /// The backend of the entry at a place, if it is the key's and wins over ours, before whose place it is or not.
    #[inline(never)]
    fn contest(&self, key: &[u64; K], at: Place, earlier: bool) -> Option<BackendId> {
        let entry = self.entry(at);
        while let Some((control, _)) = entry.matches(key, is_taken) {
            if control.state() != State::Tentative || earlier {
                return Some(control.backend());
            }
            if entry.swap(control, control.emptied()).is_ok() {
                break;
            }
        }
        None
    }
}

/// What a bucket has for an insert.
#[derive(Default)]
struct Survey {
    /// Places that are empty or timed out.
    free: usize,
    /// The first of them.
    place: Option<Claimed>,
    /// The longest idle unconfirmed flow's.
    victim: Option<Claimed>,
}

/// Somebody's key stands there, or is about to.
fn is_taken(state: State) -> bool {
    state.is_live() || state == State::Tentative
}

/// A place that an insert may have, or has.
#[derive(Clone, Copy)]
struct Claimed {
    at: Place,
    control: Control,
    /// It is an unconfirmed flow's.
    evicting: bool,
}

impl<const K: usize, const V: usize> Entry<K, V> {
    /// Whether the key is this one at a glance, which proves nothing.
    #[inline(always)]
    fn may_be(&self, key: &[u64; K]) -> bool {
        self.key.iter().zip(key).all(|(stored, word)| stored.load(Ordering::Relaxed) == *word)
    }

    /// Control and value, if this is the key's entry, is live and did not change hands meanwhile.
    #[inline(always)]
    fn live(&self, key: &[u64; K]) -> Option<(Control, [u64; V])> {
        let control = Control(self.control.load(Ordering::Acquire));
        if !control.is_live() || !self.may_be(key) {
            return None;
        }
        let value = std::array::from_fn(|i| self.value[i].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        // The later word, so that whoever sees a new value sees what it goes with.
        let after = Control(self.control.load(Ordering::Relaxed));
        (after.is_live() && after.version() == control.version()).then_some((after, value))
    }

    /// Control, key and value, if the state is wanted and nobody changed hands meanwhile.
    #[inline(always)]
    fn read(&self, wanted: impl Fn(State) -> bool) -> Option<(Control, [u64; K], [u64; V])> {
        let before = Control(self.control.load(Ordering::Acquire));
        if !wanted(before.state()) {
            return None;
        }
        let key = std::array::from_fn(|i| self.key[i].load(Ordering::Relaxed));
        let value = std::array::from_fn(|i| self.value[i].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let after = Control(self.control.load(Ordering::Relaxed));
        (after.version() == before.version() && wanted(after.state())).then_some((after, key, value))
    }

    /// Control and value, if this is the key's entry and its state is wanted.
    #[inline(always)]
    fn matches(&self, key: &[u64; K], wanted: impl Fn(State) -> bool) -> Option<(Control, [u64; V])> {
        self.read(wanted).and_then(|(control, stored, value)| (stored == *key).then_some((control, value)))
    }

    fn swap(&self, expected: Control, new: Control) -> Result<(), Control> {
        let swapped = self.control.compare_exchange(expected.0, new.0, Ordering::AcqRel, Ordering::Acquire);
        swapped.map(drop).map_err(Control)
    }
}

impl<const K: usize, const V: usize> Default for Bucket<K, V> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Entry {
            control: AtomicU64::new(0),
            key: std::array::from_fn(|_| AtomicU64::new(0)),
            value: std::array::from_fn(|_| AtomicU64::new(0)),
        }))
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests;
