//! Two boxes behind a router that spreads packets over both (BGP, BFD, ECMP), and one of them dies.
//!
//! ```text
//!              front                          back
//!   client ──────┬────── router ───────────────┬───┬── dr1 …
//!                │       BIRD, ECMP            │   └── router ── far1 …
//!                ├────── box 1: Shunt, BIRD ───┤
//!                └────── box 2: Shunt, BIRD ───┘
//! ```
//! The boxes tell each other nothing; they have the fleet key and the configuration in common. The control plane of
//! box 2 is stopped, which withdraws its routes, and started again; then the box dies. Each time its flows go on over
//! box 1, which has never seen them.

mod stalls;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use shunt_api::counters::Counter;
use shunt_tests::bird::{self, Bird};
use shunt_tests::curl::{self, Curl, Manner, Request};
use shunt_tests::error::{Result, ensure};
use shunt_tests::namespace::Namespace;
use shunt_tests::run::Run;
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::{PATIENCE, Shunt};
use shunt_tests::topology::{Arms, LB, ROUTER, Segment, Shape, Topology};
use shunt_tests::{leftovers, servers, wait};

use self::stalls::Streams;
use crate::stage::{ECHO_PORT, all_good, start_servers, with_second_box};

const DOWNLOADS: usize = 50;
const FILE_BYTES: u64 = 1_800_000;
const RATE: u64 = 100_000;
/// A part of a download that does not come within this time never comes.
const STALL: Duration = Duration::from_secs(15);
/// Host number of box 2; box 1 is the topology's own load balancer.
const BOX_2: u8 = 2;
/// Of so many flows, a router that spreads gives each box more than this.
const FLOWS_MIN: u64 = 10;
/// BFD takes 0.3 s; the rest is for a busy machine.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(2);
/// `announce.routes.withdraw_delay` unless it is set.
const WITHDRAW_DELAY: Duration = Duration::from_secs(1);

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 3, far: 3, vips: all_vips() };
    with_second_box("ecmp", shape, two_boxes)
}

fn all_vips() -> Vec<IpAddr> {
    [10, 20].into_iter().flat_map(vips).collect()
}

fn two_boxes(topology: &Topology, run: &Run) -> Result<()> {
    let Some(second) = run.namespaces(["lb2"])?.pop() else { unreachable!("one was asked for") };
    topology.plug_box(&second, "lb2", BOX_2)?;
    send_by_the_router(topology)?;
    let _servers = start_servers(topology)?;
    let mut one = Balancer::start(topology, &topology.run, &topology.lb, LB)?;
    let mut two = Balancer::start(topology, run, &second, BOX_2)?;
    let router = Bird::start(&topology.run, &topology.router, "router-bird", &router_configuration()?)?;
    next_hops_become(topology, &[LB, BOX_2]).inspect_err(|_| explain(&router))?;

    let load = Load::start(topology)?;
    let streams = Streams::start(topology, &all_vips(), ECHO_PORT)?;
    load.wait_until_all_run()?;
    let mut moments = vec![("nothing happens", Instant::now())];
    load.wait_for(FILE_BYTES / 8)?;
    both_carry(&one, &two)?;

    moments.push(("box 2 is withdrawn", Instant::now()));
    withdraw(topology, &mut two)?;
    load.wait_for(FILE_BYTES / 4)?;
    let ends = one.shunt.client_ends()?;
    let came = load.downloads.iter().filter(|download| ends.contains(&download.from)).count();
    println!("   downloads that came to box 1 by then: {came}");
    ensure(came == DOWNLOADS, || "not every download went on over box 1".to_owned())?;
    moments.push(("box 2 is announced again", Instant::now()));
    two.shunt.start_controlplane()?;
    println!(
        "   started again: the router has one again {} later",
        ms(next_hops_become(topology, &[LB, BOX_2])?)
    );
    load.wait_for(FILE_BYTES / 2)?;
    both_carry(&one, &two)?;

    moments.push(("box 2 is dead", Instant::now()));
    two.die(run)?;
    let converged = next_hops_become(topology, &[LB])?;
    println!("   killed: the router has no way through box 2 {} later (BFD: 3 × 100 ms)", ms(converged));
    ensure(converged <= CONVERGENCE_LIMIT, || format!("the router took {converged:?} to notice a dead box"))?;
    load.finish()?;
    streams.finish(&moments)?;
    one.shunt.stop()
}

