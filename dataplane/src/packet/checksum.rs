//! The Internet checksum (RFC 1071).

/// One's-complement sum of big-endian 16-bit words, folded. An odd last byte counts as the high half.
///
/// Sums in the machine's byte order, which comes to the same bytes (RFC 1071 §2 (B)), four at a time.
#[inline(always)]
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|&word| u64::from(u32::from_ne_bytes(word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    u16::from_be(fold(total + u64::from(u32::from_ne_bytes(last))))
}

/// Sum of two sums.
#[inline]
pub fn add(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    sum + u16::from(carry)
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

/// As [`is_valid`] for an IPv4 header without options, which is never all zeros: its sum is a multiple of 65535.
#[inline(always)]
pub fn is_valid_plain(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let total: u64 = words.iter().map(|&word| u64::from(u32::from_ne_bytes(word))).sum();
    total.is_multiple_of(0xffff)
}

/// Of a sum of 32-bit words, fewer than 2^32 of them, or of anything less.
#[inline(always)]
pub fn fold(total: u64) -> u16 {
    let once = (total & 0xffff_ffff) + (total >> 32);
    let twice = (once & 0xffff) + (once >> 16 & 0xffff) + (once >> 32);
    let thrice = (twice & 0xffff) + (twice >> 16);
    ((thrice & 0xffff) + (thrice >> 16)) as u16
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
