//! Which box of a group answers: the states of VRRPv3 (RFC 5798 §6). Pure, without a clock.
//!
//! ```text
//!               join                         silence for 3 intervals + skew
//!  ┌────────────┐ ──────────────→ ┌────────┐ ──────────────────────────────→ ┌────────┐
//!  │ Initialize │                 │ Backup │                                 │ Master │
//!  └────────────┘ ←────────────── └────────┘ ←────────────────────────────── └────────┘
//!         ↑         resign                     a master of higher rank           │
//!         └──────────────────────────────────────────────────────────────────────┘
//!                          resign: priority 0, so that the next waits for its skew only
//! ```
//!
//! Rank is the priority, and the higher address where priorities are equal. The skew, (256 − priority) / 256 of an
//! interval, lets the backup of highest priority be the first to notice. With 200 ms a master that vanished is
//! replaced 602 to 800 ms after its last advertisement, and one that resigned within 2 to 200 ms.
//!
//! Beyond RFC 5798, and as its successor RFC 9568 §6.4.3 has it, a master that hears one of lower rank
//! advertises at once, so that two masters are one again before the next interval ends.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::vrrp::{self, Advertisement, LEAVES};

/// A master hurries an advertisement at most once in this fraction of its interval, whatever a flood of others
/// says.
const HURRY: u32 = 10;

/// What this box brings into the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// 1…254.
    pub priority: u8,
    /// From one advertisement to the next, in hundredths of a second.
    pub interval_cs: u16,
    /// Whether it takes over from a master of lower priority.
    pub preempt: bool,
}

/// Where a box stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Takes no part.
    Initialize,
    /// Listens.
    Backup,
    /// Answers and advertises.
    Master,
}

/// Why a box became what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It takes part from now on.
    Joined,
    /// It was told to.
    Resigned,
    /// Nobody advertised for so long.
    Silence(Duration),
    /// This master said that it leaves.
    MasterLeft(IpAddr),
    /// This master is of higher rank.
    Outranked {
        /// Its address.
        by: IpAddr,
        /// Its priority.
        priority: u8,
    },
}

/// What must follow from an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Send an advertisement with this priority.
    pub advertise: Option<u8>,
    /// The box became another.
    pub became: Option<(State, Why)>,
    /// Another master of lower rank was heard: it may have told the segment that the addresses are its own.
    pub rival: bool,
}

/// Another box, as last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is elected with.
    pub address: IpAddr,
    /// Its priority.
    pub priority: u8,
}

/// One box's part in one group.
#[derive(Debug)]
pub struct Election {
    rules: Rules,
    state: State,
    /// The interval of whoever is master: a backup waits by it (`Master_Adver_Interval`).
    master_interval: Duration,
    /// Of `Master_Down_Timer` or `Adver_Timer`, whichever the state has.
    deadline: Option<Instant>,
    /// When the present wait for a master began.
    quiet_since: Instant,
    advertised: Option<Instant>,
    master: Option<Peer>,
    /// The last wait is for a master that left.
    left: Option<IpAddr>,
}

