//! What the fake daemons say: a box with two NICs and two pools, one backend of which cannot be reached.

use std::net::IpAddr;

use axum::http::StatusCode;
use shunt_api::counters::{Counter, CounterValues, DropReason};
use shunt_api::explain::{Explanation, PacketQuestion, Rule, Step, Verdict};
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::{Mode, PortMapping, Protocol, Rings, ServicePort};
use shunt_api::status::{
    BackendHealth, BackendView, ChecksStatus, ClusterAway, ClusterRole, ClusterServices, ClusterSource,
    ClusterStatus, ConfigProblem, ControlStatus, DataplaneStatus, Event, FlowCount, FlowTableStatus,
    FlowTablesStatus, FlowView, Flows, HealthState, L2Role, L2Status, NextHopStatus, NicStatus, ProbeView,
    Reloaded, ResolvedHop, RoutesStatus, ServiceView, SocketCounters, Stats, TimeMs, WorkerState,
    WorkerStatus, XdpCounters,
};

use crate::daemon::Answers;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(text: &str) -> ServicePort {
    ServicePort::try_from(text.to_owned()).unwrap()
}

/// Everything lbctl asks a dataplane that is well.
pub fn dataplane_answers() -> Answers {
    let one_client = flows("192.0.2.7");
    let limited = Flows { flows: vec![flows("")[0].clone()], truncated: true };
    let every = "/v1/flows?client=192.0.2.7&vip=203.0.113.10&port=80&protocol=tcp&backend=10.0.1.11";
    Answers::default()
        .ok("/v1/status", &dataplane())
        .ok("/v1/stats", &stats())
        .ok("/v1/flows", &Flows { flows: flows(""), truncated: false })
        .ok("/v1/flows?client=192.0.2.7", &Flows { flows: one_client.clone(), truncated: false })
        .ok("/v1/flows?limit=1", &limited)
        .ok("/v1/flows/count?backend=10.0.1.12", &FlowCount { open: 20_604, closing: 318 })
        .ok(every, &Flows { flows: one_client[..1].to_vec(), truncated: false })
}

/// Everything lbctl asks a control plane that is well.
pub fn control_answers() -> Answers {
    let reloaded =
        Reloaded { generation: 8, changed: true, acknowledged: Some(8), restart_needed: Vec::new() };
    Answers::default()
        .ok("/v1/status", &control())
        .ok("/v1/services", &services())
        .ok("/v1/backends", &backends())
        .ok("/v1/events", &events())
        .put("/v1/drain", StatusCode::OK, serde_json::to_string(&drained(20_604)).unwrap())
        .post("/v1/reload", StatusCode::OK, serde_json::to_string(&reloaded).unwrap())
        .post("/v1/explain", StatusCode::OK, serde_json::to_string(&explanation()).unwrap())
}

/// Of a packet that its flow's entry decides.
fn explanation() -> Explanation {
    let step = |rule, finding: &str, decides| Step { rule, finding: finding.to_owned(), decides };
    Explanation {
        packet: PacketQuestion {
            source: "192.0.2.7:40000".parse().unwrap(),
            destination: "203.0.113.10:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            begins: true,
            length: 60,
        },
        generation: 7,
        supposed: false,
        verdict: Verdict::Forward,
        reason: None,
        service: Some("web".to_owned()),
        backend: Some(address("10.0.1.11")),
        mode: Some(Mode::Dr),
        flow: Some(flows("192.0.2.7")[0].clone()),
        slot: Some(40_212),
        next_hop: None,
        steps: vec![
            step(Rule::Address, "203.0.113.10 is a VIP", false),
            step(Rule::Service, "web has tcp/80", false),
            step(Rule::SourceRange, "it lets in all clients", false),
            step(
                Rule::FlowTable,
                "the flow is established to 10.0.1.11, its last packet 2 s ago: followed",
                true,
            ),
            step(Rule::Maglev, "the flow's hash falls into slot 40212 of 65537, which is 10.0.1.12's", false),
            step(Rule::Backend, "10.0.1.11 by direct routing (dr)", false),
            step(
                Rule::Health,
                "web1 of pool web is up for 1h 2m (connected; asked tcp 203.0.113.10:80 through the service), weight 1",
                false,
            ),
            step(Rule::Way, "10.0.1.11 on the link: eth2 to 02:00:00:00:01:0b, MTU 1500", false),
            step(Rule::Length, "60 bytes of 1500 that fit", false),
            step(
                Rule::Wire,
                "Ethernet 02:00:00:00:00:02 -> 02:00:00:00:01:0b | tcp 192.0.2.7:40000 -> 203.0.113.10:80",
                false,
            ),
        ],
    }
}

