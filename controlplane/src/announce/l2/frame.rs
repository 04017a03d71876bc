//! Ethernet frames and what the protocols inside share. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shunt_api::mac::MacAddress;

/// All stations.
pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Bytes before the payload.
pub const HEADER: usize = 14;

/// A frame without a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet<'a> {
    /// Whom it is for.
    pub destination: MacAddress,
    /// Who sent it.
    pub source: MacAddress,
    /// What the payload is.
    pub ethertype: u16,
    /// The rest, padding included.
    pub payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// `None` if it is shorter than its header.
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let (header, payload) = frame.split_first_chunk::<HEADER>()?;
        Some(Self {
            destination: mac_at(header, 0)?,
            source: mac_at(header, 6)?,
            ethertype: u16_at(header, 12)?,
            payload,
        })
    }

    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEADER + self.payload.len());
        frame.extend(self.destination.0);
        frame.extend(self.source.0);
        frame.extend(self.ethertype.to_be_bytes());
        frame.extend(self.payload);
        frame
    }

    /// Whether a station with that address is meant, be it among others.
    pub fn is_for(&self, own: MacAddress) -> bool {
        self.destination == own || is_group(self.destination)
    }
}

/// Whether it names several stations.
pub fn is_group(mac: MacAddress) -> bool {
    mac.0[0] & 1 == 1
}

/// Whether it can be the address of one station.
pub fn is_station(mac: MacAddress) -> bool {
    !is_group(mac) && mac != MacAddress::default()
}

/// The Ethernet address that a multicast group's packets go to (RFC 1112 §6.4, RFC 2464 §7).
pub fn group_mac(group: IpAddr) -> MacAddress {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            MacAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            MacAddress([0x33, 0x33, a, b, c, d])
        }
    }
}

/// What the checksums of ICMPv6 and VRRP cover besides the message (RFC 8200 §8.1, RFC 793 §3.1 for IPv4).
/// Addresses of different families make none.
pub fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            [&from.octets()[..], &to.octets(), &[0, protocol], &length[2..]].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, protocol]].concat()
        }
        _ => Vec::new(),
    }
}

/// An IPv6 header without extensions in front of `payload`, with the hop limit that proves nearness.
pub fn ipv6_packet(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, traffic_class: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("our messages are short");
    let mut packet = Vec::with_capacity(40 + payload.len());
    packet.extend([0x60 | traffic_class >> 4, traffic_class << 4, 0, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([protocol, 255]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// Two bytes, big-endian.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(array_at(bytes, at)?))
}

/// Six bytes.
pub fn mac_at(bytes: &[u8], at: usize) -> Option<MacAddress> {
    Some(MacAddress(array_at(bytes, at)?))
}

/// Four bytes.
pub fn ipv4_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(array_at::<4>(bytes, at)?))
}

/// Sixteen bytes.
pub fn ipv6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(array_at::<16>(bytes, at)?))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_round_trips_and_shorter_ones_are_none() {
        let frame = Ethernet {
            destination: MacAddress([2, 0, 0, 0, 0, 1]),
            source: MacAddress([2, 0, 0, 0, 0, 2]),
            ethertype: ARP,
            payload: &[1, 2, 3],
        };
        let bytes = frame.bytes();
        assert_eq!(Ethernet::parse(&bytes), Some(frame));
        assert_eq!(Ethernet::parse(&bytes[..HEADER - 1]), None);
        assert!(frame.is_for(frame.destination) && !frame.is_for(frame.source));
        assert!(Ethernet { destination: BROADCAST, ..frame }.is_for(frame.source));
    }

    #[test]
    fn groups_have_the_addresses_of_their_rfcs() {
        let mac = |group: &str| group_mac(group.parse().unwrap()).to_string();
        assert_eq!(mac("224.0.0.18"), "01:00:5e:00:00:12");
        assert_eq!(mac("239.255.1.2"), "01:00:5e:7f:01:02");
        assert_eq!(mac("ff02::1:ff00:10"), "33:33:ff:00:00:10");
        assert!(!is_station(BROADCAST) && !is_station(MacAddress::default()));
        assert!(is_station(MacAddress([2, 0, 0, 0, 0, 1])));
    }
}
