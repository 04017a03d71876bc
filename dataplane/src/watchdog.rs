//! Notices workers that no longer go round. Looks at their heartbeats, never at their packets.
//!
//! It counts looks, not time: a process that was frozen as a whole has not stalled.

use std::sync::atomic::Ordering;

use crossbeam_utils::CachePadded;

use crate::limits::{STALL_FATAL_LOOKS, STALL_REPORTED_LOOKS};
use crate::stats::WorkerStats;

/// For each worker its last heartbeat and how many looks ago it came.
#[derive(Debug, Default)]
pub struct Watchdog {
    seen: Vec<(u64, u32)>,
}

impl Watchdog {
    /// Looks at all workers. Ends the process if one has stood still for [`STALL_FATAL_LOOKS`]: to be started
    /// afresh is better than a queue that nobody serves.
    pub fn look(&mut self, stats: &[CachePadded<WorkerStats>]) {
        let beats: Vec<u64> = stats.iter().map(|worker| worker.heartbeat.load(Ordering::Relaxed)).collect();
        if let Some(worker) = self.note(&beats) {
            tracing::error!(worker, "a worker hangs; ending the process so that it is started afresh");
            std::process::abort();
        }
    }

    /// Whether a worker stands still.
    pub fn is_stalled(&self, worker: usize) -> bool {
        self.seen.get(worker).is_some_and(|(_, looks)| *looks >= STALL_REPORTED_LOOKS)
    }

    /// Takes the heartbeats; returns a worker that stands still for too long.
    fn note(&mut self, beats: &[u64]) -> Option<usize> {
        self.seen.resize(beats.len(), (u64::MAX, 0));
        for (index, (seen, &beat)) in self.seen.iter_mut().zip(beats).enumerate() {
            let moved = seen.0 != beat;
            *seen = if moved { (beat, 0) } else { (beat, seen.1 + 1) };
            if seen.1 == STALL_REPORTED_LOOKS {
                tracing::warn!(worker = index, "a worker does not go round its loop");
            }
        }
        self.seen.iter().position(|(_, looks)| *looks >= STALL_FATAL_LOOKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stands_still_is_reported_then_fatal_and_one_that_moves_is_neither() {
        let mut watchdog = Watchdog::default();
        for look in 0..=STALL_REPORTED_LOOKS {
            assert_eq!(watchdog.note(&[5, u64::from(look)]), None);
        }
        assert_eq!((watchdog.is_stalled(0), watchdog.is_stalled(1)), (true, false));
        assert_eq!(watchdog.note(&[6, 99]), None);
        assert!(!watchdog.is_stalled(0));
        let fatal = (0..STALL_FATAL_LOOKS).find_map(|look| watchdog.note(&[6, u64::from(look)]));
        assert_eq!(fatal, Some(0));
    }
}
