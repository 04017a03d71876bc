//! What would become of a packet, and why: asked of the dataplane, which knows flows and ways, by way of the control
//! plane, which knows backends and can suppose other configurations.
//!
//! Dataplane socket: `POST /v1/explain` with [`Asked`] → [`Explanation`], or 422 with the reason in text.
//! Control-plane socket: `POST /v1/explain` with [`ExplainRequest`] → [`Explanation`], or 422 with the reason in text.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::snapshot::{Mode, Protocol, Snapshot};
use crate::status::{FlowView, ResolvedHop};

/// A packet that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketQuestion {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Of TCP: a SYN, which begins a connection; otherwise an ACK in the middle of one.
    pub begins: bool,
    /// Bytes of the IP packet.
    pub length: u16,
}

/// What the control plane is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// The packet.
    pub packet: PacketQuestion,
    /// Another configuration file in place of the one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<SupposedFile>,
    /// Names or addresses of backends to be taken for down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub down: Vec<String>,
}

/// A configuration that is not in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupposedFile {
    /// Its name, for what is wrong with it.
    pub file: String,
    /// What stands in it.
    pub text: String,
}

/// What the dataplane is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The packet.
    pub packet: PacketQuestion,
    /// What it would obey, if not what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Box<Snapshot>>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It goes on to a backend as it is, perhaps in a tunnel.
    Forward,
    /// It goes on to a backend with new ends.
    Translate,
    /// It goes back to the client of a translated flow.
    Return,
    /// Its sender is answered.
    Reply,
    /// It is gone.
    Drop,
    /// It is for the host.
    Pass,
}

impl Verdict {
    /// In a report, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Translate => "translate",
            Self::Return => "return",
            Self::Reply => "reply",
            Self::Drop => "drop",
            Self::Pass => "pass",
        }
    }
}

/// The rule of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Whose the destination address is.
    Address,
    /// What serves its port.
    Service,
    /// Whether the client may come.
    SourceRange,
    /// What is remembered of the flow.
    FlowTable,
    /// What is remembered of the client.
    Affinity,
    /// What Maglev says.
    Maglev,
    /// Where it goes.
    Backend,
    /// What checks say of the backend.
    Health,
    /// The source that a translated flow leaves by.
    Source,
    /// The next hop.
    Way,
    /// Whether it fits.
    Length,
    /// What leaves.
    Wire,
}

impl Rule {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Service => "service",
            Self::SourceRange => "source range",
            Self::FlowTable => "flow table",
            Self::Affinity => "affinity",
            Self::Maglev => "Maglev",
            Self::Backend => "backend",
            Self::Health => "health",
            Self::Source => "source",
            Self::Way => "way",
            Self::Length => "length",
            Self::Wire => "wire",
        }
    }
}

/// One rule and what it says of the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub rule: Rule,
    /// What it says, in words.
    pub finding: String,
    /// Whether it is what decided where the packet goes, or that it goes nowhere.
    pub decides: bool,
}

/// What would become of a packet, step by step, in the order in which workers go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The question.
    pub packet: PacketQuestion,
    /// Of the snapshot that it was answered by.
    pub generation: u64,
    /// Nothing of it is in force: another configuration was supposed, or backends down.
    pub supposed: bool,
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// Why it is dropped, answered or left to the host: the name of a drop reason or of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Name of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Address of the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<IpAddr>,
    /// How packets get to the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The flow's entry, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowView>,
    /// The slot of the Maglev table that the flow falls into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The next hop, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<ResolvedHop>,
    /// Every rule that was asked.
    pub steps: Vec<Step>,
}
