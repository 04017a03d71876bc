//! IPv4, IPv6 and its extension headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Layer, checksum, digits, long, short, unless, unless_hex, upper};
use crate::checksum::{Ends, of_field};

const FRAGMENT_OFFSET: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;
/// Its text needs no data.
const PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];

/// What an IP payload is part of.
#[derive(Clone, Copy)]
pub struct Around {
    pub ends: Ends,
    /// It is all there, so that its checksum can be told.
    pub complete: bool,
}

/// Bytes of the IPv4 packet at the start, if its header can be one.
pub fn length_v4(bytes: &[u8]) -> Option<usize> {
    let header = usize::from(bytes.first()? & 15) * 4;
    let good = bytes[0] >> 4 == 4 && header >= 20 && bytes.len() >= header;
    good.then(|| usize::from(short(bytes, 2)).max(header))
}

/// Bytes of the IPv6 packet at the start, if its header can be one.
pub fn length_v6(bytes: &[u8]) -> Option<usize> {
    let good = bytes.len() >= 40 && bytes[0] >> 4 == 6;
    good.then(|| 40 + usize::from(short(bytes, 4)))
}

/// A packet whose length is known ([`length_v4`]); cut short, or followed by something, inside an ICMP error.
pub fn v4(packet: &[u8]) -> Vec<Layer<'_>> {
    let (header, payload) = packet.split_at(usize::from(packet[0] & 15) * 4);
    let [source, destination] = [12, 16].map(|at| Ipv4Addr::from(long(header, at)));
    let (stated, flags) = (short(header, 2), short(header, 6));
    let fragmented = flags & (FRAGMENT_OFFSET | MORE_FRAGMENTS) != 0;
    let ends = Ends { source: source.into(), destination: destination.into() };
    let complete = !fragmented && usize::from(stated) == packet.len();
    let around = Around { ends, complete };
    let (inner, named) = upper(header[9], payload, around, flags & FRAGMENT_OFFSET > 0);
    let set = [(0x8000, " rf"), (0x4000, " df"), (MORE_FRAGMENTS, " mf")];
    let options = if header.len() > 20 { format!(" opt {}", digits(&header[20..])) } else { String::new() };
    let text = [
        format!("ipv4 {source} > {destination}"),
        unless("ttl", header[8], 64),
        unless_hex("tos", u32::from(header[1])),
        unless("id", short(header, 4), 0),
        set.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect(),
        unless("offset", (flags & FRAGMENT_OFFSET) * 8, 0),
        options,
        if named { String::new() } else { format!(" proto {}", header[9]) },
        unless("length", stated, packet.len() as u64),
        checksum(short(header, 10), Some(of_field(None, 0, header, 10))),
    ];
    [vec![Layer { text: text.concat(), bytes: header }], inner].concat()
}

/// As [`v4`].
pub fn v6(packet: &[u8]) -> Vec<Layer<'_>> {
    let (header, payload) = packet.split_at(40);
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap_or_default());
    let (source, destination) = (address(8), address(24));
    let ends = Ends { source: source.into(), destination: destination.into() };
    let stated = usize::from(short(header, 4));
    let around = Around { ends, complete: stated == payload.len() };
    let (inner, named) = upper(header[6], payload, around, false);
    let text = [
        format!("ipv6 {source} > {destination}"),
        unless("hops", header[7], 64),
        unless_hex("class", long(header, 0) >> 20 & 0xff),
        unless_hex("label", long(header, 0) & 0xf_ffff),
        if named { String::new() } else { format!(" next {}", header[6]) },
        unless("length", short(header, 4), payload.len() as u64),
    ];
    [vec![Layer { text: text.concat(), bytes: header }], inner].concat()
}

/// An extension header of this number and what follows it; `None` if it is cut short.
pub fn extension(number: u8, bytes: &[u8], around: Around) -> Option<Vec<Layer<'_>>> {
    let length = if number == 44 { 8 } else { 8 + 8 * usize::from(*bytes.get(1)?) };
    let (header, payload) = bytes.split_at_checked(length)?;
    let (field, mut around, mut later) = (&header[2..], around, false);
    let text = match number {
        0 | 60 => {
            let name = if number == 0 { "hopopts" } else { "dstopts" };
            if field == PADDING { name.to_owned() } else { format!("{name} {}", digits(field)) }
        }
        43 => {
            let data = if field[2..].iter().any(|byte| *byte > 0) || field.len() > 6 {
                format!(" data {}", digits(&field[2..]))
            } else {
                String::new()
            };
            format!("routing type {} left {}{data}", field[0], field[1])
        }
        _ => {
            let (place, more) = (short(header, 2) & !7, short(header, 2) & 1 != 0);
            later = place > 0;
            around.complete &= !(later || more);
            let more = if more { " mf" } else { "" };
            format!("frag id {}{more}{}", long(header, 4), unless("offset", place, 0))
        }
    };
    let (inner, named) = upper(header[0], payload, around, later);
    let next = if named { String::new() } else { format!(" next {}", header[0]) };
    // The data of options have no name before them, so nothing can follow.
    let text =
        if matches!(number, 0 | 60) { text.replacen(' ', &format!("{next} "), 1) } else { text + &next };
    Some([vec![Layer { text, bytes: header }], inner].concat())
}

/// Whether the ends are of IPv6.
pub fn is_v6(around: Around) -> bool {
    matches!(around.ends.source, IpAddr::V6(_))
}
