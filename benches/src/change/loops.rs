//! What the other core may do that has nothing to do with Shunt.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// Words of memory that are read and written: 64 MiB, more than the caches hold.
const WORDS: usize = 8 << 20;
/// Steps between two looks at the clock.
const STEPS: usize = 1000;

/// Busy loops and their memory.
pub struct Loops {
    words: Vec<u64>,
    state: u64,
}

impl Loops {
    /// Takes the memory.
    pub fn new() -> Self {
        Self { words: vec![1; WORDS], state: 1 }
    }

    /// Multiplies and adds.
    pub fn calculate(&mut self, duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {
            (0..STEPS).for_each(|_| self.next());
        }
        black_box(self.state);
    }

    /// Reads and writes memory in no order.
    pub fn store(&mut self, duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {
            for _ in 0..STEPS {
                self.next();
                self.words[(self.state >> 40) as usize % WORDS] += self.state;
            }
        }
        black_box(&self.words);
    }

    /// Knuth's multiplier for 64 bits (MMIX).
    fn next(&mut self) {
        self.state = black_box(self.state)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
    }
}

/// Does nothing.
pub fn rest(duration: Duration) {
    let start = Instant::now();
    while let Some(left) = duration.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
