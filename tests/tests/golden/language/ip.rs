//! IPv4, IPv6 and its extension headers.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::words::{Result, Words, number, parsed};
use super::{Built, build};
use crate::checksum::{Ends, plain};

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION_OPTIONS: u8 = 60;

/// Six bytes of padding (RFC 8200 §4.2, PadN).
const PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];

/// Which bytes of a payload a fragment carries, and what it says of that.
struct Part {
    bytes: Vec<u8>,
    offset: u16,
    more: bool,
}

/// `ipv4 A > B [ttl N] [tos N] [id N] [df] [mf] [rf] [offset N] [part A-B] [opt HEX] [proto N] [length N] [ihl N]
/// [version N] [checksum N]`
pub fn v4(words: &mut Words<'_>, rest: &[&str]) -> Result<Vec<u8>> {
    let (source, destination) = words.pair().ok_or("`ipv4` needs SOURCE > DESTINATION")?;
    let what = "an IPv4 address";
    let (source, destination): (Ipv4Addr, Ipv4Addr) = (parsed(source, what)?, parsed(destination, what)?);
    let ends = Ends { source: source.into(), destination: destination.into() };
    let payload = build(rest, Some(ends))?;
    let protocol = protocol(words, "proto", &payload)?;
    let part = part(words, payload.bytes)?;
    let options = words.bytes("opt")?;
    let words_long = words.number_or("ihl", (5 + options.len() / 4) as u8)?;
    let length: u16 = words.number_or("length", (20 + options.len() + part.bytes.len()) as u16)?;
    let flags = [("rf", 0x8000), ("df", 0x4000), ("mf", 0x2000)];
    let fragment = flags.iter().filter(|(name, _)| words.flag(name)).fold(part.offset / 8, |f, (_, b)| f | b);
    let fragment = fragment | if part.more { 0x2000 } else { 0 };
    let mut header = vec![words.number_or("version", 4u8)? << 4 | words_long & 15];
    header.push(words.number_or("tos", 0)?);
    header.extend(length.to_be_bytes());
    header.extend(words.number_or("id", 0u16)?.to_be_bytes());
    header.extend(fragment.to_be_bytes());
    header.extend([words.number_or("ttl", 64)?, protocol, 0, 0]);
    header.extend([source.octets(), destination.octets()].concat());
    header.extend(options);
    let checksum = words.number_or("checksum", plain(&header))?;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header.extend(part.bytes);
    Ok(header)
}

/// `ipv6 A > B [hops N] [class N] [label N] [next N] [length N] [version N]`
pub fn v6(words: &mut Words<'_>, rest: &[&str]) -> Result<Vec<u8>> {
    let (source, destination) = words.pair().ok_or("`ipv6` needs SOURCE > DESTINATION")?;
    let what = "an IPv6 address";
    let (source, destination): (Ipv6Addr, Ipv6Addr) = (parsed(source, what)?, parsed(destination, what)?);
    let ends = Ends { source: source.into(), destination: destination.into() };
    let payload = build(rest, Some(ends))?;
    let next = protocol(words, "next", &payload)?;
    let class: u8 = words.number_or("class", 0)?;
    let first = words.number_or("version", 6u32)? << 28 | u32::from(class) << 20;
    let mut header = (first | words.number_or("label", 0u32)?).to_be_bytes().to_vec();
    header.extend(words.number_or("length", payload.bytes.len() as u16)?.to_be_bytes());
    header.extend([next, words.number_or("hops", 64)?]);
    header.extend([source.octets(), destination.octets()].concat());
    header.extend(payload.bytes);
    Ok(header)
}

/// `hopopts [HEX]` or `dstopts [HEX]`, each with `[next N] [len N]`: six bytes of options, or more
pub fn options(words: &mut Words<'_>, rest: &[&str], ends: Option<Ends>) -> Result<Vec<u8>> {
    let payload = build(rest, ends)?;
    let next = protocol(words, "next", &payload)?;
    let length = words.number("len")?;
    let mut options = super::words::bytes(&words.rest().concat())?;
    if options.is_empty() {
        options.extend(PADDING);
    }
    Ok(extension(next, length, options, payload.bytes))
}

/// `routing [type N] [left N] [data HEX] [next N] [len N]`
pub fn routing(words: &mut Words<'_>, rest: &[&str], ends: Option<Ends>) -> Result<Vec<u8>> {
    let payload = build(rest, ends)?;
    let next = protocol(words, "next", &payload)?;
    let length = words.number("len")?;
    let mut field = vec![words.number_or("type", 0)?, words.number_or("left", 0)?];
    let data = words.bytes("data")?;
    field.extend(if data.is_empty() { vec![0; 4] } else { data });
    Ok(extension(next, length, field, payload.bytes))
}

fn extension(next: u8, length: Option<u8>, field: Vec<u8>, payload: Vec<u8>) -> Vec<u8> {
    let length = length.unwrap_or(((field.len() + 2) / 8).saturating_sub(1) as u8);
    [vec![next, length], field, payload].concat()
}

/// `frag [id N] [mf] [offset N] [part A-B] [next N]`
pub fn fragment(words: &mut Words<'_>, rest: &[&str], ends: Option<Ends>) -> Result<Vec<u8>> {
    let payload = build(rest, ends)?;
    let next = protocol(words, "next", &payload)?;
    let part = part(words, payload.bytes)?;
    let more = part.more | words.flag("mf");
    let mut header = vec![next, 0];
    header.extend((part.offset | u16::from(more)).to_be_bytes());
    header.extend(words.number_or("id", 0u32)?.to_be_bytes());
    header.extend(part.bytes);
    Ok(header)
}

fn protocol(words: &mut Words<'_>, name: &str, payload: &Built) -> Result<u8> {
    let number = words.number(name)?.or(payload.kind.protocol());
    number.ok_or_else(|| format!("such a payload needs `{name}`"))
}

/// `part A-B` cuts the payload out of the whole packet's; `offset N` only says so.
fn part(words: &mut Words<'_>, payload: Vec<u8>) -> Result<Part> {
    let offset = words.number_or("offset", 0)?;
    let Some(range) = words.text("part")? else {
        return Ok(Part { bytes: payload, offset, more: false });
    };
    let (start, end) = range.split_once('-').ok_or("`part` needs FROM-TO")?;
    let (start, end): (usize, usize) = (number(start)?, number(end)?);
    let bytes = payload.get(start..end).ok_or_else(|| format!("the packet has {} bytes", payload.len()))?;
    Ok(Part { bytes: bytes.to_vec(), offset: start as u16, more: end < payload.len() })
}
