//! The demo: the real programs between real connections on a network of namespaces, told step by step.
//!
//! It shows three things and fails if one of them does not hold: connections are spread over the backends
//! of both modes, every backend sees the client's own address, and removing a backend breaks no transfer
//! on the others.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::error::Result;
use crate::lifecycle;
use crate::process::Process;
use crate::run::Run;
use crate::servers;
use crate::settings::{Backend, Settings, like_v4, like_v6, vips};
use crate::shunt::{Paths, Shunt};
use crate::topology::{Arms, Shape, Topology};

mod hints;
mod report;
mod traffic;

/// Port of the services.
const PORT: u16 = 80;
/// Last numbers of the VIPs that direct routing and tunnels serve.
const DR: u8 = 10;
const IPIP: u8 = 20;
/// Backends of each mode.
const BACKENDS: usize = 3;
/// The backend that is removed while transfers run.
const REMOVED: &str = "dr2";
/// Connections in the first part, and after the removal.
const CONNECTIONS: usize = 480;
const CONNECTIONS_AFTER: usize = 60;

/// Runs the demo and returns what did not hold, in words. With `keep` the network and the programs outlive
/// it.
pub fn run(keep: bool) -> Result<Vec<String>> {
    let begin = Instant::now();
    let run = if keep { Run::kept()? } else { Run::new()? };
    println!("Shunt's demo: the real programs in network namespaces named {}-*\n", run.name());
    let mut topology = Topology::build_in(run, shape())?;
    step(begin, "network: client, load balancer, 3 backends beside it, 3 behind a router");
    let servers = start_servers(&topology)?;
    let settings = settings(&topology);
    let mut shunt = Shunt::start(&topology, &settings)?;
    step(begin, "programs: shunt-dataplane, shunt-controlplane, 6 backends; `lbctl status` is healthy");

    let mut problems = connections(&topology, begin)?;
    problems.extend(transfers(&topology, &shunt, &settings, begin)?);
    problems.extend(after_removal(&topology, begin)?);
    if keep {
        shunt.apply(&settings)?;
        let paths = shunt.release();
        pin_decapsulators(&mut topology)?;
        leave(topology, servers, &paths)?;
    } else {
        shunt.stop()?;
        drop(shunt);
        drop(servers);
        drop(topology);
        step(begin, "everything stopped and removed");
    }
    Ok(problems)
}

/// What is cut short by a Ctrl-C says nothing about Shunt; then this does not return.
fn no_verdict_once_interrupted() {
    drop(lifecycle::gate());
}

fn step(begin: Instant, text: &str) {
    println!("{:5.1} s  {text}", begin.elapsed().as_secs_f64());
}

fn shape() -> Shape {
    let vips = [DR, IPIP].into_iter().flat_map(vips).collect();
    Shape { arms: Arms::Two, queues: 2, dr: BACKENDS, far: BACKENDS, vips }
}

/// The second far backend is known by its IPv6 address, so that all four kinds of tunnel occur.
fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("web-dr", "dr", &topology.dr, like_v4(), (&vips(DR), &["tcp/80"]));
    settings.serve("web-ipip", "ipip", &topology.far, like_v4(), (&vips(IPIP), &["tcp/80"]));
    if let Some(pool) = settings.pools.last_mut() {
        pool.backends[1] = Backend::of(&topology.far[1], like_v6());
    }
    settings
}

fn start_servers(topology: &Topology) -> Result<Vec<Process>> {
    topology.nodes().map(|node| servers::start_echo(topology, node, &[PORT])).collect()
}

fn targets(numbers: &[u8]) -> Vec<SocketAddr> {
    numbers.iter().flat_map(|number| vips(*number)).map(|vip| SocketAddr::new(vip, PORT)).collect()
}

fn connections(topology: &Topology, begin: Instant) -> Result<Vec<String>> {
    let answers = traffic::connect(topology, &targets(&[DR, IPIP]), CONNECTIONS)?;
    let tunnels =
        topology.decapsulators.iter().map(|tunnel| tunnel.decapsulated()).collect::<Result<Vec<_>>>()?;
    no_verdict_once_interrupted();
    println!("\n{}\n", report::connections(topology, &answers, &tunnels));
    let mut problems = report::unanswered(&answers);
    let backends = topology.nodes().filter(|node| report::served(&answers, &node.name) == 0);
    problems.extend(backends.map(|idle| format!("{} served no connection", idle.name)));
    let good = answers.iter().flatten().filter(|answered| answered.is_faithful()).count();
    step(
        begin,
        &format!("{good} of {CONNECTIONS} connections answered by a backend that saw the client itself"),
    );
    Ok(problems)
}

fn transfers(
    topology: &Topology,
    shunt: &Shunt<'_>,
    settings: &Settings,
    begin: Instant,
) -> Result<Vec<String>> {
    step(begin, &format!("long transfers begin; {REMOVED} will be removed while they run"));
    let mut without = settings.clone();
    without.pools.iter_mut().for_each(|pool| pool.backends.retain(|backend| backend.name != REMOVED));
    let transfers = traffic::download(topology, &targets(&[DR, IPIP]), || {
        let start = Instant::now();
        shunt.apply(&without)?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        step(
            begin,
            &format!("{REMOVED} removed from the configuration, in force after {milliseconds:.0} ms"),
        );
        Ok(())
    })?;
    no_verdict_once_interrupted();
    println!("\n{}\n", report::transfers(topology, &transfers, REMOVED));
    let stayed = |transfer: &&crate::client::Transfer| transfer.server.as_deref() != Some(REMOVED);
    let broken: Vec<_> =
        transfers.iter().filter(stayed).filter(|transfer| transfer.broken.is_some()).collect();
    let count = transfers.iter().filter(stayed).count();
    step(begin, &format!("{} of {count} transfers on the other backends broke", broken.len()));
    Ok(broken.into_iter().map(|transfer| format!("a transfer broke: {transfer:?}")).collect())
}

fn after_removal(topology: &Topology, begin: Instant) -> Result<Vec<String>> {
    let answers = traffic::connect(topology, &targets(&[DR]), CONNECTIONS_AFTER)?;
    let mut problems = report::unanswered(&answers);
    let late = report::served(&answers, REMOVED);
    if late > 0 {
        problems.push(format!("{late} new connections went to {REMOVED} after its removal"));
    }
    step(begin, &format!("{CONNECTIONS_AFTER} new connections, {late} of them to {REMOVED}"));
    Ok(problems)
}

fn pin_decapsulators(topology: &mut Topology) -> Result<()> {
    let directory = topology.run.mount_bpf("decapsulators")?;
    let named = topology.decapsulators.iter_mut().zip(&topology.far);
    named.into_iter().try_for_each(|(tunnel, node)| tunnel.pin(&directory.join(&node.name)))
}

fn leave(topology: Topology, servers: Vec<Process>, paths: &Paths) -> Result<()> {
    let vips: Vec<IpAddr> = topology.shape.vips.clone();
    println!("{}", hints::text(topology.run.name(), &vips, paths)?);
    let Topology { run, .. } = topology;
    drop(servers);
    run.release()
}
