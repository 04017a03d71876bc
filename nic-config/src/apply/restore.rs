//! Puts back what was before, as far as it is still there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{ApplyError, ROUNDS, Watch};
use crate::journal::{Entry, Journal};
use crate::kernel::{Observed, Scope, World};
use crate::observe::ObserveError;
use crate::plan;
use crate::setting::{Item, Setting};

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// What was put back.
    pub done: Vec<Entry>,
    /// What is not there any more, such as an interface that was removed.
    pub gone: Vec<Setting>,
    /// What could not be put back, and why.
    pub failed: Vec<(Entry, String)>,
}

/// Puts back everything that the journal remembers; it forgets what is done or gone.
pub fn revert(
    world: &mut impl World,
    journal: &mut Journal,
    watch: &mut impl Watch,
) -> Result<Restored, ApplyError> {
    journal.follow(&world.names()?);
    let restored = restore(world, journal.entries(), watch)?;
    journal.replace(restored.failed.iter().map(|(entry, _)| entry.clone()).collect())?;
    Ok(restored)
}

/// Makes settings what the entries say.
pub fn restore(
    world: &mut impl World,
    entries: &[Entry],
    watch: &mut impl Watch,
) -> Result<Restored, ObserveError> {
    let scope = scope(entries);
    let mut done: Vec<Entry> = Vec::new();
    let (mut settled, mut reasons) = (BTreeSet::new(), BTreeMap::new());
    for _ in 0..ROUNDS {
        let observed = world.observe(&scope)?;
        settled.extend(
            entries.iter().filter(|entry| is_as_before(entry, &observed)).map(|entry| &entry.setting),
        );
        let left = in_order(entries, &observed);
        if left.is_empty() {
            break;
        }
        for entry in left {
            let observed = world.observe(&scope)?;
            if !is_different(entry, &observed) {
                continue;
            }
            watch.remembered();
            match world.set(&entry.setting, &entry.before) {
                Ok(()) => {
                    watch.done();
                    if !done.contains(entry) {
                        done.push(entry.clone());
                    }
                }
                Err(error) => {
                    reasons.insert(&entry.setting, error.to_string());
                }
            }
        }
    }
    let observed = world.observe(&scope)?;
    let mut restored = Restored { done, ..Restored::default() };
    for entry in entries {
        if is_different(entry, &observed) {
            let why = reasons.get(&entry.setting).map_or("it does not stay so", String::as_str);
            let why = format!("{} cannot be {} again: {why}", entry.setting, entry.before);
            restored.failed.push((entry.clone(), why));
        } else if !is_as_before(entry, &observed)
            && !settled.contains(&entry.setting)
            && is_kept(&entry.setting)
        {
            restored.gone.push(entry.setting.clone());
        }
    }
    restored.done.retain(|entry| !restored.failed.iter().any(|(failed, _)| failed == entry));
    Ok(restored)
}

/// Polling contexts and interrupts come and go with queues and are new each time, so nobody misses one.
fn is_kept(setting: &Setting) -> bool {
    !matches!(setting.item, Item::OneNapi { .. } | Item::Irq(_))
}

fn scope(entries: &[Entry]) -> Scope {
    let mut scope = Scope::default();
    for Entry { setting, .. } in entries {
        match (&setting.nic, &setting.item) {
            (Some(nic), _) if !scope.nics.contains(nic) => scope.nics.push(nic.clone()),
            (None, Item::Sysctl(name)) => scope.sysctls.push(name.clone()),
            _ => {}
        }
    }
    scope
}

/// Those that differ, the last interface first and the host last.
fn in_order<'e>(entries: &'e [Entry], observed: &Observed) -> Vec<&'e Entry> {
    let mut left: Vec<&Entry> = entries.iter().filter(|entry| is_different(entry, observed)).collect();
    let position = |entry: &Entry| {
        let of_same = |other: &Entry| other.setting.nic == entry.setting.nic;
        entry.setting.nic.as_ref().and_then(|_| entries.iter().position(of_same))
    };
    left.sort_by_key(|entry| {
        (Reverse(position(entry)), plan::undo_rank(&entry.setting, &entry.before, observed))
    });
    left
}

fn is_as_before(entry: &Entry, observed: &Observed) -> bool {
    is_there(entry, observed) && observed.value(&entry.setting) == Some(&entry.before)
}

fn is_different(entry: &Entry, observed: &Observed) -> bool {
    is_there(entry, observed) && observed.value(&entry.setting).is_some_and(|now| *now != entry.before)
}

/// The interface is there, and it is the one that was changed.
fn is_there(entry: &Entry, observed: &Observed) -> bool {
    let Some(nic) = &entry.setting.nic else { return true };
    observed.nics.get(nic).is_some_and(|state| Some(state.nic.ifindex) == entry.ifindex)
}
