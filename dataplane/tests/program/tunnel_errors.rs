//! Which ICMP errors about our own tunnel packets the program takes from the kernel, and which packets that look like
//! them it leaves there.

use std::os::fd::AsRawFd;

use libbpf_rs::{MapCore, MapFlags};
use rustix::net::{AddressFamily, SocketType};
use shunt_dataplane::packet::steering;

use super::root;
use super::verdict::{
    BOX_MAC, CLIENT_MAC, CLIENT_V4, CLIENT_V6, Counter, DROP, DroppedBadSourceMac, DroppedNoSocket, PASS,
    Passed, Program, REDIRECT, Redirected, VIP_V4, VIP_V6, icmpv6, tagged, tcp_v4,
};

/// In the prefix 10.200.0.0/16.
pub const SOURCE_V4: [u8; 4] = [10, 200, 3, 4];
/// The box's own, without a prefix.
const HOST_V4: [u8; 4] = [192, 0, 2, 1];
/// Just outside of the prefix.
const NO_SOURCE_V4: [u8; 4] = [10, 201, 0, 0];
/// In the prefix fd00:200::/64.
pub const SOURCE_V6: [u8; 16] = [0xfd, 0, 2, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 1];
/// Just outside of the prefix.
const NO_SOURCE_V6: [u8; 16] = [0xfd, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

const ICMP: u8 = 1;
const IP4: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IP6: u8 = 41;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;

/// The VIPs owned with this headroom, and the tunnel sources named above.
fn program(headroom: u32) -> Program {
    let program = Program::with_vips(headroom);
    let v4 = |address: [u8; 4]| [&[0; 10][..], &[0xff, 0xff], &address].concat();
    let sources = [(112, v4([10, 200, 0, 0])), (128, v4(HOST_V4)), (64, [&SOURCE_V6[..8], &[0; 8]].concat())];
    for (bits, address) in sources {
        let key = [&u32::to_ne_bytes(bits)[..], &address].concat();
        program.map("tunnel_sources").update(&key, &1_u32.to_ne_bytes(), MapFlags::ANY).unwrap();
    }
    program
}

/// Without Ethernet. The program looks at no checksum.
fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() as u16).to_be_bytes();
    let fixed = [0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    [&fixed[..], &source, &destination, payload].concat()
}

fn ipv6(next_header: u8, source: [u8; 16], destination: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let fixed = [0x60, 0, 0, 0, length[0], length[1], next_header, 64];
    [&fixed[..], &source, &destination, payload].concat()
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let protocol = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&BOX_MAC[..], &CLIENT_MAC, &protocol, packet].concat()
}

/// An ICMP error about a packet of this protocol from `destination`. Of the packet, only the IP header is there.
pub fn error_v4(destination: [u8; 4], icmp: (u8, u8), quoted: u8) -> Vec<u8> {
    let message = [&[icmp.0, icmp.1, 0, 0, 0, 0, 5, 0xdc], &ipv4(quoted, destination, CLIENT_V4, &[])[..]];
    frame(&ipv4(ICMP, CLIENT_V4, destination, &message.concat()))
}

pub fn error_v6(destination: [u8; 16], kind: u8, quoted: u8) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, 0, 0, 5, 0xdc], &ipv6(quoted, destination, CLIENT_V6, &[])[..]];
    frame(&ipv6(ICMPV6, CLIENT_V6, destination, &message.concat()))
}

/// With this many bytes of options, which are no-operations.
fn with_options(frame: &[u8], length: usize) -> Vec<u8> {
    let mut frame = [&frame[..34], &vec![1; length], &frame[34..]].concat();
    frame[14] += length as u8 / 4;
    frame
}

/// With this in the IPv4 header's field of flags and fragment offset.
fn fragmented(frame: &[u8], field: [u8; 2]) -> Vec<u8> {
    [&frame[..20], &field, &frame[22..]].concat()
}

/// With an extension header of 8 bytes.
fn extended(frame: &[u8], extension: u8) -> Vec<u8> {
    [&frame[..20], &[extension], &frame[21..54], &[frame[20], 0, 0, 0, 0, 0, 0, 0], &frame[54..]].concat()
}

