//! Mode `nat`: backends without the VIP, on other ports, whose replies come back through the load balancer; one
//! of them behind the router. Two queues, and replies come in on whichever the switch chooses.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shunt_api::counters::Counter;
use shunt_api::snapshot::Protocol;
use shunt_api::status::Flows;
use shunt_tests::client::{self, Answered};
use shunt_tests::curl::{self, Curl, Manner, Reply};
use shunt_tests::error::{Result, While, ensure};
use shunt_tests::process::Process;
use shunt_tests::servers;
use shunt_tests::settings::{Settings, vips};
use shunt_tests::shares::Shares;
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, LB, Node, Segment, Shape, Topology};

use crate::observe::{attempt, counted, counting, download};
use crate::stage::with_shunt;

const DR: usize = 3;
const FAR: usize = 1;
/// Where nothing else is; the topology routes them nowhere.
const SOURCES: [&str; 2] = ["10.77.100.1", "fd77:100::1"];
const NAT: &str = "[nat]\nsources = [\"10.77.100.1\", \"fd77:100::1\"]\n";
/// Nobody listens on the target of the last.
const PORTS: &[&str] = &["tcp/80:30080", "udp/53:30053", "udp/54:30054"];
const HTTP_TARGET: u16 = 30080;
const UDP_TARGET: u16 = 30053;
const UDP_PORT: u16 = 53;
const UNUSED_PORT: u16 = 54;
const FILE_BYTES: u64 = 10_000_000;
const DATAGRAMS: u16 = 400;
const ATTEMPTS: u16 = 200;
const LIMIT: Duration = Duration::from_secs(5);

/// Requests per family, and how many at a time.
struct Load {
    requests: u16,
    parallel: usize,
}

pub fn two_arms() -> Result<()> {
    run("nat", Arms::Two, &Load { requests: 2_000, parallel: 200 })
}

pub fn one_arm() -> Result<()> {
    run("nat_one_arm", Arms::One, &Load { requests: 500, parallel: 50 })
}

fn run(name: &str, arms: Arms, load: &Load) -> Result<()> {
    // No backend has a VIP.
    let shape = Shape { arms, queues: 2, dr: DR, far: FAR, vips: Vec::new() };
    with_shunt(name, shape, settings, |topology, shunt| {
        route(topology)?;
        let content = servers::publish(&topology.run, "file", FILE_BYTES)?;
        let mut servers = Servers::start(topology)?;
        for (vip, first_port) in vips(10).into_iter().zip([10_000, 18_000]) {
            request(topology, shunt, vip, load, first_port)?;
            transfer(topology, vip, &content, first_port + 5_000)?;
            ask(topology, shunt, vip, first_port + 6_000)?;
            nobody_listens(topology, shunt, vip, first_port + 7_000)?;
        }
        both_workers(shunt)?;
        servers.nginx.remove(0).kill()?;
        for (vip, first_port) in vips(10).into_iter().zip([28_000, 29_000]) {
            refused_by_one(topology, shunt, vip, first_port)?;
        }
        Ok(())
    })
}

/// Translation cannot change the family, so each has a service of its own.
fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.tunnel_entropy = false;
    settings.tables = NAT;
    for (vip, name) in vips(10).into_iter().zip(["v4", "v6"]) {
        settings.serve(name, "nat", topology.nodes(), vip, (&[vip], PORTS));
    }
    settings
}

/// Clients reach the VIPs, and the backends the sources, by the load balancer.
fn route(topology: &Topology) -> Result<()> {
    let to_vip = |vip: IpAddr| format!("route add {vip} via {}\n", topology.lb_address(vip));
    topology.client.ip(&vips(10).map(to_vip).concat())?;
    let [v4, v6] = SOURCES;
    let (by_v4, by_v6) = (Segment::Back.v4(LB), Segment::Back.v6(LB));
    let to_sources = format!("route add {v4} via {by_v4}\nroute add {v6} via {by_v6}\n");
    topology.router.ip(&to_sources)?;
    topology.dr.iter().try_for_each(|node| node.namespace.ip(&to_sources))?;
    topology.nodes().try_for_each(|node| {
        // All clients look like one host to a backend, to which it would send few ICMP errors.
        node.namespace.sysctl(&[("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")])?;
        node.finish_own_packets()
    })
}

