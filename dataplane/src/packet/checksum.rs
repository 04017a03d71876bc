//! The Internet checksum (RFC 1071).

/// One's-complement sum of big-endian 16-bit words, folded. An odd last byte counts as the high half.
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, odd) = bytes.as_chunks::<2>();
    let total: u32 = words.iter().map(|&word| u32::from(u16::from_be_bytes(word))).sum();
    fold(total + odd.first().map_or(0, |&byte| u32::from(byte) << 8))
}

/// Sum of two sums.
pub fn add(one: u16, other: u16) -> u16 {
    fold(u32::from(one) + u32::from(other))
}

/// What a checksum becomes when bytes that it covers are replaced (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change(u16);

impl Change {
    /// Also these bytes, an even number at an even place of what is covered, became those.
    #[must_use]
    pub fn replaced(self, old: &[u8], new: &[u8]) -> Self {
        debug_assert!(old.len().is_multiple_of(2) && old.len() == new.len());
        self.and(Self::between(sum(old), sum(new)))
    }

    /// Bytes with this sum became bytes with that.
    pub fn between(before: u16, after: u16) -> Self {
        Self(add(!before, after))
    }

    /// Both changes.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The checksum after all changes.
    pub fn apply(self, checksum: u16) -> u16 {
        !add(!checksum, self.0)
    }
}

/// The value for the checksum field of a header whose checksum field is zero.
pub fn of(header: &[u8]) -> u16 {
    !sum(header)
}

/// Whether a header that includes its checksum is intact.
pub fn is_valid(header: &[u8]) -> bool {
    sum(header) == 0xffff
}

fn fold(total: u32) -> u16 {
    let once = (total & 0xffff) + (total >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn a_header_with_its_checksum_is_valid() {
        let mut header = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 4, 0, 0, 192, 0, 2, 1, 203, 0, 113, 10];
        let checksum = of(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert!(is_valid(&header));
        header[0] ^= 1;
        assert!(!is_valid(&header));
    }

    #[test]
    fn rfc_1624_example() {
        let change = Change::default().replaced(&[0x55, 0x55], &[0x32, 0x85]);
        assert_eq!(change.apply(0xdd2f), 0x0000);
    }

    #[test]
    fn a_change_agrees_with_summing_again_for_every_word() {
        let mut message = [0x08, 0, 0, 0, 0, 0, 0x12, 0x34];
        for word in 0..=u16::MAX {
            let before = of(&message);
            let old = [message[4], message[5]];
            message[4..6].copy_from_slice(&word.to_be_bytes());
            let change = Change::default().replaced(&old, &word.to_be_bytes());
            assert_eq!(change.apply(before), of(&message), "{word}");
        }
    }

    #[test]
    fn an_odd_byte_counts_as_the_high_half() {
        assert_eq!(sum(&[0x12]), 0x1200);
    }
}
