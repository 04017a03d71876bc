//! Numbers by keys of a few words, such as listeners by VIP, port and protocol: a table of open addressing (linear
//! probing, half full at most), made off the workers.

use ahash::RandomState;

use crate::conntrack::{KeyHasher, scaled};

/// Numbers by keys of `W` words.
#[derive(Debug)]
pub struct Index<const W: usize> {
    slots: Box<[Slot<W>]>,
    hasher: KeyHasher,
}

#[derive(Clone, Copy, Debug)]
struct Slot<const W: usize> {
    key: [u64; W],
    /// Or [`NONE`].
    number: u32,
}

const NONE: u32 = u32::MAX;

impl<const W: usize> Index<W> {
    /// Of different keys.
    pub fn new(filled: &[([u64; W], u32)], seed: &RandomState) -> Self {
        let empty = Slot { key: [0; W], number: NONE };
        let slots = vec![empty; 2 * filled.len() + 1].into();
        let mut index = Self { slots, hasher: KeyHasher::new(seed) };
        for &(key, number) in filled {
            assert_ne!(number, NONE, "no table is so large");
            let mut at = index.home(&key);
            while index.slots[at].number != NONE {
                at = (at + 1) % index.slots.len();
            }
            index.slots[at] = Slot { key, number };
        }
        index
    }

    /// The number of a key, if it has one.
    #[inline]
    pub fn find(&self, key: &[u64; W]) -> Option<u32> {
        let mut at = self.home(key);
        // At least half of the slots are empty.
        loop {
            let slot = &self.slots[at];
            if slot.number == NONE {
                return None;
            }
            if slot.key == *key {
                return Some(slot.number);
            }
            at = if at + 1 < self.slots.len() { at + 1 } else { 0 };
        }
    }

    fn home(&self, key: &[u64; W]) -> usize {
        scaled(self.hasher.hash(key), self.slots.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(count: u64) {
        let filled: Vec<_> = (0..count).map(|i| ([i + 1], i as u32)).collect();
        let index = Index::new(&filled, &RandomState::with_seeds(1, 2, 3, 4));
        filled.iter().for_each(|(key, number)| assert_eq!(index.find(key), Some(*number)));
        assert_eq!((index.find(&[0]), index.find(&[count + 1])), (None, None));
    }

    #[test]
    fn what_is_there_is_found_and_nothing_else() {
        [0, 1, 2, 100, 10_000].into_iter().for_each(check);
    }
}
