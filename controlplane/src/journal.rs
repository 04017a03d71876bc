//! What happened, for operators: every transition goes to the log and is kept for `lbctl events`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use shunt_api::status::{Event, TimeMs};
use tracing::Level;

/// Most events kept: an hour of a fleet that has trouble, and less than a megabyte.
const EVENTS_MAX: usize = 2_000;

/// The last events; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Events>>);

#[derive(Debug, Default)]
struct Events {
    told: u64,
    kept: VecDeque<Event>,
}

/// Something that became another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Happening {
    /// How bad it is.
    pub level: Level,
    /// What changed, such as `backend web1 of pool web`.
    pub subject: String,
    /// What became of it, such as `down`.
    pub text: String,
    /// Why; `None` if an operator asked for it.
    pub reason: Option<String>,
}

impl Journal {
    /// Logs it and keeps it, with the time that it is now.
    pub fn tell(&self, happening: Happening) {
        let Happening { level, subject, text, reason } = happening;
        let because = reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
        match level {
            Level::ERROR => tracing::error!("{subject}: {text}{because}"),
            Level::WARN => tracing::warn!("{subject}: {text}{because}"),
            _ => tracing::info!("{subject}: {text}{because}"),
        }
        let mut events = self.events();
        if events.kept.len() == EVENTS_MAX {
            events.kept.pop_front();
        }
        events.told += 1;
        let (number, at_ms) = (events.told, TimeMs::of(SystemTime::now()));
        events.kept.push_back(Event { number, at_ms, subject, text, reason });
    }

    /// What is kept, the oldest first.
    pub fn kept(&self) -> Vec<Event> {
        self.events().kept.iter().cloned().collect()
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_in_their_order() {
        let journal = Journal::default();
        let other = journal.clone();
        for number in 0..=EVENTS_MAX {
            other.tell(Happening {
                level: Level::WARN,
                subject: "backend a".into(),
                text: format!("down {number}"),
                reason: Some("refused".into()),
            });
        }
        let kept = journal.kept();
        assert_eq!(kept.len(), EVENTS_MAX);
        assert_eq!(
            (kept[0].number, kept[0].text.as_str(), kept[0].subject.as_str()),
            (2, "down 1", "backend a")
        );
        assert_eq!(kept[EVENTS_MAX - 1].text, format!("down {EVENTS_MAX}"));
        assert_eq!(kept[0].reason.as_deref(), Some("refused"));
    }
}