impl Election {
    /// Takes no part yet.
    pub fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            state: State::Initialize,
            master_interval: vrrp::centiseconds(rules.interval_cs),
            deadline: None,
            quiet_since: now,
            advertised: None,
            master: None,
            left: None,
        }
    }

    /// Where the box stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// What it brings.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Who is master; `None` unless this box is its backup and has heard it.
    pub fn master(&self) -> Option<Peer> {
        self.master
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes part from now on, as a backup at first: no box owns the addresses (§6.4.1).
    pub fn join(&mut self, now: Instant) -> Outcome {
        if self.state != State::Initialize {
            return Outcome::default();
        }
        self.master_interval = self.interval();
        self.listen(None, now);
        Outcome { became: Some((State::Backup, Why::Joined)), ..Outcome::default() }
    }

    /// Takes no part from now on; a master says so.
    pub fn resign(&mut self) -> Outcome {
        if self.state == State::Initialize {
            return Outcome::default();
        }
        let advertise = (self.state == State::Master).then_some(LEAVES);
        (self.state, self.deadline, self.master, self.left) = (State::Initialize, None, None, None);
        Outcome { advertise, became: Some((State::Initialize, Why::Resigned)), rival: false }
    }

    /// Goes by other rules from now on; a master stays one until it is outranked.
    pub fn set_rules(&mut self, rules: Rules, now: Instant) {
        if rules == self.rules {
            return;
        }
        self.rules = rules;
        match self.state {
            State::Initialize => {}
            State::Backup => {
                if self.master.is_none() {
                    self.master_interval = self.interval();
                }
                self.wait(self.master_down(), now);
            }
            State::Master => self.deadline = Some(now),
        }
    }

    /// Takes in an advertisement of this group, heard on a NIC where this box has the address `own`.
    pub fn hear(&mut self, said: Advertisement, from: IpAddr, own: IpAddr, now: Instant) -> Outcome {
        match self.state {
            State::Initialize => Outcome::default(),
            State::Backup => {
                self.hear_as_backup(said, from, now);
                Outcome::default()
            }
            State::Master => self.hear_as_master(said, from, own, now),
        }
    }

    /// Does what is due. To be called after everything that was received has been heard: a box that was stopped
    /// for a while must not take over from a master whose advertisements wait to be read.
    pub fn tick(&mut self, now: Instant) -> Outcome {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Outcome::default();
        }
        match self.state {
            State::Initialize => Outcome::default(),
            State::Backup => self.take_over(now),
            State::Master => self.advertise(now),
        }
    }

    /// §6.4.2.
    fn hear_as_backup(&mut self, said: Advertisement, from: IpAddr, now: Instant) {
        if said.priority == LEAVES {
            // Only of the one that was followed: another may leave without the master being gone.
            if self.master.is_none_or(|master| master.address == from) {
                self.master = None;
                self.left = Some(from);
                self.wait(self.skew(), now);
            }
            return;
        }
        if !self.rules.preempt || said.priority >= self.rules.priority {
            self.follow(said, from, now);
        }
    }

    /// §6.4.3.
    fn hear_as_master(&mut self, said: Advertisement, from: IpAddr, own: IpAddr, now: Instant) -> Outcome {
        if said.priority == LEAVES {
            return self.hurry(now);
        }
        if (said.priority, from) <= (self.rules.priority, own) {
            return Outcome { rival: true, ..self.hurry(now) };
        }
        self.follow(said, from, now);
        let why = Why::Outranked { by: from, priority: said.priority };
        Outcome { became: Some((State::Backup, why)), ..Outcome::default() }
    }

    fn follow(&mut self, said: Advertisement, from: IpAddr, now: Instant) {
        self.master_interval = vrrp::centiseconds(said.interval_cs);
        self.listen(Some(Peer { address: from, priority: said.priority }), now);
    }

    fn listen(&mut self, master: Option<Peer>, now: Instant) {
        (self.state, self.master, self.left) = (State::Backup, master, None);
        self.wait(self.master_down(), now);
    }

    fn wait(&mut self, wait: Duration, now: Instant) {
        self.quiet_since = now;
        self.deadline = Some(now + wait);
    }

    fn take_over(&mut self, now: Instant) -> Outcome {
        let why = match self.left {
            Some(left) => Why::MasterLeft(left),
            None => Why::Silence(now.saturating_duration_since(self.quiet_since)),
        };
        (self.state, self.master, self.left) = (State::Master, None, None);
        Outcome { became: Some((State::Master, why)), ..self.advertise(now) }
    }

    fn advertise(&mut self, now: Instant) -> Outcome {
        self.advertised = Some(now);
        self.deadline = Some(now + self.interval());
        Outcome { advertise: Some(self.rules.priority), ..Outcome::default() }
    }

    /// An advertisement before its time, unless there was one just now.
    fn hurry(&mut self, now: Instant) -> Outcome {
        let pause = self.interval() / HURRY;
        let just_now = self.advertised.is_some_and(|at| now.saturating_duration_since(at) < pause);
        if just_now { Outcome::default() } else { self.advertise(now) }
    }

    fn interval(&self) -> Duration {
        vrrp::centiseconds(self.rules.interval_cs)
    }

    /// `Skew_Time`.
    fn skew(&self) -> Duration {
        self.master_interval * (256 - u32::from(self.rules.priority)) / 256
    }

    /// `Master_Down_Interval`.
    fn master_down(&self) -> Duration {
        3 * self.master_interval + self.skew()
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
