//! From the bytes of a frame to what forwarding needs to know of it.
//!
//! [`parse`] reads Ethernet, VLAN tags, IPv4 or IPv6 with options and extension headers, fragments, TCP, UDP
//! and ICMP. It never panics, never copies payload and never changes a byte; whatever contradicts itself comes
//! back as the [`DropReason`] it is counted under. Called by the worker for every received frame, and by
//! nobody else on the packet path.

pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod plain;
pub mod steering;
pub mod transport;

use std::net::IpAddr;

use shunt_api::counters::DropReason;
use shunt_api::mac::MacAddress;

use crate::flow::{FlowKey, FlowKey4, FlowKey6};
use ethernet::{EtherType, Tags};
use icmp::About;
use plain::Inner;
use transport::Transport;

/// What forwarding needs to know of a packet. Offsets count from the start of the Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Addresses, ports and protocol as far as `content` has them; of an ICMP error, those of the flow that it
    /// is about, named as the service sees it.
    pub flow: FlowKey,
    /// What the packet is.
    pub content: Content,
    /// Where the IP header begins: behind the Ethernet header and its VLAN tags.
    pub ip_offset: u16,
    /// Bytes from the IP header to the transport or ICMP header, or to a later fragment's data.
    pub header_length: u16,
    /// Bytes from the IP header to the end of the IP packet; Ethernet padding is not among them.
    pub ip_length: u16,
    /// IPv4 TOS or IPv6 traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Bits of the TCP header's flags; 0 for all else.
    pub tcp_flags: u8,
    /// No router may fragment it: IPv4 with the flag, IPv6 always.
    pub dont_fragment: bool,
    /// Who sent the frame.
    pub source_mac: MacAddress,
    /// The frame's VLAN tags.
    pub tags: Tags,
}

impl Packet {
    /// The IP packet as far as the headers before it are concerned.
    pub fn inner(&self) -> Inner {
        Inner {
            ip_offset: self.ip_offset as u8,
            ip_length: self.ip_length,
            traffic_class: self.traffic_class,
            is_v6: matches!(self.flow, FlowKey::V6(_)),
        }
    }
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A whole TCP or UDP packet.
    Whole,
    /// The first fragment of one, with the transport header.
    FirstFragment {
        /// Of all its fragments.
        id: u32,
    },
    /// A fragment without ports; `flow`'s are 0, and its protocol is not to be relied on.
    LaterFragment {
        /// Of all its fragments.
        id: u32,
        /// IANA number as the IP header gives it.
        protocol: u8,
    },
    /// An ICMP or ICMPv6 echo request; `flow` has the addresses alone.
    Echo,
    /// An ICMP or ICMPv6 error about `flow`.
    Error,
    /// An ICMP or ICMPv6 error about a tunnel packet of ours: `flow` has the outer source as VIP and the
    /// backend as client.
    TunnelError {
        /// Bytes of outer packet that fit, if it says that the packet was too big.
        mtu: Option<u32>,
    },
}

/// Which part of a fragmented packet an IP packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Of all its fragments.
    pub id: u32,
    /// Bytes of payload before it.
    pub offset: u16,
    /// It is not the last one.
    pub more: bool,
}

/// What IPv4 and IPv6 headers have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<A> {
    /// Bytes, options and extension headers included.
    pub header_length: usize,
    /// Bytes of header and payload.
    pub total_length: usize,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// IANA protocol number of the payload.
    pub protocol: u8,
    /// `None` for a whole packet.
    pub fragment: Option<Fragment>,
    /// No router may fragment it.
    pub dont_fragment: bool,
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
}

/// Reads a frame that begins with an Ethernet header. `head` is its first piece, with all headers, `length` the
/// bytes of all pieces.
pub fn parse(head: &[u8], length: usize) -> Result<Packet, DropReason> {
    let ethernet = ethernet::parse(head)?;
    let ip = Ip { bytes: &head[ethernet.length..], length: length - ethernet.length };
    let packet = match ethernet.ether_type {
        EtherType::Ipv4 => ip.v4(),
        EtherType::Ipv6 => ip.v6(),
    }?;
    Ok(Packet {
        ip_offset: ethernet.length as u16,
        source_mac: ethernet.source,
        tags: ethernet.tags,
        ..packet
    })
}

