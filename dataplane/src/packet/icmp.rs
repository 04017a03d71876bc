//! ICMP (RFC 792) and ICMPv6 (RFC 4443) messages, as far as forwarding reads them: echo requests, and errors
//! with the packet that they quote.
//!
//! Of the quoted packet's transport header only the first eight bytes are guaranteed (RFC 792), and only the
//! ports in them are read.

use std::net::{Ipv4Addr, Ipv6Addr};

use shunt_api::counters::DropReason;

use super::{Header, checksum, ipv4, ipv6, transport};
use crate::flow::{FlowKey, FlowKey4, FlowKey6};

/// IANA number of ICMP.
pub const V4: u8 = 1;
/// IANA number of ICMPv6.
pub const V6: u8 = 58;
/// Bytes before the quoted packet, or before an echo's data.
pub const HEADER_LENGTH: usize = 8;

/// ICMP type: echo reply.
pub const ECHO_REPLY: u8 = 0;
/// ICMP type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: nobody listens on the port.
pub const PORT_UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: too big, and not to be fragmented (RFC 1191).
pub const FRAGMENTATION_NEEDED: u8 = 4;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// ICMPv6 type: destination unreachable.
pub const V6_UNREACHABLE: u8 = 1;
/// Code of [`V6_UNREACHABLE`]: nobody listens on the port.
pub const V6_PORT_UNREACHABLE: u8 = 4;
/// ICMPv6 type: packet too big.
pub const V6_TOO_BIG: u8 = 2;
/// ICMPv6 type: echo reply.
pub const V6_ECHO_REPLY: u8 = 129;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_PARAMETER_PROBLEM: u8 = 4;
const V6_ECHO_REQUEST: u8 = 128;

/// IANA number of IPv4 inside another IP header (RFC 2003).
pub const IPV4_IN_IP: u8 = 4;
/// IANA number of IPv6 inside another IP header (RFC 2473, RFC 4213).
pub const IPV6_IN_IP: u8 = 41;

/// What routers from before RFC 1191 mean that name no MTU: a size that every path carries (RFC 791).
const MTU_WHEN_NONE_IS_NAMED: u32 = 576;

/// What a message asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// To be answered.
    EchoRequest,
    /// Somebody could not deliver a packet.
    Error(About),
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A packet from a service to a client.
    Flow(FlowKey),
    /// A tunnel packet of ours.
    Tunnel {
        /// The outer source as VIP, the backend as client.
        flow: FlowKey,
        /// Bytes of outer packet that fit, if it says that the packet was too big.
        mtu: Option<u32>,
    },
}

/// Reads an ICMP message; `whole` if all of it is at hand.
pub fn parse_v4(message: &[u8], whole: bool) -> Result<Message, DropReason> {
    let head = message.first_chunk::<HEADER_LENGTH>().ok_or(DropReason::BadIcmp)?;
    let mtu = match (head[0], head[1]) {
        (ECHO_REQUEST, 0) => return Ok(Message::EchoRequest),
        (UNREACHABLE, FRAGMENTATION_NEEDED) => Some(u32::from(u16::from_be_bytes([head[6], head[7]]))),
        (UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM, _) => None,
        _ => return Err(DropReason::IcmpUnhandled),
    };
    if !whole || !checksum::is_valid(message) {
        return Err(DropReason::BadIcmp);
    }
    let mtu = mtu.map(|mtu| if mtu == 0 { MTU_WHEN_NONE_IS_NAMED } else { mtu });
    let quote = &message[HEADER_LENGTH..];
    about(&ipv4::quoted(quote)?, quote, mtu, flow_v4).map(Message::Error)
}

/// Reads an ICMPv6 message between these addresses; `whole` if all of it is at hand.
pub fn parse_v6(
    message: &[u8],
    whole: bool,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Result<Message, DropReason> {
    let head = message.first_chunk::<HEADER_LENGTH>().ok_or(DropReason::BadIcmp)?;
    let mtu = match head[0] {
        V6_ECHO_REQUEST if head[1] == 0 => return Ok(Message::EchoRequest),
        V6_TOO_BIG => Some(u32::from_be_bytes([head[4], head[5], head[6], head[7]])),
        V6_UNREACHABLE | V6_TIME_EXCEEDED | V6_PARAMETER_PROBLEM => None,
        _ => return Err(DropReason::IcmpUnhandled),
    };
    let sum = checksum::add(ipv6::pseudo_sum(source, destination, message.len(), V6), checksum::sum(message));
    if !whole || sum != 0xffff {
        return Err(DropReason::BadIcmp);
    }
    let quote = &message[HEADER_LENGTH..];
    about(&ipv6::quoted(quote)?, quote, mtu, flow_v6).map(Message::Error)
}

/// What a quoted packet with this header was: it went from a service or a tunnel's outer source to a client or
/// backend.
fn about<A>(
    header: &Header<A>,
    quote: &[u8],
    mtu: Option<u32>,
    flow: fn(&Header<A>, &transport::Transport) -> FlowKey,
) -> Result<About, DropReason> {
    if matches!(header.protocol, IPV4_IN_IP | IPV6_IN_IP) {
        return Ok(About::Tunnel { flow: flow(header, &transport::Transport::NONE), mtu });
    }
    let protocol = transport::protocol(header.protocol).ok_or(DropReason::IcmpUnmatched)?;
    if header.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return Err(DropReason::IcmpUnmatched);
    }
    let bytes = quote.get(header.header_length..).and_then(<[u8]>::first_chunk::<8>);
    let [source_port, destination_port] = transport::ports(bytes.ok_or(DropReason::BadIcmp)?);
    let transport = transport::Transport { protocol, source_port, destination_port, tcp_flags: 0 };
    Ok(About::Flow(flow(header, &transport)))
}

fn flow_v4(header: &Header<Ipv4Addr>, transport: &transport::Transport) -> FlowKey {
    FlowKey::V4(FlowKey4 {
        client: header.destination,
        vip: header.source,
        client_port: transport.destination_port,
        port: transport.source_port,
        protocol: transport.protocol,
    })
}

fn flow_v6(header: &Header<Ipv6Addr>, transport: &transport::Transport) -> FlowKey {
    FlowKey::V6(FlowKey6 {
        client: header.destination,
        vip: header.source,
        client_port: transport.destination_port,
        port: transport.source_port,
        protocol: transport.protocol,
    })
}

#[cfg(test)]
mod tests;
