//! What the steering program (`bpf/steer.bpf.c`) does with a frame, for captures: which ones it gives to a worker.
//! `tests/program/replay.rs` holds the two together.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ahash::HashMap;
use ipnet::{IpNet, Ipv6Net};
use shunt_api::counters::DropReason;

use crate::packet::ethernet::{self, EtherType};
use crate::packet::{icmp, ipv4, ipv6};

/// Destination unreachable and time exceeded (RFC 792).
const ERRORS_V4: [u8; 2] = [3, 11];
/// Destination unreachable, packet too big and time exceeded (RFC 4443).
const ERRORS_V6: [u8; 3] = [1, 2, 3];
/// The ICMPv6 types of neighbour discovery (RFC 4861).
const NEIGHBOR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;
/// More-fragments flag and offset of IPv4.
const FRAGMENT_MASK: u16 = 0x3fff;

/// The maps of the program. IPv4 addresses stand in them as `::ffff:a.b.c.d`.
#[derive(Debug, Default)]
pub struct Steering {
    owned: HashMap<Ipv6Addr, u8>,
    tunnel_sources: Vec<Ipv6Net>,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// It stays with the kernel, for this reason.
    Passed(&'static str),
    /// It goes to a worker.
    Taken {
        /// Bytes put in front of it for a tunnel header.
        headroom: u8,
    },
    /// It is for a worker, but a group of stations sent it, which IEEE 802.3 forbids.
    BadSourceMac,
}

/// A packet's destination, and where in the IP packet its ICMP message begins.
struct Addressed {
    destination: Ipv6Addr,
    icmp: Option<usize>,
}

impl Steering {
    /// With these addresses owned, each with the headroom its packets need, and tunnels from these prefixes.
    pub fn new(owned: &BTreeMap<IpAddr, u32>, tunnel_sources: impl IntoIterator<Item = IpNet>) -> Self {
        let entry = |(&address, &headroom): (&IpAddr, &u32)| (mapped(address), headroom as u8);
        let prefix = |net: IpNet| match net {
            IpNet::V4(net) => Ipv6Net::new(net.addr().to_ipv6_mapped(), 96 + net.prefix_len()).ok(),
            IpNet::V6(net) => Some(net),
        };
        Self {
            owned: owned.iter().map(entry).collect(),
            tunnel_sources: tunnel_sources.into_iter().filter_map(prefix).collect(),
        }
    }

    /// What becomes of a frame.
    pub fn steer(&self, frame: &[u8]) -> Steered {
        let read = ethernet::parse(frame).map_err(DropReason::name).and_then(|ethernet| {
            let packet = &frame[ethernet.length..];
            let addressed = match ethernet.ether_type {
                EtherType::Ipv4 => read_v4(packet)?,
                EtherType::Ipv6 => read_v6(packet)?,
            };
            Ok((addressed, ethernet.ether_type, packet))
        });
        let (addressed, family, packet) = match read {
            Ok(read) => read,
            Err(reason) => return Steered::Passed(reason),
        };
        let headroom = self.owned.get(&addressed.destination);
        if headroom.is_none() && !self.is_tunnel_error(&addressed, family, packet) {
            return Steered::Passed(DropReason::NotOurAddress.name());
        }
        if frame[ethernet::ADDRESS_LENGTH] & 1 != 0 {
            return Steered::BadSourceMac;
        }
        Steered::Taken { headroom: headroom.copied().unwrap_or(0) }
    }

    /// Whether it is an ICMP error about one of our own tunnel packets.
    fn is_tunnel_error(&self, addressed: &Addressed, family: EtherType, packet: &[u8]) -> bool {
        let message = addressed.icmp.and_then(|at| packet.get(at..));
        let quotes_tunnel = message.is_some_and(|message| match family {
            EtherType::Ipv4 => quotes_tunnel(message, &ERRORS_V4, ipv4::HEADER_LENGTH, 9),
            EtherType::Ipv6 => quotes_tunnel(message, &ERRORS_V6, ipv6::HEADER_LENGTH, 6),
        });
        quotes_tunnel && self.tunnel_sources.iter().any(|prefix| prefix.contains(&addressed.destination))
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn read_v4(packet: &[u8]) -> Result<Addressed, &'static str> {
    let header = packet.first_chunk::<{ ipv4::HEADER_LENGTH }>().ok_or(DropReason::Truncated.name())?;
    let destination = [header[16], header[17], header[18], header[19]];
    // The checksum of a message in fragments cannot be checked.
    let whole = u16::from_be_bytes([header[6], header[7]]) & FRAGMENT_MASK == 0;
    let icmp = (header[9] == icmp::V4 && whole).then_some(usize::from(header[0] & 0xf) * 4);
    Ok(Addressed { destination: mapped(destination.into()), icmp })
}

fn read_v6(packet: &[u8]) -> Result<Addressed, &'static str> {
    let header = packet.first_chunk::<{ ipv6::HEADER_LENGTH }>().ok_or(DropReason::Truncated.name())?;
    let mut destination = [0; 16];
    destination.copy_from_slice(&header[24..]);
    let destination = destination.into();
    if header[6] != icmp::V6 {
        return Ok(Addressed { destination, icmp: None });
    }
    let kind = packet.get(ipv6::HEADER_LENGTH).ok_or(DropReason::Truncated.name())?;
    if NEIGHBOR_DISCOVERY.contains(kind) {
        return Err("neighbor_discovery");
    }
    Ok(Addressed { destination, icmp: Some(ipv6::HEADER_LENGTH) })
}

/// Whether a message is one of these errors and quotes a packet whose header, of so many bytes, says at
/// `protocol_at` that there is an IP packet in it.
fn quotes_tunnel(message: &[u8], errors: &[u8], header_length: usize, protocol_at: usize) -> bool {
    let Some(quoted) = message.get(icmp::HEADER_LENGTH..icmp::HEADER_LENGTH + header_length) else {
        return false;
    };
    errors.contains(&message[0]) && [icmp::IPV4_IN_IP, icmp::IPV6_IN_IP].contains(&quoted[protocol_at])
}
