use super::*;
use crate::desired;
use crate::ethtool::{Quantity, Queues};
use crate::host::{Cpus, HostState};
use crate::irq::Irq;
use crate::observe::Nic;
use crate::setting::{Coalescing, Direction, Knob, QueueKind};

fn bare(name: &str, driver: &str) -> NicState {
    let nic = Nic {
        name: name.to_owned(),
        ifindex: 3,
        driver: Some(driver.to_owned()),
        up: true,
        ..Nic::default()
    };
    NicState {
        nic,
        values: [(Item::Up, Value::Switch(true)), (Item::Mtu, Value::Number(1500))].into(),
        ..NicState::default()
    }
}

/// A NIC with everything, and as many queues as that.
fn rich(driver: &str, queues: u32, table: &[u32]) -> NicState {
    let mut state = bare("eth1", driver);
    let combined = Quantity { current: queues, max: 8 };
    state.nic.queues = Some(Queues { combined: Some(combined), rx: None, tx: None });
    state.nic.numa_node = Some(0);
    state.values.extend([
        (Item::Queues(QueueKind::Combined), Value::Number(queues.into())),
        (Item::Ring(Direction::Rx), Value::Number(256)),
        (Item::RssTable, Value::Table(table.to_vec())),
        (Item::RssKey, Value::Text("00112233".to_owned())),
        (Item::RssTransform, Value::Number(0)),
        (Item::Feature("rx-lro".to_owned()), Value::Switch(true)),
        (Item::Feature("rx-ntuple-filter".to_owned()), Value::Switch(false)),
        (Item::Coalesce(Coalescing::AdaptiveRx), Value::Switch(false)),
        (Item::Rule(0), Value::Text("of another kind".to_owned())),
    ]);
    state.limits.extend([(Item::Queues(QueueKind::Combined), 8), (Item::Ring(Direction::Rx), 4096)]);
    state.rules_max = Some(3);
    for queue in 0..queues {
        let name = format!("eth1-TxRx-{queue}");
        state.values.insert(Item::Irq(name.clone()), Value::Text("0-3".to_owned()));
        state.irqs.push(Irq { number: 40 + queue, name, queue, cpus: "0-3".to_owned() });
    }
    state
}

fn host() -> HostState {
    let cpus = Cpus {
        online: vec![0, 1, 2, 3],
        isolated: vec![2],
        nodes: [(0, vec![0, 1]), (1, vec![2, 3])].into(),
    };
    let values = [
        (Item::Governor(0), Value::Text("powersave".to_owned())),
        (Item::Governor(1), Value::Text("performance".to_owned())),
        (Item::Sysctl("net.core.x".to_owned()), Value::Text("1".to_owned())),
    ];
    HostState { values: values.into(), cpus, ..HostState::default() }
}

fn planned(state: &NicState, body: &str) -> Result<Plan, Impossible> {
    let text = format!("[[nic]]\nname = \"eth1\"\n{body}");
    let desired = desired::parse(&text, "nic.toml").unwrap();
    let observed = Observed { nics: [(state.nic.name.clone(), state.clone())].into(), host: host() };
    plan(&observed, &desired)
}

/// The steps in short.
fn steps(state: &NicState, body: &str) -> Vec<String> {
    let plan = planned(state, body).unwrap();
    plan.steps.iter().map(|step| format!("{} {} -> {}", step.setting.item, step.from, step.to)).collect()
}

#[test]
fn what_is_as_wanted_needs_no_step() {
    let state = bare("eth1", "tun");
    assert_eq!(steps(&state, "mtu = 1500\nup = true"), [""; 0]);
    assert_eq!(steps(&state, "mtu = 1400"), ["mtu 1500 -> 1400"]);
}

#[test]
fn rss_leads_to_no_queue_that_is_not_there() {
    for (now, table, body, expected) in [
        (
            4,
            &[0, 1, 2, 3][..],
            "queues = 2",
            ["rss.table [0x1 1x1 2x1 3x1] -> [0x2 1x2]", "queues.combined 4 -> 2"],
        ),
        (
            2,
            &[0, 1, 0, 1],
            "queues = 4",
            ["queues.combined 2 -> 4", "rss.table [0x2 1x2] -> [0x1 1x1 2x1 3x1]"],
        ),
        (
            2,
            &[0, 1, 0, 1],
            "queues = 4\nspread = 1",
            ["rss.table [0x2 1x2] -> [0x4]", "queues.combined 2 -> 4"],
        ),
    ] {
        assert_eq!(steps(&rich("tun", now, table), body), expected, "{now} and {body}");
    }
    let spread_in_blocks = rich("tun", 2, &[0, 0, 1, 1]);
    assert_eq!(steps(&spread_in_blocks, "queues = 2"), [""; 0]);
}

