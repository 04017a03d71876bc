//! The packets that nearly all are, read in one go: whole TCP and UDP packets without IP options or extension
//! headers, in a frame with one VLAN tag at most.
//!
//! The readers look at no more than they need to tell them from all others, which are for [`super::parse`]. What they
//! read, `parse` reads alike; a test holds the two together.

use super::checksum;
use super::ethernet::{HEADER_LENGTH, TAG_LENGTH};
use super::transport::{TCP, UDP};
use super::{ipv4, ipv6};

/// Type of Ethernet payload, as it stands on the wire.
const TYPE_IPV4: u16 = u16::from_ne_bytes([0x08, 0x00]);
const TYPE_IPV6: u16 = u16::from_ne_bytes([0x86, 0xdd]);
const TYPE_VLAN: u16 = u16::from_ne_bytes([0x81, 0x00]);
/// More fragments, and the offset, as they stand on the wire.
const FRAGMENT_BITS: u16 = u16::from_ne_bytes([0x3f, 0xff]);
/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// A plain packet of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// IPv4
    V4(Segment<2>),
    /// IPv6
    V6(Segment<5>),
}

/// A TCP segment or UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<const K: usize> {
    /// The flow, in the words of [`crate::flow::Tuple`].
    pub key: [u64; K],
    /// What is around its header.
    pub inner: Inner,
    /// Bits of the TCP header's flags; 0 for UDP.
    pub tcp_flags: u8,
}

/// An IP packet in a frame, as far as the headers before it are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Where the IP header begins, from the start of the Ethernet header.
    pub ip_offset: u8,
    /// Bytes from the IP header to the end of the IP packet.
    pub ip_length: u16,
    /// IPv4 TOS or IPv6 traffic class.
    pub traffic_class: u8,
    /// It is IPv6.
    pub is_v6: bool,
}

impl Inner {
    /// The Ethernet header has no tag.
    #[inline(always)]
    pub fn is_untagged(&self) -> bool {
        usize::from(self.ip_offset) == HEADER_LENGTH
    }
}

/// What a frame may carry, by its Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// For [`read_v4`].
    V4,
    /// For [`read_v6`].
    V6,
    /// A tag, and behind it one of these.
    Tag,
    /// Nothing plain.
    Other,
}

/// What a frame may carry.
#[inline(always)]
pub fn carries(frame: &[u8]) -> Carries {
    let ether_type = frame.first_chunk::<HEADER_LENGTH>().and_then(|header| header.last_chunk());
    match ether_type.map(|bytes| u16::from_ne_bytes(*bytes)) {
        Some(TYPE_IPV4) => Carries::V4,
        Some(TYPE_IPV6) => Carries::V6,
        Some(TYPE_VLAN) => Carries::Tag,
        _ => Carries::Other,
    }
}

/// Reads a frame of one piece that carries a tag, if it carries a plain packet behind it.
pub fn read_tagged(frame: &[u8]) -> Option<Plain> {
    // The tag's last bytes are the type of what follows, as the header's are.
    match carries(frame.get(TAG_LENGTH..)?) {
        Carries::V4 => read_v4(frame, HEADER_LENGTH + TAG_LENGTH).map(Plain::V4),
        Carries::V6 => read_v6(frame, HEADER_LENGTH + TAG_LENGTH).map(Plain::V6),
        Carries::Tag | Carries::Other => None,
    }
}

/// Bytes of the headers that are read of TCP in IPv4; no Ethernet frame with less after it is a frame.
const LEAST: usize = ipv4::HEADER_LENGTH + TCP_HEADER;

/// Reads a frame of one piece in which IPv4 begins here, if it carries a plain packet.
#[inline(always)]
pub fn read_v4(frame: &[u8], ip_offset: usize) -> Option<Segment<2>> {
    let ip = frame.get(ip_offset..)?;
    let (header, payload) = ip.first_chunk::<LEAST>()?.split_first_chunk::<{ ipv4::HEADER_LENGTH }>()?;
    let payload: &[u8; TCP_HEADER] = payload.first_chunk()?;
    let total_length = u16::from_be_bytes([header[2], header[3]]);
    let fragment = u16::from_ne_bytes([header[6], header[7]]) & FRAGMENT_BITS;
    let payload_length = usize::from(total_length).wrapping_sub(ipv4::HEADER_LENGTH);
    if header[0] != 0x45
        || fragment != 0
        || usize::from(total_length) > ip.len()
        || !checksum::is_valid_plain(header)
    {
        return None;
    }
    let (ports, tcp_flags) = match header[9] {
        TCP => read_tcp(payload, payload_length)?,
        UDP => read_udp(payload.first_chunk()?, payload_length)?,
        _ => return None,
    };
    let addresses = u64::from_be_bytes(*header[12..].first_chunk()?);
    let inner =
        Inner { ip_offset: ip_offset as u8, ip_length: total_length, traffic_class: header[1], is_v6: false };
    Some(Segment { key: [addresses, ports], inner, tcp_flags })
}

