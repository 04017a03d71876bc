//! Checksums, reckoned without the code under test, and the mending of damaged headers: a fuzzer that changes a
//! byte seldom finds the checksum to go with it.

use shunt_dataplane::packet::ethernet;

/// IANA number of ICMP.
pub const ICMP: u8 = 1;
/// IANA number of TCP.
pub const TCP: u8 = 6;
/// IANA number of UDP.
pub const UDP: u8 = 17;
/// IANA number of ICMPv6.
pub const ICMP6: u8 = 58;
/// Bytes of an IPv4 header without options.
pub const HEADER_V4: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub const HEADER_V6: usize = 40;

/// The Internet checksum's sum (RFC 1071) of several parts, each of which begins at an even place. Eight bytes at
/// once, because every round of a loop here is traced.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u128;
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        total += words.iter().chain([&last]).map(|word| u128::from(u64::from_be_bytes(*word))).sum::<u128>();
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Whether an IP packet is IPv6.
pub fn is_v6(ip: &[u8]) -> bool {
    ip[0] >> 4 == 6
}

/// The sum that a transport checksum is taken of: pseudo-header, where the protocol has one, and payload. 0xffff
/// if the checksum is right.
pub fn payload_sum(ip: &[u8], header_length: usize, protocol: u8) -> u16 {
    let payload = &ip[header_length..];
    if protocol == ICMP {
        return sum(&[payload]);
    }
    let addresses = if is_v6(ip) { &ip[8..40] } else { &ip[12..20] };
    let length = (payload.len() as u32).to_be_bytes();
    sum(&[addresses, &length, &[0, protocol], payload])
}

/// Where the checksum lies in a transport header; the largest number if the protocol has none.
pub fn checksum_offset(protocol: u8) -> usize {
    match protocol {
        TCP => 16,
        UDP => 6,
        ICMP | ICMP6 => 2,
        _ => usize::MAX,
    }
}

/// Writes the checksum of the payload of an IP packet that is all there.
pub fn seal_payload(ip: &mut [u8], header_length: usize, protocol: u8) {
    let at = checksum_offset(protocol).saturating_add(header_length);
    if at.saturating_add(2) > ip.len() {
        return;
    }
    ip[at..at + 2].fill(0);
    let checksum = !payload_sum(ip, header_length, protocol);
    ip[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Writes the checksum of an IPv4 header.
pub fn seal_header(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = !sum(&[header]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Mends the IPv4 header's checksum and that of an ICMP message, as far as the frame has them.
pub fn mend(frame: &mut [u8]) {
    let Ok(header) = ethernet::parse(frame) else { return };
    let ip = &mut frame[header.length..];
    let Some(&first) = ip.first() else { return };
    if first >> 4 == 4 && ip.len() >= HEADER_V4 {
        mend_v4(ip);
    } else if first >> 4 == 6 && ip.len() >= HEADER_V6 {
        let total = HEADER_V6 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let end = total.min(ip.len());
        if ip[6] == ICMP6 {
            seal_payload(&mut ip[..end], HEADER_V6, ICMP6);
        }
    }
}

fn mend_v4(ip: &mut [u8]) {
    let header_length = usize::from(ip[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if header_length < HEADER_V4 || header_length > ip.len() {
        return;
    }
    seal_header(&mut ip[..header_length]);
    let end = total.min(ip.len());
    if ip[9] == ICMP && header_length <= end {
        seal_payload(&mut ip[..end], header_length, ICMP);
    }
}
