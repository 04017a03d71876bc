//! What scenarios have in common: a topology with servers and the running programs, requests that all have
//! to succeed, and an end at which nothing may be left.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use shunt_api::status::DataplaneStatus;
use shunt_tests::client::{self, Answered};
use shunt_tests::curl::{self, Curl, Manner, Reply, Request};
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::process::Process;
use shunt_tests::programs;
use shunt_tests::run::Run;
use shunt_tests::servers;
use shunt_tests::settings::Settings;
use shunt_tests::shares::Shares;
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Shape, Topology};
use shunt_tests::{leftovers, lifecycle, wait};

/// Port of `shunt-echo`; nginx has 80.
pub const ECHO_PORT: u16 = 7;

/// Builds a topology, calls `scenario`, saves the logs if it fails, and makes sure that nothing is left.
pub fn in_topology(name: &str, shape: Shape, scenario: impl FnOnce(&Topology) -> Result<()>) -> Result<()> {
    let topology = Topology::build(shape)?;
    let run = topology.run.name().to_owned();
    let outcome = scenario(&topology);
    if outcome.is_err() {
        save_logs(&topology.run, name)?;
    }
    drop(topology);
    outcome?;
    nothing_left(&run)
}

/// Like [`in_topology`], with a run of its own for a second box: a run has room for one pair of daemons, and what runs
/// on that box is known by the run's name.
pub fn with_second_box(
    name: &str,
    shape: Shape,
    scenario: impl FnOnce(&Topology, &Run) -> Result<()>,
) -> Result<()> {
    in_topology(name, shape, |topology| {
        let run = Run::new()?;
        let outcome = scenario(topology, &run);
        if outcome.is_err() {
            save_logs(&run, &format!("{name}-box-2"))?;
        }
        let name = run.name().to_owned();
        drop(run);
        outcome?;
        nothing_left(&name)
    })
}

fn save_logs(run: &Run, name: &str) -> Result<()> {
    // If it failed because the process is being ended, this is where it stops.
    drop(lifecycle::gate());
    let logs = programs::directory()?.join("end-to-end-logs").join(name);
    run.save_logs(&logs)?;
    println!("   logs are in {}", logs.display());
    Ok(())
}

fn nothing_left(run: &str) -> Result<()> {
    let traces = leftovers::traces_of(run);
    ensure(traces.is_empty(), || format!("left behind: {}", traces.join(", ")))
}

