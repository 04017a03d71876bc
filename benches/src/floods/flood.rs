//! One flood: what it sends, what it did to confirmed flows, and what must have come of it.

use std::time::Duration;

use serde::Serialize;
use shunt_api::counters::Counter;
use shunt_api::snapshot::Protocol;
use shunt_dataplane::conntrack::Seconds;
use shunt_tests::error::Result;

use super::scene::{Scene, VIP};
use crate::Spread;
use crate::stage::{ACK, Flow, ROUND, SYN, Sent};

/// First address of clients that only flood; there are 2^29 of them.
const FLOODERS: u32 = 0x6000_0000;
const FLOODER_BITS: u32 = 29;
/// New connections that begin during a flood.
const NEW_FLOWS: usize = 4 * ROUND;
/// Packets of the flood between the two first packets of a new connection, in places of the table: one for eight,
/// which for 200,000 flows are 50,000 packets or 10 ms at five million a second.
const PLACES_PER_PACKET_BETWEEN: usize = 8;

/// What a flood consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP packets that begin a connection.
    Syn,
    /// UDP.
    Udp,
    /// TCP packets from the middle of connections that there are not.
    Ack,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Syn, Self::Udp, Self::Ack];

    /// The flow that a packet of such a flood was of.
    pub fn flow(self, sent: &Sent) -> Flow {
        let (protocol, port) = if self == Self::Udp { (Protocol::Udp, 53) } else { (Protocol::Tcp, 80) };
        Flow { client: sent.client, client_port: sent.client_port, vip: VIP, port, protocol }
    }

    fn packet(self, number: u64) -> [u8; 60] {
        // Odd, so all numbers of so many bits are taken before one comes again: no flow has a second packet.
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let client = FLOODERS | (scattered >> 16) as u32 & ((1 << FLOODER_BITS) - 1);
        let sent = Sent { client, client_port: scattered as u16, backend: [0; 4].into() };
        self.flow(&sent).packet(if self == Self::Syn { SYN } else { ACK })
    }
}

/// Whether a client only floods.
pub fn is_flood(client: u32) -> bool {
    client & FLOODERS == FLOODERS
}

/// What to do.
pub struct Plan {
    /// In tables.
    pub name: &'static str,
    /// Of the flood.
    pub kind: Kind,
    /// Flows that the table is sized for.
    pub max_flows: usize,
    /// Flows that are established before, as far as there is room.
    pub flows: usize,
    /// Parts of the flood that are measured by themselves.
    pub chunks: usize,
    /// Packets of the flood, in places of the table.
    pub times_capacity: usize,
}

/// What was counted while the flood went on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets of confirmed flows that went to another backend, and of the flood that went elsewhere than Maglev says.
    pub moved: u64,
    /// Packets that did not leave.
    pub not_served: u64,
    /// Packets that followed an entry.
    pub hits: u64,
    /// Flows entered.
    pub created: u64,
    /// Unconfirmed ones that made room for them.
    pub evicted: u64,
    /// Packets served without an entry.
    pub full: u64,
    /// TCP packets that began nothing.
    pub midstream: u64,
    /// Flows that became confirmed.
    pub confirmed: u64,
    /// Flows that were chosen anew.
    pub rehashed: u64,
}

/// What a flood did.
pub struct Outcome {
    /// Of the flood.
    pub kind: Kind,
    /// Of the flow table.
    pub places: usize,
    /// Packets sent.
    pub flood_packets: usize,
    /// Packets of confirmed flows sent meanwhile.
    pub confirmed_packets: usize,
    /// Flows that were confirmed before.
    pub confirmed_flows: usize,
    /// Those that still have their entry.
    pub confirmed_after: u64,
    /// Unconfirmed entries that the flood added in all.
    pub grown: u64,
    /// What was counted.
    pub counts: Counts,
    /// Of a packet of a confirmed flow without a flood.
    pub ns_without: f64,
    /// Of a packet of a confirmed flow, in turns with the flood.
    pub ns_beside: f64,
    /// Of any packet, both in the same batches.
    pub ns_mixed: f64,
    /// Median of the chunks' ratios.
    pub throughput_kept: f64,
    /// Share of new connections whose entry lived until their second packet.
    pub new_flows_kept: f64,
}

