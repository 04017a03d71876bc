//! IPv6 headers (RFC 8200): read past their extension headers, written as the outer header of a tunnel.

use std::net::Ipv6Addr;

use shunt_api::counters::DropReason;

use super::{Fragment, Header, checksum};

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
/// Bytes of the fragment header.
const FRAGMENT_LENGTH: usize = 8;

/// Reads a header at the start of `bytes`, the part at hand of a frame's payload of `available` bytes, which may
/// go on behind the packet (Ethernet padding).
pub fn parse(bytes: &[u8], available: usize) -> Result<Header<Ipv6Addr>, DropReason> {
    let fixed = bytes.first_chunk::<HEADER_LENGTH>().ok_or(DropReason::Truncated)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::BadIpHeader);
    }
    let total_length = HEADER_LENGTH + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if total_length > available {
        return Err(DropReason::Truncated);
    }
    // What 16 bits cannot count, the header included, no link carries.
    if total_length > usize::from(u16::MAX) {
        return Err(DropReason::BadIpHeader);
    }
    let chain = follow(&bytes[..total_length.min(bytes.len())], fixed[6])?;
    if chain.offset > total_length {
        return Err(DropReason::BadIpHeader);
    }
    Ok(header(fixed, total_length, &chain))
}

/// Reads the header of a packet quoted in an ICMP message, which is cut short.
pub fn quoted(bytes: &[u8]) -> Result<Header<Ipv6Addr>, DropReason> {
    let fixed = bytes.first_chunk::<HEADER_LENGTH>().ok_or(DropReason::BadIcmp)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::BadIcmp);
    }
    let total_length = HEADER_LENGTH + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let chain = follow(bytes, fixed[6]).map_err(|_| DropReason::BadIcmp)?;
    Ok(header(fixed, total_length, &chain))
}

/// Sum of the pseudo-header that transport checksums cover (RFC 8200 §8.1).
pub fn pseudo_sum(source: Ipv6Addr, destination: Ipv6Addr, length: usize, protocol: u8) -> u16 {
    let addresses = checksum::add(checksum::sum(&source.octets()), checksum::sum(&destination.octets()));
    let rest = checksum::add(checksum::sum(&(length as u32).to_be_bytes()), u16::from(protocol));
    checksum::add(addresses, rest)
}

fn header(fixed: &[u8; HEADER_LENGTH], total_length: usize, chain: &Chain) -> Header<Ipv6Addr> {
    let [source, destination]: [[u8; 16]; 2] = [address(&fixed[8..24]), address(&fixed[24..40])];
    Header {
        header_length: chain.offset,
        total_length,
        traffic_class: (fixed[0] << 4) | (fixed[1] >> 4),
        protocol: chain.protocol,
        fragment: chain.fragment,
        dont_fragment: true,
        source: source.into(),
        destination: destination.into(),
    }
}

fn address(bytes: &[u8]) -> [u8; 16] {
    let mut address = [0; 16];
    address.copy_from_slice(bytes);
    address
}

/// Where the extension headers end.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    protocol: u8,
    offset: usize,
    fragment: Option<Fragment>,
}

/// Follows the extension headers at [`HEADER_LENGTH`]. Behind the header of a later fragment there is data.
fn follow(packet: &[u8], first: u8) -> Result<Chain, DropReason> {
    let mut chain = Chain { protocol: first, offset: HEADER_LENGTH, fragment: None };
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let next = chain.offset;
        match chain.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let field = packet.get(next..next + 4).ok_or(DropReason::BadIpHeader)?;
                // A packet with segments left is on its way to somewhere else, and who does not know a routing
                // type may not pass it on (RFC 8200 §4.4); type 0 is not to be used at all (RFC 5095).
                if chain.protocol == ROUTING && field[3] > 0 {
                    return Err(DropReason::SourceRouted);
                }
                chain.protocol = field[0];
                chain.offset += 8 + 8 * usize::from(field[1]);
            }
            FRAGMENT => {
                let bytes = packet.get(next..).and_then(<[u8]>::first_chunk::<FRAGMENT_LENGTH>);
                let field = bytes.ok_or(DropReason::BadIpHeader)?;
                chain.protocol = field[0];
                chain.offset += FRAGMENT_LENGTH;
                chain.fragment = fragment(field).or(chain.fragment);
                if chain.fragment.is_some_and(|fragment| fragment.offset > 0) {
                    return Ok(chain);
                }
            }
            _ => return Ok(chain),
        }
    }
    Err(DropReason::TooManyExtensionHeaders)
}