/// Stops the control plane of a box: it withdraws, gives the router time, and ends.
fn withdraw(topology: &Topology, two: &mut Balancer<'_>) -> Result<()> {
    let begin = Instant::now();
    two.shunt.end_controlplane();
    let withdrawn = next_hops_become(topology, &[LB])?;
    two.shunt.controlplane_ended()?;
    let ended = begin.elapsed();
    println!(
        "   stopped: the router has no way through box 2 {} later, the control plane ends after {}",
        ms(withdrawn),
        ms(ended)
    );
    ensure(ended >= WITHDRAW_DELAY, || "the control plane gave the router no time to take note".to_owned())
}

fn ms(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

/// The client's packets to VIPs go to the router, which hashes ports, too.
fn send_by_the_router(topology: &Topology) -> Result<()> {
    let routes: String = all_vips()
        .iter()
        .map(|vip| format!("route replace {vip} via {}\n", Segment::Front.host_like(*vip, ROUTER)))
        .collect();
    topology.client.ip(&routes)?;
    // Client and boxes are on one segment, so the router recommends a shorter way, past itself. There is none in life.
    topology.client.sysctl(&[("ipv6/conf/eth0/accept_redirects", "0")])?;
    // What waits in the client's buffer no longer needs the network; a small one keeps packets coming.
    topology.client.sysctl(&[("ipv4/tcp_rmem", "4096 16384 32768")])?;
    let by_ports = [("ipv4/fib_multipath_hash_policy", "1"), ("ipv6/fib_multipath_hash_policy", "1")];
    topology.router.sysctl(&by_ports)
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    let ports = &["tcp/80", "tcp/7"];
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), ports));
    settings.serve("far", "ipip", &topology.far, like_v4(), (&vips(20), ports));
    settings.tables = "[announce]\nroutes = true\n";
    settings
}

/// What the addresses of `deploy/bird` are here.
fn common() -> [(&'static str, String); 4] {
    [
        ("ROUTER_V4", Segment::Front.v4(ROUTER).to_string()),
        ("ROUTER_V6", Segment::Front.v6(ROUTER).to_string()),
        ("VIPS_V4", "[ 203.0.113.0/24{32,32} ]".to_owned()),
        ("VIPS_V6", "[ 2001:db8::/64{128,128} ]".to_owned()),
    ]
}

fn router_configuration() -> Result<String> {
    let boxes = [
        ("BOX1_V4", Segment::Front.v4(LB).to_string()),
        ("BOX1_V6", Segment::Front.v6(LB).to_string()),
        ("BOX2_V4", Segment::Front.v4(BOX_2).to_string()),
        ("BOX2_V6", Segment::Front.v6(BOX_2).to_string()),
    ];
    bird::define(bird::ROUTER, &[common(), boxes].concat())
}

/// A box with Shunt and BIRD.
struct Balancer<'t> {
    shunt: Shunt<'t>,
    _bird: Bird,
    namespace: &'t Namespace,
}

impl<'t> Balancer<'t> {
    fn start(topology: &Topology, run: &'t Run, namespace: &'t Namespace, host: u8) -> Result<Self> {
        let own = [
            ("BOX_V4", Segment::Front.v4(host).to_string()),
            ("BOX_V6", Segment::Front.v6(host).to_string()),
        ];
        let configuration = bird::define(bird::BOX, &[common().as_slice(), &own].concat())?;
        let shunt = Shunt::start_at(run, namespace, &settings(topology))?;
        let bird = Bird::start(run, namespace, &format!("bird-{host}"), &configuration)?;
        Ok(Self { shunt, _bird: bird, namespace })
    }

    fn flows(&self) -> Result<u64> {
        Ok(self.shunt.stats()?.total().counter(Counter::FlowsCreated))
    }

    /// As when the power fails: no more packet leaves, then nothing runs any more.
    fn die(&mut self, run: &Run) -> Result<()> {
        self.namespace.ip("link set front down\nlink set back down\n")?;
        let running = leftovers::processes_of(run.name());
        ensure(running.len() >= 3, || format!("box 2 should run three programs, not {}", running.len()))?;
        for pid in running.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may have ended with one before it.
            let _ = kill_process(pid, Signal::KILL);
        }
        self.shunt.kill_dataplane()?;
        self.shunt.kill_controlplane()?;
        let running = || leftovers::processes_of(run.name()).is_empty();
        wait::until_true("all programs of box 2 to be dead", PATIENCE, running).map(drop)
    }
}