/// A control plane that is connected and acknowledged.
pub fn control() -> ControlStatus {
    ControlStatus {
        version: "0.1.0".to_owned(),
        uptime_s: 93_784,
        config_file: "/etc/shunt/shunt.toml".to_owned(),
        config_problem: None,
        generation: 7,
        acknowledged: Some(7),
        dataplane_problem: None,
        problems: vec![],
        checks: Some(ChecksStatus { probes: 7, made: 328_104, left_out: 0, own_faults: 0, late_p99: 0.001 }),
        l2: Some(L2Status {
            role: L2Role::Master,
            priority: Some(150),
            group: Some(1),
            addresses: 4,
            ..L2Status::default()
        }),
        routes: Some(RoutesStatus { table: 83, protocol: 83, present: 3, ..RoutesStatus::default() }),
        clusters: vec![cluster()],
        services: 2,
        backends: 5,
        dataplane: Some(dataplane()),
    }
}

/// A cluster that this box leads.
pub fn cluster() -> ClusterStatus {
    ClusterStatus {
        name: None,
        source: ClusterSource::Live,
        away: None,
        role: ClusterRole::Leader,
        leader: Some("edge1-0c0ffee0".to_owned()),
        lease_problem: None,
        services: Some(ClusterServices { served: 12, waiting: 1, refused: 2 }),
    }
}

/// Two clusters, one of which does not answer, while another box leads the other.
pub fn clusters_in_trouble() -> Vec<ClusterStatus> {
    let away = ClusterAway {
        since_ms: TimeMs(1_769_860_800_123),
        reason: "services: connection refused".to_owned(),
    };
    let berlin = ClusterStatus {
        name: Some("berlin".to_owned()),
        source: ClusterSource::Memory,
        away: Some(away),
        role: ClusterRole::Unknown,
        leader: None,
        services: None,
        ..cluster()
    };
    let leader = Some("edge2-5eed5eed".to_owned());
    let services = Some(ClusterServices { served: 1, waiting: 0, refused: 0 });
    let bonn = ClusterStatus {
        name: Some("bonn".to_owned()),
        role: ClusterRole::Follower,
        leader,
        services,
        ..cluster()
    };
    vec![berlin, bonn]
}

/// A control plane whose dataplane does not run.
pub fn unconnected() -> ControlStatus {
    ControlStatus {
        acknowledged: None,
        dataplane_problem: Some("generation 7 waits for the dataplane to start".to_owned()),
        dataplane: None,
        ..control()
    }
}

/// A file that was refused.
pub fn config_problem() -> ConfigProblem {
    ConfigProblem {
        file: "/etc/shunt/shunt.toml".to_owned(),
        line: 12,
        column: 54,
        field: "pools.web.backends[1].weight".to_owned(),
        reason: "2000 is too large; write a number from 0 to 1000".to_owned(),
    }
}

/// A reload that the dataplane has not taken yet.
pub fn unacknowledged() -> Reloaded {
    let restart_needed = vec!["dataplane.ring_size is 2048 and becomes 4096".to_owned()];
    Reloaded { generation: 8, changed: true, acknowledged: Some(7), restart_needed }
}

/// A dataplane that is well.
pub fn dataplane() -> DataplaneStatus {
    let worker = |index: u32, state| WorkerStatus {
        index,
        core: Some(index + 1),
        state,
        generation: Some(7),
        queues: vec![format!("eth1:{index}"), format!("eth2:{index}")],
    };
    let table = |capacity, used, size_bytes, huge_page_bytes| FlowTableStatus {
        capacity,
        used,
        size_bytes,
        huge_page_bytes,
    };
    DataplaneStatus {
        version: "0.1.0".to_owned(),
        instance: 4_711,
        uptime_s: 93_790,
        generation: Some(7),
        generation_age_s: Some(182),
        problems: Vec::new(),
        restart_needed: Vec::new(),
        nics: nics(),
        workers: vec![worker(0, WorkerState::Running), worker(1, WorkerState::Waiting)],
        flows: FlowTablesStatus {
            v4: table(2_000_000, 41_231, 64_000_000, 62_914_560),
            v6: table(500_000, 17, 32_000_000, 29_360_128),
            nat_v4: Some(table(500_000, 812, 32_000_000, 29_360_128)),
            nat_v6: None,
        },
        next_hops: next_hops(),
        probes: None,
    }
}

