//! What the program does with one frame: verdict, headroom, mark, count. `BPF_PROG_TEST_RUN` plays the driver.

use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, PacketBuilder, PacketBuilderStep,
};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput};
use rustix::net::{AddressFamily, SocketType};
use shunt_dataplane::packet::steering;

use super::root;

pub const PASS: u32 = libbpf_sys::XDP_PASS;
pub const DROP: u32 = libbpf_sys::XDP_DROP;
pub const REDIRECT: u32 = libbpf_sys::XDP_REDIRECT;

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const BOX_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const CLIENT_V4: [u8; 4] = [198, 51, 100, 7];
pub const CLIENT_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
pub const VIP_V4: [u8; 4] = [203, 0, 113, 10];
pub const VIP_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const OTHER_V4: [u8; 4] = [203, 0, 113, 11];

/// In the order of the program's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    Redirected,
    Passed,
    DroppedNoSocket,
    DroppedNoHeadroom,
    DroppedBadSourceMac,
}
pub use Counter::{DroppedBadSourceMac, DroppedNoHeadroom, DroppedNoSocket, Passed, Redirected};

/// What became of a frame.
pub struct Outcome {
    pub verdict: u32,
    pub frame: Vec<u8>,
    pub counted: Vec<Counter>,
}

/// The loaded program with maps of its own.
pub struct Program(Object);

impl Program {
    /// With these addresses owned.
    fn owning(addresses: &[IpAddr], headroom: u32) -> Self {
        let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));
        let program = Self(ObjectBuilder::default().open_memory(bytes).unwrap().load().unwrap());
        for address in addresses {
            let key = match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            program.map("owned").update(&key, &headroom.to_ne_bytes(), MapFlags::ANY).unwrap();
        }
        program
    }

    pub fn with_vips(headroom: u32) -> Self {
        Self::owning(&[VIP_V4.into(), VIP_V6.into()], headroom)
    }

    pub fn map(&self, name: &str) -> MapHandle {
        MapHandle::try_from(&self.0.maps().find(|map| map.name() == name).unwrap()).unwrap()
    }

    fn counts(&self) -> Vec<u64> {
        let counts = self.map("counts");
        let count = |index: u32| -> u64 {
            let per_cpu = counts.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
            per_cpu.iter().map(|value| u64::from_ne_bytes(value[..].try_into().unwrap())).sum()
        };
        (0..counts.max_entries()).map(count).collect()
    }

    pub fn run(&self, frame: &[u8]) -> Outcome {
        self.run_laid_out(frame, 0, frame.len()).unwrap()
    }

    /// With metadata of a driver in front of the frame, and only `linear` bytes of it in the first buffer.
    pub fn run_laid_out(&self, frame: &[u8], metadata: usize, linear: usize) -> libbpf_rs::Result<Outcome> {
        let before = self.counts();
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [metadata as u32, (metadata + linear) as u32, 0, 0, 0, 0];
        let mut context = context.map(u32::to_ne_bytes).concat();
        let input = [&vec![0; metadata], frame].concat();
        let mut data = vec![0; 4096];
        let output = self.0.progs_mut().next().unwrap().test_run(ProgramInput {
            context_in: Some(&mut context),
            data_in: Some(&input),
            data_out: Some(&mut data),
            ..Default::default()
        })?;
        let all = [Redirected, Passed, DroppedNoSocket, DroppedNoHeadroom, DroppedBadSourceMac];
        let grown = self.counts().iter().zip(&before).map(|(now, before)| now - before).collect::<Vec<_>>();
        let counted =
            all.iter().zip(grown).flat_map(|(counter, times)| vec![*counter; times as usize]).collect();
        let frame = output.data.unwrap()[metadata..].to_vec();
        Ok(Outcome { verdict: output.return_value, frame, counted })
    }
}

fn ethernet() -> PacketBuilderStep<Ethernet2Header> {
    PacketBuilder::ethernet2(CLIENT_MAC, BOX_MAC)
}

