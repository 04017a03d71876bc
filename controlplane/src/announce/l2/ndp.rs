//! Neighbour solicitations and advertisements (RFC 4861 §4.3, §4.4, §7). Pure.

use std::net::{IpAddr, Ipv6Addr};

use shunt_api::mac::MacAddress;

use super::frame::{self, Ethernet};
use crate::checksum::checksum;

/// All nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Bytes before the options: type, code, checksum, flags, target.
const FIXED: usize = 24;
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
/// Flags of an advertisement.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A message that passed the checks of §7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ndp {
    /// Who has the target?
    Solicitation {
        /// Who asks; unspecified if it wants to know whether it may have the target itself (RFC 4862 §5.4).
        source: Ipv6Addr,
        /// What is asked for.
        target: Ipv6Addr,
        /// Where to answer to.
        link: Option<MacAddress>,
    },
    /// A station has the target.
    Advertisement {
        /// What it has.
        target: Ipv6Addr,
        /// Its Ethernet address.
        link: Option<MacAddress>,
    },
}

impl Ndp {
    /// Reads an IPv6 packet, which may be followed by padding. `None` for all else, and for what §7.1 calls
    /// invalid. Packets with extension headers are not read: RFC 6980 forbids the only one hosts ever used.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<40>()?;
        let near = header[0] >> 4 == 6 && header[6] == ICMPV6 && header[7] == 255;
        if !near {
            return None;
        }
        let message = packet.get(40..40 + usize::from(frame::u16_at(header, 4)?))?;
        let (source, destination) = (frame::ipv6_at(header, 8)?, frame::ipv6_at(header, 24)?);
        let pseudo = frame::pseudo_header(source.into(), destination.into(), ICMPV6, message.len());
        if message.len() < FIXED || checksum(&[&pseudo, message]) != 0 || message[1] != 0 {
            return None;
        }
        let target = frame::ipv6_at(message, 8).filter(|target| !target.is_multicast())?;
        let options = &message[FIXED..];
        match message[0] {
            SOLICITATION => {
                let link = link_option(options, SOURCE_LINK)?;
                let is_probe = source.is_unspecified();
                let valid = !is_probe || (destination == solicited_group(target) && link.is_none());
                valid.then_some(Self::Solicitation { source, target, link })
            }
            ADVERTISEMENT => {
                let valid = !destination.is_multicast() || message[4] & SOLICITED == 0;
                let link = link_option(options, TARGET_LINK)?;
                valid.then_some(Self::Advertisement { target, link })
            }
            _ => None,
        }
    }
}

/// The Ethernet address in the options; `None` if one of them is malformed.
fn link_option(mut options: &[u8], kind: u8) -> Option<Option<MacAddress>> {
    let mut found = None;
    while !options.is_empty() {
        let length = 8 * usize::from(*options.get(1)?);
        if length == 0 {
            return None;
        }
        let option = options.get(..length)?;
        if option[0] == kind && found.is_none() {
            found = frame::mac_at(option, 2).filter(|mac| frame::is_station(*mac));
        }
        options = &options[length..];
    }
    Some(found)
}

/// The group that solicitations for an address go to (RFC 4291 §2.7.1). Addresses whose last three bytes are the
/// same share it.
pub fn solicited_group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// Says to who asked for `target`, from the station `asker`, that `own` has it. The answer to an unspecified
/// source goes to all nodes and is not called solicited (§7.2.4).
pub fn answer(source: Ipv6Addr, target: Ipv6Addr, asker: MacAddress, own: MacAddress) -> Vec<u8> {
    if source.is_unspecified() {
        return announcement(target, own);
    }
    advertisement(target, own, source, asker, SOLICITED | OVERRIDE)
}

/// Tells all nodes that `own` has the address, whatever they knew (§7.2.6).
pub fn announcement(address: Ipv6Addr, own: MacAddress) -> Vec<u8> {
    advertisement(address, own, ALL_NODES, frame::group_mac(IpAddr::V6(ALL_NODES)), OVERRIDE)
}

/// Asks whether another station has the address, as duplicate address detection does (RFC 4862 §5.4.2): whoever has
/// it tells all nodes.
pub fn probe(address: Ipv6Addr, own: MacAddress) -> Vec<u8> {
    let group = solicited_group(address);
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(address.octets());
    seal(&mut message, Ipv6Addr::UNSPECIFIED, group);
    let packet = frame::ipv6_packet(Ipv6Addr::UNSPECIFIED, group, ICMPV6, 0, &message);
    let destination = frame::group_mac(IpAddr::V6(group));
    Ethernet { destination, source: own, ethertype: frame::IPV6, payload: &packet }.bytes()
}

/// Never has the router flag: what has a VIP routes for nobody.
fn advertisement(
    target: Ipv6Addr,
    own: MacAddress,
    to: Ipv6Addr,
    destination: MacAddress,
    flags: u8,
) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend([TARGET_LINK, 1]);
    message.extend(own.0);
    seal(&mut message, target, to);
    let packet = frame::ipv6_packet(target, to, ICMPV6, 0, &message);
    Ethernet { destination, source: own, ethertype: frame::IPV6, payload: &packet }.bytes()
}