/// The next hops of the router's routes to all VIPs, if these are alike; by host number.
fn next_hops(topology: &Topology) -> Result<Option<BTreeSet<u8>>> {
    let show = |family| topology.router.run("ip", &[family, "-o", "route", "show", "proto", "bird"]);
    let routes = [show("-4")?, show("-6")?].concat();
    let of = |vip: &IpAddr| {
        let line = routes.lines().find(|line| line.split(' ').next() == Some(&vip.to_string()));
        let through = |host: &u8| {
            let via = format!(" via {} ", Segment::Front.host_like(*vip, *host));
            line.is_some_and(|line| line.contains(&via))
        };
        [LB, BOX_2].into_iter().filter(through).collect::<BTreeSet<_>>()
    };
    let mut all: Vec<_> = topology.shape.vips.iter().map(of).collect();
    all.dedup();
    Ok(if all.len() == 1 { all.pop() } else { None })
}

/// Waits until the router sends packets to all VIPs to exactly these boxes; says how long that took.
fn next_hops_become(topology: &Topology, hosts: &[u8]) -> Result<Duration> {
    let wanted = Some(hosts.iter().copied().collect());
    let reached = || Ok((next_hops(topology)? == wanted).then_some(()));
    wait::until(&format!("the router to send packets to {hosts:?}"), STALL, reached).map(|((), took)| took)
}

fn explain(router: &Bird) {
    for words in [["show", "protocols"].as_slice(), &["show", "bfd", "sessions"], &["show", "route"]] {
        println!("{}", router.ask(words).unwrap_or_default());
    }
}

fn both_carry(one: &Balancer<'_>, two: &Balancer<'_>) -> Result<()> {
    let (first, second) = (one.flows()?, two.flows()?);
    println!("   flows that came to box 1: {first}, to box 2: {second}");
    ensure(first.min(second) > FLOWS_MIN, || "the router does not spread flows over both boxes".to_owned())
}

/// Slow downloads from nginx over all VIPs.
struct Load {
    curl: Curl,
    downloads: Vec<Request>,
    content: Vec<u8>,
}

impl Load {
    fn start(topology: &Topology) -> Result<Self> {
        let content = servers::publish(&topology.run, "file", FILE_BYTES)?;
        let each = u16::try_from(DOWNLOADS.div_ceil(all_vips().len())).unwrap_or(u16::MAX);
        let mut downloads = Vec::new();
        for (first_port, vip) in (10_000u16..).step_by(1_000).zip(all_vips()) {
            for request in curl::requests(topology, vip, each, first_port) {
                let url = format!("http://{}/file", SocketAddr::new(vip, 80));
                let output = topology.run.directory().join(format!("download-{}", downloads.len()));
                downloads.push(Request { url, output, ..request });
            }
        }
        downloads.truncate(DOWNLOADS);
        let manner = Manner { parallel: downloads.len(), rate: Some(RATE), limit: Duration::from_secs(60) };
        let curl = Curl::start(topology, "downloads", &downloads, &manner)?;
        Ok(Self { curl, downloads, content })
    }

    fn received(&self) -> impl Iterator<Item = u64> {
        self.downloads.iter().map(|download| fs::metadata(&download.output).map_or(0, |file| file.len()))
    }

    fn wait_until_all_run(&self) -> Result<()> {
        wait::until_true("all downloads to begin", STALL, || self.received().all(|bytes| bytes > 0)).map(drop)
    }

    /// Until the downloads have got so many bytes on average.
    fn wait_for(&self, bytes: u64) -> Result<()> {
        let wanted = bytes * self.downloads.len() as u64;
        let reached = || self.received().sum::<u64>() >= wanted;
        wait::until_true("the downloads to go on", STALL, reached).map(drop)
    }

    /// Every one has to be whole.
    fn finish(mut self) -> Result<()> {
        ensure(self.curl.is_running() && self.curl.replied() == 0, || {
            "downloads were over before the router had noticed: they have to run through all of it".to_owned()
        })?;
        let replies = self.curl.finish()?;
        let whole = |download: &&Request| fs::read(&download.output).is_ok_and(|got| got == self.content);
        let broken = self.downloads.len() - self.downloads.iter().filter(whole).count();
        println!("   {} downloads: {broken} broken, every byte compared", self.downloads.len());
        all_good(&replies, &self.downloads)?;
        ensure(broken == 0, || format!("{broken} downloads are not what was served"))
    }
}
