//! IPv4 headers (RFC 791): read with their checksum verified, written as the outer header of a tunnel.

use std::net::Ipv4Addr;

use shunt_api::counters::DropReason;

use super::{Fragment, Header, checksum};

/// Bytes of a header without options.
pub const HEADER_LENGTH: usize = 20;
/// Time to live of outer headers.
const OUTER_TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
/// In units of eight bytes.
const FRAGMENT_OFFSET: u16 = 0x1fff;

const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
/// Loose and strict source route: RFC 7126 §4.3 and §4.4 advise to drop them.
const OPTIONS_SOURCE_ROUTE: [u8; 2] = [131, 137];

/// Reads a header at the start of `bytes`, the part at hand of a frame's payload of `available` bytes, which may
/// go on behind the packet (Ethernet padding).
pub fn parse(bytes: &[u8], available: usize) -> Result<Header<Ipv4Addr>, DropReason> {
    let fixed = bytes.first_chunk::<HEADER_LENGTH>().ok_or(DropReason::Truncated)?;
    let header = read(fixed)?;
    if header.total_length > available {
        return Err(DropReason::Truncated);
    }
    let whole = bytes.get(..header.header_length).ok_or(DropReason::Truncated)?;
    if !checksum::is_valid(whole) {
        return Err(DropReason::BadIpChecksum);
    }
    check_options(&whole[HEADER_LENGTH..])?;
    Ok(header)
}

/// Reads the header of a packet quoted in an ICMP message: cut short, and its checksum may be of another hop.
pub fn quoted(bytes: &[u8]) -> Result<Header<Ipv4Addr>, DropReason> {
    let fixed = bytes.first_chunk::<HEADER_LENGTH>().ok_or(DropReason::BadIcmp)?;
    read(fixed).map_err(|_| DropReason::BadIcmp)
}

fn read(header: &[u8; HEADER_LENGTH]) -> Result<Header<Ipv4Addr>, DropReason> {
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_length < HEADER_LENGTH || total_length < header_length {
        return Err(DropReason::BadIpHeader);
    }
    Ok(Header {
        header_length,
        total_length,
        traffic_class: header[1],
        protocol: header[9],
        fragment: fragment(header),
        dont_fragment: dont_fragment(header),
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
        destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
    })
}

/// Whether no router may fragment the packet.
pub fn dont_fragment(header: &[u8; HEADER_LENGTH]) -> bool {
    u16::from_be_bytes([header[6], header[7]]) & DONT_FRAGMENT != 0
}

fn fragment(header: &[u8; HEADER_LENGTH]) -> Option<Fragment> {
    let field = u16::from_be_bytes([header[6], header[7]]);
    let (offset, more) = ((field & FRAGMENT_OFFSET) * 8, field & MORE_FRAGMENTS != 0);
    let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
    (offset > 0 || more).then_some(Fragment { id, offset, more })
}

/// Walks the options (RFC 791 §3.1).
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    while let Some(&kind) = options.first() {
        let length = match kind {
            OPTION_END => return Ok(()),
            OPTION_NOTHING => 1,
            _ if OPTIONS_SOURCE_ROUTE.contains(&kind) => return Err(DropReason::SourceRouted),
            _ => options.get(1).map_or(0, |&length| usize::from(length)),
        };
        if length == 0 || (length == 1 && kind != OPTION_NOTHING) {
            return Err(DropReason::BadIpOptions);
        }
        options = options.get(length..).ok_or(DropReason::BadIpOptions)?;
    }
    Ok(())
}

/// Sum of the pseudo-header that transport checksums cover (RFC 9293 §3.1).
pub fn pseudo_sum(source: Ipv4Addr, destination: Ipv4Addr, length: u16, protocol: u8) -> u16 {
    let addresses = checksum::add(checksum::sum(&source.octets()), checksum::sum(&destination.octets()));
    checksum::add(addresses, checksum::add(length, u16::from(protocol)))
}

