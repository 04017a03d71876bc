//! Ports of a VIP without a service: refused at once as by a host, or silent where that is asked for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shunt_api::counters::{Counter, DropReason};
use shunt_api::snapshot::Protocol;
use shunt_tests::error::{Result, ensure};
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Shape, Topology};

use crate::observe::{attempt, counted, counting};
use crate::stage::{request, request_udp, start_servers, with_shunt};

/// Of each kind.
const ATTEMPTS: u16 = 20;
/// The one over TCP has a server behind it that the service does not list.
const UNLISTED: [(Protocol, u16); 2] = [(Protocol::Tcp, 7), (Protocol::Udp, 9)];
/// A refusal that takes longer is no refusal at once.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Shorter than the second after which TCP sends its SYN again.
const SILENCE: Duration = Duration::from_millis(400);
const REQUESTS: u16 = 100;

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 2, far: 0, vips: vips(10).to_vec() };
    with_shunt("unlisted", shape, settings, |topology, shunt| {
        let _servers = start_servers(topology)?;
        for vip in vips(10) {
            refused(topology, shunt, vip)?;
            listed(topology, vip, "listed", 20_000)?;
        }
        shunt.apply(&settings(topology).with_service_keys("unlisted_ports = \"drop\""))?;
        for vip in vips(10) {
            silent(topology, shunt, vip)?;
            listed(topology, vip, "with drop", 30_000)?;
        }
        Ok(())
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), &["tcp/80", "udp/7"]));
    settings
}

fn listed(topology: &Topology, vip: IpAddr, what: &str, first_port: u16) -> Result<()> {
    request(topology, &format!("{vip} {what}"), vip, REQUESTS, first_port)?;
    request_udp(topology, &format!("{vip} udp"), vip, REQUESTS, first_port).map(drop)
}

fn refused(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr) -> Result<()> {
    for ((protocol, port), counter) in
        UNLISTED.into_iter().zip([Counter::ResetReplies, Counter::UnreachableReplies])
    {
        let to = (protocol, SocketAddr::new(vip, port));
        let (attempts, grown) = counting(shunt, || {
            attempt(topology, to, &topology.client_addresses(vip), (ATTEMPTS, 40_000), SILENCE)
        })?;
        let milliseconds = attempts.slowest.as_secs_f64() * 1e3;
        println!(
            "   {vip} {protocol}/{port}: {} of {ATTEMPTS} refused, the slowest after {milliseconds:.1} ms",
            attempts.refused
        );
        ensure(attempts.refused == u64::from(ATTEMPTS), || format!("not all were refused: {attempts:?}"))?;
        ensure(attempts.slowest < AT_ONCE, || format!("a refusal took {milliseconds:.0} ms"))?;
        counted(counter.name(), grown.counter(counter), ATTEMPTS)?;
        counted("unlisted_port", grown.dropped(DropReason::UnlistedPort), 0u32)?;
    }
    Ok(())
}

fn silent(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr) -> Result<()> {
    for (protocol, port) in UNLISTED {
        let to = (protocol, SocketAddr::new(vip, port));
        let (attempts, grown) = counting(shunt, || {
            attempt(topology, to, &topology.client_addresses(vip), (ATTEMPTS, 41_000), SILENCE)
        })?;
        let dropped = grown.dropped(DropReason::UnlistedPort);
        println!(
            "   {vip} {protocol}/{port} with drop: {} of {ATTEMPTS} in silence, {dropped} packets counted",
            attempts.silent
        );
        ensure(attempts.silent == u64::from(ATTEMPTS), || format!("not all got silence: {attempts:?}"))?;
        counted("unlisted_port", dropped, ATTEMPTS)?;
    }
    Ok(())
}
