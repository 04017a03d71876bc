//! Time on a machine that has other things to do: rounds in which the kernel gave the core to somebody else are left
//! out. What neighbours do to caches and clock rate still shows.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Adds up rounds.
#[derive(Debug)]
pub struct Stopwatch {
    /// `None` where the kernel does not tell.
    schedule: Option<File>,
    kept: Rounds,
    interrupted: Rounds,
}

#[derive(Debug, Default)]
struct Rounds {
    time: Duration,
    packets: usize,
}

impl Stopwatch {
    /// Of the calling thread.
    pub fn new() -> Self {
        let schedule = File::open("/proc/thread-self/schedstat").ok();
        Self { schedule, kept: Rounds::default(), interrupted: Rounds::default() }
    }

    /// Takes the time of one round of so many packets.
    pub fn round(&mut self, packets: usize, work: impl FnOnce()) {
        let turns = self.turns();
        let start = Instant::now();
        work();
        let time = start.elapsed();
        self.add(packets, time, self.turns() != turns);
    }

    fn add(&mut self, packets: usize, time: Duration, interrupted: bool) {
        let rounds = if interrupted { &mut self.interrupted } else { &mut self.kept };
        rounds.time += time;
        rounds.packets += packets;
    }

    /// What all packets would have taken without interruptions.
    pub fn total(&self) -> Duration {
        let Self { kept, interrupted, .. } = self;
        if kept.packets == 0 {
            return interrupted.time;
        }
        kept.time.mul_f64((kept.packets + interrupted.packets) as f64 / kept.packets as f64)
    }

    /// Times that the thread was given a core (Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat").
    fn turns(&self) -> Option<u64> {
        let mut bytes = [0; 64];
        let length = self.schedule.as_ref()?.read_at(&mut bytes, 0).ok()?;
        std::str::from_utf8(&bytes[..length]).ok()?.split_whitespace().nth(2)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_rounds_are_left_out() {
        let us = Duration::from_micros;
        let check = |rounds: &[(usize, u64, bool)], expected: u64| {
            let mut watch = Stopwatch::new();
            rounds.iter().for_each(|&(packets, time, interrupted)| watch.add(packets, us(time), interrupted));
            assert_eq!(watch.total(), us(expected), "{rounds:?}");
        };
        check(&[], 0);
        check(&[(10, 100, false), (10, 120, false)], 220);
        check(&[(10, 100, false), (10, 5000, true)], 200);
        check(&[(10, 5000, true)], 5000);
    }

    #[test]
    fn the_kernel_says_when_a_thread_gave_up_its_core() {
        let mut watch = Stopwatch::new();
        let Some(before) = watch.turns() else { return eprintln!("SKIPPED: no /proc/thread-self/schedstat") };
        let (_sender, receiver) = std::sync::mpsc::channel::<()>();
        watch.round(1, || assert!(receiver.recv_timeout(Duration::from_millis(2)).is_err()));
        assert!(watch.turns() > Some(before) && watch.kept.packets == 0, "{watch:?}");
    }
}