/// A flood over a table of which some is confirmed.
pub fn measure(plan: &Plan) -> Result<Outcome> {
    let mut calm = Scene::new(plan.max_flows, plan.flows)?;
    let mut flooded = Scene::new(plan.max_flows, plan.flows)?;
    let places = flooded.stage.shared.flows.v4.capacity();
    // Half of the flood in rounds of its own, half in mixed batches.
    let rounds = (plan.times_capacity * places).div_ceil(2 * plan.chunks * ROUND);
    let mut flood = (0..).map(|number| plan.kind.packet(number));
    let (mut without, mut beside, mut mixed) = (vec![], vec![], vec![]);
    let (before, live_before) = (counts(&flooded), flooded.live());
    for turn in 0..plan.chunks {
        flooded.now = Seconds(2 + turn as u32);
        without.push(per_packet(rounds, || calm.confirmed_round()));
        beside.push(per_packet(rounds, || alternating(&mut flooded, &mut flood)));
        mixed.push(per_packet(2 * rounds, || mingled(&mut flooded, &mut flood)));
    }
    let counts = counts(&flooded).since(&before);
    let live = flooded.live();
    let ratios = without.iter().zip(&beside).map(|(without, beside)| without / beside).collect();
    Ok(Outcome {
        kind: plan.kind,
        places,
        flood_packets: 2 * plan.chunks * rounds * ROUND,
        confirmed_packets: 2 * plan.chunks * rounds * ROUND,
        confirmed_flows: flooded.confirmed_flows(),
        confirmed_after: live.confirmed,
        grown: live.unconfirmed - live_before.unconfirmed,
        counts: Counts { moved: moved_after(&mut flooded, &before), ..counts },
        ns_without: Spread::of(without).median,
        ns_beside: Spread::of(beside).median,
        ns_mixed: Spread::of(mixed).median,
        throughput_kept: Spread::of(ratios).median,
        new_flows_kept: new_flows_kept(&mut flooded, &mut flood),
    })
}

/// Rounds of the flood and of confirmed flows in turns. Returns the time of one of the latter.
fn alternating(scene: &mut Scene, flood: &mut impl Iterator<Item = [u8; 60]>) -> Duration {
    scene.round(flood.take(ROUND));
    scene.confirmed_round()
}

/// Both in the same batches, one by one.
fn mingled(scene: &mut Scene, flood: &mut impl Iterator<Item = [u8; 60]>) -> Duration {
    let packets: Vec<_> = flood.take(ROUND / 2).flat_map(|packet| [packet, scene.next_confirmed()]).collect();
    scene.round(packets.into_iter())
}

/// Nanoseconds for a packet in the median of some rounds: a round in which another program had the processor says
/// nothing.
fn per_packet(rounds: usize, round: impl FnMut() -> Duration) -> f64 {
    let times = std::iter::repeat_with(round).take(rounds).map(|time| time.as_nanos() as f64).collect();
    Spread::of(times).median / ROUND as f64
}

/// Packets gone astray when each confirmed flow has had one more.
fn moved_after(scene: &mut Scene, before: &Counts) -> u64 {
    scene.pass_confirmed();
    scene.moved - before.moved
}

/// New connections begin, the flood goes on, and they go on. Returns the share whose entry was still there.
fn new_flows_kept(scene: &mut Scene, flood: &mut impl Iterator<Item = [u8; 60]>) -> f64 {
    let flows = scene.new_flows(NEW_FLOWS);
    scene.pass(flows.clone(), SYN);
    let between = scene.stage.shared.flows.v4.capacity() / PLACES_PER_PACKET_BETWEEN;
    for _ in 0..between.div_ceil(ROUND) {
        scene.round(flood.take(ROUND));
    }
    let before = counts(scene).confirmed;
    scene.pass(flows, ACK);
    (counts(scene).confirmed - before) as f64 / NEW_FLOWS as f64
}

fn counts(scene: &Scene) -> Counts {
    let counter = |counter| scene.stage.stats().counter(counter);
    Counts {
        moved: scene.moved,
        not_served: scene.lost,
        hits: counter(Counter::FlowHits),
        created: counter(Counter::FlowsCreated),
        evicted: counter(Counter::FlowsEvicted),
        full: counter(Counter::FlowTableFull),
        midstream: counter(Counter::MidstreamMisses),
        confirmed: counter(Counter::FlowsConfirmed),
        rehashed: counter(Counter::FlowsRehashed),
    }
}

impl Counts {
    fn since(&self, before: &Self) -> Self {
        Self {
            moved: self.moved - before.moved,
            not_served: self.not_served - before.not_served,
            hits: self.hits - before.hits,
            created: self.created - before.created,
            evicted: self.evicted - before.evicted,
            full: self.full - before.full,
            midstream: self.midstream - before.midstream,
            confirmed: self.confirmed - before.confirmed,
            rehashed: self.rehashed - before.rehashed,
        }
    }
}

impl Outcome {
    /// What is not as it must be, whatever the speed.
    pub fn failures(&self) -> Vec<String> {
        let (counts, flood) = (&self.counts, self.flood_packets as u64);
        let equal = [
            ("packets that went to another backend", counts.moved, 0),
            ("packets that were not served", counts.not_served, 0),
            ("packets of the flood by counters", counts.created + counts.full, flood),
            ("packets that followed an entry", counts.hits, self.confirmed_packets as u64),
            (
                "packets from the middle of a connection",
                counts.midstream,
                if self.kind == Kind::Ack { flood } else { 0 },
            ),
            ("flows that a flood confirmed", counts.confirmed, 0),
            ("flows that were chosen anew", counts.rehashed, 0),
            ("confirmed flows with an entry", self.confirmed_after, self.confirmed_flows as u64),
            ("entries that the flood left", self.grown, counts.created - counts.evicted),
        ];
        let wrong = equal.into_iter().filter(|(_, actual, expected)| actual != expected);
        wrong.map(|(what, actual, expected)| format!("{what}: {actual} instead of {expected}")).collect()
    }
}
