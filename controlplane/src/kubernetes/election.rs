//! Which of the boxes of a class writes to a cluster. Pure: what a Lease says goes in, what to write to it comes out.
//!
//! ```text
//!          the Lease was released, or has not changed for as long as it says
//!  Unknown ──────────────────────────────────────────────────────────────→ Leads ⟲ renewed
//!     │ another has it                                        renewed again ↑  │ not renewed for DEADLINE
//!     └─────────→ Follows ←───────────── another has it ────────────────── Lapsed
//! ```
//!
//! As in client-go, nobody compares clocks: a Lease has run out when it was *seen* not to change for as long as it says.
//! Whoever has it takes it for lost a while earlier, counted from before the renewal was sent. So at no time do two lead,
//! and what the first began has ended before the next begins.
//!
//! A Lease that is not there may have been deleted a moment ago, and whoever had it leads on until it looks again. So it
//! is created for nobody, and taken once it has run out like any other.
//!
//! A box whose dataplane does not serve ([`fitness`]) leads no more at once, and releases the Lease when what it began has
//! ended.

pub mod fitness;
pub mod identity;
pub mod lease;

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tracing::Level;

/// Another may take a Lease that was not renewed for so long.
pub const LEASE: Duration = Duration::from_secs(15);
/// From renewal to renewal.
pub const RENEW_EVERY: Duration = Duration::from_secs(5);
/// Whoever has the Lease but has not renewed it for so long writes no more.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Until those who do not have it, or could not renew it, look again.
pub const RETRY: Duration = Duration::from_secs(1);

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who has it.
    pub holder: Option<String>,
    /// How long it lasts without being renewed.
    pub duration: Duration,
    /// By the holder's clock, so it only tells one renewal from another.
    pub renewed: Option<Timestamp>,
    /// When the holder took it, likewise.
    pub taken: Option<Timestamp>,
    /// How often another took it.
    pub transitions: i32,
}

/// How this box stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It was not possible to find out.
    #[default]
    Unknown,
    /// It alone writes and gives addresses.
    Leads {
        /// Counts the times that it came to lead.
        term: u64,
        /// Unless the Lease is renewed.
        until: Instant,
    },
    /// It led, and could not renew the Lease or is about to release it; nobody else is known to lead.
    Lapsed,
    /// Another leads, or did last.
    Follows {
        /// Its identity.
        leader: String,
    },
}

/// What part a box takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// It would lead.
    #[default]
    Stands,
    /// It neither takes the Lease nor gives it back.
    Waits,
    /// It leaves the lead to others.
    Leaves,
}

/// Why a box cannot lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The API says no, and someone has to do something: what, is in the text.
    Refused(String),
    /// It does not answer, or with an error that may pass.
    Away(String),
    /// The dataplane does not serve.
    Dataplane(String),
}

/// A place in the election.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// Who leads.
    pub standing: Standing,
    /// Why this box does not.
    pub trouble: Option<Trouble>,
}

/// One who would lead.
#[derive(Debug)]
pub struct Election {
    identity: String,
    /// What the Lease said last, and since when it is known to.
    seen: Option<(Record, Instant)>,
    /// Since this box took it without another having had it in between: the term, and until when it lasts.
    term: Option<(u64, Instant)>,
    terms: u64,
}

impl Standing {
    /// The term in which this box leads.
    pub fn leads(&self, now: Instant) -> Option<u64> {
        match self {
            Self::Leads { term, until } if now < *until => Some(*term),
            _ => None,
        }
    }

    /// The same to whoever is told, renewals apart.
    fn is_alike(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leads { term, .. }, Self::Leads { term: other, .. }) => term == other,
            _ => self == other,
        }
    }
}

impl Seat {
    /// Takes another's place. Whether that is news.
    pub fn replace(&mut self, new: Self) -> bool {
        let same_trouble = match (&self.trouble, &new.trouble) {
            (Some(Trouble::Refused(one)), Some(Trouble::Refused(other))) => one == other,
            // Why something does not answer changes with the weather.
            (Some(Trouble::Away(_)), Some(Trouble::Away(_)))
            | (Some(Trouble::Dataplane(_)), Some(Trouble::Dataplane(_)))
            | (None, None) => true,
            _ => false,
        };
        let news = !same_trouble || !self.standing.is_alike(&new.standing);
        *self = new;
        news
    }

    /// What people should know of it: how bad it is, what it is, and why.
    pub fn words(&self) -> (Level, String, Option<String>) {
        let reason = self.trouble.as_ref().map(|trouble| trouble.text().to_owned());
        match &self.standing {
            Standing::Leads { .. } => {
                (Level::INFO, "this box leads: it gives addresses and writes".into(), None)
            }
            Standing::Follows { leader } => {
                (Level::INFO, format!("{leader} leads; this box forwards and writes nothing"), reason)
            }
            Standing::Lapsed => {
                (Level::WARN, "this box leads no more; it forwards on and writes nothing".into(), reason)
            }
            Standing::Unknown => (Level::WARN, "this box does not lead and writes nothing".into(), reason),
        }
    }
}

