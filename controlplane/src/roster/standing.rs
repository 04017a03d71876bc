//! How one backend of one pool is, from what is known of its probes.

use std::time::Instant;

use shunt_api::config::{Target, Via};

use crate::balance::Condition;
use crate::health::Health;

/// What a check says of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Up or down.
    pub health: Health,
    /// Since when.
    pub since: Instant,
    /// For a person.
    pub reason: String,
}

/// How a backend is. The default is one of which nothing is known, which counts as up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// By those of its probes that are decided: down if one is, up if all of these are.
    pub health: Health,
    /// It takes no flows for its health: it is down, or was when it was last known.
    pub down: bool,
    /// Since when `health` is so.
    pub since: Option<Instant>,
    /// Why it is so.
    pub reason: Option<String>,
    /// When it came up, if it was down before.
    pub risen: Option<Instant>,
    /// An operator drains it.
    pub drained: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self { health: Health::Unknown, down: false, since: None, reason: None, risen: None, drained: false }
    }
}

impl Standing {
    /// From those targets of a backend that are decided, and how it was before. Targets that are not decided yet, or
    /// cannot be asked, do not count; without any it stays what it was.
    pub fn judge<'k>(decided: impl Iterator<Item = (&'k Target, &'k Known)>, before: &Self) -> Self {
        let decided: Vec<_> = decided.collect();
        let down = || decided.iter().filter(|(_, known)| known.health == Health::Down);
        let up = || decided.iter().filter(|(_, known)| known.health == Health::Up);
        let now = if let Some((target, known)) = down().min_by_key(|(_, known)| known.since) {
            Self { down: true, ..Self::by(Health::Down, target, known) }
        } else if let Some((target, known)) = up().max_by_key(|(_, known)| known.since) {
            Self::by(Health::Up, target, known)
        } else {
            return before.clone();
        };
        if now.health == before.health {
            return before.clone();
        }
        let risen = now.since.filter(|_| before.down && !now.down);
        Self { risen, ..now }
    }

    /// What counts for balancing.
    pub fn condition(&self, now: Instant) -> Condition {
        let up_for = self.risen.map(|risen| now.saturating_duration_since(risen));
        Condition { down: self.down, drained: self.drained, up_for }
    }

    fn by(health: Health, target: &Target, known: &Known) -> Self {
        let reason = format!("{}; asked {}", known.reason, question(target));
        Self { health, since: Some(known.since), reason: Some(reason), ..Self::default() }
    }
}

/// What is asked of it, such as `tcp 203.0.113.10:80 through the service`.
pub fn question(target: &Target) -> String {
    let Target { destination, check, mode, .. } = target;
    let way = match check.via_of(*mode) {
        Via::Service => "through the service",
        Via::Direct => "directly",
    };
    let kind = check.kind.word();
    match destination.port() {
        0 => format!("{kind} {} {way}", destination.ip()),
        _ => format!("{kind} {destination} {way}"),
    }
}
