//! Keeps routes to addresses in a table of the kernel that a routing daemon exports (`docs/announce-bgp.md`): host
//! routes with a protocol number of our own, by which we know ours. It never touches routes of another protocol, and
//! decides nothing about what is announced.
//!
//! The table is read and compared with what is wanted whenever that changes, when another program changed our routes,
//! and now and then; then the differences are applied. So a control plane that starts takes over what one before it
//! left.

mod kernel;
mod message;
mod plan;
mod report;
mod timing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use shunt_api::config::{AnnounceRoutes, OnStop};
use shunt_api::status::RoutesStatus;
use tokio::sync::watch;
use tracing::Level;

use self::kernel::{Kernel, KernelError};
use self::message::Change;
use self::plan::{Place, Plan, differences};
use self::timing::Timing;
use super::Wanted;
use crate::journal::{Happening, Journal};
use crate::until::until;

/// How often withdrawing is tried before the process stops.
const STOP_TRIES: usize = 3;

const STOPS: &str = "the control plane stops";
const UNUSED: &str = "announce.routes is no longer configured";
const MOVED: &str = "announce.routes has another table or protocol";
const UNCONFIGURED: &str = "it is no longer configured";
const DELETED: &str = "it had been deleted";
const LEFT: &str = "left from before, and not wanted";

/// How to announce by routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the operator asks for.
    pub routes: AnnounceRoutes,
    /// VIPs that are configured and not to be announced, and why.
    pub withheld: BTreeMap<IpAddr, &'static str>,
}

/// Announces what is wanted until the sender of it is gone; then withdraws, unless the settings say to keep.
pub async fn run(
    mut wanted: watch::Receiver<Wanted<Settings>>,
    journal: Journal,
    standing: watch::Sender<RoutesStatus>,
) {
    let mut announcer = Announcer::new(journal, standing);
    wanted.mark_changed();
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    break;
                }
                let now_wanted = wanted.borrow_and_update().clone();
                announcer.follow(now_wanted, Instant::now());
            }
            changed = next_change(&mut announcer.kernel, announcer.place) => announcer.table_changed(changed),
            () = until(announcer.timing.due()) => announcer.reconcile().await,
        }
    }
    announcer.stop().await;
}

async fn next_change(kernel: &mut Option<Kernel>, place: Option<Place>) -> Result<(), KernelError> {
    match (kernel, place) {
        (Some(kernel), Some(place)) => kernel.changed(place).await,
        _ => std::future::pending().await,
    }
}

/// Makes one table, or for a while several, be as wanted.
struct Announcer {
    journal: Journal,
    standing: watch::Sender<RoutesStatus>,
    /// Opened when first needed.
    kernel: Option<Kernel>,
    timing: Timing,
    /// Where routes are wanted; `None`: nowhere.
    place: Option<Place>,
    addresses: BTreeSet<IpAddr>,
    withheld: BTreeMap<IpAddr, &'static str>,
    on_stop: OnStop,
    /// What was there at the last look; `None` before the first.
    present: Option<BTreeSet<IpAddr>>,
    /// Where no routes are wanted any more but may still be, and why.
    abandoned: Vec<(Place, &'static str)>,
    problems: Vec<String>,
}

impl Announcer {
    fn new(journal: Journal, standing: watch::Sender<RoutesStatus>) -> Self {
        Self {
            journal,
            standing,
            kernel: None,
            timing: Timing::default(),
            place: None,
            addresses: BTreeSet::new(),
            withheld: BTreeMap::new(),
            on_stop: OnStop::Withdraw,
            present: None,
            abandoned: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Takes note of what is wanted.
    fn follow(&mut self, wanted: Wanted<Settings>, now: Instant) {
        match wanted {
            Wanted::Unknown => self.timing.rest(),
            Wanted::Unused => {
                self.move_to(None, UNUSED);
                self.timing.look_now(now);
            }
            Wanted::These { settings: Settings { routes: settings, withheld }, addresses } => {
                self.withheld = withheld;
                self.on_stop = settings.on_stop;
                self.move_to(Some(Place { table: settings.table, protocol: settings.protocol }), MOVED);
                // What is as before is looked at when it is due.
                if self.addresses != addresses || self.present.is_none() || self.timing.due().is_none() {
                    self.addresses = addresses;
                    self.timing.look_now(now);
                }
            }
        }
    }

    /// Wants routes at another place, and none at the one so far.
    fn move_to(&mut self, place: Option<Place>, reason: &'static str) {
        if self.place == place {
            return;
        }
        self.abandoned.extend(self.place.map(|place| (place, reason)));
        self.abandoned.retain(|(abandoned, _)| Some(*abandoned) != place);
        (self.place, self.present) = (place, None);
        self.addresses.clear();
    }

    fn table_changed(&mut self, changed: Result<(), KernelError>) {
        match changed {
            Ok(()) => self.timing.table_changed(Instant::now()),
            // At rest nothing is asked of the sockets; they are opened anew when something is.
            Err(_) if self.timing.due().is_none() => self.kernel = None,
            Err(error) => self.settle(Err(error)),
        }
    }

    /// Makes the tables be as wanted, as far as the kernel lets it.
    async fn reconcile(&mut self) {
        let outcome = self.try_to_reconcile().await;
        self.settle(outcome);
    }

    /// Returns what stands in the way.
    async fn try_to_reconcile(&mut self) -> Result<Vec<String>, KernelError> {
        let mut problems = Vec::new();
        for (place, reason) in std::mem::take(&mut self.abandoned) {
            let emptied = self.make(place, &BTreeSet::new(), Some(reason)).await;
            if !matches!(&emptied, Ok((_, problems)) if problems.is_empty()) {
                self.abandoned.push((place, reason));
            }
            problems.extend(emptied?.1);
        }
        let Some(place) = self.place else { return Ok(problems) };
        let addresses = std::mem::take(&mut self.addresses);
        let made = self.make(place, &addresses, None).await;
        self.addresses = addresses;
        let (present, remaining) = made?;
        self.present = Some(present);
        problems.extend(remaining);
        Ok(problems)
    }

    /// Makes the routes of one place be as wanted; returns which of the wanted are there, and what stands in the way
    /// of the others. `reason` is why they are withdrawn, if it is known.
    async fn make(
        &mut self,
        place: Place,
        wanted: &BTreeSet<IpAddr>,
        reason: Option<&'static str>,
    ) -> Result<(BTreeSet<IpAddr>, Vec<String>), KernelError> {
        let kernel = match &mut self.kernel {
            Some(kernel) => kernel,
            none => none.insert(Kernel::open()?),
        };
        let plan = differences(&kernel.read(place).await?, wanted);
        let removed = plan.remove.iter().copied().map(Change::Remove);
        let changes: Vec<_> = removed.chain(plan.add.iter().copied().map(Change::Add)).collect();
        let outcomes = kernel.change(place, &changes).await?;
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for (change, outcome) in changes.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => done.push(change),
                Err(errno) => refused.push((change, errno)),
            }
        }
        self.tell(place, &plan, &done, reason);
        let added = done.iter().filter(|change| matches!(change, Change::Add(_)));
        let present = plan.right.into_iter().chain(added.map(|change| change.prefix().addr())).collect();
        Ok((present, report::problems(place, &refused)))
    }

