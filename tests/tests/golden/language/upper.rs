//! TCP, UDP and ICMP of both families.

use super::build;
use super::words::{Result, Words, number};
use crate::checksum::{Ends, ICMPV6, TCP, UDP, of_field};
use crate::names;

/// Letters of the TCP flags, from the lowest bit on.
pub const FLAGS: [char; 8] = ['F', 'S', 'R', 'P', 'A', 'U', 'E', 'W'];

/// What a window is unless the text says otherwise.
pub const WINDOW: u16 = 65_535;

/// `tcp A > B FLAGS [seq N] [ack N] [win N] [urg N] [opt HEX] [doff N] [checksum N] [cut N]`; no flag is `-`
pub fn tcp(words: &mut Words<'_>, rest: &[&str], ends: Option<Ends>) -> Result<Vec<u8>> {
    let mut segment = ports(words)?;
    let options = words.bytes("opt")?;
    let words_long = words.number_or("doff", (5 + options.len() / 4) as u8)?;
    segment.extend(words.number_or("seq", 0u32)?.to_be_bytes());
    segment.extend(words.number_or("ack", 0u32)?.to_be_bytes());
    let cut = words.number("cut")?;
    let flags = if cut.is_some() { 0 } else { flags(words.next()?)? };
    segment.extend([words_long << 4, flags]);
    segment.extend(words.number_or("win", WINDOW)?.to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(words.number_or("urg", 0u16)?.to_be_bytes());
    segment.extend(options);
    segment.extend(build(rest, None)?.bytes);
    seal(words, &mut segment, ends, TCP, 16)?;
    segment.truncate(cut.unwrap_or(segment.len()));
    Ok(segment)
}

/// `udp A > B [length N] [checksum N]`
pub fn udp(words: &mut Words<'_>, rest: &[&str], ends: Option<Ends>) -> Result<Vec<u8>> {
    let mut datagram = ports(words)?;
    let payload = build(rest, None)?.bytes;
    datagram.extend(words.number_or("length", (8 + payload.len()) as u16)?.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    seal(words, &mut datagram, ends, UDP, 6)?;
    Ok(datagram)
}

/// `icmp TYPE [CODE] [code N] [id N] [seq N] [mtu N] [rest HEX] [quote N] [checksum N]`, also `icmp6`, which is the
/// one between `ends`
pub fn icmp(words: &mut Words<'_>, rest: &[&str], ends: Option<Ends>) -> Result<Vec<u8>> {
    let v6 = ends.is_some();
    let name = words.next()?;
    let kind = names::number(names::icmp_types(v6), name).map_or_else(|| number(name), Ok)?;
    let named =
        names::unreachable_codes(v6).iter().find(|(code, _)| name == "unreachable" && words.flag(code));
    let code: u8 = words.number_or("code", named.map_or(0, |(_, code)| *code))?;
    let [id, seq]: [u16; 2] = [words.number_or("id", 0)?, words.number_or("seq", 0)?];
    let field = words.number_or("mtu", u32::from(id) << 16 | u32::from(seq))?.to_be_bytes();
    let field = words.text("rest")?.map_or(Ok(field.to_vec()), super::words::bytes)?;
    let mut payload = build(rest, ends)?.bytes;
    payload.truncate(words.number_or("quote", payload.len())?);
    let mut message = [vec![kind, code, 0, 0], field, payload].concat();
    seal(words, &mut message, ends, ICMPV6, 2)?;
    Ok(message)
}

fn ports(words: &mut Words<'_>) -> Result<Vec<u8>> {
    let (source, destination) = words.pair().ok_or("ports are missing: SOURCE > DESTINATION")?;
    let ports: [u16; 2] = [number(source)?, number(destination)?];
    Ok(ports.map(u16::to_be_bytes).concat())
}

fn flags(letters: &str) -> Result<u8> {
    if letters == "-" {
        return Ok(0);
    }
    let bit = |letter| FLAGS.iter().position(|flag| *flag == letter).map(|bit| 1 << bit);
    let bits: Option<u8> = letters.chars().map(bit).sum();
    bits.ok_or_else(|| format!("`{letters}` is not made of FSRPAUEW"))
}

/// Writes the checksum, or what the text has in its place.
fn seal(words: &mut Words<'_>, bytes: &mut [u8], ends: Option<Ends>, protocol: u8, at: usize) -> Result<()> {
    let right = of_field(ends, protocol, bytes, at);
    bytes[at..at + 2].copy_from_slice(&words.number_or("checksum", right)?.to_be_bytes());
    Ok(())
}
