//! Answers to a packet's sender, made in the packet's own buffer: echo replies, TCP resets, and the ICMP errors
//! "port unreachable" and "too big". They leave by the NIC, station and VLAN that the packet came by.
//!
//! Pure, like `rewrite`. Nothing is ever answered that could make two hosts answer each other or a third one
//! (RFC 1122 §3.2.2, RFC 4443 §2.4 e).

use std::net::IpAddr;
use std::ops::Range;

use crate::flow::FlowKey;
use crate::packet::checksum::{self, Change};
use crate::packet::transport::{self, ACK, FIN, RST, SYN};
use crate::packet::{Content, Packet, ethernet, icmp, ipv4, ipv6};

/// Bytes of IP packet in an ICMP error at most (RFC 1812 §4.3.2.3).
const ERROR_LENGTH_V4: usize = 576;
/// Bytes of IP packet in an ICMPv6 error at most: what every link carries (RFC 4443 §2.4 c).
const ERROR_LENGTH_V6: usize = 1280;
/// Bytes of a TCP header without options.
const TCP_LENGTH: usize = 20;
/// Of what we send.
const TTL: u8 = 64;

/// Whether the sender may be answered at all: one station sent it to us alone, from an address that is one
/// host's.
pub fn may_answer(frame: &[u8], packet: &Packet) -> bool {
    let to_group = frame[0] & 1 != 0;
    let answerable = matches!(packet.content, Content::Whole | Content::FirstFragment { .. } | Content::Echo);
    answerable && !to_group && is_one_host(packet.flow.client())
}

fn is_one_host(address: IpAddr) -> bool {
    let group = match address {
        IpAddr::V4(address) => {
            address.is_broadcast() || address.octets()[0] >= 240 || address.octets()[0] == 0
        }
        IpAddr::V6(_) => false,
    };
    !(group || address.is_multicast() || address.is_unspecified() || address.is_loopback())
}

/// Turns an echo request into its reply (RFC 792, RFC 4443 §4.2). Only headers are touched, so a packet in
/// several pieces stays as it is.
pub fn echo(frame: &mut [u8], packet: &Packet) {
    swap_stations(frame);
    let ip = &mut frame[usize::from(packet.ip_offset)..];
    let end = usize::from(packet.ip_length).min(ip.len());
    let reply = match packet.flow {
        FlowKey::V4(_) => {
            ip[12..20].rotate_left(4);
            let (old, new) = ([ip[8], ip[9]], [TTL, ip[9]]);
            ip[8] = TTL;
            apply(&mut ip[10..12], Change::default().replaced(&old, &new));
            icmp::ECHO_REPLY
        }
        FlowKey::V6(_) => {
            ip[8..40].rotate_left(16);
            ip[7] = TTL;
            icmp::V6_ECHO_REPLY
        }
    };
    let message = &mut ip[usize::from(packet.header_length)..end];
    let change = Change::default().replaced(&[message[0], message[1]], &[reply, message[1]]);
    message[0] = reply;
    apply(&mut message[2..4], change);
    // What changed alone does not tell the two zeros of one's complement apart, and with a checksum of 0 a message
    // of nothing but zeros, which is a reply to number 0 without data, does not add up.
    if message.iter().all(|&byte| byte == 0) {
        message[2..4].fill(0xff);
    }
}

/// A reset for a TCP segment (RFC 9293 §3.5.2). `None` if it must not be answered, is not all there or the buffer
/// has no room.
pub fn reset(buffer: &mut [u8], at: Range<usize>, packet: &Packet) -> Option<Range<usize>> {
    let segment = at.start + usize::from(packet.ip_offset) + usize::from(packet.header_length);
    let tcp = buffer.get(segment..).and_then(<[u8]>::first_chunk::<TCP_LENGTH>)?;
    let headers = match packet.flow {
        FlowKey::V4(_) => ipv4::HEADER_LENGTH + TCP_LENGTH,
        FlowKey::V6(_) => ipv6::HEADER_LENGTH + TCP_LENGTH,
    };
    let needed = (usize::from(packet.ip_offset) + headers).max(ethernet::MIN_LENGTH);
    if packet.tcp_flags & RST != 0 || packet.content != Content::Whole || at.start + needed > buffer.len() {
        return None;
    }
    let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let header_length = u32::from(tcp[12] >> 4) * 4;
    let payload = u32::from(packet.ip_length - packet.header_length) - header_length;
    let counted = payload + u32::from(packet.tcp_flags & SYN != 0) + u32::from(packet.tcp_flags & FIN != 0);
    let (sequence, acknowledged, flags) = match packet.tcp_flags & ACK {
        0 => (0, number(4).wrapping_add(counted), RST | ACK),
        _ => (number(8), 0, RST),
    };
    let mut answer = [0; TCP_LENGTH];
    answer[0..2].copy_from_slice(&tcp[2..4]);
    answer[2..4].copy_from_slice(&tcp[0..2]);
    answer[4..8].copy_from_slice(&u32::to_be_bytes(sequence));
    answer[8..12].copy_from_slice(&u32::to_be_bytes(acknowledged));
    answer[12] = (TCP_LENGTH as u8 / 4) << 4;
    answer[13] = flags;
    Some(write(buffer, at.start, packet, transport::TCP, &answer, 0))
}

