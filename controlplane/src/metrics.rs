//! What a monitoring system is told, in Prometheus' text form (`GET /metrics` on the control plane's socket). Pure:
//! [`families`] makes all of it of what the status page tells, anew for each question, and nothing is kept here, so
//! there are as many series as services, backends, workers, NICs and clusters, and no more.
//!
//! Names and labels are stable; `docs/metrics.md` lists them, which a test holds.

mod families;
mod page;

use shunt_api::status::{BackendView, ControlStatus, ServiceView, Stats};

/// What there is to tell of.
pub struct Facts<'a> {
    /// The control plane and, if it is connected, the dataplane.
    pub status: &'a ControlStatus,
    /// What the workers count; `None` if the dataplane does not answer.
    pub stats: Option<&'a Stats>,
    /// One for each VIP and port.
    pub services: &'a [ServiceView],
    /// Of each pool.
    pub backends: &'a [BackendView],
}

/// The media type of [`text`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics.
pub fn text(facts: &Facts<'_>) -> String {
    page::text(&families::families(facts))
}

#[cfg(test)]
mod tests;
