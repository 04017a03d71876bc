//! What would become of a packet, and why. The rules are asked one by one, in the order in which `forward` goes and by
//! the same functions, of the tables that the workers read; nothing is changed. Pure.

pub mod source;
mod story;

use shunt_api::explain::{Explanation, PacketQuestion};
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::Protocol;

use crate::conntrack::Seconds;
use crate::flow::FlowKey;
use crate::forward::FlowTables;
use crate::neighbor::HopMap;
use crate::packet::ethernet::{self, Tags};
use crate::packet::transport::{ACK, SYN};
use crate::packet::{Content, Packet, ipv4, ipv6};
use crate::table::Forwarding;
use story::Story;

/// What an answer is found in.
pub struct Grounds<'a> {
    /// Tables and next hops: those in force, or supposed ones.
    pub forwarding: &'a Forwarding,
    /// What is remembered of flows.
    pub flows: &'a FlowTables,
    /// The ways to backends as the kernel tells them.
    pub hops: &'a HopMap,
    /// Names of the NICs served.
    pub nics: &'a [String],
    /// Now.
    pub now: Seconds,
}

/// Answers. The error says what is wrong with the question.
pub fn explain(question: &PacketQuestion, grounds: &Grounds<'_>) -> Result<Explanation, String> {
    let (source, destination) = (question.source, question.destination);
    let ends = ((source.ip(), source.port()), (destination.ip(), destination.port()));
    let flow = FlowKey::new(ends.0, ends.1, question.protocol)
        .ok_or("source and destination are of two families; write two IPv4 or two IPv6 addresses")?;
    let least = least_length(&flow);
    if question.length < least {
        let length = question.length;
        return Err(format!("{} packets have {least} bytes at least, not {length}", question.protocol));
    }
    Ok(Story::of(*question, packet(question, flow), grounds).told())
}

/// Bytes of the headers.
fn least_length(flow: &FlowKey) -> u16 {
    let transport = match flow.protocol() {
        Protocol::Tcp => 20,
        Protocol::Udp => 8,
    };
    ip_header_length(flow) as u16 + transport
}

fn ip_header_length(flow: &FlowKey) -> usize {
    if let FlowKey::V4(_) = flow { ipv4::HEADER_LENGTH } else { ipv6::HEADER_LENGTH }
}

/// As a worker would read it.
fn packet(question: &PacketQuestion, flow: FlowKey) -> Packet {
    let tcp_flags = match (question.protocol, question.begins) {
        (Protocol::Udp, _) => 0,
        (Protocol::Tcp, true) => SYN,
        (Protocol::Tcp, false) => ACK,
    };
    let header_length = ip_header_length(&flow);
    Packet {
        flow,
        content: Content::Whole,
        ip_offset: ethernet::HEADER_LENGTH as u16,
        header_length: header_length as u16,
        ip_length: question.length,
        traffic_class: 0,
        tcp_flags,
        dont_fragment: true,
        source_mac: MacAddress::default(),
        tags: Tags::None,
    }
}