#[test]
fn rss_is_put_back_by_the_same_rule() {
    let setting = Setting::of("eth1", Item::RssTable);
    let queues = Setting::of("eth1", Item::Queues(QueueKind::Combined));
    for (now, before, comes_first) in [(8, [0, 1, 0, 1], true), (2, [0, 1, 2, 3], false)] {
        let observed = Observed { nics: [("eth1".to_owned(), rich("tun", now, &[0]))].into(), host: host() };
        let table = undo_rank(&setting, &Value::Table(before.to_vec()), &observed);
        let queues = undo_rank(&queues, &Value::Number(4), &observed);
        assert_eq!(table < queues, comes_first, "{now}");
    }
}

#[test]
fn a_nic_with_queues_for_each_direction_gets_both() {
    let mut state = bare("eth1", "tun");
    for kind in [QueueKind::Rx, QueueKind::Tx] {
        state.values.insert(Item::Queues(kind), Value::Number(4));
        state.limits.insert(Item::Queues(kind), 4);
    }
    assert_eq!(steps(&state, "queues = 2"), ["queues.rx 4 -> 2", "queues.tx 4 -> 2"]);
}

#[test]
fn both_directions_get_one_hash_as_the_driver_can() {
    for (driver, expected) in [("ice", "rss.transform 0 -> 1"), ("tun", "rss.key 00112233 -> 6d5a6d5a")] {
        let state = rich(driver, 2, &[0, 1]);
        assert!(steps(&state, "symmetric = true").contains(&expected.to_owned()), "{driver}");
    }
    assert_eq!(steps(&rich("tun", 2, &[0, 1]), "symmetric = false"), [""; 0]);
}

#[test]
fn a_profile_adds_what_the_file_does_not_speak_of() {
    let mut state = rich("i40e", 2, &[0, 1]);
    state.values.insert(Item::Coalesce(Coalescing::AdaptiveRx), Value::Switch(true));
    assert_eq!(steps(&state, ""), ["feature.rx-lro on -> off", "coalesce.adaptive-rx on -> off"]);
    let plan = planned(&state, "").unwrap();
    assert!(plan.steps.iter().all(|step| step.optional && step.origin == "profile i40e"), "{plan:?}");
    assert_eq!(steps(&state, "lro = true\nadaptive = true"), [""; 0]);
}

#[test]
fn the_driver_stops_choosing_waits_before_it_is_given_one() {
    let (adaptive, wait) = (Item::Coalesce(Coalescing::AdaptiveRx), Item::Coalesce(Coalescing::RxUsecs));
    let mut state = bare("eth1", "ice");
    state.values.insert(adaptive.clone(), Value::Switch(true));
    state.values.insert(wait.clone(), Value::Number(50));
    assert_eq!(
        steps(&state, "rx_usecs = 8"),
        ["coalesce.adaptive-rx on -> off", "coalesce.rx-usecs 50 -> 8"]
    );
    let observed = Observed { nics: [("eth1".to_owned(), state)].into(), host: host() };
    let back = |item, value| undo_rank(&Setting::of("eth1", item), &value, &observed);
    assert!(back(wait, Value::Number(50)) < back(adaptive, Value::Switch(true)));
}

#[test]
fn rules_go_to_free_places_unless_they_are_there() {
    let mut state = rich("tun", 2, &[0, 1]);
    let body = "steer = [{ to = \"192.0.2.1\", queue = 1 }, { to = \"192.0.2.2\", queue = 1 }]";
    let expected = [
        "feature.rx-ntuple-filter off -> on",
        "rule.1 none -> 192.0.2.1/32 to queue 1",
        "rule.2 none -> 192.0.2.2/32 to queue 1",
    ];
    assert_eq!(steps(&state, body), expected);
    let there = desired::parse(&format!("[[nic]]\nname = \"eth1\"\n{body}"), "nic.toml").unwrap();
    state.values.insert(Item::Rule(2), Value::Rule(there.nics[0].steer[0].value.clone()));
    assert_eq!(steps(&state, body)[1..], ["rule.1 none -> 192.0.2.2/32 to queue 1"]);
    state.values.insert(Item::Rule(1), Value::Text("of another kind".to_owned()));
    let told = planned(&state, body).unwrap_err().to_string();
    assert!(
        told.starts_with("line 3, nic[0].steer[1]: eth1 has room for 3 rules, and they are taken; "),
        "{told}"
    );
}

#[test]
fn interrupts_of_queues_that_will_be_go_round() {
    let state = rich("tun", 4, &[0, 1, 2, 3]);
    let all = steps(&state, "queues = 3\nirq_cpus = [1, 0]");
    let expected = ["irq.eth1-TxRx-0 0-3 -> 1", "irq.eth1-TxRx-1 0-3 -> 0", "irq.eth1-TxRx-2 0-3 -> 1"];
    assert_eq!(all[2..], expected);
    let plan = planned(&state, "irq_cpus = [2]").unwrap();
    let told = "line 3, nic[0].irq_cpus: eth1 is next to memory node 0, and CPU 2 is not; near it are 0-1";
    assert_eq!(plan.notes, [told]);
    assert!(planned(&state, "irq_cpus = [9]").unwrap_err().to_string().contains("CPU 9 is not at work"));

    let mut down = bare("eth1", "tun");
    down.nic.up = false;
    down.values.insert(Item::Up, Value::Switch(false));
    assert!(planned(&down, "irq_cpus = [1]").is_err());
    let plan = planned(&down, "irq_cpus = [1]\nup = true").unwrap();
    assert_eq!((plan.steps.len(), plan.notes.len()), (1, 1));
}

