//! Health checks of the box itself that go to VIPs: each reaches the one backend that its mark names, by direct
//! routing and through tunnels, and fails when that way does not work. The dataplane alone is looked at: it gets its
//! snapshots from here.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use shunt_api::compile::compile;
use shunt_api::config::Config;
use shunt_api::snapshot::{Mode, PROBE_MARK, ProbeWay, Snapshot};
use shunt_api::status::{DataplaneStatus, ProbeCounters};
use shunt_tests::command;
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::programs;
use shunt_tests::settings::{FLEET_KEY, Settings, like_v4, like_v6, vips};
use shunt_tests::shunt::{PATIENCE, Shunt};
use shunt_tests::topology::{Arms, Node, Segment, Shape, Topology};
use shunt_tests::wait;

use crate::stage::{probe_traces, start_servers, with_shunt};

const VIPS: u8 = 10;
/// What a check that is to succeed may take.
const LIMIT: Duration = Duration::from_secs(3);
/// What one that is to fail waits; an answer takes a millisecond.
const SILENCE: Duration = Duration::from_millis(300);
/// A number that no probe has.
const NOBODY: u16 = 999;
/// A request that fills packets of 1500 bytes.
const LARGE: usize = 4000;

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 2, far: 2, vips: vips(VIPS).into() };
    with_shunt("probes", shape, settings, |topology, shunt| {
        let _servers = start_servers(topology)?;
        shunt.kill_controlplane()?;
        ensure(probe_traces(topology)?.is_empty(), || {
            "something is there before there are probes".to_owned()
        })?;

        apply(topology, shunt)?;
        every_way_leads_to_its_backend(topology, shunt)?;
        broken_ways_fail(topology)?;
        strict_filter_is_a_problem(topology, shunt)?;
        outlives_the_dataplane(topology, shunt)
    })
}

/// One pool: the other ways are of backends that no pool has.
fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(VIPS), &["tcp/80"]));
    settings
}

/// Every backend by its IPv4 and by its IPv6 address, with what the probe is expected to reach.
fn ways(topology: &Topology) -> Vec<(ProbeWay, &Node)> {
    let (dr, far) = (topology.dr.iter(), topology.far.iter());
    let nodes = dr.map(|node| (node, Mode::Dr)).chain(far.map(|node| (node, Mode::Ipip)));
    let by_both = nodes
        .flat_map(|(node, mode)| [like_v4(), like_v6()].map(|like| (node, mode, node.address_like(like))));
    (0..)
        .zip(by_both)
        .map(|(number, (node, mode, address))| (ProbeWay { number, address, mode }, node))
        .collect()
}

/// Puts a snapshot with all ways into force.
fn apply(topology: &Topology, shunt: &Shunt<'_>) -> Result<()> {
    let config = Config::parse(&settings(topology).to_string(), "shunt.toml");
    let config = config.map_err(|problem| Error::Wrong(problem.to_string()))?;
    let key = FLEET_KEY.to_owned().try_into().expect("a fleet key");
    let generation = status(shunt)?.generation.unwrap_or(0) + 1;
    let probes = ways(topology).into_iter().map(|(probe, _)| probe).collect();
    let snapshot = Snapshot { generation, probes, ..compile(&config, key) };
    let text = serde_json::to_string(&snapshot).map_err(std::io::Error::from);
    let file = topology.run.write("snapshot.json", text.to(|| "write a snapshot".to_owned())?)?;
    let headers = ["-H", "content-type: application/json", "-X", "PUT", "--data-binary"];
    ask(shunt, "snapshot", &[&headers[..], &[&format!("@{}", file.display())]].concat()).map(drop)
}

fn status(shunt: &Shunt<'_>) -> Result<DataplaneStatus> {
    let answer = ask(shunt, "status", &[])?;
    serde_json::from_str(&answer)
        .map_err(std::io::Error::from)
        .to(|| "read the dataplane's status".to_owned())
}

fn ask(shunt: &Shunt<'_>, what: &str, arguments: &[&str]) -> Result<String> {
    let socket = &shunt.paths().dataplane_socket;
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail-with-body", "--unix-socket"]).arg(socket).args(arguments);
    command::run(curl.arg(format!("http://localhost/v1/{what}")))
}

/// The name of the backend that answers a marked request from the box, padded to so many bytes.
fn check(topology: &Topology, number: u16, vip: IpAddr, size: usize, limit: Duration) -> Result<String> {
    let to = SocketAddr::new(vip, 80);
    let fetch = || -> std::io::Result<String> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        socket.set_mark(PROBE_MARK | u32::from(number))?;
        socket.connect_timeout(&to.into(), limit)?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(limit))?;
        let padding = "x".repeat(size);
        write!(stream, "GET / HTTP/1.0\r\nX-Padding: {padding}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.lines().last().unwrap_or_default().to_owned())
    };
    topology.lb.inside(fetch)?.to(|| format!("check {vip} by way {number} within {limit:?}"))
}

fn fails(topology: &Topology, number: u16, vip: IpAddr, size: usize) -> Result<()> {
    let answered = check(topology, number, vip, size, SILENCE);
    ensure(answered.is_err(), || format!("{vip} answers by way {number}: {answered:?}"))
}

