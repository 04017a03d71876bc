//! Signs of life for systemd's watchdog (`WatchdogSec=`), which starts a process afresh that gives none. Whoever
//! beats shows that it goes round itself; a thread for this alone would show nothing.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// When the next sign of life is due. Without a watchdog none ever is.
#[derive(Debug, Default)]
pub struct Pulse {
    every: Option<Duration>,
    last: Option<Instant>,
}

impl Pulse {
    /// Beats twice within what the watchdog allows this process (`WATCHDOG_USEC`, sd_watchdog_enabled(3)).
    pub fn of_environment() -> Self {
        let every = sd_notify::watchdog_enabled().map(|patience| patience / 2);
        Self { every: every.filter(|every| !every.is_zero()), last: None }
    }

    /// Tells systemd that the caller goes round, if that is due. To be called more often than it is.
    pub fn beat(&mut self, now: Instant) {
        if self.is_due(now) {
            self.last = Some(now);
            super::notify(NotifyState::Watchdog);
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let Some(every) = self.every else { return false };
        self.last.is_none_or(|last| now.duration_since(last) >= every)
    }
}

/// Beats as long as the runtime of the calling task goes round; returns never. For programs whose tasks all share
/// one thread.
pub async fn beat_for_ever() {
    let Some(every) = Pulse::of_environment().every else { return std::future::pending().await };
    let mut beats = tokio::time::interval(every);
    loop {
        beats.tick().await;
        super::notify(NotifyState::Watchdog);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_due_at_once_then_after_its_time_and_never_without_a_watchdog() {
        let (start, every) = (Instant::now(), Duration::from_secs(5));
        let due = |pulse: &Pulse, after: u64| pulse.is_due(start + Duration::from_secs(after));
        let fresh = Pulse { every: Some(every), last: None };
        assert!(due(&fresh, 0));
        let beaten = Pulse { last: Some(start), ..fresh };
        assert_eq!([4, 5, 60].map(|after| due(&beaten, after)), [false, true, true]);
        assert!(!due(&Pulse::default(), 60));
    }
}
