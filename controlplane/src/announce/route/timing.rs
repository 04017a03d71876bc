//! When to look at the table again. Pure: `now` is an argument.

use std::time::{Duration, Instant};

/// Without any sign of change: some changes have none, such as the kernel's own when interfaces go.
pub const READ_EVERY: Duration = Duration::from_secs(30);
/// After a sign of change: others often follow.
const SETTLE: Duration = Duration::from_millis(100);
/// From one look to the next that a sign of change leads to: nobody is fought with faster.
const READ_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// After a failure, doubled by each that follows.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// The time of the next look, and what it depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    due: Option<Instant>,
    last: Option<Instant>,
    failures: u32,
}

impl Timing {
    /// When to look; `None`: not before something asks for it.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something else is wanted.
    pub fn look_now(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// Nothing is wanted, or nobody knows what.
    pub fn rest(&mut self) {
        self.due = None;
    }

    /// The table changed, and not by us. While at rest that means nothing.
    pub fn table_changed(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| last + READ_AT_MOST_EVERY);
        let soon = earliest.max(now + SETTLE);
        self.due = self.due.map(|due| due.min(soon));
    }

    /// All is as wanted.
    pub fn succeeded(&mut self, now: Instant) {
        *self = Self { due: Some(now + READ_EVERY), last: Some(now), failures: 0 };
    }

    /// Something is not.
    pub fn failed(&mut self, now: Instant) {
        let wait = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_LONGEST);
        *self = Self { due: Some(now + wait), last: Some(now), failures: self.failures.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn changes_are_looked_at_soon_but_not_all_the_time() {
        let start = Instant::now();
        let mut timing = Timing::default();
        timing.table_changed(start);
        assert_eq!(timing.due(), None, "nothing is wanted yet");
        timing.look_now(start);
        assert_eq!(timing.due(), Some(start));
        timing.succeeded(start);
        assert_eq!(timing.due(), Some(start + READ_EVERY));
        timing.table_changed(start + 10 * MS);
        assert_eq!(timing.due(), Some(start + 1000 * MS));
        timing.table_changed(start + 5000 * MS);
        assert_eq!(timing.due(), Some(start + 1000 * MS), "what is due sooner stays so");
        timing.succeeded(start);
        timing.table_changed(start + 5000 * MS);
        assert_eq!(timing.due(), Some(start + 5100 * MS));
        timing.rest();
        timing.table_changed(start + 5000 * MS);
        assert_eq!(timing.due(), None);
    }

    #[test]
    fn failures_are_retried_ever_more_seldom() {
        let start = Instant::now();
        let mut timing = Timing::default();
        let mut wait = || {
            timing.failed(start);
            (timing.due().unwrap() - start).as_secs()
        };
        let waits: Vec<_> = std::iter::repeat_with(&mut wait).take(8).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        timing.failures = u32::MAX;
        timing.failed(start);
        assert_eq!(timing.due(), Some(start + RETRY_LONGEST));
        timing.succeeded(start);
        timing.failed(start);
        assert_eq!(timing.due(), Some(start + RETRY_FIRST));
    }
}
