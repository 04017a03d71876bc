//! A backend is drained under load, with `lbctl` and by its weight in the file: nothing breaks, and it empties.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use shunt_api::status::BackendView;
use shunt_tests::curl::{self, Curl, Manner};
use shunt_tests::error::{Result, While, ensure};
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Shape, Topology};
use shunt_tests::wait;

use crate::health::Downloads;
use crate::stage::{all_good, start_servers, with_shunt_after};

const BACKENDS: usize = 5;
const DOWNLOADS: u16 = 100;
const LASTING_S: u64 = 8;
/// Requests of the load that runs beside the downloads, for each VIP.
const REQUESTS: u16 = 10_000;
/// Flows that are over are forgotten soon, so that emptiness is seen within the test.
const TIMEOUTS: &str = "[timeouts]\ntcp_fin = \"1s\"\ntcp_reset = \"1s\"\n";
/// Longest time until a drained backend has no flow, the downloads' own and that of the sweep of the flow table.
const LIMIT: &str = "60s";

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("web", "dr", &topology.dr, like_v4(), (&vips(10), &["tcp/80"]));
    settings.pools[0].keys = "check = { type = \"tcp\", interval = \"500ms\", timeout = \"400ms\" }";
    settings.tables = TIMEOUTS;
    settings
}

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: BACKENDS, far: 0, vips: vips(10).to_vec() };
    let servers = RefCell::default();
    let prepare = |topology: &Topology| {
        servers.replace(start_servers(topology)?);
        Ok(settings(topology))
    };
    with_shunt_after("drain", shape, prepare, |topology, shunt| {
        let [vip, other] = vips(10);
        let downloads = Downloads::start(topology, vip, DOWNLOADS, LASTING_S)?;
        let requests = curl::requests(topology, other, REQUESTS, 10_000);
        let load = Curl::start(topology, "load", &requests, &Manner { parallel: 4, ..Manner::default() })?;
        let begin = Instant::now();
        let first: serde_json::Value = shunt.lbctl_json(&["drain", "dr1"])?;
        let open = first["left"]["open"].as_u64().unwrap_or(0);
        ensure(open > 0, || format!("dr1 serves no flow: {first}"))?;
        let mut draining = shunt.lbctl_command()?;
        let draining = draining.args(["drain", "dr1", "--timeout", LIMIT]).stdout(Stdio::piped()).spawn();
        let draining = draining.to(|| "start `lbctl drain`".to_owned())?;
        let at = load.replied();
        wait::until_true("the load to go on", Duration::from_secs(20), || load.replied() >= at + 1_000)?;
        no_new_flow(shunt, &load, at + 100)?;
        downloads.judge(|_| true)?;
        let output = draining.wait_with_output().to(|| "wait for `lbctl drain`".to_owned())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        println!(
            "   {} flows at first, after {:.1} s: {}",
            open,
            begin.elapsed().as_secs_f64(),
            said.trim().replace('\n', ", ")
        );
        ensure(output.status.success() && said.contains("\n0 flows left"), || {
            format!("`lbctl drain` ended with {}: {said}", output.status)
        })?;
        survives_a_restart(shunt)?;
        all_good(&load.finish()?, &requests)?;
        println!("   0 of {REQUESTS} requests beside it failed");
        back(topology, shunt, SocketAddr::new(vip, 80))
    })
}

fn backend(shunt: &Shunt<'_>, name: &str) -> Result<BackendView> {
    let all: Vec<BackendView> = shunt.lbctl_json(&["get", "backends"])?;
    let found = all.into_iter().find(|backend| backend.name == name);
    found.ok_or_else(|| shunt_tests::error::Error::Wrong(format!("there is no backend {name}")))
}

/// From a reply on, none came from the drained backend.
fn no_new_flow(shunt: &Shunt<'_>, load: &Curl, from: usize) -> Result<()> {
    let replies = load.replies();
    let late = replies[from..].iter().filter(|reply| reply.backend == "dr1").count();
    println!("   {} new connections while dr1 drains: {late} on it", replies.len() - from);
    ensure(late == 0, || format!("{late} new connections went to dr1: {:?}", backend(shunt, "dr1")))
}

/// The control plane remembers whom an operator drained.
fn survives_a_restart(shunt: &mut Shunt<'_>) -> Result<()> {
    shunt.kill_controlplane()?;
    shunt.start_controlplane()?;
    shunt.wait_healthy(shunt_tests::shunt::PATIENCE)?;
    let state = backend(shunt, "dr1")?.state;
    ensure(state == "draining", || format!("after a restart of the control plane dr1 is {state}"))
}

/// `lbctl undrain` brings it back, and weight 0 in the file does what `lbctl drain` did.
fn back(topology: &Topology, shunt: &mut Shunt<'_>, vip: SocketAddr) -> Result<()> {
    let undrained = shunt.lbctl(&["undrain", "dr1"])?;
    ensure(undrained.status.success(), || format!("`lbctl undrain dr1`: {undrained:?}"))?;
    let shares = |label: &str, first_port| crate::stage::request(topology, label, vip.ip(), 500, first_port);
    let with = shares("after undrain", 40_000)?;
    ensure(with.count("dr1") > 0, || "dr1 gets no new connection after `lbctl undrain`".to_owned())?;
    let mut weightless = settings(topology);
    weightless.pools[0].backends[0].weight = 0;
    shunt.apply(&weightless)?;
    let without = shares("with weight 0", 45_000)?;
    ensure(without.count("dr1") == 0, || "dr1 gets new connections with weight 0".to_owned())
}
