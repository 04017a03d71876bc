//! When to ask the kernel for which routes: changes are collected and asked for in rounds. Pure.
//!
//! A routing daemon that loads a full table causes a million events; they must not become a question each.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long changes are collected before a round of questions; a person does not see it, a burst fits in.
const COLLECT: Duration = Duration::from_millis(20);
/// After a round that took `t`, no further one for this many times `t`: at most a fifth of a core under any
/// storm of events.
const PAUSE_FACTOR: u32 = 4;

/// The addresses whose routes have to be asked for.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    open: BTreeSet<IpAddr>,
    due: Option<Instant>,
    asked: Option<Instant>,
    not_before: Option<Instant>,
}

impl Rounds {
    /// The routes of `addresses` may have changed.
    pub fn suspect(&mut self, addresses: impl IntoIterator<Item = IpAddr>, now: Instant) {
        self.open.extend(addresses);
        if self.due.is_none() && !self.open.is_empty() {
            let collected = now + COLLECT;
            self.due = Some(self.not_before.map_or(collected, |earliest| earliest.max(collected)));
        }
    }

    /// Nothing is known of `addresses` yet: ask without delay.
    pub fn start(&mut self, addresses: impl IntoIterator<Item = IpAddr>, now: Instant) {
        self.open.extend(addresses);
        if !self.open.is_empty() {
            self.due = Some(now);
        }
    }

    /// Nobody wants `address` any more.
    pub fn forget(&mut self, address: &IpAddr) {
        self.open.remove(address);
        if self.open.is_empty() {
            self.due = None;
        }
    }

    /// The questions to ask now: all that were collected, or none.
    pub fn take_due(&mut self, now: Instant) -> Vec<IpAddr> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = None;
        self.asked = Some(now);
        std::mem::take(&mut self.open).into_iter().collect()
    }

    /// An answer of the current round came in; the last one measures the round.
    pub fn answered(&mut self, now: Instant) {
        self.not_before = self.asked.map(|asked| now + (now - asked) * PAUSE_FACTOR);
    }

    /// When [`Rounds::take_due`] will have something.
    pub fn next(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_of_changes_becomes_one_round() {
        let (mut rounds, start) = (Rounds::default(), Instant::now());
        for microseconds in 0..10_000u64 {
            let now = start + Duration::from_micros(microseconds);
            rounds.suspect([ip("10.0.0.1"), ip("10.0.0.2")], now);
            assert!(rounds.take_due(now).is_empty());
        }
        assert_eq!(rounds.next(), Some(start + COLLECT));
        assert_eq!(rounds.take_due(start + COLLECT), [ip("10.0.0.1"), ip("10.0.0.2")]);
        assert_eq!(rounds.next(), None);
    }

    #[test]
    fn a_long_round_is_followed_by_a_longer_pause() {
        let (mut rounds, start) = (Rounds::default(), Instant::now());
        rounds.start([ip("10.0.0.1")], start);
        assert_eq!(rounds.take_due(start).len(), 1);
        let done = start + Duration::from_millis(50);
        rounds.answered(start + Duration::from_millis(1));
        rounds.answered(done);
        rounds.suspect([ip("10.0.0.1")], done);
        assert_eq!(rounds.next(), Some(done + Duration::from_millis(200)));
        rounds.start([ip("10.0.0.2")], done);
        assert_eq!(rounds.next(), Some(done), "a new address does not wait");
    }

    #[test]
    fn an_address_that_is_no_longer_wanted_is_not_asked_for() {
        let (mut rounds, start) = (Rounds::default(), Instant::now());
        rounds.start([ip("10.0.0.1")], start);
        rounds.forget(&ip("10.0.0.1"));
        assert_eq!(rounds.next(), None);
        assert!(rounds.take_due(start).is_empty());
    }
}
