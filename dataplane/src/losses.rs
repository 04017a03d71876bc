//! Counts that are a problem only while they grow, such as packets on a queue that nobody serves: one that
//! was lost an hour ago is no reason to call a box unhealthy now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a loss counts as present.
const MEMORY: Duration = Duration::from_secs(10);

/// The last count by name, and when it last grew.
#[derive(Debug, Default)]
pub struct Losses(BTreeMap<String, (u64, Option<Instant>)>);

impl Losses {
    /// Takes the count of today.
    pub fn note(&mut self, name: &str, count: u64, now: Instant) {
        let (last, grew) = self.0.entry(name.to_owned()).or_default();
        if count > *last {
            *grew = Some(now);
        }
        *last = count;
    }

    /// Whether it grew lately.
    pub fn are_growing(&self, name: &str, now: Instant) -> bool {
        self.0.get(name).and_then(|(_, grew)| *grew).is_some_and(|grew| now.duration_since(grew) < MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_present_for_a_while_after_it_grew() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        losses.note("eth1", 0, start);
        assert!(!losses.are_growing("eth1", start));
        losses.note("eth1", 3, start);
        losses.note("eth1", 3, start + MEMORY / 2);
        assert!(losses.are_growing("eth1", start + MEMORY / 2));
        assert!(!losses.are_growing("eth1", start + MEMORY));
        // The program was loaded anew and counts from the beginning.
        losses.note("eth1", 0, start + MEMORY);
        assert!(!losses.are_growing("eth1", start + MEMORY));
    }
}