/// Of all backends, on their own addresses.
struct Servers {
    nginx: Vec<Process>,
    _echo: Vec<Process>,
}

impl Servers {
    fn start(topology: &Topology) -> Result<Self> {
        let run = &topology.run;
        let at = |node: &Node, port| [node.v4.into(), node.v6.into()].map(|ip| SocketAddr::new(ip, port));
        let nginx = |node| servers::start_nginx_at(run, node, &at(node, HTTP_TARGET));
        let echo =
            |node: &Node| servers::start_echo_at(run, &node.namespace, &node.name, &at(node, UDP_TARGET));
        let nginx = topology.nodes().map(nginx).collect::<Result<_>>()?;
        Ok(Self { nginx, _echo: topology.nodes().map(echo).collect::<Result<_>>()? })
    }
}

fn source_like(vip: IpAddr) -> Option<IpAddr> {
    SOURCES.iter().filter_map(|source| source.parse().ok()).find(|ip: &IpAddr| ip.is_ipv4() == vip.is_ipv4())
}

/// Answered on one connection, and the server saw one of our sources.
fn is_good(reply: &Reply, vip: IpAddr) -> bool {
    let answered = reply.exit == 0 && reply.status == 200 && reply.connections == 1;
    answered && reply.seen.map(|seen| seen.ip()) == source_like(vip)
}

