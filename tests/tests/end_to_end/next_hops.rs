//! The way to the backends changes while Shunt runs: MAC addresses, routes, neighbours, and the NIC itself.

use std::net::IpAddr;
use std::time::Duration;

use shunt_api::counters::DropReason;
use shunt_api::status::{DataplaneStatus, Flows, NextHopStatus};
use shunt_tests::error::{Result, ensure};
use shunt_tests::namespace::Namespace;
use shunt_tests::settings::{Backend, Settings, like_v4, vips};
use shunt_tests::shunt::{PATIENCE, Shunt};
use shunt_tests::topology::{Arms, ROUTER, Segment, Shape, Topology};
use shunt_tests::wait;

use crate::stage::{dataplane_status, request, start_servers, with_shunt};

const REQUESTS: u16 = 200;
/// A neighbour or a route that changed must be followed at once, not when something times out.
const FOLLOW_LIMIT: Duration = Duration::from_secs(1);
/// A NIC that is back is looked for four times a second.
const RETURN_LIMIT: Duration = Duration::from_secs(2);

pub fn run() -> Result<()> {
    let shape = Shape {
        arms: Arms::Two,
        queues: 1,
        dr: 2,
        far: 2,
        vips: [10, 20].into_iter().flat_map(vips).collect(),
    };
    with_shunt("next_hops", shape, settings, |topology, shunt| {
        let _servers = start_servers(topology)?;
        let mut port = 10_000;
        let mut all_answered = |change: &str| {
            [10, 20].into_iter().flat_map(vips).try_for_each(|vip| {
                port += REQUESTS;
                request(topology, &format!("{vip} {change}"), vip, REQUESTS, port).map(drop)
            })
        };
        mac_changes(topology, shunt)?;
        all_answered("new MACs")?;
        route_moves(topology, shunt)?;
        all_answered("other NIC")?;
        nobody_there(topology, shunt)?;
        all_answered("without the dead one")?;
        nic_returns(topology, shunt)?;
        all_answered("new NIC")
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), &["tcp/80"]));
    settings.serve("far", "ipip", &topology.far, like_v4(), (&vips(20), &["tcp/80"]));
    settings
}

/// A backend and the router get other MAC addresses and say so, as a machine that takes over an address does.
fn mac_changes(topology: &Topology, shunt: &Shunt<'_>) -> Result<()> {
    let router_nic = Segment::Back.name();
    change_mac(&topology.dr[0].namespace, "eth0", "02:00:00:00:aa:01")?;
    change_mac(&topology.router, router_nic, "02:00:00:00:aa:02")?;
    let followed = wait::until_true("both MAC addresses to be followed", FOLLOW_LIMIT, || {
        let has = |address: IpAddr, mac: &str| {
            hop(shunt, address)
                .is_ok_and(|hop| hop.resolved.is_some_and(|resolved| resolved.mac.to_string() == mac))
        };
        has(topology.dr[0].v4.into(), "02:00:00:00:aa:01")
            && has(topology.far[0].v4.into(), "02:00:00:00:aa:02")
    })?;
    println!("   MAC addresses of a backend and of the router followed after {:.0} ms", ms(followed));
    Ok(())
}

fn change_mac(namespace: &Namespace, nic: &str, mac: &str) -> Result<()> {
    namespace.sysctl(&[(&format!("ipv4/conf/{nic}/arp_notify"), "1")])?;
    namespace.ip(&format!("link set {nic} address {mac}\n"))
}

/// The far backends are now reached by the NIC towards the clients.
fn route_moves(topology: &Topology, shunt: &Shunt<'_>) -> Result<()> {
    topology.lb.ip(&format!("route replace 10.77.3.0/24 via {}\n", Segment::Front.v4(ROUTER)))?;
    let by_front = || {
        let hop = hop(shunt, topology.far[0].v4.into());
        hop.is_ok_and(|hop| hop.resolved.is_some_and(|resolved| resolved.nic == Segment::Front.name()))
    };
    let followed = wait::until_true("the route to be followed", FOLLOW_LIMIT, by_front)?;
    println!("   a route that moved to the other NIC followed after {:.0} ms", ms(followed));
    Ok(())
}