pub fn tcp_v4(destination: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    ethernet().ipv4(CLIENT_V4, destination, 64).tcp(40000, 80, 1, 1024).write(&mut frame, b"hello").unwrap();
    frame
}

fn udp_v6(destination: [u8; 16]) -> Vec<u8> {
    let mut frame = Vec::new();
    ethernet().ipv6(CLIENT_V6, destination, 64).udp(40000, 53).write(&mut frame, b"hello").unwrap();
    frame
}

pub fn icmpv6(destination: [u8; 16], kind: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ethernet().ipv6(CLIENT_V6, destination, 255).icmpv6_raw(kind, 0, [0; 4]);
    builder.write(&mut frame, &[0; 16]).unwrap();
    frame
}

fn arp() -> Vec<u8> {
    let (mac, ip) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
    let request = ArpOperation::REQUEST;
    let packet = ArpPacket::new(mac, ip, request, &CLIENT_MAC, &CLIENT_V4, &[0; 6], &VIP_V4).unwrap();
    let mut frame = Vec::new();
    ethernet().arp(packet).write(&mut frame).unwrap();
    frame
}

/// The frame with a VLAN tag outside of those it has.
pub fn tagged(frame: &[u8], tag_type: u16) -> Vec<u8> {
    [&frame[..12], &tag_type.to_be_bytes(), &[0x20, 100], &frame[12..]].concat()
}

#[test]
fn owned_addresses_and_nothing_else_are_taken() {
    if !root("owned_addresses_and_nothing_else_are_taken") {
        return;
    }
    let (v4, v6) = (tcp_v4(VIP_V4), udp_v6(VIP_V6));
    let hop_by_hop = [&v6[..20], &[0], &v6[21..54], &[58, 0, 1, 4, 0, 0, 0, 0], &[135, 0, 0, 0]].concat();
    let mut lldp = v4.clone();
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    let taken = [
        ("IPv4", v4.clone()),
        ("IPv6", v6.clone()),
        ("IPv4 in a VLAN", tagged(&v4, 0x8100)),
        ("IPv6 in a provider's VLAN", tagged(&v6, 0x88a8)),
        ("IPv4 in a VLAN in a provider's", tagged(&tagged(&v4, 0x8100), 0x88a8)),
        ("IPv6 in two VLANs", tagged(&tagged(&v6, 0x8100), 0x8100)),
        ("ICMPv6 echo request", icmpv6(VIP_V6, 128)),
        ("ICMPv6 packet too big", icmpv6(VIP_V6, 2)),
        ("ICMPv6 just below neighbour discovery", icmpv6(VIP_V6, 132)),
        ("ICMPv6 just above neighbour discovery", icmpv6(VIP_V6, 138)),
        (
            "neighbour solicitation behind an extension header, which RFC 6980 allows no node to heed",
            hop_by_hop,
        ),
    ];
    let left = [
        ("IPv4 to another address", tcp_v4(OTHER_V4)),
        ("IPv4 from an owned address", [&v4[..26], &VIP_V4, &OTHER_V4, &v4[34..]].concat()),
        ("IPv6 to another address", udp_v6(CLIENT_V6)),
        ("IPv4 to another address in a VLAN", tagged(&tcp_v4(OTHER_V4), 0x8100)),
        ("IPv4 in three VLANs", tagged(&tagged(&tagged(&v4, 0x8100), 0x8100), 0x8100)),
        ("ARP for an owned address", arp()),
        ("LLDP", lldp),
        ("router solicitation", icmpv6(VIP_V6, 133)),
        ("neighbour solicitation", icmpv6(VIP_V6, 135)),
        ("neighbour advertisement in a VLAN", tagged(&icmpv6(VIP_V6, 136), 0x8100)),
        ("redirect", icmpv6(VIP_V6, 137)),
    ];
    for headroom in [0, 20, 40] {
        let program = Program::with_vips(headroom);
        for (what, frame) in &taken {
            let outcome = program.run(frame);
            assert_eq!(
                (outcome.verdict, outcome.counted),
                (DROP, vec![DroppedNoSocket]),
                "{what}, headroom {headroom}"
            );
        }
        for (what, frame) in &left {
            let outcome = program.run(frame);
            assert_eq!(
                (outcome.verdict, outcome.counted),
                (PASS, vec![Passed]),
                "{what}, headroom {headroom}"
            );
            assert_eq!(&outcome.frame, frame, "{what} is not to be changed");
        }
    }
}