/// A dataplane whose second NIC has no carrier.
pub fn dataplane_with_link_down() -> DataplaneStatus {
    let mut status = dataplane();
    status.nics[1].up = false;
    status.problems =
        vec!["eth2 has no carrier or is down; check the cable and `ip link set eth2 up`".to_owned()];
    status
}

/// A dataplane with something to complain about.
pub fn dataplane_in_trouble() -> DataplaneStatus {
    let mut status = dataplane();
    status.problems = vec![
        "worker 1 does not go round; [\"eth1:1\", \"eth2:1\"] are not served until it does or the dataplane restarts"
            .to_owned(),
        "backend dns1 (10.0.2.21) of pool dns: its MAC address, or its router's, is not known; is it up? see `ip neigh`"
            .to_owned(),
    ];
    status.restart_needed = vec!["dataplane.ring_size is 2048 and becomes 4096".to_owned()];
    status.next_hops[2].resolved = None;
    status.next_hops[2].unresolved = Some(DropReason::NeighborUnresolved.name().to_owned());
    status.workers[1].state = WorkerState::Stalled;
    status
}

fn nics() -> Vec<NicStatus> {
    let eth1 = NicStatus {
        name: "eth1".to_owned(),
        ifindex: 3,
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
        xdp: "native".to_owned(),
        zero_copy: true,
        multi_buffer: false,
        rings: Rings::Own,
        queues: 2,
        xdp_packets: XdpCounters { redirected: 9_120_411, passed: 3_020, ..XdpCounters::default() },
        sockets: SocketCounters { rx_ring_full: 12, ..SocketCounters::default() },
    };
    let eth2 = NicStatus {
        name: "eth2".to_owned(),
        ifindex: 4,
        mac: MacAddress([2, 0, 0, 0, 0, 2]),
        zero_copy: false,
        multi_buffer: true,
        xdp_packets: XdpCounters::default(),
        sockets: SocketCounters::default(),
        ..eth1.clone()
    };
    vec![eth1, eth2]
}

fn hop() -> ResolvedHop {
    let mac = MacAddress([2, 0, 0, 0, 1, 1]);
    ResolvedHop { nic: "eth1".to_owned(), vlan: None, mac, gateway: None, mtu: 1500 }
}

/// By a router in a VLAN.
fn far_hop() -> ResolvedHop {
    ResolvedHop { vlan: Some(20), gateway: Some(address("2001:db8::1")), ..hop() }
}

fn next_hops() -> Vec<NextHopStatus> {
    let open = |of: &str, resolved| NextHopStatus {
        address: address(of),
        resolved: Some(resolved),
        unresolved: None,
        flows: 20_604,
    };
    vec![
        open("10.0.1.11", hop()),
        open("10.0.1.12", hop()),
        open("10.0.2.21", hop()),
        open("2001:db8:1::13", far_hop()),
    ]
}

fn services() -> Vec<ServiceView> {
    let web = |vip: &str| ServiceView {
        name: "web".to_owned(),
        vip: address(vip),
        port: port("tcp/80").into(),
        pool: "web".to_owned(),
        backends_usable: 3,
        backends_total: 3,
    };
    let dns = ServiceView {
        name: "dns".to_owned(),
        port: PortMapping { target: Some(30_053), ..port("udp/53").into() },
        pool: "dns".to_owned(),
        backends_usable: 0,
        backends_total: 1,
        ..web("203.0.113.53")
    };
    vec![web("203.0.113.10"), web("2001:db8::10"), dns]
}

fn backends() -> Vec<BackendView> {
    let web1 = BackendView {
        pool: "web".to_owned(),
        name: "web1".to_owned(),
        address: address("10.0.1.11"),
        mode: Mode::Dr,
        weight: 1,
        state: "reachable".to_owned(),
        health: Some(health(HealthState::Up, "2 checks in a row succeeded")),
        next_hop: Some(hop()),
        flows: 20_604,
    };
    let web2 = BackendView {
        name: "web2".to_owned(),
        address: address("10.0.1.12"),
        weight: 0,
        state: "draining".to_owned(),
        ..web1.clone()
    };
    let web3 = BackendView {
        name: "web3".to_owned(),
        address: address("2001:db8:1::13"),
        mode: Mode::Ipip,
        weight: 2,
        next_hop: Some(far_hop()),
        ..web1.clone()
    };
    let dns1 = BackendView {
        pool: "dns".to_owned(),
        name: "dns1".to_owned(),
        address: address("10.0.2.21"),
        state: DropReason::NeighborUnresolved.name().to_owned(),
        health: None,
        next_hop: None,
        flows: 0,
        ..web1
    };
    vec![web1, web2, web3, web4(), dns1]
}

