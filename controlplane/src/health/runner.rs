//! Runs the checks: starts what the [`Book`] says is due, each probe as a task of its own, and tells the book
//! what came of it. The one part of the health checks that reads the clock.

pub mod book;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::{JoinError, JoinSet};

use super::Subject;
use super::probe::{Failure, Prober, Target, Way};
use crate::until::until;
use book::{Book, Figures, HealthEvent, Start, Status};

/// Why a probe by way of the dataplane is not made while that does not serve it; told as its own problem.
const UNDELIVERED: &str = "the dataplane does not deliver it at the moment";

/// What to check and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// What is checked; a second watch of the same subject is left out.
    pub subject: Subject,
    /// How the probe's packets get there; `None`: as the kernel routes them.
    pub way: Option<Way>,
}

/// All checks of this box. Shared: one task awaits [`Self::run`], others set and look.
pub struct Runner {
    book: Mutex<Book>,
    surroundings: Mutex<Surroundings>,
    changed: Notify,
    prober: Arc<Prober>,
    events: UnboundedSender<HealthEvent>,
}

/// What probes depend on beside their backends.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    /// Whether the dataplane delivers what is marked.
    delivering: bool,
    /// How often it ceased to.
    interruptions: u64,
    never_from: Arc<HashSet<IpAddr>>,
}

/// A probe that has ended.
struct Finished {
    start: Start,
    started: Instant,
    /// Interruptions until then.
    interruptions: u64,
    result: Result<Option<Duration>, Failure>,
}

impl Runner {
    /// Nothing to check yet. `seed` should differ between boxes, so that they do not ask at the same instants.
    ///
    /// The events are not bounded: each backend makes one in `fall` probes at most, and one that flaps fewer
    /// and fewer.
    pub fn new(prober: Prober, seed: u64) -> (Self, UnboundedReceiver<HealthEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let runner = Self {
            book: Mutex::new(Book::new(seed)),
            surroundings: Mutex::default(),
            changed: Notify::new(),
            prober: Arc::new(prober),
            events,
        };
        (runner, receiver)
    }

    /// Whether the dataplane delivers what is marked; false at first. While it does not, probes by way of it are not
    /// made, and those that fail count for nothing.
    pub fn set_delivering(&self, delivering: bool) {
        let mut surroundings = self.surroundings();
        surroundings.interruptions += u64::from(surroundings.delivering && !delivering);
        surroundings.delivering = delivering;
    }

    /// Addresses that no probe may come from.
    pub fn set_never_from(&self, addresses: HashSet<IpAddr>) {
        self.surroundings().never_from = Arc::new(addresses);
    }

    /// What to check from now on. Checks whose subject is there already keep their state and their place in
    /// the schedule; a result that is under way for one that is not, or that goes another way now, is ignored.
    pub fn set(&self, watches: Vec<Watch>) {
        self.book().set(watches, Instant::now());
        self.changed.notify_one();
    }

    /// Every check as it stands, in the order of backends.
    pub fn statuses(&self) -> Vec<Status> {
        self.book().statuses()
    }

    /// What the checks cost and how punctual they are.
    pub fn figures(&self) -> Figures {
        self.book().figures()
    }

    /// Runs for ever. Dropping the future ends every probe, and with them the checks that were under way: it
    /// is not to be awaited a second time.
    pub async fn run(&self) {
        let mut probes = JoinSet::new();
        loop {
            let (due, next) = self.due();
            for start in due {
                probes.spawn(self.probe(start));
            }
            tokio::select! {
                () = until(next) => {}
                () = self.changed.notified() => {}
                Some(finished) = probes.join_next() => {
                    self.record(finished);
                    while let Some(finished) = probes.try_join_next() {
                        self.record(finished);
                    }
                }
            }
        }
    }

    fn due(&self) -> (Vec<Start>, Option<Instant>) {
        let mut book = self.book();
        (book.due(Instant::now()), book.next_deadline())
    }

    fn record(&self, finished: Result<Finished, JoinError>) {
        let Finished { start, started, interruptions, mut result } =
            finished.expect("a probe neither panics nor is aborted");
        if result.is_err() && !self.surroundings().served(&start.watch, interruptions) {
            result = Err(undelivered());
        }
        let outcome = self.book().record(&start, started, &result, Instant::now());
        if let Some(notice) = outcome.notice {
            tracing::warn!("{notice}");
        }
        if let Some(event) = outcome.event {
            // Nobody listens while the program ends.
            let _ = self.events.send(event);
        }
    }

    /// A future of its own, which holds nothing of `self`.
    fn probe(&self, start: Start) -> impl Future<Output = Finished> + Send + use<> {
        let prober = Arc::clone(&self.prober);
        let surroundings = self.surroundings().clone();
        async move {
            let started = Instant::now();
            let Watch { subject, way, .. } = &*start.watch;
            let never_from = Arc::clone(&surroundings.never_from);
            let target = Target { address: subject.destination, way: way.clone(), never_from };
            let result = if surroundings.serves(&start.watch) {
                prober.probe(&subject.check, &target).await
            } else {
                Err(undelivered())
            };
            Finished { start, started, interruptions: surroundings.interruptions, result }
        }
    }

    fn surroundings(&self) -> MutexGuard<'_, Surroundings> {
        self.surroundings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Surroundings {
    fn serves(&self, watch: &Watch) -> bool {
        self.delivering || watch.way.is_none()
    }

    /// Whether a probe had its way all the time since there were so many interruptions.
    fn served(&self, watch: &Watch, interruptions: u64) -> bool {
        watch.way.is_none() || (self.delivering && self.interruptions == interruptions)
    }
}

fn undelivered() -> Failure {
    Failure::own(UNDELIVERED)
}

#[cfg(test)]
mod tests;
