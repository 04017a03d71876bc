//! All checks: which there are, how each stands, which is due. Pure, without a clock.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use super::{Subject, UNDELIVERED, Watch};
use crate::health::machine::{Health, Machine, Transition};
use crate::health::probe::{Failure, Fault};
use crate::health::schedule::{Due, Id, Schedule};

/// What a check that is added adds to the time in which all that are added with it start: 1,000 probes a
/// second, which take a third of a core if each begins TLS. Ten new backends are asked within 10 ms, and
/// thousands within their interval.
const FIRST_ROUND_PACE: Duration = Duration::from_millis(1);
/// Between two lines in the log about what this box lacks, if they say the same.
const NOTICE_PAUSE: Duration = Duration::from_secs(60);
/// Lateness is counted in thousandths of the interval; everything later counts as the last.
const LATENESS_SLOTS: usize = 1_001;

/// A backend came up or went down.
#[derive(Clone, Debug)]
pub struct HealthEvent {
    /// Which backend by which check.
    pub watch: Arc<Watch>,
    /// What happened.
    pub transition: Transition,
}

/// One check as it stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Which backend by which check.
    pub watch: Arc<Watch>,
    /// Up or down.
    pub health: Health,
    /// How long the last success took; `None` before the first, and after a silence that is one.
    pub last_latency: Option<Duration>,
    /// Why a probe last failed, be it the backend's fault or this box's.
    pub last_failure: Option<String>,
    /// Probes that succeeded.
    pub successes: u64,
    /// Probes that failed.
    pub failures: u64,
    /// Probes that could not be made.
    pub own_faults: u64,
}

/// What all checks together have done.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Checks there are.
    pub checks: usize,
    /// Probes that have ended.
    pub probes: u64,
    /// Probes that were left out, as the one before still ran or this process did not.
    pub left_out: u64,
    /// Probes that this box could not make.
    pub own_faults: u64,
    /// Checks whose last probe this box could not make, and why that of one of them.
    pub unable: Option<(usize, String)>,
    /// How late probes began: how many by each thousandth of their interval.
    lateness: Vec<u64>,
}

impl Figures {
    /// How late, as a share of the interval, so large a share of the probes began at most. Rounded up to
    /// thousandths; 0 without probes.
    pub fn lateness(&self, quantile: f64) -> f64 {
        let rank = (self.probes as f64 * quantile).ceil() as u64;
        let mut counted = 0;
        let slot = self.lateness.iter().position(|count| {
            counted += count;
            counted >= rank
        });
        slot.map_or(1.0, |slot| slot as f64 / 1_000.0)
    }
}

/// A probe to start.
#[derive(Clone, Debug)]
pub struct Start {
    id: Id,
    deadline: Instant,
    /// What to ask, and how.
    pub watch: Arc<Watch>,
}

/// What a result leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The backend came up or went down.
    pub event: Option<HealthEvent>,
    /// To be logged as a warning.
    pub notice: Option<String>,
}

/// All checks.
#[derive(Debug)]
pub struct Book {
    seed: u64,
    next_id: u64,
    schedule: Schedule,
    ids: HashMap<Subject, Id>,
    entries: BTreeMap<Id, Entry>,
    figures: Figures,
    /// What was last logged of this box's own troubles.
    noticed: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Entry {
    watch: Arc<Watch>,
    machine: Machine,
    last_latency: Option<Duration>,
    last_failure: Option<String>,
    successes: u64,
    failures: u64,
    own_faults: u64,
    /// The last probe could not be made.
    unable: bool,
}

impl Book {
    /// Without checks. The seed shifts the instants of all.
    pub fn new(seed: u64) -> Self {
        let lateness = vec![0; LATENESS_SLOTS];
        Self {
            seed,
            next_id: 0,
            schedule: Schedule::default(),
            ids: HashMap::new(),
            entries: BTreeMap::new(),
            figures: Figures { checks: 0, probes: 0, left_out: 0, own_faults: 0, unable: None, lateness },
            noticed: None,
        }
    }

    /// Makes `watches` the checks there are. A check that is new because its settings changed knows nothing.
    pub fn set(&mut self, watches: Vec<Watch>, now: Instant) {
        let mut wanted = HashMap::new();
        for watch in watches {
            wanted.entry(watch.subject.clone()).or_insert(watch);
        }
        self.remove_others(&wanted);
        let new = wanted.keys().filter(|subject| !self.ids.contains_key(subject)).count();
        let first_within = FIRST_ROUND_PACE * u32::try_from(new).unwrap_or(u32::MAX);
        for (subject, watch) in wanted {
            if let Some(id) = self.ids.get(&subject) {
                self.entries.get_mut(id).expect("every id has an entry").go_by(watch);
                continue;
            }
            self.add(watch, first_within, now);
        }
    }

    /// The probes to start now.
    pub fn due(&mut self, now: Instant) -> Vec<Start> {
        let start = |due: Due| {
            let watch = Arc::clone(&self.entries[&due.id].watch);
            Start { id: due.id, deadline: due.deadline, watch }
        };
        self.schedule.due(now).into_iter().map(start).collect()
    }

