//! Uploads through tunnels whose paths carry no more than the client's packets have without a tunnel header: Shunt
//! tells the client what fits. Then a router behind Shunt carries less, and tells Shunt.

use std::net::IpAddr;
use std::time::Duration;

use shunt_api::counters::{Counter, DropReason};
use shunt_tests::error::{Result, ensure};
use shunt_tests::settings::{Settings, is_tunnel_source, like_v4, like_v6, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, LB, Segment, Shape, Topology};

use crate::bulk::{conserved, known_mtu, start_echoes, upload};
use crate::stage::with_shunt_after;

const MTU: u32 = 1500;
/// What the router carries later on.
const NARROW: u32 = 1400;
/// Two services with entropy in the outer source, to the first far backend by IPv4 and by IPv6, and two with the
/// box's own address, to the second one: Shunt remembers the paths by backend.
const WITH_ENTROPY: [u8; 2] = [20, 30];
const FROM_OWN: [u8; 2] = [40, 50];
/// A TCP sender waits longer and longer before it repeats a packet; this is the fifth time.
const LIMIT: Duration = Duration::from_secs(7);

pub fn run() -> Result<()> {
    let vips = WITH_ENTROPY.into_iter().chain(FROM_OWN).flat_map(vips).collect();
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 0, far: 2, vips };
    with_shunt_after("path_mtu", shape, prepare, |topology, shunt| {
        let _servers = start_echoes(topology)?;
        upload_all(topology, shunt, "behind Shunt", WITH_ENTROPY, MTU)?;
        // The NIC of the router alone, so that the backends announce segments that do not fit.
        topology.router.ip(&format!("link set {} mtu {NARROW}\n", Segment::Far.name()))?;
        upload_all(topology, shunt, "behind a router", WITH_ENTROPY, NARROW)?;
        shunt.apply(&settings(topology, FROM_OWN))?;
        upload_all(topology, shunt, "own address", FROM_OWN, NARROW)?;
        outer_sources(topology)
    })
}

fn prepare(topology: &Topology) -> Result<Settings> {
    topology.set_mtu(Segment::Back, MTU)?;
    topology.set_mtu(Segment::Far, MTU)?;
    // The prefixes of the tunnels' sources, so that what routers say comes to the box.
    let (v4, v6) = (Segment::Back.v4(LB), Segment::Back.v6(LB));
    topology.router.ip(&format!("route add 10.77.128.0/17 via {v4}\nroute add fd77:80::/64 via {v6}\n"))?;
    Ok(settings(topology, WITH_ENTROPY))
}

fn settings(topology: &Topology, numbers: [u8; 2]) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.tunnel_entropy = numbers == WITH_ENTROPY;
    let node = &topology.far[usize::from(!settings.tunnel_entropy)..][..1];
    for (name, number, like) in [("by-v4", numbers[0], like_v4()), ("by-v6", numbers[1], like_v6())] {
        settings.serve(name, "ipip", node, like, (&vips(number), &["tcp/7"]));
    }
    settings
}

/// Uploads by both services and families; `mtu` is what the narrowest link of the path carries.
fn upload_all(topology: &Topology, shunt: &Shunt<'_>, label: &str, numbers: [u8; 2], mtu: u32) -> Result<()> {
    for (number, (outer, header)) in numbers.into_iter().zip([("4", 20), ("6", 40)]) {
        let before = conserved(shunt)?.dropped(DropReason::TunnelError);
        for (vip, inner) in vips(number).into_iter().zip(["4", "6"]) {
            upload_one(topology, shunt, &format!("{label}, {inner}in{outer}"), vip, mtu - header)?;
        }
        // What a router says holds for all packets to the backend, so it may have to say it for one family only.
        let heard = conserved(shunt)?.dropped(DropReason::TunnelError) - before;
        println!("   {:<22} a router said {heard} times what it carries", "");
        ensure((heard > 0) == (mtu < MTU), || {
            format!("{label}: a router said {heard} times what it carries")
        })?;
    }
    Ok(())
}

/// An upload after which the client knows that `fits` bytes do.
fn upload_one(topology: &Topology, shunt: &Shunt<'_>, label: &str, vip: IpAddr, fits: u32) -> Result<()> {
    let before = conserved(shunt)?.counter(Counter::TooBigReplies);
    let took = upload(topology, vip)?;
    let told = conserved(shunt)?.counter(Counter::TooBigReplies) - before;
    let known = known_mtu(topology, vip)?;
    let seconds = took.as_secs_f64();
    println!("   {label:<22} 10 MB in {seconds:.1} s: {told} packets too big, the client knows {known}");
    ensure(told > 0, || format!("{label}: the client was not told that its packets are too big"))?;
    ensure(known == fits, || format!("{label}: the client should know {fits}"))?;
    ensure(took < LIMIT, || format!("{label}: the upload took {took:?}"))
}

/// The first backend's tunnels came from the configured prefixes, the second one's from the box's own addresses.
fn outer_sources(topology: &Topology) -> Result<()> {
    let [prefix, own] = [0, 1].map(|index| topology.decapsulators[index].outer_sources());
    let is_own = |address: IpAddr| address == Segment::Back.host_like(address, LB);
    let (prefix, own) = (prefix?, own?);
    let right = prefix.iter().all(|(source, _)| is_tunnel_source(*source))
        && own.iter().all(|(source, _)| is_own(*source));
    ensure(right && !prefix.is_empty() && !own.is_empty(), || {
        format!("outer sources: {prefix:?} and {own:?}")
    })?;
    let malformed = topology.decapsulated()?.malformed;
    ensure(malformed == 0, || format!("{malformed} tunnel packets were malformed"))
}
