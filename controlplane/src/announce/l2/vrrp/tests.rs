//! Bytes of advertisements.

use proptest::prelude::*;

use super::*;

const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const SAID: Advertisement = Advertisement { group: 7, priority: 100, interval_cs: 20 };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The IP packet in a frame of ours.
fn packet(from: &str, listed: &str) -> Vec<u8> {
    let frame = SAID.frame(ip(from), ip(listed), OWN);
    Ethernet::parse(&frame).unwrap().payload.to_vec()
}

/// With one byte of the message replaced, and the checksum mended.
fn changed(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[20 + at] = value;
    packet[26..28].fill(0);
    let (from, to) = (frame::ipv4_at(&packet, 12).unwrap(), frame::ipv4_at(&packet, 16).unwrap());
    let pseudo = frame::pseudo_header(from.into(), to.into(), PROTOCOL, packet.len() - 20);
    let checksum = checksum(&[&pseudo, &packet[20..]]);
    packet[26..28].copy_from_slice(&checksum.to_be_bytes());
    packet
}

#[test]
fn an_advertisement_round_trips_over_both_families() {
    for (from, listed, mac) in
        [("192.0.2.1", "203.0.113.10", "01:00:5e:00:00:12"), ("fe80::1", "fe80::1", "33:33:00:00:00:12")]
    {
        let bytes = SAID.frame(ip(from), ip(listed), OWN);
        let ethernet = Ethernet::parse(&bytes).unwrap();
        assert_eq!((ethernet.destination.to_string().as_str(), ethernet.source), (mac, OWN));
        assert_eq!(Advertisement::parse(ethernet.payload), Ok((SAID, ip(from))));
        let padded = [ethernet.payload, &[0; 6]].concat();
        assert_eq!(Advertisement::parse(&padded), Ok((SAID, ip(from))));
    }
}

#[test]
fn the_bytes_are_those_of_the_rfc() {
    let packet = packet("192.0.2.1", "203.0.113.10");
    assert_eq!(packet[..10], [0x45, 0xc0, 0, 32, 0, 0, 0, 0, 255, 112]);
    assert_eq!(packet[20..26], [0x31, 7, 100, 1, 0, 20]);
    assert_eq!(packet[28..], [203, 0, 113, 10]);
    // c000 + 0201 + e000 + 0012 + 0070 + 000c + 3107 + 6401 + 0014 + cb00 + 710a, folded and inverted.
    assert_eq!(packet[26..28], 0x8c47u16.to_be_bytes());
}

#[test]
fn what_must_not_count_is_refused() {
    let good = packet("192.0.2.1", "203.0.113.10");
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        // The header's own checksum is mended.
        bytes[10..12].fill(0);
        let checksum = checksum(&[&bytes[..20]]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes
    };
    let check = |packet: &[u8], reason: Refused| assert_eq!(Advertisement::parse(packet), Err(reason));
    check(&[], Refused::NotVrrp);
    check(&good[..31], Refused::NotVrrp);
    check(&with(9, 17), Refused::NotVrrp);
    check(&with(6, 0x20), Refused::NotVrrp);
    check(&with(8, 254), Refused::HopLimit);
    check(&with(20, 0x21), Refused::Version);
    check(&with(23, 2), Refused::Length);
    check(&with(3, 27), Refused::Length);
    check(&with(22, 101), Refused::Checksum);
    check(&with(12, 193), Refused::Checksum);
    check(&changed(good.clone(), 5, 0), Refused::Interval);
    let mut header = good.clone();
    header[10] ^= 1;
    check(&header, Refused::NotVrrp);
}

#[test]
fn reserved_bits_are_ignored() {
    let packet = changed(packet("192.0.2.1", "203.0.113.10"), 4, 0xf0);
    assert_eq!(Advertisement::parse(&packet).map(|(said, _)| said), Ok(SAID));
    assert_eq!(centiseconds(SAID.interval_cs), Duration::from_millis(200));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), six in any::<bool>()) {
        if let Some(first) = bytes.first_mut() {
            *first = if six { 0x60 } else { 0x45 };
        }
        let _ = Advertisement::parse(&bytes);
    }
}
