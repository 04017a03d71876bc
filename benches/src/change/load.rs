//! The worker: packets of established flows, batch after batch, and how long each batch took.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shunt_dataplane::conntrack::Seconds;

use super::fleet::{self, Sizes};
use crate::stage::{ACK, BATCH, Flow, Random, SYN, Stage};

/// First address of clients.
const CLIENTS: u32 = 0x0b00_0000;
/// Flows of one client.
const PORTS: usize = 50_000;
/// Batches are added up over so long.
const WINDOW: Duration = Duration::from_millis(1);
/// A batch that takes longer was interrupted: the processor ran something else.
const INTERRUPTED: Duration = Duration::from_millis(1);

/// A worker with established flows.
pub struct Load {
    stage: Stage,
    sizes: Sizes,
    backends: Vec<Ipv4Addr>,
    random: Random,
    log: Log,
}

/// What the worker did.
#[derive(Default)]
pub struct Log {
    windows: Vec<Window>,
    /// Nanoseconds for a packet of the first batch of each view but the first.
    pub first_batches: Vec<f64>,
    /// Packets that went to another backend than before.
    pub moved: usize,
    /// Packets that did not leave.
    pub lost: usize,
    /// Packets of all batches.
    pub packets: usize,
}

/// Some batches in a row.
#[derive(Clone, Copy, Default)]
struct Window {
    start_ns: u64,
    end_ns: u64,
    packets: u64,
    busy_ns: u64,
    interrupted: u64,
}

impl Load {
    /// Establishes flows on a stage.
    pub fn new(stage: Stage, sizes: Sizes) -> Self {
        let log = Log { windows: Vec::with_capacity(1 << 17), ..Log::default() };
        let backends = vec![Ipv4Addr::UNSPECIFIED; sizes.flows];
        let mut load = Self { stage, sizes, backends, random: Random::new(1), log };
        for first in (0..sizes.flows).step_by(BATCH) {
            let flows = first..sizes.flows.min(first + BATCH);
            load.batch(flows.clone().map(|number| (number, SYN)));
            load.batch(flows.map(|number| (number, ACK)));
        }
        load
    }

    /// Lets packets of random flows pass until told to stop. Times are since `began`.
    pub fn run(mut self, stop: &AtomicBool, began: Instant) -> Log {
        let mut window = Window { start_ns: since(began), ..Window::default() };
        let mut seen = self.stage.stats().seen.load(Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) {
            let flows: [_; BATCH] = std::array::from_fn(|_| (self.random.below(self.sizes.flows), ACK));
            let took = self.batch(flows.into_iter());
            let now_seen = self.stage.stats().seen.load(Ordering::Relaxed);
            if now_seen != seen {
                seen = now_seen;
                self.log.first_batches.push(took.as_nanos() as f64 / BATCH as f64);
            }
            if window.add(took, began) {
                let start_ns = window.end_ns;
                self.log.windows.push(std::mem::take(&mut window));
                window.start_ns = start_ns;
            }
        }
        self.log
    }

    fn batch(&mut self, flows: impl Iterator<Item = (usize, u8)>) -> Duration {
        let mut count = 0;
        let packets =
            flows.inspect(|_| count += 1).map(|(number, flags)| flow(number, &self.sizes).packet(flags));
        let took = self.stage.round(packets, Seconds(1));
        let (backends, moved) = (&mut self.backends, &mut self.log.moved);
        let sent = self.stage.drain(|sent| {
            let number = (sent.client - CLIENTS) as usize * PORTS + usize::from(sent.client_port) - 1024;
            let backend = &mut backends[number];
            if backend.is_unspecified() {
                *backend = sent.backend;
            }
            *moved += usize::from(*backend != sent.backend);
        });
        self.log.lost += count - sent;
        self.log.packets += count;
        took
    }
}

impl Window {
    /// Adds a batch. Returns whether the window is full.
    fn add(&mut self, took: Duration, began: Instant) -> bool {
        if took > INTERRUPTED {
            self.interrupted += 1;
        } else {
            self.packets += BATCH as u64;
            self.busy_ns += took.as_nanos() as u64;
        }
        self.end_ns = since(began);
        self.end_ns - self.start_ns >= WINDOW.as_nanos() as u64
    }
}

impl Log {
    /// Nanoseconds for a packet in these times, each from one to another.
    pub fn ns_per_packet(&self, spans_ns: &[(u64, u64)]) -> f64 {
        let (busy_ns, packets) = self.during(spans_ns);
        busy_ns / packets
    }

    /// Microseconds that packets took in some times beyond what as many took in others.
    pub fn excess_us(&self, spans_ns: &[(u64, u64)], others_ns: &[(u64, u64)]) -> f64 {
        let (busy_ns, packets) = self.during(spans_ns);
        (busy_ns - packets * self.ns_per_packet(others_ns)) / 1e3
    }

    /// Nanoseconds of batches and packets.
    fn during(&self, spans_ns: &[(u64, u64)]) -> (f64, f64) {
        let touches = |window: &&Window| {
            spans_ns.iter().any(|&(from_ns, to_ns)| window.start_ns < to_ns && window.end_ns > from_ns)
        };
        let add = |(busy, packets), window: &Window| (busy + window.busy_ns, packets + window.packets);
        let (busy_ns, packets) = self.windows.iter().filter(touches).fold((0, 0), add);
        (busy_ns as f64, packets as f64)
    }

    /// Batches that were interrupted.
    pub fn interrupted(&self) -> u64 {
        self.windows.iter().map(|window| window.interrupted).sum()
    }
}

/// Nanoseconds since then.
pub fn since(began: Instant) -> u64 {
    began.elapsed().as_nanos() as u64
}

fn flow(number: usize, sizes: &Sizes) -> Flow {
    let client = CLIENTS + (number / PORTS) as u32;
    let client_port = (1024 + number % PORTS) as u16;
    Flow { client, client_port, ..fleet::service(number % sizes.services) }
}
