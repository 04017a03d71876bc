//! Names for numbers, for the builder and the printer: stations of the network, types and codes of ICMP.

use shunt_api::mac::MacAddress;

/// Who is on the wire besides the backends, which are `node` and the last byte of their address.
const STATIONS: [(&str, [u8; 6]); 6] = [
    ("shunt", [2, 0, 0, 0, 0xaa, 0]),
    ("shunt1", [2, 0, 0, 0, 0xaa, 1]),
    ("router", [2, 0, 0, 0, 0xfe, 1]),
    ("router2", [2, 0, 0, 0, 0xfe, 2]),
    ("everybody", [0xff; 6]),
    ("group", [1, 0, 0x5e, 0, 0, 1]),
];

const NODE: [u8; 5] = [2, 0, 0, 0, 0xbb];

/// The address of a NIC of ours.
pub fn own(nic: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0xaa, nic])
}

/// The address of the backend whose IP address ends with this byte.
pub fn node(last: u8) -> MacAddress {
    let [a, b, c, d, e] = NODE;
    MacAddress([a, b, c, d, e, last])
}

/// The station of this name, or of this address in its text form.
pub fn station(text: &str) -> Option<MacAddress> {
    let known = STATIONS.iter().find(|(name, _)| *name == text).map(|(_, mac)| MacAddress(*mac));
    let numbered = || text.strip_prefix("node").and_then(|last| last.parse().ok()).map(node);
    known.or_else(numbered).or_else(|| text.parse().ok())
}

/// The name of a station, or its address.
pub fn station_name(mac: [u8; 6]) -> String {
    if let Some((name, _)) = STATIONS.iter().find(|(_, known)| *known == mac) {
        return (*name).to_owned();
    }
    if mac[..5] == NODE {
        return format!("node{}", mac[5]);
    }
    MacAddress(mac).to_string()
}

/// Types of ICMP with their numbers.
const TYPES_V4: [(&str, u8); 10] = [
    ("echo-reply", 0),
    ("unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo", 8),
    ("router-advertisement", 9),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp", 13),
    ("address-mask", 17),
];

/// Types of ICMPv6 with their numbers.
const TYPES_V6: [(&str, u8); 8] = [
    ("unreachable", 1),
    ("too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo", 128),
    ("echo-reply", 129),
    ("neighbor-solicitation", 135),
    ("redirect", 137),
];

/// Codes of "unreachable" (RFC 792, RFC 1812 §5.2.7.1).
const CODES_V4: [(&str, u8); 6] =
    [("net", 0), ("host", 1), ("protocol", 2), ("port", 3), ("needs-fragments", 4), ("prohibited", 13)];

/// Codes of "unreachable" (RFC 4443 §3.1).
const CODES_V6: [(&str, u8); 4] = [("no-route", 0), ("prohibited", 1), ("address", 3), ("port", 4)];

/// Types of a family.
pub fn icmp_types(v6: bool) -> &'static [(&'static str, u8)] {
    if v6 { &TYPES_V6 } else { &TYPES_V4 }
}

/// Codes of a family's "unreachable".
pub fn unreachable_codes(v6: bool) -> &'static [(&'static str, u8)] {
    if v6 { &CODES_V6 } else { &CODES_V4 }
}

/// The number of a name.
pub fn number(names: &[(&str, u8)], name: &str) -> Option<u8> {
    names.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of a number.
pub fn name(names: &[(&'static str, u8)], number: u8) -> Option<&'static str> {
    names.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}
