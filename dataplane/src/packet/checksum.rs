//! The Internet checksum (RFC 1071).

/// One's-complement sum of big-endian 16-bit words, folded. An odd last byte counts as the high half.
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, odd) = bytes.as_chunks::<2>();
    let total: u32 = words.iter().map(|&word| u32::from(u16::from_be_bytes(word))).sum();
    fold(total + odd.first().map_or(0, |&byte| u32::from(byte) << 8))
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
    fn an_odd_byte_counts_as_the_high_half() {
        assert_eq!(sum(&[0x12]), 0x1200);
    }
}
