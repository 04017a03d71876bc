//! Offline replay: the workers' own code over a capture, with no NIC and without root. It answers "what would Shunt
//! do with these packets?", and tests ask it the same.
//!
//! A [`Replay`] is a box of one NIC and one worker whose time is the capture's: it steers, decides, rewrites and
//! sends one packet at a time, so that what leaves belongs to what came. Its next hops are made up ([`ways`]), its
//! flow table starts empty, and the same capture gives the same bytes in every run. It does no I/O but in
//! [`command`].

pub mod account;
pub mod capture;
pub mod command;
pub mod report;
pub mod steering;
pub mod ways;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use shunt_api::counters::{Counter, CounterValues};
use shunt_api::snapshot::Snapshot;

use crate::conntrack::Seconds;
use crate::forward::{Decision, FlowTables};
use crate::notices::Notice;
use crate::packet::{Packet, steering::lead};
use crate::path_mtu::PathMtus;
use crate::port::memory::MemoryPort;
use crate::sweep::Sweep;
use crate::table::{Compiler, Forwarding, Table, TableError};
use crate::ways::{headrooms, tunnel_sources};
use crate::worker::{Fate, Observer, Shared, Worker};
use account::{Account, BAD_SOURCE_MAC, OVERSIZED, Saw, Verdict};
use steering::{Steered, Steering};
use ways::{Neighbor, Ways};

/// Buffers of the port: twice what the largest packet needs that is not oversized.
const FRAMES: usize = 64;

/// Flows of each kind there is room for at most, whatever the configuration says: more are in no capture that
/// anybody waits for, and they take up to 160 MB of memory.
const FLOWS_MAX: u32 = 1 << 20;

/// Seeds of the tables, so that every run is the same.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// The longest idle time that can be configured.
const DAY_S: u32 = 24 * 60 * 60;

/// What of a box is not in its configuration.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Next hops that are known.
    pub neighbors: &'a [Neighbor],
    /// Bytes of IP packet that fit every way.
    pub mtu: u32,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Self { neighbors: &[], mtu: 1500 }
    }
}

/// Why there is no box to replay on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The dataplane would refuse the snapshot, too.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Hardly meant.
    #[error("--neighbor {0}: no backend has this address; name one of the configuration's backends")]
    NoSuchBackend(IpAddr),
}

/// A box that exists in memory only.
pub struct Replay {
    worker: Worker<MemoryPort, Recorder>,
    shared: Arc<Shared>,
    table: Arc<Table>,
    steering: Steering,
    ways: Ways,
    paths: PathMtus,
    clock: CaptureClock,
    swept: Seconds,
    in_worker: Duration,
}

impl Replay {
    /// A box that obeys this snapshot.
    pub fn new(snapshot: &Snapshot, settings: &Settings<'_>) -> Result<Self, ReplayError> {
        let snapshot = limited(snapshot);
        let [a, b, c, d] = SEEDS;
        let seed = RandomState::with_seeds(a, b, c, d);
        let table = Arc::new(Compiler::with_seed(seed.clone()).compile(&snapshot)?);
        let ways = Ways::new(settings.neighbors, settings.mtu);
        if let Some(stranger) = ways.stranger(&table) {
            return Err(ReplayError::NoSuchBackend(stranger));
        }
        let paths = PathMtus::default();
        let (hops, nics) = (ways.hops(&table, &paths), ways.nics());
        let steering = Steering::new(&headrooms(&table, &hops, &nics), tunnel_sources(&table, &hops));
        let (v4, v6) = (snapshot.dataplane.max_flows_v4, snapshot.dataplane.max_flows_v6);
        let flows = FlowTables::with_seed(v4 as usize, v6 as usize, &seed);
        let forwarding = Forwarding::new(1, table.clone(), hops, nics);
        let shared = Arc::new(Shared::new(forwarding, Arc::new(flows), 1));
        let port = MemoryPort::new(FRAMES, FRAMES);
        Ok(Self {
            worker: Worker::observed(port, Recorder::default(), shared.clone(), 0, 1, false),
            shared,
            steering,
            table,
            ways,
            paths,
            clock: CaptureClock::default(),
            swept: Seconds(0),
            in_worker: Duration::ZERO,
        })
    }

    /// Plays one frame that came at this time; `send` gets what leaves because of it. A time before that of an
    /// earlier frame counts as that one's.
    pub fn play(&mut self, time: Duration, frame: &[u8], send: impl FnMut(&[u8])) -> Account {
        let before = self.clock.now();
        let now = self.clock.advance(time);
        self.forget(before, now);
        match self.steering.steer(frame) {
            Steered::Taken { headroom } => self.work(headroom, frame, now, send),
            Steered::Passed(reason) => Account::unseen(Verdict::Pass, frame, reason),
            Steered::BadSourceMac => Account::unseen(Verdict::Drop, frame, BAD_SOURCE_MAC),
        }
    }

