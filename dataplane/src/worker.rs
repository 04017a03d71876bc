//! The loop of a packet thread: receive, parse, decide, rewrite, transmit, count.
//!
//! A worker never locks, allocates, logs or makes a system call other than the port's wake-ups. It loads the
//! published [`Forwarding`] once per batch and says afterwards which one it has seen; when all workers have
//! seen sequence *n*, none holds an older one, so the control thread frees those.

mod express;
mod outbound;
mod pass;

pub use outbound::{Fate, Observer};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use shunt_api::counters::Counter;

use crate::conntrack::Seconds;
use crate::forward::{FlowTables, decide};
use crate::limits::{MAX_BATCH, MAX_SLEEP, SPINS_BEFORE_SLEEP};
use crate::notices::Notices;
use crate::packet::transport::{FIN, RST, SYN};
use crate::packet::{self, steering};
use crate::port::{Frame, Port, PortCounters};
use crate::stats::{Tally, WorkerStats};
use crate::table::Forwarding;
use express::{Express, Sight, Way};
use outbound::{Budget, Outbound};

/// What all workers and the control thread share.
pub struct Shared {
    /// The current view; replaced as one pointer.
    pub forwarding: ArcSwap<Forwarding>,
    /// Flow tables.
    pub flows: Arc<FlowTables>,
    /// What workers tell the control thread.
    pub notices: Notices,
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
            notices: Notices::default(),
            stats: (0..workers).map(|_| CachePadded::default()).collect(),
            stop: AtomicBool::new(false),
        }
    }
}

/// One packet thread. `O` is told what becomes of each packet.
pub struct Worker<P, O = ()> {
    shared: Arc<Shared>,
    index: usize,
    busy_poll: bool,
    lane: Lane<P, O>,
}

/// What a worker has to itself.
struct Lane<P, O> {
    port: P,
    observer: O,
    batch: usize,
    frames: Vec<Frame>,
    /// One for each frame of a batch.
    sights: Box<[Sight]>,
    tally: Tally,
    /// Answers that may still be given in this second.
    budget: Budget,
    /// Number of the next packet that leaves in fragments, and the step to the one after: a power of two that is
    /// no less than there are workers, so that no two share a number.
    fragment_id: (u16, u16),
    /// What the port had counted a round ago.
    port_before: PortCounters,
}

impl<P: Port> Worker<P> {
    /// Worker `index` on its port, taking up to `batch` frames at once, never sleeping if `busy_poll`.
    pub fn new(port: P, shared: Arc<Shared>, index: usize, batch: usize, busy_poll: bool) -> Self {
        Self::observed(port, (), shared, index, batch, busy_poll)
    }
}

