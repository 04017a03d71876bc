//! A tunnel packet in two outer fragments, for clients that leave fragmenting to routers (no DF).

use crate::packet::{checksum, ipv4};

/// Bytes that every fragment but the last has a multiple of (RFC 791).
const UNIT: usize = 8;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Splits a frame, which begins with `link_length` bytes of Ethernet header and an outer IPv4 header, into two
/// fragments of packet `id`: it keeps the first, and `second` becomes the other. Returns the lengths of both
/// frames; `None`, with nothing changed, if two do not suffice or `second` is too small.
pub fn split_outer(
    frame: &mut [u8],
    link_length: usize,
    mtu: u32,
    id: u16,
    second: &mut [u8],
) -> Option<(usize, usize)> {
    let headers = link_length + ipv4::HEADER_LENGTH;
    let payload = frame.len().checked_sub(headers)?;
    let room = (mtu as usize).checked_sub(ipv4::HEADER_LENGTH)?;
    let first = room / UNIT * UNIT;
    let rest = payload.checked_sub(first).filter(|&rest| rest <= room)?;
    if first == 0 || headers + rest > second.len() {
        return None;
    }
    second[..headers].copy_from_slice(&frame[..headers]);
    second[headers..headers + rest].copy_from_slice(&frame[headers + first..]);
    mark(&mut frame[link_length..headers], first, id, MORE_FRAGMENTS);
    mark(&mut second[link_length..headers], rest, id, (first / UNIT) as u16);
    Some((headers + first, headers + rest))
}

/// Makes an outer header that of a fragment with so much payload.
fn mark(header: &mut [u8], payload: usize, id: u16, fragment: u16) {
    let length = (ipv4::HEADER_LENGTH + payload) as u16;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[10..12].fill(0);
    let sum = checksum::of(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with `payload` bytes in a tunnel.
    fn frame(payload: usize) -> Vec<u8> {
        let outer = ipv4::outer(7, payload as u16, 4, [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let payload = (0..payload).map(|i| i as u8);
        [9; 14].into_iter().chain(outer).chain(payload).collect()
    }

    #[test]
    fn both_fit_and_join_to_the_original() {
        for payload in [1481, 1500, 2952] {
            let original = frame(payload);
            let (mut first, mut second) = (original.clone(), vec![0; 2048]);
            let (one, other) = split_outer(&mut first, 14, 1500, 77, &mut second).unwrap();
            first.truncate(one);
            second.truncate(other);
            let mut joined = Vec::new();
            for (bytes, more) in [(&first, true), (&second, false)] {
                let header = ipv4::parse(&bytes[14..], bytes.len() - 14).unwrap();
                let fragment = header.fragment.unwrap();
                assert_eq!((fragment.id, fragment.more, header.dont_fragment), (77, more, false));
                assert_eq!(usize::from(fragment.offset), joined.len());
                assert_eq!(header.total_length, bytes.len() - 14);
                assert!(header.total_length <= 1500);
                joined.extend_from_slice(&bytes[34..]);
            }
            assert_eq!(joined, original[34..], "{payload}");
        }
    }

    #[test]
    fn what_would_need_three_stays_as_it_is() {
        let mut whole = frame(2961);
        assert_eq!(split_outer(&mut whole, 14, 1500, 77, &mut [0; 2048]), None);
        assert_eq!(split_outer(&mut whole, 14, 20, 77, &mut [0; 2048]), None);
        assert_eq!(whole, frame(2961));
        assert_eq!(split_outer(&mut frame(2000), 14, 1500, 77, &mut [0; 100]), None, "small buffer");
    }
}
