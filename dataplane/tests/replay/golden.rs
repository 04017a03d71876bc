//! One packet of each kind: what leaves, and what the report says.

use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use serde_json::Value;
use shunt_api::counters::Counter;
use shunt_dataplane::replay::account::{Account, Verdict};
use shunt_dataplane::replay::capture::Precision;
use shunt_dataplane::replay::{Replay, Settings};

use super::command::Run;
use super::files::{Order, Packet, packets, pcap, pcapng, read};
use super::frames::*;

/// What became of a frame, and what left.
pub fn play(replay: &mut Replay, time: Duration, frame: &[u8]) -> (Account, Vec<Vec<u8>>) {
    let mut sent = Vec::new();
    let account = replay.play(time, frame, |bytes| sent.push(bytes.to_vec()));
    (account, sent)
}

/// Frames of every kind. The reply to the translated one needs the source that was taken.
pub fn every_kind() -> Vec<Vec<u8>> {
    let query = udp((CLIENT, 40_000), (VIP, 53));
    let mut replay = Replay::new(&snapshot(), &Settings::default()).unwrap();
    let (_, sent) = play(&mut replay, Duration::ZERO, &query);
    let source = u16::from_be_bytes([sent[0][34], sent[0][35]]);
    let mut bad_checksum = tcp(40_000, VIP, 80, ACK);
    bad_checksum[24] ^= 1;
    let mut from_a_group = tcp(40_000, VIP, 80, ACK);
    from_a_group[6] |= 1;
    let mut denied = udp((CLIENT, 40_000), (VIP, 53));
    denied[24..30].copy_from_slice(&[0xb9, 0xc5, 198, 51, 101, 7]);
    let checksum =
        etherparse::Ipv4HeaderSlice::from_slice(&denied[14..]).unwrap().to_header().calc_header_checksum();
    denied[24..26].copy_from_slice(&checksum.to_be_bytes());
    vec![
        tcp(40_000, VIP, 80, SYN),
        tcp(40_000, VIP, 81, SYN),
        query,
        udp(([10, 0, 0, 3], 5353), ([10, 0, 0, 250], source)),
        tcp(40_000, VIP, 9, SYN),
        udp((CLIENT, 40_000), (VIP, 9)),
        echo(),
        tcp(40_000, [203, 0, 113, 11], 80, SYN),
        arp(),
        bad_checksum,
        tcp(40_000, VIP, 80, ACK)[..50].to_vec(),
        from_a_group,
        denied,
        tcp(40_001, VIP, 80, ACK),
    ]
}

/// Number, flow, verdict, service, backend, mode, reason and packets out, as the report has them.
const LINES: [&str; 14] = [
    "1 | tcp 198.51.100.7:40000 -> 203.0.113.10:80 | forward | web | 10.0.0.1 | dr | - | [1]",
    "2 | tcp 198.51.100.7:40000 -> 203.0.113.10:81 | forward | far | 10.0.0.2 | ipip | - | [2]",
    "3 | udp 198.51.100.7:40000 -> 203.0.113.10:53 | translate | dns | 10.0.0.3 | nat | - | [3]",
    "4 | udp 10.0.0.3:5353 -> 10.0.0.250:* | return | dns | 10.0.0.3 | nat | - | [4]",
    "5 | tcp 198.51.100.7:40000 -> 203.0.113.10:9 | reply | - | - | - | reset | [5]",
    "6 | udp 198.51.100.7:40000 -> 203.0.113.10:9 | reply | - | - | - | unreachable | [6]",
    "7 | icmp echo 198.51.100.7 -> 203.0.113.10 | reply | - | - | - | echo | [7]",
    "8 | tcp 198.51.100.7:40000 -> 203.0.113.11:80 | pass | - | - | - | not_our_address | []",
    "9 | - | pass | - | - | - | not_ip | []",
    "10 | - | drop | - | - | - | bad_ip_checksum | []",
    "11 | - | drop | - | - | - | truncated | []",
    "12 | tcp 198.51.100.7:40000 -> 203.0.113.10:80 | drop | - | - | - | bad_source_mac | []",
    "13 | udp 198.51.101.7:40000 -> 203.0.113.10:53 | drop | dns | - | - | source_denied | []",
    "14 | tcp 198.51.100.7:40001 -> 203.0.113.10:80 | forward | web | 10.0.0.1 | dr | - | [8]",
];