/// "Port unreachable" for a UDP packet. `None` if it must not be answered.
pub fn unreachable(buffer: &mut [u8], at: Range<usize>, packet: &Packet) -> Option<Range<usize>> {
    let kind = match packet.flow {
        FlowKey::V4(_) => [icmp::UNREACHABLE, icmp::PORT_UNREACHABLE],
        FlowKey::V6(_) => [icmp::V6_UNREACHABLE, icmp::V6_PORT_UNREACHABLE],
    };
    error(buffer, at, packet, kind, 0)
}

/// Whether a packet's sender can be told that it is too big: IPv4 without DF is for routers to fragment, and IPv6
/// hosts send packets of up to 1280 bytes whatever they are told (RFC 8200 §5).
pub fn is_told_too_big(packet: &Packet) -> bool {
    match packet.flow {
        FlowKey::V4(_) => packet.dont_fragment,
        FlowKey::V6(_) => usize::from(packet.ip_length) > ERROR_LENGTH_V6,
    }
}

/// "Fragmentation needed" (RFC 1191) or "packet too big" (RFC 8201): packets up to `mtu` bytes fit. `None` if that
/// must not be said.
pub fn too_big(buffer: &mut [u8], at: Range<usize>, packet: &Packet, mtu: u32) -> Option<Range<usize>> {
    let (kind, mtu) = match packet.flow {
        FlowKey::V4(_) => ([icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED], mtu.min(u32::from(u16::MAX))),
        FlowKey::V6(_) => ([icmp::V6_TOO_BIG, 0], mtu.max(ERROR_LENGTH_V6 as u32)),
    };
    if !is_told_too_big(packet) {
        return None;
    }
    error(buffer, at, packet, kind, mtu)
}

/// An ICMP error from the packet's destination to its source, quoting as much of it as may be.
fn error(
    buffer: &mut [u8],
    at: Range<usize>,
    packet: &Packet,
    kind: [u8; 2],
    value: u32,
) -> Option<Range<usize>> {
    if packet.content == Content::Echo {
        return None;
    }
    let (header, most, protocol) = match packet.flow {
        FlowKey::V4(_) => (ipv4::HEADER_LENGTH, ERROR_LENGTH_V4, icmp::V4),
        FlowKey::V6(_) => (ipv6::HEADER_LENGTH, ERROR_LENGTH_V6, icmp::V6),
    };
    let headers = header + icmp::HEADER_LENGTH;
    let quoted = at.start + usize::from(packet.ip_offset);
    let there = usize::from(packet.ip_length).min(at.end - quoted);
    let quote = there.min(most - headers);
    if quoted + headers + quote > buffer.len() {
        return None;
    }
    buffer.copy_within(quoted..quoted + quote, quoted + headers);
    let [a, b, c, d] = value.to_be_bytes();
    Some(write(buffer, at.start, packet, protocol, &[kind[0], kind[1], 0, 0, a, b, c, d], quote))
}

/// Writes Ethernet, IP and the transport header given (its checksum still 0) at `start`, before `rest` bytes that
/// are there already.
fn write(
    buffer: &mut [u8],
    start: usize,
    packet: &Packet,
    protocol: u8,
    header: &[u8],
    rest: usize,
) -> Range<usize> {
    let ip = start + usize::from(packet.ip_offset);
    swap_stations(&mut buffer[start..]);
    let length = (header.len() + rest) as u16;
    let (ip_length, pseudo) = match packet.flow {
        FlowKey::V4(flow) => {
            let outer = ipv4::outer(0, length, protocol, flow.vip, flow.client);
            buffer[ip..ip + outer.len()].copy_from_slice(&outer);
            let covered = protocol != icmp::V4;
            let pseudo = ipv4::pseudo_sum(flow.vip, flow.client, length, protocol);
            (outer.len(), if covered { pseudo } else { 0 })
        }
        FlowKey::V6(flow) => {
            let outer = ipv6::outer(0, 0, length, protocol, flow.vip, flow.client);
            buffer[ip..ip + outer.len()].copy_from_slice(&outer);
            (outer.len(), ipv6::pseudo_sum(flow.vip, flow.client, usize::from(length), protocol))
        }
    };
    let message = ip + ip_length;
    buffer[message..message + header.len()].copy_from_slice(header);
    let end = message + usize::from(length);
    let sum = checksum::add(pseudo, checksum::sum(&buffer[message..end]));
    let field = if protocol == transport::TCP { 16 } else { 2 };
    buffer[message + field..message + field + 2].copy_from_slice(&(!sum).to_be_bytes());
    let padded = end.max(start + ethernet::MIN_LENGTH);
    buffer[end..padded].fill(0);
    start..padded
}

fn swap_stations(frame: &mut [u8]) {
    frame[..2 * ethernet::ADDRESS_LENGTH].rotate_left(ethernet::ADDRESS_LENGTH);
}

fn apply(field: &mut [u8], change: Change) {
    let mended = change.apply(u16::from_be_bytes([field[0], field[1]]));
    field.copy_from_slice(&mended.to_be_bytes());
}

#[cfg(test)]
mod tests;
