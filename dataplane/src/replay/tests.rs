//! What happens between packets: time, path MTUs, and what a worker never sees.

use etherparse::{IpNumber, PacketBuilder};
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::Mode::{Dr, Ipip};

use super::*;
use crate::conntrack::kept_s;
use crate::packet::transport::{ACK, SYN};
use crate::testing::{snapshot, tcp};

const VIP: &str = "203.0.113.10";
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];

fn from_client(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&CLIENT_MAC);
    frame
}

fn packet(flags: u8) -> Vec<u8> {
    from_client(tcp("192.0.2.1", 40_000, VIP, 80, flags))
}

/// A UDP packet with so many bytes of payload and, if `fixed`, the flag that forbids fragments.
fn large(payload: usize, fixed: bool) -> Vec<u8> {
    let mut ip =
        etherparse::Ipv4Header::new(0, 64, IpNumber::UDP, [192, 0, 2, 1], [203, 0, 113, 10]).unwrap();
    ip.dont_fragment = fixed;
    let builder =
        PacketBuilder::ethernet2(CLIENT_MAC, [2; 6]).ip(etherparse::IpHeaders::Ipv4(ip, Default::default()));
    let mut frame = Vec::new();
    builder.udp(40_000, 80).write(&mut frame, &vec![7; payload]).unwrap();
    frame
}

fn replay(mode: shunt_api::snapshot::Mode, change: impl FnOnce(&mut Snapshot)) -> Replay {
    let services = [(VIP, "tcp/80", 0), (VIP, "udp/80", 0)];
    let mut snapshot = snapshot(&[&[("10.0.0.1", 1, mode)]], &services);
    change(&mut snapshot);
    Replay::new(&snapshot, &Settings::default()).unwrap()
}

/// Verdict, reason and the frames that left.
fn play(
    replay: &mut Replay,
    seconds: u64,
    frame: &[u8],
) -> (&'static str, Option<&'static str>, Vec<Vec<u8>>) {
    let mut sent = Vec::new();
    let account = replay.play(Duration::from_secs(seconds), frame, |bytes| sent.push(bytes.to_vec()));
    assert_eq!(account.sent as usize, sent.len());
    (account.verdict.name(), account.reason, sent)
}

#[test]
fn idle_times_are_the_captures() {
    let mut replay = replay(Dr, |_| ());
    let rehashed = |replay: &Replay| replay.counters().counter(Counter::FlowsRehashed);
    for flags in [SYN, ACK, ACK] {
        play(&mut replay, 1000, &packet(flags));
    }
    play(&mut replay, 900, &packet(ACK));
    assert_eq!(rehashed(&replay), 0, "time does not go back");
    play(&mut replay, 1000 + 899, &packet(ACK));
    assert_eq!(rehashed(&replay), 0);
    play(&mut replay, 1000 + 899 + u64::from(kept_s(900)), &packet(ACK));
    assert_eq!(rehashed(&replay), 1);
}

#[test]
fn a_flow_is_not_young_again_after_twelve_days() {
    const TWELVE_DAYS_S: u64 = 1 << 20;
    let mut replay = replay(Dr, |_| ());
    for flags in [SYN, ACK] {
        play(&mut replay, 0, &packet(flags));
    }
    play(&mut replay, TWELVE_DAYS_S + 1, &packet(ACK));
    let counted = replay.counters();
    assert_eq!((counted.counter(Counter::FlowHits), counted.counter(Counter::FlowsCreated)), (1, 2));
    play(&mut replay, u64::MAX, &packet(ACK));
}

#[test]
fn a_path_mtu_is_heeded_for_ten_minutes() {
    let mut replay = replay(Ipip, |snapshot| snapshot.tunnel.source_v4 = "10.200.0.0/16".parse().ok());
    let (_, _, sent) = play(&mut replay, 0, &large(1400, true));
    let outer = &sent[0][14..];
    let mut complaint = Vec::new();
    let source = [outer[12], outer[13], outer[14], outer[15]];
    PacketBuilder::ethernet2(CLIENT_MAC, [2; 6])
        .ipv4([10, 9, 9, 9], source, 64)
        .icmpv4_raw(3, 4, [0, 0, 5, 0x14])
        .write(&mut complaint, &outer[..28])
        .unwrap();
    assert_eq!(play(&mut replay, 1, &complaint), ("drop", Some("tunnel_error"), vec![]));
    let (verdict, reason, answer) = play(&mut replay, 2, &large(1400, true));
    assert_eq!((verdict, reason), ("reply", Some("too_big")));
    let message = &answer[0][34..];
    assert_eq!((message[0], message[1], &message[6..8]), (3, 4, &1280_u16.to_be_bytes()[..]), "1300 less 20");
    assert_eq!(play(&mut replay, 601, &large(1400, true)).0, "forward");
}

#[test]
fn a_packet_may_leave_in_two() {
    let mut replay = replay(Ipip, |snapshot| snapshot.tunnel.fragment = true);
    let (verdict, reason, sent) = play(&mut replay, 0, &large(1472, false));
    assert_eq!((verdict, reason, sent.len()), ("forward", None, 2));
}

#[test]
fn what_no_socket_takes_is_oversized() {
    let mut replay = replay(Dr, |_| ());
    for payload in [40_000, 65_000] {
        assert_eq!(play(&mut replay, 0, &large(payload, true)), ("drop", Some(OVERSIZED), vec![]));
    }
    let jumbo = large(9000, true);
    assert_eq!(play(&mut replay, 0, &jumbo).1, Some("too_big"));
    assert_eq!(play(&mut replay, 0, &vec![0; 300_000]).0, "pass");
    let huge = [&jumbo[..], &[0; 300_000]].concat();
    assert_eq!(play(&mut replay, 0, &huge).1, Some(OVERSIZED));
    assert_eq!(play(&mut replay, 0, &packet(SYN)).0, "forward", "nothing of it is left over");
}

#[test]
fn a_neighbour_that_is_no_backend_is_refused() {
    let snapshot = snapshot(&[&[("10.0.0.1", 1, Dr)]], &[(VIP, "tcp/80", 0)]);
    let neighbor =
        |backend: &str| Neighbor { backend: backend.parse().unwrap(), mac: MacAddress([2; 6]), vlan: None };
    for (backend, is_known) in [("10.0.0.1", true), ("10.0.0.2", false)] {
        let neighbors = &[neighbor(backend)];
        let made = Replay::new(&snapshot, &Settings { neighbors, mtu: 1500 });
        assert_eq!(made.is_ok(), is_known, "{backend}");
    }
}
