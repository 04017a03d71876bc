//! What this box does on the segments of its NICs: takes in frames, time and wishes, gives frames and happenings.
//! Pure, without a clock; `driver` carries the bytes.

mod hearing;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use shunt_api::config::Election as Terms;
use shunt_api::mac::MacAddress;
use shunt_api::status::{L2Role, TimeMs};
use tracing::Level;

use super::Settings;
use super::conflicts::Conflicts;
use super::election::{Election, Outcome, Rules, State};
use super::link::Facts;
use super::schedule::Schedule;
use super::vrrp::{Advertisement, LEAVES};
use super::{arp, ndp};
use crate::journal::Happening;

/// The priority of a box that lost a NIC: below that of any box which has all.
const MAIMED: u8 = 1;
/// How long all NICs must have had their links for a box to be elected by its own priority again: a link that
/// flaps shall not move the addresses each time.
const MENDED_AFTER: Duration = Duration::from_secs(5);
/// How long another box of the group may claim our addresses after either of us changed: what it said before it
/// knew is still under way, and an answer may be as late as the process that gives it.
const GRACE: Duration = Duration::from_secs(3);
/// Most boxes of the group whose Ethernet addresses are kept.
const PEERS: usize = 8;
/// Least time between two rounds of announcements because of a rival.
const REPEAT_AFTER: Duration = Duration::from_secs(5);

/// How to announce, and what.
pub type Wish = (Settings, BTreeSet<IpAddr>);

/// A frame to send by a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The NIC's number.
    pub nic: u32,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
}

/// What must follow from what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// To send, in this order.
    pub frames: Vec<Sent>,
    /// To tell.
    pub happenings: Vec<Happening>,
}

/// This box.
#[derive(Debug)]
pub struct Station {
    settings: Option<Settings>,
    addresses: BTreeSet<IpAddr>,
    /// Those of the settings that can be used, with or without link.
    nics: BTreeMap<String, Facts>,
    /// The Ethernet addresses of all NICs of the box, of the settings or not.
    own: BTreeSet<MacAddress>,
    election: Option<Election>,
    role: L2Role,
    since: Option<TimeMs>,
    schedule: Schedule,
    conflicts: Conflicts,
    /// The Ethernet addresses of boxes of our group, and when each was heard.
    peers: BTreeMap<MacAddress, Instant>,
    tolerate_until: Instant,
    rival_answered: Option<Instant>,
    maimed: bool,
    /// When the NICs were last without all their links.
    broken: Option<Instant>,
    wall: TimeMs,
    answered: u64,
    refused: u64,
    output: Output,
}