    /// What the worker counted.
    pub fn counters(&self) -> CounterValues {
        self.shared.stats[0].values()
    }

    /// Time that the worker took.
    pub fn in_worker(&self) -> Duration {
        self.in_worker
    }

    /// One turn of the worker, with one packet.
    fn work(&mut self, headroom: u8, frame: &[u8], now: Seconds, mut send: impl FnMut(&[u8])) -> Account {
        let told_before = self.told_too_big();
        // What is larger than all the port's buffers is as oversized as what the port refuses itself.
        self.worker.port().inject(&lead(headroom), frame);
        let start = Instant::now();
        self.worker.turn(now);
        self.in_worker += start.elapsed();
        let Some(saw) = self.worker.observer().0.take() else {
            return Account::unseen(Verdict::Drop, frame, OVERSIZED);
        };
        let mut sent = 0;
        self.worker.port().drain(|_, bytes| {
            sent += 1;
            send(bytes);
        });
        let account = Account::seen(&self.table, &saw, self.told_too_big() > told_before, sent);
        self.heed_notices();
        account
    }

    fn told_too_big(&self) -> u64 {
        self.shared.stats[0].counter(Counter::TooBigReplies)
    }

    /// What the control thread does between packets with what the worker noticed.
    fn heed_notices(&mut self) {
        let at = self.clock.instant();
        let mut news = false;
        for notice in self.shared.notices.take() {
            let Notice::TunnelTooBig { backend, mtu } = notice else { continue };
            news |= self.table.address(backend).is_some_and(|backend| self.paths.heard(backend, mtu, at));
        }
        if news {
            self.publish();
        }
    }

    /// What the control thread does while time goes by: forgets path MTUs and flows. The sweep is for their
    /// ages alone, which are kept modulo twelve days: it need not find what is forgotten when it is looked up.
    fn forget(&mut self, before: Seconds, now: Seconds) {
        if self.paths.forget(self.clock.instant()) {
            self.publish();
        }
        if now.0 - self.swept.0 < DAY_S {
            return;
        }
        // After two days of silence there is nothing left to forget.
        let at = Seconds(now.0.min(before.0.saturating_add(2 * DAY_S)));
        Sweep::default().step(&self.shared.flows, &self.table, at, 1);
        self.swept = now;
    }

    fn publish(&mut self) {
        let sequence = self.shared.forwarding.load().sequence + 1;
        let (hops, nics) = (self.ways.hops(&self.table, &self.paths), self.ways.nics());
        let forwarding = Forwarding::new(sequence, self.table.clone(), hops, nics);
        self.shared.forwarding.store(Arc::new(forwarding));
    }
}

/// Keeps what the worker says of its packet.
#[derive(Debug, Default)]
struct Recorder(Option<Saw>);

impl Observer for Recorder {
    fn saw(&mut self, packet: Option<&Packet>, decision: Option<&Decision>, fate: Fate) {
        self.0 = Some(Saw { packet: packet.copied(), decision: decision.copied(), fate });
    }
}

/// Time as the capture tells it, never going back.
#[derive(Debug)]
struct CaptureClock {
    /// Stands for the time of the first packet.
    start: Instant,
    first: Option<Duration>,
    since_first: Duration,
}

impl Default for CaptureClock {
    fn default() -> Self {
        Self { start: Instant::now(), first: None, since_first: Duration::ZERO }
    }
}

impl CaptureClock {
    fn advance(&mut self, time: Duration) -> Seconds {
        let first = *self.first.get_or_insert(time);
        self.since_first = self.since_first.max(time.saturating_sub(first));
        self.now()
    }

    fn now(&self) -> Seconds {
        Seconds(u32::try_from(self.since_first.as_secs()).unwrap_or(u32::MAX))
    }

    fn instant(&self) -> Instant {
        self.start.checked_add(self.since_first).unwrap_or(self.start)
    }
}

/// With tables no larger than a replay needs.
fn limited(snapshot: &Snapshot) -> Snapshot {
    let mut limited = snapshot.clone();
    for flows in [
        &mut limited.dataplane.max_flows_v4,
        &mut limited.dataplane.max_flows_v6,
        &mut limited.nat.max_flows_v4,
        &mut limited.nat.max_flows_v6,
    ] {
        *flows = (*flows).min(FLOWS_MAX);
    }
    limited
}

#[cfg(test)]
mod tests;
