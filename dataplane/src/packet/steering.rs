//! The mark that the XDP program (`bpf/steer.bpf.c`) writes in front of a frame it made headroom for.
//!
//! A marked frame begins with the headroom, whose bytes 6 and 7 stand where an Ethernet source address
//! would and have the group bit set, which IEEE 802.3 forbids there; the program drops frames that come
//! from the wire like that. So the reading is unambiguous, whatever the address map said when it was made.

const MARK: [u8; 2] = [0xff, 0x53];
const MARK_OFFSET: usize = 6;
const HEADROOM_OFFSET: usize = 8;

/// Least headroom that has room for the mark, in bytes, and keeps the IP header on four.
pub const MIN_HEADROOM: u32 = 20;

/// Bytes in front of the Ethernet header: 0 for a frame as it came from the wire.
pub fn headroom(frame: &[u8]) -> usize {
    match frame.get(MARK_OFFSET..=HEADROOM_OFFSET) {
        Some(&[high, low, headroom]) if [high, low] == MARK => usize::from(headroom).min(frame.len()),
        _ => 0,
    }
}

/// What the program puts in front: for tests, benches and replay.
pub fn lead(headroom: u8) -> Vec<u8> {
    let mut lead = vec![0; usize::from(headroom)];
    if let Some(mark) = lead.get_mut(MARK_OFFSET..=HEADROOM_OFFSET) {
        mark.copy_from_slice(&[MARK[0], MARK[1], headroom]);
    }
    lead
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_says_how_long_it_is_and_a_frame_has_none() {
        for length in [20, 40] {
            assert_eq!(headroom(&[lead(length).as_slice(), &[2; 60]].concat()), usize::from(length));
        }
        assert_eq!(headroom(&[2; 60]), 0);
        assert_eq!(headroom(&lead(40)[..9]), 9, "never beyond the frame");
        assert_eq!(headroom(&[]), 0);
    }
}