/// All backends answer, every flow takes one source end, and all flows can be listed.
fn request(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr, load: &Load, first_port: u16) -> Result<()> {
    let Load { requests: count, parallel } = *load;
    let requests = curl::requests(topology, vip, count, first_port);
    let manner = Manner { parallel, ..Manner::default() };
    let start = Instant::now();
    let (replies, grown) = counting(shunt, || {
        Curl::start(topology, &format!("curl-{first_port}"), &requests, &manner)?.finish()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let bad: Vec<_> = replies.iter().filter(|reply| !is_good(reply, vip)).collect();
    ensure(bad.is_empty(), || format!("{} of {count} requests failed, e.g. {:?}", bad.len(), bad[0]))?;
    let shares: Shares = replies.iter().map(|reply| reply.backend.as_str()).collect();
    let by_all = topology.nodes().all(|node| shares.count(&node.name) > 0);
    ensure(by_all, || format!("a backend answered nothing: {shares}"))?;
    counted("source ends taken", grown.counter(Counter::NatFlowsCreated), count)?;
    let ends: BTreeSet<_> = replies.iter().filter_map(|reply| Some((&reply.backend, reply.seen?))).collect();
    ensure(ends.len() == replies.len(), || "two flows to one backend had the same source end".to_owned())?;
    let listed = listed(topology, shunt, vip)?;
    println!(
        "   {vip}: {count} of {count} answered, {parallel} at a time, in {seconds:.1} s: {shares}; {listed} flows listed"
    );
    ensure(listed >= count.into(), || "`lbctl flows` lists fewer flows than there were".to_owned())
}

/// Flows of a VIP that `lbctl flows` lists, all with one of the backends.
fn listed(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr) -> Result<usize> {
    let arguments = ["flows", "--vip", &vip.to_string(), "--limit", "100000"];
    let Flows { flows, .. } = shunt.lbctl_json(&arguments)?;
    let known: BTreeSet<_> = topology.nodes().map(|node| node.address_like(vip)).collect();
    let stranger = flows.iter().find(|flow| flow.backend.is_none_or(|backend| !known.contains(&backend)));
    ensure(stranger.is_none(), || format!("`lbctl flows` shows {stranger:?}"))?;
    Ok(flows.len())
}

fn transfer(topology: &Topology, vip: IpAddr, content: &[u8], first_port: u16) -> Result<()> {
    let start = Instant::now();
    download(topology, "nat", (vip, "file", content), (1, first_port), LIMIT)?;
    let down = start.elapsed();
    let file = topology.run.directory().join("www/file").display().to_string();
    let name = if vip.is_ipv4() { "v4" } else { "v6" };
    let url = format!("http://{}/uploads/{name}", SocketAddr::new(vip, 80));
    let start = Instant::now();
    let curl = ["--disable", "-sS", "-f", "-g", "-m", "10", "-T", &file, &url];
    topology.client.run("curl", &curl)?;
    let up = start.elapsed();
    let stored = topology.run.directory().join("www/uploads").join(name);
    let got = fs::read(&stored).to(|| format!("read {}", stored.display()))?;
    ensure(got == content, || format!("what was uploaded to {vip} differs from what was sent"))?;
    let rate = |took: Duration| FILE_BYTES as f64 * 8.0 / 1e6 / took.as_secs_f64();
    println!(
        "   {vip}: 10 MB down at {:.0} Mbit/s and up at {:.0} Mbit/s, every byte compared",
        rate(down),
        rate(up)
    );
    Ok(())
}

/// One datagram each way; the server sees our source.
fn ask(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr, first_port: u16) -> Result<()> {
    let sources = topology.client_addresses(vip);
    let (answers, grown) = counting(shunt, || {
        let asking = || client::ask_udp_many(sources, (vip, UDP_PORT).into(), DATAGRAMS, first_port);
        client::run_inside(&topology.client, asking)
    })?;
    let answers: std::io::Result<Vec<Answered>> = answers.into_iter().collect();
    let answers = answers.to(|| format!("get an answer to each of {DATAGRAMS} UDP requests of {vip}"))?;
    let wrong = answers.iter().find(|answered| Some(answered.answer.client) != source_like(vip));
    ensure(wrong.is_none(), || format!("the server saw another source than ours: {wrong:?}"))?;
    counted("source ends taken", grown.counter(Counter::NatFlowsCreated), DATAGRAMS)?;
    let shares: Shares = answers.iter().map(|answered| answered.answer.server.as_str()).collect();
    println!("   {vip}: {DATAGRAMS} of {DATAGRAMS} UDP requests answered: {shares}");
    Ok(())
}

/// The backend's "port unreachable" is translated back and reaches the client's socket.
fn nobody_listens(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr, first_port: u16) -> Result<()> {
    const COUNT: u16 = 40;
    let (attempts, grown) = counting(shunt, || {
        let to = (Protocol::Udp, SocketAddr::new(vip, UNUSED_PORT));
        attempt(topology, to, &topology.client_addresses(vip), (COUNT, first_port), LIMIT)
    })?;
    println!(
        "   {vip}: {} of {COUNT} UDP requests to a backend's unused port refused, the slowest after {:.0} ms",
        attempts.refused,
        attempts.slowest.as_secs_f64() * 1e3
    );
    ensure(attempts.refused == u64::from(COUNT), || format!("not all were refused: {attempts:?}"))?;
    counted("ICMP errors translated", grown.counter(Counter::IcmpErrorsForwarded), COUNT)?;
    counted("own answers", grown.counter(Counter::UnreachableReplies), 0u32)
}

/// One backend's resets reach the clients that were sent there.
fn refused_by_one(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr, first_port: u16) -> Result<()> {
    let (attempts, grown) = counting(shunt, || {
        let to = (Protocol::Tcp, SocketAddr::new(vip, 80));
        attempt(topology, to, &topology.client_addresses(vip), (ATTEMPTS, first_port), LIMIT)
    })?;
    println!(
        "   {vip}: without nginx on one of {} backends {} of {ATTEMPTS} connections refused, the slowest after {:.0} ms",
        DR + FAR,
        attempts.refused,
        attempts.slowest.as_secs_f64() * 1e3
    );
    let plausible = attempts.refused > 0 && attempts.answered > attempts.refused && attempts.silent == 0;
    ensure(plausible, || format!("about a quarter should be refused, the others answered: {attempts:?}"))?;
    counted("own answers", grown.counter(Counter::ResetReplies), 0u32)
}

/// Otherwise two queues show nothing.
fn both_workers(shunt: &Shunt<'_>) -> Result<()> {
    let stats = shunt.stats()?;
    let received: Vec<_> = stats.workers.iter().map(|worker| worker.counter(Counter::RxPackets)).collect();
    println!("   packets by worker: {received:?}");
    ensure(received.len() == 2 && received.iter().all(|&packets| packets > 1_000), || {
        "both workers should have had many packets".to_owned()
    })
}