fn in_short(line: &Value) -> String {
    let fields = ["number", "flow", "verdict", "service", "backend", "mode", "reason", "out"];
    let text = |name: &str| match &line[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let short = fields.map(text).join(" | ");
    // The port of a translated flow depends on the processor, by which hashes are computed.
    match short.split_once("10.0.0.250:") {
        Some((before, after)) => {
            format!("{before}10.0.0.250:*{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => short,
    }
}

fn whole(frames: &[Vec<u8>]) -> Vec<Packet> {
    packets(frames)
}

#[test]
fn every_kind_of_packet_is_accounted_for_in_either_format() {
    let packets = whole(&every_kind());
    let old = Run::new("golden_pcap", &pcap(&packets, Precision::Micro)).succeed();
    let new = Run::new("golden_pcapng", &pcapng(Order::Big, &packets, Precision::Micro)).succeed();
    assert_eq!((&old.out, &old.report), (&new.out, &new.report));

    let report: Value = serde_json::from_slice(&old.report).unwrap();
    let lines: Vec<String> = report["packets"].as_array().unwrap().iter().map(in_short).collect();
    assert_eq!(lines, LINES);
    assert_eq!(report["packets"][2]["time"], "1700000000.002002000");
    let (counters, drops) = (&report["counters"], &report["drops"]);
    assert_eq!((&counters["rx_packets"], &counters["tx_packets"]), (&11.into(), &8.into()));
    assert_eq!((&drops["bad_source_mac"], &drops["source_denied"]), (&1.into(), &1.into()));
    assert_eq!(old.report.iter().filter(|byte| **byte == b'\n').count(), 14 + 4, "a line for each packet");

    let (sent, capture) = read(&old.out).unwrap();
    assert_eq!(capture.precision(), Precision::Micro);
    let times: Vec<_> = sent.iter().map(|(time, ..)| *time).collect();
    assert_eq!(times, [0, 1, 2, 3, 4, 5, 6, 13].map(|cause: usize| packets[cause].0), "of what caused it");
    assert_sent(&sent, &packets);
}

/// What leaves is what the report says.
fn assert_sent(sent: &[Packet], came: &[Packet]) {
    let direct = &sent[0].1;
    assert_eq!((&direct[..6], &direct[6..12]), (&[2, 0, 0, 0, 0, 1][..], &BOX_MAC[..]));
    assert_eq!(direct[14..], came[0].1[14..]);

    let tunnel = &sent[1].1;
    assert_eq!((&tunnel[26..30], &tunnel[30..34]), (&[192, 0, 2, 254][..], &[10, 0, 0, 2][..]));
    assert_eq!(tunnel[34..], came[1].1[14..]);

    assert_eq!(ends(&sent[2].1).1, ([10, 0, 0, 3], 5353));
    assert_eq!(ends(&sent[3].1), ((VIP, 53), (CLIENT, 40_000)));
    assert_eq!(sent[3].1[..6], CLIENT_MAC, "back the way it came");

    let reset = SlicedPacket::from_ethernet(&sent[4].1).unwrap();
    assert!(matches!(reset.transport, Some(TransportSlice::Tcp(tcp)) if tcp.rst()));
    for (answer, kind) in [(5, 3), (6, 0)] {
        let answer = SlicedPacket::from_ethernet(&sent[answer].1).unwrap();
        assert!(matches!(answer.transport, Some(TransportSlice::Icmpv4(icmp)) if icmp.type_u8() == kind));
    }
}

type End = ([u8; 4], u16);

fn ends(frame: &[u8]) -> (End, End) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport) else {
        panic!("no UDP: {frame:x?}")
    };
    let header = ip.header();
    ((header.source(), udp.source_port()), (header.destination(), udp.destination_port()))
}

#[test]
fn the_library_says_the_same() {
    let mut replay = Replay::new(&snapshot(), &Settings::default()).unwrap();
    let mut verdicts = Vec::new();
    for (time, frame, _) in whole(&every_kind()) {
        let (account, sent) = play(&mut replay, time, &frame);
        assert_eq!(account.sent as usize, sent.len());
        verdicts.push(account.verdict.name());
    }
    assert!(LINES.iter().zip(&verdicts).all(|(line, verdict)| line.contains(verdict)), "{verdicts:?}");
    assert_eq!(verdicts.iter().filter(|name| **name == Verdict::Reply.name()).count(), 3);
    assert_eq!(replay.counters().counter(Counter::TxPackets), 8);
}
