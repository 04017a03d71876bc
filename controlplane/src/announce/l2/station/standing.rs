//! How the box stands, for operators.

use std::time::Instant;

use shunt_api::status::{L2Role, L2Status};
use tracing::Level;

use super::{MENDED_AFTER, Station};
use crate::announce::l2::election::{Election, Why};

impl Station {
    /// As it is now; `problems` are what whoever opens sockets has met.
    pub fn status(&self, problems: &[String]) -> L2Status {
        let settings = self.settings.as_ref();
        let terms = settings.and_then(|settings| settings.l2.election);
        let mut problems = problems.to_vec();
        problems.extend(self.inability());
        problems.extend(self.mute_nics());
        problems.extend(self.lost_links());
        L2Status {
            role: self.role,
            since_ms: self.since,
            priority: terms
                .map(|terms| self.election.as_ref().map_or(terms.priority, |e| e.rules().priority)),
            group: terms.map(|terms| terms.group),
            master: self.election.as_ref().and_then(Election::master).map(|peer| peer.address),
            addresses: self.schedule.len(),
            answered: self.answered,
            advertisements_refused: self.refused,
            conflicts: self.conflicts.list(),
            conflicts_left_out: self.conflicts.left_out(),
            problems,
        }
    }

    /// Why the box must not answer; `None` if it may.
    pub(super) fn inability(&self) -> Option<String> {
        let settings = self.settings.as_ref()?;
        if !settings.able {
            return Some(
                "the dataplane does not forward; mend what is listed as the dataplane's own problem"
                    .to_owned(),
            );
        }
        if self.nics.is_empty() {
            return Some("none of the NICs can be used; mend what is said of them".to_owned());
        }
        let mut with_link = self.nics.values().filter(|facts| facts.up).peekable();
        if with_link.peek().is_none() {
            return Some("no NIC has a link; check cables and `ip link`".to_owned());
        }
        let is_mute = settings.l2.election.is_some() && with_link.all(|facts| facts.elected_with().is_none());
        is_mute.then(|| {
            "no NIC with link has an address to be elected with; give one an IPv4 address".to_owned()
        })
    }

    /// NICs that the election passes by.
    fn mute_nics(&self) -> Vec<String> {
        if self.election.is_none() {
            return Vec::new();
        }
        let mute = self.nics.iter().filter(|(_, facts)| facts.elected_with().is_none());
        mute.map(|(name, _)| {
            format!("{name} has no address, so that no election is held on it; give it an IPv4 address")
        })
        .collect()
    }

    fn lost_links(&self) -> Vec<String> {
        let lost = self.nics.iter().filter(|(_, facts)| !facts.up);
        lost.map(|(name, _)| format!("{name} has no link; check its cable and `ip link show {name}`"))
            .collect()
    }

    /// Whether the box lost one of its NICs, or got it back too lately to rely on it.
    pub(super) fn judge_links(&mut self, now: Instant) {
        let Some(settings) = &self.settings else { return self.maimed = false };
        let complete = settings.nics.iter().all(|name| self.nics.get(name).is_some_and(|facts| facts.up));
        if !complete {
            self.broken = Some(now);
        }
        let lately = self.broken.is_some_and(|at| now.saturating_duration_since(at) < MENDED_AFTER);
        self.maimed = !complete || (self.maimed && lately);
    }

    pub(super) fn tell_role(&mut self, before: L2Role, reason: Option<String>) {
        let terms = self.settings.as_ref().and_then(|settings| settings.l2.election);
        let count = match self.addresses.len() {
            1 => "1 address".to_owned(),
            count => format!("{count} addresses"),
        };
        let group = terms.map_or(0, |terms| terms.group);
        let (level, text) = match self.role {
            L2Role::Off => (Level::INFO, "off: answers for no address".to_owned()),
            L2Role::Unable => (Level::WARN, "unable: answers for no address".to_owned()),
            L2Role::Alone => (Level::INFO, format!("answers for {count}")),
            L2Role::Backup if before == L2Role::Master => {
                (Level::WARN, format!("backup of group {group}: answers for no address any more"))
            }
            L2Role::Backup => (Level::INFO, format!("backup of group {group}")),
            L2Role::Master => (Level::WARN, format!("master of group {group}: answers for {count}")),
        };
        self.tell(level, "announce.l2".to_owned(), text, reason);
    }

    /// Of a change in the election, for a person; `None` if it goes without saying.
    pub(super) fn reason(&self, why: Why) -> Option<String> {
        match why {
            Why::Joined | Why::Resigned => self
                .maimed
                .then(|| "a NIC of this box has no link, so that any other box is preferred".to_owned()),
            Why::Silence(silence) => Some(format!("no master advertised for {} ms", silence.as_millis())),
            Why::MasterLeft(address) => Some(format!("{address} left")),
            Why::Outranked { by, priority } => Some(format!("{by} is master with priority {priority}")),
        }
    }
}
