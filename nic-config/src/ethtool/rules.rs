//! Steering rules as drivers take them: `struct ethtool_rxnfc` and `struct ethtool_rx_flow_spec`
//! (linux/ethtool.h). Only rules by destination address, protocol and destination port are understood.
#![deny(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::words::{number, number_64, put, put_64};

/// Size of `struct ethtool_rxnfc` without the places at its end.
pub const SIZE_BYTES: usize = 192;
/// Where `rule_locs` begins.
const PLACES: usize = 188;
/// Where `rule_cnt` is.
const COUNT: usize = 184;
/// Where `data` is: for a listing, how many rules fit.
const DATA: usize = 8;
/// Where `fs` begins, and in it what it matches, by which mask, and where that leads.
const FLOW: usize = 16;
const VALUES: usize = FLOW + 4;
const MASKS: usize = FLOW + 76;
/// From the values' and masks' begin to their end; the fields of VLANs and Ethernet come last.
const FIELDS_BYTES: usize = 72;
const COOKIE: usize = FLOW + 152;
const LOCATION: usize = FLOW + 160;

/// In the fields of `struct ethtool_tcpip4_spec` and `ethtool_usrip4_spec`.
const V4_TO: usize = 4;
const V4_PORT: usize = 10;
const V4_VERSION: usize = 13;
/// In the fields of `struct ethtool_tcpip6_spec` and `ethtool_usrip6_spec`.
const V6_TO: usize = 16;
const V6_PORT: usize = 34;
/// `ETH_RX_NFC_IP4`.
const VERSION_4: u8 = 1;
/// A driver that chooses places itself sets this beside the size of its table.
const CHOOSES_PLACES: u32 = 0x8000_0000;

/// `flow_type`s.
const TCP_V4: u32 = 1;
const UDP_V4: u32 = 2;
const TCP_V6: u32 = 5;
const UDP_V6: u32 = 6;
const IP_V4: u32 = 0x0d;
const IP_V6: u32 = 0x0e;

/// Sends packets to a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Their destination.
    pub to: IpNet,
    /// `None` is any.
    pub protocol: Option<Protocol>,
    /// Destination port; only with a protocol.
    pub port: Option<u16>,
    /// Where they go.
    pub queue: u32,
}

/// Has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to)?;
        match self.protocol {
            Some(Protocol::Tcp) => f.write_str(" tcp")?,
            Some(Protocol::Udp) => f.write_str(" udp")?,
            None => {}
        }
        if let Some(port) = self.port {
            write!(f, " port {port}")?;
        }
        write!(f, " to queue {}", self.queue)
    }
}

/// The structure for a command without a rule in it.
pub fn request(command: u32, places: usize) -> Vec<u8> {
    let mut structure = vec![0; SIZE_BYTES.max((PLACES + 4 * places).next_multiple_of(8))];
    put(&mut structure, 0, command);
    put(&mut structure, COUNT, places as u32);
    structure
}

/// The same about a place in the table.
pub fn about(command: u32, location: u32) -> Vec<u8> {
    let mut structure = request(command, 0);
    put(&mut structure, LOCATION, location);
    structure
}

/// The structure that puts a rule in a place.
pub fn insertion(command: u32, location: u32, rule: &Rule) -> Vec<u8> {
    let mut structure = about(command, location);
    put(&mut structure, FLOW, flow_type(rule));
    put_64(&mut structure, COOKIE, rule.queue.into());
    let (values, masks) = structure.split_at_mut(MASKS);
    let values = &mut values[VALUES..];
    let (to, port) = match (rule.to.network(), rule.to.netmask()) {
        (IpAddr::V4(to), IpAddr::V4(mask)) => {
            values[V4_TO..V4_TO + 4].copy_from_slice(&to.octets());
            masks[V4_TO..V4_TO + 4].copy_from_slice(&mask.octets());
            (V4_TO, V4_PORT)
        }
        (IpAddr::V6(to), IpAddr::V6(mask)) => {
            values[V6_TO..V6_TO + 16].copy_from_slice(&to.octets());
            masks[V6_TO..V6_TO + 16].copy_from_slice(&mask.octets());
            (V6_TO, V6_PORT)
        }
        _ => unreachable!("a prefix and its mask are of one family"),
    };
    if rule.protocol.is_none() && to == V4_TO {
        values[V4_VERSION] = VERSION_4;
    }
    if let Some(number) = rule.port {
        values[port..port + 2].copy_from_slice(&number.to_be_bytes());
        masks[port..port + 2].copy_from_slice(&u16::MAX.to_be_bytes());
    }
    structure
}

fn flow_type(rule: &Rule) -> u32 {
    match (rule.to, rule.protocol) {
        (IpNet::V4(_), Some(Protocol::Tcp)) => TCP_V4,
        (IpNet::V4(_), Some(Protocol::Udp)) => UDP_V4,
        (IpNet::V4(_), None) => IP_V4,
        (IpNet::V6(_), Some(Protocol::Tcp)) => TCP_V6,
        (IpNet::V6(_), Some(Protocol::Udp)) => UDP_V6,
        (IpNet::V6(_), None) => IP_V6,
    }
}