    fn tell(&self, place: Place, plan: &Plan, done: &[Change], reason: Option<&'static str>) {
        let was_there =
            |prefix: &IpNet| self.present.as_ref().is_some_and(|present| present.contains(&prefix.addr()));
        let told = |change: &Change| match change {
            Change::Add(address) => {
                let prefix = IpNet::from(*address);
                (prefix, "announced", was_there(&prefix).then_some(DELETED))
            }
            Change::Remove(found) => {
                let withheld = self.withheld.get(&found.prefix.addr()).copied();
                let own = if was_there(&found.prefix) { UNCONFIGURED } else { LEFT };
                (found.prefix, "withdrawn", reason.or(withheld).or(Some(own)))
            }
        };
        let mut all: Vec<_> = done.iter().map(told).collect();
        if self.present.is_none() && reason.is_none() {
            all.extend(plan.right.iter().map(|address| (IpNet::from(*address), "found and kept", None)));
        }
        report::lines(place.table, &all).into_iter().for_each(|line| self.journal.tell(line));
    }

    /// Draws the consequences of a look at the tables.
    fn settle(&mut self, outcome: Result<Vec<String>, KernelError>) {
        let problems = outcome.unwrap_or_else(|error| {
            // What was asked of these sockets is in doubt.
            self.kernel = None;
            vec![error.to_string()]
        });
        let now = Instant::now();
        match (problems.is_empty(), self.place) {
            (false, _) => self.timing.failed(now),
            (true, Some(_)) => self.timing.succeeded(now),
            (true, None) => {
                self.timing.rest();
                // Nobody would read what it is told.
                self.kernel = None;
            }
        }
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            self.say(Level::WARN, problem.clone());
        }
        if problems.is_empty() && !self.problems.is_empty() {
            self.say(Level::INFO, "as it should be again".to_owned());
        }
        self.problems = problems;
        self.publish();
    }

    fn say(&self, level: Level, text: String) {
        let subject = "announcing by routes".to_owned();
        self.journal.tell(Happening { level, subject, text, reason: None });
    }

    fn publish(&self) {
        let place = self.place.unwrap_or(Place { table: 0, protocol: 0 });
        let present = self.present.iter().flatten().copied();
        let prefixes: Vec<_> = present.map(IpNet::from).collect();
        let status = RoutesStatus {
            table: place.table,
            protocol: place.protocol,
            present: prefixes.len(),
            prefixes,
            problems: self.problems.clone(),
        };
        self.standing.send_if_modified(|standing| {
            let differs = *standing != status;
            *standing = status;
            differs
        });
    }

    /// Leaves the tables as the settings want it.
    async fn stop(mut self) {
        if self.on_stop == OnStop::Keep {
            self.place = None;
            let kept = self.present.take().map_or(0, |present| present.len());
            tracing::info!("{kept} announced routes stay for the next start (announce.routes.on_stop)");
        }
        self.move_to(None, STOPS);
        for _ in 0..STOP_TRIES {
            if self.abandoned.is_empty() {
                return;
            }
            self.reconcile().await;
        }
        for (Place { table, protocol }, _) in &self.abandoned {
            let places = format!("table {table} proto {protocol}");
            let text =
                format!("routes remain; run `ip route flush {places}` and `ip -6 route flush {places}`");
            self.say(Level::ERROR, text);
        }
    }
}

#[cfg(test)]
mod tests;
