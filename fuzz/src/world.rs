//! One worker on a port in memory, the network around it, and everything that is known of what passed.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::RandomState;
use shunt_dataplane::conntrack::{FlowTable, Seconds};
use shunt_dataplane::forward::FlowTables;
use shunt_dataplane::fragments::Fragments;
use shunt_dataplane::limits::MAX_PIECES;
use shunt_dataplane::packet::steering;
use shunt_dataplane::port::memory::MemoryPort;
use shunt_dataplane::port::{NicIndex, Port};
use shunt_dataplane::table::{Compiler, Forwarding, Hop, NicLink, Table};
use shunt_dataplane::worker::{Shared, Worker};

use crate::check::{self, Frame, Notes};
use crate::ledger::Ledger;
use crate::model::Model;

/// Buffers of the port.
const BUFFERS: usize = 48;
/// Packets that wait for the worker at most.
const WAITING_MAX: usize = 32;
/// Flows of each family that tables are sized for: so few that they fill up.
const FLOWS: usize = 5;

/// The seed of all tables.
pub fn seed() -> RandomState {
    RandomState::with_seeds(1, 2, 3, 4)
}

/// What a world is made with.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Bytes of a buffer.
    pub chunk: usize,
    /// Buffers that can be on their way out.
    pub transmit_limit: usize,
    /// Packets that the worker takes at once.
    pub batch: usize,
}

/// A worker and what surrounds it.
pub struct World {
    worker: Worker<MemoryPort, Notes>,
    shared: Arc<Shared>,
    size: Size,
    now: Seconds,
    waiting: Vec<Frame>,
    oversized: u64,
    ledger: Ledger,
    model: Model,
    last: Option<Frame>,
}

impl World {
    /// A world that begins at `now`.
    pub fn new(size: Size, now: Seconds, table: Table, hops: Box<[Hop]>, nics: Box<[NicLink]>) -> Self {
        let flows = FlowTables {
            v4: FlowTable::new(FLOWS, &seed()),
            v6: FlowTable::new(FLOWS, &seed()),
            fragments: Fragments::new(&seed()),
        };
        let forwarding = Forwarding::new(1, Arc::new(table), hops, nics);
        let shared = Arc::new(Shared::new(forwarding, Arc::new(flows), 1));
        let port = MemoryPort::with_chunk_size(BUFFERS, size.transmit_limit, size.chunk);
        let worker = Worker::observed(port, Notes::default(), shared.clone(), 0, size.batch, false);
        let (waiting, last) = (Vec::new(), None);
        let (ledger, model) = (Ledger::default(), Model::default());
        Self { worker, shared, size, now, waiting, oversized: 0, ledger, model, last }
    }

    /// A compiler of tables for such worlds.
    pub fn compiler() -> Compiler {
        Compiler::with_seed(seed())
    }

    /// What all share, for whoever looks at the flows.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Now.
    pub fn now(&self) -> Seconds {
        self.now
    }

    /// The last frame that left, if any.
    pub fn last(&self) -> Option<&Frame> {
        self.last.as_ref()
    }

    /// Time passes.
    pub fn sleep(&mut self, seconds: u32) {
        self.turn();
        self.now = Seconds(self.now.0.saturating_add(seconds));
    }

    /// Another view is published.
    pub fn publish(&mut self, table: Arc<Table>, hops: Box<[Hop]>, nics: Box<[NicLink]>) {
        self.turn();
        let sequence = self.shared.forwarding.load().sequence + 1;
        self.shared.forwarding.store(Arc::new(Forwarding::new(sequence, table, hops, nics)));
    }

    /// The table in force.
    pub fn table(&self) -> Arc<Table> {
        self.shared.forwarding.load().table.clone()
    }

    /// A frame arrives, behind the bytes that the steering program puts before it.
    pub fn arrive(&mut self, nic: NicIndex, lead: &[u8], frame: &[u8]) {
        if self.waiting.len() == WAITING_MAX {
            self.turn();
        }
        if !self.worker.port().inject_from(nic, lead, frame) {
            self.turn();
            if !self.worker.port().inject_from(nic, lead, frame) {
                return;
            }
        }
        let bytes = [lead, frame].concat();
        if bytes.len().div_ceil(self.size.chunk) > MAX_PIECES {
            self.oversized += 1;
            return;
        }
        let headroom = steering::headroom(&bytes[..bytes.len().min(self.size.chunk)]);
        self.waiting.push(Frame { nic, bytes: bytes[headroom..].to_vec() });
    }

    /// The worker takes all that waits, and everything about it is checked.
    pub fn turn(&mut self) {
        let rounds = self.waiting.len().div_ceil(self.size.batch) + 1;
        for _ in 0..rounds {
            self.worker.turn(self.now);
            let census = self.worker.port().census();
            assert!(census.is_conserved() && census.worker == 0, "{census:?}");
        }
        let forwarding = self.shared.forwarding.load_full();
        let seen = std::mem::take(&mut self.worker.observer().0);
        assert_eq!(seen.len(), self.waiting.len(), "every packet has a fate");
        let mut gone = VecDeque::new();
        self.worker.port().drain(|nic, bytes| gone.push_back(Frame { nic, bytes: bytes.to_vec() }));
        self.last = gone.back().cloned().or(self.last.take());
        for (came, seen) in self.waiting.drain(..).zip(&seen) {
            check::fate(&came, seen, &forwarding, &mut gone, &mut self.ledger);
            if let Some((packet, decision)) = &seen.judged {
                self.model.learn(packet, decision, &forwarding.table);
            }
        }
        assert!(gone.is_empty(), "{} frames left that nobody sent", gone.len());
        let census = self.worker.port().census();
        assert_eq!((census.fill, census.transmit), (BUFFERS, 0), "all buffers are free again");
    }

    /// The last turn; afterwards the worker's counters say what was seen.
    pub fn end(mut self) {
        self.turn();
        self.ledger.agrees_with(&self.shared.stats[0].values());
        assert_eq!(self.worker.port().counters().oversized, self.oversized);
        assert_eq!(self.shared.stats[0].seen.load(std::sync::atomic::Ordering::Relaxed), {
            self.shared.forwarding.load().sequence
        });
    }
}
