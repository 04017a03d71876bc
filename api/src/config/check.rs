//! Health checks: what is asked of the backends of a pool, how often, and what follows from the answers. Types
//! only, and how they are said in words; `check/read.rs` reads them, `check/fit.rs` holds them against the
//! services, and [`targets`] says where probes go. Nothing here sends one.

mod fit;
mod http;
mod read;
mod targets;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

pub(super) use fit::hold;
pub(super) use read::{HealthRead, health, when_all_down};
use serde::{Deserialize, Serialize};
pub use targets::{Checked, Target, Targets};

use crate::snapshot::{Mode, Protocol};

/// A health check, the same for all backends of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Check {
    /// What is asked, and what is a good answer.
    pub kind: CheckKind,
    /// From the start of a probe to the start of the next.
    pub interval: Duration,
    /// A probe without an answer for so long has failed; at most the interval.
    pub timeout: Duration,
    /// So many good answers in a row bring a backend up; at least 1.
    pub rise: u32,
    /// So many failures in a row take it down; at least 1.
    pub fall: u32,
    /// The way that probes take to backends of modes `dr` and `ipip`; see [`Check::via_of`].
    pub via: Via,
}

/// What a check asks. A port of `None` stands for those of the services: see [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CheckKind {
    /// A connection is accepted.
    Tcp {
        /// Where; `None`: each TCP port of the services.
        port: Option<u16>,
    },
    /// A request over HTTP or HTTPS is answered well.
    Http(HttpCheck),
    /// A datagram is answered, or at least not by "port unreachable" (RFC 792, RFC 4443).
    Udp {
        /// Where; `None`: each UDP port of the services.
        port: Option<u16>,
        /// What is sent; may be empty.
        payload: Vec<u8>,
        /// What the answer must begin with; empty: any answer will do. `None`: silence is a good answer too.
        answer: Option<Vec<u8>>,
    },
    /// An echo request is answered.
    Icmp,
}

/// An HTTP request and what its answer must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HttpCheck {
    /// Where; `None`: each TCP port of the services.
    pub port: Option<u16>,
    /// `None` is plain HTTP.
    pub tls: Option<Tls>,
    /// `GET`, `HEAD`, `OPTIONS` or `POST`.
    pub method: String,
    /// Begins with `/`; ASCII without spaces. May hold a query.
    pub path: String,
    /// The header `Host`; `None`: the address that the probe is sent to.
    pub host: Option<String>,
    /// At least one; within 100…599.
    pub status: Vec<RangeInclusive<u16>>,
    /// What the body must contain; never with method `HEAD`.
    pub text: Option<String>,
}

/// How an HTTPS check treats the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tls {
    /// Whether the certificate must be valid for `server_name`, which then is there.
    pub verify: bool,
    /// The name or address asked for (RFC 6066), from the key `server_name` or else from `host`, without port.
    pub server_name: Option<String>,
}

/// The way a probe takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Via {
    /// To the VIP, delivered to the one backend as its traffic is.
    Service,
    /// To the backend's own address, as the kernel routes it.
    Direct,
}

/// What becomes of the flows of a backend that goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDown {
    /// Their next packet goes to another backend.
    #[default]
    Rehash,
    /// They stay until they end or fall silent.
    Keep,
}

/// What a service does when all its backends are down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenAllDown {
    /// As if all were up: the checks may be wrong, and nothing is lost by trying.
    #[default]
    UseAll,
    /// Takes no new flow.
    Refuse,
}

impl Check {
    /// The way probes take to a backend. One of mode `nat` knows no VIP and is always probed directly.
    pub fn via_of(&self, mode: Mode) -> Via {
        if mode == Mode::Nat { Via::Direct } else { self.via }
    }
}

impl CheckKind {
    /// The protocol whose ports of the services are probed; `None`: a check without ports.
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Tcp { .. } | Self::Http(_) => Some(Protocol::Tcp),
            Self::Udp { .. } => Some(Protocol::Udp),
            Self::Icmp => None,
        }
    }

    /// The port the configuration names.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port } | Self::Udp { port, .. } => *port,
            Self::Http(http) => http.port,
            Self::Icmp => None,
        }
    }

    /// The word of the key `type`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Http(HttpCheck { tls: None, .. }) => "http",
            Self::Http(_) => "https",
            Self::Udp { .. } => "udp",
            Self::Icmp => "icmp",
        }
    }
}

/// In words, such as `http GET /healthz port 8080`.
impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        if let Self::Http(HttpCheck { method, path, .. }) = self {
            write!(f, " {method} {path}")?;
        }
        self.port().map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

/// In words, such as `tcp every 2s, timeout 1s, rise 2, fall 3, via service`.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, interval, timeout, rise, fall, via } = self;
        let [interval, timeout] = [interval, timeout].map(|time| humantime::format_duration(*time));
        write!(f, "{kind} every {interval}, timeout {timeout}, rise {rise}, fall {fall}, via {via}")
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Service => "service",
            Self::Direct => "direct",
        })
    }
}

#[cfg(test)]
mod tests;
