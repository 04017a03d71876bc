//! Thousands of checks through the service: what they cost the control plane and how punctual they are.
//!
//! All backends are one machine: every address of a prefix is tunnelled to it, and nginx has the VIP. To the load
//! balancer they are thousands, each with a way of its own.

use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use shunt_api::status::{BackendView, ChecksStatus, ControlStatus};
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::process::Process;
use shunt_tests::servers;
use shunt_tests::settings::{Backend, Pool, Service, Settings, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, ROUTER, Segment, Shape, Topology};
use shunt_tests::wait;

use crate::stage::with_shunt_after;

const CHECKS: u32 = 5_000;
const KEYS: &str = r#"check = { type = "tcp", interval = "2s" }"#;
/// All addresses are the far backend's.
const PREFIX: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 0);
const LASTS: Duration = Duration::from_secs(20);
/// Until all have been asked once, on a busy machine.
const FIRST_ROUND: Duration = Duration::from_secs(30);
/// Share of the interval by which 99 of 100 checks start late at most.
const LATE_MAX: f64 = 0.05;
/// Unit of the times in `/proc/PID/stat`: a hundredth of a second on all of Linux's platforms.
const TICKS_PER_SECOND: f64 = 100.0;

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 0, far: 1, vips: vips(10)[..1].to_vec() };
    let servers = RefCell::default();
    let prepare = |topology: &Topology| {
        let (far, node) = (Segment::Far.v4(101), Segment::Back.v4(ROUTER));
        topology.lb.ip(&format!("route add {PREFIX}/16 via {node}\n"))?;
        topology.router.ip(&format!("route add {PREFIX}/16 via {far}\n"))?;
        servers.replace(vec![servers::start_nginx(topology, &topology.far[0])?] as Vec<Process>);
        Ok(settings(topology))
    };
    with_shunt_after("checks", shape, prepare, |_, shunt| {
        let pid = shunt.controlplane_pid().ok_or_else(|| Error::Wrong("no control plane runs".to_owned()))?;
        wait::until("all backends to be asked", FIRST_ROUND, || {
            Ok((checks(shunt)?.made >= u64::from(CHECKS)).then_some(()))
        })?;
        let (before, cpu, begin) = (checks(shunt)?, cpu_seconds(pid)?, Instant::now());
        wait::pass(LASTS);
        let elapsed = begin.elapsed().as_secs_f64();
        let share = (cpu_seconds(pid)? - cpu) / elapsed;
        let after = checks(shunt)?;
        println!(
            "   {CHECKS} checks every 2 s: {:.0} probes a second, {:.1} % of a core; 99 % start at most {:.1} % of the \
             interval late, {} left out",
            (after.made - before.made) as f64 / elapsed,
            100.0 * share,
            100.0 * after.late_p99,
            after.left_out,
        );
        ensure(after.late_p99 <= LATE_MAX, || {
            format!("checks are late by {} of their interval", after.late_p99)
        })?;
        let backends: Vec<BackendView> = shunt.lbctl_json(&["get", "backends"])?;
        let not_up = backends.iter().find(|backend| backend.state != "reachable");
        ensure(not_up.is_none() && after.own_faults == before.own_faults, || {
            format!("{} checks could not be made; {not_up:?}", after.own_faults - before.own_faults)
        })
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    let backend = |n: u32| Backend {
        name: format!("b{n}"),
        address: IpAddr::V4(Ipv4Addr::from_bits(PREFIX.to_bits() + 1 + n)),
        weight: 1,
    };
    let backends = (0..CHECKS).map(backend).collect();
    settings.pools.push(Pool { name: "many".to_owned(), mode: "ipip", backends, keys: KEYS });
    let vips = topology.shape.vips.clone();
    let (name, pool) = ("many".to_owned(), "many".to_owned());
    settings.services.push(Service { name, vips, ports: vec!["tcp/80"], pool, keys: "" });
    settings
}

fn checks(shunt: &Shunt<'_>) -> Result<ChecksStatus> {
    // Its exit code tells of problems, which are not looked at here.
    let output = shunt.lbctl(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(std::io::Error::from)
        .to(|| "read the status".into())?;
    let control: ControlStatus = serde_json::from_value(status["controlplane"].clone())
        .map_err(std::io::Error::from)
        .to(|| "read the control plane's status".into())?;
    control.checks.ok_or_else(|| Error::Wrong("there are no checks".to_owned()))
}

/// User and system time of a process (proc(5)).
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).to(|| "read a process's times".to_owned())?;
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 =
        after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}
