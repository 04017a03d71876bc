//! What was sent back to a packet's sender answers it, and nobody else.

use std::net::IpAddr;

use shunt_dataplane::forward::Reply;
use shunt_dataplane::packet::{Content, ipv4, ipv6};

use super::{Case, Frame, forwarded};
use crate::inet::{self, HEADER_V4, HEADER_V6, ICMP, ICMP6, TCP};

/// An answer by decision.
pub fn check(case: &Case<'_>, frame: &Frame, reply: Reply) {
    let (ip, protocol) = back_to_sender(case, frame);
    match reply {
        Reply::Echo => echo(case, ip, protocol),
        Reply::Reset => reset(case, ip, protocol),
        Reply::Unreachable => {
            let kind = if inet::is_v6(ip) { [1, 4] } else { [3, 3] };
            error(case, ip, kind, 0);
        }
    }
}

/// "Too big": packets of up to `room` bytes fit.
pub fn too_big(case: &Case<'_>, frame: &Frame, room: usize) {
    let (ip, _) = back_to_sender(case, frame);
    if inet::is_v6(ip) {
        error(case, ip, [2, 0], room.max(1280) as u32);
    } else {
        assert!(case.packet.dont_fragment, "without DF a router fragments");
        error(case, ip, [3, 4], room.min(65_535) as u32);
    }
}

/// The IP packet of an answer and its protocol.
fn back_to_sender<'a>(case: &Case<'_>, frame: &'a Frame) -> (&'a [u8], u8) {
    let came = &case.came.bytes;
    let offset = usize::from(case.packet.ip_offset);
    assert_eq!(frame.nic, case.came.nic, "by the NIC that it came by");
    assert_eq!(
        (&frame.bytes[..6], &frame.bytes[6..12]),
        (&came[6..12], &came[..6]),
        "stations change places"
    );
    assert_eq!(frame.bytes[12..offset], came[12..offset], "tags stay");
    assert_eq!(came[0] & 1, 0, "a group is not answered");
    let ip = &frame.bytes[offset..];
    let (length, protocol) = if inet::is_v6(ip) {
        let header = ipv6::parse(ip, ip.len()).expect("an answer is valid");
        (header.total_length, header.protocol)
    } else {
        let header = ipv4::parse(ip, ip.len()).expect("an answer is valid");
        (header.total_length, header.protocol)
    };
    let flow = &case.packet.flow;
    assert_eq!(forwarded::ends(ip), (flow.vip(), flow.client()));
    let loops = |address: IpAddr| address.is_multicast() || address.is_loopback() || address.is_unspecified();
    assert!(!loops(flow.client()), "{flow} is not answered");
    (&ip[..length], protocol)
}

fn echo(case: &Case<'_>, ip: &[u8], protocol: u8) {
    assert_eq!(case.packet.content, Content::Echo);
    let (came, at) = (case.ip(), usize::from(case.packet.header_length));
    assert_eq!(ip[at], if inet::is_v6(ip) { 129 } else { 0 });
    assert_eq!(ip[at + 4..], came[at + 4..], "an echo has the same data");
    let sum = |ip: &[u8]| inet::payload_sum(ip, at, protocol);
    assert_eq!(sum(ip) == 0xffff, sum(came) == 0xffff, "the checksum is as right as before");
}

fn reset(case: &Case<'_>, ip: &[u8], protocol: u8) {
    let header_length = if inet::is_v6(ip) { HEADER_V6 } else { HEADER_V4 };
    let (came, at) = (case.ip(), usize::from(case.packet.header_length));
    assert_eq!((protocol, ip.len()), (TCP, header_length + 20));
    assert_eq!(inet::payload_sum(ip, header_length, TCP), 0xffff);
    let tcp = &ip[header_length..];
    assert_eq!((&tcp[..2], &tcp[2..4]), (&came[at + 2..at + 4], &came[at..at + 2]), "ports change places");
    assert_eq!((tcp[13] & 4, came[at + 13] & 4), (4, 0), "a reset is not answered by one");
}

fn error(case: &Case<'_>, ip: &[u8], kind: [u8; 2], value: u32) {
    let header_length = if inet::is_v6(ip) { HEADER_V6 } else { HEADER_V4 };
    let (protocol, most) = if inet::is_v6(ip) { (ICMP6, 1280) } else { (ICMP, 576) };
    assert!(ip.len() <= most, "an error of {} bytes", ip.len());
    assert_eq!(inet::payload_sum(ip, header_length, protocol), 0xffff);
    let message = &ip[header_length..];
    assert_eq!((&message[..2], &message[4..8]), (&kind[..], &value.to_be_bytes()[..]));
    let quote = &message[8..];
    assert_eq!(quote, &case.ip()[..quote.len()], "an error quotes what came");
    let ports = (usize::from(case.packet.header_length) + 8).min(most - header_length - 8);
    assert!(quote.len() >= ports, "the sender finds its ports");
    assert!(!matches!(case.packet.content, Content::Error | Content::LaterFragment { .. }));
}
