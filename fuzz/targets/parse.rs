//! `packet::parse` on any bytes, of which all or only the first are at hand.
//!
//! Input: flags (1: mend checksums; 2: only `cut` bytes are at hand; 4: `more` bytes follow that are not), cut and
//! more as two bytes each, then the frame.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shunt_dataplane::packet::{self, Content, Packet, steering};
use shunt_fuzz::bytes::Bytes;
use shunt_fuzz::inet;

const MEND: u8 = 1;
const CUT: u8 = 2;
const MORE: u8 = 4;

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes::new(input);
    let (flags, cut, more) = (bytes.byte(), usize::from(bytes.number()), usize::from(bytes.number()));
    let mut frame = bytes.rest().to_vec();
    if flags & MEND != 0 {
        inet::mend(&mut frame);
    }
    assert!(steering::headroom(&frame) <= frame.len());
    let head = if flags & CUT != 0 { &frame[..cut.min(frame.len())] } else { &frame };
    let length = frame.len() + if flags & MORE != 0 { more } else { 0 };
    let Ok(packet) = packet::parse(head, length) else { return };
    lies_within(&packet, head, length);
    assert_eq!(packet::parse(&frame, length), Ok(packet), "more of the frame says the same");
    let end = end(&packet);
    let trimmed = &head[..head.len().min(end)];
    assert_eq!(packet::parse(trimmed, end), Ok(packet), "what follows the IP packet says nothing");
});

fn end(packet: &Packet) -> usize {
    usize::from(packet.ip_offset) + usize::from(packet.ip_length)
}

/// Offsets are within the frame, and headers within what is at hand.
fn lies_within(packet: &Packet, head: &[u8], length: usize) {
    let payload = usize::from(packet.ip_offset) + usize::from(packet.header_length);
    let transport = match packet.content {
        Content::Whole | Content::FirstFragment { .. } if packet.tcp_flags != 0 => 20,
        Content::LaterFragment { .. } => 0,
        _ => 8,
    };
    assert!(end(packet) <= length, "{packet:?} in {length} bytes");
    assert!(payload + transport <= end(packet), "{packet:?}");
    assert!(payload + transport <= head.len(), "{packet:?} in {} bytes at hand", head.len());
    assert!([14, 18, 22].contains(&packet.ip_offset), "{packet:?}");
}