/// Errors that are for the worker.
fn taken() -> Vec<(&'static str, Vec<u8>)> {
    let (v4, v6) = (error_v4(SOURCE_V4, (3, 4), IP4), error_v6(SOURCE_V6, 2, IP6));
    vec![
        ("fragmentation needed, of IPv4 in IPv4", v4.clone()),
        ("fragmentation needed, of IPv6 in IPv4", error_v4(SOURCE_V4, (3, 4), IP6)),
        ("host unreachable", error_v4(SOURCE_V4, (3, 1), IP4)),
        ("protocol unreachable", error_v4(SOURCE_V4, (3, 2), IP6)),
        ("time exceeded", error_v4(SOURCE_V4, (11, 0), IP4)),
        ("fragmentation needed, to the host's own address", error_v4(HOST_V4, (3, 4), IP4)),
        ("IPv4 that may be fragmented", fragmented(&v4, [0, 0])),
        ("IPv4 with an option", with_options(&v4, 4)),
        ("IPv4 with all options", with_options(&v4, 40)),
        ("IPv4 in a VLAN", tagged(&v4, 0x8100)),
        ("IPv4 with all options in two VLANs", tagged(&tagged(&with_options(&v4, 40), 0x8100), 0x88a8)),
        ("destination unreachable, of IPv6 in IPv6", error_v6(SOURCE_V6, 1, IP6)),
        ("packet too big, of IPv6 in IPv6", v6.clone()),
        ("packet too big, of IPv4 in IPv6", error_v6(SOURCE_V6, 2, IP4)),
        ("time exceeded, of IPv4 in IPv6", error_v6(SOURCE_V6, 3, IP4)),
        ("IPv6 in a VLAN", tagged(&v6, 0x8100)),
        ("IPv6 in two VLANs", tagged(&tagged(&v6, 0x8100), 0x88a8)),
    ]
}

/// What the kernel keeps.
fn left() -> Vec<(&'static str, Vec<u8>)> {
    let (v4, v6) = (error_v4(SOURCE_V4, (3, 4), IP4), error_v6(SOURCE_V6, 2, IP6));
    let tunnel = ipv4(IP4, CLIENT_V4, SOURCE_V4, &ipv4(ICMP, CLIENT_V4, SOURCE_V4, &v4[34..]));
    vec![
        ("to no tunnel source", error_v4(NO_SOURCE_V4, (3, 4), IP4)),
        ("to no tunnel source, in a VLAN", tagged(&error_v4(NO_SOURCE_V4, (3, 4), IP4), 0x8100)),
        ("to no tunnel source, IPv6", error_v6(NO_SOURCE_V6, 2, IP6)),
        ("about TCP", error_v4(HOST_V4, (3, 4), TCP)),
        ("about UDP", error_v4(SOURCE_V4, (3, 3), UDP)),
        ("about an echo request", error_v4(HOST_V4, (11, 0), ICMP)),
        ("about TCP over IPv6", error_v6(SOURCE_V6, 2, TCP)),
        ("about ICMPv6", error_v6(SOURCE_V6, 1, ICMPV6)),
        ("about a fragment, IPv6", error_v6(SOURCE_V6, 2, FRAGMENT)),
        ("echo reply", error_v4(SOURCE_V4, (0, 0), IP4)),
        ("source quench", error_v4(SOURCE_V4, (4, 0), IP4)),
        ("redirect", error_v4(SOURCE_V4, (5, 1), IP4)),
        ("echo request", error_v4(SOURCE_V4, (8, 0), IP4)),
        ("parameter problem", error_v4(SOURCE_V4, (12, 0), IP4)),
        ("reserved type 0, IPv6", error_v6(SOURCE_V6, 0, IP6)),
        ("parameter problem, IPv6", error_v6(SOURCE_V6, 4, IP6)),
        ("echo request, IPv6", error_v6(SOURCE_V6, 128, IP6)),
        ("neighbour solicitation", icmpv6(SOURCE_V6, 135)),
        ("neighbour advertisement in a VLAN", tagged(&icmpv6(SOURCE_V6, 136), 0x8100)),
        ("IPv4, first fragment", fragmented(&v4, [0x20, 0])),
        ("IPv4, fragment in the middle", fragmented(&v4, [0x20, 1])),
        ("IPv4, last fragment", fragmented(&v4, [0x1f, 0xff])),
        ("IPv6, fragment", extended(&v6, FRAGMENT)),
        ("IPv6, behind hop-by-hop options", extended(&v6, 0)),
        ("the ICMP of the other version, IPv4", [&v4[..23], &[ICMPV6], &v4[24..]].concat()),
        ("the ICMP of the other version, IPv6", [&v6[..20], &[ICMP], &v6[21..]].concat()),
        ("TCP", tcp_v4(SOURCE_V4)),
        ("a tunnel packet that holds an error", frame(&tunnel)),
        ("in three VLANs", tagged(&tagged(&tagged(&v4, 0x8100), 0x8100), 0x88a8)),
    ]
}

#[track_caller]
fn check(program: &Program, what: &str, frame: &[u8], verdict: u32, counter: Counter) {
    let outcome = program.run(frame);
    assert_eq!((outcome.verdict, outcome.counted), (verdict, vec![counter]), "{what}");
    assert_eq!(outcome.frame, frame, "{what} is not to be changed");
}

