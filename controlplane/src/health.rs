//! Whether backends are alive.
//!
//! ```text
//!  Watch ──→ Runner ──→ Schedule: what is due ──→ probe ──→ Machine: up or down ──→ HealthEvent
//!  (what to check)      (pure)                    (I/O)     (pure)                  (to the control plane)
//! ```
//!
//! One check per distinct [`Subject`], however many services use it. Nothing here decides what follows from
//! a backend that is down, and nothing here knows pools or services.

mod limits;
mod machine;
mod probe;
mod ramp;
mod runner;
mod schedule;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

pub use limits::raise_open_files;
pub use machine::Health;
#[cfg(test)]
pub use machine::Transition;
pub use probe::{Prober, Way};
pub use ramp::{RAMP_STEPS, next_step, ramp};
pub use runner::book::{Figures, HealthEvent, Status};
pub use runner::{Runner, Watch};
/// What is checked. Two services that need the same thing checked in the same way have equal subjects. The port of its
/// destination is the one to ask, whatever its check says of ports.
pub use shunt_api::config::Target as Subject;

/// A seed for [`Runner::new`], another one for each process.
pub fn seed() -> u64 {
    RandomState::new().hash_one(0)
}
