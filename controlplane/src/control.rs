//! The one place where the pure [`State`] meets the world: events go in, effects come out, whoever asks may
//! look. Shared by the tasks of the single-threaded runtime; no lock is held across an `await`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shunt_api::snapshot::Snapshot;
use shunt_api::status::ConfigProblem;
use tokio::sync::watch;
use tracing::Level;

use crate::source::Reading;
use crate::state::{Event, Notice, State};

/// The state and its outlets.
pub struct Control {
    state: Mutex<State>,
    /// The snapshot last published. Watched by the dataplane's task: only the newest matters.
    publish: watch::Sender<Option<Arc<Snapshot>>>,
    /// A snapshot is on its way. Watched by whoever waits for the answer.
    awaits_answer: watch::Sender<bool>,
}

/// What came of taking a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Generation now wanted.
    pub generation: u64,
    /// It differs from the one before.
    pub changed: bool,
}

impl Control {
    /// Nothing configured, nothing connected.
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            publish: watch::Sender::new(None),
            awaits_answer: watch::Sender::new(false),
        }
    }

    /// Snapshots to send. Marked as changed by every publication, even of the same snapshot.
    pub fn published(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.publish.subscribe()
    }

    /// Takes in an event and carries out its effects.
    pub fn apply(&self, event: Event) {
        let mut state = self.state();
        let effects = state.apply(event, Instant::now());
        self.awaits_answer.send_replace(state.awaits_answer());
        drop(state);
        effects.notices.iter().for_each(log);
        if effects.publish.is_some() {
            self.publish.send_replace(effects.publish);
        }
    }

    /// Takes in what a source gave.
    pub fn configure(&self, reading: Reading) -> Result<Reload, ConfigProblem> {
        match reading {
            Ok(desired) => {
                let before = self.look(State::generation);
                self.apply(Event::ConfigLoaded(desired));
                let generation = self.look(State::generation);
                Ok(Reload { generation, changed: generation != before })
            }
            Err(problem) => {
                self.apply(Event::ConfigRefused(problem.clone()));
                Err(problem)
            }
        }
    }

    /// Reads something from the state.
    pub fn look<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state())
    }

    /// Returns once no snapshot is on its way.
    pub async fn answered(&self) {
        let mut awaits_answer = self.awaits_answer.subscribe();
        // Fails only if the sender is gone, and `self` holds it.
        let _ = awaits_answer.wait_for(|awaits| !awaits).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(notice: &Notice) {
    match notice.level {
        Level::ERROR => tracing::error!("{}", notice.text),
        Level::WARN => tracing::warn!("{}", notice.text),
        _ => tracing::info!("{}", notice.text),
    }
}
