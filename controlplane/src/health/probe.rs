//! Asks a backend whether it is alive: one question, one answer, within a timeout. A probe keeps nothing and
//! decides nothing; dropping its future ends it and closes its socket.
//!
//! What counts as alive:
//! - TCP: the connection is accepted. It is ended with a reset, so that neither side keeps it.
//! - HTTP and HTTPS: the answer's status, and its text if one is expected. Redirects are not followed.
//! - UDP: an answer that starts as expected. When none is expected, anything but a refusal (ICMP port
//!   unreachable) is a success, silence included, as with keepalived: many services answer nothing to a
//!   datagram they do not know. A host that is switched off is silent too; expect an answer where one can.
//! - ICMP: the reply to this very echo request.

mod failure;
mod http;
mod icmp;
mod socket;
mod tcp;
mod tls;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use failure::Within;
pub use failure::{Failure, Fault};
use shunt_api::config::{Check, CheckKind};
use tls::Connectors;

/// Where a question goes, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is addressed; ICMP ignores the port.
    pub address: SocketAddr,
    /// Where it comes from.
    pub bind: SourceAndMark,
    /// A question is made so many bytes long at least, to see whether large packets pass; 0 leaves it short.
    /// HTTP adds a header, ICMP adds data (this long with its own header of 8 bytes); a TCP connection has
    /// nothing to lengthen, and a datagram is what the service expects. At most [`PAD_MAX`].
    pub pad_to: u16,
}

/// Longest question: web servers refuse headers of more than 8 kB, or of 4 kB where memory is short.
pub const PAD_MAX: u16 = 4_000;

/// How a probe's packets leave this box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceAndMark {
    /// Source address; `None` leaves it to the routing table.
    pub source: Option<IpAddr>,
    /// `SO_MARK`, by which rules and programs tell the way; `None` sets none.
    pub mark: Option<u32>,
}

/// Asks; shared by all probes.
pub struct Prober {
    connectors: Connectors,
}

impl Prober {
    /// Trusts whom this box trusts (`/etc/ssl/certs`, or `SSL_CERT_FILE` and `SSL_CERT_DIR`), as of now.
    pub fn new() -> Self {
        Self { connectors: Connectors::of_this_box() }
    }

    /// Asks what `check` asks. Returns how long the answer took; `None` is a silence that is a success.
    pub async fn probe(&self, check: &Check, target: &Target) -> Result<Option<Duration>, Failure> {
        let within = Within::starting_now(check.timeout);
        let started = Instant::now();
        let answered = match &check.kind {
            CheckKind::Tcp { .. } => tcp::connect(target, within).await.map(|_| true)?,
            CheckKind::Http(request) => {
                http::ask(request, target, &self.connectors, within).await.map(|()| true)?
            }
            CheckKind::Udp { payload, answer, .. } => {
                udp::ask(payload, answer.as_deref(), target, within).await?
            }
            CheckKind::Icmp => icmp::ask(target, within).await.map(|()| true)?,
        };
        Ok(answered.then(|| started.elapsed()))
    }
}

#[cfg(test)]
pub mod tests;
