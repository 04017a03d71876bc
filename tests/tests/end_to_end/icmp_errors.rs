//! A link of 1300 bytes between the router and the clients, in the way of answers alone: the router tells the
//! VIP that the server's segments are too big, and that reaches the backend that sent them.
//!
//! Servers set "don't fragment" and do not probe, so a download that is told nothing never ends.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use shunt_api::counters::Counter;
use shunt_tests::curl::{self, Curl, Manner};
use shunt_tests::error::{Result, ensure};
use shunt_tests::servers;
use shunt_tests::settings::{Settings, like_v4, like_v6, vips};
use shunt_tests::shares::Shares;
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, LB, Segment, Shape, Topology};

use crate::observe::{counted, counting, download};
use crate::stage::{start_servers, with_shunt};

const BACKENDS: usize = 2;
const FILE_BYTES: u64 = 1_000_000;
const DOWNLOADS: u16 = 8;
const LIMIT: Duration = Duration::from_secs(10);
/// At least what IPv6 asks of a link, and less than the clients' own, by which they choose their MSS.
const MTU: u32 = 1300;
/// Last number of the VIPs, mode, and whether backends are known by IPv6.
const SERVICES: [(u8, &str, bool); 3] = [(10, "dr", false), (20, "ipip", false), (30, "ipip", true)];

pub fn run() -> Result<()> {
    let vips_all = SERVICES.iter().flat_map(|(number, ..)| vips(*number)).collect();
    let shape = Shape { arms: Arms::Two, queues: 1, dr: BACKENDS, far: BACKENDS, vips: vips_all };
    with_shunt("icmp_errors", shape, settings, |topology, shunt| {
        let content = servers::publish(&topology.run, "file", FILE_BYTES)?;
        let _servers = start_servers(topology)?;
        narrow(topology)?;
        for (index, (number, mode, by_v6)) in (0..).zip(SERVICES) {
            for (vip, first_port) in vips(number).into_iter().zip([10_000, 20_000]) {
                forget(topology)?;
                let kind = format!("{mode} by IPv{}", if by_v6 { 6 } else { 4 });
                one_vip(topology, shunt, &kind, (vip, &content), first_port + index * 1_000)?;
            }
        }
        untold(topology, shunt)
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    for (number, mode, by_v6) in SERVICES {
        let nodes = if mode == "dr" { &topology.dr } else { &topology.far };
        let like = if by_v6 { like_v6() } else { like_v4() };
        settings.serve(&format!("s{number}"), mode, nodes, like, (&vips(number), &["tcp/80"]));
    }
    settings
}

/// Lowers the MTU of the router's NIC towards the clients; like them, it reaches the VIPs by the load balancer.
fn narrow(topology: &Topology) -> Result<()> {
    let narrow = format!("link set {} mtu {MTU}\n", Segment::Front.name());
    topology.router.ip(&(narrow + &topology.shape.vips.iter().map(route).collect::<String>()))?;
    // Both backends send at once, each has to be told, and by default a router tells one host little.
    topology.router.sysctl(&[("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")])?;
    topology.nodes().try_for_each(|node| node.finish_own_packets())
}

fn route(vip: &IpAddr) -> String {
    format!("route replace {vip} via {}\n", Segment::Front.host_like(*vip, LB))
}

/// Makes the backends forget what fits on the way to the clients.
fn forget(topology: &Topology) -> Result<()> {
    topology.nodes().try_for_each(|node| {
        ["-4", "-6"]
            .iter()
            .try_for_each(|family| node.namespace.run("ip", &[family, "route", "flush", "cache"]).map(drop))
    })
}

fn one_vip(
    topology: &Topology,
    shunt: &Shunt<'_>,
    kind: &str,
    (vip, content): (IpAddr, &[u8]),
    first_port: u16,
) -> Result<()> {
    let start = Instant::now();
    let (replies, grown) = counting(shunt, || {
        download(topology, "narrow", (vip, "file", content), (DOWNLOADS, first_port), LIMIT)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let shares: Shares = replies.iter().map(|reply| reply.backend.as_str()).collect();
    let errors = grown.counter(Counter::IcmpErrorsForwarded);
    println!(
        "   {kind:<12} {vip}: {DOWNLOADS} downloads of 1 MB through a link of {MTU} bytes in {seconds:.1} s, {errors} ICMP errors forwarded: {shares}"
    );
    let nodes = if kind.starts_with("dr") { &topology.dr } else { &topology.far };
    let by_all = nodes.iter().all(|node| shares.count(&node.name) > 0);
    ensure(by_all, || "a backend served nothing: that shows nothing of it".to_owned())?;
    ensure(errors >= BACKENDS as u64, || "each backend should have been told".to_owned())
}

/// Had the errors not reached the backends, no download would have ended.
fn untold(topology: &Topology, shunt: &Shunt<'_>) -> Result<()> {
    const HANGS: Duration = Duration::from_secs(1);
    const TIMED_OUT: u32 = 28;
    let astray = |vip: &IpAddr| route(vip).replace("replace", "del");
    topology.router.ip(&topology.shape.vips.iter().map(astray).collect::<String>())?;
    forget(topology)?;
    let vips = SERVICES.map(|(number, ..)| vips(number)).concat();
    let request = |(vip, port): (IpAddr, u16)| {
        let mut requests = curl::requests(topology, vip, 1, port);
        requests.iter_mut().for_each(|request| request.url += "file");
        requests
    };
    let requests: Vec<_> = vips.into_iter().zip(30_000..).flat_map(request).collect();
    let manner = Manner { limit: HANGS, ..Manner::default() };
    let (replies, grown) = counting(shunt, || Curl::start(topology, "untold", &requests, &manner)?.finish())?;
    let hung = replies.iter().filter(|reply| reply.exit == TIMED_OUT).count();
    println!("   when the router's errors go astray: {hung} of {} downloads hang", replies.len());
    ensure(hung == replies.len(), || format!("a download ended all the same: {replies:?}"))?;
    counted("icmp_errors_forwarded", grown.counter(Counter::IcmpErrorsForwarded), 0u32)
}
