//! Against a double of the kernel whose driver does what drivers do: it resets RSS and interrupts when queues
//! change, refuses fewer queues than RSS leads to, and refuses what it is told to refuse.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::desired;
use crate::ethtool::rules::Rule;
use crate::ethtool::{Quantity, Queues, rss};
use crate::host::{Cpus, HostState};
use crate::irq::Irq;
use crate::journal::Epoch;
use crate::kernel::NicState;
use crate::observe::Nic;
use crate::setting::QueueKind;

const COMBINED: Item = Item::Queues(QueueKind::Combined);

#[derive(Clone)]
struct Double {
    observed: Observed,
    /// Settings that are never taken.
    refuses: Vec<Item>,
    /// Settings that are taken and not kept.
    ignores: Vec<Item>,
    /// From so many changes on it does not tell how things stand.
    mute_from: Option<usize>,
    /// The RSS table has two slots for each queue, rather than eight.
    sized_by_queues: bool,
    changes: usize,
}

impl Double {
    fn with_queues(queues: u32, table: &[u32]) -> Self {
        let nic = Nic { name: "eth1".to_owned(), ifindex: 3, up: true, ..Nic::default() };
        let values = [(Item::Mtu, Value::Number(1500)), (Item::Promiscuous, Value::Switch(false))];
        let state =
            NicState { nic, values: values.into(), limits: [(COMBINED, 8)].into(), ..NicState::default() };
        let sysctl = (Item::Sysctl("net.core.x".to_owned()), Value::Text("1".to_owned()));
        let cpus = Cpus { online: vec![0, 1, 2, 3], ..Cpus::default() };
        let mut double = Self {
            observed: Observed {
                nics: [("eth1".to_owned(), state)].into(),
                host: HostState { values: [sysctl].into(), cpus, ..HostState::default() },
            },
            refuses: Vec::new(),
            ignores: Vec::new(),
            mute_from: None,
            sized_by_queues: false,
            changes: 0,
        };
        double.set_queues(queues);
        double.state().values.insert(Item::RssTable, Value::Table(table.to_vec()));
        double
    }

    fn state(&mut self) -> &mut NicState {
        self.observed.nics.get_mut("eth1").unwrap()
    }

    /// The kernel changes other parameters along, and switches LRO off where packets are forwarded.
    fn set_host(&mut self, item: &Item, value: &Value) {
        let along = self.observed.host.along.get(item).cloned().unwrap_or_default();
        for item in along.into_iter().chain([item.clone()]) {
            self.observed.host.values.insert(item, value.clone());
        }
        if let (Item::Sysctl(name), Value::Text(on)) = (item, value)
            && host::ends_lro(name)
            && on == "1"
        {
            self.state()
                .values
                .entry(Item::Feature(LRO.to_owned()))
                .and_modify(|lro| *lro = Value::Switch(false));
        }
    }

    /// The driver sets up its queues anew.
    fn set_queues(&mut self, queues: u32) {
        let slots = if self.sized_by_queues { 2 * queues as usize } else { 8 };
        let state = self.state();
        let combined = Some(Quantity { current: queues, max: 8 });
        state.nic.queues = Some(Queues { combined, rx: None, tx: None });
        state.values.insert(COMBINED, Value::Number(queues.into()));
        state.values.insert(Item::RssTable, Value::Table(rss::even(slots, queues)));
        state.values.retain(|item, _| !matches!(item, Item::Irq(_)));
        state.irqs.clear();
        for queue in 0..queues {
            let (name, cpus) = (format!("eth1-TxRx-{queue}"), "0-3".to_owned());
            state.values.insert(Item::Irq(name.clone()), Value::Text(cpus.clone()));
            state.irqs.push(Irq { number: queue, name, queue, cpus });
        }
    }
}

impl World for Double {
    fn names(&self) -> Result<BTreeMap<u32, String>, ObserveError> {
        Ok(self.observed.nics.iter().map(|(name, state)| (state.nic.ifindex, name.clone())).collect())
    }

