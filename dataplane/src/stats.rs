//! Counters of the workers: one cache-padded block each, written by its worker alone, read by anybody.
//!
//! A worker counts a batch in plain integers ([`Tally`]) and adds them to its block once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use shunt_api::counters::{Counter, CounterValues, DropReason};

/// What happened in one batch.
#[derive(Clone, Debug)]
pub struct Tally {
    counters: [u64; Counter::COUNT],
    drops: [u64; DropReason::COUNT],
}

impl Default for Tally {
    fn default() -> Self {
        Self { counters: [0; Counter::COUNT], drops: [0; DropReason::COUNT] }
    }
}

impl Tally {
    /// Adds to a counter.
    pub fn add(&mut self, counter: Counter, amount: u64) {
        self.counters[counter as usize] += amount;
    }

    /// Counts a dropped packet.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
}

/// One worker's block.
#[derive(Debug)]
pub struct WorkerStats {
    counters: [AtomicU64; Counter::COUNT],
    drops: [AtomicU64; DropReason::COUNT],
    /// Sequence of the last `Forwarding` of which the worker finished a batch; see `worker`.
    pub seen: AtomicU64,
    /// Grows with every round of the worker's loop.
    pub heartbeat: AtomicU64,
    /// The worker sleeps until a packet comes.
    pub waiting: AtomicBool,
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self {
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
            drops: std::array::from_fn(|_| AtomicU64::new(0)),
            seen: AtomicU64::new(0),
            heartbeat: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
        }
    }
}

impl WorkerStats {
    /// Adds a batch and empties the tally. Only the block's own worker may call this.
    #[inline]
    pub fn absorb(&self, tally: &mut Tally) {
        let counters = self.counters.iter().zip(&mut tally.counters);
        let drops = self.drops.iter().zip(&mut tally.drops);
        for (total, amount) in counters.chain(drops).filter(|(_, amount)| **amount > 0) {
            total.store(total.load(Relaxed) + std::mem::take(amount), Relaxed);
        }
    }

    /// Packets dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    /// The value of one counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Relaxed)
    }

    /// All values; the reasons and counters of one batch may be seen partly.
    pub fn values(&self) -> CounterValues {
        let named = |name: &str, value: &AtomicU64| (name.to_owned(), value.load(Relaxed));
        CounterValues {
            counters: Counter::ALL.iter().map(|&c| named(c.name(), &self.counters[c as usize])).collect(),
            drops: DropReason::ALL.iter().map(|&r| named(r.name(), &self.drops[r as usize])).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_add_up() {
        let stats = WorkerStats::default();
        let mut tally = Tally::default();
        for _ in 0..3 {
            tally.add(Counter::RxPackets, 2);
            tally.drop(DropReason::IcmpUnhandled);
            stats.absorb(&mut tally);
        }
        let values = stats.values();
        assert_eq!((values.counter(Counter::RxPackets), values.dropped(DropReason::IcmpUnhandled)), (6, 3));
        assert_eq!((values.counter(Counter::TxWakeups), values.dropped_total()), (0, 3));
    }
}