/// An IP packet, of which `bytes` are at hand; more than `length` never are.
struct Ip<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl Ip<'_> {
    fn v4(&self) -> Result<Packet, DropReason> {
        let header = ipv4::parse(self.bytes, self.length)?;
        self.payload(&header, icmp::V4)
    }

    fn v6(&self) -> Result<Packet, DropReason> {
        let header = ipv6::parse(self.bytes, self.length)?;
        self.payload(&header, icmp::V6)
    }

    fn payload<A: Address>(&self, header: &Header<A>, icmp: u8) -> Result<Packet, DropReason> {
        if let Some(fragment) = header.fragment {
            check_fragment(header, fragment)?;
            if fragment.offset > 0 {
                let content = Content::LaterFragment { id: fragment.id, protocol: header.protocol };
                return Ok(packet(header, A::flow(header, &Transport::NONE), content, 0));
            }
        }
        let end = header.total_length.min(self.bytes.len());
        let payload = self.bytes.get(header.header_length..end).ok_or(DropReason::Truncated)?;
        if header.protocol == icmp {
            return icmp_packet(header, payload);
        }
        let expected = header.total_length - header.header_length;
        let transport = transport::parse(header.protocol, payload, expected, header.fragment.is_some())?;
        let content = match header.fragment {
            None => Content::Whole,
            Some(fragment) => Content::FirstFragment { id: fragment.id },
        };
        Ok(packet(header, A::flow(header, &transport), content, transport.tcp_flags))
    }
}

fn icmp_packet<A: Address>(header: &Header<A>, message: &[u8]) -> Result<Packet, DropReason> {
    let whole = message.len() == header.total_length - header.header_length;
    let (flow, content) = match A::icmp(header, message, whole)? {
        icmp::Message::EchoRequest if header.fragment.is_some() => return Err(DropReason::IcmpUnhandled),
        icmp::Message::EchoRequest => (A::flow(header, &Transport::NONE), Content::Echo),
        icmp::Message::Error(About::Flow(flow)) => (flow, Content::Error),
        icmp::Message::Error(About::Tunnel { flow, mtu }) => (flow, Content::TunnelError { mtu }),
    };
    // Who complains about a packet says so to the packet's sender.
    if matches!(content, Content::Error | Content::TunnelError { .. })
        && flow.vip() != header.destination.into()
    {
        return Err(DropReason::IcmpUnmatched);
    }
    Ok(packet(header, flow, content, 0))
}

/// RFC 791 and RFC 8200 §4.5 on sizes; RFC 1858 on fragments that lie over the header that was judged.
fn check_fragment<A>(header: &Header<A>, fragment: Fragment) -> Result<(), DropReason> {
    const TCP_HEADER: u16 = 20;
    let length = header.total_length.saturating_sub(header.header_length);
    let ragged = fragment.more && !length.is_multiple_of(8);
    let too_long = usize::from(fragment.offset) + length > usize::from(u16::MAX);
    let over_the_header =
        header.protocol == transport::TCP && fragment.offset > 0 && fragment.offset < TCP_HEADER;
    if length == 0 || ragged || too_long || over_the_header {
        return Err(DropReason::BadFragment);
    }
    Ok(())
}

fn packet<A>(header: &Header<A>, flow: FlowKey, content: Content, tcp_flags: u8) -> Packet {
    Packet {
        flow,
        content,
        ip_offset: 0,
        header_length: header.header_length as u16,
        ip_length: header.total_length as u16,
        traffic_class: header.traffic_class,
        tcp_flags,
        dont_fragment: header.dont_fragment,
        source_mac: MacAddress::default(),
        tags: Tags::None,
    }
}

/// An address of either family: what differs between the two.
trait Address: Copy + Into<IpAddr> {
    /// The flow of a packet with these headers.
    fn flow(header: &Header<Self>, transport: &Transport) -> FlowKey;
    /// What an ICMP message of this family says; `whole` if `message` is all of it.
    fn icmp(header: &Header<Self>, message: &[u8], whole: bool) -> Result<icmp::Message, DropReason>;
}

impl Address for std::net::Ipv4Addr {
    fn flow(header: &Header<Self>, transport: &Transport) -> FlowKey {
        FlowKey::V4(FlowKey4 {
            client: header.source,
            vip: header.destination,
            client_port: transport.source_port,
            port: transport.destination_port,
            protocol: transport.protocol,
        })
    }

