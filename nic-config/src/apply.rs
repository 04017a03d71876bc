//! Does a plan's steps, and puts back what was before.
//!
//! Drivers change more than they are asked to: a new number of queues resets RSS and gives interrupts new
//! places. So each step is looked at afresh before and after it is done, what it may change besides is
//! remembered too, and there are rounds until nothing is left to do.

mod restore;

use std::io;

pub use self::restore::{Restored, revert};
use crate::desired::Desired;
use crate::host;
use crate::journal::{Entry, Journal, JournalError};
use crate::kernel::{Observed, Scope, World};
use crate::observe::ObserveError;
use crate::plan::{self, Impossible, Step};
use crate::setting::{Item, Setting, Value};

/// Plans until there is nothing left: what a driver resets is set again in the second round, and a third
/// finds what that made possible.
const ROUNDS: usize = 4;
const LRO: &str = "rx-lro";

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// In this order.
    pub done: Vec<Step>,
    /// What was skipped or cannot be done by a step.
    pub notes: Vec<String>,
}

/// Why not everything was done. Unless it says otherwise, all is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The file asks for what cannot be.
    #[error(transparent)]
    Impossible(#[from] Impossible),
    /// The kernel does not tell.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Nothing is changed that cannot be remembered.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel does not take a step.
    #[error("{setting} cannot be {to} ({origin}): {source}")]
    Refused {
        /// Of which setting.
        setting: Setting,
        /// As it should have been.
        to: Value,
        /// Who wants it.
        origin: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The driver undoes one step by another.
    #[error(
        "{0} does not stay as it was set: the driver resets it with another setting; take one of the two out"
    )]
    Unsettled(Setting),
    /// And it could not be put back.
    #[error("{source}; and not all could be put back: {failed}; `nic-config revert` tries again")]
    Stuck {
        /// Why it was to be put back.
        source: Box<Self>,
        /// What could not be.
        failed: String,
    },
}

/// Told of each step, for tests that end the process there.
pub trait Watch {
    /// The inverse is on disk, the step not done.
    fn remembered(&mut self) {}
    /// The step is done.
    fn done(&mut self) {}
}

/// Nobody watches.
impl Watch for () {}

/// Makes things as they are wanted, or leaves them as they were.
pub fn apply(
    world: &mut impl World,
    journal: &mut Journal,
    desired: &Desired,
    watch: &mut impl Watch,
) -> Result<Applied, ApplyError> {
    let scope =
        Scope { nics: desired.nics.iter().map(|nic| nic.name.clone()).collect(), sysctls: desired.sysctls() };
    journal.follow(&world.names()?);
    let known = journal.entries().to_vec();
    let mut run =
        Run { world, journal, scope, touched: Vec::new(), refused: Vec::new(), applied: Applied::default() };
    let Err(error) = run.rounds(desired, watch) else { return Ok(run.applied) };
    let Run { world, journal, touched, .. } = run;
    let restored = match restore::restore(world, &touched, &mut ()) {
        Ok(restored) => restored,
        Err(why) => return Err(ApplyError::Stuck { source: Box::new(error), failed: why.to_string() }),
    };
    if restored.failed.is_empty() {
        journal.replace(known)?;
        return Err(error);
    }
    let failed: Vec<String> = restored.failed.into_iter().map(|(_, why)| why).collect();
    Err(ApplyError::Stuck { source: Box::new(error), failed: failed.join("; ") })
}

struct Run<'r, W> {
    world: &'r mut W,
    journal: &'r mut Journal,
    scope: Scope,
    /// How everything was that this run touched.
    touched: Vec<Entry>,
    /// Optional, and the kernel did not take it.
    refused: Vec<Setting>,
    applied: Applied,
}

