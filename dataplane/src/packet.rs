//! From the bytes of a frame to what forwarding needs to know of it.
//!
//! [`parse`] reads Ethernet, VLAN tags, IPv4 or IPv6 and TCP or UDP. It never panics, never copies payload
//! and never changes a byte; whatever contradicts itself comes back as the [`DropReason`] it is counted
//! under. Called by the worker for every received frame, and by nobody else on the packet path.

pub mod checksum;
pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod steering;
pub mod transport;

use shunt_api::counters::DropReason;

use crate::flow::{FlowKey, FlowKey4, FlowKey6};
use ethernet::EtherType;

/// What forwarding needs to know of a packet. Offsets count from the start of the Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Addresses, ports and protocol.
    pub flow: FlowKey,
    /// Where the IP header begins: behind the Ethernet header and its VLAN tags.
    pub ip_offset: u16,
    /// Bytes from the IP header to the end of the IP packet; Ethernet padding is not among them.
    pub ip_length: u16,
    /// IPv4 TOS or IPv6 traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Bits of the TCP header's flags; 0 for UDP.
    pub tcp_flags: u8,
}

/// Reads a frame that begins with an Ethernet header.
pub fn parse(frame: &[u8]) -> Result<Packet, DropReason> {
    let (ether_type, ip_offset) = ethernet::parse(frame)?;
    let ip = &frame[ip_offset..];
    match ether_type {
        EtherType::Ipv4 => parse_ipv4(ip, ip_offset),
        EtherType::Ipv6 => parse_ipv6(ip, ip_offset),
    }
}

fn parse_ipv4(ip: &[u8], ip_offset: usize) -> Result<Packet, DropReason> {
    let header = ipv4::parse(ip)?;
    let transport = transport::parse(header.protocol, &ip[header.header_length..header.total_length])?;
    let flow = FlowKey4 {
        client: header.source,
        vip: header.destination,
        client_port: transport.source_port,
        port: transport.destination_port,
        protocol: transport.protocol,
    };
    let (ip_offset, ip_length) = (ip_offset as u16, header.total_length as u16);
    let (traffic_class, tcp_flags) = (header.traffic_class, transport.tcp_flags);
    Ok(Packet { flow: FlowKey::V4(flow), ip_offset, ip_length, traffic_class, tcp_flags })
}

fn parse_ipv6(ip: &[u8], ip_offset: usize) -> Result<Packet, DropReason> {
    let header = ipv6::parse(ip)?;
    let transport = transport::parse(header.protocol, &ip[header.header_length..header.total_length])?;
    let flow = FlowKey6 {
        client: header.source,
        vip: header.destination,
        client_port: transport.source_port,
        port: transport.destination_port,
        protocol: transport.protocol,
    };
    let (ip_offset, ip_length) = (ip_offset as u16, header.total_length as u16);
    let (traffic_class, tcp_flags) = (header.traffic_class, transport.tcp_flags);
    Ok(Packet { flow: FlowKey::V6(flow), ip_offset, ip_length, traffic_class, tcp_flags })
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
        let packet = parse(&frame).unwrap();
        assert_eq!((packet.ip_offset, packet.ip_length), (14, 40));
        assert_eq!(packet.tcp_flags, transport::SYN);
        assert_eq!(packet.flow.to_string(), "tcp 192.0.2.1:40000 -> 203.0.113.10:80");
    }

    #[test]
    fn two_tags_are_skipped() {
        let packet = parse(&udp6_tagged_twice(b"query")).unwrap();
        assert_eq!((packet.ip_offset, packet.ip_length), (22, 53));
        assert!(packet.flow.to_string().starts_with("udp ["));
    }

    #[test]
    fn every_truncation_is_a_counted_drop() {
        for frame in [tcp4(b"hello"), udp6_tagged_twice(b"hello")] {
            for length in 0..frame.len() {
                assert!(parse(&frame[..length]).is_err(), "{length} bytes of {}", frame.len());
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&frame);
        }

        #[test]
        fn no_damaged_packet_makes_it_panic(at in 0usize..80, value: u8, cut in 0usize..80) {
            for mut frame in [tcp4(b"hello"), udp6_tagged_twice(b"hello")] {
                if let Some(byte) = frame.get_mut(at) { *byte = value; }
                frame.truncate(frame.len().saturating_sub(cut));
                if let Ok(packet) = parse(&frame) {
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
            let packet = parse(&frame).unwrap();
            let FlowKey::V4(flow) = packet.flow else { panic!("not IPv4") };
            prop_assert_eq!((flow.client_port, flow.port), (tcp.source_port(), tcp.destination_port()));
            prop_assert_eq!(packet.tcp_flags & transport::SYN != 0, tcp.syn());
            prop_assert_eq!(packet.tcp_flags & transport::RST != 0, tcp.rst());
            prop_assert_eq!(packet.tcp_flags & transport::FIN != 0, tcp.fin());
        }
    }
}