/// How many rules there are.
pub fn count(answer: &[u8]) -> usize {
    number(answer, COUNT) as usize
}

/// How many rules fit.
pub fn capacity(answer: &[u8]) -> u32 {
    number(answer, DATA) & !CHOOSES_PLACES
}

/// The places that are taken.
pub fn places(answer: &[u8]) -> Vec<u32> {
    let room = (answer.len() - PLACES) / 4;
    (0..count(answer).min(room)).map(|index| number(answer, PLACES + 4 * index)).collect()
}

/// The rule in an answer; `None` if it matches or does what [`Rule`] cannot say.
pub fn rule(answer: &[u8]) -> Option<Rule> {
    let (v4, protocol) = match number(answer, FLOW) {
        TCP_V4 => (true, Some(Protocol::Tcp)),
        UDP_V4 => (true, Some(Protocol::Udp)),
        IP_V4 => (true, None),
        TCP_V6 => (false, Some(Protocol::Tcp)),
        UDP_V6 => (false, Some(Protocol::Udp)),
        IP_V6 => (false, None),
        _ => return None,
    };
    let (values, masks) = (&answer[VALUES..MASKS], &answer[MASKS..MASKS + FIELDS_BYTES]);
    let (to, port) = if v4 { (V4_TO, V4_PORT) } else { (V6_TO, V6_PORT) };
    let (address, mask) = (address(values, to, v4)?, address(masks, to, v4)?);
    let port_mask = u16::from_be_bytes([masks[port], masks[port + 1]]);
    let port_value = u16::from_be_bytes([values[port], values[port + 1]]);
    let rule = Rule {
        to: IpNet::with_netmask(address, mask).ok()?,
        protocol,
        port: (port_mask == u16::MAX && protocol.is_some()).then_some(port_value),
        queue: u32::try_from(number_64(answer, COOKIE)).ok()?,
    };
    let known = insertion(number(answer, 0), number(answer, LOCATION), &rule);
    (known[MASKS..MASKS + FIELDS_BYTES] == *masks).then_some(rule)
}

fn address(fields: &[u8], at: usize, v4: bool) -> Option<IpAddr> {
    if v4 {
        let octets: [u8; 4] = fields[at..at + 4].try_into().ok()?;
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets: [u8; 16] = fields[at..at + 16].try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(to: &str, protocol: Option<Protocol>, port: Option<u16>) -> Rule {
        Rule { to: to.parse().unwrap(), protocol, port, queue: 3 }
    }

    #[test]
    fn a_rule_is_read_as_it_was_written() {
        for rule in [
            made("192.0.2.10/32", Some(Protocol::Tcp), Some(443)),
            made("192.0.2.0/24", Some(Protocol::Udp), None),
            made("192.0.2.0/24", None, None),
            made("2001:db8::10/128", Some(Protocol::Udp), Some(443)),
            made("2001:db8::/64", None, None),
        ] {
            assert_eq!(super::rule(&insertion(0x32, 7, &rule)), Some(rule));
        }
    }

    #[test]
    fn fields_lie_where_the_kernel_has_them() {
        let structure = insertion(0x32, 7, &made("192.0.2.10/32", Some(Protocol::Tcp), Some(443)));
        assert_eq!((structure.len(), number(&structure, 16), number(&structure, 176)), (192, TCP_V4, 7));
        assert_eq!(structure[20 + 4..20 + 8], [192, 0, 2, 10]);
        assert_eq!(structure[20 + 10..20 + 12], [1, 187]);
        assert_eq!(structure[92 + 4..92 + 12], [255, 255, 255, 255, 0, 0, 255, 255]);
        assert_eq!(structure[168..176], 3u64.to_ne_bytes());
    }

    #[test]
    fn a_rule_of_another_kind_is_none() {
        let mut by_source = insertion(0x32, 7, &made("192.0.2.0/24", Some(Protocol::Tcp), None));
        by_source[92..96].fill(255);
        assert_eq!(super::rule(&by_source), None);
        let mut discards = insertion(0x32, 7, &made("192.0.2.0/24", Some(Protocol::Tcp), None));
        discards[COOKIE..COOKIE + 8].fill(255);
        assert_eq!(super::rule(&discards), None);
        let mut ethernet = insertion(0x32, 7, &made("192.0.2.0/24", None, None));
        put(&mut ethernet, FLOW, 0x12);
        assert_eq!(super::rule(&ethernet), None);
    }

    #[test]
    fn a_listing_has_as_many_places_as_it_says() {
        let mut answer = request(0x30, 3);
        put(&mut answer, PLACES, 5);
        put(&mut answer, PLACES + 4, 9);
        put(&mut answer, COUNT, 2);
        put(&mut answer, DATA, CHOOSES_PLACES | 128);
        assert_eq!((places(&answer), capacity(&answer)), (vec![5, 9], 128));
        put(&mut answer, COUNT, 999);
        assert_eq!(places(&answer).len(), 3);
    }
}
