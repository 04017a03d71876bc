//! One change as the control thread makes it: from the JSON text of a snapshot until the old tables are free.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shunt_api::snapshot::Snapshot;
use shunt_dataplane::table::{Compiler, Table};
use shunt_dataplane::worker::Shared;
use shunt_tests::error::{Error, Result, While, ensure};

use super::fleet::{self, Sizes};
use super::load::since;
use crate::stage::Network;

/// Time in which a worker must have taken over a view.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the control thread keeps.
pub struct Control {
    compiler: Compiler,
    /// In force.
    table: Arc<Table>,
    snapshot: Snapshot,
    sequence: u64,
    began: Instant,
    memory_before: u64,
}

/// Times of one change.
#[derive(Clone, Debug)]
pub struct Cycle {
    /// From the text to a snapshot.
    pub parse: Duration,
    /// From the snapshot to tables.
    pub compile: Duration,
    /// Ways to all backends.
    pub ways: Duration,
    /// From the swap until the worker had finished a batch by the new view.
    pub seen: Duration,
    /// The old view, its tables and its snapshot.
    pub free: Duration,
    /// All of it, as times since the beginning.
    pub span_ns: (u64, u64),
    /// The swap.
    pub swapped_ns: u64,
    /// Bytes of memory that the process had at most, beyond what it had before the first change.
    pub peak_bytes: u64,
    /// Services whose flows must be looked at again.
    pub services_renewed: usize,
}

impl Control {
    /// With a first snapshot, from nothing. Also returns the bytes of memory that its table takes.
    pub fn new(snapshot: Snapshot, began: Instant) -> Result<(Self, u64)> {
        let mut compiler = Compiler::default();
        let before = memory("VmRSS")?;
        let table = Arc::new(compile(&mut compiler, &snapshot)?);
        let table_bytes = memory("VmRSS")?.saturating_sub(before);
        Ok((Self { compiler, table, snapshot, sequence: 1, began, memory_before: 0 }, table_bytes))
    }

    /// Takes what memory the process has now for what it has before the first change.
    pub fn note_memory(&mut self) -> Result<()> {
        self.memory_before = memory("VmRSS")?;
        Ok(())
    }

    /// In force.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Has the worker forward by a snapshot.
    pub fn apply(&mut self, text: &[u8], network: &Network, shared: &Shared, sizes: &Sizes) -> Result<Cycle> {
        forget_peak()?;
        let start_ns = since(self.began);
        let (snapshot, parse) = timed(|| serde_json::from_slice::<Snapshot>(text));
        let snapshot = snapshot.map_err(|error| Error::Wrong(error.to_string()))?;
        let (table, compile) = timed(|| compile(&mut self.compiler, &snapshot));
        let table = Arc::new(table?);
        self.sequence += 1;
        let (forwarding, ways) = timed(|| {
            let forwarding = network.forwarding(self.sequence, table.clone());
            Arc::new(forwarding.after(&shared.forwarding.load()))
        });
        let swapped_ns = since(self.began);
        let before = shared.forwarding.swap(forwarding);
        let (waited, seen) = timed(|| self.wait_until_seen(shared));
        waited?;
        ensure(Arc::strong_count(&before) == 1, || {
            "the old view is still in use, so a worker might be the one to free it".to_owned()
        })?;
        let services_renewed = renewed(&self.table, &table, sizes);
        let (snapshot_before, table_before) =
            (std::mem::replace(&mut self.snapshot, snapshot), std::mem::replace(&mut self.table, table));
        let ((), free) = timed(|| drop((before, table_before, snapshot_before)));
        let span_ns = (start_ns, since(self.began));
        let peak_bytes = memory("VmHWM")?.saturating_sub(self.memory_before);
        Ok(Cycle { parse, compile, ways, seen, free, span_ns, swapped_ns, peak_bytes, services_renewed })
    }

    fn wait_until_seen(&self, shared: &Shared) -> Result<()> {
        let start = Instant::now();
        while shared.stats[0].seen.load(Ordering::Acquire) < self.sequence {
            ensure(start.elapsed() < PATIENCE, || {
                "the worker did not take over the new view; it hangs".to_owned()
            })?;
            std::hint::spin_loop();
        }
        Ok(())
    }
}

fn compile(compiler: &mut Compiler, snapshot: &Snapshot) -> Result<Table> {
    compiler.compile(snapshot).map_err(|error| Error::Wrong(error.to_string()))
}

/// Services that have another version.
fn renewed(before: &Table, after: &Table, sizes: &Sizes) -> usize {
    let version = |table: &Table, number: usize| {
        table.listener_of(&fleet::service(number).key()).map(|listener| table.listener(listener).version)
    };
    (0..sizes.services).filter(|&number| version(before, number) != version(after, number)).count()
}

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = act();
    (result, start.elapsed())
}

/// Bytes that the kernel counts for this process (proc(5), `/proc/pid/status`).
fn memory(field: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").to(|| "read /proc/self/status".to_owned())?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| Error::Wrong(format!("/proc/self/status has no {field}; is this Linux?")))
}

/// Has the kernel measure the peak of memory from now on (proc(5), `/proc/pid/clear_refs`).
fn forget_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").to(|| "reset the peak of memory".to_owned())
}