impl Station {
    /// Does nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            settings: None,
            addresses: BTreeSet::new(),
            nics: BTreeMap::new(),
            own: BTreeSet::new(),
            election: None,
            role: L2Role::Off,
            since: None,
            schedule: Schedule::new(Duration::from_secs(60), now),
            conflicts: Conflicts::default(),
            peers: BTreeMap::new(),
            tolerate_until: now,
            rival_answered: None,
            maimed: false,
            broken: None,
            wall: TimeMs(0),
            answered: 0,
            refused: 0,
            output: Output::default(),
        }
    }

    /// What time it is by the clock on the wall, for the status. To be called before all else, and now and then.
    pub fn set_wall(&mut self, wall: TimeMs) {
        self.wall = wall;
    }

    /// What to do from now on, `None` for nothing, and the NICs of the settings that can be used.
    pub fn want(&mut self, wish: Option<Wish>, nics: BTreeMap<String, Facts>, now: Instant) {
        let (settings, addresses) = wish.map_or_else(Default::default, |(s, a)| (Some(s), a));
        let group = |settings: &Option<Settings>| settings.as_ref()?.l2.election.map(|terms| terms.group);
        if group(&self.settings) != group(&settings) {
            self.leave_election(now);
            self.peers.clear();
        }
        self.settings = settings;
        self.addresses = addresses;
        self.conflicts.retain(|address| self.addresses.contains(address));
        self.follow_nics(nics, now);
    }

    /// The NICs of the settings that can be used, as they are now.
    pub fn set_nics(&mut self, nics: BTreeMap<String, Facts>, now: Instant) {
        self.forget_peers(now);
        if nics != self.nics || self.maimed {
            self.follow_nics(nics, now);
        }
    }

    /// The Ethernet addresses of all NICs of the box: what one of them says on the segment of another is no claim.
    pub fn set_own(&mut self, own: BTreeSet<MacAddress>) {
        self.own = own;
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        if let Some(election) = &mut self.election {
            let outcome = election.tick(now);
            self.act(outcome, now);
        }
        self.announce(now);
        let interval = self.settings.as_ref().map_or(Duration::ZERO, |settings| settings.l2.interval);
        for quiet in self.conflicts.expire(interval, now) {
            let text = "claimed by nobody else any more".to_owned();
            let reason = format!("{} did so last at {}", quiet.mac, quiet.last_ms);
            self.tell(Level::INFO, subject(quiet.address), text, Some(reason));
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let election = self.election.as_ref().and_then(Election::next_deadline);
        election.into_iter().chain(self.schedule.next_deadline()).min()
    }

    /// Ends it all.
    pub fn close(&mut self, now: Instant) {
        self.want(None, self.nics.clone(), now);
    }

    /// What has come together since the last call.
    pub fn take_output(&mut self) -> Output {
        mem::take(&mut self.output)
    }

    fn follow_nics(&mut self, nics: BTreeMap<String, Facts>, now: Instant) {
        let before = mem::replace(&mut self.nics, nics);
        let is_fresh = |(name, facts): (&String, &Facts)| {
            let same = |before: &Facts| before.up && before.index == facts.index && before.mac == facts.mac;
            facts.up && !before.get(name).is_some_and(same)
        };
        let any_fresh = self.nics.iter().any(is_fresh);
        self.take_part(now);
        if any_fresh && self.role.answers() {
            self.schedule.restart(now);
        }
    }

    /// Takes the part that settings and NICs allow.
    fn take_part(&mut self, now: Instant) {
        self.judge_links(now);
        let Some(settings) = &self.settings else {
            self.leave_election(now);
            return self.become_role(L2Role::Off, None, now);
        };
        let terms = settings.l2.election;
        if let Some(reason) = self.inability() {
            self.leave_election(now);
            return self.become_role(L2Role::Unable, Some(reason), now);
        }
        match terms {
            None => self.become_role(L2Role::Alone, None, now),
            Some(terms) => self.stand(terms, now),
        }
        self.follow_addresses(now);
    }

    fn stand(&mut self, terms: Terms, now: Instant) {
        let interval_cs = u16::try_from(terms.advertise_interval.as_millis() / 10).unwrap_or(u16::MAX);
        let priority = if self.maimed { MAIMED } else { terms.priority };
        let rules = Rules { priority, interval_cs, preempt: terms.preempt };
        let election = self.election.get_or_insert_with(|| Election::new(rules, now));
        if self.maimed && election.rules().priority > MAIMED && election.state() == State::Master {
            // By its new priority alone it would stay master wherever the others do not preempt.
            let outcome = Outcome { became: None, ..election.resign() };
            self.act(outcome, now);
        }
        let Some(election) = &mut self.election else { return };
        election.set_rules(rules, now);
        let outcome = election.join(now);
        self.act(outcome, now);
    }

    fn leave_election(&mut self, now: Instant) {
        if let Some(mut election) = self.election.take() {
            let outcome = election.resign();
            let group = self.group();
            self.advertise(outcome, group, election.rules().interval_cs);
            self.tolerate_until = now + GRACE;
        }
    }

    /// What an event of the election brings.
    fn act(&mut self, outcome: Outcome, now: Instant) {
        let Some(election) = &self.election else { return };
        let interval_cs = election.rules().interval_cs;
        // First the others learn of it, then the segment.
        self.advertise(outcome, self.group(), interval_cs);
        if let Some((state, why)) = outcome.became {
            self.tolerate_until = now + GRACE;
            let role = if state == State::Master { L2Role::Master } else { L2Role::Backup };
            self.become_role(role, self.reason(why), now);
        }
        if outcome.rival {
            self.answer_rival(now);
        }
    }

    /// Two masters: the other may have told everyone that it has the addresses.
    fn answer_rival(&mut self, now: Instant) {
        self.tolerate_until = now + GRACE;
        let just_now = self.rival_answered.is_some_and(|at| now.saturating_duration_since(at) < REPEAT_AFTER);
        if !just_now {
            self.rival_answered = Some(now);
            self.schedule.restart(now);
        }
    }

    fn become_role(&mut self, role: L2Role, reason: Option<String>, now: Instant) {
        if role == self.role {
            return;
        }
        let before = mem::replace(&mut self.role, role);
        self.since = Some(self.wall);
        self.follow_addresses(now);
        self.tell_role(before, reason);
    }

    /// Announces what the role allows.
    fn follow_addresses(&mut self, now: Instant) {
        let Some(settings) = &self.settings else {
            return self.schedule.set(&BTreeSet::new(), Duration::ZERO, now);
        };
        let interval = settings.l2.interval;
        if self.role.answers() {
            self.schedule.set(&self.addresses, interval, now);
        } else {
            self.schedule.set(&BTreeSet::new(), interval, now);
        }
    }

    fn advertise(&mut self, outcome: Outcome, group: u8, interval_cs: u16) {
        let Some(priority) = outcome.advertise else { return };
        let said = Advertisement { group, priority, interval_cs };
        let listed = self.addresses.iter().next().copied().filter(IpAddr::is_ipv4);
        for facts in self.nics.values().filter(|facts| facts.up || priority == LEAVES) {
            let Some(from) = facts.elected_with() else { continue };
            // RFC 5798 §5.2.9 wants all addresses over IPv4, and the link-local one first over IPv6. Nobody needs
            // them, and thousands would not fit: one stands for all.
            let listed = listed.filter(|_| from.is_ipv4()).unwrap_or(from);
            self.output.frames.push(Sent { nic: facts.index, frame: said.frame(from, listed, facts.mac) });
        }
    }

    fn announce(&mut self, now: Instant) {
        let due = self.schedule.due(now);
        // All that is said before anything is asked: a takeover waits for no question, and what finds no room in the
        // NIC's queue is one.
        for frames in [announcements, probe] {
            for address in &due {
                for facts in self.nics.values().filter(|facts| facts.up) {
                    let send = |frame| Sent { nic: facts.index, frame };
                    self.output.frames.extend(frames(*address, facts.mac).into_iter().map(send));
                }
            }
        }
    }

    fn group(&self) -> u8 {
        self.settings.as_ref().and_then(|settings| settings.l2.election).map_or(0, |terms| terms.group)
    }

    fn answers_for_v4(&self, address: Ipv4Addr) -> bool {
        self.role.answers() && self.addresses.contains(&IpAddr::V4(address))
    }

    fn answers_for_v6(&self, address: Ipv6Addr) -> bool {
        self.role.answers() && self.addresses.contains(&IpAddr::V6(address))
    }

    fn tell(&mut self, level: Level, subject: String, text: String, reason: Option<String>) {
        self.output.happenings.push(Happening { level, subject, text, reason });
    }
}

/// Tells the segment that `own` has the address.
fn announcements(address: IpAddr, own: MacAddress) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => arp::announcements(address, own).into(),
        IpAddr::V6(address) => vec![ndp::announcement(address, own)],
    }
}

/// Asks the segment whether another than `own` has it: a station that has it without saying so answers whoever
/// asks, and so would take clients from us.
fn probe(address: IpAddr, own: MacAddress) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => vec![arp::probe(address, own)],
        IpAddr::V6(address) => vec![ndp::probe(address, own)],
    }
}

/// As the journal calls an address.
fn subject(address: IpAddr) -> String {
    format!("address {address}")
}

#[cfg(test)]
mod tests;
