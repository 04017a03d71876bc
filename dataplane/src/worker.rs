//! The loop of a packet thread: receive, parse, decide, rewrite, transmit, count.
//!
//! A worker never locks, allocates, logs or makes a system call other than the port's wake-ups. It loads the
//! published [`Forwarding`] once per batch and says afterwards which one it has seen; when all workers have
//! seen sequence *n*, none holds an older one, so the control thread frees those.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use shunt_api::counters::{Counter, DropReason};
use shunt_api::snapshot::Mode;

use crate::conntrack::Seconds;
use crate::forward::{Decision, FlowOutcome, FlowTables, Verdict, decide};
use crate::limits::{MAX_BATCH, MAX_SLEEP, SPINS_BEFORE_SLEEP};
use crate::packet::{self, Packet, steering};
use crate::port::{Frame, NicIndex, Port, PortCounters};
use crate::rewrite::{self, direct, encapsulate};
use crate::stats::{Tally, WorkerStats};
use crate::table::{Forwarding, Hop, Member, OpenHop};

/// What all workers and the control thread share.
pub struct Shared {
    /// The current view; replaced as one pointer.
    pub forwarding: ArcSwap<Forwarding>,
    /// Flow tables.
    pub flows: Arc<FlowTables>,
    /// One block per worker.
    pub stats: Box<[CachePadded<WorkerStats>]>,
    /// Set once, when the workers shall end.
    pub stop: AtomicBool,
}

impl Shared {
    /// For so many workers, starting from this view.
    pub fn new(forwarding: Forwarding, flows: Arc<FlowTables>, workers: usize) -> Self {
        Self {
            forwarding: ArcSwap::from_pointee(forwarding),
            flows,
            stats: (0..workers).map(|_| CachePadded::default()).collect(),
            stop: AtomicBool::new(false),
        }
    }
}

/// One packet thread.
pub struct Worker<P> {
    shared: Arc<Shared>,
    index: usize,
    busy_poll: bool,
    lane: Lane<P>,
}

/// What a worker has to itself.
struct Lane<P> {
    port: P,
    batch: usize,
    frames: Vec<Frame>,
    packets: Vec<Result<Packet, DropReason>>,
    tally: Tally,
    /// What the port had counted a round ago.
    port_before: PortCounters,
}

impl<P: Port> Worker<P> {
    /// Worker `index` on its port, taking up to `batch` frames at once, never sleeping if `busy_poll`.
    pub fn new(port: P, shared: Arc<Shared>, index: usize, batch: usize, busy_poll: bool) -> Self {
        let batch = batch.clamp(1, MAX_BATCH);
        let lane = Lane {
            port,
            batch,
            frames: Vec::with_capacity(batch),
            packets: Vec::with_capacity(batch),
            tally: Tally::default(),
            port_before: PortCounters::default(),
        };
        Self { shared, index, busy_poll, lane }
    }

    /// Goes round until told to stop. `clock` gives seconds since the process started.
    pub fn run(mut self, clock: impl Fn() -> Seconds) {
        let mut idle_rounds = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let received = self.turn(clock());
            idle_rounds = if received > 0 || self.busy_poll { 0 } else { idle_rounds + 1 };
            if idle_rounds > SPINS_BEFORE_SLEEP {
                self.sleep();
            }
        }
    }

    /// One round: one batch, if there is one. Returns how many frames it had.
    pub fn turn(&mut self, now: Seconds) -> usize {
        let stats = &self.shared.stats[self.index];
        let forwarding = self.shared.forwarding.load();
        let received = self.lane.turn(&forwarding, &self.shared.flows, now);
        let sequence = forwarding.sequence;
        drop(forwarding);
        stats.absorb(&mut self.lane.tally);
        stats.seen.store(sequence, Ordering::Release);
        stats.heartbeat.fetch_add(1, Ordering::Relaxed);
        received
    }

    /// The port, for tests and benches that play the network.
    pub fn port(&mut self) -> &mut P {
        &mut self.lane.port
    }

    fn sleep(&mut self) {
        let stats = &self.shared.stats[self.index];
        self.lane.tally.add(Counter::Sleeps, 1);
        stats.waiting.store(true, Ordering::Relaxed);
        self.lane.port.wait(MAX_SLEEP);
        stats.waiting.store(false, Ordering::Relaxed);
    }
}

impl<P: Port> Lane<P> {
    fn turn(&mut self, forwarding: &Forwarding, flows: &FlowTables, now: Seconds) -> usize {
        let received = self.port.receive(&mut self.frames, self.batch);
        if received > 0 {
            self.parse_all();
            self.forward_all(forwarding, flows, now);
            self.tally.add(Counter::RxPackets, received as u64);
            self.tally.add(Counter::Batches, 1);
        }
        self.port.flush();
        self.count_port();
        debug_assert!(self.port.census().is_conserved(), "{:?}", self.port.census());
        received
    }

