//! Routes to VIPs in the kernel's table, as a routing daemon finds them: they follow the backends, the dataplane and
//! the control plane.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use shunt_api::status::{ControlStatus, Event};
use shunt_tests::command;
use shunt_tests::error::{Result, ensure};
use shunt_tests::process::Process;
use shunt_tests::servers;
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::{PATIENCE, Shunt};
use shunt_tests::topology::{Arms, Shape, Topology};
use shunt_tests::wait;

use crate::stage::{request, with_shunt_after};

/// Backends of the service that loses them all; the others serve the second.
const VICTIMS: usize = 2;
const CHECK: &str = r#"check = { type = "http", interval = "200ms", timeout = "100ms", rise = 2, fall = 3 }"#;
/// Three checks in a row, or a question to the dataplane, take less than a second; the rest is for a busy machine.
const LIMIT: Duration = Duration::from_secs(5);
/// Starting, attaching to the NICs and the first checks.
const RETURN_LIMIT: Duration = Duration::from_secs(10);
const REQUESTS: u16 = 200;

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: VICTIMS + 1, far: 0, vips: all() };
    let nginx = RefCell::default();
    let prepare = |topology: &Topology| {
        let started: Result<Vec<_>> =
            topology.dr.iter().map(|node| servers::start_nginx(topology, node)).collect();
        nginx.replace(started?);
        Ok(settings(topology))
    };
    with_shunt_after("routes", shape, prepare, |topology, shunt| {
        becomes(topology, "all routes", &all(), RETURN_LIMIT)?;
        let mut nginx = nginx.take();
        without_backends(topology, shunt, &mut nginx)?;
        without_dataplane(topology, shunt)?;
        without_control_plane(topology, shunt)
    })
}

fn all() -> Vec<IpAddr> {
    [10, 20].into_iter().flat_map(vips).collect()
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    let (victims, others) = topology.dr.split_at(VICTIMS);
    settings.serve("web", "dr", victims, like_v4(), (&vips(10), &["tcp/80"]));
    settings.serve("other", "dr", others, like_v4(), (&vips(20), &["tcp/80"]));
    settings.pools.iter_mut().for_each(|pool| pool.keys = CHECK);
    settings.tables = "[announce]\nroutes = true\n";
    settings
}

/// Hosts that the table has routes to.
fn announced(topology: &Topology) -> Result<BTreeSet<IpAddr>> {
    let mut found = BTreeSet::new();
    for family in ["-4", "-6"] {
        let mut show = topology.lb.command("ip");
        // It fails as long as nobody has put anything into the table.
        let output =
            command::output(show.args([family, "-o", "route", "show", "table", "83", "proto", "83"]))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        found.extend(said.split_whitespace().filter_map(|word| word.parse::<IpAddr>().ok()));
    }
    Ok(found)
}

/// Waits until exactly these are announced, and prints how long that took.
fn becomes(topology: &Topology, what: &str, wanted: &[IpAddr], limit: Duration) -> Result<()> {
    let wanted: BTreeSet<_> = wanted.iter().copied().collect();
    let reached = || Ok((announced(topology)? == wanted).then_some(()));
    let ((), took) = wait::until(&format!("{what}: routes to {wanted:?}"), limit, reached)?;
    println!("   {what}: {} routes after {:.0} ms", wanted.len(), took.as_secs_f64() * 1e3);
    Ok(())
}

/// An event about each of the VIPs that says so.
fn told(shunt: &Shunt<'_>, text: &str, vips: &[IpAddr]) -> Result<()> {
    let events: Vec<Event> = shunt.lbctl_json(&["events"])?;
    for vip in vips {
        let about = format!("route {vip}/");
        let last = events.iter().rev().find(|event| event.subject.starts_with(&about));
        ensure(last.is_some_and(|event| event.text == text), || {
            format!("`lbctl events` should say at last that {about}… is {text}: {last:?}")
        })?;
    }
    let shown = events.iter().rev().find(|event| event.text == text);
    println!("     {}", shown.map(Event::to_string).unwrap_or_default());
    Ok(())
}

/// A VIP all of whose backends are down has no route; the others keep theirs.
fn without_backends(topology: &Topology, shunt: &Shunt<'_>, nginx: &mut Vec<Process>) -> Result<()> {
    nginx.drain(..VICTIMS).try_for_each(Process::kill)?;
    becomes(topology, "backends down", &vips(20), LIMIT)?;
    told(shunt, "withdrawn", &vips(10))?;
    request(topology, "the other VIP", vips(20)[0], REQUESTS, 10_000)?;
    for node in &topology.dr[..VICTIMS] {
        nginx.push(servers::start_nginx(topology, node)?);
    }
    becomes(topology, "backends up again", &all(), LIMIT)?;
    told(shunt, "announced", &vips(10))?;
    request(topology, "the VIP again", vips(10)[0], REQUESTS, 12_000).map(drop)
}

/// Nothing is announced while the dataplane is dead.
fn without_dataplane(topology: &Topology, shunt: &mut Shunt<'_>) -> Result<()> {
    shunt.kill_dataplane()?;
    becomes(topology, "dataplane killed", &[], LIMIT)?;
    told(shunt, "withdrawn", &all())?;
    shunt.start_dataplane()?;
    becomes(topology, "dataplane started", &all(), RETURN_LIMIT)?;
    told(shunt, "announced", &all())?;
    shunt.wait_healthy(PATIENCE)?;
    request(topology, "all well again", vips(10)[1], REQUESTS, 14_000).map(drop)
}

/// A control plane that is stopped withdraws, while the dataplane forwards on; one that is killed leaves the routes to
/// the next, which takes them over without a gap.
fn without_control_plane(topology: &Topology, shunt: &mut Shunt<'_>) -> Result<()> {
    shunt.end_controlplane();
    becomes(topology, "control plane stopped", &[], LIMIT)?;
    shunt.controlplane_ended()?;
    request(topology, "without it", vips(10)[0], REQUESTS, 16_000)?;
    shunt.start_controlplane()?;
    becomes(topology, "control plane started", &all(), RETURN_LIMIT)?;
    shunt.wait_healthy(PATIENCE)?;

    shunt.kill_controlplane()?;
    shunt.start_controlplane()?;
    let mut looks = 0;
    let found = wait::until("the new control plane to find the routes", PATIENCE, || {
        let now = announced(topology)?.len();
        ensure(now == all().len(), || format!("a new control plane leaves {now} routes for a while"))?;
        looks += 1;
        // The socket may not answer yet.
        let status = shunt.lbctl_json::<serde_json::Value>(&["status"]);
        let control = status.ok().and_then(|status| status.get("controlplane").cloned());
        let control = control.and_then(|control| serde_json::from_value::<ControlStatus>(control).ok());
        let present = control.and_then(|control| control.routes).map(|routes| routes.present);
        Ok((present == Some(all().len())).then_some(()))
    });
    println!("   control plane killed and started: all routes there each of {looks} times");
    found?;
    shunt.wait_healthy(PATIENCE).map(drop)
}