/// A backend that is down.
fn web4() -> BackendView {
    BackendView {
        pool: "web".to_owned(),
        name: "web4".to_owned(),
        address: address("10.0.1.14"),
        mode: Mode::Dr,
        weight: 1,
        state: "down".to_owned(),
        health: Some(health(HealthState::Down, "3 checks in a row failed: connection refused")),
        next_hop: Some(hop()),
        flows: 0,
    }
}

fn health(state: HealthState, reason: &str) -> BackendHealth {
    let question = "http 203.0.113.10:80 through the service";
    let probe = ProbeView {
        question: question.to_owned(),
        state,
        last_failure: (state == HealthState::Down).then(|| "connection refused".to_owned()),
        successes: 46_871,
        failures: 3,
        own_faults: 0,
    };
    BackendHealth {
        state,
        since_ms: Some(TimeMs(1_769_860_800_123)),
        reason: Some(format!("{reason}; asked {question}")),
        last_latency_us: Some(412),
        probes: vec![probe],
    }
}

/// What happened, the oldest first.
pub fn events() -> Vec<Event> {
    let event = |number, subject: &str, text: &str, reason: Option<&str>| Event {
        number,
        at_ms: TimeMs(1_769_860_790_000 + 5_061 * number),
        subject: subject.to_owned(),
        text: text.to_owned(),
        reason: reason.map(str::to_owned),
    };
    let asked = "asked http 203.0.113.10:80 through the service";
    let up = format!("the first check succeeded; {asked}");
    let down = format!("3 checks in a row failed: connection refused; {asked}");
    vec![
        event(1, "backend web4 of pool web", "up", Some(&up)),
        event(2, "backend web4 of pool web", "down", Some(&down)),
        event(3, "backend web2 of pool web", "draining", None),
    ]
}

/// The answer to a request to drain web2.
pub fn drained(flows: u64) -> Vec<BackendView> {
    let web2 = backends().into_iter().find(|backend| backend.name == "web2").unwrap();
    vec![BackendView { flows, ..web2 }]
}

fn stats() -> Stats {
    let counted = [
        (Counter::RxPackets, [4_560_213, 4_560_198]),
        (Counter::RxBytes, [364_817_040, 364_815_840]),
        (Counter::TxPackets, [4_559_901, 4_559_898]),
        (Counter::TxBytes, [364_792_080, 364_791_840]),
        (Counter::FlowHits, [4_518_655, 4_518_700]),
        (Counter::FlowsCreated, [41_246, 41_198]),
        (Counter::FlowsConfirmed, [41_001, 40_977]),
        (Counter::Batches, [1_203_114, 1_203_007]),
        (Counter::Sleeps, [803_005, 803_121]),
        (Counter::TxWakeups, [1_203_090, 1_202_980]),
    ];
    let dropped = [(DropReason::UnlistedPort, [310, 300]), (DropReason::IcmpUnhandled, [2, 0])];
    let worker = |index: usize| {
        let mut values = CounterValues::default();
        for counter in Counter::ALL {
            values.counters.insert(counter.name().to_owned(), 0);
        }
        for reason in DropReason::ALL {
            values.drops.insert(reason.name().to_owned(), 0);
        }
        values
            .counters
            .extend(counted.map(|(counter, by_worker)| (counter.name().to_owned(), by_worker[index])));
        values.drops.extend(dropped.map(|(reason, by_worker)| (reason.name().to_owned(), by_worker[index])));
        values
    };
    Stats { workers: vec![worker(0), worker(1)] }
}

/// The flows of one client, or all.
fn flows(client: &str) -> Vec<FlowView> {
    let web = |client: &str, client_port, vip: &str, backend: &str| FlowView {
        client: address(client),
        client_port,
        vip: address(vip),
        port: port("tcp/80"),
        backend: Some(address(backend)),
        source: None,
        state: "established".to_owned(),
        idle_s: 3,
        expires_s: 897,
    };
    let dns = FlowView {
        port: port("udp/53"),
        backend: None,
        source: "10.0.1.250:40123".parse().ok(),
        state: "unconfirmed".to_owned(),
        idle_s: 12,
        expires_s: 18,
        ..web("192.0.2.7", 5353, "203.0.113.53", "10.0.2.21")
    };
    let all = vec![
        web("192.0.2.7", 40_001, "203.0.113.10", "10.0.1.11"),
        dns,
        web("2001:db8:99::7", 40_002, "2001:db8::10", "2001:db8:1::13"),
    ];
    all.into_iter().filter(|flow| client.is_empty() || flow.client == address(client)).collect()
}
