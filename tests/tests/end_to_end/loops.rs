//! A backend of mode `dr` that does not have the VIP and routes its packets back to the load balancer: each is
//! dropped when it first comes back, and the status says what is wrong.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shunt_api::counters::{Counter, DropReason};
use shunt_api::snapshot::Protocol;
use shunt_tests::error::{Result, ensure};
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, LB, Node, Segment, Shape, Topology};
use shunt_tests::wait;

use crate::observe::{attempt, counted, counting};
use crate::stage::{ECHO_PORT, dataplane_status, start_servers, with_shunt};

/// Of each protocol and family; about half of them go to the backend that loops.
const ATTEMPTS: u16 = 100;
/// Shorter than the second after which TCP sends its SYN again: each attempt is one packet.
const SILENCE: Duration = Duration::from_millis(500);

/// Workers' notices are read four times a second.
const NOTICED: Duration = Duration::from_secs(3);

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 2, far: 0, vips: vips(10).to_vec() };
    with_shunt("loops", shape, settings, |topology, shunt| {
        let _servers = start_servers(topology)?;
        misconfigure(&topology.dr[0])?;
        for (vip, first_port) in vips(10).into_iter().zip([10_000, 20_000]) {
            for to in [(Protocol::Tcp, 80), (Protocol::Udp, ECHO_PORT)] {
                once_each(topology, shunt, vip, to, first_port)?;
            }
        }
        told(shunt, &topology.dr[0])
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), &["tcp/80", "udp/7"]));
    settings
}

/// Takes the VIPs from a backend and makes it a router whose next hop is the load balancer.
fn misconfigure(node: &Node) -> Result<()> {
    node.namespace.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
    let without = |vip: IpAddr| format!("addr del {vip}/{} dev lo\n", if vip.is_ipv4() { 32 } else { 128 });
    let (v4, v6) = (Segment::Back.v4(LB), Segment::Back.v6(LB));
    let routes = format!("route replace default via {v4}\nroute replace default via {v6}\n");
    node.namespace.ip(&(vips(10).map(without).concat() + &routes))
}

/// As many packets are dropped as attempts got no answer: none goes round twice, let alone until its TTL ends it.
fn once_each(
    topology: &Topology,
    shunt: &Shunt<'_>,
    vip: IpAddr,
    (protocol, port): (Protocol, u16),
    first_port: u16,
) -> Result<()> {
    let to = (protocol, SocketAddr::new(vip, port));
    let (attempts, grown) = counting(shunt, || {
        attempt(topology, to, &topology.client_addresses(vip), (ATTEMPTS, first_port), SILENCE)
    })?;
    let (looped, received) = (grown.dropped(DropReason::Looped), grown.counter(Counter::RxPackets));
    println!(
        "   {vip} {protocol}/{port}: {} of {ATTEMPTS} went to the backend that sends them back, {looped} dropped as looped, {received} packets received in all",
        attempts.silent
    );
    ensure(attempts.silent > 0 && attempts.answered > 0 && attempts.refused == 0, || {
        format!("one of two backends should answer, the other not: {attempts:?}")
    })?;
    counted("looped", looped, attempts.silent)
}

fn told(shunt: &Shunt<'_>, node: &Node) -> Result<()> {
    let mut problems = Vec::new();
    let names = |problem: &String| {
        let backend = format!("backend {} ", node.name);
        let rest = problem.replace("backend", "");
        problem.contains(&backend) && (rest.contains("back") || rest.contains("looped"))
    };
    let told = wait::until("the status to name the backend that sends packets back", NOTICED, || {
        problems = dataplane_status(shunt)?.problems;
        Ok(problems.iter().find(|problem| names(problem)).cloned())
    });
    let (problem, _) = told.inspect_err(|_| println!("   problems: {problems:?}"))?;
    println!("   lbctl status: {problem}");
    let output = shunt.lbctl(&["status"])?;
    ensure(output.status.code() == Some(1), || format!("`lbctl status` finds all well: {output:?}"))
}