/// Reads a frame of one piece in which IPv6 begins here, if it carries a plain packet.
#[inline(always)]
pub fn read_v6(frame: &[u8], ip_offset: usize) -> Option<Segment<5>> {
    let ip = frame.get(ip_offset..)?;
    let (header, payload) = ip.split_first_chunk::<{ ipv6::HEADER_LENGTH }>()?;
    let payload_length = u16::from_be_bytes([header[4], header[5]]);
    let total_length = payload_length.checked_add(ipv6::HEADER_LENGTH as u16)?;
    if header[0] >> 4 != 6 || usize::from(payload_length) > payload.len() {
        return None;
    }
    let (ports, tcp_flags) = match header[6] {
        TCP => read_tcp(payload.first_chunk()?, payload_length.into())?,
        UDP => read_udp(payload.first_chunk()?, payload_length.into())?,
        _ => return None,
    };
    let word = |at: usize| Some(u64::from_be_bytes(*header[at..].first_chunk()?));
    let traffic_class = header[0] << 4 | header[1] >> 4;
    let inner = Inner { ip_offset: ip_offset as u8, ip_length: total_length, traffic_class, is_v6: true };
    Some(Segment { key: [word(8)?, word(16)?, word(24)?, word(32)?, ports], inner, tcp_flags })
}

/// The last word of the flow's key and the TCP flags; `length` may be anything if there is no IP packet of it.
#[inline(always)]
fn read_tcp(header: &[u8; TCP_HEADER], length: usize) -> Option<(u64, u8)> {
    let header_length = usize::from(header[12] >> 4) * 4;
    let sound = header_length >= TCP_HEADER && header_length <= length && length <= usize::from(u16::MAX);
    sound.then(|| (ports(header, TCP), header[13]))
}

/// The last word of the flow's key, and no flags.
#[inline(always)]
fn read_udp(header: &[u8; UDP_HEADER], length: usize) -> Option<(u64, u8)> {
    let stated = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let sound = stated >= UDP_HEADER && stated <= length && length <= usize::from(u16::MAX);
    sound.then(|| (ports(header, UDP), 0))
}

#[inline(always)]
fn ports<const N: usize>(header: &[u8; N], protocol: u8) -> u64 {
    let ports = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    u64::from(ports) << 8 | u64::from(protocol)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flow::{FlowKey, Tuple};
    use crate::packet::ethernet::Tags;
    use crate::packet::{self, Content};
    use crate::testing::draft::{self, Draft};

    fn read(frame: &[u8]) -> Option<Plain> {
        match carries(frame) {
            Carries::V4 => read_v4(frame, HEADER_LENGTH).map(Plain::V4),
            Carries::V6 => read_v6(frame, HEADER_LENGTH).map(Plain::V6),
            Carries::Tag => read_tagged(frame),
            Carries::Other => None,
        }
    }

    /// What the general parser reads, in the same terms; `None` for what is not plain or wrong.
    fn generally(frame: &[u8]) -> Option<Plain> {
        let packet = packet::parse(frame, frame.len()).ok()?;
        let inner = packet.inner();
        match (packet.content, packet.flow) {
            (Content::Whole, FlowKey::V4(flow)) if packet.header_length == 20 => {
                Some(Plain::V4(Segment { key: flow.words(), inner, tcp_flags: packet.tcp_flags }))
            }
            (Content::Whole, FlowKey::V6(flow)) if packet.header_length == 40 => {
                Some(Plain::V6(Segment { key: flow.words(), inner, tcp_flags: packet.tcp_flags }))
            }
            _ => None,
        }
    }

    /// Only frames with a service tag or two tags, and short ones, are plain to the general parser alone.
    fn check(frame: &[u8]) {
        match read(frame) {
            None => {
                let tags = packet::parse(frame, frame.len()).map(|packet| packet.tags);
                let unread = match tags {
                    Ok(Tags::One(tag)) => tag.tpid != 0x8100,
                    Ok(Tags::Stacked) => true,
                    Ok(Tags::None) | Err(_) => false,
                };
                assert!(unread || frame.len() < 60 || generally(frame).is_none(), "{frame:02x?}");
            }
            plain => assert_eq!(plain, generally(frame), "{frame:02x?}"),
        }
    }

    fn drafts() -> Vec<Vec<u8>> {
        let ends = [("192.0.2.1:4000", "203.0.113.10:80"), ("[2001:db8::1]:4000", "[2001:db8::10]:80")];
        let mut frames = Vec::new();
        for (client, vip) in ends.map(|(client, vip)| (client.parse().unwrap(), vip.parse().unwrap())) {
            for draft in [Draft::tcp(0x12, b"payload"), Draft::udp(b""), Draft::udp(&[7; 300])] {
                for tags in [&[][..], &[100], &[100, 200]] {
                    frames.push(draft::frame(&draft.between(client, vip), tags, 7));
                }
            }
        }
        frames
    }

    #[test]
    fn plain_packets_are_read_in_either_way() {
        for frame in drafts() {
            check(&frame);
        }
        assert_eq!(drafts().iter().filter(|frame| read(frame).is_some()).count(), 10);
    }

    proptest! {
        #[test]
        fn damaged_and_cut_packets_are_read_alike(
            which in any::<prop::sample::Index>(),
            changes in prop::collection::vec((0usize..90, any::<u8>()), 0..3),
            cut in prop::option::of(0usize..120),
            mended: bool,
        ) {
            let mut frame = which.get(&drafts()).clone();
            for (at, value) in changes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            if mended && frame.len() > 34 {
                frame[24..26].fill(0);
                let sum = checksum::of(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            frame.truncate(cut.unwrap_or(frame.len()));
            check(&frame);
        }
    }
}
