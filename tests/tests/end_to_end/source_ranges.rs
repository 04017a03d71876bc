//! `source_ranges`: a client outside of them gets no answer of any kind, one inside all.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shunt_api::counters::DropReason;
use shunt_api::snapshot::Protocol;
use shunt_tests::attempt::Attempts;
use shunt_tests::error::{Result, ensure};
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Shape, Topology};

use crate::observe::{attempt, counted, counting};
use crate::stage::{ECHO_PORT, start_servers, with_shunt};

/// Of each client, protocol and family.
const ATTEMPTS: u16 = 50;
/// The client's second address of each family.
const RANGES: &str = "source_ranges = [\"10.77.1.11/32\", \"fd77:1::11\"]";
/// Shorter than the second after which TCP sends its SYN again: each attempt is one packet.
const SILENCE: Duration = Duration::from_millis(500);

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 2, far: 0, vips: vips(10).to_vec() };
    let restricted = |topology: &Topology| settings(topology).with_service_keys(RANGES);
    with_shunt("source_ranges", shape, restricted, |topology, shunt| {
        let _servers = start_servers(topology)?;
        for vip in vips(10) {
            let [denied, allowed] = topology.client_addresses(vip);
            for to in [(Protocol::Tcp, 80), (Protocol::Udp, ECHO_PORT)] {
                expect(topology, shunt, (vip, to), (denied, 10_000), ATTEMPTS)?;
                expect(topology, shunt, (vip, to), (allowed, 20_000), 0)?;
            }
        }
        shunt.apply(&settings(topology))?;
        for vip in vips(10) {
            let [once_denied, _] = topology.client_addresses(vip);
            expect(topology, shunt, (vip, (Protocol::Tcp, 80)), (once_denied, 30_000), 0)?;
        }
        Ok(())
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), &["tcp/80", "udp/7"]));
    settings
}

/// So many of the attempts are dropped and counted, all others answered.
fn expect(
    topology: &Topology,
    shunt: &Shunt<'_>,
    (vip, (protocol, port)): (IpAddr, (Protocol, u16)),
    (client, first_port): (IpAddr, u16),
    denied: u16,
) -> Result<()> {
    let to = (protocol, SocketAddr::new(vip, port));
    let (attempts, grown) =
        counting(shunt, || attempt(topology, to, &[client], (ATTEMPTS, first_port), SILENCE))?;
    let Attempts { answered, silent, .. } = attempts;
    println!(
        "   {client} to {vip} {protocol}/{port}: {answered} of {ATTEMPTS} answered, {silent} in silence"
    );
    let right = silent == u64::from(denied) && answered == u64::from(ATTEMPTS - denied);
    ensure(right, || format!("{denied} of {ATTEMPTS} should get silence, the others answers: {attempts:?}"))?;
    counted("source_denied", grown.dropped(DropReason::SourceDenied), denied)
}
