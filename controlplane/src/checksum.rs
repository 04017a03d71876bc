//! The checksum of IP, ICMP and VRRP. Pure.

/// The Internet checksum (RFC 1071) of parts that follow each other, of which only the last may be odd. That of
/// bytes which contain their checksum is 0 if they are intact.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let words = parts.iter().flat_map(|part| part.chunks(2)).map(word);
    let mut sum = words.fold(0u32, |sum, word| {
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    });
    sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum).expect("folded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // The example of §3: the sum is ddf2.
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&words]), !0xddf2);
        assert_eq!(checksum(&[&words[..4], &words[4..]]), !0xddf2);
        assert_eq!(checksum(&[&[0xff, 0xff], &[0xff]]), !0xff00);
        assert_eq!(checksum(&[&[0xff; 65_534]]), 0);
    }
}
