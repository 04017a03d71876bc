//! The steering of offline replay, which is written in Rust, does with every frame what the program does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use libbpf_rs::{MapCore, MapFlags};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use shunt_dataplane::replay::steering::{Steered, Steering};

use super::root;
use super::tunnel_errors::{SOURCE_V4, SOURCE_V6, error_v4, error_v6};
use super::verdict::{DROP, DroppedBadSourceMac, DroppedNoSocket, PASS, Passed, Program, VIP_V4, VIP_V6};
use super::verdict::{icmpv6, tagged, tcp_v4};

/// Frames that each take another way through the program.
fn frames() -> Vec<Vec<u8>> {
    let mut group = tcp_v4(VIP_V4);
    group[6] |= 1;
    let mut arp = tcp_v4(VIP_V4);
    arp[13] = 6;
    vec![
        tcp_v4(VIP_V4),
        tcp_v4([192, 0, 2, 1]),
        tagged(&tcp_v4(VIP_V4), 0x8100),
        tagged(&tagged(&icmpv6(VIP_V6, 128), 0x88a8), 0x8100),
        icmpv6(VIP_V6, 135),
        error_v4(SOURCE_V4, (3, 4), 4),
        tagged(&error_v4(SOURCE_V4, (11, 0), 41), 0x8100),
        error_v6(SOURCE_V6, 2, 41),
        error_v6(VIP_V6, 1, 4),
        group,
        arp,
    ]
}

/// The program with VIPs owned and tunnel sources known, and its twin.
fn both(headroom: u32) -> (Program, Steering) {
    let program = Program::with_vips(headroom);
    let sources = ["10.200.0.0/16", "fd00:200::/64"];
    for source in sources {
        let (bits, address) = match source.parse().unwrap() {
            ipnet::IpNet::V4(net) => (96 + u32::from(net.prefix_len()), net.addr().to_ipv6_mapped()),
            ipnet::IpNet::V6(net) => (u32::from(net.prefix_len()), net.addr()),
        };
        let key = [&bits.to_ne_bytes()[..], &address.octets()].concat();
        program.map("tunnel_sources").update(&key, &1_u32.to_ne_bytes(), MapFlags::ANY).unwrap();
    }
    let owned = [IpAddr::from(VIP_V4), IpAddr::from(VIP_V6)].map(|address| (address, headroom));
    let steering = Steering::new(&BTreeMap::from(owned), sources.map(|source| source.parse().unwrap()));
    (program, steering)
}

fn assert_alike(program: &Program, steering: &Steering, frame: &[u8]) {
    let outcome = program.run(frame);
    let expected = match steering.steer(frame) {
        Steered::Passed(_) => (PASS, vec![Passed]),
        Steered::BadSourceMac => (DROP, vec![DroppedBadSourceMac]),
        // Nobody has a socket here.
        Steered::Taken { .. } => (DROP, vec![DroppedNoSocket]),
    };
    assert_eq!((outcome.verdict, outcome.counted), expected, "{frame:02x?}");
    if let Steered::Taken { headroom } = steering.steer(frame) {
        assert_eq!(outcome.frame.len(), frame.len() + usize::from(headroom));
    }
}

#[test]
fn replay_steers_as_the_program_does() {
    if !root("replay_steers_as_the_program_does") {
        return;
    }
    for headroom in [0, 40] {
        let (program, steering) = both(headroom);
        frames().iter().for_each(|frame| assert_alike(&program, &steering, frame));
    }
    let (program, steering) = both(20);
    let damage = proptest::collection::vec((0_usize..96, any::<u8>()), 0..4);
    // The kernel gives no frame below an Ethernet header to a program.
    let frame =
        (prop::sample::select(frames()), damage, 14_usize..120).prop_map(|(mut frame, damage, length)| {
            damage.into_iter().for_each(|(at, value)| {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            });
            frame.truncate(length);
            frame
        });
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() });
    let alike = |frame: Vec<u8>| {
        assert_alike(&program, &steering, &frame);
        Ok(())
    };
    runner.run(&frame, alike).unwrap();
}
