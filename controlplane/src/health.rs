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

pub use limits::raise_open_files;
pub use machine::{Health, Transition};
pub use probe::{Prober, SourceAndMark};
pub use ramp::{RAMP_STEPS, next_step, ramp};
pub use runner::book::{Figures, HealthEvent, Status};
pub use runner::{Runner, Watch};
use shunt_api::config::{Check, CheckKind, Via};

/// What is checked. Two services that need the same thing checked in the same way have equal subjects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The backend that must answer.
    pub backend: IpAddr,
    /// Where the question is addressed: the backend itself, or a VIP of which the backend serves its share.
    /// Port 0 for ICMP.
    pub destination: SocketAddr,
    /// What is asked.
    pub check: Check,
}

impl Subject {
    /// What to check for a service on `vip` and `port`, whose packets reach the backend on `backend_port`
    /// (the same port unless the mode is NAT).
    pub fn new(backend: IpAddr, vip: IpAddr, port: u16, backend_port: u16, check: &Check) -> Self {
        let (address, port) = match check.via {
            Via::Service => (vip, port),
            Via::Direct => (backend, backend_port),
        };
        let port = match &check.kind {
            CheckKind::Tcp { port: own } | CheckKind::Udp { port: own, .. } => own.unwrap_or(port),
            CheckKind::Http(http) => http.port.unwrap_or(port),
            CheckKind::Icmp => 0,
        };
        Self { backend, destination: SocketAddr::new(address, port), check: check.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn destination(kind: CheckKind, via: Via) -> String {
        let check = check(kind, via);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        Subject::new(address("10.0.1.11"), address("192.0.2.1"), 80, 8080, &check).destination.to_string()
    }

    fn check(kind: CheckKind, via: Via) -> Check {
        let second = Duration::from_secs(1);
        Check { kind, interval: second, timeout: second, rise: 2, fall: 3, via }
    }

    #[test]
    fn the_way_and_the_port_decide_where_a_question_is_addressed() {
        assert_eq!(destination(CheckKind::Tcp { port: None }, Via::Direct), "10.0.1.11:8080");
        assert_eq!(destination(CheckKind::Tcp { port: None }, Via::Service), "192.0.2.1:80");
        assert_eq!(destination(CheckKind::Tcp { port: Some(81) }, Via::Service), "192.0.2.1:81");
        assert_eq!(destination(CheckKind::Icmp, Via::Service), "192.0.2.1:0");
    }
}
