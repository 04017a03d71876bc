//! The packet language, from text to bytes; `tests/golden/README.md` describes it. `print` is the way back.

mod ip;
mod tests;
pub mod upper;
pub mod words;

use shunt_api::mac::MacAddress;

use super::checksum::{Ends, ICMP, ICMPV6, IPV4, IPV6, TCP, UDP};
use super::names;
use words::{Result, Words, number};

/// Between the layers of a packet.
pub const SEPARATOR: &str = " / ";

/// Byte `index` of the payload `bytes N`; a prime period shows where a fragment comes from.
pub fn pattern(index: usize) -> u8 {
    (index % 251) as u8
}

/// The frame that a text describes. What stands in parentheses is a remark.
pub fn frame(text: &str) -> Result<Vec<u8>> {
    let text = without_remarks(text);
    let layers: Vec<&str> = text.split(SEPARATOR).map(str::trim).collect();
    Ok(build(&layers, None)?.bytes)
}

fn without_remarks(text: &str) -> String {
    let mut parts = text.split('(');
    let before = parts.next().unwrap_or_default().to_owned();
    parts.fold(before, |kept, part| kept + part.split_once(')').map_or("", |(_, after)| after))
}

/// What a layer is to the one below it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ipv4,
    Ipv6,
    Protocol(u8),
    Data,
}

impl Kind {
    /// Its IANA number.
    fn protocol(self) -> Option<u8> {
        match self {
            Self::Ipv4 => Some(IPV4),
            Self::Ipv6 => Some(IPV6),
            Self::Protocol(number) => Some(number),
            Self::Data => None,
        }
    }
}

/// A layer with all that it carries.
struct Built {
    bytes: Vec<u8>,
    kind: Kind,
}

/// Builds layers between the ends of the IP packet around them.
fn build(layers: &[&str], ends: Option<Ends>) -> Result<Built> {
    let Some((&first, rest)) = layers.split_first() else {
        return Ok(Built { bytes: Vec::new(), kind: Kind::Data });
    };
    let mut words = Words::new(first);
    let (bytes, kind) = match first.split_whitespace().next().unwrap_or_default() {
        "eth" => (ethernet(&mut words, rest)?, Kind::Data),
        "ipv4" => (ip::v4(&mut words, rest)?, Kind::Ipv4),
        "ipv6" => (ip::v6(&mut words, rest)?, Kind::Ipv6),
        "hopopts" => (ip::options(&mut words, rest, ends)?, Kind::Protocol(ip::HOP_BY_HOP)),
        "dstopts" => (ip::options(&mut words, rest, ends)?, Kind::Protocol(ip::DESTINATION_OPTIONS)),
        "routing" => (ip::routing(&mut words, rest, ends)?, Kind::Protocol(ip::ROUTING)),
        "frag" => (ip::fragment(&mut words, rest, ends)?, Kind::Protocol(ip::FRAGMENT)),
        "tcp" => (upper::tcp(&mut words, rest, ends)?, Kind::Protocol(TCP)),
        "udp" => (upper::udp(&mut words, rest, ends)?, Kind::Protocol(UDP)),
        "icmp" => (upper::icmp(&mut words, rest, None)?, Kind::Protocol(ICMP)),
        "icmp6" => (upper::icmp(&mut words, rest, ends)?, Kind::Protocol(ICMPV6)),
        "bytes" | "hex" => (data(first, &mut words, rest)?, Kind::Data),
        quoted if quoted.starts_with('"') => return text(first, rest),
        other => return Err(format!("`{other}` is not a layer")),
    };
    words.finish()?;
    Ok(Built { bytes, kind })
}

/// `eth [A > B] [vlan ID] [svlan ID] [type N] [pad N [BYTE]] [trailer HEX] [cut N]`
fn ethernet(words: &mut Words<'_>, rest: &[&str]) -> Result<Vec<u8>> {
    let (source, destination) = words.pair().unwrap_or(("router", "shunt"));
    let payload = build(rest, None)?;
    let mut frame = [station(destination)?, station(source)?].concat();
    while let Some((kind, tag)) = words.first_of(&["vlan", "svlan"])? {
        frame.extend(if kind == "vlan" { [0x81, 0] } else { [0x88, 0xa8] });
        frame.extend(control(tag)?.to_be_bytes());
    }
    let usual = match payload.kind {
        Kind::Ipv4 => Some(0x0800),
        Kind::Ipv6 => Some(0x86dd),
        Kind::Protocol(_) | Kind::Data => None,
    };
    let ether_type: u16 = words.number("type")?.or(usual).ok_or("`eth` needs a type for such a payload")?;
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload.bytes);
    frame.extend(words.bytes("trailer")?);
    if let Some(length) = words.number("pad")? {
        let filler = words.number_or("with", 0)?;
        frame.resize(frame.len().max(length), filler);
    }
    frame.truncate(words.number_or("cut", frame.len())?);
    Ok(frame)
}

fn station(text: &str) -> Result<[u8; 6]> {
    names::station(text).map(|MacAddress(mac)| mac).ok_or_else(|| format!("`{text}` is not a station"))
}

/// `ID` or `ID.PRIORITY`.
fn control(tag: &str) -> Result<u16> {
    let (id, priority) = tag.split_once('.').unwrap_or((tag, "0"));
    Ok(number::<u16>(priority)? << 13 | number::<u16>(id)?)
}

/// `bytes N [from K]` or `hex DIGITS…`
fn data(layer: &str, words: &mut Words<'_>, rest: &[&str]) -> Result<Vec<u8>> {
    let mut bytes = if layer.starts_with("bytes") {
        let count: usize = number(words.next()?)?;
        let from: usize = words.number_or("from", 0)?;
        (from..from + count).map(pattern).collect()
    } else {
        words::bytes(&words.rest().concat())?
    };
    bytes.extend(build(rest, None)?.bytes);
    Ok(bytes)
}

fn text(layer: &str, rest: &[&str]) -> Result<Built> {
    let text = layer.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let mut bytes = text.ok_or_else(|| format!("`{layer}` has no closing quote"))?.as_bytes().to_vec();
    bytes.extend(build(rest, None)?.bytes);
    Ok(Built { bytes, kind: Kind::Data })
}
