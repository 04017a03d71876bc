//! Numbers in the kernel's structures, in the machine's byte order, by the byte they begin at.
#![deny(unsafe_code)]

/// Writes 32 bits.
pub fn put(structure: &mut [u8], at: usize, number: u32) {
    structure[at..at + 4].copy_from_slice(&number.to_ne_bytes());
}

/// Writes 64 bits.
pub fn put_64(structure: &mut [u8], at: usize, number: u64) {
    structure[at..at + 8].copy_from_slice(&number.to_ne_bytes());
}

/// Reads 32 bits.
pub fn number(structure: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes(structure, at))
}

/// Reads 64 bits.
pub fn number_64(structure: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes(structure, at))
}

fn bytes<const N: usize>(structure: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&structure[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_where_they_were_written() {
        let mut structure = [0xff; 16];
        put(&mut structure, 1, 7);
        put_64(&mut structure, 8, 1 << 40 | 9);
        assert_eq!((number(&structure, 1), number_64(&structure, 8)), (7, 1 << 40 | 9));
        assert_eq!((structure[0], &structure[5..8]), (0xff, &[0xff; 3][..]));
    }
}
