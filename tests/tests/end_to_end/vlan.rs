//! Clients whose frames are tagged: what Shunt forwards leaves untagged, and its own answers and the replies of mode
//! `nat` leave with the client's tag.
//!
//! Backends on VLANs are not shown here: Shunt learns their tags from the kernel's VLAN devices, which a kernel without
//! 802.1Q does not have. `dataplane/src/neighbor` has tests of what it makes of such devices.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use shunt_api::counters::Counter;
use shunt_tests::client;
use shunt_tests::error::{Result, ensure};
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Segment, Shape, Topology};
use shunt_tests::vlan::{Seen, Vlan};

use crate::bulk::{conserved, echo, known_mtu, upload};
use crate::stage::{request, request_udp, start_servers, with_shunt_after};
use crate::through_nat;

const DR: u8 = 10;
const IPIP: u8 = 20;
const NAT: u8 = 40;
const MTU: u32 = 1500;
/// Bytes of a tunnel's header.
const OUTER: u32 = 20;
const REQUESTS: u16 = 200;
const PINGS: &str = "50";
/// Nobody listens there.
const UNLISTED: u16 = 81;
/// A refusal that takes longer did not come from Shunt.
const AT_ONCE: Duration = Duration::from_millis(500);

pub fn run() -> Result<()> {
    let vips_all = [DR, IPIP, NAT].into_iter().flat_map(vips).collect();
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 2, far: 2, vips: vips_all };
    with_shunt_after("vlan", shape, prepare, |topology, shunt| {
        let vlan = Vlan::of_front(topology)?;
        let _servers = (start_servers(topology)?, through_nat::start_servers(topology)?);
        for (index, vip) in (0..).zip([DR, IPIP].into_iter().flat_map(vips)) {
            let first_port = 10_000 + index * 1_000;
            request(topology, &vip.to_string(), vip, REQUESTS, first_port)?;
            request_udp(topology, &format!("{vip} udp"), vip, REQUESTS, first_port)?;
        }
        for vip in vips(DR) {
            ping(topology, vip)?;
            refused(topology, vip)?;
        }
        for vip in vips(IPIP) {
            told_what_fits(topology, vip)?;
        }
        // By now the client knows what fits the tunnels, and makes its fragments so.
        for vip in [DR, IPIP, NAT].into_iter().flat_map(vips) {
            echo(topology, &vip.to_string(), vip, REQUESTS, 20_000)?;
        }
        for vip in vips(NAT) {
            through_nat::request(topology, vip, REQUESTS)?;
            println!("   {vip:<20} {REQUESTS} of {REQUESTS} answered through nat");
        }
        all_tagged(shunt, &vlan)
    })
}

fn prepare(topology: &Topology) -> Result<Settings> {
    topology.set_mtu(Segment::Back, MTU)?;
    topology.set_mtu(Segment::Far, MTU)?;
    through_nat::prepare(topology, MTU)?;
    let mut settings = Settings::new(topology.lb_nics());
    let ports = &["tcp/80", "tcp/7", "udp/7"];
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(DR), ports));
    settings.serve("far", "ipip", &topology.far, like_v4(), (&vips(IPIP), ports));
    through_nat::serve(&mut settings, topology, NAT);
    Ok(settings)
}

fn ping(topology: &Topology, vip: IpAddr) -> Result<()> {
    let said =
        topology.client.run("ping", &["-q", "-c", PINGS, "-i", "0.01", "-W", "1", &vip.to_string()])?;
    ensure(said.contains(" 0% packet loss"), || format!("pings of {vip} were lost: {said}"))?;
    println!("   {vip:<20} {PINGS} of {PINGS} pings answered");
    Ok(())
}

/// A connection to a port without a service is reset.
fn refused(topology: &Topology, vip: IpAddr) -> Result<()> {
    let start = Instant::now();
    let asked = client::run_inside(&topology.client, || async move {
        client::ask_tcp(topology.client_addresses(vip)[0], (vip, UNLISTED).into()).await
    })?;
    let took = start.elapsed();
    let kind = asked.as_ref().err().map(io::Error::kind);
    ensure(kind == Some(io::ErrorKind::ConnectionRefused) && took < AT_ONCE, || {
        format!("port {UNLISTED} of {vip} should refuse at once, after {took:?}: {asked:?}")
    })?;
    println!("   {vip:<20} port {UNLISTED} refuses after {:.1} ms", took.as_secs_f64() * 1e3);
    Ok(())
}

fn told_what_fits(topology: &Topology, vip: IpAddr) -> Result<()> {
    let took = upload(topology, vip)?.as_secs_f64();
    let known = known_mtu(topology, vip)?;
    println!("   {vip:<20} 10 MB in {took:.1} s, the client knows {known}");
    ensure(known == MTU - OUTER, || format!("the client should know {}", MTU - OUTER))
}

/// No frame between the switch and Shunt's NIC was without the tag, in either direction, and Shunt sent each kind
/// of answer.
fn all_tagged(shunt: &Shunt<'_>, vlan: &Vlan) -> Result<()> {
    let total = conserved(shunt)?;
    let kinds =
        [Counter::EchoReplies, Counter::ResetReplies, Counter::TooBigReplies, Counter::NatFlowsCreated];
    let answers = kinds.map(|kind| total.counter(kind));
    ensure(answers.iter().all(|&count| count > 0), || format!("{kinds:?} counted {answers:?}"))?;
    let Seen { to_box_tagged, to_box_other, from_box_tagged, from_box_other } = vlan.seen()?;
    println!(
        "   frames with the tag: {to_box_tagged} to Shunt's NIC, {from_box_tagged} from it; \
         without: {to_box_other} and {from_box_other}"
    );
    ensure(to_box_other == 0 && from_box_other == 0, || "some frames were not tagged".to_owned())?;
    ensure(to_box_tagged > from_box_tagged && from_box_tagged > answers.iter().sum(), || {
        format!("Shunt counted {answers:?} answers")
    })
}
