//! The hash by which keys find their places in tables that this process alone reads.
//!
//! One wide multiplication takes in two words, and a last one mixes what came of them (wyhash, W. Yi, 2019). The keys
//! it mixes with are drawn at the start, so nobody outside can tell which flows share a bucket; the hash says nothing between
//! processes and versions, unlike that of [`crate::flow::SlotHasher`].

use ahash::RandomState;

/// Words of the longest key, rounded up to pairs.
const WORDS_MAX: usize = 6;

/// A hash function.
#[derive(Clone, Debug)]
pub struct KeyHasher([u64; WORDS_MAX + 1]);

impl KeyHasher {
    /// The function that belongs to a seed.
    pub fn new(seed: &RandomState) -> Self {
        Self(std::array::from_fn(|i| seed.hash_one(i)))
    }

    /// The hash of a key of up to six words.
    #[inline(always)]
    pub fn hash<const K: usize>(&self, words: &[u64; K]) -> u64 {
        const { assert!(K <= WORDS_MAX) };
        let mut state = 0;
        let mut at = 0;
        while at < K {
            let second = if at + 1 < K { words[at + 1] } else { 0 };
            state = folded(words[at] ^ self.0[at] ^ state, second ^ self.0[at + 1]);
            at += 2;
        }
        // Keys that differ by equal steps would stand at equal steps, all the nearer to each other in unlucky runs.
        folded(state, self.0[WORDS_MAX] | 1)
    }
}

/// `hash` as an index below `length`: its highest bits (Lemire, "Fast Random Integer Generation in an Interval",
/// 2019).
#[inline(always)]
pub fn scaled(hash: u64, length: usize) -> usize {
    ((u128::from(hash) * length as u128) >> 64) as usize
}

#[inline(always)]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher() -> KeyHasher {
        KeyHasher::new(&RandomState::with_seeds(1, 2, 3, 4))
    }

    /// Keys as clients make them: neighbouring addresses and ports.
    #[test]
    fn neighbours_spread_over_all_places() {
        const PLACES: usize = if cfg!(miri) { 64 } else { 4096 };
        for step in [[0, 1 << 24], [1 << 32, 0], [1 << 40, 1 << 8], [1, 0]] {
            let hasher = hasher();
            let mut counts = vec![0u32; PLACES];
            for i in 0..16 * PLACES as u64 {
                let key = [0xc000_0201_cb00_710a + i * step[0], (1024 << 24 | 80 << 8 | 6) + i * step[1]];
                counts[scaled(hasher.hash(&key), PLACES)] += 1;
            }
            let most = *counts.iter().max().unwrap();
            assert!(most < 50, "{most} in one of {PLACES} places where 16 are expected, step {step:?}");
        }
    }

    /// As chance would have it: not evenly, and not in heaps.
    #[test]
    fn equal_steps_leave_as_many_places_empty_as_chance() {
        const PLACES: usize = 1000;
        for seed in 0..50 {
            let hasher = KeyHasher::new(&RandomState::with_seeds(seed, 2, 3, 4));
            let mut used = [false; PLACES];
            for port in 0..2 * PLACES as u64 {
                used[scaled(hasher.hash(&[0xc000_0201_cb00_710a, port << 24 | 80 << 8 | 6]), PLACES)] = true;
            }
            let empty = used.iter().filter(|used| !**used).count();
            assert!((95..180).contains(&empty), "{empty} of {PLACES} where 135 are expected, seed {seed}");
        }
    }

    #[test]
    fn every_word_counts() {
        let hasher = hasher();
        let key = [1u64, 2, 3, 4, 5];
        for word in 0..key.len() {
            for bit in 0..64 {
                let mut other = key;
                other[word] ^= 1 << bit;
                assert_ne!(hasher.hash(&key), hasher.hash(&other), "word {word} bit {bit}");
            }
        }
        assert_ne!(hasher.hash(&[7]), hasher.hash(&[8]));
    }

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic only, and too much of it for Miri")]
    fn every_bit_of_the_hash_varies() {
        let hasher = hasher();
        let ones = (0..4096u64).map(|i| hasher.hash(&[i << 32, i])).fold([0u32; 64], |mut ones, hash| {
            (0..64).for_each(|bit| ones[bit] += (hash >> bit & 1) as u32);
            ones
        });
        assert!(ones.iter().all(|count| (1600..2500).contains(count)), "{ones:?}");
    }
}
