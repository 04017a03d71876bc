//! New ends for a packet (mode `nat`): addresses, ports and every checksum that covers them, by what changed
//! (RFC 1624), so that a payload is never read and a damaged packet stays damaged.
//!
//! In an ICMP error the quoted packet went the other way, so it gets the ends swapped (RFC 5508 §4.2).

use std::net::IpAddr;

use shunt_api::snapshot::Protocol;

use crate::flow::FlowKey;
use crate::nat::Translation;
use crate::packet::checksum::{self, Change};
use crate::packet::{Content, Packet, icmp, ipv4, ipv6};

/// Where the checksum lies in an IPv4 header.
const IPV4_CHECKSUM: usize = 10;
/// Where the checksum lies in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Where the checksum lies in a UDP header.
const UDP_CHECKSUM: usize = 6;
/// Where the checksum lies in an ICMP or ICMPv6 header.
const ICMP_CHECKSUM: usize = 2;

/// Gives the packet that begins with its IP header at `ip` new ends. Addresses of the translation are of the
/// packet's family.
pub fn translate(ip: &mut [u8], packet: &Packet, translation: &Translation) {
    let addresses = replace_addresses(ip, translation);
    let payload = &mut ip[usize::from(packet.header_length)..];
    match packet.content {
        Content::Whole | Content::FirstFragment { .. } => {
            translate_transport(payload, packet.flow.protocol(), translation, addresses);
        }
        Content::Error => {
            // The ICMP checksum covers the addresses in IPv6 alone.
            let covered = match packet.flow {
                FlowKey::V4(_) => Change::default(),
                FlowKey::V6(_) => addresses,
            };
            let quoted = translate_quote(&mut payload[icmp::HEADER_LENGTH..], packet, translation);
            apply(payload, ICMP_CHECKSUM, covered.and(quoted));
        }
        Content::LaterFragment { .. } | Content::Echo | Content::TunnelError { .. } => {}
    }
}

/// As [`translate`] for a plain TCP or UDP packet, whose headers are all there.
#[inline(always)]
pub fn translate_plain(ip: &mut [u8], protocol: Protocol, translation: &Translation) -> Option<()> {
    let (addresses, transport) = match (translation.source.0, translation.destination.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (header, transport) = ip.split_first_chunk_mut::<{ ipv4::HEADER_LENGTH }>()?;
            let (before, ends) = header.split_last_chunk_mut::<8>()?;
            let new = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
            let difference = exchange(ends, &new.to_be_bytes());
            mend(before.last_chunk_mut()?, difference);
            (difference, transport)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (header, transport) = ip.split_first_chunk_mut::<{ ipv6::HEADER_LENGTH }>()?;
            let (before, end) = header.split_last_chunk_mut()?;
            let changed = exchange(before.last_chunk_mut()?, &source.octets());
            (changed + exchange(end, &destination.octets()), transport)
        }
        _ => return None,
    };
    let ports = u32::from(translation.source.1) << 16 | u32::from(translation.destination.1);
    let difference = addresses + exchange(transport.first_chunk_mut()?, &ports.to_be_bytes());
    match protocol {
        Protocol::Tcp => mend(transport.get_mut(TCP_CHECKSUM..)?.first_chunk_mut()?, difference),
        Protocol::Udp => {
            let field = transport.get_mut(UDP_CHECKSUM..)?.first_chunk_mut()?;
            // See `translate_transport`.
            if *field != [0, 0] {
                mend(field, difference);
                *field = if *field == [0, 0] { [0xff; 2] } else { *field };
            }
        }
    }
    Some(())
}

/// Writes other bytes. Returns what that changes in a sum of the machine's 32-bit words, never 0.
#[inline(always)]
fn exchange<const N: usize>(bytes: &mut [u8; N], new: &[u8; N]) -> u64 {
    let replaced = |(old, new): (&[u8; 4], &[u8; 4])| {
        u64::from(!u32::from_ne_bytes(*old)) + u64::from(u32::from_ne_bytes(*new))
    };
    let change = bytes.as_chunks::<4>().0.iter().zip(new.as_chunks::<4>().0).map(replaced).sum();
    *bytes = *new;
    change
}

/// Mends a checksum whose sum has changed by this.
#[inline(always)]
fn mend(field: &mut [u8; 2], change: u64) {
    *field = (!checksum::fold(u64::from(!u16::from_ne_bytes(*field)) + change)).to_ne_bytes();
}

/// Replaces both addresses and mends the IPv4 header's checksum. Returns what that changes in a checksum that
/// covers the addresses.
fn replace_addresses(ip: &mut [u8], translation: &Translation) -> Change {
    match (translation.source.0, translation.destination.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let change = replace(&mut ip[12..16], &source.octets());
            let change = change.and(replace(&mut ip[16..20], &destination.octets()));
            apply(ip, IPV4_CHECKSUM, change);
            change
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let change = replace(&mut ip[8..24], &source.octets());
            change.and(replace(&mut ip[24..40], &destination.octets()))
        }
        _ => Change::default(),
    }
}

/// Replaces ports and mends the checksum of a TCP or UDP header, or of as much of it as there is.
fn translate_transport(header: &mut [u8], protocol: Protocol, translation: &Translation, addresses: Change) {
    let ([a, b], [c, d]) = (translation.source.1.to_be_bytes(), translation.destination.1.to_be_bytes());
    let change = addresses.and(replace(&mut header[..4], &[a, b, c, d]));
    let at = match protocol {
        Protocol::Tcp => TCP_CHECKSUM,
        Protocol::Udp => UDP_CHECKSUM,
    };
    let Some(&[high, low]) = header.get(at..at + 2) else { return };
    // In UDP, 0 is no checksum, and a sum of 0 is written as its other form (RFC 768).
    let unused = protocol == Protocol::Udp && [high, low] == [0, 0];
    if unused {
        return;
    }
    apply(header, at, change);
    if protocol == Protocol::Udp && header[at..at + 2] == [0, 0] {
        header[at..at + 2].fill(0xff);
    }
}

/// Gives a quoted packet the ends that its sender knows. Returns what that changes in the ICMP checksum.
fn translate_quote(quote: &mut [u8], packet: &Packet, translation: &Translation) -> Change {
    let header_length = match packet.flow {
        FlowKey::V4(_) => ipv4::quoted(quote).map(|header| header.header_length),
        FlowKey::V6(_) => ipv6::quoted(quote).map(|header| header.header_length),
    };
    let Ok(header_length) = header_length else { return Change::default() };
    let covered = (header_length + TCP_CHECKSUM + 2).min(quote.len()) & !1;
    let before = checksum::sum(&quote[..covered]);
    let swapped = Translation { source: translation.destination, destination: translation.source };
    let addresses = replace_addresses(quote, &swapped);
    translate_transport(&mut quote[header_length..], packet.flow.protocol(), &swapped, addresses);
    Change::between(before, checksum::sum(&quote[..covered]))
}

fn replace(bytes: &mut [u8], new: &[u8]) -> Change {
    let change = Change::default().replaced(bytes, new);
    bytes.copy_from_slice(new);
    change
}

/// Mends the checksum at `at`.
fn apply(header: &mut [u8], at: usize, change: Change) {
    let field = &mut header[at..at + 2];
    let mended = change.apply(u16::from_be_bytes([field[0], field[1]]));
    field.copy_from_slice(&mended.to_be_bytes());
}

#[cfg(test)]
mod tests;
