//! What keys mean that are more than one setting, and what a driver's profile adds.

use super::{Draft, Origin};
use crate::desired::{DesiredHost, DesiredNic, Want};
use crate::ethtool::rss;
use crate::files::cpu_list;
use crate::host::Cpus;
use crate::kernel::NicState;
use crate::profile::{self, Symmetry};
use crate::setting::{Coalescing, Item, QueueKind, Setting, Value};

const NTUPLE: &str = "rx-ntuple-filter";
/// Two bytes that, repeated, hash both directions of a flow alike (Woo and Park, 2012).
const SYMMETRIC_KEY: &str = "6d5a";
const ONE_WORKER: &str = "each queue is served by one worker";

/// What is wanted of the host.
pub fn host(draft: &mut Draft<'_>, desired: &DesiredHost) {
    for wish in &desired.wishes {
        let wanted = vec![(wish.setting.clone(), wish.want.value.clone())];
        draft.ask(&wanted, &Origin::from(&wish.want), &wish.reason);
    }
    let cpus = &draft.observed.host.cpus;
    if let Some(want) = &desired.governor {
        let governor = |cpu: &u32| (Setting::host(Item::Governor(*cpu)), Value::Text(want.value.clone()));
        let wanted: Vec<_> = cpus.online.iter().map(governor).collect();
        draft.ask(
            &wanted,
            &Origin::from(want),
            "a core that slows down when it is idle is late for the next packet",
        );
    }
    if let Some(want) = &desired.isolated_cores {
        isolation(draft, want);
    }
}

/// Cores are isolated when the kernel starts; a plan can only say how.
fn isolation(draft: &mut Draft<'_>, want: &Want<Vec<u32>>) {
    let missing: Vec<u32> =
        want.value.iter().copied().filter(|cpu| !draft.observed.host.cpus.isolated.contains(cpu)).collect();
    if !missing.is_empty() {
        let (missing, all) = (cpu_list(&missing), cpu_list(&want.value));
        draft.plan.notes.push(format!(
            "line {}, {}: CPU {missing} is not isolated; put isolcpus={all} nohz_full={all} rcu_nocbs={all} on the kernel's command line and start anew",
            want.line, want.key
        ));
    }
}

/// What is wanted of an interface.
pub fn nic(draft: &mut Draft<'_>, state: &NicState, desired: &DesiredNic) {
    plain(draft, state, desired);
    queues(draft, state, desired);
    symmetric(draft, state, desired);
    steer(draft, state, desired);
    interrupts(draft, state, desired);
    defaults(draft, state, desired);
}

/// Keys that set one thing, each in its places.
fn plain(draft: &mut Draft<'_>, state: &NicState, desired: &DesiredNic) {
    for wishes in desired.wishes.chunk_by(|a, b| a.want.key == b.want.key) {
        let origin = Origin::from(&wishes[0].want);
        let wanted: Vec<(Setting, Value)> = wishes
            .iter()
            .flat_map(|wish| {
                let value = wish.want.value.clone();
                places(state, desired, &wish.setting).into_iter().map(move |place| (place, value.clone()))
            })
            .collect();
        if wanted.is_empty() {
            let why = "no queue has NAPI settings of its own; that needs Linux 6.13 and a NIC that is up";
            draft.cannot(&origin, why);
        }
        draft.ask(&wanted, &origin, &wishes[0].reason);
    }
}

/// A NAPI setting goes to every polling context, if that is wanted.
fn places(state: &NicState, desired: &DesiredNic, setting: &Setting) -> Vec<Setting> {
    let (Item::Napi(wanted), true) = (&setting.item, desired.napi_each) else { return vec![setting.clone()] };
    let each =
        state.values.keys().filter(|item| matches!(item, Item::OneNapi { knob, .. } if knob == wanted));
    each.map(|item| Setting::of(&desired.name, item.clone())).collect()
}

/// How many queues, and RSS over them.
fn queues(draft: &mut Draft<'_>, state: &NicState, desired: &DesiredNic) {
    if let Some(want) = &desired.queues {
        let combined = Item::Queues(QueueKind::Combined);
        let kinds = if state.limits.contains_key(&combined) {
            vec![combined]
        } else {
            vec![Item::Queues(QueueKind::Rx), Item::Queues(QueueKind::Tx)]
        };
        let wanted = kinds
            .into_iter()
            .map(|item| (Setting::of(&desired.name, item), Value::Number(want.value.into())));
        draft.ask(&wanted.collect::<Vec<_>>(), &Origin::from(want), ONE_WORKER);
    }
    let table = state.values.get(&Item::RssTable);
    let over = |queues| match table {
        Some(Value::Table(table)) => Value::Table(rss::even(table.len(), queues)),
        _ => Value::Absent,
    };
    let setting = Setting::of(&desired.name, Item::RssTable);
    match (&desired.spread, &desired.queues) {
        (Some(want), _) => {
            draft.ask(&[(setting, over(want.value))], &Origin::from(want), "RSS spreads over these queues");
        }
        (None, Some(want)) if table.is_some() => {
            draft.ask(&[(setting, over(want.value))], &Origin::from(want), "RSS spreads over all queues");
        }
        _ => {}
    }
}

