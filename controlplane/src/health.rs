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

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use limits::raise_open_files;
pub use machine::{Health, Transition};
pub use probe::{Prober, SourceAndMark};
pub use ramp::{RAMP_STEPS, next_step, ramp};
pub use runner::book::{Figures, HealthEvent, Status};
pub use runner::{Runner, Watch};
use shunt_api::config::Check;
use shunt_api::snapshot::Mode;

/// What is checked. Two services that need the same thing checked in the same way have equal subjects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The backend that must answer.
    pub backend: IpAddr,
    /// How packets get there.
    pub mode: Mode,
    /// Where the question is addressed: the backend itself, or a VIP of which the backend serves its share.
    /// Port 0 for ICMP. The port is the one to ask, whatever `check` says of ports.
    pub destination: SocketAddr,
    /// What is asked.
    pub check: Arc<Check>,
}
