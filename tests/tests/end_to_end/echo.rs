//! Pings of the VIPs: answered by Shunt itself, within a rate.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use shunt_api::counters::{Counter, DropReason};
use shunt_tests::error::{Result, ensure};
use shunt_tests::ping::{Manner, ping};
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Shape, Topology};

use crate::observe::{counted, counting};
use crate::stage::with_shunt;

/// Bytes of data: as ping sends by itself, and nearly all that fits.
const SIZES: [u32; 2] = [56, 1400];
/// VIPs that the client believes in and Shunt does not know.
const STRANGE: u8 = 99;
const RATE: u64 = 10;
/// As many as surely fit any queue on the way.
const BURST: Manner = Manner { count: 100, burst: 100, size: 56, patience_s: 0.1 };
const FLOOD: Duration = Duration::from_secs(2);
const FLOOD_PINGS: u64 = 1000;

pub fn run() -> Result<()> {
    let shape = Shape {
        arms: Arms::Two,
        queues: 1,
        dr: 1,
        far: 0,
        vips: [10, STRANGE].into_iter().flat_map(vips).collect(),
    };
    with_shunt("echo", shape, settings, |topology, shunt| {
        for vip in vips(10) {
            SIZES.into_iter().try_for_each(|size| answered(topology, shunt, vip, size))?;
        }
        vips(STRANGE).into_iter().try_for_each(|address| unanswered(topology, shunt, address))?;
        let limited = Settings { dataplane_keys: "reply_rate = 10", ..settings(topology) };
        shunt.apply(&limited)?;
        vips(10).into_iter().try_for_each(|vip| flooded(topology, shunt, vip))
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), &["tcp/80"]));
    settings
}

fn answered(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr, size: u32) -> Result<()> {
    let manner = Manner { size, ..Manner::default() };
    let (pings, grown) = counting(shunt, || ping(&topology.client, vip, manner))?;
    println!("   {} of {} pings of {vip} with {size} bytes answered", pings.received, pings.sent);
    ensure(pings.received == u64::from(manner.count), || format!("pings were lost: {pings:?}"))?;
    // Not by the backend, which has the VIP too.
    counted("echo_replies", grown.counter(Counter::EchoReplies), manner.count)
}

fn unanswered(topology: &Topology, shunt: &Shunt<'_>, address: IpAddr) -> Result<()> {
    let (pings, grown) = counting(shunt, || ping(&topology.client, address, Manner::default()))?;
    println!("   {} of {} pings of {address}, which is no VIP, answered", pings.received, pings.sent);
    ensure(pings.sent > 0 && pings.received == 0, || format!("answered: {pings:?}"))?;
    counted("echo_replies", grown.counter(Counter::EchoReplies), 0u32)
}

/// A worker answers as often as it may in each second of its clock, and counts the others.
fn flooded(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr) -> Result<()> {
    let start = Instant::now();
    let ((sent, received), grown) = counting(shunt, || {
        let (mut sent, mut received) = (0, 0);
        while start.elapsed() < FLOOD || sent < FLOOD_PINGS {
            let pings = ping(&topology.client, vip, BURST)?;
            sent += pings.sent;
            received += pings.received;
        }
        Ok((sent, received))
    })?;
    let seconds = start.elapsed().as_secs();
    let (replies, limited) = (grown.counter(Counter::EchoReplies), grown.dropped(DropReason::EchoLimited));
    println!("   {received} of {sent} pings of {vip} in {seconds} s answered at a rate of {RATE} a second");
    counted("echo_replies", replies, received)?;
    // The clock's seconds are not ours: two more of them may be touched.
    let plausible = FLOOD.as_secs() * RATE..=(seconds + 2) * RATE;
    ensure(plausible.contains(&replies), || format!("there should be {plausible:?} replies"))?;
    counted("echo_limited", limited, sent - received)
}
