//! Datagrams that the client's kernel sends in fragments: all of them reach the same backend, in whatever mode.

use std::net::IpAddr;

use shunt_api::counters::{Counter, DropReason};
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::settings::{Settings, like_v4, like_v6, vips};
use shunt_tests::shunt::{PATIENCE, Shunt};
use shunt_tests::topology::{Arms, Node, ROUTER, Segment, Shape, Topology};
use shunt_tests::wait;

use crate::bulk::{DATAGRAM, conserved, echo, start_echoes};
use crate::stage::with_shunt_after;
use crate::through_nat;

const QUEUES: u32 = 2;
const DATAGRAMS: u16 = 1000;
const MTU: usize = 1500;
/// Name and last number of the VIPs of each service.
const SERVICES: [(&str, u8); 4] = [("dr", 10), ("ipip by v4", 20), ("ipip by v6", 30), ("nat", 40)];

pub fn run() -> Result<()> {
    let vips_all = SERVICES.into_iter().flat_map(|(_, number)| vips(number)).collect();
    let shape = Shape { arms: Arms::Two, queues: QUEUES, dr: 2, far: 2, vips: vips_all };
    with_shunt_after("fragments", shape, prepare, |topology, shunt| {
        let _servers = (start_echoes(topology)?, through_nat::start_servers(topology)?);
        let mut sent_twice = 0;
        for (name, number) in SERVICES {
            for (vip, (family, header)) in vips(number).into_iter().zip([("v4", 20), ("v6", 48)]) {
                // The answers in mode nat pass Shunt too.
                let ways = if name == "nat" { 2 } else { 1 };
                let later = ways * later_fragments(header);
                sent_twice += echo_all(topology, shunt, &format!("{name} {family}"), vip, later)?;
            }
        }
        report(shunt, sent_twice)
    })
}

/// How many fragments of a datagram have no ports, if its headers up to that of the fragment are so long.
fn later_fragments(header: usize) -> u64 {
    // Each carries a multiple of eight bytes, the first one the UDP header too.
    let fragments = (DATAGRAM + 8).div_ceil((MTU - header) / 8 * 8);
    fragments as u64 - 1
}

/// Every datagram comes back, and so many fragments of each follow their first one. Says how many datagrams were sent
/// twice.
fn echo_all(topology: &Topology, shunt: &Shunt<'_>, label: &str, vip: IpAddr, later: u64) -> Result<u64> {
    let followed = || Ok::<_, Error>(conserved(shunt)?.counter(Counter::FragmentsFollowed));
    let before = followed()?;
    let again = echo(topology, label, vip, DATAGRAMS, 10_000)? as u64;
    let wanted = later * u64::from(DATAGRAMS);
    let (grown, _) = wait::until(&format!("{wanted} later fragments to be counted"), PATIENCE, || {
        let grown = followed()? - before;
        Ok((grown >= wanted).then_some(grown))
    })?;
    // Of what was lost once, any part may have come this far.
    let most = wanted + later * again;
    ensure(grown <= most, || format!("{label}: {grown} later fragments were counted, {most} sent"))?;
    Ok(again)
}

fn prepare(topology: &Topology) -> Result<Settings> {
    through_nat::prepare(topology, MTU as u32)?;
    topology.dr.iter().try_for_each(|node| send_by_route(node, Segment::Back))?;
    topology.far.iter().try_for_each(|node| send_by_route(node, Segment::Far))?;
    let mut settings = Settings::new(topology.lb_nics());
    let ports = &["udp/7"];
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), ports));
    settings.serve("far-by-v4", "ipip", &topology.far, like_v4(), (&vips(20), ports));
    settings.serve("far-by-v6", "ipip", &topology.far, like_v6(), (&vips(30), ports));
    through_nat::serve(&mut settings, topology, 40);
    Ok(settings)
}

/// Backends' answers fit the client's segment, which a router could tell them only at addresses that are theirs alone.
fn send_by_route(node: &Node, segment: Segment) -> Result<()> {
    let ways = [segment.v4(ROUTER).to_string(), segment.v6(ROUTER).to_string()]
        .map(|router| format!("route replace default via {router} mtu {MTU}\n"));
    node.namespace.ip(&ways.concat())
}

/// Both workers followed fragments, and nothing was dropped but those that overtook their first one on the other queue:
/// their datagrams, and no others, were sent twice.
fn report(shunt: &Shunt<'_>, sent_twice: u64) -> Result<()> {
    let stats = shunt.stats()?;
    let by_worker: Vec<_> =
        stats.workers.iter().map(|worker| worker.counter(Counter::FragmentsFollowed)).collect();
    let total = stats.total();
    let orphans = total.dropped(DropReason::FragmentWithoutFirst);
    println!("   later fragments followed, by worker: {by_worker:?}; without a first one: {orphans}");
    ensure(by_worker.len() == QUEUES as usize && by_worker.iter().all(|count| *count > 0), || {
        format!("each of {QUEUES} workers should have followed some")
    })?;
    let most = sent_twice * 2 * later_fragments(48);
    ensure(total.dropped_total() == orphans && orphans <= most, || {
        format!("{sent_twice} datagrams were sent twice, but dropped: {:?}", total.drops)
    })
}