fn all_answer(topology: &Topology) -> Result<usize> {
    let mut answered = 0;
    for (probe, node) in ways(topology) {
        for vip in vips(VIPS) {
            for size in [0, LARGE] {
                let name = check(topology, probe.number, vip, size, LIMIT)?;
                ensure(name == node.name, || format!("{probe:?} led to {name} instead of {}", node.name))?;
                answered += 1;
            }
        }
    }
    Ok(answered)
}

fn every_way_leads_to_its_backend(topology: &Topology, shunt: &Shunt<'_>) -> Result<()> {
    let answered = all_answer(topology)?;
    let tunnelled = topology.decapsulated()?;
    println!("   {answered} of {answered} checks reached the backend that they name; tunnels: {tunnelled:?}");
    let [four, six, four6, six6] =
        [tunnelled.four_in_four, tunnelled.six_in_four, tunnelled.four_in_six, tunnelled.six_in_six];
    ensure([four, six, four6, six6].iter().all(|&count| count > 0), || "a tunnel was not used".to_owned())?;
    for decapsulator in &topology.decapsulators {
        let sources = decapsulator.outer_sources()?;
        let own = sources.iter().find(|(source, _)| !shunt_tests::settings::is_tunnel_source(*source));
        ensure(own.is_none(), || format!("an outer source outside of the range: {own:?}"))?;
    }
    fails(topology, NOBODY, vips(VIPS)[0], 0)?;
    let DataplaneStatus { probes, next_hops, problems, .. } = status(shunt)?;
    println!("   {probes:?}");
    let ProbeCounters { ways: open, delivered, dropped_no_way, .. } = probes.unwrap_or_default();
    let as_counted = open == 8 && delivered > 0 && dropped_no_way > 0;
    ensure(as_counted && problems.is_empty() && next_hops.len() == 8, || {
        format!("{problems:?}, {} next hops", next_hops.len())
    })
}

/// A VIP that a backend lost, and a path that loses full packets: the others' checks do not notice.
fn broken_ways_fail(topology: &Topology) -> Result<()> {
    let ways = ways(topology);
    let [v4, v6] = vips(VIPS);
    let number = |name: &str| {
        let found = ways.iter().find(|(_, node)| node.name == name);
        found.map_or(NOBODY, |(probe, _)| probe.number)
    };
    for name in ["dr1", "far1"] {
        let node = topology.nodes().find(|node| node.name == name).expect("a node of this name");
        node.namespace.ip(&format!("addr del {v4}/32 dev lo\n"))?;
        fails(topology, number(name), v4, 0)?;
        ensure(check(topology, number(name), v6, 0, LIMIT)? == name, || {
            format!("{name} does not answer at {v6}, which it still has")
        })?;
        node.namespace.ip(&format!("addr add {v4}/32 dev lo\n"))?;
    }
    let (far, narrow) = (Segment::Far.name(), 1400);
    topology.router.ip(&format!("link set {far} mtu {narrow}\n"))?;
    for vip in [v4, v6] {
        ensure(check(topology, number("far1"), vip, 0, LIMIT)? == "far1", || {
            "a small request by the narrow path led elsewhere".to_owned()
        })?;
        fails(topology, number("far1"), vip, LARGE)?;
        ensure(check(topology, number("dr1"), vip, LARGE, LIMIT)? == "dr1", || {
            "a full request by the other path led elsewhere".to_owned()
        })?;
    }
    println!(
        "   checks fail without the VIP, and with full packets on a path of {narrow} bytes; others do not"
    );
    topology.router.ip(&format!("link set {far} mtu 1600\n"))
}

fn strict_filter_is_a_problem(topology: &Topology, shunt: &Shunt<'_>) -> Result<()> {
    let back = Segment::Back.name();
    let key = format!("ipv4/conf/{back}/rp_filter");
    topology.lb.sysctl(&[(&key, "1")])?;
    let problems = status(shunt)?.problems;
    topology.lb.sysctl(&[(&key, "0")])?;
    let told = problems.iter().any(|problem| problem.contains(&format!("net/{key}=2")));
    ensure(told, || format!("a strict filter is not among the problems: {problems:?}"))
}

/// After `kill -9` all is taken over, or removed by `detach`; after a stop nothing is left, which the stage makes sure
/// of.
fn outlives_the_dataplane(topology: &Topology, shunt: &mut Shunt<'_>) -> Result<()> {
    shunt.kill_dataplane()?;
    ensure(!probe_traces(topology)?.is_empty(), || "a killed dataplane cannot have cleaned up".to_owned())?;
    start_dataplane(topology, shunt)?;
    println!("   {} checks right after a restart that follows kill -9", all_answer(topology)?);
    shunt.kill_dataplane()?;
    let program = programs::path("shunt-dataplane")?;
    let bpf_dir = format!("--bpf-dir={}", shunt.paths().bpf.display());
    let removed = command::run(topology.lb.command(program).args(["detach", &bpf_dir]))?;
    let traces = probe_traces(topology)?;
    ensure(traces.is_empty(), || format!("detach said {removed}, and left {traces}"))?;
    start_dataplane(topology, shunt)?;
    ensure(!probe_traces(topology)?.is_empty(), || "a new dataplane does not deliver probes".to_owned())
}

fn start_dataplane(topology: &Topology, shunt: &mut Shunt<'_>) -> Result<()> {
    shunt.start_dataplane()?;
    wait::until_true("the dataplane to listen", PATIENCE, || status(shunt).is_ok())?;
    apply(topology, shunt)
}
