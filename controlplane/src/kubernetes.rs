//! The Service LoadBalancer provider: what a cluster asks for becomes pools and services, and the cluster is told what
//! came of it.
//!
//! ```text
//!  watch ──→ facts ──→ ipam: addresses ──→ translate: pools, services ──→ the control plane's configuration
//!  (I/O)    (pure)    (pure)              (pure)
//!                          └──→ report: finalizers, status, events (pure) ──→ write (I/O, the leader alone)
//! ```

pub mod extract;
pub mod facts;
pub mod ipam;
pub mod report;
pub mod translate;
pub mod watch;