    fn observe(&self, scope: &Scope) -> Result<Observed, ObserveError> {
        if self.mute_from.is_some_and(|from| self.changes >= from) {
            return Err(ObserveError::Links(io::ErrorKind::PermissionDenied.into()));
        }
        let mut observed = self.observed.clone();
        observed.nics.retain(|name, _| scope.nics.contains(name));
        Ok(observed)
    }

    fn set(&mut self, setting: &Setting, value: &Value) -> io::Result<()> {
        self.changes += 1;
        if self.refuses.contains(&setting.item) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.ignores.contains(&setting.item) {
            return Ok(());
        }
        let Some(_) = &setting.nic else {
            self.set_host(&setting.item, value);
            return Ok(());
        };
        let leads_to = |table: &Value| match table {
            Value::Table(table) => table.iter().max().map_or(0, |max| max + 1),
            _ => 0,
        };
        let state = self.state();
        let queues = state.nic.rx_queues().unwrap();
        match &setting.item {
            Item::Queues(_) => {
                let wanted = value.number().unwrap() as u32;
                let table = &state.values[&Item::RssTable];
                let is_own =
                    !matches!(table, Value::Table(slots) if *slots == rss::even(slots.len(), queues));
                if is_own && leads_to(table) > wanted {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                self.set_queues(wanted);
            }
            Item::RssTable
                if leads_to(value) > queues || is_of_another_size(&state.values[&Item::RssTable], value) =>
            {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Item::Rule(_) if *value == Value::Absent => drop(state.values.remove(&setting.item)),
            Item::Rule(_) if state.values[&ntuple()] == Value::Switch(false) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            item if *item == ntuple() => {
                state.values.retain(|item, _| !matches!(item, Item::Rule(_)));
                state.values.insert(item.clone(), value.clone());
            }
            item => {
                state.values.insert(item.clone(), value.clone());
            }
        }
        Ok(())
    }
}

fn ntuple() -> Item {
    Item::Feature("rx-ntuple-filter".to_owned())
}

struct Case {
    double: Double,
    directory: PathBuf,
}

impl Case {
    fn new(name: &str, double: Double) -> Self {
        let directory = std::env::temp_dir().join(format!("nic-config-apply-{}-{name}", std::process::id()));
        Self { double, directory }
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.directory, Epoch { boot_id: "boot".to_owned(), namespace: 1 }).unwrap()
    }

    fn apply(&mut self, body: &str) -> Result<Applied, ApplyError> {
        let text = format!("[[nic]]\nname = \"eth1\"\n{body}");
        let desired = desired::parse(&text, "nic.toml").unwrap();
        let mut journal = self.journal();
        apply(&mut self.double, &mut journal, &desired, &mut ())
    }

    fn revert(&mut self) -> Restored {
        let mut journal = self.journal();
        revert(&mut self.double, &mut journal, &mut ()).unwrap()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

const BODY: &str =
    "queues = QUEUES\nirq_cpus = [1, 2]\nmtu = 1400\npromiscuous = true\n[host.sysctl]\n\"net.core.x\" = 2\n";

#[test]
fn queues_grow_and_shrink_and_come_back_with_rss_and_interrupts() {
    let own = [0, 0, 0, 0, 0, 0, 0, 1];
    for (name, now, table, wanted) in [
        ("grow", 4, rss::even(8, 4), 8),
        ("shrink", 4, rss::even(8, 4), 2),
        ("grow-own", 4, own.to_vec(), 8),
        ("shrink-own", 4, own.to_vec(), 2),
        ("same-own", 4, own.to_vec(), 4),
    ] {
        let mut case = Case::new(name, Double::with_queues(now, &table));
        case.double.state().values.insert(Item::Irq("eth1-TxRx-1".to_owned()), Value::Text("3".to_owned()));
        case.double.state().irqs[1].cpus = "3".to_owned();
        let before = case.double.observed.clone();
        let body = BODY.replace("QUEUES", &wanted.to_string());
        let applied = case.apply(&body).unwrap();
        assert_eq!(applied.notes, [""; 0], "{name}");
        let state = case.double.state();
        assert_eq!(state.values[&COMBINED], Value::Number(wanted.into()), "{name}");
        assert!(state.values[&Item::RssTable].serves(&Value::Table(rss::even(8, wanted))), "{name}");
        assert_eq!(state.values[&Item::Irq("eth1-TxRx-1".to_owned())], Value::Text("2".to_owned()), "{name}");

        let changes = case.double.changes;
        assert_eq!(case.apply(&body).unwrap().done, [], "{name}");
        assert_eq!(case.double.changes, changes, "{name}: a second time changes nothing");

        let restored = case.revert();
        assert_eq!((restored.failed, restored.gone), (vec![], vec![]), "{name}");
        assert_eq!(values(&case.double.observed), values(&before), "{name}");
        assert_eq!(case.revert(), Restored::default(), "{name}");
    }
}

fn values(observed: &Observed) -> Vec<(&Item, &Value)> {
    observed.nics["eth1"].values.iter().chain(&observed.host.values).collect()
}

#[test]
fn a_refusal_leaves_all_as_it_was_and_forgets_nothing_of_before() {
    let double = Double::with_queues(4, &rss::even(8, 4));
    for (name, refused, ignored) in
        [("refused", vec![Item::Promiscuous], vec![]), ("ignored", vec![], vec![Item::Promiscuous])]
    {
        let mut case = Case::new(name, double.clone());
        case.apply("mtu = 1450").unwrap();
        let (before, entries) = (case.double.observed.clone(), case.journal().entries().to_vec());
        (case.double.refuses, case.double.ignores) = (refused, ignored);
        let error = case.apply(&BODY.replace("QUEUES", "2")).unwrap_err().to_string();
        assert!(
            error.starts_with("eth1: promiscuous cannot be on (line 6, nic[0].promiscuous): "),
            "{error}"
        );
        assert_eq!(values(&case.double.observed), values(&before));
        assert_eq!(case.journal().entries(), entries);
        case.revert();
        assert_eq!(values(&case.double.observed), values(&double.observed));
    }
}

#[test]
fn an_rss_table_that_grows_with_the_queues_comes_back() {
    for (name, wanted) in [("wide", 8), ("narrow", 2)] {
        let mut double = Double::with_queues(4, &rss::even(8, 4));
        double.sized_by_queues = true;
        let mut case = Case::new(name, double);
        let before = case.double.observed.clone();
        case.apply(&format!("queues = {wanted}")).unwrap();
        let even = Value::Table(rss::even(2 * wanted as usize, wanted));
        assert_eq!(case.double.state().values[&Item::RssTable], even);
        assert_eq!(case.revert().failed, []);
        assert_eq!(values(&case.double.observed), values(&before));
    }
}

#[test]
fn rules_of_others_come_back_when_the_nic_steers_again() {
    let mut case = Case::new("rules", Double::with_queues(4, &rss::even(8, 4)));
    let rule =
        Value::Rule(Rule { to: "192.0.2.1/32".parse().unwrap(), protocol: None, port: None, queue: 1 });
    case.double.state().values.extend([(ntuple(), Value::Switch(true)), (Item::Rule(5), rule)]);
    let before = case.double.observed.clone();
    case.apply("ntuple = false").unwrap();
    assert_eq!(case.double.state().values.get(&Item::Rule(5)), None);
    assert_eq!(case.revert().failed, []);
    assert_eq!(values(&case.double.observed), values(&before));
}

#[test]
fn who_cannot_look_any_more_says_that_not_all_is_as_it_was() {
    let mut case = Case::new("mute", Double::with_queues(4, &rss::even(8, 4)));
    case.double.mute_from = Some(1);
    let error = case.apply("mtu = 1400\npromiscuous = true").unwrap_err().to_string();
    assert!(error.ends_with("; `nic-config revert` tries again"), "{error}");
    case.double.mute_from = None;
    assert_eq!(case.revert().done.len(), 1);
    assert_eq!(case.double.state().values[&Item::Mtu], Value::Number(1500));
}

#[test]
fn an_optional_refusal_is_told_and_skipped() {
    let mut case = Case::new("optional", Double::with_queues(4, &rss::even(8, 4)));
    case.double.refuses = vec![Item::Promiscuous];
    let applied = case.apply("promiscuous = true\nmtu = 1400\noptional = [\"promiscuous\"]").unwrap();
    assert_eq!(applied.done.len(), 1);
    assert!(
        applied.notes[0].starts_with("line 3, nic[0].promiscuous: eth1: promiscuous cannot be on: "),
        "{applied:?}"
    );
    assert_eq!(case.double.state().values[&Item::Mtu], Value::Number(1400));
}

#[test]
fn another_file_keeps_the_very_first_inverse() {
    let mut case = Case::new("other", Double::with_queues(4, &rss::even(8, 4)));
    case.apply("mtu = 1400").unwrap();
    case.apply("mtu = 1300\npromiscuous = true").unwrap();
    case.revert();
    let values = &case.double.state().values;
    assert_eq!(
        (&values[&Item::Mtu], &values[&Item::Promiscuous]),
        (&Value::Number(1500), &Value::Switch(false))
    );
}

#[test]
fn what_is_gone_is_told_and_what_fails_is_kept() {
    let mut case = Case::new("gone", Double::with_queues(4, &rss::even(8, 4)));
    case.apply("mtu = 1400\npromiscuous = true").unwrap();
    case.double.refuses = vec![Item::Promiscuous];
    let restored = case.revert();
    assert_eq!((restored.done.len(), restored.failed.len()), (1, 1));
    assert_eq!(restored.failed[0].1, "eth1: promiscuous cannot be off again: invalid input parameter");
    assert_eq!(case.journal().entries().len(), 1);

    case.double.refuses.clear();
    case.double.state().nic.ifindex = 4;
    let restored = case.revert();
    assert_eq!(restored.gone, [Setting::of("eth1", Item::Promiscuous)]);
    assert_eq!(case.double.state().values[&Item::Promiscuous], Value::Switch(true), "another interface");
    assert_eq!(case.journal().entries(), []);
}

#[test]
fn nothing_is_done_before_its_inverse_is_on_disk() {
    struct Sees<'d>(&'d std::path::Path, usize);
    impl Watch for Sees<'_> {
        fn remembered(&mut self) {
            let text = std::fs::read_to_string(self.0.join("before.json")).unwrap();
            let entries = serde_json::from_str::<serde_json::Value>(&text).unwrap();
            self.1 += 1;
            assert!(entries["entries"].as_array().unwrap().len() >= self.1);
        }
    }
    let case = Case::new("order", Double::with_queues(4, &rss::even(8, 4)));
    let desired =
        desired::parse("[[nic]]\nname = \"eth1\"\nmtu = 1400\npromiscuous = true", "nic.toml").unwrap();
    let (mut journal, directory) = (case.journal(), case.directory.clone());
    let mut sees = Sees(&directory, 0);
    apply(&mut case.double.clone(), &mut journal, &desired, &mut sees).unwrap();
    assert_eq!(sees.1, 2);
}

#[test]
fn what_the_kernel_changes_with_a_parameter_comes_back() {
    let parameter = |of: &str| Item::Sysctl(format!("net.ipv4.conf.{of}.forwarding"));
    let mut case = Case::new("along", Double::with_queues(4, &rss::even(8, 4)));
    case.double.state().values.insert(Item::Feature(LRO.to_owned()), Value::Switch(true));
    let host = &mut case.double.observed.host;
    for (of, value) in [("all", "0"), ("default", "0"), ("eth2", "1")] {
        host.values.insert(parameter(of), Value::Text(value.to_owned()));
    }
    host.along.insert(parameter("all"), vec![parameter("all"), parameter("default"), parameter("eth2")]);
    let before = case.double.observed.clone();
    case.apply("[host.sysctl]\n\"net.ipv4.conf.all.forwarding\" = 1").unwrap();
    assert_eq!(case.double.observed.host.values[&parameter("default")], Value::Text("1".to_owned()));
    assert_eq!(case.double.state().values[&Item::Feature(LRO.to_owned())], Value::Switch(false));
    let restored = case.revert();
    assert_eq!((restored.failed, restored.gone), (vec![], vec![]));
    assert_eq!(values(&case.double.observed), values(&before));
}
