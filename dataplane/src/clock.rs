//! Time as the packet path knows it: whole seconds since the process started, from the kernel's coarse
//! monotonic clock, which costs no system call and never jumps.

use rustix::time::{ClockId, clock_gettime};

use crate::conntrack::Seconds;

/// Counts from its own making.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: i64,
}

impl Clock {
    /// Starts at 0.
    pub fn start() -> Self {
        Self { start: clock_gettime(ClockId::MonotonicCoarse).tv_sec }
    }

    /// Seconds since the start.
    pub fn now(&self) -> Seconds {
        Seconds((clock_gettime(ClockId::MonotonicCoarse).tv_sec - self.start) as u32)
    }
}
