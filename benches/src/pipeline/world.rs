//! A worker on a port in memory and its established flows. Nothing here depends on the day: seeds are fixed, and
//! time goes by the packets.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::{Mode, Snapshot};
use shunt_dataplane::conntrack::Seconds;
use shunt_dataplane::forward::FlowTables;
use shunt_dataplane::packet::steering;
use shunt_dataplane::port::memory::MemoryPort;
use shunt_dataplane::port::{NicIndex, Port};
use shunt_dataplane::rewrite::Link;
use shunt_dataplane::table::{Compiler, Forwarding, Hop, NicLink, OpenHop, Table};
use shunt_dataplane::worker::{Shared, Worker};

use super::load::{self, Family, Frame, Way};
use super::shape::{Case, snapshot_of};
use super::stopwatch::Stopwatch;

/// Packets that a worker takes at once, as by default.
pub const BATCH: usize = 64;
/// Batches between two looks at the clock, so that looking costs nothing.
const BATCHES: usize = 4;
/// Packets between two looks at the clock.
pub const ROUND: usize = BATCH * BATCHES;
/// Packets that pass in what the worker takes for a second.
const PACKETS_PER_SECOND: u64 = 10_000_000;

/// One round of the worker; returns how many packets it had.
type Turn = fn(&mut Worker<MemoryPort>, Seconds) -> usize;

/// What is measured.
pub struct World {
    worker: Worker<MemoryPort>,
    lead: Vec<u8>,
    family: Family,
    frame: Frame,
    reply: Frame,
    /// Of translated flows, in their order.
    ways: Vec<Way>,
    translated: bool,
    /// Whether ways are being noted.
    noting: bool,
    packets: u64,
}

/// Who sends it.
#[derive(Clone, Copy)]
enum Sender {
    /// With these TCP flags.
    Client(u8),
    Backend,
}

/// The same in every run.
pub fn seed() -> RandomState {
    RandomState::with_seeds(1, 2, 3, 4)
}

impl World {
    /// Of a case, with room for its flows.
    pub fn of(case: &Case) -> Self {
        let mut world = Self::with(&snapshot_of(case), case.family, case.flows as usize);
        world.frame = Frame::among(case.family, case.services);
        world
    }

    /// Of any snapshot that serves the VIPs of `load`.
    pub fn with(snapshot: &Snapshot, family: Family, flows: usize) -> Self {
        let table = Compiler::with_seed(seed()).compile(snapshot).expect("a valid snapshot");
        let mode = snapshot.pools[0].backends[0].mode;
        let (v4, v6) = if family == Family::V4 { (flows, 1) } else { (1, flows) };
        let tables = FlowTables::with_seed(v4, v6, &seed());
        let shared = Shared::new(forwarding(1, table), Arc::new(tables), 1);
        let worker = Worker::new(MemoryPort::new(2 * ROUND, ROUND), Arc::new(shared), 0, BATCH, false);
        Self {
            worker,
            lead: steering::lead(if mode == Mode::Ipip { 20 } else { 0 }),
            family,
            frame: Frame::new(family),
            reply: Frame::new(family),
            ways: Vec::new(),
            translated: mode == Mode::Nat,
            noting: false,
            packets: 0,
        }
    }

    /// Establishes flows 0 to `flows`. Returns the time that their first packets took.
    pub fn establish(&mut self, flows: u32) -> Duration {
        let first = self.rounds(0..flows, Sender::Client(load::SYN), Worker::turn);
        self.confirm(0..flows);
        first
    }

    /// Lets second packets of these flows through, which follow on those that were confirmed before.
    pub fn confirm(&mut self, flows: Range<u32>) {
        self.noting = self.translated;
        self.rounds(flows, Sender::Client(load::ACK), Worker::turn);
        self.noting = false;
    }

    /// Lets packets of these flows through. Returns the time that the worker took, clock and injection left out.
    pub fn pass(&mut self, flows: impl Iterator<Item = u32>, flags: u8) -> Duration {
        self.rounds(flows, Sender::Client(flags), super::measured_turn)
    }

    /// Likewise, packets of translated flows on their way back.
    pub fn pass_back(&mut self, flows: impl Iterator<Item = u32>) -> Duration {
        self.rounds(flows, Sender::Backend, super::measured_turn)
    }

    fn rounds(&mut self, mut flows: impl Iterator<Item = u32>, sender: Sender, turn: Turn) -> Duration {
        let mut watch = Stopwatch::new();
        loop {
            let mut injected = 0;
            for flow in flows.by_ref().take(ROUND) {
                self.inject(flow, sender);
                injected += 1;
            }
            if injected == 0 {
                return watch.total();
            }
            self.turns(injected, turn, &mut watch);
        }
    }

    fn inject(&mut self, flow: u32, sender: Sender) {
        let bytes = match sender {
            Sender::Client(flags) => self.frame.of(flow, flags),
            Sender::Backend => self.reply.back(self.ways[flow as usize]),
        };
        assert!(self.worker.port().inject(&self.lead, bytes), "room for a round");
    }

