//! Whether one backend is up by one check: what a row of results means. Pure, without a clock.
//!
//! ```text
//!                        first result: success
//!            ┌─────────┐ ──────────────────────────────→ ┌────┐
//!  start ──→ │ Unknown │                                 │ Up │
//!            └─────────┘                                 └────┘
//!                 │ first result: failure   `rise` successes ↑ │ `fall` failures
//!                 │                              in a row,   │ │ in a row
//!                 │                  for longer if damped    │ ↓
//!                 └────────────────────────────────────→ ┌──────┐
//!                                                        │ Down │
//!                                                        └──────┘
//! ```
//!
//! The first result decides alone, so that a dead backend is known one probe after the start.
//!
//! **Damping.** Every change moves flows. A backend that goes down [`FLAPS`] times within [`FLAP_WINDOW`]
//! must answer every check for [`HOLD_MIN`] to come up again, for twice as long after the next time, and so on
//! up to [`HOLD_MAX`]. Once it has stayed up for a whole window, everything is forgiven. The hold is a time
//! and not a count of checks, so that checks ten times a second move flows no more often than slow ones.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// What a backend that flaps is watched over, and how long it must stay up to be trusted again.
pub const FLAP_WINDOW: Duration = Duration::from_secs(60);
/// Times down within the window that are flapping: two may be a restart that went wrong at first.
pub const FLAPS: usize = 3;
/// Shortest hold: longer than two checks of the default interval take, which is what it comes on top of.
pub const HOLD_MIN: Duration = Duration::from_secs(5);
/// Longest hold: what a backend that is mended for good waits at most.
pub const HOLD_MAX: Duration = Duration::from_secs(60);

/// Whether a backend is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// A backend came up or went down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: Health,
    /// From now on; never [`Health::Unknown`].
    pub to: Health,
    /// For a person: what the results were.
    pub reason: String,
    /// When the deciding result came.
    pub at: Instant,
}

/// One backend by one check.
#[derive(Debug)]
pub struct Machine {
    rise: u32,
    fall: u32,
    health: Health,
    since: Instant,
    /// Results in a row that say the opposite of `health`.
    opposed: u32,
    /// When the first of these came.
    opposed_since: Instant,
    flapping: Flapping,
}

impl Machine {
    /// Nothing known. Thresholds of 0 are taken as 1.
    pub fn new(rise: u32, fall: u32, now: Instant) -> Self {
        Self {
            rise: rise.max(1),
            fall: fall.max(1),
            health: Health::Unknown,
            since: now,
            opposed: 0,
            opposed_since: now,
            flapping: Flapping::default(),
        }
    }

    /// Takes in a result; a failure comes with its reason.
    pub fn observe(&mut self, result: Result<(), &str>, now: Instant) -> Option<Transition> {
        let says = if result.is_ok() { Health::Up } else { Health::Down };
        if says == self.health {
            self.opposed = 0;
            return None;
        }
        if self.opposed == 0 {
            self.opposed_since = now;
        }
        self.opposed = self.opposed.saturating_add(1);
        if !self.convinced(now) {
            return None;
        }
        let (from, results) = (self.health, self.opposed);
        if from == Health::Up {
            self.flapping.went_down(now.saturating_duration_since(self.since), now);
        }
        (self.health, self.since, self.opposed) = (says, now, 0);
        Some(Transition { from, to: says, reason: self.reason(from, results, result), at: now })
    }

    /// As of the last result.
    pub fn health(&self) -> Health {
        self.health
    }

    /// How long it must answer every check to come up; 0 unless it flaps.
    pub fn hold(&self) -> Duration {
        self.flapping.hold
    }

    /// The results that oppose what is known suffice to change it.
    fn convinced(&self, now: Instant) -> bool {
        match self.health {
            Health::Unknown => true,
            Health::Up => self.opposed >= self.fall,
            Health::Down => {
                let lasted = now.saturating_duration_since(self.opposed_since);
                self.opposed >= self.rise && lasted >= self.hold()
            }
        }
    }

    /// Of a transition that has been made.
    fn reason(&self, from: Health, results: u32, result: Result<(), &str>) -> String {
        let checks = match (from, results) {
            (Health::Unknown, _) => "the first check".to_owned(),
            (_, 1) => "a check".to_owned(),
            (_, many) => format!("{many} checks in a row"),
        };
        let Err(failure) = result else { return format!("{checks} succeeded") };
        match self.hold().as_secs() {
            0 => format!("{checks} failed: {failure}"),
            hold_s => {
                format!("{checks} failed: {failure}; it flaps, so that it must answer for {hold_s} s now")
            }
        }
    }
}

/// How often a backend went down lately.
#[derive(Debug, Default)]
struct Flapping {
    /// At most [`FLAPS`], the oldest first.
    downs: VecDeque<Instant>,
    hold: Duration,
}

impl Flapping {
    fn went_down(&mut self, was_up_for: Duration, now: Instant) {
        if was_up_for >= FLAP_WINDOW {
            *self = Self::default();
        }
        self.downs.push_back(now);
        self.downs.retain(|at| now.saturating_duration_since(*at) < FLAP_WINDOW);
        while self.downs.len() > FLAPS {
            self.downs.pop_front();
        }
        // Held down for longer and longer, it cannot go down often: what counts then is that it did again.
        if !self.hold.is_zero() || self.downs.len() >= FLAPS {
            self.hold = (self.hold * 2).clamp(HOLD_MIN, HOLD_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
