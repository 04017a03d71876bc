//! Health checks with real nginx: what stops answering gets no new connections in time, what answers again gets some,
//! and what flaps disturbs nobody.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use shunt_api::status::{BackendView, Event};
use shunt_tests::client;
use shunt_tests::curl::{self, Curl, Manner, Request};
use shunt_tests::error::{Result, While, ensure};
use shunt_tests::process::Process;
use shunt_tests::servers;
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Node, Shape, Topology};
use shunt_tests::wait;

use crate::stage::with_shunt_after;

const CHECK: &str = r#"check = { type = "http", interval = "200ms", timeout = "200ms", rise = 2, fall = 3 }"#;
const INTERVAL: Duration = Duration::from_millis(200);
const FALL: u32 = 3;
const RISE: u32 = 2;
/// What a promise may be exceeded by.
const MARGIN: f64 = 1.05;
/// For the programs that this test asks by: `lbctl` and `ss`.
const TOOLS: Duration = Duration::from_millis(60);

/// Backends that are stopped, twice each: the third time within a minute would be flapping.
const VICTIMS: usize = 10;
/// Backends that are not.
const OTHERS: usize = 4;
/// Client ports whose backends are looked up before.
const PORTS: std::ops::Range<u16> = 20_000..20_600;
/// Downloads that last the whole scenario.
const DOWNLOADS: u16 = 200;
const LASTING_S: u64 = 32;
/// Longest time for what follows from a check.
const LIMIT: Duration = Duration::from_secs(5);

fn shape(dr: usize) -> Shape {
    Shape { arms: Arms::Two, queues: 1, dr, far: 0, vips: vips(10).to_vec() }
}

fn settings(topology: &Topology, keys: &'static str) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("web", "dr", &topology.dr, like_v4(), (&vips(10)[..1], &["tcp/80"]));
    settings.pools[0].keys = keys;
    settings
}

/// Stopping nginx moves new connections away in time, starting it brings them back; others notice nothing.
pub fn stop_and_start() -> Result<()> {
    let nginx = RefCell::default();
    let prepare = |topology: &Topology| {
        nginx.replace(start_all(topology, &topology.dr)?);
        Ok(settings(topology, CHECK))
    };
    with_shunt_after("health", shape(VICTIMS + OTHERS), prepare, |topology, shunt| {
        let vip = SocketAddr::new(vips(10)[0], 80);
        let mut nginx = nginx.take();
        wait_all_up(shunt, VICTIMS + OTHERS)?;
        let ports = ports_by_backend(topology, vip)?;
        let downloads = Downloads::start(topology, vip.ip(), DOWNLOADS, LASTING_S)?;
        let (mut away, mut back) = (Vec::new(), Vec::new());
        for number in 0..VICTIMS * 2 {
            let index = number % VICTIMS;
            let node = &topology.dr[index];
            let port = ports[&node.name][number / VICTIMS];
            away.push(stop(topology, &mut nginx, index, (port, vip))?);
            back.push(start(topology, shunt, &mut nginx, index)?);
        }
        for node in &topology.dr[..VICTIMS] {
            let fresh = ports[&node.name][2];
            let (again, _) = ask_until_answered(topology, (fresh, vip), Instant::now())?;
            ensure(again == node.name, || format!("a new connection of {}'s went to {again}", node.name))?;
        }
        report("new connections gone", &away, INTERVAL * FALL)?;
        report("new connections back", &back, INTERVAL * RISE + TOOLS)?;
        let victims: Vec<&str> = topology.dr[..VICTIMS].iter().map(|node| node.name.as_str()).collect();
        downloads.judge(|backend| !victims.contains(&backend))
    })
}

/// Kills nginx on a backend, and asks from a port that was served by it until somebody else answers.
fn stop(
    topology: &Topology,
    nginx: &mut Vec<Process>,
    index: usize,
    flow: (u16, SocketAddr),
) -> Result<Duration> {
    let begin = Instant::now();
    nginx.remove(index).kill()?;
    let (backend, elapsed) = ask_until_answered(topology, flow, begin)?;
    ensure(backend != topology.dr[index].name, || format!("{backend} answered although it was killed"))?;
    Ok(elapsed)
}