/// `None` for a packet that is whole all the same (RFC 6946).
fn fragment(header: &[u8; FRAGMENT_LENGTH]) -> Option<Fragment> {
    let field = u16::from_be_bytes([header[2], header[3]]);
    let (offset, more) = (field & !7, field & 1 != 0);
    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    (offset > 0 || more).then_some(Fragment { id, offset, more })
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

    fn check(bytes: &[u8]) -> Result<Header<Ipv6Addr>, DropReason> {
        parse(bytes, bytes.len())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let header = check(&packet(17, &[0; 8])).unwrap();
        assert_eq!((header.header_length, header.total_length), (40, 48));
        assert_eq!((header.traffic_class, header.protocol), (0x2e, 17));
        assert_eq!((header.source, header.destination), (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST));
        assert_eq!((header.fragment, header.dont_fragment), (None, true));
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
            check(&packet(first, &bytes)).map(|header| (header.protocol, header.header_length))
        };
        assert_eq!(chain(0), Ok((17, 40)));
        assert_eq!(chain(MAX_EXTENSION_HEADERS), Ok((17, 40 + 8 * MAX_EXTENSION_HEADERS)));
        assert_eq!(chain(MAX_EXTENSION_HEADERS + 1), Err(DropReason::TooManyExtensionHeaders));
    }

    #[test]
    fn fragments_have_number_place_and_end() {
        let fragment = |low: [u8; 2]| {
            let extension = [17, 0, low[0], low[1], 1, 2, 3, 4];
            let header = check(&packet(FRAGMENT, &[extension, [0; 8]].concat())).unwrap();
            assert_eq!((header.protocol, header.header_length), (17, 48));
            header.fragment
        };
        let id = 0x0102_0304;
        assert_eq!(fragment([0, 1]), Some(Fragment { id, offset: 0, more: true }));
        assert_eq!(fragment([0x05, 0xa8]), Some(Fragment { id, offset: 1448, more: false }));
        assert_eq!(fragment([0, 0]), None, "atomic");
    }

    #[test]
    fn what_follows_a_later_fragments_header_is_data() {
        let extension = [DESTINATION_OPTIONS, 0, 0, 8, 0, 0, 0, 1];
        let header = check(&packet(FRAGMENT, &[extension, [0xff; 8]].concat())).unwrap();
        assert_eq!((header.protocol, header.header_length), (DESTINATION_OPTIONS, 48));
    }

    #[test]
    fn the_largest_packet_has_65535_bytes() {
        let with_payload = |length: u16| {
            let mut bytes = packet(17, &[0; 8]);
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
            parse(&bytes, 1 << 17).map(|header| header.total_length)
        };
        assert_eq!(with_payload(65_495), Ok(65_535));
        assert_eq!(with_payload(65_496), Err(DropReason::BadIpHeader));
        assert_eq!(with_payload(65_535), Err(DropReason::BadIpHeader));
    }

    #[test]
    fn contradictions_have_their_own_reasons() {
        let mut version_4 = packet(17, &[0; 8]);
        version_4[0] = 0x45;
        let routing = |kind: u8, left: u8| packet(ROUTING, &[17, 0, kind, left, 0, 0, 0, 0]);
        let cases: [(&str, Vec<u8>, DropReason); 7] = [
            (
                "extension beyond the packet",
                packet(HOP_BY_HOP, &[17, 200, 0, 0, 0, 0, 0, 0]),
                DropReason::BadIpHeader,
            ),
            ("half an extension", packet(ROUTING, &[17]), DropReason::BadIpHeader),
            ("half a fragment header", packet(FRAGMENT, &[17, 0, 0, 1]), DropReason::BadIpHeader),
            ("payload longer than frame", packet(17, &[0; 8])[..47].to_vec(), DropReason::Truncated),
            ("routing header type 0", routing(0, 1), DropReason::SourceRouted),
            ("segment routing header", routing(4, 1), DropReason::SourceRouted),
            ("version 4", version_4, DropReason::BadIpHeader),
        ];
        for (what, bytes, reason) in cases {
            assert_eq!(check(&bytes), Err(reason), "{what}");
        }
        assert!(check(&routing(4, 0)).is_ok() && check(&routing(0, 0)).is_ok());
    }
}