impl<W: World> Run<'_, W> {
    fn rounds(&mut self, desired: &Desired, watch: &mut impl Watch) -> Result<(), ApplyError> {
        let mut refusals = Vec::new();
        for _ in 0..ROUNDS {
            let plan = plan::plan(&self.world.observe(&self.scope)?, desired)?;
            self.applied.notes = [plan.notes, refusals.clone()].concat();
            let steps: Vec<Step> =
                plan.steps.into_iter().filter(|step| !self.refused.contains(&step.setting)).collect();
            if steps.is_empty() {
                return Ok(());
            }
            for step in steps {
                refusals.extend(self.step(step, watch)?);
            }
        }
        let left = plan::plan(&self.world.observe(&self.scope)?, desired)?.steps;
        let left = left.into_iter().find(|step| !self.refused.contains(&step.setting));
        left.map_or(Ok(()), |step| Err(ApplyError::Unsettled(step.setting)))
    }

    /// A word if it was refused and is optional.
    fn step(&mut self, step: Step, watch: &mut impl Watch) -> Result<Option<String>, ApplyError> {
        let observed = self.world.observe(&self.scope)?;
        // Steps before this one may have done it, or taken the setting away; the next round knows.
        let Some(from) = observed.value(&step.setting) else { return Ok(None) };
        if from.serves(&step.to) || is_of_another_size(from, &step.to) {
            return Ok(None);
        }
        self.remember(&inverses(&step.setting, &observed))?;
        watch.remembered();
        let refusal = match self.world.set(&step.setting, &step.to) {
            Ok(()) => self.mismatch(&step)?,
            Err(source) => Some(source),
        };
        let Some(source) = refusal else {
            watch.done();
            self.applied.done.push(step);
            return Ok(None);
        };
        if !step.optional {
            let Step { setting, to, origin, .. } = step;
            return Err(ApplyError::Refused { setting, to, origin, source });
        }
        let note = format!("{}: {} cannot be {}: {source}; skipped", step.origin, step.setting, step.to);
        self.refused.push(step.setting);
        Ok(Some(note))
    }

    /// Kernels take values that they do not keep, such as more huge pages than there is memory for.
    fn mismatch(&self, step: &Step) -> Result<Option<io::Error>, ApplyError> {
        let observed = self.world.observe(&self.scope)?;
        let now = observed.value(&step.setting);
        if now.is_some_and(|now| now.serves(&step.to)) {
            return Ok(None);
        }
        let now = now.map_or_else(|| "not there any more".to_owned(), ToString::to_string);
        Ok(Some(io::Error::other(format!("the kernel took it, and it is {now}"))))
    }

    fn remember(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let is_new = |entry: &&Entry| !self.touched.iter().any(|known| known.setting == entry.setting);
        let new: Vec<Entry> = entries.iter().filter(is_new).cloned().collect();
        self.touched.extend(new);
        self.journal.remember(entries)
    }
}

/// Some drivers size the RSS table by the number of queues, and steps before this one may have changed that.
fn is_of_another_size(is: &Value, wanted: &Value) -> bool {
    matches!((is, wanted), (Value::Table(is), Value::Table(wanted)) if is.len() != wanted.len())
}

/// What a setting is now, and what the driver or the kernel may change along with it.
fn inverses(setting: &Setting, observed: &Observed) -> Vec<Entry> {
    let along = match &setting.nic {
        Some(nic) => along_with_interface(nic, &setting.item, observed),
        None => along_with_host(&setting.item, observed),
    };
    let entry = |setting: Setting| {
        let state = setting.nic.as_ref().and_then(|nic| observed.nics.get(nic));
        let before = observed.value(&setting)?.clone();
        Some(Entry { setting, ifindex: state.map(|state| state.nic.ifindex), before })
    };
    let along = along.into_iter().filter(|other| other != setting);
    std::iter::once(setting.clone()).chain(along).filter_map(entry).collect()
}

fn along_with_interface(nic: &str, item: &Item, observed: &Observed) -> Vec<Setting> {
    let values = observed.nics.get(nic).map(|state| state.values.keys());
    let along = values.into_iter().flatten().filter(|other| changes_along(item, other));
    along.map(|item| Setting::of(nic, item.clone())).collect()
}

fn along_with_host(item: &Item, observed: &Observed) -> Vec<Setting> {
    let parameters = observed.host.along.get(item).into_iter().flatten().cloned().map(Setting::host);
    let ends_lro = matches!(item, Item::Sysctl(name) if host::ends_lro(name));
    let nics = observed.nics.keys().filter(|_| ends_lro);
    parameters.chain(nics.map(|nic| Setting::of(nic, Item::Feature(LRO.to_owned())))).collect()
}

/// Drivers that set up their queues anew forget RSS, steering rules and where interrupts were; those that
/// cease to steer forget the rules; a device's NAPI setting is written over that of each polling context.
fn changes_along(item: &Item, other: &Item) -> bool {
    match item {
        Item::Queues(_) | Item::Ring(_) | Item::Feature(_) | Item::Mtu | Item::Up => matches!(
            other,
            Item::RssTable
                | Item::RssKey
                | Item::RssTransform
                | Item::HashFields(_)
                | Item::Rule(_)
                | Item::Irq(_)
                | Item::Coalesce(_)
        ),
        Item::Napi(knob) => matches!(other, Item::OneNapi { knob: each, .. } if each == knob),
        Item::Coalesce(_) => matches!(other, Item::Coalesce(_)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