    fn icmp(_: &Header<Self>, message: &[u8], whole: bool) -> Result<icmp::Message, DropReason> {
        icmp::parse_v4(message, whole)
    }
}

impl Address for std::net::Ipv6Addr {
    fn flow(header: &Header<Self>, transport: &Transport) -> FlowKey {
        FlowKey::V6(FlowKey6 {
            client: header.source,
            vip: header.destination,
            client_port: transport.source_port,
            port: transport.destination_port,
            protocol: transport.protocol,
        })
    }

    fn icmp(header: &Header<Self>, message: &[u8], whole: bool) -> Result<icmp::Message, DropReason> {
        icmp::parse_v6(message, whole, header.source, header.destination)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    fn built(builder: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = Vec::new();
        builder(&mut frame);
        frame
    }

    fn tcp4(payload: &[u8]) -> Vec<u8> {
        built(|frame| {
            PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
                .ipv4([192, 0, 2, 1], [203, 0, 113, 10], 64)
                .tcp(40000, 80, 1, 1024)
                .syn()
                .write(frame, payload)
                .unwrap();
        })
    }

    fn udp6_tagged_twice(payload: &[u8]) -> Vec<u8> {
        built(|frame| {
            PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
                .double_vlan(100.try_into().unwrap(), 200.try_into().unwrap())
                .ipv6([0x20; 16], [0x30; 16], 64)
                .udp(40000, 53)
                .write(frame, payload)
                .unwrap();
        })
    }

    #[test]
    fn a_syn_with_padding_ends_where_ip_says() {
        let mut frame = tcp4(b"");
        frame.resize(64, 0xee);
        let packet = parse(&frame, frame.len()).unwrap();
        assert_eq!((packet.ip_offset, packet.ip_length), (14, 40));
        assert_eq!(packet.tcp_flags, transport::SYN);
        assert_eq!(packet.flow.to_string(), "tcp 192.0.2.1:40000 -> 203.0.113.10:80");
    }

    #[test]
    fn two_tags_are_skipped() {
        let packet = parse(&udp6_tagged_twice(b"query"), 75).unwrap();
        assert_eq!((packet.ip_offset, packet.ip_length), (22, 53));
        assert!(packet.flow.to_string().starts_with("udp ["));
    }

    #[test]
    fn every_truncation_is_a_counted_drop() {
        for frame in [tcp4(b"hello"), udp6_tagged_twice(b"hello")] {
            for length in 0..frame.len() {
                assert!(parse(&frame[..length], length).is_err(), "{length} bytes of {}", frame.len());
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&frame, frame.len());
        }

        #[test]
        fn no_damaged_packet_makes_it_panic(at in 0usize..80, value: u8, cut in 0usize..80) {
            for mut frame in [tcp4(b"hello"), udp6_tagged_twice(b"hello")] {
                if let Some(byte) = frame.get_mut(at) { *byte = value; }
                frame.truncate(frame.len().saturating_sub(cut));
                if let Ok(packet) = parse(&frame, frame.len()) {
                    prop_assert!(usize::from(packet.ip_offset + packet.ip_length) <= frame.len());
                }
            }
        }

        #[test]
        fn etherparse_agrees(sport: u16, dport: u16, flags in 0u8..64, payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut frame = tcp4(&payload);
            frame[34..36].copy_from_slice(&sport.to_be_bytes());
            frame[36..38].copy_from_slice(&dport.to_be_bytes());
            frame[47] = flags;
            let oracle = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::TransportSlice::Tcp(tcp)) = oracle.transport else { panic!("not TCP") };
            let packet = parse(&frame, frame.len()).unwrap();
            let FlowKey::V4(flow) = packet.flow else { panic!("not IPv4") };
            prop_assert_eq!((flow.client_port, flow.port), (tcp.source_port(), tcp.destination_port()));
            prop_assert_eq!(packet.tcp_flags & transport::SYN != 0, tcp.syn());
            prop_assert_eq!(packet.tcp_flags & transport::RST != 0, tcp.rst());
            prop_assert_eq!(packet.tcp_flags & transport::FIN != 0, tcp.fin());
        }
    }
}
