use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use shunt_api::counters::CounterValues;
use shunt_api::snapshot::{Mode, PortMapping, ServicePort};
use shunt_api::status::{
    BackendHealth, ChecksStatus, ClusterServices, ClusterSource, ClusterStatus, DataplaneStatus,
    FlowTableStatus, FlowTablesStatus, HealthState, L2Status, NicStatus, ProbeView, RoutesStatus,
    WorkerState, WorkerStatus,
};

use super::page::{Family, Samples};
use super::*;

/// A box with one of everything.
struct Sample {
    status: ControlStatus,
    stats: Stats,
    services: Vec<ServiceView>,
    backends: Vec<BackendView>,
}

impl Sample {
    fn facts(&self) -> Facts<'_> {
        let Self { status, stats, services, backends } = self;
        Facts { status, stats: Some(stats), services, backends }
    }
}

fn dataplane() -> DataplaneStatus {
    let nic = NicStatus {
        name: "eth1".into(),
        ifindex: 3,
        mac: Default::default(),
        mtu: 1500,
        up: true,
        xdp: "native".into(),
        zero_copy: false,
        multi_buffer: true,
        rings: Default::default(),
        queues: 1,
        xdp_packets: Default::default(),
        sockets: Default::default(),
    };
    let worker =
        WorkerStatus { index: 0, core: None, state: WorkerState::Stalled, generation: None, queues: vec![] };
    let table = Some(FlowTableStatus::default());
    DataplaneStatus {
        version: "0.1.0".into(),
        uptime_s: 60,
        generation_age_s: Some(5),
        nics: vec![nic],
        workers: vec![worker],
        flows: FlowTablesStatus { nat_v4: table, nat_v6: table, ..FlowTablesStatus::default() },
        ..DataplaneStatus::default()
    }
}

fn backend() -> BackendView {
    let probe = ProbeView {
        question: "tcp".into(),
        state: HealthState::Up,
        last_failure: None,
        successes: 7,
        failures: 2,
        own_faults: 0,
    };
    let health = BackendHealth {
        state: HealthState::Up,
        since_ms: None,
        reason: None,
        last_latency_us: Some(1500),
        probes: vec![probe],
    };
    BackendView {
        pool: "web".into(),
        name: "web1".into(),
        address: "10.0.1.11".parse().unwrap(),
        mode: Mode::Dr,
        weight: 5,
        state: "reachable".into(),
        health: Some(health),
        next_hop: None,
        flows: 12,
    }
}

fn control() -> ControlStatus {
    let cluster = ClusterStatus {
        name: Some("berlin".into()),
        source: ClusterSource::Live,
        services: Some(ClusterServices { served: 3, waiting: 1, refused: 0 }),
        ..ClusterStatus::default()
    };
    ControlStatus {
        version: "0.1.0".into(),
        uptime_s: 3600,
        config_file: "/etc/shunt/shunt.toml".into(),
        config_problem: None,
        generation: 8,
        acknowledged: Some(7),
        dataplane_problem: None,
        problems: vec!["one".into()],
        checks: Some(ChecksStatus { made: 100, ..ChecksStatus::default() }),
        l2: Some(L2Status { addresses: 2, ..L2Status::default() }),
        routes: Some(RoutesStatus::default()),
        clusters: vec![cluster],
        services: 1,
        backends: 1,
        dataplane: Some(dataplane()),
    }
}

fn sample() -> Sample {
    let port: ServicePort = "tcp/80".to_owned().try_into().unwrap();
    Sample {
        status: control(),
        stats: Stats { workers: vec![CounterValues::default()] },
        services: vec![ServiceView {
            name: "web \"quoted\"".into(),
            vip: "203.0.113.10".parse().unwrap(),
            port: PortMapping { port, target: None },
            pool: "web".into(),
            backends_usable: 1,
            backends_total: 2,
        }],
        backends: vec![backend()],
    }
}

#[test]
fn what_a_monitoring_system_reads() {
    let text = text(&sample().facts());
    for line in [
        "shunt_dataplane_connected 1",
        "shunt_generation_wanted 8",
        "shunt_generation_acknowledged 7",
        "shunt_problems 1",
        "shunt_checks_total 100",
        "shunt_backend_up{pool=\"web\",backend=\"web1\",address=\"10.0.1.11\"} 1",
        "shunt_backend_check_latency_seconds{pool=\"web\",backend=\"web1\",address=\"10.0.1.11\"} 0.0015",
        "shunt_backend_check_failures_total{pool=\"web\",backend=\"web1\",address=\"10.0.1.11\"} 2",
        "shunt_backend_flows{address=\"10.0.1.11\"} 12",
        "shunt_cluster_services{cluster=\"berlin\",state=\"served\"} 3",
        "shunt_worker_stalled{worker=\"0\"} 1",
        "shunt_worker_rx_packets_total{worker=\"0\"} 0",
        "shunt_worker_dropped_packets_total{worker=\"0\",reason=\"no_route\"} 0",
        "shunt_nic_packets_total{nic=\"eth1\",fate=\"redirected\"} 0",
        "# TYPE shunt_backend_flows gauge",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is missing in:\n{text}");
    }
    assert!(text.contains("service=\"web \\\"quoted\\\"\""), "{text}");
}

#[test]
fn prometheus_accepts_it() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("promtool is there, which deploy/bootstrap.sh installs with prometheus");
    child.stdin.take().unwrap().write_all(text(&sample().facts()).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_a_dataplane_there_is_less() {
    let mut sample = sample();
    sample.status.dataplane = None;
    let facts = Facts { stats: None, ..sample.facts() };
    let text = text(&facts);
    assert!(text.contains("shunt_dataplane_connected 0"), "{text}");
    assert!(!text.contains("shunt_worker_") && !text.contains("shunt_nic_"), "{text}");
}

/// Names, what they are, labels and meaning.
fn reference(families: &[Family]) -> String {
    let mut table = String::from("| metric | type | labels | |\n|---|---|---|---|\n");
    for family in families {
        let (kind, labels) = match &family.samples {
            Samples::Counters(samples) => ("counter", samples.first().map(|(labels, _)| labels)),
            Samples::Gauges(samples) => ("gauge", samples.first().map(|(labels, _)| labels)),
        };
        let labels = labels.into_iter().flatten().map(|(name, _)| format!("`{name}`"));
        let (name, help) = (family.full_name(), family.help.trim_end_matches('.'));
        let labels = labels.collect::<Vec<_>>().join(", ");
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {help} |");
    }
    table
}

#[test]
fn the_documentation_lists_all_metrics() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let families = families::families(&sample().facts());
    let (begin, end) = ("<!-- metrics -->\n", "<!-- end -->");
    let (head, rest) = page.split_once(begin).unwrap();
    let (_, tail) = rest.split_once(end).unwrap();
    let now = format!("{head}{begin}{}{end}{tail}", reference(&families));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
    } else {
        assert!(page == now, "docs/metrics.md differs (BLESS=1 renews it)");
    }
    let names: BTreeSet<&str> = families.iter().map(|family| family.name.as_str()).collect();
    assert_eq!(names.len(), families.len(), "each name once");
    let alerts = include_str!("../../../deploy/monitoring/alerts.yml");
    let words = alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words.filter(|word| word.starts_with("shunt_")) {
        assert!(names.contains(word.trim_end_matches("_total")), "{word} is no metric, but in alerts.yml");
    }
}
