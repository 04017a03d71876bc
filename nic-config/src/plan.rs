//! From how things stand and what is wanted to the steps between, in an order that the kernel takes. Pure.

mod wishes;

use serde::Serialize;

use crate::desired::{Desired, Want};
use crate::kernel::{NicState, Observed};
use crate::setting::{Coalescing, Item, Setting, Value};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Of what.
    #[serde(serialize_with = "in_words")]
    pub setting: Setting,
    /// As it is.
    pub from: Value,
    /// As it shall be.
    pub to: Value,
    /// Why.
    pub reason: String,
    /// Who wants it: a key of the file with its line, or a driver's profile.
    pub origin: String,
    /// If the kernel refuses it, the others are done all the same.
    pub optional: bool,
}

fn in_words<S: serde::Serializer>(setting: &Setting, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(setting)
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// What was left out because it was optional, and what no step can do.
    pub notes: Vec<String>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Impossible(pub Vec<String>);

/// The steps from how things stand to what is wanted.
pub fn plan(observed: &Observed, desired: &Desired) -> Result<Plan, Impossible> {
    let mut draft = Draft { observed, plan: Plan::default(), problems: Vec::new() };
    wishes::host(&mut draft, &desired.host);
    for nic in &desired.nics {
        let Some(state) = observed.nics.get(&nic.name) else {
            let (name, line) = (&nic.name, nic.line);
            draft.problems.push(format!(
                "line {line}: there is no interface `{name}` in this network namespace; `nic-config show` lists those there are"
            ));
            continue;
        };
        wishes::nic(&mut draft, state, nic);
    }
    if !draft.problems.is_empty() {
        return Err(Impossible(draft.problems));
    }
    let mut plan = draft.plan;
    let position = |step: &Step| {
        step.setting.nic.as_ref().map(|name| desired.nics.iter().position(|nic| nic.name == *name))
    };
    plan.steps.sort_by_key(|step| (position(step), rank(&step.setting, &step.to, observed)));
    Ok(plan)
}

/// Of what comes last.
const LAST_RANK: u8 = 16;

/// Where a setting stands among those of one interface.
///
/// RSS must not lead to a queue that is not there: a table that fits the queues there are comes before they
/// change, so that they can become fewer, any other after it, when they have become more.
/// Some drivers take no waits while they choose these themselves (`ice_set_rc_coalesce`).
pub fn rank(setting: &Setting, to: &Value, observed: &Observed) -> u8 {
    match &setting.item {
        Item::Sysctl(_) | Item::Governor(_) | Item::HugePages { .. } => 0,
        Item::Feature(_) => 1,
        Item::Mtu => 2,
        Item::Ring(_) => 3,
        Item::RssTable if fits(setting, to, observed) => 4,
        Item::Queues(_) => 5,
        Item::RssTable => 6,
        Item::RssTransform | Item::RssKey => 7,
        Item::HashFields(_) => 8,
        Item::Coalesce(Coalescing::AdaptiveRx | Coalescing::AdaptiveTx) => 9,
        Item::Coalesce(_) => 10,
        Item::Promiscuous | Item::AllMulticast => 11,
        Item::Up => 12,
        Item::Napi(_) => 13,
        Item::OneNapi { .. } => 14,
        Item::Rule(_) => 15,
        Item::Irq(_) => LAST_RANK,
    }
}

/// Where a setting stands when things are put back: the other way round, but for RSS, which has the same
/// rule either way.
pub fn undo_rank(setting: &Setting, to: &Value, observed: &Observed) -> u8 {
    match rank(setting, to, observed) {
        4 => LAST_RANK - 6,
        6 => LAST_RANK - 4,
        rank => LAST_RANK - rank,
    }
}

fn fits(setting: &Setting, to: &Value, observed: &Observed) -> bool {
    let state = setting.nic.as_ref().and_then(|nic| observed.nics.get(nic));
    let Some(queues) = state.and_then(|state| state.nic.rx_queues()) else { return true };
    match to {
        Value::Table(table) => table.iter().all(|&queue| queue < queues),
        _ => true,
    }
}

/// A plan in the making.
struct Draft<'o> {
    observed: &'o Observed,
    plan: Plan,
    problems: Vec<String>,
}

/// Who wants something.
#[derive(Clone, Debug)]
struct Origin {
    text: String,
    /// What `optional` has to name to go without; empty if nobody asked in so many words.
    key: String,
    optional: bool,
}

impl<T> From<&Want<T>> for Origin {
    fn from(want: &Want<T>) -> Self {
        let text = format!("line {}, {}", want.line, want.key);
        Self { text, key: want.name.clone(), optional: want.optional }
    }
}

impl Draft<'_> {
    /// Plans that these settings have such values, as far as they exist; if none does, that is a problem.
    fn ask(&mut self, wanted: &[(Setting, Value)], origin: &Origin, reason: &str) {
        let there: Vec<_> = wanted
            .iter()
            .filter_map(|(setting, to)| Some((setting, self.observed.value(setting)?.clone(), to)))
            .collect();
        if let (true, Some((setting, _))) = (there.is_empty(), wanted.first()) {
            let whose = setting.nic.as_deref().unwrap_or("this machine");
            return self.cannot(origin, &format!("{whose} has no setting {}", setting.item));
        }
        for (setting, from, to) in there {
            if from.serves(to) {
                continue;
            }
            if let Some(max) = self.above_limit(setting, to) {
                self.cannot(origin, &format!("{setting} can be {max} at most, not {to}"));
                continue;
            }
            self.plan.steps.push(Step {
                setting: setting.clone(),
                from,
                to: to.clone(),
                reason: reason.to_owned(),
                origin: origin.text.clone(),
                optional: origin.optional,
            });
        }
    }

    /// Says and skips what is optional, and refuses the rest.
    fn cannot(&mut self, origin: &Origin, why: &str) {
        if origin.optional {
            self.plan.notes.push(format!("{}: {why}; skipped, as it is optional", origin.text));
            return;
        }
        let Origin { text, key, .. } = origin;
        self.problems
            .push(format!("{text}: {why}; take the key out, or add optional = [\"{key}\"] to go without"));
    }

    fn above_limit(&self, setting: &Setting, to: &Value) -> Option<u64> {
        let state: &NicState = self.observed.nics.get(setting.nic.as_ref()?)?;
        let max = *state.limits.get(&setting.item)?;
        (to.number()? > max).then_some(max)
    }
}

#[cfg(test)]
mod tests;
