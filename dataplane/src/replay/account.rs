//! The account of one packet: what became of it, for which service and backend, and why, in a report's words.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use shunt_api::counters::DropReason;
pub use shunt_api::explain::Verdict;
use shunt_api::snapshot::{Mode, Protocol};

use crate::flow::FlowKey;
use crate::forward::{self, Decision, Reply};
use crate::packet::{self, Content, Packet, transport};
use crate::table::Table;
use crate::worker::Fate;

/// Dropped by the steering program: a group of stations sent it.
pub const BAD_SOURCE_MAC: &str = "bad_source_mac";
/// Dropped by the port: it has more pieces than a socket takes.
pub const OVERSIZED: &str = "oversized";
/// Why a packet was answered that fits no way to the backend.
const TOO_BIG: &str = "too_big";

/// What became of one packet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What became of it.
    pub verdict: Verdict,
    /// What it is, if it could be read.
    pub subject: Option<Subject>,
    /// Name of the service that it belongs to.
    pub service: Option<Arc<str>>,
    /// Address of the backend that it goes to or comes from.
    pub backend: Option<IpAddr>,
    /// How packets get to the backend.
    pub mode: Option<Mode>,
    /// Why it was dropped, answered or left to the host: the name of a drop reason, of an answer, or of a kind
    /// of packet.
    pub reason: Option<&'static str>,
    /// Packets that left because of it.
    pub sent: u32,
}

/// A packet's kind and ends; text form `tcp 192.0.2.1:40000 -> 203.0.113.10:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    content: Content,
    flow: FlowKey,
}

impl From<&Packet> for Subject {
    fn from(packet: &Packet) -> Self {
        Self { content: packet.content, flow: packet.flow }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, vip) = (self.flow.client(), self.flow.vip());
        match self.content {
            Content::Whole => self.flow.fmt(f),
            Content::FirstFragment { .. } => write!(f, "{}, first fragment", self.flow),
            Content::LaterFragment { protocol, .. } => match transport::protocol(protocol) {
                Some(protocol) => write!(f, "{protocol} {client} -> {vip}, later fragment"),
                None => write!(f, "protocol {protocol} {client} -> {vip}, later fragment"),
            },
            Content::Echo => write!(f, "icmp echo {client} -> {vip}"),
            // Somebody could not deliver a packet that went the other way.
            Content::Error => write!(f, "icmp error about {}", reversed(&self.flow)),
            Content::TunnelError { .. } => write!(f, "icmp error about tunnel {vip} -> {client}"),
        }
    }
}

fn reversed(flow: &FlowKey) -> FlowKey {
    let port = flow.service_port();
    FlowKey::new((flow.vip(), port.port), (flow.client(), flow.client_port()), port.protocol).unwrap_or(*flow)
}

impl Account {
    /// Of a packet that no worker saw.
    pub fn unseen(verdict: Verdict, frame: &[u8], reason: &'static str) -> Self {
        let subject = packet::parse(frame, frame.len()).ok().map(|packet| Subject::from(&packet));
        let reason = Some(reason);
        Self { verdict, subject, service: None, backend: None, mode: None, reason, sent: 0 }
    }

    /// Of a packet that a worker saw; `is_told_too_big` if its sender was.
    pub fn seen(table: &Table, saw: &Saw, is_told_too_big: bool, sent: u32) -> Self {
        let (verdict, reason) = verdict(saw, is_told_too_big);
        let unrouted = Self {
            verdict,
            subject: saw.packet.as_ref().map(Subject::from),
            service: None,
            backend: None,
            mode: None,
            reason,
            sent,
        };
        match (&saw.packet, &saw.decision) {
            (Some(packet), Some(decision)) => unrouted.routed(table, packet, decision),
            _ => unrouted,
        }
    }

    /// With the service and backend that a decision names.
    fn routed(self, table: &Table, packet: &Packet, decision: &Decision) -> Self {
        use forward::Verdict::{Drop, Forward, Reply, Return, Translate};
        match decision.verdict {
            Forward { listener, member } | Translate { listener, member, .. } => {
                let listener = table.listener(listener);
                let member = table.pool(listener.pool).member(member);
                let service = Some(listener.service.clone());
                Self { service, backend: Some(member.address), mode: Some(member.mode), ..self }
            }
            Return { backend, translation, .. } => {
                let (client, vip) = (translation.destination, translation.source);
                let flow = FlowKey::new(client, vip, protocol(packet));
                let service = flow.and_then(|flow| service(table, &flow));
                Self { service, backend: table.address(backend), mode: Some(Mode::Nat), ..self }
            }
            Drop(DropReason::TunnelError) => {
                Self { backend: Some(packet.flow.client()), mode: Some(Mode::Ipip), ..self }
            }
            Drop(_) | Reply(_) => Self { service: service(table, &packet.flow), ..self },
        }
    }
}

/// What a worker did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saw {
    /// The packet, if it could be parsed.
    pub packet: Option<Packet>,
    /// What was decided of it.
    pub decision: Option<Decision>,
    /// What became of it.
    pub fate: Fate,
}

fn verdict(saw: &Saw, is_told_too_big: bool) -> (Verdict, Option<&'static str>) {
    let decided = saw.decision.map(|decision| decision.verdict);
    match (saw.fate, decided) {
        (Fate::Dropped(reason), _) | (_, Some(forward::Verdict::Drop(reason))) => {
            (Verdict::Drop, Some(reason.name()))
        }
        (Fate::Sent(_), _) if is_told_too_big => (Verdict::Reply, Some(TOO_BIG)),
        (Fate::Sent(_), Some(forward::Verdict::Translate { .. })) => (Verdict::Translate, None),
        (Fate::Sent(_), Some(forward::Verdict::Return { .. })) => (Verdict::Return, None),
        (Fate::Sent(_), Some(forward::Verdict::Reply(reply))) => (Verdict::Reply, Some(name(reply))),
        (Fate::Sent(_), Some(forward::Verdict::Forward { .. }) | None) => (Verdict::Forward, None),
    }
}

/// As the counters name it.
fn name(reply: Reply) -> &'static str {
    match reply {
        Reply::Echo => "echo",
        Reply::Reset => "reset",
        Reply::Unreachable => "unreachable",
    }
}

fn service(table: &Table, flow: &FlowKey) -> Option<Arc<str>> {
    table.listener_of(flow).map(|listener| table.listener(listener).service.clone())
}

/// A later fragment's flow does not say.
fn protocol(packet: &Packet) -> Protocol {
    let of_fragment = match packet.content {
        Content::LaterFragment { protocol, .. } => transport::protocol(protocol),
        _ => None,
    };
    of_fragment.unwrap_or(packet.flow.protocol())
}