/// Like [`in_topology`], with the programs running; afterwards they have to stop cleanly.
pub fn with_shunt(
    name: &str,
    shape: Shape,
    settings: impl FnOnce(&Topology) -> Settings,
    scenario: impl FnOnce(&Topology, &mut Shunt<'_>) -> Result<()>,
) -> Result<()> {
    with_shunt_after(name, shape, |topology| Ok(settings(topology)), scenario)
}

/// Like [`with_shunt`], in a network that `prepare` changes before the programs start.
pub fn with_shunt_after(
    name: &str,
    shape: Shape,
    prepare: impl FnOnce(&Topology) -> Result<Settings>,
    scenario: impl FnOnce(&Topology, &mut Shunt<'_>) -> Result<()>,
) -> Result<()> {
    in_topology(name, shape, |topology| {
        let settings = prepare(topology)?;
        let start = Instant::now();
        let mut shunt = Shunt::start(topology, &settings)?;
        println!("   healthy {:.0} ms after the start", start.elapsed().as_secs_f64() * 1e3);
        scenario(topology, &mut shunt)?;
        // Otherwise finding nothing after the stop would mean nothing.
        ensure(xdp_nics(topology)?.len() == topology.lb_nics().len() && !shunt.pins()?.is_empty(), || {
            "while Shunt runs, its NICs should have an XDP program and the bpffs its pins".to_owned()
        })?;
        shunt.stop()?;
        nothing_attached(topology, &shunt)
    })
}

/// After a stop: no XDP program on a NIC, no pin in the bpffs, nothing made for health checks.
fn nothing_attached(topology: &Topology, shunt: &Shunt<'_>) -> Result<()> {
    let nics = xdp_nics(topology)?;
    ensure(nics.is_empty(), || format!("after the stop an XDP program is still on {}", nics.join(", ")))?;
    let pins = shunt.pins()?;
    ensure(pins.is_empty(), || format!("after the stop these pins are left: {pins:?}"))?;
    let traces = probe_traces(topology)?;
    ensure(traces.is_empty(), || format!("after the stop this is left of health checks:\n{traces}"))
}

/// What the dataplane has made on the load balancer for health checks, as iproute2 shows it: a pair of devices, rules
/// and routes with a protocol and a table of their own.
pub fn probe_traces(topology: &Topology) -> Result<String> {
    let mut traces = String::new();
    for arguments in [&["link"][..], &["rule"], &["-6", "rule"], &["route", "show", "table", "all"]] {
        let all = topology.lb.run("ip", &[&["-o"], arguments].concat())?;
        let ours = |line: &&str| line.contains("shunt-probe") || line.contains("21320");
        all.lines().filter(ours).for_each(|line| traces.extend([line, "\n"]));
    }
    Ok(traces)
}

/// NICs of the load balancer with an XDP program.
fn xdp_nics(topology: &Topology) -> Result<Vec<String>> {
    let links = topology.lb.run("ip", &["-j", "link"])?;
    let links: Vec<Value> =
        serde_json::from_str(&links).map_err(std::io::Error::from).to(|| "read links".into())?;
    let with_xdp = links.into_iter().filter(|link| link.get("xdp").is_some());
    Ok(with_xdp.filter_map(|link| link.get("ifname")?.as_str().map(str::to_owned)).collect())
}

/// Starts nginx and `shunt-echo` on all backends.
pub fn start_servers(topology: &Topology) -> Result<Vec<Process>> {
    let start = |node| {
        Ok([servers::start_nginx(topology, node)?, servers::start_echo(topology, node, &[ECHO_PORT])?])
    };
    let started: Result<Vec<_>> = topology.nodes().map(start).collect();
    Ok(started?.into_iter().flatten().collect())
}

/// Makes HTTP requests of one VIP; every one has to be answered, with the client's address preserved.
pub fn request(topology: &Topology, label: &str, vip: IpAddr, count: u16, first_port: u16) -> Result<Shares> {
    let requests = curl::requests(topology, vip, count, first_port);
    let start = Instant::now();
    let replies = Curl::start(topology, &format!("curl-{label}"), &requests, &Manner::default())?.finish()?;
    all_good(&replies, &requests)?;
    let shares: Shares = replies.iter().map(|reply| reply.backend.as_str()).collect();
    let seconds = start.elapsed().as_secs_f64();
    println!("   {label:<20} {count} of {count} answered in {seconds:.1} s: {shares}");
    Ok(shares)
}

/// An error unless every request was answered as it should be.
pub fn all_good(replies: &[Reply], requests: &[Request]) -> Result<()> {
    ensure(replies.len() == requests.len(), || "there are fewer replies than requests".to_owned())?;
    let bad: Vec<_> = replies.iter().filter(|reply| !reply.is_good()).collect();
    let example = bad.first();
    ensure(bad.is_empty(), || format!("{} of {} requests failed, e.g. {example:?}", bad.len(), replies.len()))
}

/// Sends UDP requests to one VIP; every one has to be answered, with the client's address preserved.
pub fn request_udp(
    topology: &Topology,
    label: &str,
    vip: IpAddr,
    count: u16,
    first_port: u16,
) -> Result<Shares> {
    let sources = topology.client_addresses(vip);
    let start = Instant::now();
    let asking = || client::ask_udp_many(sources, (vip, ECHO_PORT).into(), count, first_port);
    let answers = client::run_inside(&topology.client, asking)?;
    let answered: std::io::Result<Vec<Answered>> = answers.into_iter().collect();
    let answered = answered.to(|| format!("get an answer to each of {count} UDP requests ({label})"))?;
    let wrong = answered.iter().find(|answered| !answered.is_faithful());
    ensure(wrong.is_none(), || format!("{label}: the server saw another client or VIP: {wrong:?}"))?;
    let shares: Shares = answered.iter().map(|answered| answered.answer.server.as_str()).collect();
    let seconds = start.elapsed().as_secs_f64();
    println!("   {label:<20} {count} of {count} answered in {seconds:.1} s: {shares}");
    Ok(shares)
}

/// Asks over UDP again and again until a backend answers, and says how long that took.
pub fn until_answered(topology: &Topology, vip: IpAddr, limit: Duration) -> Result<Duration> {
    /// One datagram's chance; many of them find the moment of the first answer.
    const PATIENCE: Duration = Duration::from_millis(20);
    let ask = || -> std::io::Result<()> {
        let socket = std::net::UdpSocket::bind((topology.client_addresses(vip)[0], 0))?;
        socket.connect((vip, ECHO_PORT))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"anybody?")?;
        socket.recv(&mut [0; 512]).map(drop)
    };
    let waited = topology.client.inside(|| wait::until_true("an answer", limit, || ask().is_ok()))?;
    waited.map_err(|error| match error {
        Error::Timeout { limit, .. } => Error::Timeout { what: format!("an answer from {vip}"), limit },
        other => other,
    })
}

/// The dataplane's own report; it need not be healthy.
pub fn dataplane_status(shunt: &Shunt<'_>) -> Result<DataplaneStatus> {
    let output = shunt.lbctl(&["status", "-o", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout)
        .map_err(std::io::Error::from)
        .to(|| "read the status".into())?;
    let of_dataplane = status.get("dataplane").cloned().unwrap_or_default();
    serde_json::from_value(of_dataplane)
        .map_err(std::io::Error::from)
        .to(|| "read the dataplane's status".into())
}
