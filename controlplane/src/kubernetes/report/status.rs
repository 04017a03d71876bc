//! The status that a Service should show, and whether it shows it.

use std::net::IpAddr;

use shunt_api::snapshot::Mode;

use super::{IpMode, Outcome};
use crate::kubernetes::facts::{Ingress, Service};
use crate::kubernetes::seen::left_out;
use crate::kubernetes::translate::{Problem, Translated, UNAVAILABLE};

/// Type of the condition that tells whether a Service has its addresses.
pub const ADDRESS_ALLOCATED: &str = "shunt.dev/AddressAllocated";
/// Type of the condition that tells whether the dataplane serves it as it should.
pub const PROGRAMMED: &str = "shunt.dev/Programmed";
/// Bytes of a condition's message: the API takes 32 KiB, a human less.
const MESSAGE_MAX: usize = 4_000;

/// What of `status` is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `status.loadBalancer.ingress`, in the order of the families.
    pub ingress: Vec<Ingress>,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
}

/// One of `status.conditions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// For a human.
    pub message: String,
    /// `lastTransitionTime` if the status is the one that the Service shows; else it is now.
    pub since: Option<String>,
}

/// Of a Service without an address: what it showed stays until the dataplane has withdrawn it.
pub fn refused(service: &Service, outcome: &Outcome<'_>, problem: &Problem) -> Status {
    let withdrawn = outcome.programmed.is_some_and(<[IpAddr]>::is_empty);
    let ingress = if withdrawn { Vec::new() } else { service.ingress.clone() };
    let conditions = vec![
        condition(service, ADDRESS_ALLOCATED, false, &problem.reason, &problem.message),
        condition(service, PROGRAMMED, false, "NoAddress", "it has no address to serve"),
    ];
    Status { ingress, conditions }
}

/// Of a Service whose addresses the dataplane has not taken over, though it should have by now, or is not to take over
/// because of what else is configured: what it showed stays.
/// Before that nothing is said, because most of the time it takes only a moment, at a start too. Nor is it while the
/// dataplane says nothing at all: that concerns every Service alike, and soon a box whose dataplane serves leads.
pub fn waiting(service: &Service, outcome: &Outcome<'_>) -> Option<Status> {
    let left_out = outcome.translated.and_then(left_out);
    let why = "the dataplane does not serve it yet; if it stays so, see `lbctl status` on the box";
    let (reason, why) = left_out.map_or(("WaitingForDataplane", why), |of| (&of.reason, &of.message));
    let overdue = outcome.overdue && outcome.programmed.is_some();
    (overdue || left_out.is_some()).then(|| Status {
        ingress: service.ingress.clone(),
        conditions: vec![allocated(service, outcome), condition(service, PROGRAMMED, false, reason, why)],
    })
}

/// Of a Service that the dataplane serves. It is shown whatever the health of its nodes, because kube-proxy takes
/// packets to an address only when the status has it. What cannot be served is not shown anew, but an address that was
/// stays.
pub fn serving(service: &Service, outcome: &Outcome<'_>, translated: &Translated, nat: IpMode) -> Status {
    let vips = translated.vips();
    // Where no port can be served, the errors need an entry to stand in.
    let no_port = vips.is_empty() && !translated.port_errors.is_empty();
    let ip_mode = if translated.mode == Mode::Nat { nat } else { IpMode::Vip };
    let entry = |ip: &IpAddr| Ingress {
        ip: Some(*ip),
        ip_mode: Some(ip_mode.word().into()),
        ports: ports(service, translated),
    };
    // The status is the record of who has an address, so what is shown stays while the Service has it.
    let recorded = |address: &IpAddr| service.ingress.iter().any(|ingress| ingress.ip == Some(*address));
    let is_shown = |address: &&IpAddr| no_port || vips.contains(address) || recorded(address);
    let shown = outcome.addresses.iter().filter(is_shown);
    Status {
        ingress: shown.map(entry).collect(),
        conditions: vec![
            allocated(service, outcome),
            programmed(service, outcome.addresses, &vips, translated),
        ],
    }
}

/// Whether the dataplane serves a Service as it should: every address, and with nodes behind.
pub fn is_whole(outcome: &Outcome<'_>, translated: &Translated) -> bool {
    let vips = translated.vips();
    let all = outcome.addresses.iter().all(|address| vips.contains(address));
    all && !translated.problems.iter().any(|problem| problem.reason == UNAVAILABLE)
}

/// Whether a Service already shows a status.
pub fn is_shown(service: &Service, status: &Status) -> bool {
    let normal = |ingress: &Ingress| {
        let mut ports = ingress.ports.clone();
        ports.sort();
        // As the API's default for entries with an address (KEP-1860).
        (ingress.ip, ingress.ip_mode.clone().unwrap_or_else(|| IpMode::Vip.word().into()), ports)
    };
    let same = |condition: &Condition| {
        let Condition { status, reason, message, .. } = condition;
        service
            .conditions
            .get(condition.kind)
            .is_some_and(|shown| (&shown.0, &shown.1, &shown.2) == (status, reason, message))
    };
    service.ingress.iter().map(normal).eq(status.ingress.iter().map(normal))
        && status.conditions.iter().all(same)
}

/// If one port has an error, each has an entry.
fn ports(service: &Service, translated: &Translated) -> Vec<(u16, String, Option<String>)> {
    if translated.port_errors.is_empty() {
        return Vec::new();
    }
    let error = |port: u16, protocol: &str| {
        let mut errors = translated.port_errors.iter();
        errors
            .find(|error| error.port == port && error.protocol == protocol)
            .map(|error| error.error.to_owned())
    };
    let entry = |(port, protocol): (u16, &String)| (port, protocol.clone(), error(port, protocol));
    service.ports.iter().map(|port| (port.port, &port.protocol_name)).map(entry).collect()
}

/// A problem of a Service that has an address all the same is that it has not all it asked for.
fn allocated(service: &Service, outcome: &Outcome<'_>) -> Condition {
    let addresses = outcome.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let message = match outcome.address_problem {
        Some(problem) => format!("{addresses}; {}", problem.message),
        None => addresses,
    };
    condition(service, ADDRESS_ALLOCATED, true, "Allocated", &message)
}

fn programmed(
    service: &Service,
    addresses: &[IpAddr],
    vips: &[IpAddr],
    translated: &Translated,
) -> Condition {
    let whole = addresses.iter().all(|address| vips.contains(address));
    let unavailable = translated.problems.iter().find(|problem| problem.reason == UNAVAILABLE);
    let reason = match (unavailable, translated.problems.first()) {
        (Some(problem), _) => problem.reason.as_str(),
        (None, Some(problem)) if !whole => problem.reason.as_str(),
        (None, None) if !whole => "NothingToServe",
        (None, _) => "Programmed",
    };
    let served = format!("served in mode {}", translated.mode);
    let served = (!vips.is_empty()).then_some(served.as_str());
    let problems = translated.problems.iter().map(|problem| problem.message.as_str());
    let message = served.into_iter().chain(problems).collect::<Vec<_>>().join("; ");
    condition(service, PROGRAMMED, whole && unavailable.is_none(), reason, &message)
}

fn condition(service: &Service, kind: &'static str, status: bool, reason: &str, message: &str) -> Condition {
    let unchanged = service.conditions.get(kind).is_some_and(|(shown, ..)| *shown == status);
    let since = service.condition_times.get(kind).filter(|_| unchanged).cloned();
    Condition { kind, status, reason: reason.into(), message: cut(message, MESSAGE_MAX), since }
}

/// At most so many bytes of a text.
pub fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].into()
}