/// Starts nginx on a backend again, and waits until it is up.
fn start(topology: &Topology, shunt: &Shunt<'_>, nginx: &mut Vec<Process>, index: usize) -> Result<Duration> {
    let node = &topology.dr[index];
    nginx.insert(index, servers::start_nginx(topology, node)?);
    let begin = Instant::now();
    wait::until(&format!("{} to be up", node.name), LIMIT, || {
        let up = shunt.lbctl(&["get", "backends", &node.name])?.status.success();
        Ok(up.then_some(()))
    })?;
    Ok(begin.elapsed())
}

fn start_all(topology: &Topology, nodes: &[Node]) -> Result<Vec<Process>> {
    nodes.iter().map(|node| servers::start_nginx(topology, node)).collect()
}

/// Prints how long it took, and holds the median against what was promised.
fn report(what: &str, times: &[Duration], promised: Duration) -> Result<()> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let (median, most) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    println!(
        "   {what:<22} after {:.0} ms (median of {}; at most {:.0} ms), promised {:.0} ms",
        median.as_secs_f64() * 1e3,
        times.len(),
        most.as_secs_f64() * 1e3,
        promised.as_secs_f64() * 1e3
    );
    ensure(median <= promised.mul_f64(MARGIN), || format!("{what}: {median:?} is more than {promised:?}"))
}

fn wait_all_up(shunt: &Shunt<'_>, count: usize) -> Result<()> {
    wait::until("all backends to be up", LIMIT, || {
        let backends: Vec<BackendView> = shunt.lbctl_json(&["get", "backends"])?;
        Ok((backends.iter().filter(|backend| backend.state == "reachable").count() == count).then_some(()))
    })?;
    Ok(())
}

/// The client ports whose connections each backend serves.
fn ports_by_backend(topology: &Topology, vip: SocketAddr) -> Result<HashMap<String, Vec<u16>>> {
    let mut by_backend: HashMap<String, Vec<u16>> = HashMap::new();
    let source = topology.client_addresses(vip.ip())[0];
    let asked = client::run_inside(&topology.client, || async move {
        let mut asked = Vec::new();
        for port in PORTS {
            asked.push((port, client::who((source, port).into(), vip).await));
        }
        asked
    })?;
    for (port, backend) in asked {
        by_backend.entry(backend.to(|| format!("ask from port {port}"))?).or_default().push(port);
    }
    Ok(by_backend)
}

