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

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use failure::Within;
pub use failure::{Failure, Fault};
use shunt_api::config::{Check, CheckKind};
use tls::Connectors;

/// Where a question goes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is addressed; ICMP ignores the port.
    pub address: SocketAddr,
    /// By way of the dataplane; `None` goes as the kernel routes it.
    pub way: Option<Way>,
    /// VIPs and the like, which no question may come from: the answer would go astray.
    pub never_from: Arc<HashSet<IpAddr>>,
}

/// The way that the dataplane gives to marked packets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// `SO_MARK` of the socket.
    pub mark: u32,
    /// The backend they are delivered to.
    pub backend: IpAddr,
    /// Bytes of IP packet that fit the way, if that is known. HTTP and ICMP fill a packet of that size, so that a
    /// path which loses full packets is found out; a TCP connection has nothing to lengthen, and a datagram is what
    /// the service expects.
    pub room: Option<u16>,
    /// Name of the NIC by which packets leave, if that is known.
    pub nic: Option<Arc<str>>,
}

/// Longest padding: web servers refuse headers of more than 8 kB, or of 4 kB where memory is short.
pub const PAD_MAX: u16 = 4_000;

impl Target {
    /// The beginning of what is said when nothing comes back.
    fn no_answer(&self) -> String {
        match self.way.as_ref().and_then(|way| way.room) {
            Some(room) => format!("no answer to packets of up to {room} bytes"),
            None => "no answer".to_owned(),
        }
    }

    /// Bytes that fit behind the IP header of a full packet, if one is to be sent.
    fn room(&self) -> Option<u16> {
        let header = if self.address.is_ipv4() { 20 } else { 40 };
        Some(self.way.as_ref()?.room?.saturating_sub(header))
    }
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
