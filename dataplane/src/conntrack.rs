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
#[cfg(all(test, feature = "loom"))]
mod loom_tests;

pub use control::{BackendId, Control, Seconds, State};

use ahash::RandomState;

use crate::sync::{AtomicU64, Ordering, fence};

/// Entries of a bucket. Two cache lines of IPv4 entries; two in the model checker, to bound its work.
const BUCKET: usize = if cfg!(feature = "loom") { 2 } else { 4 };

/// Idle seconds after which an entry of each state may go, by `State as usize`.
pub type IdleLimits = [u32; State::COUNT];

/// Flows whose key is `K` words and whose value is `V`.
pub struct FlowTable<const K: usize, const V: usize> {
    buckets: Box<[Bucket<K, V>]>,
    seed: RandomState,
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
    second: u32,
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
    /// Another worker was faster, or the key is in use.
    Lost(BackendId),
    /// All places hold confirmed flows.
    Full,
}

impl<const K: usize, const V: usize> FlowTable<K, V> {
    /// Room for `flows` in five eighths of the places, at which one flow in two thousand finds both its buckets
    /// full. All memory is taken and touched here.
    pub fn new(flows: usize, seed: RandomState) -> Self {
        let buckets = (flows * 8 / 5).div_ceil(BUCKET).max(1);
        Self { buckets: (0..buckets).map(|_| Bucket::default()).collect(), seed }
    }

    /// Places in all.
    pub fn capacity(&self) -> usize {
        self.buckets.len() * BUCKET
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Where a key can stand.
    pub fn places(&self, key: &[u64; K]) -> Places {
        let hash = self.seed.hash_one(key);
        let bucket = |hash: u64| ((u128::from(hash) * self.buckets.len() as u128) >> 64) as u32;
        let second = hash.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Places { first: bucket(hash), second: bucket(second), hash }
    }

    /// The live entry of this key.
    pub fn find(&self, key: &[u64; K], places: Places) -> Option<Hit<V>> {
        self.search(key, places, State::is_live)
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
            let winner = self.search(key, places, |state| state.is_live() || state == State::Tentative);
            return Inserted::Lost(winner.map_or(backend, |hit| hit.control.backend()));
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

    /// Replaces one word of the value, if it is still what the hit saw. Only for a word that any flow may have
    /// without harm: the entry may have become another flow's with the same word just before.
    pub fn replace(&self, hit: &Hit<V>, index: usize, word: u64) {
        let stored = &self.entry(hit.at).value[index];
        let _ = stored.compare_exchange(hit.value[index], word, Ordering::AcqRel, Ordering::Relaxed);
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

    fn slots(&self, places: Places) -> impl Iterator<Item = Place> {
        let one = places.first == places.second;
        let buckets = [Some(places.first), (!one).then_some(places.second)];
        buckets
            .into_iter()
            .flatten()
            .flat_map(move |bucket| (0..BUCKET as u8).map(move |slot| Place { bucket, slot }))
    }

    fn search(&self, key: &[u64; K], places: Places, wanted: impl Fn(State) -> bool) -> Option<Hit<V>> {
        self.slots(places).find_map(|at| {
            let (control, value) = self.entry(at).matches(key, &wanted)?;
            Some(Hit { at, control, value })
        })
    }

    /// Claims the best place that may be had: free or timed out, else the longest idle unconfirmed flow's.
    fn claim(&self, places: Places, now: Seconds, limits: &IdleLimits) -> Option<Claimed> {
        // Each failed swap means that another worker changed the place, so the places are read again; after
        // as many tries as there are places the flow is served statelessly rather than contended for.
        for _ in 0..2 * BUCKET {
            let found = self.claimable(places, now, limits)?;
            let claimed = found.control.claimed();
            if self.entry(found.at).swap(found.control, claimed).is_ok() {
                return Some(Claimed { control: claimed, ..found });
            }
        }
        None
    }

    /// Of the free places one in the emptier bucket: so buckets fill evenly, and hardly any is full before the
    /// table is (Azar et al., "Balanced Allocations", 1994).
    fn claimable(&self, places: Places, now: Seconds, limits: &IdleLimits) -> Option<Claimed> {
        let mut free: [(usize, Option<Claimed>); 2] = [(0, None); 2];
        let mut victim: Option<Claimed> = None;
        for at in self.slots(places) {
            let control = Control(self.entry(at).control.load(Ordering::Acquire));
            let state = control.state();
            let timed_out = state.is_live() && control.idle_s(now) >= limits[state as usize];
            if state == State::Empty || timed_out {
                let (count, first) = &mut free[usize::from(at.bucket != places.first)];
                *count += 1;
                first.get_or_insert(Claimed { at, control, evicting: false });
            } else if state == State::Unconfirmed
                && victim.is_none_or(|victim| victim.control.idle_s(now) < control.idle_s(now))
            {
                victim = Some(Claimed { at, control, evicting: true });
            }
        }
        let [first, second] = free;
        let emptier = if second.0 > first.0 { second.1 } else { first.1 };
        emptier.or(victim)
    }

    /// Step 3 of inserting: the backend of an entry that wins over `mine`, if there is one.
    fn yield_to_other(&self, key: &[u64; K], places: Places, mine: Place) -> Option<BackendId> {
        let mut earlier = true;
        for at in self.slots(places) {
            if at == mine {
                earlier = false;
                continue;
            }
            let entry = self.entry(at);
            let contends = |state: State| state.is_live() || state == State::Tentative;
            while let Some((control, _)) = entry.matches(key, contends) {
                if control.state() != State::Tentative || earlier {
                    return Some(control.backend());
                }
                if entry.swap(control, control.emptied()).is_ok() {
                    break;
                }
            }
        }
        None
    }
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
    /// Control, key and value, if the state is wanted and nobody changed hands meanwhile.
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
