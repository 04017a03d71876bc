//! The packet path with a network around it: two workers on memory, which share tables, as on a box.

use std::path::PathBuf;
use std::sync::Arc;

use ahash::RandomState;
use etherparse::SlicedPacket;
use etherparse::defrag::IpDefragPool;
use shunt_api::compile::compile;
use shunt_api::config::Config;
use shunt_api::counters::{Counter, CounterValues};
use shunt_api::snapshot::FleetKey;
use shunt_dataplane::conntrack::Seconds;
use shunt_dataplane::forward::{Decision, FlowTables, Verdict};
use shunt_dataplane::packet::{Packet, steering};
use shunt_dataplane::port::memory::MemoryPort;
use shunt_dataplane::port::{NicIndex, Port};
use shunt_dataplane::table::{Compiler, Forwarding};
use shunt_dataplane::worker::{Fate, Observer, Shared, Worker};

use crate::case::{Case, Input, Step};
use crate::network::Network;
use crate::report::{self, Seen, Told};
use crate::{language, print};

const WORKERS: usize = 2;
const FLOWS: usize = 1000;
const FLEET_KEY: FleetKey = FleetKey([7; 16]);

/// Hashes that are the same in every run.
const SEED: RandomState = RandomState::with_seeds(1, 2, 3, 4);

/// What stands in an input for the port of the source that the last translated packet left by.
const NAT_PORT: &str = "$nat";

/// Counters that say nothing about what became of a packet.
const UNTOLD: [Counter; 7] = [
    Counter::RxPackets,
    Counter::RxBytes,
    Counter::TxPackets,
    Counter::TxBytes,
    Counter::Batches,
    Counter::Sleeps,
    Counter::Realigned,
];

/// What was seen of one packet.
type Record = (Option<Packet>, Option<Decision>, Fate);

#[derive(Default)]
struct Recorder(Vec<Record>);

impl Observer for Recorder {
    fn saw(&mut self, packet: Option<&Packet>, decision: Option<&Decision>, fate: Fate) {
        self.0.push((packet.copied(), decision.copied(), fate));
    }
}

/// One box for one case.
struct World {
    network: Network,
    compiler: Compiler,
    flows: Arc<FlowTables>,
    shared: Option<Arc<Shared>>,
    workers: Vec<Worker<MemoryPort, Recorder>>,
    ring: usize,
    buffers: usize,
    lead: Vec<u8>,
    /// Port of the source that the last translated packet left by.
    nat_port: u16,
    fragments: IpDefragPool,
}

/// Runs a case on frames with so many bytes of headroom, and returns the lines that come of each input.
pub fn run(case: &Case, headroom: u8, seen: &mut Seen) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    World::of(case, headroom).play(case, |world, input| lines.push(world.take(input, seen)));
    lines
}

/// Runs a case with each frame of up to `longest` bytes cut off at every length. Returns how many were let in; each
/// was sent on, answered or dropped, or this panics.
pub fn run_cut(case: &Case, longest: usize) -> usize {
    let mut count = 0;
    World::of(case, 0).play(case, |world, input| {
        let frame = world.frame(input);
        for length in (0..=frame.len()).filter(|_| frame.len() <= longest) {
            world.pass(input, &frame[..length]);
            count += 1;
        }
    });
    count
}

/// Where the files are.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// What became of one packet, and what left.
struct Passed {
    told: Told,
    sent: Vec<(NicIndex, Vec<u8>)>,
}

impl World {
    fn of(case: &Case, headroom: u8) -> Self {
        Self {
            network: Network::read(&directory().join("network.toml")),
            compiler: Compiler::with_seed(SEED),
            flows: Arc::new(FlowTables::with_seed(FLOWS, FLOWS, &SEED)),
            shared: None,
            workers: vec![],
            ring: case.ring,
            buffers: case.buffers,
            lead: steering::lead(headroom),
            nat_port: 0,
            fragments: IpDefragPool::new(),
        }
    }

    fn play(&mut self, case: &Case, mut each: impl FnMut(&mut Self, &Input)) {
        for step in &case.steps {
            match step {
                Step::Scenario(name) => self.configure(name),
                Step::Input(input) => each(self, input),
            }
        }
    }