#[test]
fn polling_contexts_are_set_each_if_that_is_wanted() {
    let mut state = bare("eth1", "tun");
    state.values.insert(Item::Napi(Knob::DeferHardIrqs), Value::Number(0));
    let body = "napi_defer_hard_irqs = 2\n";
    assert_eq!(steps(&state, body), ["napi.defer-hard-irqs 0 -> 2"]);
    let each = format!("{body}napi_each = true");
    assert!(planned(&state, &each).is_err());
    for id in [7, 8] {
        for knob in Knob::ALL {
            state.values.insert(Item::OneNapi { id, knob }, Value::Number(0));
        }
    }
    assert_eq!(steps(&state, &each), ["napi.7.defer-hard-irqs 0 -> 2", "napi.8.defer-hard-irqs 0 -> 2"]);
}

#[test]
fn what_is_not_there_is_refused_or_skipped() {
    let state = rich("tun", 2, &[0, 1]);
    for (body, key, told) in [
        ("ring_tx = 512", "ring_tx", "line 3, nic[0].ring_tx: eth1 has no setting ring.tx"),
        ("ring_rx = 8192", "ring_rx", "line 3, nic[0].ring_rx: eth1: ring.rx can be 4096 at most, not 8192"),
        (
            "features = { rx-all = true }",
            "features",
            "line 3, nic[0].features.rx-all: eth1 has no setting feature.rx-all",
        ),
        (
            "[host]\nsysctl = { \"net.core.y\" = 1 }",
            "net.core.y",
            "line 4, host.sysctl.\"net.core.y\": this machine has no setting sysctl.net.core.y",
        ),
        (
            "[host]\nhuge_pages = 1",
            "huge_pages",
            "line 4, host.huge_pages: this machine has no setting huge-pages.2048kB",
        ),
    ] {
        let refused = planned(&state, body).unwrap_err().to_string();
        let remedy = format!("take the key out, or add optional = [\"{key}\"] to go without");
        assert_eq!(refused, format!("{told}; {remedy}"));
        let without = format!("{body}\noptional = [\"{key}\"]");
        assert_eq!(steps(&state, &without), [""; 0], "{without}");
    }
    let plan = planned(&state, "ring_tx = 512\noptional = [\"ring_tx\"]").unwrap();
    assert_eq!(plan.steps, []);
    assert_eq!(
        plan.notes,
        ["line 3, nic[0].ring_tx: eth1 has no setting ring.tx; skipped, as it is optional"]
    );
    let other = planned(&bare("eth2", "tun"), "").unwrap_err().to_string();
    assert!(other.starts_with("line 2: there is no interface `eth1`"), "{other}");
}

#[test]
fn of_several_places_those_that_exist_are_set() {
    let mut state = bare("eth1", "tun");
    state.values.insert(Item::Coalesce(Coalescing::AdaptiveRx), Value::Switch(false));
    assert_eq!(steps(&state, "adaptive = true"), ["coalesce.adaptive-rx off -> on"]);
    let body = "[host]\ngovernor = \"performance\"";
    assert_eq!(steps(&state, body), ["governor.cpu0 powersave -> performance"]);
}

#[test]
fn cores_are_isolated_by_the_kernels_command_line() {
    let state = bare("eth1", "tun");
    let plan = planned(&state, "[host]\nisolated_cores = [2, 3]").unwrap();
    let told = "line 4, host.isolated_cores: CPU 3 is not isolated; put isolcpus=2-3 nohz_full=2-3 rcu_nocbs=2-3 on the kernel's command line and start anew";
    assert_eq!(plan.notes, [told]);
    assert_eq!(planned(&state, "[host]\nisolated_cores = [2]").unwrap().notes, [""; 0]);
}

#[test]
fn the_host_comes_first_and_interfaces_in_the_files_order() {
    let observed = Observed {
        nics: ["eth1", "eth0"].map(|name| (name.to_owned(), bare(name, "tun"))).into(),
        host: host(),
    };
    let text = "[[nic]]\nname = \"eth1\"\nmtu = 1400\n[[nic]]\nname = \"eth0\"\nmtu = 1400\n[host.sysctl]\n\"net.core.x\" = 2\n";
    let plan = plan(&observed, &desired::parse(text, "nic.toml").unwrap()).unwrap();
    let order: Vec<String> = plan.steps.iter().map(|step| step.setting.to_string()).collect();
    assert_eq!(order, ["sysctl.net.core.x", "eth1: mtu", "eth0: mtu"]);
}
