//! IPv6 headers (RFC 8200): read past their extension headers, written as the outer header of a tunnel.

use std::net::Ipv6Addr;

use shunt_api::counters::DropReason;

/// Bytes of the fixed header.
pub const HEADER_LENGTH: usize = 40;
/// Hop limit of outer headers.
const OUTER_HOP_LIMIT: u8 = 64;
/// Extension headers followed before a packet is given up on: RFC 8200 §4.1 lists six that can stand before
/// a transport header, and destination options may occur twice.
const MAX_EXTENSION_HEADERS: usize = 7;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The fields that forwarding reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Bytes of fixed header and extension headers.
    pub header_length: usize,
    /// Bytes of headers and payload; at most what was given to [`parse`].
    pub total_length: usize,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// IANA protocol number behind the last extension header.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

/// Reads a header at the start of `bytes`, which may go on behind the packet (Ethernet padding).
pub fn parse(bytes: &[u8]) -> Result<Ipv6, DropReason> {
    let header = bytes.first_chunk::<HEADER_LENGTH>().ok_or(DropReason::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::BadIpHeader);
    }
    let total_length = HEADER_LENGTH + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = bytes.get(..total_length).ok_or(DropReason::Truncated)?;
    let (protocol, header_length) = skip_extension_headers(packet, header[6])?;
    let [source, destination]: [[u8; 16]; 2] = [address(&header[8..24]), address(&header[24..40])];
    Ok(Ipv6 {
        header_length,
        total_length,
        traffic_class: (header[0] << 4) | (header[1] >> 4),
        protocol,
        source: source.into(),
        destination: destination.into(),
    })
}

fn address(bytes: &[u8]) -> [u8; 16] {
    let mut address = [0; 16];
    address.copy_from_slice(bytes);
    address
}

/// The transport protocol and its offset in `packet`.
fn skip_extension_headers(packet: &[u8], first: u8) -> Result<(u8, usize), DropReason> {
    let mut next = first;
    let mut offset = HEADER_LENGTH;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        match next {
            FRAGMENT => return Err(DropReason::Fragment),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let field = packet.get(offset..offset + 2).ok_or(DropReason::BadIpHeader)?;
                next = field[0];
                offset += 8 + 8 * usize::from(field[1]);
            }
            protocol if offset <= packet.len() => return Ok((protocol, offset)),
            _ => return Err(DropReason::BadIpHeader),
        }
    }
    Err(DropReason::TooManyExtensionHeaders)
}

/// An outer header (RFC 2473). `flow_label`: 20 bits of flow entropy (RFC 6438).
pub fn outer(
    traffic_class: u8,
    flow_label: u32,
    payload_length: u16,
    protocol: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> [u8; HEADER_LENGTH] {
    let mut header = [0; HEADER_LENGTH];
    let first = 6 << 28 | u32::from(traffic_class) << 20 | flow_label & 0xf_ffff;
    header[0..4].copy_from_slice(&first.to_be_bytes());
    header[4..6].copy_from_slice(&payload_length.to_be_bytes());
    header[6] = protocol;
    header[7] = OUTER_HOP_LIMIT;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let header = outer(0x2e, 0x12345, rest.len() as u16, first, Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        [header.as_slice(), rest].concat()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let header = parse(&packet(17, &[0; 8])).unwrap();
        assert_eq!((header.header_length, header.total_length), (40, 48));
        assert_eq!((header.traffic_class, header.protocol), (0x2e, 17));
        assert_eq!((header.source, header.destination), (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn extension_headers_are_skipped_and_bounded() {
        let chain = |headers: usize| {
            let mut bytes: Vec<u8> =
                (0..headers).flat_map(|_| [DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0]).collect();
            if let Some(last) = headers.checked_sub(1) {
                bytes[last * 8] = 17;
            }
            bytes.extend([0; 8]);
            let first = if headers == 0 { 17 } else { DESTINATION_OPTIONS };
            parse(&packet(first, &bytes)).map(|header| (header.protocol, header.header_length))
        };
        assert_eq!(chain(0), Ok((17, 40)));
        assert_eq!(chain(MAX_EXTENSION_HEADERS), Ok((17, 40 + 8 * MAX_EXTENSION_HEADERS)));
        assert_eq!(chain(MAX_EXTENSION_HEADERS + 1), Err(DropReason::TooManyExtensionHeaders));
    }

    #[test]
    fn contradictions_have_their_own_reasons() {
        let cases: [(&str, Vec<u8>, DropReason); 5] = [
            ("fragment", packet(FRAGMENT, &[17, 0, 0, 0, 0, 0, 0, 0]), DropReason::Fragment),
            (
                "extension beyond the packet",
                packet(HOP_BY_HOP, &[17, 200, 0, 0, 0, 0, 0, 0]),
                DropReason::BadIpHeader,
            ),
            ("half an extension", packet(ROUTING, &[17]), DropReason::BadIpHeader),
            ("payload longer than frame", packet(17, &[0; 8])[..47].to_vec(), DropReason::Truncated),
            (
                "version 4",
                {
                    let mut b = packet(17, &[0; 8]);
                    b[0] = 0x45;
                    b
                },
                DropReason::BadIpHeader,
            ),
        ];
        for (what, bytes, reason) in cases {
            assert_eq!(parse(&bytes), Err(reason), "{what}");
        }
    }
}