    /// Publishes a scenario, as the control thread does.
    fn configure(&mut self, scenario: &str) {
        let path = directory().join("scenarios").join(format!("{scenario}.toml"));
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let config = Config::parse(&text, &name).unwrap_or_else(|problem| panic!("{problem}"));
        let table = self.compiler.compile(&compile(&config, FLEET_KEY));
        let table = table.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (hops, nics) = (self.network.hops(&table), self.network.nics());
        let forwarding = Forwarding::new(1, Arc::new(table), hops, nics);
        match &self.shared {
            Some(shared) => shared.forwarding.store(Arc::new(forwarding)),
            None => self.start(forwarding),
        }
    }

    fn start(&mut self, forwarding: Forwarding) {
        let shared = Arc::new(Shared::new(forwarding, self.flows.clone(), WORKERS));
        let worker = |index| {
            let port = MemoryPort::new(self.buffers, self.ring);
            Worker::observed(port, Recorder::default(), shared.clone(), index, 64, false)
        };
        self.workers = (0..WORKERS).map(worker).collect();
        self.shared = Some(shared);
    }

    fn shared(&self) -> Arc<Shared> {
        self.shared.clone().expect("a case begins with a scenario")
    }

    fn frame(&self, input: &Input) -> Vec<u8> {
        let text = input.frame.replace(NAT_PORT, &self.nat_port.to_string());
        language::frame(&text).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Lets a packet in.
    fn pass(&mut self, input: &Input, frame: &[u8]) -> Passed {
        let shared = self.shared();
        let stats = &shared.stats[input.worker];
        let before = stats.values();
        let worker = &mut self.workers[input.worker];
        assert!(worker.port().inject_from(NicIndex(input.nic), &self.lead, frame), "out of buffers");
        worker.turn(Seconds(input.at));
        let sent = worker.port().take_transmitted();
        let census = worker.port().census();
        assert!(census.is_conserved() && census.fill == census.total, "{census:?}");
        let records = std::mem::take(&mut worker.observer().0);
        let [(packet, decision, fate)] = records[..] else { panic!("{} packets", records.len()) };
        if let Some(Verdict::Translate { translation, .. }) = decision.map(|decision| decision.verdict) {
            self.nat_port = translation.source.1;
        }
        Passed { told: Told { packet, decision, fate, counted: changed(&before, &stats.values()) }, sent }
    }

    /// Lets a packet in and tells what comes of it.
    fn take(&mut self, input: &Input, seen: &mut Seen) -> Vec<String> {
        let Passed { told, sent } = self.pass(input, &self.frame(input));
        let shared = self.shared();
        let table = &shared.forwarding.load().table;
        seen.add(&told, table);
        let mut lines = vec![told.line(table)];
        lines.extend(shared.notices.take().map(|notice| report::notice(notice, table, seen)));
        for (nic, frame) in sent {
            lines.extend(report::frame(nic, &frame));
            lines.extend(self.joined(&frame));
        }
        lines
    }

    /// The payload of a packet whose fragments have all left.
    fn joined(&mut self, frame: &[u8]) -> Option<String> {
        let sliced = SlicedPacket::from_ethernet(frame).ok()?;
        let whole = self.fragments.process_sliced_packet(&sliced, (), ()).ok()??;
        let ends = report::ends(&sliced)?;
        let around = print::Around { ends, complete: true };
        let (layers, _) = print::upper(whole.ip_number.0, &whole.payload, around, false);
        Some(format!("together: {}", report::text(&layers)))
    }
}

/// Counters that changed, after a look at the books: one packet in, one out or dropped.
fn changed(before: &CounterValues, after: &CounterValues) -> Vec<Counter> {
    let difference = |counter| after.counter(counter) - before.counter(counter);
    let dropped = after.dropped_total() - before.dropped_total();
    assert_eq!(difference(Counter::RxPackets), 1);
    assert_eq!(difference(Counter::TxPackets) + dropped, 1);
    let told = Counter::ALL.iter().copied().filter(|counter| !UNTOLD.contains(counter));
    told.filter(|counter| difference(*counter) > 0).collect()
}
