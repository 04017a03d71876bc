//! Checksums as an independent library computes them, for the builder and the printer.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;

/// Both ends of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub source: IpAddr,
    pub destination: IpAddr,
}

/// Of bytes whose checksum field is 0.
pub fn plain(bytes: &[u8]) -> u16 {
    Sum16BitWords::new().add_slice(bytes).ones_complement().to_be()
}

/// Of a TCP segment, UDP datagram or ICMPv6 message whose checksum field is 0, with its pseudo-header (RFC 9293
/// §3.1, RFC 8200 §8.1).
pub fn with_ends(ends: Ends, protocol: u8, bytes: &[u8]) -> u16 {
    let mut sum = Sum16BitWords::new();
    for address in [ends.source, ends.destination] {
        sum = match address {
            IpAddr::V4(address) => sum.add_4bytes(address.octets()),
            IpAddr::V6(address) => sum.add_16bytes(address.octets()),
        };
    }
    let length = u32::try_from(bytes.len()).expect("packets are smaller");
    sum.add_4bytes(length.to_be_bytes()).add_2bytes([0, protocol]).add_slice(bytes).ones_complement().to_be()
}

/// The value for the field at `at` of bytes that may have something there.
pub fn of_field(ends: Option<Ends>, protocol: u8, bytes: &[u8], at: usize) -> u16 {
    let mut bytes = bytes.to_vec();
    bytes[at..at + 2].fill(0);
    let sum = match ends {
        Some(ends) => with_ends(ends, protocol, &bytes),
        None => plain(&bytes),
    };
    // RFC 768: in UDP 0 means no checksum, and the sum 0 is written in its other form.
    if protocol == UDP && sum == 0 { 0xffff } else { sum }
}

/// IANA numbers.
pub const ICMP: u8 = 1;
pub const IPV4: u8 = 4;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const IPV6: u8 = 41;
pub const ICMPV6: u8 = 58;
