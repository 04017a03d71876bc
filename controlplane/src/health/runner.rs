//! Runs the checks: starts what the [`Book`] says is due, each probe as a task of its own, and tells the book
//! what came of it. The one part of the health checks that reads the clock.

pub mod book;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::{JoinError, JoinSet};

use super::Subject;
use super::probe::{Failure, Prober, SourceAndMark, Target};
use book::{Book, Figures, HealthEvent, Start, Status};

/// What to check and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// What is checked; a second watch of the same subject is left out.
    pub subject: Subject,
    /// How the probe's packets leave this box.
    pub bind: SourceAndMark,
    /// See [`Target::pad_to`].
    pub pad_to: u16,
    /// Whether the backend counts as up until the first result.
    pub assume_up: bool,
}

/// All checks of this box. Shared: one task awaits [`Self::run`], others set and look.
pub struct Runner {
    book: Mutex<Book>,
    changed: Notify,
    prober: Arc<Prober>,
    events: UnboundedSender<HealthEvent>,
}

/// A probe that has ended.
struct Finished {
    start: Start,
    started: Instant,
    result: Result<Option<Duration>, Failure>,
}

impl Runner {
    /// Nothing to check yet. `seed` should differ between boxes, so that they do not ask at the same instants.
    ///
    /// The events are not bounded: each backend makes one in `fall` probes at most, and one that flaps fewer
    /// and fewer.
    pub fn new(prober: Prober, seed: u64) -> (Self, UnboundedReceiver<HealthEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let book = Mutex::new(Book::new(seed));
        (Self { book, changed: Notify::new(), prober: Arc::new(prober), events }, receiver)
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
                probes.spawn(probe(Arc::clone(&self.prober), start));
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
        let Finished { start, started, result } = finished.expect("a probe neither panics nor is aborted");
        let outcome = self.book().record(&start, started, &result, Instant::now());
        if let Some(notice) = outcome.notice {
            tracing::warn!("{notice}");
        }
        if let Some(event) = outcome.event {
            // Nobody listens while the program ends.
            let _ = self.events.send(event);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn probe(prober: Arc<Prober>, start: Start) -> Finished {
    let started = Instant::now();
    let watch = &start.watch;
    let target = Target { address: watch.subject.destination, bind: watch.bind, pad_to: watch.pad_to };
    let result = prober.probe(&watch.subject.check, &target).await;
    Finished { start, started, result }
}

/// Until then; for ever if there is nothing to wait for.
async fn until(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