    fn turns(&mut self, injected: usize, turn: Turn, watch: &mut Stopwatch) {
        let now = Seconds((self.packets / PACKETS_PER_SECOND) as u32);
        watch.round(injected, || {
            let mut received = 0;
            while received < injected {
                received += turn(&mut self.worker, now);
            }
        });
        self.packets += injected as u64;
        let mut sent = 0;
        self.worker.port().drain(|_, bytes| {
            if self.noting {
                self.ways.push(Way::of(self.family, bytes));
            }
            sent += 1;
        });
        assert_eq!(sent, injected, "all are forwarded");
    }
}

/// The loop that does nothing but swap the MAC addresses, on the same port.
pub struct Floor {
    port: MemoryPort,
    taken: Vec<shunt_dataplane::port::Frame>,
    frame: Frame,
}

impl Floor {
    pub fn new(family: Family) -> Self {
        let port = MemoryPort::new(2 * ROUND, ROUND);
        Self { port, taken: Vec::with_capacity(BATCH), frame: Frame::new(family) }
    }

    /// Swaps addresses in packets of these flows. Returns the time that took.
    pub fn pass(&mut self, mut flows: impl Iterator<Item = u32>) -> Duration {
        let mut watch = Stopwatch::new();
        loop {
            let mut injected = 0;
            for flow in flows.by_ref().take(ROUND) {
                assert!(self.port.inject(&[], self.frame.of(flow, load::ACK)));
                injected += 1;
            }
            if injected == 0 {
                return watch.total();
            }
            watch.round(injected, || while measured_floor(&mut self.port, &mut self.taken) > 0 {});
            self.port.drain(|_, _| ());
        }
    }
}

/// One batch of the floor; what callgrind counts of it.
#[inline(never)]
pub fn measured_floor(port: &mut MemoryPort, taken: &mut Vec<shunt_dataplane::port::Frame>) -> usize {
    let received = port.receive(taken, BATCH);
    for frame in taken.drain(..) {
        let range = frame.range();
        let (destination, source) = port.buffer(&frame)[range][..12].split_at_mut(6);
        destination.swap_with_slice(source);
        port.transmit(NicIndex(0), frame).expect("room for a batch");
    }
    port.flush();
    received
}

/// The view of a table in which every backend is on the segment of the only NIC.
pub fn forwarding(sequence: u64, table: Table) -> Forwarding {
    let (destination, source) = (MacAddress([2, 0, 0, 0, 0, 2]), MacAddress([2, 0, 0, 0, 0, 1]));
    let hop = OpenHop {
        nic: NicIndex(0),
        link: Link { destination, source, vlan: None, mtu: 1500 },
        on_link: true,
        source: Some(IpAddr::from([10, 0, 0, 1])),
    };
    let hops = vec![Hop::Open(hop); table.backend_limit()];
    let nics = [NicLink { mac: source, mtu: 1500 }];
    Forwarding::new(sequence, Arc::new(table), hops.into(), nics.into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::pipeline::load::{Distribution, Turns};

    /// The world itself asserts that each packet is forwarded.
    #[test]
    fn every_mode_and_direction_goes_through() {
        for mode in [Mode::Dr, Mode::Ipip, Mode::Nat] {
            for family in [Family::V4, Family::V6] {
                let mut world = World::of(&Case { services: 7, ranges: 3, ..Case::new(mode, family, 1000) });
                world.establish(900);
                let _ = world.pass(900..1000, load::SYN);
                world.confirm(900..1000);
                let turns = || Turns::new(1000, Distribution::Uniform).take(5000);
                let _ = world.pass(turns(), load::ACK);
                if mode == Mode::Nat {
                    assert_eq!(world.ways.len(), 1000);
                    let _ = world.pass_back(turns());
                }
                assert_eq!(world.packets, 2000 + 5000 * (1 + u64::from(mode == Mode::Nat)));
            }
        }
    }

    thread_local!(static ALLOCATIONS: Cell<u64> = const { Cell::new(0) });

    fn counted(worker: &mut Worker<MemoryPort>, now: Seconds) -> usize {
        let mut received = 0;
        let count = allocation_counter::measure(|| received = worker.turn(now)).count_total;
        ALLOCATIONS.set(ALLOCATIONS.get() + count);
        received
    }

    #[test]
    fn a_worker_allocates_nothing() {
        assert_eq!(allocation_counter::measure(|| drop(Box::new(1))).count_total, 1, "they are counted");
        for mode in [Mode::Dr, Mode::Ipip, Mode::Nat] {
            for family in [Family::V4, Family::V6] {
                let mut world = World::of(&Case::new(mode, family, 2000));
                world.establish(1000);
                world.rounds(0..1000, Sender::Client(load::ACK), counted);
                world.rounds(1000..2000, Sender::Client(load::SYN), counted);
                if mode == Mode::Nat {
                    world.rounds(0..1000, Sender::Backend, counted);
                }
                assert_eq!(ALLOCATIONS.get(), 0, "{mode} {family:?}");
            }
        }
    }
}
