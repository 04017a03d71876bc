//! Notices workers that no longer go round. Looks at their heartbeats, never at their packets.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_utils::CachePadded;

use crate::limits::{STALL_FATAL, STALL_REPORTED};
use crate::stats::WorkerStats;

/// When each worker's heartbeat was last seen to move.
#[derive(Debug, Default)]
pub struct Watchdog {
    seen: Vec<(u64, Instant)>,
    stalled: Vec<bool>,
}

impl Watchdog {
    /// Looks at all workers. Ends the process if one has stood still for [`STALL_FATAL`]: systemd then starts
    /// a fresh one, which is better than a queue that nobody serves.
    pub fn look(&mut self, stats: &[CachePadded<WorkerStats>], now: Instant) {
        let beats: Vec<u64> = stats.iter().map(|worker| worker.heartbeat.load(Ordering::Relaxed)).collect();
        if let Some(worker) = self.note(&beats, now) {
            tracing::error!(
                worker,
                "a worker has hung for {STALL_FATAL:?}; ending the process so that it is started afresh"
            );
            std::process::abort();
        }
    }

    /// Whether a worker stands still.
    pub fn is_stalled(&self, worker: usize) -> bool {
        self.stalled.get(worker).copied().unwrap_or(false)
    }

    /// Takes the heartbeats; returns a worker that stands still for too long.
    fn note(&mut self, beats: &[u64], now: Instant) -> Option<usize> {
        self.seen.resize(beats.len(), (u64::MAX, now));
        self.stalled.resize(beats.len(), false);
        for (index, &beat) in beats.iter().enumerate() {
            if self.seen[index].0 != beat {
                self.seen[index] = (beat, now);
            }
            let stalled = now - self.seen[index].1 >= STALL_REPORTED;
            if stalled != self.stalled[index] {
                self.stalled[index] = stalled;
                tracing::warn!(worker = index, stalled, "worker's heartbeat");
            }
        }
        self.seen.iter().position(|(_, since)| now - *since >= STALL_FATAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stands_still_is_reported_then_fatal_and_one_that_moves_is_neither() {
        let mut watchdog = Watchdog::default();
        let start = Instant::now();
        assert_eq!(watchdog.note(&[5, 5], start), None);
        assert_eq!(watchdog.note(&[5, 6], start + STALL_REPORTED), None);
        assert_eq!((watchdog.is_stalled(0), watchdog.is_stalled(1)), (true, false));
        assert_eq!(watchdog.note(&[6, 7], start + STALL_REPORTED * 2), None);
        assert!(!watchdog.is_stalled(0));
        assert_eq!(watchdog.note(&[6, 8], start + STALL_REPORTED * 2 + STALL_FATAL), Some(0));
    }
}
