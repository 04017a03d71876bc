//! IPv4 headers (RFC 791): read with their checksum verified, written as the outer header of a tunnel.

use std::net::Ipv4Addr;

use shunt_api::counters::DropReason;

use super::checksum;

/// Bytes of a header without options.
pub const HEADER_LENGTH: usize = 20;
/// Time to live of outer headers.
const OUTER_TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
/// More-fragments flag and fragment offset: zero only in a whole packet.
const FRAGMENT_MASK: u16 = 0x3fff;

/// The fields that forwarding reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Bytes, options included.
    pub header_length: usize,
    /// Bytes of header and payload; at most what was given to [`parse`].
    pub total_length: usize,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// IANA protocol number of the payload.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

/// Reads a header at the start of `bytes`, which may go on behind the packet (Ethernet padding).
pub fn parse(bytes: &[u8]) -> Result<Ipv4, DropReason> {
    let header = bytes.first_chunk::<HEADER_LENGTH>().ok_or(DropReason::Truncated)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_length < HEADER_LENGTH || total_length < header_length {
        return Err(DropReason::BadIpHeader);
    }
    if total_length > bytes.len() {
        return Err(DropReason::Truncated);
    }
    if !checksum::is_valid(&bytes[..header_length]) {
        return Err(DropReason::BadIpChecksum);
    }
    if u16::from_be_bytes([header[6], header[7]]) & FRAGMENT_MASK != 0 {
        return Err(DropReason::Fragment);
    }
    Ok(Ipv4 {
        header_length,
        total_length,
        traffic_class: header[1],
        protocol: header[9],
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
        destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
    })
}

/// An outer header (RFC 2003): identification 0 with don't-fragment set, which RFC 6864 allows.
pub fn outer(
    traffic_class: u8,
    payload_length: u16,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> [u8; HEADER_LENGTH] {
    let mut header = [0; HEADER_LENGTH];
    header[0] = 0x45;
    header[1] = traffic_class;
    header[2..4].copy_from_slice(&(payload_length + HEADER_LENGTH as u16).to_be_bytes());
    header[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    header[8] = OUTER_TTL;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let checksum = checksum::of(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

    fn with(change: impl FnOnce(&mut [u8; 20])) -> Vec<u8> {
        let mut header = outer(0x2e, 8, 17, SOURCE, DESTINATION);
        header[10..12].fill(0);
        change(&mut header);
        let sum = checksum::of(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [header.as_slice(), &[0; 8]].concat()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let header = parse(&with(|_| ())).unwrap();
        assert_eq!((header.header_length, header.total_length, header.traffic_class), (20, 28, 0x2e));
        assert_eq!((header.protocol, header.source, header.destination), (17, SOURCE, DESTINATION));
    }

    #[test]
    fn contradictions_have_their_own_reasons() {
        let cases: [(&str, Vec<u8>, DropReason); 8] = [
            ("version 6", with(|h| h[0] = 0x65), DropReason::BadIpHeader),
            ("header of 16 bytes", with(|h| h[0] = 0x44), DropReason::BadIpHeader),
            ("total shorter than header", with(|h| h[3] = 19), DropReason::BadIpHeader),
            ("total longer than frame", with(|h| h[3] = 29), DropReason::Truncated),
            ("options beyond the packet", with(|h| h[0] = 0x4f), DropReason::BadIpHeader),
            ("more fragments", with(|h| h[6] = 0x20), DropReason::Fragment),
            ("later fragment", with(|h| h[7] = 1), DropReason::Fragment),
            (
                "checksum",
                {
                    let mut b = with(|_| ());
                    b[8] = 1;
                    b
                },
                DropReason::BadIpChecksum,
            ),
        ];
        for (what, bytes, reason) in cases {
            assert_eq!(parse(&bytes), Err(reason), "{what}");
        }
    }
}