impl<P: Port, O: Observer> Worker<P, O> {
    /// A worker of which `observer` is told what becomes of each packet.
    pub fn observed(
        port: P,
        observer: O,
        shared: Arc<Shared>,
        index: usize,
        batch: usize,
        busy_poll: bool,
    ) -> Self {
        let batch = batch.clamp(1, MAX_BATCH);
        let lane = Lane {
            port,
            observer,
            batch,
            frames: Vec::with_capacity(batch),
            sights: vec![Sight::NONE; batch].into(),
            tally: Tally::default(),
            budget: Budget::default(),
            fragment_id: (index as u16, shared.stats.len().next_power_of_two() as u16),
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

    /// One round: one batch, if there is one. Returns how many packets it had.
    pub fn turn(&mut self, now: Seconds) -> usize {
        let stats = &self.shared.stats[self.index];
        let forwarding = self.shared.forwarding.load();
        let received = self.lane.turn(&forwarding, &self.shared, now);
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

    /// The observer, to read what it saw.
    pub fn observer(&mut self) -> &mut O {
        &mut self.lane.observer
    }

    fn sleep(&mut self) {
        let stats = &self.shared.stats[self.index];
        self.lane.tally.add(Counter::Sleeps, 1);
        stats.waiting.store(true, Ordering::Relaxed);
        self.lane.port.wait(MAX_SLEEP);
        stats.waiting.store(false, Ordering::Relaxed);
    }
}

impl<P: Port, O: Observer> Lane<P, O> {
    fn turn(&mut self, forwarding: &Forwarding, shared: &Shared, now: Seconds) -> usize {
        let received = self.port.receive(&mut self.frames, self.batch);
        if received > 0 {
            self.budget.renew(now, forwarding.table.reply_rate);
            self.forward_all(forwarding, shared, now);
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
        self.tally.add(Counter::Oversized, now.oversized - before.oversized);
        self.port_before = now;
    }

    fn forward_all(&mut self, forwarding: &Forwarding, shared: &Shared, now: Seconds) {
        let express = Express { forwarding, flows: &shared.flows, now };
        self.look_all(&express);
        let sights = &mut self.sights[..self.frames.len()];
        express.find(sights);
        express.find_elsewhere(sights);
        let mut outbound = Outbound {
            port: &mut self.port,
            tally: &mut self.tally,
            budget: &mut self.budget,
            fragment_id: &mut self.fragment_id,
            forwarding,
            notices: &shared.notices,
        };
        let (mut seen, mut passed, mut bytes) = (Vec::new(), 0, 0);
        // Marks of flows that a packet of this batch may move to another state: what is behind it is decided too.
        let mut moving = 0u64;
        for (frame, sight) in self.frames.iter_mut().zip(sights.iter_mut()) {
            if O::LOOKS {
                seen.push(outbound.seen(frame, sight, &express));
            }
            let may_pass = moving >> sight.mark & 1 == 0;
            let nic = if may_pass { outbound.pass(frame, sight) } else { None };
            match nic {
                Some(nic) => {
                    frame.set_nic(nic);
                    passed += 1;
                    bytes += frame.length() as u64;
                }
                None => {
                    moving |= u64::from(sight.tcp_flags & (SYN | FIN | RST) != 0) << sight.mark;
                    sight.undo();
                }
            }
        }
        outbound.tally.add(Counter::FlowHits, passed as u64);
        if passed == self.frames.len() && !O::LOOKS {
            outbound.transmit_all(&mut self.frames, bytes);
            return;
        }
        let mut seen = seen.into_iter();
        for (frame, sight) in self.frames.drain(..).zip(sights) {
            let (packet, decision) = seen.next().unwrap_or_default();
            if sight.way == Way::Decide {
                decide_one(frame, sight, &express, &mut outbound, &mut self.observer);
            } else {
                let fate = outbound.transmit(frame.nic(), frame);
                self.observer.saw(packet.as_ref(), decision.as_ref(), fate);
            }
        }
    }

    fn look_all(&mut self, express: &Express<'_>) {
        let mut bytes = 0;
        for (frame, sight) in self.frames.iter_mut().zip(&mut self.sights) {
            let head = &self.port.buffer(frame)[frame.range()];
            let headroom = steering::headroom(head);
            if frame.tail_length() == 0 {
                express.look(sight, &head[headroom..]);
            } else {
                *sight = Sight::NONE;
            }
            if headroom > 0 {
                frame.skip(headroom);
            }
            bytes += frame.length() as u64;
        }
        self.tally.add(Counter::RxBytes, bytes);
    }
}

/// A packet of which more must be known.
#[inline(never)]
fn decide_one<P: Port>(
    frame: Frame,
    sight: &Sight,
    express: &Express<'_>,
    outbound: &mut Outbound<'_, P>,
    observer: &mut impl Observer,
) {
    let head = &outbound.port.buffer(&frame)[frame.range()];
    let parsed = sight.packet(head).map_or_else(|| packet::parse(head, frame.length()), Ok);
    let (decision, fate) = match parsed {
        Ok(packet) => {
            let decision = decide(&packet, express.context(frame.nic()));
            (Some(decision), outbound.act(frame, &packet, &decision))
        }
        Err(reason) => (None, outbound.discard(frame, reason)),
    };
    observer.saw(parsed.as_ref().ok(), decision.as_ref(), fate);
}

#[cfg(test)]
mod tests;
