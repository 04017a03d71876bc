//! Reading and writing captures: forms, byte orders, units of time, and what is no capture.

use std::io::Read;
use std::time::Duration;

use proptest::prelude::*;
use shunt_dataplane::replay::capture::{CaptureError, Precision};

use super::files::*;

const MICRO: u32 = 0xa1b2_c3d4;
const NANO: u32 = 0xa1b2_3c4d;

fn three() -> Vec<Packet> {
    let mut three = packets(&[vec![1; 60], vec![2; 61], vec![3; 1514]]);
    three[1].0 += Duration::from_nanos(7);
    three[2].2 = 9000;
    three
}

/// As a format without nanoseconds has it.
fn in_micros(packets: Vec<Packet>) -> Vec<Packet> {
    let round = |time: Duration| Duration::from_micros(time.as_micros() as u64);
    packets.into_iter().map(|(time, frame, length)| (round(time), frame, length)).collect()
}

#[test]
fn both_formats_are_read_in_both_byte_orders_and_both_units() {
    for order in [Order::Little, Order::Big] {
        for (magic, precision) in [(MICRO, Precision::Micro), (NANO, Precision::Nano)] {
            let expected = if magic == MICRO { in_micros(three()) } else { three() };
            let old = raw_pcap(order, magic, 1, &three());
            let new = pcapng(order, &three(), precision);
            for bytes in [old, new] {
                let (packets, capture) = read(&bytes).unwrap();
                assert_eq!(packets, expected, "{order:?}, {precision:?}");
                assert_eq!((capture.precision(), capture.is_cut_short()), (precision, false));
            }
        }
    }
}

#[test]
fn what_the_writer_writes_is_by_the_letter_and_read_back() {
    let whole: Vec<Packet> =
        three().into_iter().map(|(at, frame, _)| (at, frame.clone(), frame.len() as u32)).collect();
    for (magic, precision) in [(MICRO, Precision::Micro), (NANO, Precision::Nano)] {
        let written = pcap(&whole, precision);
        let mut expected = raw_pcap(Order::Little, magic, 1, &whole);
        expected[16..20].copy_from_slice(&262_144_u32.to_le_bytes());
        assert_eq!(written, expected);
        assert_eq!(read(&written).unwrap().0.len(), 3);
    }
}

/// Gives one byte at a time.
struct Dribble(std::io::Cursor<Vec<u8>>);

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}

#[test]
fn a_slow_pipe_is_read_to_its_end() {
    for bytes in [pcap(&three(), Precision::Nano), pcapng(Order::Big, &three(), Precision::Nano)] {
        let (packets, _) = read_from(Dribble(std::io::Cursor::new(bytes))).unwrap();
        assert_eq!(packets.len(), 3);
    }
}

#[test]
fn sections_interfaces_and_times_of_their_own_are_told_apart() {
    for order in [Order::Little, Order::Big] {
        let other = if order == Order::Big { Order::Little } else { Order::Big };
        let shift = offset(order, -10);
        let file = [
            section(order),
            interface(order, 1, &[(9, &[0])]),
            interface(order, 1, &[(9, &[0x80 | 10]), (14, &shift)]),
            interface(order, 113, &[]),
            block(order, 5, &[0; 12]), // statistics
            enhanced(order, 0, 100, &[1; 20], 20),
            enhanced(order, 1, 200 << 10 | 512, &[2; 20], 20),
            block(order, 3, &[&order.u32(4)[..], &[3; 4]].concat()), // a simple packet
            section(other),
            interface(other, 1, &[]),
            enhanced(other, 0, 7_000_000, &[4; 20], 20),
        ];
        let (packets, capture) = read(&file.concat()).unwrap();
        let seen: Vec<_> =
            packets.iter().map(|(time, frame, _)| (time.as_millis(), frame[0], frame.len())).collect();
        assert_eq!(seen, [(100_000, 1, 20), (190_500, 2, 20), (190_500, 3, 4), (7000, 4, 20)], "{order:?}");
        assert_eq!(capture.precision(), Precision::Micro);
    }
}

#[test]
fn a_packet_without_an_ethernet_header_is_refused_with_the_remedy() {
    let little = Order::Little;
    let cooked = raw_pcap(little, MICRO, 276, &three());
    let mixed = [
        section(little),
        interface(little, 1, &[]),
        interface(little, 113, &[]),
        enhanced(little, 1, 0, &[0; 20], 20),
    ];
    for (file, link_type) in [(cooked, 276), (mixed.concat(), 113)] {
        let Err(error) = read(&file) else { panic!("read") };
        assert!(matches!(error, CaptureError::LinkType(found) if found == link_type), "{error}");
        assert!(error.to_string().contains("tcpdump -i eth1"), "{error}");
    }
    let with_check_sequences = raw_pcap(little, MICRO, 0x5400_0001, &three());
    assert_eq!(read(&with_check_sequences).unwrap().0.len(), 3);
}

#[test]
fn what_is_no_capture_is_refused() {
    let little = Order::Little;
    let no_interface = [section(little), enhanced(little, 0, 0, &[0; 20], 20)].concat();
    for bytes in [
        &b""[..],
        b"PK\x03\x04",
        b"[[service]]",
        &[0; 100],
        &pcap(&[], Precision::Micro)[..23],
        &no_interface,
    ] {
        assert!(matches!(read(bytes), Err(CaptureError::NotACapture)), "{bytes:?}");
    }
    let early = [section(little), interface(little, 1, &[]), block(little, 2, &[0; 40])].concat();
    assert!(matches!(read(&early), Err(CaptureError::Obsolete)));
    assert_eq!(read(&pcap(&[], Precision::Nano)).unwrap().0, [], "a capture without packets is one");
}

#[test]
fn what_comes_before_the_end_of_a_file_that_was_cut_is_read() {
    for bytes in [pcap(&three(), Precision::Nano), pcapng(Order::Little, &three(), Precision::Nano)] {
        for cut in (1..1500).step_by(13) {
            let (packets, capture) = read(&bytes[..bytes.len() - cut]).unwrap();
            assert_eq!((packets.len(), capture.is_cut_short()), (2, true), "{cut}");
        }
    }
}

#[test]
fn large_blocks_are_read_and_larger_ones_are_damage() {
    let little = Order::Little;
    let file = |bytes: usize| {
        let large = block(little, 10, &vec![0; bytes]);
        [section(little), interface(little, 1, &[]), large, enhanced(little, 0, 0, &[0; 20], 20)].concat()
    };
    assert_eq!(read(&file(9 << 20)).unwrap().0.len(), 1);
    assert!(matches!(read(&file(17 << 20)), Err(CaptureError::Damaged(_))));
    let mut absurd = pcap(&three(), Precision::Nano);
    absurd[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&absurd), Err(CaptureError::Damaged(24))));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_damage_makes_it_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        big: bool, new: bool,
    ) {
        let order = if big { Order::Big } else { Order::Little };
        let small = packets(&[vec![1; 60], vec![2; 61]]);
        let mut file = if new { pcapng(order, &small, Precision::Nano) } else { raw_pcap(order, NANO, 1, &small) };
        for (at, value) in damage {
            let at = at.index(file.len());
            file[at] = value;
        }
        let _ = read(&file);
    }
}