fn seal(message: &mut [u8], from: Ipv6Addr, to: Ipv6Addr) {
    let pseudo = frame::pseudo_header(from.into(), to.into(), ICMPV6, message.len());
    let checksum = checksum(&[&pseudo, message]);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const PEER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    /// A packet with a right checksum.
    fn packet(from: &str, to: &str, mut message: Vec<u8>) -> Vec<u8> {
        let (from, to) = (ip(from), ip(to));
        message[2..4].fill(0);
        seal(&mut message, from, to);
        frame::ipv6_packet(from, to, ICMPV6, 0, &message)
    }

    fn message(kind: u8, flags: u8, target: &str, options: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(ip(target).octets());
        message.extend(options);
        message
    }

    /// A solicitation as a host would send it.
    pub fn solicitation(source: Ipv6Addr, target: Ipv6Addr, mac: MacAddress) -> Vec<u8> {
        let mut options = vec![SOURCE_LINK, 1];
        options.extend(mac.0);
        if source.is_unspecified() {
            options.clear();
        }
        let group = solicited_group(target);
        let text = target.to_string();
        let packet =
            packet(&source.to_string(), &group.to_string(), message(SOLICITATION, 0, &text, &options));
        let destination = frame::group_mac(group.into());
        Ethernet { destination, source: mac, ethertype: frame::IPV6, payload: &packet }.bytes()
    }

    fn read(frame: &[u8]) -> (Ethernet<'_>, Option<Ndp>) {
        let ethernet = Ethernet::parse(frame).unwrap();
        (ethernet, Ndp::parse(ethernet.payload))
    }

    #[test]
    fn a_solicitation_is_answered_to_who_asked() {
        let target = ip("2001:db8::10");
        let frame = solicitation(ip("2001:db8::9"), target, PEER);
        let (_, said) = read(&frame);
        assert_eq!(said, Some(Ndp::Solicitation { source: ip("2001:db8::9"), target, link: Some(PEER) }));
        let answer = answer(ip("2001:db8::9"), target, PEER, OWN);
        let (ethernet, said) = read(&answer);
        assert_eq!((ethernet.destination, ethernet.source), (PEER, OWN));
        assert_eq!(said, Some(Ndp::Advertisement { target, link: Some(OWN) }));
        assert_eq!(ethernet.payload[44], SOLICITED | OVERRIDE);
        assert_eq!(frame::ipv6_at(ethernet.payload, 24), Some(ip("2001:db8::9")));
    }

    #[test]
    fn a_duplicate_address_probe_is_answered_to_all() {
        let target = ip("2001:db8::10");
        let frame = solicitation(Ipv6Addr::UNSPECIFIED, target, PEER);
        let (_, said) = read(&frame);
        let source = Ipv6Addr::UNSPECIFIED;
        assert_eq!(said, Some(Ndp::Solicitation { source, target, link: None }));
        let answer = answer(source, target, PEER, OWN);
        let (ethernet, said) = read(&answer);
        assert_eq!(ethernet.destination.to_string(), "33:33:00:00:00:01");
        assert_eq!(said, Some(Ndp::Advertisement { target, link: Some(OWN) }));
        assert_eq!(ethernet.payload[44], OVERRIDE);
    }

    #[test]
    fn a_probe_is_what_a_host_sends_before_it_takes_an_address() {
        let target = ip("2001:db8::10");
        let frame = probe(target, OWN);
        assert_eq!(frame, solicitation(Ipv6Addr::UNSPECIFIED, target, OWN));
        let (ethernet, said) = read(&frame);
        assert_eq!(ethernet.destination.to_string(), "33:33:ff:00:00:10");
        let source = Ipv6Addr::UNSPECIFIED;
        assert_eq!(said, Some(Ndp::Solicitation { source, target, link: None }));
    }

    #[test]
    fn invalid_messages_are_refused() {
        let (from, to, target) = ("2001:db8::9", "ff02::1:ff00:10", "2001:db8::10");
        let link = [SOURCE_LINK, 1, 2, 0, 0, 0, 0, 9];
        let good = packet(from, to, message(SOLICITATION, 0, target, &link));
        assert!(Ndp::parse(&good).is_some());
        assert!(Ndp::parse(&[&good[..], &[0; 7]].concat()).is_some(), "padding is ignored");
        let refused = [
            ("a group as target", packet(from, to, message(SOLICITATION, 0, "ff02::1", &link))),
            (
                "an option of length 0",
                packet(from, to, message(SOLICITATION, 0, target, &[1, 0, 0, 0, 0, 0, 0, 0])),
            ),
            ("an option cut short", packet(from, to, message(SOLICITATION, 0, target, &link[..7]))),
            ("a probe with a source link", packet("::", to, message(SOLICITATION, 0, target, &link))),
            ("a probe not to the group", packet("::", target, message(SOLICITATION, 0, target, &[]))),
            (
                "solicited, but to all",
                packet(from, "ff02::1", message(ADVERTISEMENT, SOLICITED, target, &[])),
            ),
            ("a router's advertisement", packet(from, "ff02::1", message(134, 0, target, &[]))),
            ("a code", {
                let mut with_code = message(SOLICITATION, 0, target, &link);
                with_code[1] = 1;
                packet(from, to, with_code)
            }),
        ];
        for (what, packet) in refused {
            assert_eq!(Ndp::parse(&packet), None, "{what}");
        }
        // Version, length, next header, hop limit, checksum.
        for (at, value) in [(0, 0x40), (5, 200), (5, 20), (6, 17), (7, 254), (42, 0xaa), (60, 0xff)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(Ndp::parse(&bytes), None, "byte {at} is {value}");
        }
    }

    #[test]
    fn groups_share_the_last_three_bytes() {
        assert_eq!(solicited_group(ip("2001:db8::1:2:3")), ip("ff02::1:ff02:3"));
        assert_eq!(solicited_group(ip("fd00::ab:cdef:1234")), ip("ff02::1:ffef:1234"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Ndp::parse(&bytes);
        }

        #[test]
        fn no_options_make_it_panic(options in proptest::collection::vec(any::<u8>(), 0..40)) {
            let packet = packet("2001:db8::9", "ff02::1:ff00:10", message(SOLICITATION, 0, "2001:db8::10", &options));
            let _ = Ndp::parse(&packet);
        }
    }
}