#[test]
fn headroom_is_made_and_marked() {
    if !root("headroom_is_made_and_marked") {
        return;
    }
    let frames = [tcp_v4(VIP_V4), udp_v6(VIP_V6), tagged(&tcp_v4(VIP_V4), 0x8100)];
    for frame in &frames {
        assert_eq!(&Program::with_vips(0).run(frame).frame, frame, "without headroom nothing is written");
        assert_eq!(steering::headroom(frame), 0);
        for headroom in [20, 40] {
            let marked = Program::with_vips(headroom).run(frame).frame;
            assert_eq!(steering::headroom(&marked), headroom as usize);
            assert_eq!(&marked[headroom as usize..], frame);
        }
    }
}

#[test]
fn frames_that_end_early_are_left_to_the_kernel() {
    if !root("frames_that_end_early_are_left_to_the_kernel") {
        return;
    }
    let program = Program::with_vips(20);
    let cases = [
        ("IPv4", tcp_v4(VIP_V4), 34),
        ("IPv6", udp_v6(VIP_V6), 54),
        ("IPv4 in a VLAN", tagged(&tcp_v4(VIP_V4), 0x8100), 38),
        ("IPv4 in two VLANs", tagged(&tagged(&tcp_v4(VIP_V4), 0x8100), 0x88a8), 42),
        ("ICMPv6 echo request", icmpv6(VIP_V6, 128), 55),
    ];
    for (what, frame, headers) in cases {
        for length in 0..=frame.len().min(60) {
            let cut = &frame[..length];
            let outcome = program.run_laid_out(cut, 0, length);
            // The kernel itself gives no driver's frame below an Ethernet header to a program.
            let Ok(outcome) = outcome else {
                assert!(length < 14, "{what} of {length} bytes was refused");
                continue;
            };
            let expected =
                if length < headers { (PASS, vec![Passed]) } else { (DROP, vec![DroppedNoSocket]) };
            assert_eq!((outcome.verdict, outcome.counted), expected, "{what} of {length} bytes");
        }
    }
}

#[test]
fn a_group_address_as_source_is_dropped_only_on_the_way_to_us() {
    if !root("a_group_address_as_source_is_dropped_only_on_the_way_to_us") {
        return;
    }
    let program = Program::with_vips(20);
    for source in [[0xff; 6], [0xff, 0x53, 20, 0, 0, 1], [0x01, 0, 0x5e, 0, 0, 1], [0x03, 0, 0, 0, 0, 1]] {
        let mut to_us = tagged(&tcp_v4(VIP_V4), 0x8100);
        to_us[6..12].copy_from_slice(&source);
        let outcome = program.run(&to_us);
        assert_eq!((outcome.verdict, outcome.counted), (DROP, vec![DroppedBadSourceMac]), "{source:x?}");

        let mut to_others = tcp_v4(OTHER_V4);
        to_others[6..12].copy_from_slice(&source);
        let outcome = program.run(&to_others);
        assert_eq!((outcome.verdict, outcome.counted), (PASS, vec![Passed]), "{source:x?}");
    }
}

#[test]
fn a_frame_without_room_in_front_is_dropped() {
    if !root("a_frame_without_room_in_front_is_dropped") {
        return;
    }
    // A driver's metadata takes up the room in front of the frame.
    let (frame, metadata) = (tcp_v4(VIP_V4), 200);
    let full = Program::with_vips(40).run_laid_out(&frame, metadata, frame.len()).unwrap();
    assert_eq!((full.verdict, full.counted), (DROP, vec![DroppedNoHeadroom]));
    let unneeded = Program::with_vips(0).run_laid_out(&frame, metadata, frame.len()).unwrap();
    assert_eq!((unneeded.verdict, unneeded.counted), (DROP, vec![DroppedNoSocket]));
}

