//! The frames that the generator sends, and whether what came out is what should: an independent look, with
//! etherparse, at what the load balancer made of them.

use std::net::Ipv4Addr;

use etherparse::{Ipv4Header, Ipv4HeaderSlice, PacketBuilder, UdpHeader, UdpHeaderSlice};

use super::network::{
    BACK_MAC, BACKEND_MAC, BACKENDS, CLIENT, CLIENT_MAC, FRONT_MAC, LB_BACK, NAT_SOURCE, UDP_PORT, VIP,
};

/// Bytes of Ethernet, IPv4 and UDP headers.
pub const HEADERS: usize = 14 + 20 + 8;
/// The first bytes of the payload are the time stamp.
const STAMP: usize = 8;
/// Source port of the first flow.
pub const FIRST_PORT: u16 = 20_000;
/// Flows that the generator sends, one after the other.
pub const FLOWS: u16 = 1000;

/// How a frame was forwarded, and so how it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With new Ethernet addresses only.
    AsSent,
    /// In an IPv4 tunnel.
    Tunnelled,
    /// With new addresses.
    Translated,
}

/// A frame of so many bytes, without FCS: source port 0, time stamp 0, a payload that shows a shift.
pub fn template(frame_bytes: usize) -> Vec<u8> {
    let mut payload: Vec<u8> = (0..frame_bytes - HEADERS).map(|at| at as u8).collect();
    payload[..STAMP].fill(0);
    let mut frame = Vec::with_capacity(frame_bytes);
    let builder = PacketBuilder::ethernet2(CLIENT_MAC.0, FRONT_MAC.0)
        .ipv4(CLIENT.octets(), VIP.octets(), 64)
        .udp(0, UDP_PORT);
    builder.write(&mut frame, &payload).expect("a vector takes everything");
    frame
}

/// Whether a frame that came to the backend's NIC is right in every byte; otherwise what is wrong.
pub fn check(kind: Kind, frame: &[u8]) -> Result<(), String> {
    wrong_if(frame[..6] != BACKEND_MAC.0 || frame[6..12] != BACK_MAC.0, || {
        format!("Ethernet addresses {:02x?}", &frame[..12])
    })?;
    let packet = &frame[14..];
    if kind != Kind::Tunnelled {
        return check_packet(kind, packet);
    }
    let outer = header(packet)?;
    wrong_if(!BACKENDS.contains(&outer.destination.into()), || format!("tunnel to {:?}", outer.destination))?;
    check_packet(Kind::AsSent, &packet[20..])
}

fn check_packet(kind: Kind, packet: &[u8]) -> Result<(), String> {
    let ip = header(packet)?;
    let (source, destination) = (Ipv4Addr::from(ip.source), Ipv4Addr::from(ip.destination));
    let expected = match kind {
        Kind::Translated => [NAT_SOURCE, LB_BACK].contains(&source) && BACKENDS.contains(&destination),
        Kind::AsSent | Kind::Tunnelled => source == CLIENT && destination == VIP,
    };
    wrong_if(!expected, || format!("from {source} to {destination}"))?;
    let udp = UdpHeaderSlice::from_slice(&packet[20..]).map_err(|error| error.to_string())?.to_header();
    let payload = &packet[28..];
    wrong_if(usize::from(udp.length) != 8 + payload.len(), || format!("UDP length {}", udp.length))?;
    let sum = UdpHeader::calc_checksum_ipv4(&udp, &ip, payload).map_err(|error| error.to_string())?;
    wrong_if(udp.checksum != sum, || format!("UDP checksum {:04x}, not {sum:04x}", udp.checksum))?;
    let flows = FIRST_PORT..FIRST_PORT + FLOWS;
    wrong_if(kind != Kind::Translated && !flows.contains(&udp.source_port), || {
        format!("source port {}", udp.source_port)
    })?;
    let shifted = (STAMP..payload.len()).find(|at| payload[*at] != *at as u8);
    wrong_if(shifted.is_some(), || format!("payload changed at byte {shifted:?}"))
}

/// An IPv4 header that is right in itself and for the bytes behind it.
fn header(packet: &[u8]) -> Result<Ipv4Header, String> {
    let ip = Ipv4HeaderSlice::from_slice(packet).map_err(|error| error.to_string())?.to_header();
    wrong_if(usize::from(ip.total_len) != packet.len(), || {
        format!("IP length {} of {} bytes", ip.total_len, packet.len())
    })?;
    let sum = ip.calc_header_checksum();
    wrong_if(ip.header_checksum != sum, || format!("IP checksum {:04x}, not {sum:04x}", ip.header_checksum))?;
    Ok(ip)
}

fn wrong_if(wrong: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if wrong { Err(what()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as it comes out, with the IPv4 and UDP addresses of a flow.
    fn arrived(source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        let payload: Vec<u8> = (0..30).collect();
        let builder = PacketBuilder::ethernet2(BACK_MAC.0, BACKEND_MAC.0)
            .ipv4(source.octets(), destination.octets(), 63)
            .udp(port, UDP_PORT);
        builder.write(&mut frame, &payload).unwrap();
        frame
    }

    #[test]
    fn every_size_has_its_template() {
        for bytes in [64, 512, 1500] {
            let frame = template(bytes);
            assert_eq!(frame.len(), bytes);
            assert_eq!(header(&frame[14..]).unwrap().destination, VIP.octets());
        }
    }

    #[test]
    fn right_frames_pass_and_a_changed_byte_does_not() {
        for (kind, frame) in [
            (Kind::AsSent, arrived(CLIENT, VIP, FIRST_PORT + 7)),
            (Kind::Translated, arrived(NAT_SOURCE, BACKENDS[1], 5)),
            (Kind::Translated, arrived(LB_BACK, BACKENDS[3], 6)),
        ] {
            assert_eq!(check(kind, &frame), Ok(()));
            // Not: the frame's EtherType, which the sink has seen; TOS … TTL are covered by the checksum.
            for at in (0..12).chain(14..frame.len()) {
                let mut changed = frame.clone();
                changed[at] ^= 0x40;
                assert!(check(kind, &changed).is_err(), "byte {at}");
            }
        }
        assert!(check(Kind::Translated, &arrived(CLIENT, VIP, FIRST_PORT)).is_err());
        assert!(check(Kind::AsSent, &arrived(CLIENT, BACKENDS[0], FIRST_PORT)).is_err());
        assert!(check(Kind::AsSent, &arrived(CLIENT, VIP, FIRST_PORT + FLOWS)).is_err());
    }

    #[test]
    fn tunnels_are_looked_into() {
        let inner = arrived(CLIENT, VIP, FIRST_PORT);
        let tunnel = |to: Ipv4Addr| {
            let mut frame = Vec::new();
            let builder =
                PacketBuilder::ethernet2(BACK_MAC.0, BACKEND_MAC.0).ipv4([10, 9, 9, 9], to.octets(), 64);
            builder.write(&mut frame, etherparse::IpNumber::IPV4, &inner[14..]).unwrap();
            frame
        };
        assert_eq!(check(Kind::Tunnelled, &tunnel(BACKENDS[2])), Ok(()));
        assert!(check(Kind::Tunnelled, &tunnel(VIP)).is_err());
        let mut changed = tunnel(BACKENDS[2]);
        *changed.last_mut().unwrap() ^= 1;
        assert!(check(Kind::Tunnelled, &changed).is_err());
    }
}