/// An outer header (RFC 2003): identification 0 with don't-fragment set, which RFC 6864 allows.
#[inline(always)]
pub fn outer(
    traffic_class: u8,
    payload_length: u16,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> [u8; HEADER_LENGTH] {
    let first =
        0x4500_0000 | u32::from(traffic_class) << 16 | u32::from(payload_length + HEADER_LENGTH as u16);
    let third = u32::from(OUTER_TTL) << 24 | u32::from(protocol) << 16;
    let words = [first, u32::from(DONT_FRAGMENT), third, source.to_bits(), destination.to_bits()];
    let checksum = !checksum::fold(words.iter().map(|&word| u64::from(word)).sum());
    let mut header = [0; HEADER_LENGTH];
    header[0..4].copy_from_slice(&words[0].to_be_bytes());
    header[4..8].copy_from_slice(&words[1].to_be_bytes());
    header[8..12].copy_from_slice(&(third | u32::from(checksum)).to_be_bytes());
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

    /// A header with these options and eight bytes of payload.
    fn packet(options: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let length = (8 + options.len()) as u16;
        let outer = outer(0x2e, length, 17, SOURCE, DESTINATION);
        let mut header = [outer.as_slice(), options].concat();
        header[0] = 0x40 | (header.len() / 4) as u8;
        header[6..8].fill(0);
        change(&mut header);
        header[10..12].fill(0);
        let sum = checksum::of(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [header.as_slice(), &[0; 8]].concat()
    }

    fn check(bytes: &[u8]) -> Result<Header<Ipv4Addr>, DropReason> {
        parse(bytes, bytes.len())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let header = check(&packet(&[], |_| ())).unwrap();
        assert_eq!((header.header_length, header.total_length, header.traffic_class), (20, 28, 0x2e));
        assert_eq!((header.protocol, header.source, header.destination), (17, SOURCE, DESTINATION));
        assert_eq!((header.fragment, header.dont_fragment), (None, false));
        assert!(check(&packet(&[], |h| h[6] = 0x40)).unwrap().dont_fragment);
    }

    #[test]
    fn fragments_have_number_place_and_end() {
        let fragment = |flags: u8, offset: u8| {
            let bytes = packet(&[], |h| h[4..8].copy_from_slice(&[0xab, 0xcd, flags, offset]));
            check(&bytes).unwrap().fragment
        };
        let id = 0xabcd;
        assert_eq!(fragment(0x20, 0), Some(Fragment { id, offset: 0, more: true }));
        assert_eq!(fragment(0x20, 2), Some(Fragment { id, offset: 16, more: true }));
        assert_eq!(fragment(0x00, 185), Some(Fragment { id, offset: 1480, more: false }));
        assert_eq!(fragment(0x40, 0), None);
    }

    #[test]
    fn options_are_walked() {
        let bad = Err(DropReason::BadIpOptions);
        let cases: [(&str, &[u8], Result<usize, DropReason>); 8] = [
            ("nothing, then the end", &[1, 1, 0, 0xff], Ok(24)),
            ("record route", &[7, 7, 4, 0, 0, 0, 0, 0], Ok(28)),
            ("router alert", &[0x94, 4, 0, 0], Ok(24)),
            ("loose source route", &[131, 3, 4, 0], Err(DropReason::SourceRouted)),
            (
                "strict source route after others",
                &[1, 0x94, 4, 0, 0, 137, 3, 4],
                Err(DropReason::SourceRouted),
            ),
            ("length 0", &[7, 0, 0, 0], bad),
            ("length 1", &[7, 1, 0, 0], bad),
            ("over the end", &[1, 1, 7, 3], bad),
        ];
        for (what, options, expected) in cases {
            let read = check(&packet(options, |_| ()));
            assert_eq!(read.map(|header| header.header_length), expected, "{what}");
        }
        let cut = packet(&[1, 1, 1, 7], |_| ());
        assert_eq!(check(&cut), Err(DropReason::BadIpOptions), "the length byte is missing");
    }

    #[test]
    fn contradictions_have_their_own_reasons() {
        let mut damaged = packet(&[], |_| ());
        damaged[8] = 1;
        let cases: [(&str, Vec<u8>, DropReason); 6] = [
            ("version 6", packet(&[], |h| h[0] = 0x65), DropReason::BadIpHeader),
            ("header of 16 bytes", packet(&[], |h| h[0] = 0x44), DropReason::BadIpHeader),
            ("total shorter than header", packet(&[], |h| h[3] = 19), DropReason::BadIpHeader),
            ("total longer than frame", packet(&[], |h| h[3] = 29), DropReason::Truncated),
            ("options beyond the packet", packet(&[], |h| h[0] = 0x4f), DropReason::BadIpHeader),
            ("checksum", damaged, DropReason::BadIpChecksum),
        ];
        for (what, bytes, reason) in cases {
            assert_eq!(check(&bytes), Err(reason), "{what}");
        }
        assert_eq!(check(&packet(&[], |_| ())[..19]), Err(DropReason::Truncated));
    }

    #[test]
    fn a_packet_may_go_on_in_another_piece() {
        let whole = packet(&[], |_| ());
        assert_eq!(parse(&whole[..24], 28), check(&whole));
    }
}