#[test]
fn headers_outside_the_first_buffer_are_found() {
    if !root("headers_outside_the_first_buffer_are_found") {
        return;
    }
    let program = Program::with_vips(20);
    let tags_and_v6 = tagged(&tagged(&udp_v6(VIP_V6), 0x8100), 0x88a8);
    let ours = [tcp_v4(VIP_V4), udp_v6(VIP_V6), tags_and_v6, icmpv6(VIP_V6, 128)];
    let others = [tcp_v4(OTHER_V4), arp(), icmpv6(VIP_V6, 135)];
    if program.run_laid_out(&ours[0], 0, 0).is_err() {
        // Unlike eprintln!, this is not captured by the test harness.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: this kernel does not scatter test frames (Linux 6.18 does)"
        );
        return;
    }
    for linear in [0, 14, 20, 33, 34, 40] {
        for frame in &ours {
            let outcome = program.run_laid_out(frame, 0, linear).unwrap();
            assert_eq!(
                (outcome.verdict, outcome.counted),
                (DROP, vec![DroppedNoSocket]),
                "{linear} bytes in front"
            );
            assert_eq!(steering::headroom(&outcome.frame), 20);
            assert_eq!(&outcome.frame[20..], frame);
        }
        for frame in &others {
            let outcome = program.run_laid_out(frame, 0, linear).unwrap();
            assert_eq!((outcome.verdict, outcome.counted), (PASS, vec![Passed]), "{linear} bytes in front");
        }
    }
}

#[test]
fn a_queue_with_a_socket_gets_its_packets() {
    if !root("a_queue_with_a_socket_gets_its_packets") {
        return;
    }
    let program = Program::with_vips(20);
    let socket = rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None).unwrap();
    let queue = 0_u32.to_ne_bytes();
    program.map("xsks").update(&queue, &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY).unwrap();
    let outcome = program.run(&tcp_v4(VIP_V4));
    assert_eq!((outcome.verdict, outcome.counted), (REDIRECT, vec![Redirected]));

    drop(socket);
    let outcome = program.run(&tcp_v4(VIP_V4));
    assert_eq!(
        (outcome.verdict, outcome.counted),
        (DROP, vec![DroppedNoSocket]),
        "after the socket is closed"
    );
}

#[test]
fn the_program_stays_small() {
    if !root("the_program_stays_small") {
        return;
    }
    let program = Program::with_vips(20);
    let steer = program.0.progs().next().unwrap();
    eprintln!("steer.bpf.c: {} instructions", steer.insn_cnt());
    assert!(steer.insn_cnt() <= 420, "{} instructions", steer.insn_cnt());
}

/// A frame that a switch floods, or that comes up because somebody sniffs, belongs to another box.
#[test]
fn frames_for_another_station_are_left_to_the_kernel() {
    if !root("frames_for_another_station_are_left_to_the_kernel") {
        return;
    }
    let program = Program::with_vips(20);
    let vlan_device = [2, 0, 0, 0, 0, 0x77];
    let mut stations = [0; 64];
    stations[..6].copy_from_slice(&BOX_MAC);
    stations[8..14].copy_from_slice(&vlan_device);
    program.map("stations").update(&[0; 4], &stations, MapFlags::ANY).unwrap();
    let to = |mac: [u8; 6], frame: &[u8]| [&mac[..], &frame[6..]].concat();
    for frame in [tcp_v4(VIP_V4), udp_v6(VIP_V6), tagged(&tcp_v4(VIP_V4), 0x8100)] {
        for own in [BOX_MAC, vlan_device] {
            let outcome = program.run(&to(own, &frame));
            assert_eq!((outcome.verdict, outcome.counted), (DROP, vec![DroppedNoSocket]), "{own:?}");
        }
        for other in [CLIENT_MAC, [0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [0; 6]] {
            let outcome = program.run(&to(other, &frame));
            assert_eq!((outcome.verdict, outcome.counted), (PASS, vec![Passed]), "{other:?}");
        }
    }
}
