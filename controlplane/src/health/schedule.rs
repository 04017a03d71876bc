//! Which check is due, and when the next one is. Pure, without a clock.
//!
//! Every check has instants of its own, one interval apart, at an offset that follows from a hash: thousands
//! of checks that are added at once start evenly over the interval, the same way after every restart. An
//! instant follows from the one before, never from when a probe began or ended, so that nothing drifts.
//!
//! The first probe of a check does not wait for its place in the interval: it comes within the time that
//! whoever adds it allows, and half an interval later at the earliest the check is in its place.
//!
//! A probe that still runs when its check is due again stands for that instant too: the instant is left out
//! and counted. So is every instant that passed while nobody asked, as when the process was stopped.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

/// Shortest interval: below, a check would be due again before it is asked about.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Names a check; never given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

/// A check to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which one.
    pub id: Id,
    /// When it should have started.
    pub deadline: Instant,
}

/// The instants of all checks.
#[derive(Debug, Default)]
pub struct Schedule {
    /// The next instant of each check, the earliest on top; also some of checks that are gone.
    queue: BinaryHeap<Reverse<(Instant, Id)>>,
    checks: HashMap<Id, Entry>,
    left_out: u64,
}

#[derive(Debug)]
struct Entry {
    interval: Duration,
    /// One of its instants; all others are whole intervals later.
    place: Instant,
    running: bool,
}

impl Schedule {
    /// Adds a check that is not in yet. `hash` gives its place in the interval; the first probe is due within
    /// `first_within`, at the same fraction of it.
    pub fn add(&mut self, id: Id, interval: Duration, hash: u64, first_within: Duration, now: Instant) {
        let interval = interval.max(INTERVAL_MIN);
        let place = now + fraction(interval, hash);
        let first = now + fraction(first_within.min(interval), hash);
        let before = self.checks.insert(id, Entry { interval, place, running: false });
        assert!(before.is_none(), "{id:?} is scheduled already");
        self.queue.push(Reverse((first, id)));
    }

    /// Removes a check, whether it runs or not.
    pub fn remove(&mut self, id: Id) {
        self.checks.remove(&id);
        while self.queue.peek().is_some_and(|Reverse((_, id))| !self.checks.contains_key(id)) {
            self.queue.pop();
        }
    }

    /// The earliest instant of all; `None` without checks.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// The checks to start now, which count as running until [`Self::finished`].
    pub fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        while let Some(&Reverse((deadline, id))) = self.queue.peek() {
            if deadline > now {
                break;
            }
            self.queue.pop();
            let Some(entry) = self.checks.get_mut(&id) else { continue };
            let (next, missed) = entry.next(deadline, now);
            self.queue.push(Reverse((next, id)));
            self.left_out += missed + u64::from(entry.running);
            if !entry.running {
                entry.running = true;
                due.push(Due { id, deadline });
            }
        }
        due
    }

    /// The probe of a check has ended. Nothing happens if the check is gone.
    pub fn finished(&mut self, id: Id) {
        if let Some(entry) = self.checks.get_mut(&id) {
            entry.running = false;
        }
    }

    /// Instants at which no probe began, as one still ran or nobody asked.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl Entry {
    /// The instant after `deadline` that is yet to come, and how many are left out in between.
    fn next(&self, deadline: Instant, now: Instant) -> (Instant, u64) {
        // Half an interval matters after the first probe only: every later deadline is in its place.
        let planned = self.not_before(deadline + self.interval / 2);
        if planned > now {
            return (planned, 0);
        }
        let next = self.not_before(now + Duration::from_nanos(1));
        let missed = next.duration_since(planned).as_nanos() / self.interval.as_nanos();
        (next, u64::try_from(missed).unwrap_or(u64::MAX))
    }

    /// The earliest of its instants that is not before `earliest`.
    fn not_before(&self, earliest: Instant) -> Instant {
        let ahead = earliest.saturating_duration_since(self.place);
        let steps = ahead.as_nanos().div_ceil(self.interval.as_nanos());
        let nanos = steps * self.interval.as_nanos();
        self.place + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// So much of `whole` as `hash` is of all hashes.
fn fraction(whole: Duration, hash: u64) -> Duration {
    let nanos = (whole.as_nanos() * u128::from(hash)) >> u64::BITS;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
