//! When to ask the kernel about which neighbour in use. Pure.
//!
//! Traffic through AF_XDP does not pass the kernel's neighbour table, so the kernel would never notice by
//! itself that a neighbour moved; being asked makes it probe. The questions are spread over time.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::entry::Need;

/// A neighbour: the device it is reached by (a NIC, or a VLAN device), and its address there (a gateway's or a
/// backend's).
pub(super) type Key = (u32, IpAddr);

/// Least time between two questions about a neighbour whose MAC address is in doubt. The kernel turns one
/// question into DELAY and three unicast probes, which take about as long.
const CONFIRM_EVERY: Duration = Duration::from_secs(5);
/// Least time between two tries to resolve, which is the kernel's own distance between two probes.
const RESOLVE_EVERY: Duration = Duration::from_secs(1);
/// A neighbour that was lost is looked up this much later. `ip neigh flush` deletes in rounds until it finds
/// nothing more, and gives up if every round finds the entries made anew.
const AFTER_LOSS: Duration = Duration::from_millis(20);
/// At most this many questions at a time, so that thousands of backends do not cause one storm of ARP.
const BURST: usize = 128;
/// Least time between two bursts.
const BURST_EVERY: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Plan {
    need: Need,
    asked: Option<Instant>,
    due: Option<Instant>,
}

/// The neighbours in use, each with the time of its next question.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    plans: BTreeMap<Key, Plan>,
    queue: BTreeSet<(Instant, Key)>,
    not_before: Option<Instant>,
}

impl Schedule {
    /// Whether the neighbour is in use.
    pub fn contains(&self, key: &Key) -> bool {
        self.plans.contains_key(key)
    }

    /// From now on exactly `keys` are in use.
    pub fn keep(&mut self, keys: &BTreeSet<Key>) {
        self.plans.retain(|key, _| keys.contains(key));
        self.queue.retain(|(_, key)| keys.contains(key));
    }

    /// Neighbour `key` is in use and needs `need`: resolving starts at once (almost, if it was
    /// known before), confirming waits its turn. Nothing is moved if it needed the same before.
    pub fn plan(&mut self, key: Key, need: Need, now: Instant) {
        let lost = self.contains(&key);
        let plan = self.plans.entry(key).or_insert(Plan { need: Need::Nothing, asked: None, due: None });
        if plan.need == need {
            return;
        }
        let due = match need {
            Need::Nothing => None,
            Need::Confirm => {
                let turn = now + share(&key, CONFIRM_EVERY);
                Some(plan.asked.map_or(turn, |asked| turn.max(asked + CONFIRM_EVERY)))
            }
            Need::Resolve if lost => Some(now + AFTER_LOSS),
            Need::Resolve => Some(now),
        };
        let before = plan.due;
        (plan.need, plan.due) = (need, due);
        self.requeue(key, before, due);
    }

    /// The neighbours to ask about now; each is due again later until its need changes.
    pub fn take_due(&mut self, now: Instant) -> Vec<Key> {
        let mut keys = Vec::new();
        if self.not_before.is_some_and(|earliest| earliest > now) {
            return keys;
        }
        while let Some(&(due, key)) = self.queue.first()
            && due <= now
            && keys.len() < BURST
        {
            self.ask_again_later(key, now);
            keys.push(key);
        }
        if keys.len() == BURST {
            self.not_before = Some(now + BURST_EVERY);
        }
        keys
    }

    /// When [`Schedule::take_due`] will have something.
    pub fn next(&self) -> Option<Instant> {
        let &(due, _) = self.queue.first()?;
        Some(self.not_before.map_or(due, |earliest| earliest.max(due)))
    }

    fn ask_again_later(&mut self, key: Key, now: Instant) {
        let plan = self.plans.get_mut(&key).expect("what is queued is planned");
        let wait = match plan.need {
            Need::Resolve => RESOLVE_EVERY,
            Need::Confirm | Need::Nothing => CONFIRM_EVERY,
        };
        // Up to a fifth more, so that neighbours first asked about together drift apart.
        let due = now + wait + share(&key, wait / 5);
        let before = plan.due.replace(due);
        plan.asked = Some(now);
        self.requeue(key, before, Some(due));
    }