fn symmetric(draft: &mut Draft<'_>, state: &NicState, desired: &DesiredNic) {
    let Some(want) = &desired.symmetric else { return };
    let way = profile::of(state.nic.driver.as_deref()).map_or(Symmetry::Key, |profile| profile.symmetric);
    let (item, value) = match (way, state.values.get(&Item::RssKey)) {
        (Symmetry::Transform, _) => (Item::RssTransform, Value::Number(u64::from(want.value))),
        (Symmetry::Key, Some(Value::Text(key))) if want.value => {
            let repeated = SYMMETRIC_KEY.repeat(key.len().div_ceil(SYMMETRIC_KEY.len()));
            (Item::RssKey, Value::Text(repeated[..key.len()].to_owned()))
        }
        (Symmetry::Key, _) if want.value => (Item::RssKey, Value::Absent),
        // Any key but the repeated one will do, and the driver's is one.
        (Symmetry::Key, _) => return,
    };
    let reason = "both directions of a flow come to one queue";
    draft.ask(&[(Setting::of(&desired.name, item), value)], &Origin::from(want), reason);
}

/// Rules go to free places from the first on, unless they are there already.
fn steer(draft: &mut Draft<'_>, state: &NicState, desired: &DesiredNic) {
    let Some(first) = desired.steer.first() else { return };
    let origin = Origin::from(first);
    let Some(max) = state.rules_max else {
        let why = format!("{} takes no steering rules", desired.name);
        return draft.cannot(&origin, &why);
    };
    let ntuple = Setting::of(&desired.name, Item::Feature(NTUPLE.to_owned()));
    if draft.observed.value(&ntuple).is_some() {
        draft.ask(&[(ntuple, Value::Switch(true))], &origin, "steering rules need it");
    }
    let present: Vec<&Value> =
        state.values.values().filter(|value| matches!(value, Value::Rule(_))).collect();
    let is_free = |place: &u32| !state.values.contains_key(&Item::Rule(*place));
    let mut free = (0..max).filter(is_free);
    for want in &desired.steer {
        let rule = Value::Rule(want.value.clone());
        if present.contains(&&rule) {
            continue;
        }
        let origin = Origin::from(want);
        let Some(place) = free.next() else {
            draft.cannot(&origin, &format!("{} has room for {max} rules, and they are taken", desired.name));
            continue;
        };
        let wanted = vec![(Setting::of(&desired.name, Item::Rule(place)), rule)];
        draft.ask(&wanted, &origin, "this traffic goes to a queue that Shunt serves");
    }
}

/// The interrupts of queues that there will be go to the CPUs in turn.
fn interrupts(draft: &mut Draft<'_>, state: &NicState, desired: &DesiredNic) {
    let Some(want) = &desired.irq_cpus else { return };
    let origin = Origin::from(want);
    let cpus = &draft.observed.host.cpus;
    if let Some(absent) = want.value.iter().find(|cpu| !cpus.online.contains(cpu)) {
        let why = format!("CPU {absent} is not at work; those at work are {}", cpu_list(&cpus.online));
        return draft.cannot(&origin, &why);
    }
    draft.plan.notes.extend(far_from_memory(state, cpus, want));
    if state.irqs.is_empty() {
        let will_be_up = desired.wishes.iter().any(|wish| wish.setting.item == Item::Up);
        let why = format!(
            "no interrupt is {}'s queues'; most drivers ask for them when the interface is up",
            desired.name
        );
        return match !state.nic.up && will_be_up {
            true => draft.plan.notes.push(format!("{}: interrupts are placed when it is up", origin.text)),
            false => draft.cannot(&origin, &why),
        };
    }
    let queues = desired.queues.as_ref().map_or(u32::MAX, |queues| queues.value);
    let place = |irq: &crate::irq::Irq| {
        let cpu = want.value[irq.queue as usize % want.value.len()];
        (Setting::of(&desired.name, Item::Irq(irq.name.clone())), Value::Text(cpu.to_string()))
    };
    let wanted = state.irqs.iter().filter(|irq| irq.queue < queues).map(place).collect::<Vec<_>>();
    draft.ask(&wanted, &origin, "the kernel's part of a queue runs where its interrupt does");
}

/// A word if a CPU is not next to the memory that the NIC is next to.
fn far_from_memory(state: &NicState, cpus: &Cpus, want: &Want<Vec<u32>>) -> Option<String> {
    let node = state.nic.numa_node?;
    let near = cpus.nodes.get(&node)?;
    let far = want.value.iter().find(|cpu| !near.contains(cpu))?;
    Some(format!(
        "{}: {} is next to memory node {node}, and CPU {far} is not; near it are {}",
        Origin::from(want).text,
        state.nic.name,
        cpu_list(near)
    ))
}

/// What Shunt wants of any NIC, unless the file speaks of it. Nobody asked for it in so many words, so what
/// does not exist is not told, and a refusal is no error.
fn defaults(draft: &mut Draft<'_>, state: &NicState, desired: &DesiredNic) {
    let driver = state.nic.driver.as_deref();
    let text = format!("profile {}", driver.unwrap_or("of any driver"));
    let origin = Origin { text, key: String::new(), optional: true };
    let off = profile::of(driver).map(|profile| profile.off.clone()).unwrap_or_default();
    let features =
        off.into_iter().map(|name| (Item::Feature(name), "XDP is to see frames as they came from the wire"));
    let adaptive = [Coalescing::AdaptiveRx, Coalescing::AdaptiveTx]
        .map(|what| (Item::Coalesce(what), "the driver's guesses are about TCP that ends here"));
    for (item, reason) in features.chain(adaptive) {
        let spoken_of = desired.wishes.iter().any(|wish| wish.setting.item == item);
        if !spoken_of && state.values.contains_key(&item) {
            draft.ask(&[(Setting::of(&desired.name, item), Value::Switch(false))], &origin, reason);
        }
    }
}