    /// When to ask [`Self::due`] again; `None` without checks.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.schedule.next_deadline()
    }

    /// Takes in what came of a probe that began at `started`.
    pub fn record(
        &mut self,
        start: &Start,
        started: Instant,
        result: &Result<Option<Duration>, Failure>,
        now: Instant,
    ) -> Outcome {
        self.schedule.finished(start.id);
        self.count(start, started);
        let Some(entry) = self.entries.get_mut(&start.id) else { return Outcome::default() };
        // By another way now, of which this result says nothing.
        if !Arc::ptr_eq(&entry.watch, &start.watch) {
            return Outcome::default();
        }
        if let Err(Failure { reason, fault: Fault::Own }) = result {
            entry.own_faults += 1;
            entry.last_failure = Some(reason.clone());
            entry.unable = reason != UNDELIVERED;
            self.figures.own_faults += 1;
            return Outcome { event: None, notice: self.notice(reason, now) };
        }
        let watch = Arc::clone(&entry.watch);
        let event = entry.observe(result, now).map(|transition| HealthEvent { watch, transition });
        Outcome { event, notice: None }
    }

    /// Every check, in the order of backends and destinations.
    pub fn statuses(&self) -> Vec<Status> {
        let mut statuses: Vec<_> = self.entries.values().map(Entry::status).collect();
        statuses.sort_by_key(|status| (status.watch.subject.backend, status.watch.subject.destination));
        statuses
    }

    /// Of all checks so far.
    pub fn figures(&self) -> Figures {
        let mut unable = self.entries.values().filter(|entry| entry.unable);
        let reason = unable.next().and_then(|entry| entry.last_failure.clone());
        Figures {
            checks: self.entries.len(),
            left_out: self.schedule.left_out(),
            unable: reason.map(|reason| (1 + unable.count(), reason)),
            ..self.figures.clone()
        }
    }

    fn remove_others(&mut self, wanted: &HashMap<Subject, Watch>) {
        for (_, id) in self.ids.extract_if(|subject, _| !wanted.contains_key(subject)) {
            self.schedule.remove(id);
            self.entries.remove(&id);
        }
    }

    fn add(&mut self, watch: Watch, first_within: Duration, now: Instant) {
        let id = Id(self.next_id);
        self.next_id += 1;
        let check = &watch.subject.check;
        let mut hasher = SipHasher13::new_with_keys(self.seed, 0);
        watch.subject.hash(&mut hasher);
        self.schedule.add(id, check.interval, hasher.finish(), first_within, now);
        self.ids.insert(watch.subject.clone(), id);
        self.entries.insert(id, Entry::new(watch, now));
    }

    fn count(&mut self, start: &Start, started: Instant) {
        let late = started.saturating_duration_since(start.deadline);
        let share = late.as_secs_f64() / start.watch.subject.check.interval.as_secs_f64();
        // Without an interval the share is infinite, which counts as the last slot.
        let slot = ((share * 1_000.0).ceil() as usize).min(LATENESS_SLOTS - 1);
        self.figures.lateness[slot] += 1;
        self.figures.probes += 1;
    }

    /// What to log of a trouble of this box, unless it was logged just now.
    fn notice(&mut self, reason: &str, now: Instant) -> Option<String> {
        let told = self
            .noticed
            .as_ref()
            .is_some_and(|(at, text)| text == reason && now.saturating_duration_since(*at) < NOTICE_PAUSE);
        if told {
            return None;
        }
        self.noticed = Some((now, reason.to_owned()));
        Some(format!("a health check could not be made, which counts for nothing: {reason}"))
    }
}

impl Entry {
    fn new(watch: Watch, now: Instant) -> Self {
        let check = &watch.subject.check;
        Self {
            machine: Machine::new(check.rise, check.fall, now),
            watch: Arc::new(watch),
            last_latency: None,
            last_failure: None,
            successes: 0,
            failures: 0,
            own_faults: 0,
            unable: false,
        }
    }

    /// The way may have changed.
    fn go_by(&mut self, watch: Watch) {
        if self.watch.way != watch.way {
            self.watch = Arc::new(watch);
        }
    }

    fn observe(&mut self, result: &Result<Option<Duration>, Failure>, now: Instant) -> Option<Transition> {
        self.unable = false;
        match result {
            Ok(latency) => {
                self.successes += 1;
                self.last_latency = *latency;
                self.machine.observe(Ok(()), now)
            }
            Err(failure) => {
                self.failures += 1;
                self.last_failure = Some(failure.reason.clone());
                self.machine.observe(Err(&failure.reason), now)
            }
        }
    }

    fn status(&self) -> Status {
        Status {
            watch: Arc::clone(&self.watch),
            health: self.machine.health(),
            last_latency: self.last_latency,
            last_failure: self.last_failure.clone(),
            successes: self.successes,
            failures: self.failures,
            own_faults: self.own_faults,
        }
    }
}

#[cfg(test)]
mod tests;