impl Trouble {
    /// For people.
    pub fn text(&self) -> &str {
        match self {
            Self::Refused(text) | Self::Away(text) | Self::Dataplane(text) => text,
        }
    }
}

impl Election {
    /// One that knows nothing. Nobody else has this identity.
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None, term: None, terms: 0 }
    }

    /// What to write after the Lease was read, if anything; it is to be refused if the Lease has changed since. `clock`
    /// is the time of day.
    pub fn observe(
        &mut self,
        record: Option<Record>,
        part: Part,
        now: Instant,
        clock: Timestamp,
    ) -> Option<Record> {
        let Some(record) = record else {
            self.seen = None;
            self.term = None;
            // The time tells it from one that was created and deleted before.
            let created = Record { duration: LEASE, renewed: Some(clock), ..Record::default() };
            return (part == Part::Stands).then_some(created);
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != record) {
            self.seen = Some((record.clone(), now));
        }
        if !self.is_mine(&record) {
            self.term = None;
            let takes = part == Part::Stands && self.has_run_out(now);
            return takes.then(|| self.taken(&record, clock));
        }
        match (part, self.term) {
            (Part::Waits, _) => None,
            (Part::Leaves, Some((_, until))) if now < until + (LEASE - DEADLINE) => None,
            (Part::Leaves, _) => self.released(&record),
            (Part::Stands, Some(_)) => Some(Record { duration: LEASE, renewed: Some(clock), ..record }),
            // Of the process before this one, or a write whose answer was lost.
            (Part::Stands, None) => Some(self.taken(&record, clock)),
        }
    }

    /// Leads no more until the Lease is renewed. Whether it did.
    pub fn pause_term(&mut self, now: Instant) -> bool {
        let leading = self.term.as_mut().map(|(_, until)| until).filter(|until| now < **until);
        leading.map(|until| *until = now).is_some()
    }

    /// What [`Self::observe`] gave was written, by a request that was sent at `asked`.
    pub fn wrote(&mut self, record: Record, asked: Instant) {
        if !self.is_mine(&record) {
            // Created or released: how long it is so is counted from when it is seen.
            self.term = None;
            return;
        }
        if self.term.is_none() {
            self.terms += 1;
        }
        let term = self.term.map_or(self.terms, |(term, _)| term);
        self.term = Some((term, asked + DEADLINE));
        self.seen = Some((record, asked));
    }

    /// How things stand.
    pub fn standing(&self, now: Instant) -> Standing {
        match (self.term, &self.seen) {
            (Some((term, until)), _) if now < until => Standing::Leads { term, until },
            (Some(_), _) => Standing::Lapsed,
            (None, Some((Record { holder: Some(leader), .. }, _))) if *leader != self.identity => {
                Standing::Follows { leader: leader.clone() }
            }
            (None, _) => Standing::Unknown,
        }
    }

    /// How long to wait after a round in which the Lease was read, and written if need be, or was not.
    pub fn pause(&self, succeeded: bool, now: Instant) -> Duration {
        let leads = self.standing(now).leads(now).is_some();
        if succeeded && leads { RENEW_EVERY } else { RETRY }
    }

    /// What to write so that another leads at once, if the Lease is this box's.
    pub fn released(&self, record: &Record) -> Option<Record> {
        // The API takes no shorter one.
        let duration = Duration::from_secs(1);
        self.is_mine(record).then(|| Record { holder: None, duration, ..record.clone() })
    }

    fn taken(&self, before: &Record, clock: Timestamp) -> Record {
        let is_anothers = before.was_taken() && !self.is_mine(before);
        Record {
            holder: Some(self.identity.clone()),
            duration: LEASE,
            renewed: Some(clock),
            taken: Some(clock),
            transitions: before.transitions.saturating_add(i32::from(is_anothers)),
        }
    }

    fn is_mine(&self, record: &Record) -> bool {
        record.holder.as_ref() == Some(&self.identity)
    }

    fn has_run_out(&self, now: Instant) -> bool {
        self.seen.as_ref().is_some_and(|(record, since)| {
            record.was_released() || now.saturating_duration_since(*since) >= record.duration
        })
    }
}

impl Record {
    /// By anybody, since the Lease was created.
    fn was_taken(&self) -> bool {
        self.holder.is_some() || self.taken.is_some()
    }

    fn was_released(&self) -> bool {
        self.holder.is_none() && self.was_taken()
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
