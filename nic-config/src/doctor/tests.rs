use super::*;
use crate::ethtool::{Quantity, Queues};
use crate::irq::Irq;
use crate::netdev::XdpSupport;
use crate::observe::Nic;

fn state(driver: &str, features: &[&str]) -> NicState {
    let nic = Nic {
        name: "eth1".to_owned(),
        ifindex: 3,
        driver: Some(driver.to_owned()),
        up: true,
        carrier: Some(true),
        mtu: Some(1500),
        queues: Some(Queues { combined: Some(Quantity { current: 2, max: 8 }), rx: None, tx: None }),
        xdp: Some(XdpSupport {
            features: features.iter().map(|&name| name.to_owned()).collect(),
            zero_copy_segments_max: None,
        }),
        ..Nic::default()
    };
    NicState { nic, ..NicState::default() }
}

fn cpus() -> Cpus {
    Cpus { online: vec![0, 1, 2, 3], isolated: Vec::new(), nodes: [(0, vec![0, 1, 2, 3])].into() }
}

/// Severity and words about a subject.
fn found(state: &NicState, subject: &str) -> (Severity, String) {
    let diagnosis = diagnose(state, &cpus());
    let finding = diagnosis.findings.iter().find(|finding| finding.subject == subject).unwrap();
    let remedy = finding.remedy.as_ref().map(|remedy| format!(" -> {remedy}"));
    (finding.severity, format!("{}{}", finding.what, remedy.unwrap_or_default()))
}

const ZERO_COPY: &[&str] = &["basic", "redirect", "xsk-zerocopy"];

#[test]
fn a_good_nic_has_nothing_to_change() {
    let diagnosis = diagnose(&state("igb", ZERO_COPY), &cpus());
    assert_eq!(diagnosis.severity, Severity::Good, "{diagnosis:?}");
    assert!(!diagnosis.pitfalls.is_empty());
    let text = text(&[diagnosis]);
    assert!(text.contains("ok       mode        native with zero-copy"), "{text}");
    assert!(text.ends_with("`lbctl get nics` once the dataplane runs."), "{text}");
}

#[test]
fn the_mode_is_what_the_kernel_says_it_can() {
    for (driver, features, severity, begins) in [
        ("igb", ZERO_COPY, Severity::Good, "native with zero-copy"),
        (
            "igb",
            &["basic"][..],
            Severity::Advice,
            "native with copying: every frame is copied once each way -> newer kernels",
        ),
        (
            "veth",
            &["basic"],
            Severity::Advice,
            "native with copying: every frame is copied once each way -> nothing to set",
        ),
        ("tun", &[], Severity::Problem, "generic"),
    ] {
        let (found, what) = found(&state(driver, features), "mode");
        assert_eq!(found, severity, "{what}");
        assert!(what.starts_with(begins), "{what}");
    }
    let mut old = state("i40e", &[]);
    old.nic.xdp = None;
    assert_eq!(found(&old, "mode").0, Severity::Advice);
}

#[test]
fn large_frames_need_pieces() {
    let large = |features: &[&str], segments| {
        let mut state = state("tun", features);
        state.nic.mtu = Some(9000);
        state.nic.xdp.as_mut().unwrap().zero_copy_segments_max = segments;
        found(&state, "frames").0
    };
    assert_eq!(large(&["basic", "rx-sg"], None), Severity::Good);
    assert_eq!(large(&["basic"], None), Severity::Problem);
    assert_eq!(large(&["basic", "rx-sg", "xsk-zerocopy"], Some(1)), Severity::Advice);
    assert_eq!(large(&["basic", "rx-sg", "xsk-zerocopy"], Some(8)), Severity::Good);
}

#[test]
fn queues_are_served_and_filled() {
    let mut state = state("igb", ZERO_COPY);
    state.values.insert(Item::RssTable, Value::Table(vec![0, 0]));
    let told = (Severity::Advice, "gives queue 1 nothing -> spread = 2 in nic.toml".to_owned());
    assert_eq!(found(&state, "RSS"), told);
    state.values.insert(Item::RssTable, Value::Table(vec![1, 0]));
    assert_eq!(found(&state, "RSS").0, Severity::Good);
    state.nic.queues = Some(Queues { combined: Some(Quantity { current: 8, max: 8 }), rx: None, tx: None });
    assert_eq!(found(&state, "queues").0, Severity::Advice);
}

#[test]
fn offloads_interrupts_and_the_link_are_looked_at() {
    let mut state = state("igb", ZERO_COPY);
    state.values.insert(Item::Feature("rx-lro".to_owned()), Value::Switch(true));
    assert_eq!(found(&state, "offloads").0, Severity::Problem);
    let irq =
        |queue| Irq { number: queue, name: format!("eth1-TxRx-{queue}"), queue, cpus: "0-3".to_owned() };
    state.irqs = vec![irq(0), irq(1)];
    assert_eq!(found(&state, "interrupts").0, Severity::Advice);
    state.irqs[1].cpus = "1".to_owned();
    assert_eq!(found(&state, "interrupts").0, Severity::Good);
    state.nic.carrier = Some(false);
    assert_eq!(found(&state, "link").0, Severity::Advice);
    state.nic.numa_node = Some(0);
    assert!(found(&state, "memory").1.contains("0-3"));
}