/// A backend that does not answer, and one that direct routing cannot reach, are counted drops with those
/// reasons and named by the status; without them all is well again.
fn nobody_there(topology: &Topology, shunt: &mut Shunt<'_>) -> Result<()> {
    let before = settings(topology);
    let mut broken = before.clone();
    let dead: IpAddr = Segment::Back.v4(77).into();
    broken.pools[0].backends.push(Backend { name: "dead".to_owned(), address: dead, weight: 1 });
    broken.pools[0].backends.push(Backend::of(&topology.far[0], like_v4()));
    shunt.apply(&broken)?;
    let requests = shunt_tests::curl::requests(topology, vips(10)[0], REQUESTS, 40_000);
    let manner = shunt_tests::curl::Manner { limit: Duration::from_millis(300), ..Default::default() };
    let replies = shunt_tests::curl::Curl::start(topology, "dead", &requests, &manner)?.finish()?;
    let lost = replies.iter().filter(|reply| !reply.is_good()).count();
    let drops = shunt.stats()?.total();
    let reasons = [DropReason::NeighborUnresolved, DropReason::BackendNotOnLink];
    let counted = reasons.map(|reason| drops.dropped(reason));
    println!(
        "   {lost} of {REQUESTS} requests went to a backend out of reach, dropped packets by reason: {counted:?}"
    );
    ensure(lost > 0 && counted.iter().all(|&count| count > 0), || {
        "nothing was dropped, or not for these reasons".into()
    })?;
    let problems = dataplane_status(shunt)?.problems;
    ensure(problems.len() == 2 && problems[0].contains("dead"), || format!("problems: {problems:?}"))?;
    broken = before.clone();
    broken.pools[0].backends.iter_mut().for_each(|backend| backend.weight = 0);
    shunt.apply(&broken)?;
    let problems = dataplane_status(shunt)?.problems;
    ensure(problems.len() == 1 && problems[0].contains("takes no new connection"), || {
        format!("{problems:?}")
    })?;
    shunt.apply(&before)?;
    shunt.wait_healthy(PATIENCE).map(drop)
}

/// The NIC towards the backends vanishes and comes back with another index. The dataplane needs nobody's help
/// for that.
fn nic_returns(topology: &Topology, shunt: &mut Shunt<'_>) -> Result<()> {
    topology.lb.ip(&format!("route replace 10.77.3.0/24 via {}\n", Segment::Back.v4(ROUTER)))?;
    let before = remembered(shunt)?;
    shunt.kill_controlplane()?;
    topology.unplug_lb(Segment::Back)?;
    let forwards = || dataplane_status(shunt).is_ok_and(|status| status.generation.is_some());
    wait::until_true("the loss of the NIC to be noticed", PATIENCE, || !forwards())?;
    topology.plug_lb(Segment::Back)?;
    let back = wait::until_true("the NIC to be used again", RETURN_LIMIT, forwards)?;
    let after = remembered(shunt)?;
    println!(
        "   forwarding {:.0} ms after a lost NIC came back, without a control plane, with {after} of {before} flows",
        ms(back)
    );
    ensure(before > 0 && after == before, || "flows were forgotten".to_owned())?;
    shunt.start_controlplane()?;
    shunt.wait_healthy(PATIENCE).map(drop)
}

/// Connections that are over but not forgotten yet: these are for two minutes.
fn remembered(shunt: &Shunt<'_>) -> Result<usize> {
    let flows: Flows = shunt.lbctl_json(&["flows", "--limit", "100000"])?;
    Ok(flows.flows.iter().filter(|flow| flow.state == "closing").count())
}

fn hop(shunt: &Shunt<'_>, address: IpAddr) -> Result<NextHopStatus> {
    let DataplaneStatus { next_hops, .. } = dataplane_status(shunt)?;
    let found = next_hops.into_iter().find(|hop| hop.address == address);
    found.ok_or_else(|| shunt_tests::error::Error::Wrong(format!("{address} is no next hop")))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