#[test]
fn errors_about_tunnels_and_nothing_else_are_taken() {
    if !root("errors_about_tunnels_and_nothing_else_are_taken") {
        return;
    }
    let (program, without_sources) = (program(40), Program::with_vips(40));
    for (what, frame) in &taken() {
        check(&program, what, frame, DROP, DroppedNoSocket);
        check(&without_sources, what, frame, PASS, Passed);
    }
    for (what, frame) in &left() {
        check(&program, what, frame, PASS, Passed);
    }
}

#[test]
fn errors_about_tunnels_go_to_the_socket_of_their_queue() {
    if !root("errors_about_tunnels_go_to_the_socket_of_their_queue") {
        return;
    }
    let program = program(40);
    let socket = rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None).unwrap();
    let queue = 0_u32.to_ne_bytes();
    program.map("xsks").update(&queue, &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY).unwrap();
    for (what, frame) in &taken() {
        check(&program, what, frame, REDIRECT, Redirected);
    }
}

#[test]
fn errors_with_a_truncated_quote_are_left_to_the_kernel() {
    if !root("errors_with_a_truncated_quote_are_left_to_the_kernel") {
        return;
    }
    let program = program(20);
    for (what, frame) in &taken() {
        for length in 14..frame.len() {
            check(&program, &format!("{what}, {length} bytes of it"), &frame[..length], PASS, Passed);
        }
        check(&program, what, &[&frame[..], &[0; 500]].concat(), DROP, DroppedNoSocket);
    }
}

#[test]
fn a_group_address_as_source_is_dropped_only_from_errors_about_tunnels() {
    if !root("a_group_address_as_source_is_dropped_only_from_errors_about_tunnels") {
        return;
    }
    let program = program(20);
    let from_group = |frame: &[u8]| [&frame[..6], &[0xff, 0x53, 20], &frame[9..]].concat();
    for (what, frame) in &taken() {
        check(&program, what, &from_group(frame), DROP, DroppedBadSourceMac);
    }
    for (what, frame) in &left() {
        check(&program, what, &from_group(frame), PASS, Passed);
    }
}

#[test]
fn owned_addresses_stay_owned_within_a_prefix_of_tunnel_sources() {
    if !root("owned_addresses_stay_owned_within_a_prefix_of_tunnel_sources") {
        return;
    }
    for headroom in [0, 20, 40] {
        let program = program(headroom);
        for bits in [0, 96, 128] {
            for vip in [[&[0; 10][..], &[0xff, 0xff], &VIP_V4].concat(), VIP_V6.to_vec()] {
                let key = [&u32::to_ne_bytes(bits)[..], &vip].concat();
                program.map("tunnel_sources").update(&key, &1_u32.to_ne_bytes(), MapFlags::ANY).unwrap();
            }
        }
        for (what, frame) in [
            ("about a tunnel", error_v4(VIP_V4, (3, 4), IP4)),
            ("about TCP", error_v4(VIP_V4, (3, 4), TCP)),
            ("cut short", error_v4(VIP_V4, (3, 4), IP4)[..50].to_vec()),
            ("in fragments", fragmented(&error_v4(VIP_V4, (3, 4), TCP), [0x20, 0])),
            ("IPv6, about a tunnel", error_v6(VIP_V6, 2, IP6)),
            ("IPv6, about TCP", error_v6(VIP_V6, 2, TCP)),
        ] {
            let outcome = program.run(&frame);
            assert_eq!((outcome.verdict, outcome.counted), (DROP, vec![DroppedNoSocket]), "{what}");
            assert_eq!(steering::headroom(&outcome.frame), headroom as usize, "{what}");
            assert_eq!(outcome.frame[headroom as usize..], frame, "{what}");
        }
        check(&program, "neighbour solicitation", &icmpv6(VIP_V6, 135), PASS, Passed);
    }
}

#[test]
fn errors_outside_the_first_buffer_are_found() {
    if !root("errors_outside_the_first_buffer_are_found") {
        return;
    }
    let program = program(20);
    if program.run_laid_out(&tcp_v4(VIP_V4), 0, 0).is_err() {
        // Unlike eprintln!, this is not captured by the test harness.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"SKIPPED: this kernel does not scatter test frames (Linux 6.18 does)\n",
        );
        return;
    }
    for linear in [0, 14, 20, 34, 40, 42, 54, 55, 62, 75, 102] {
        let verdict_on = |frame: &[u8]| {
            let outcome = program.run_laid_out(frame, 0, linear.min(frame.len())).unwrap();
            (outcome.verdict, outcome.counted)
        };
        for (what, frame) in &taken() {
            let expected = (DROP, vec![DroppedNoSocket]);
            assert_eq!(verdict_on(frame), expected, "{what}, {linear} bytes in front");
        }
        for (what, frame) in &left() {
            assert_eq!(verdict_on(frame), (PASS, vec![Passed]), "{what}, {linear} bytes in front");
        }
    }
}
