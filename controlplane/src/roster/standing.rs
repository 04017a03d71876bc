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
    /// By all of its probes: down if one is, up if all are.
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
    /// From all targets of a backend. Until all are decided, it counts as what it was assumed to be.
    pub fn judge(targets: &[(&Target, Option<&Known>)], assumed_down: bool) -> Self {
        let decided = || targets.iter().filter_map(|(target, known)| Some((*target, (*known)?)));
        let down =
            decided().filter(|(_, known)| known.health == Health::Down).min_by_key(|(_, known)| known.since);
        if let Some((target, known)) = down {
            return Self { down: true, ..Self::by(Health::Down, target, known) };
        }
        match decided().max_by_key(|(_, known)| known.since) {
            Some((target, known)) if decided().count() == targets.len() => {
                Self::by(Health::Up, target, known)
            }
            _ => Self { down: assumed_down, ..Self::default() },
        }
    }

    /// Takes over what follows from how it was before.
    pub fn succeed(&mut self, before: &Self) {
        self.risen = match self.health {
            Health::Up if before.down => self.since,
            Health::Up => before.risen,
            _ => None,
        };
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
