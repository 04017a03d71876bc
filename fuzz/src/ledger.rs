//! Counts what came, left and was dropped, to be held against the worker's own counters.

use std::collections::BTreeMap;

use shunt_api::counters::{Counter, CounterValues, DropReason};
use shunt_dataplane::worker::Fate;

/// Counts since the world began.
#[derive(Debug, Default)]
pub struct Ledger {
    packets: u64,
    bytes: u64,
    sent: u64,
    sent_bytes: u64,
    split: u64,
    dropped: BTreeMap<&'static str, u64>,
}

impl Ledger {
    /// A packet of so many bytes came, and this became of it.
    pub fn came(&mut self, bytes: usize, fate: Fate) {
        self.packets += 1;
        self.bytes += bytes as u64;
        match fate {
            Fate::Sent(_) => self.sent += 1,
            Fate::Dropped(reason) => *self.dropped.entry(reason.name()).or_default() += 1,
        }
    }

    /// A frame left.
    pub fn left(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }

    /// A packet left in two frames.
    pub fn split(&mut self) {
        self.split += 1;
    }

    /// The frame that just left is half of a packet that counts as dropped.
    pub fn stray(&mut self, bytes: usize) {
        self.sent_bytes -= bytes as u64;
    }

    /// Every counter that follows from fates is what was counted here.
    pub fn agrees_with(&self, values: &CounterValues) {
        let expected = [
            (Counter::RxPackets, self.packets),
            (Counter::RxBytes, self.bytes),
            (Counter::TxPackets, self.sent),
            (Counter::TxBytes, self.sent_bytes),
            (Counter::OuterFragmented, self.split),
        ];
        for (counter, expected) in expected {
            assert_eq!(values.counter(counter), expected, "{}", counter.name());
        }
        for reason in DropReason::ALL {
            let counted = self.dropped.get(reason.name()).copied().unwrap_or(0);
            assert_eq!(values.dropped(*reason), counted, "{}", reason.name());
        }
        assert_eq!(self.packets, self.sent + values.dropped_total(), "received = transmitted + dropped");
    }
}
