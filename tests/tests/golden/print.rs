//! From bytes to the packet language: [`frame`] leaves out what [`super::language`] puts in by itself, so that what
//! is printed builds the same bytes again. A checksum that is not mentioned is right.

mod ip;
mod upper;

pub use ip::Around;
pub use upper::upper;

use crate::language::pattern;
use crate::names;

/// One layer of a frame, without what it carries.
#[derive(Clone)]
pub struct Layer<'a> {
    /// In the packet language; empty for what another layer's text says.
    pub text: String,
    /// As on the wire.
    pub bytes: &'a [u8],
}

/// Payloads in a row of the pattern that are longer are not shown byte by byte.
const SHOWN: usize = 64;
/// Hexadecimal bytes in one line.
const LINE: usize = 32;

impl Layer<'_> {
    /// The first word of the text.
    fn name(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// Its bytes in hexadecimal, in lines.
    pub fn hex(&self) -> Vec<String> {
        let name = match self.name() {
            "" => "padding",
            "hex" => "data",
            quoted if quoted.starts_with('"') => "data",
            name => name,
        };
        if self.text.starts_with("bytes") && self.bytes.len() > SHOWN {
            return vec![];
        }
        if let ("eth", Some((stations, rest))) = (name, self.bytes.split_at_checked(12)) {
            let (destination, source) = stations.split_at(6);
            return vec![format!("{name:8} {} {} {}", digits(destination), digits(source), grouped(rest))];
        }
        let lines = self.bytes.chunks(LINE).enumerate();
        lines.map(|(i, line)| format!("{:8} {}", if i == 0 { name } else { "" }, grouped(line))).collect()
    }
}

fn grouped(bytes: &[u8]) -> String {
    bytes.chunks(4).map(digits).collect::<Vec<_>>().join(" ")
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The layers of a frame.
pub fn frame(frame: &[u8]) -> Vec<Layer<'_>> {
    let Some((header, ether_type, tags)) = split(frame) else { return data(frame) };
    let packet = &frame[header..];
    let length = match ether_type {
        0x0800 => ip::length_v4(packet),
        0x86dd => ip::length_v6(packet),
        _ => None,
    };
    let (packet, trailer) = packet.split_at(length.unwrap_or(packet.len()).min(packet.len()));
    let inner = match (length, ether_type) {
        (Some(_), 0x0800) => ip::v4(packet),
        (Some(_), _) => ip::v6(packet),
        (None, _) => data(packet),
    };
    let [destination, source] =
        [&frame[..6], &frame[6..12]].map(|mac| names::station_name(mac.try_into().unwrap_or_default()));
    let kind = if length.is_none() { format!(" type {ether_type:#06x}") } else { String::new() };
    let text = format!("eth {source} > {destination}{tags}{kind}{}", padding(trailer, frame.len()));
    let mut layers = vec![Layer { text, bytes: &frame[..header] }];
    layers.extend(inner);
    layers.push(Layer { text: String::new(), bytes: trailer });
    layers
}

/// Bytes of the Ethernet header, the type of what follows, and the tags in the packet language.
fn split(frame: &[u8]) -> Option<(usize, u16, String)> {
    let mut at = 12;
    let mut tags = String::new();
    loop {
        let field = u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
        let kind = match field {
            0x8100 => "vlan",
            0x88a8 => "svlan",
            ether_type => return Some((at + 2, ether_type, tags)),
        };
        let control = u16::from_be_bytes(frame.get(at + 2..at + 4)?.try_into().ok()?);
        let priority = Some(control >> 13).filter(|&priority| priority > 0);
        let priority = priority.map(|priority| format!(".{priority}")).unwrap_or_default();
        tags += &format!(" {kind} {}{priority}", control & 0x1fff);
        at += 4;
    }
}

/// What lies behind the IP packet.
fn padding(trailer: &[u8], length: usize) -> String {
    match trailer {
        [] => String::new(),
        [0, rest @ ..] if rest.iter().all(|byte| *byte == 0) => format!(" pad {length}"),
        [first, rest @ ..] if rest.iter().all(|byte| byte == first) => {
            format!(" pad {length} with {first:#04x}")
        }
        _ => format!(" trailer {}", digits(trailer)),
    }
}

/// A payload that nothing more is known of.
fn data(bytes: &[u8]) -> Vec<Layer<'_>> {
    let Some(&first) = bytes.first() else { return vec![] };
    let from = usize::from(first);
    let is_pattern = bytes.len() >= 8 && bytes.iter().enumerate().all(|(i, byte)| *byte == pattern(from + i));
    let is_text = bytes.iter().all(|byte| matches!(byte, b' ' | b'!' | b'.' | b'-' | b'0'..=b'z'));
    let text = match from {
        0 if is_pattern => format!("bytes {}", bytes.len()),
        _ if is_pattern => format!("bytes {} from {from}", bytes.len()),
        _ if is_text => format!("\"{}\"", String::from_utf8_lossy(bytes)),
        _ => format!("hex {}", grouped(bytes)),
    };
    vec![Layer { text, bytes }]
}

/// The words ` NAME VALUE`, unless the value is the usual one.
fn unless<T: Into<u64>>(name: &str, value: T, usual: u64) -> String {
    let value = value.into();
    if value == usual { String::new() } else { format!(" {name} {value}") }
}

/// The words ` NAME 0xVALUE`, unless the value is 0.
fn unless_hex(name: &str, value: u32) -> String {
    if value == 0 { String::new() } else { format!(" {name} {value:#x}") }
}

/// The words for a checksum. `right` is what it should be, if that can be told.
fn checksum(stored: u16, right: Option<u16>) -> String {
    match right {
        Some(right) if right == stored => String::new(),
        Some(right) => format!(" checksum {stored:#06x} ({right:#06x} would be right)"),
        None => format!(" checksum {stored:#06x}"),
    }
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