/// Asks from one port again and again. Who answered, and how long after `begin`.
fn ask_until_answered(
    topology: &Topology,
    (port, vip): (u16, SocketAddr),
    begin: Instant,
) -> Result<(String, Duration)> {
    let source = SocketAddr::new(topology.client_addresses(vip.ip())[0], port);
    client::run_inside(&topology.client, || async move {
        loop {
            match client::who(source, vip).await {
                Ok(backend) => return Ok((backend, begin.elapsed())),
                Err(error) if begin.elapsed() > LIMIT => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    })?
    .to(|| format!("get an answer from {vip} within {LIMIT:?}"))
}

/// Slow downloads that run while something happens.
pub struct Downloads {
    curl: Curl,
    requests: Vec<Request>,
    content: Vec<u8>,
}

impl Downloads {
    /// Starts them, each to last so many seconds, and returns when all have begun. nginx sets the pace: curl leaves one
    /// of many unread now and then.
    pub fn start(topology: &Topology, vip: IpAddr, count: u16, lasting_s: u64) -> Result<Self> {
        let content = servers::publish(&topology.run, "file", lasting_s * servers::SLOW_RATE)?;
        // What waits in the client's buffer no longer needs the network; a small one keeps packets coming.
        topology.client.sysctl(&[("ipv4/tcp_rmem", "4096 16384 32768")])?;
        let request = |(index, request): (usize, Request)| Request {
            url: format!("http://{}/slow/file", SocketAddr::new(vip, 80)),
            output: topology.run.directory().join(format!("download-{index}")),
            ..request
        };
        let requests: Vec<_> =
            curl::requests(topology, vip, count, 30_000).into_iter().enumerate().map(request).collect();
        let manner = Manner { parallel: requests.len(), rate: None, limit: Duration::from_secs(120) };
        let curl = Curl::start(topology, "downloads", &requests, &manner)?;
        let begun = |request: &Request| std::fs::metadata(&request.output).is_ok_and(|file| file.len() > 0);
        wait::until_true("all downloads to begin", LIMIT * 3, || requests.iter().all(begun))?;
        Ok(Self { curl, requests, content })
    }

    /// They must still run; those of backends that `stays` says yes to must end whole.
    pub fn judge(mut self, stays: impl Fn(&str) -> bool) -> Result<()> {
        let over = self.curl.replies().iter().filter(|reply| reply.exit == 0).count();
        ensure(self.curl.is_running() && over == 0, || {
            format!("{over} downloads were over too early; they have to run through all that happens")
        })?;
        let replies = self.curl.finish()?;
        let whole = |local: Option<SocketAddr>| {
            let request = self.requests.iter().find(|request| Some(request.from) == local);
            request.is_some_and(|request| std::fs::read(&request.output).is_ok_and(|got| got == self.content))
        };
        let judged: Vec<_> = replies.iter().filter(|reply| stays(&reply.backend)).collect();
        let broken = judged.iter().filter(|reply| !(reply.is_good() && whole(reply.local))).count();
        println!(
            "   {} downloads on backends that stayed: {broken} broken; {} others",
            judged.len(),
            replies.len() - judged.len()
        );
        ensure(judged.len() >= 20, || format!("{} downloads are too few to show it", judged.len()))?;
        ensure(broken == 0, || format!("{broken} downloads broke on backends that stayed"))
    }
}

/// Below the interval of the checks, so that these see the backend now up, now down.
const FLAPPING: Duration = Duration::from_millis(50);
const FLAPPING_CHECK: &str =
    r#"check = { type = "tcp", interval = "130ms", timeout = "100ms", rise = 1, fall = 1 }"#;
const FLAPPING_TIME: Duration = Duration::from_secs(60);
/// Lines that somebody reads who wants to know what happened.
const EVENTS_MAX: usize = 20;

/// A backend that comes and goes ten times a second for a minute moves no flow of the others, and fills no log.
pub fn flapping() -> Result<()> {
    let nginx = RefCell::default();
    let prepare = |topology: &Topology| {
        nginx.replace(start_all(topology, &topology.dr[1..])?);
        Ok(settings(topology, FLAPPING_CHECK))
    };
    with_shunt_after("flapping", shape(5), prepare, |topology, shunt| {
        let vip = SocketAddr::new(vips(10)[0], 80);
        let (flapping, others) = topology.dr.split_first().expect("there are five");
        wait_all_up(shunt, others.len())?;
        let downloads = Downloads::start(topology, vip.ip(), 60, FLAPPING_TIME.as_secs() + 8)?;
        let times = flap(flapping, vip, FLAPPING_TIME)?;
        let events: Vec<Event> = shunt.lbctl_json(&["events"])?;
        let told: Vec<_> = events.iter().filter(|event| event.subject.contains(&flapping.name)).collect();
        println!("   {times} times up and down in {FLAPPING_TIME:?}: {} events", told.len());
        let last = told.last().map(|event| event.to_string()).unwrap_or_default();
        println!("   the last: {last}");
        ensure(times >= 400, || format!("{times} times in a minute is too far from ten times a second"))?;
        ensure((4..=EVENTS_MAX).contains(&told.len()), || format!("{} events: {told:?}", told.len()))?;
        ensure(last.contains("flaps"), || format!("the last event does not say that it flaps: {last}"))?;
        downloads.judge(|backend| backend != flapping.name)
    })
}

/// Opens and closes the service on a backend for so long; how often.
fn flap(node: &Node, vip: SocketAddr, time: Duration) -> Result<u32> {
    let flapped = node.namespace.inside(|| {
        let begin = Instant::now();
        let mut times = 0;
        while begin.elapsed() < time {
            let listener = TcpListener::bind(vip)?;
            wait::pass(FLAPPING);
            drop(listener);
            wait::pass(FLAPPING);
            times += 1;
        }
        Ok::<_, std::io::Error>(times)
    })?;
    flapped.to(|| format!("listen on {vip} in {}", node.name))
}
