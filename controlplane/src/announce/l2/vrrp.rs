//! Advertisements of VRRPv3 (RFC 5798 §5). Pure.
//!
//! The checksum covers a pseudo-header over IPv4 too, as keepalived and tcpdump read RFC 5798 §5.2.8.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use shunt_api::mac::MacAddress;

use super::frame::{self, Ethernet};
use crate::checksum::checksum;

/// IP protocol number.
pub const PROTOCOL: u8 = 112;
/// Where advertisements go over IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where advertisements go over IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// The priority that says: I leave.
pub const LEAVES: u8 = 0;
/// Version 3, type 1.
const KIND: u8 = 0x31;
/// Bytes before the addresses.
const FIXED: usize = 8;
/// Network control (RFC 4594): the last that a queue on the way should drop.
const CONTROL: u8 = 0xc0;
/// Largest interval that the field holds, in hundredths of a second.
const INTERVAL_MAX: u16 = 0xfff;

/// What a master says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The virtual router's identifier.
    pub group: u8,
    /// 1…254, or [`LEAVES`]; 255 is possible from others.
    pub priority: u8,
    /// From one to the next, in hundredths of a second, 1…4095.
    pub interval_cs: u16,
}

/// Why an advertisement counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No whole IP packet of the protocol.
    NotVrrp,
    /// It came through a router, or pretends.
    HopLimit,
    /// VRRPv2, or no advertisement.
    Version,
    /// Shorter than its fields say.
    Length,
    /// Damaged.
    Checksum,
    /// An interval of 0.
    Interval,
}

impl Advertisement {
    /// Reads an IP packet; with it, the address of who sent it.
    pub fn parse(packet: &[u8]) -> Result<(Self, IpAddr), Refused> {
        let (from, to, hop_limit, message) = ip(packet).ok_or(Refused::NotVrrp)?;
        if hop_limit != 255 {
            return Err(Refused::HopLimit);
        }
        let fixed = message.first_chunk::<FIXED>().ok_or(Refused::Length)?;
        if fixed[0] != KIND {
            return Err(Refused::Version);
        }
        let address = if from.is_ipv4() { 4 } else { 16 };
        if message.len() < FIXED + usize::from(fixed[3]) * address {
            return Err(Refused::Length);
        }
        let pseudo = frame::pseudo_header(from, to, PROTOCOL, message.len());
        if checksum(&[&pseudo, message]) != 0 {
            return Err(Refused::Checksum);
        }
        let interval_cs = u16::from_be_bytes([fixed[4], fixed[5]]) & INTERVAL_MAX;
        if interval_cs == 0 {
            return Err(Refused::Interval);
        }
        Ok((Self { group: fixed[1], priority: fixed[2], interval_cs }, from))
    }

    /// A frame from the station `own` with the address `from`. `listed` is the one address of the virtual router
    /// that it names.
    pub fn frame(&self, from: IpAddr, listed: IpAddr, own: MacAddress) -> Vec<u8> {
        let to = if from.is_ipv4() { IpAddr::V4(GROUP_V4) } else { IpAddr::V6(GROUP_V6) };
        let mut message = vec![KIND, self.group, self.priority, 1];
        message.extend(self.interval_cs.min(INTERVAL_MAX).to_be_bytes());
        message.extend([0, 0]);
        match listed {
            IpAddr::V4(address) => message.extend(address.octets()),
            IpAddr::V6(address) => message.extend(address.octets()),
        }
        let pseudo = frame::pseudo_header(from, to, PROTOCOL, message.len());
        let checksum = checksum(&[&pseudo, &message]);
        message[6..8].copy_from_slice(&checksum.to_be_bytes());
        let (ethertype, packet) = match from {
            IpAddr::V4(from) => (frame::IPV4, ipv4_packet(from, &message)),
            IpAddr::V6(from) => {
                (frame::IPV6, frame::ipv6_packet(from, GROUP_V6, PROTOCOL, CONTROL, &message))
            }
        };
        Ethernet { destination: frame::group_mac(to), source: own, ethertype, payload: &packet }.bytes()
    }
}

/// Hundredths of a second as a duration.
pub fn centiseconds(count: u16) -> Duration {
    Duration::from_millis(10 * u64::from(count))
}

/// Source, destination, TTL or hop limit, and what follows the header, padding left out.
fn ip(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let fixed = packet.first_chunk::<20>()?;
            let fragment = frame::u16_at(fixed, 6)? & 0x3fff != 0;
            let intact = header >= 20 && checksum(&[packet.get(..header)?]) == 0;
            let message = packet.get(header..usize::from(frame::u16_at(fixed, 2)?))?;
            let known = fixed[9] == PROTOCOL && !fragment && intact;
            let (from, to) = (frame::ipv4_at(fixed, 12)?, frame::ipv4_at(fixed, 16)?);
            known.then_some((from.into(), to.into(), fixed[8], message))
        }
        6 => {
            let fixed = packet.first_chunk::<40>()?;
            let message = packet.get(40..40 + usize::from(frame::u16_at(fixed, 4)?))?;
            let (from, to) = (frame::ipv6_at(fixed, 8)?, frame::ipv6_at(fixed, 24)?);
            (fixed[6] == PROTOCOL).then_some((from.into(), to.into(), fixed[7], message))
        }
        _ => None,
    }
}

fn ipv4_packet(from: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + message.len()).expect("one address is short");
    let mut packet = vec![0x45, CONTROL];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 255, PROTOCOL, 0, 0]);
    packet.extend(from.octets());
    packet.extend(GROUP_V4.octets());
    let checksum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(message);
    packet
}

#[cfg(test)]
mod tests;