    fn count_port(&mut self) {
        let (before, now) = (self.port_before, self.port.counters());
        self.tally.add(Counter::TxWakeups, now.tx_wakeups - before.tx_wakeups);
        self.tally.add(Counter::Realigned, now.realigned - before.realigned);
        self.port_before = now;
    }

    fn parse_all(&mut self) {
        for frame in &mut self.frames {
            let range = frame.range();
            let bytes = &self.port.buffer(frame)[range.clone()];
            let start = range.start + steering::headroom(bytes);
            frame.set_range(start..range.end);
            self.tally.add(Counter::RxBytes, frame.length() as u64);
            self.packets.push(packet::parse(&bytes[start - range.start..]));
        }
    }

    fn forward_all(&mut self, forwarding: &Forwarding, flows: &FlowTables, now: Seconds) {
        for (frame, packet) in self.frames.drain(..).zip(self.packets.drain(..)) {
            let mut outbound = Outbound { port: &mut self.port, tally: &mut self.tally };
            let decided = packet.and_then(|packet| {
                let decision = decide(&packet, &forwarding.table, flows, now);
                outbound.count(&decision);
                match decision.verdict {
                    Verdict::Forward { pool, member } => {
                        let member = forwarding.table.pool(pool).member(member);
                        Ok((packet, member, decision.hash))
                    }
                    Verdict::Drop(reason) => Err(reason),
                }
            });
            match decided {
                Ok((packet, member, hash)) => outbound.send(frame, &packet, member, hash, forwarding),
                Err(reason) => outbound.discard(frame, reason),
            }
        }
    }
}

/// The way out of one batch.
struct Outbound<'a, P> {
    port: &'a mut P,
    tally: &'a mut Tally,
}

impl<P: Port> Outbound<'_, P> {
    fn send(
        &mut self,
        mut frame: Frame,
        packet: &Packet,
        member: &Member,
        hash: u64,
        forwarding: &Forwarding,
    ) {
        match self.rewrite(&mut frame, packet, member, hash, forwarding) {
            Ok(nic) => self.transmit(nic, frame),
            Err(reason) => self.discard(frame, reason),
        }
    }

    fn rewrite(
        &mut self,
        frame: &mut Frame,
        packet: &Packet,
        member: &Member,
        hash: u64,
        forwarding: &Forwarding,
    ) -> Result<NicIndex, DropReason> {
        let hop = match forwarding.hops.get(member.backend.0 as usize) {
            Some(Hop::Open(hop)) => hop,
            Some(Hop::Closed(reason)) => return Err(*reason),
            None => return Err(DropReason::NeighborUnresolved),
        };
        let buffer = self.port.buffer(frame);
        let range = match member.mode {
            Mode::Dr if !hop.on_link => return Err(DropReason::BackendNotOnLink),
            Mode::Dr => direct(buffer, frame.range(), packet, &hop.link)?,
            Mode::Ipip => {
                let outer = outer(member, hop, hash, forwarding)?;
                let (range, moved) = encapsulate(buffer, frame.range(), packet, &hop.link, &outer)?;
                self.tally.add(Counter::Realigned, u64::from(moved));
                range
            }
        };
        frame.set_range(range);
        Ok(hop.nic)
    }

    fn transmit(&mut self, nic: NicIndex, frame: Frame) {
        let length = frame.length() as u64;
        match self.port.transmit(nic, frame) {
            Ok(()) => {
                self.tally.add(Counter::TxPackets, 1);
                self.tally.add(Counter::TxBytes, length);
            }
            Err(frame) => self.discard(frame, DropReason::TxRingFull),
        }
    }

    fn discard(&mut self, frame: Frame, reason: DropReason) {
        self.tally.drop(reason);
        self.port.release(frame);
    }

    fn count(&mut self, decision: &Decision) {
        let counters: &[Counter] = match decision.outcome {
            FlowOutcome::None => &[],
            FlowOutcome::Hit => &[Counter::FlowHits],
            FlowOutcome::Confirmed => &[Counter::FlowHits, Counter::FlowsConfirmed],
            FlowOutcome::Created => &[Counter::FlowsCreated],
            FlowOutcome::CreatedEvicting => &[Counter::FlowsCreated, Counter::FlowsEvicted],
            FlowOutcome::Rehashed => &[Counter::FlowsRehashed],
            FlowOutcome::TableFull => &[Counter::FlowTableFull],
        };
        counters.iter().for_each(|&counter| self.tally.add(counter, 1));
        self.tally.add(Counter::MidstreamMisses, u64::from(decision.midstream));
    }
}

fn outer(
    member: &Member,
    hop: &OpenHop,
    hash: u64,
    forwarding: &Forwarding,
) -> Result<rewrite::Outer, DropReason> {
    // A route without a usable source address of the backend's family is no route for a tunnel.
    rewrite::outer_for(&forwarding.table.tunnel, hop.source, member.address, hash).ok_or(DropReason::NoRoute)
}

#[cfg(test)]
mod tests;