    fn requeue(&mut self, key: Key, before: Option<Instant>, after: Option<Instant>) {
        if let Some(before) = before {
            self.queue.remove(&(before, key));
        }
        if let Some(after) = after {
            self.queue.insert((after, key));
        }
    }
}

/// A part of `whole` that is always the same for `key` and evenly spread over all keys.
fn share(key: &Key, whole: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let thousandth = u32::try_from(hasher.finish() % 1000).expect("below 1000");
    whole * thousandth / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(host: u16) -> Key {
        let [high, low] = host.to_be_bytes();
        (7, IpAddr::from([10, 0, high, low]))
    }

    /// Instants relative to `start` at which `key` is asked about until `end`.
    fn times(schedule: &mut Schedule, start: Instant, end: Duration) -> Vec<Duration> {
        let mut times = Vec::new();
        while let Some(next) = schedule.next()
            && next - start < end
        {
            times.extend(schedule.take_due(next).iter().map(|_| next - start));
        }
        times
    }

    #[test]
    fn resolving_starts_at_once_and_is_tried_again_each_second() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.plan(key(1), Need::Resolve, start);
        let times = times(&mut schedule, start, Duration::from_secs(10));
        assert_eq!(times[0], Duration::ZERO);
        assert!((8..=10).contains(&times.len()), "{times:?}");
    }

    #[test]
    fn confirming_waits_its_turn_and_is_never_asked_twice_in_five_seconds() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        for host in 0..1000 {
            schedule.plan(key(host), Need::Confirm, start);
        }
        let first = times(&mut schedule, start, CONFIRM_EVERY);
        assert_eq!(first.len(), 1000, "each once within the first five seconds");
        let busiest = (0..50).map(|slot| first.iter().filter(|t| t.as_millis() / 100 == slot).count()).max();
        assert!(busiest < Some(50), "{busiest:?} of 1000 in one tenth of a second");

        let again = start + CONFIRM_EVERY;
        schedule.plan(key(1), Need::Nothing, again);
        schedule.plan(key(1), Need::Confirm, again);
        let asked = schedule.plans[&key(1)].asked.unwrap();
        assert!(schedule.plans[&key(1)].due.unwrap() >= asked + CONFIRM_EVERY);
    }

    #[test]
    fn a_need_that_stays_moves_nothing_and_one_that_ends_is_not_asked() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.plan(key(1), Need::Resolve, start);
        assert_eq!(schedule.take_due(start), [key(1)]);
        let due = schedule.next();
        schedule.plan(key(1), Need::Resolve, start + Duration::from_millis(500));
        assert_eq!(schedule.next(), due);
        schedule.plan(key(1), Need::Nothing, start + Duration::from_millis(600));
        assert_eq!(schedule.next(), None);
        let lost_again = start + Duration::from_millis(700);
        schedule.plan(key(1), Need::Resolve, lost_again);
        assert_eq!(schedule.next(), Some(lost_again + AFTER_LOSS));
        schedule.keep(&BTreeSet::new());
        assert_eq!((schedule.next(), schedule.contains(&key(1))), (None, false));
    }

    #[test]
    fn thousands_to_resolve_go_out_in_bursts() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        for host in 0..5000 {
            schedule.plan(key(host), Need::Resolve, start);
        }
        assert_eq!(schedule.take_due(start).len(), BURST);
        assert_eq!(schedule.take_due(start).len(), 0);
        assert_eq!(schedule.next(), Some(start + BURST_EVERY));
        let times = times(&mut schedule, start, Duration::from_millis(900));
        assert_eq!(times.len(), 5000 - BURST);
        assert!(times.last() < Some(&Duration::from_millis(400)), "{:?}", times.last());
    }
}
