//! How a NIC spreads packets over its queues, as drivers take it: `struct ethtool_rxfh`, and the hash fields
//! of `struct ethtool_rxnfc` (linux/ethtool.h).
#![deny(unsafe_code)]

use super::words::{number, put};

/// `struct ethtool_rxfh` before the table and the key.
const HEAD_BYTES: usize = 24;
const TABLE_SIZE: usize = 8;
const KEY_SIZE: usize = 12;
const TRANSFORM: usize = 17;
/// `ETH_RXFH_INDIR_NO_CHANGE`.
const TABLE_AS_IT_IS: u32 = 0xffff_ffff;

/// Letters of `ethtool -N … rx-flow-hash` and what they stand for.
const FIELDS: [(u64, char); 7] =
    [(1 << 1, 'm'), (1 << 2, 'v'), (1 << 3, 't'), (1 << 4, 's'), (1 << 5, 'd'), (1 << 6, 'f'), (1 << 7, 'n')];

/// How a NIC spreads packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// Queue of each slot.
    pub table: Vec<u32>,
    /// Of the hash.
    pub key: Vec<u8>,
    /// Before the hash; always 0 before Linux 6.8.
    pub transform: u8,
}

/// What to change of it.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Where the slots lead.
    Table(&'a [u32]),
    /// The table as the kernel makes it for the queues there are, so that it may grow and shrink with them.
    TableAsShipped,
    /// The key.
    Key(&'a [u8]),
    /// What is done before the hash.
    Transform(u8),
}

/// The structure for a question with room for so many slots and bytes of key.
pub fn request(command: u32, slots: u32, key_bytes: u32) -> Vec<u8> {
    let mut structure = vec![0; HEAD_BYTES + 4 * slots as usize + key_bytes as usize];
    put(&mut structure, 0, command);
    put(&mut structure, TABLE_SIZE, slots);
    put(&mut structure, KEY_SIZE, key_bytes);
    structure
}

/// How many slots and how many bytes of key there are.
pub fn sizes(answer: &[u8]) -> (u32, u32) {
    (number(answer, TABLE_SIZE), number(answer, KEY_SIZE))
}

/// What was asked for with room enough; `None` if the answer does not fit its own sizes.
pub fn read(answer: &[u8]) -> Option<Rss> {
    let (slots, key_bytes) = sizes(answer);
    let key_at = HEAD_BYTES + 4 * slots as usize;
    let table = answer.get(HEAD_BYTES..key_at)?.chunks_exact(4);
    Some(Rss {
        table: table.map(|slot| number(slot, 0)).collect(),
        key: answer.get(key_at..key_at + key_bytes as usize)?.to_vec(),
        transform: answer[TRANSFORM],
    })
}

/// The structure that changes one thing and leaves the others. `now` is what the transform is: kernels before
/// 6.8 want a zero there.
pub fn change(command: u32, now: &Rss, change: Change<'_>) -> Vec<u8> {
    let (table, key): (&[u32], &[u8]) = match change {
        Change::Table(table) => (table, &[]),
        Change::Key(key) => (&[], key),
        Change::TableAsShipped | Change::Transform(_) => (&[], &[]),
    };
    let mut structure = request(command, table.len() as u32, key.len() as u32);
    if matches!(change, Change::Key(_) | Change::Transform(_)) {
        put(&mut structure, TABLE_SIZE, TABLE_AS_IT_IS);
    }
    for (index, queue) in table.iter().enumerate() {
        put(&mut structure, HEAD_BYTES + 4 * index, *queue);
    }
    let key_at = HEAD_BYTES + 4 * table.len();
    structure[key_at..].copy_from_slice(key);
    structure[TRANSFORM] = if let Change::Transform(transform) = change { transform } else { now.transform };
    structure
}

/// The table that the kernel makes for so many queues.
pub fn even(slots: usize, queues: u32) -> Vec<u32> {
    (0..slots as u32).map(|slot| slot % queues.max(1)).collect()
}

/// Letters for the hash fields.
pub fn letters(fields: u64) -> String {
    FIELDS.iter().filter(|(bit, _)| fields & bit != 0).map(|(_, letter)| letter).collect()
}

/// Hash fields for letters; `None` if one is unknown.
pub fn fields(letters: &str) -> Option<u64> {
    let bit = |letter| FIELDS.iter().find(|(_, known)| *known == letter).map(|(bit, _)| bit);
    letters.chars().try_fold(0, |fields, letter| Some(fields | bit(letter)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Rss = Rss { table: Vec::new(), key: Vec::new(), transform: 1 };

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let structure = change(0x47, &NOW, Change::Table(&[0, 1, 2]));
        assert_eq!(structure.len(), 24 + 12);
        let read = read(&structure).unwrap();
        assert_eq!(read, Rss { table: vec![0, 1, 2], key: vec![], transform: 1 });
    }

    #[test]
    fn a_change_leaves_the_rest() {
        let key = change(0x47, &NOW, Change::Key(&[0x6d, 0x5a]));
        assert_eq!((sizes(&key), &key[24..]), ((TABLE_AS_IT_IS, 2), &[0x6d, 0x5a][..]));
        let transform = change(0x47, &NOW, Change::Transform(0));
        assert_eq!((sizes(&transform), transform[TRANSFORM]), ((TABLE_AS_IT_IS, 0), 0));
        assert_eq!(sizes(&change(0x47, &NOW, Change::TableAsShipped)), (0, 0));
    }

    #[test]
    fn an_answer_shorter_than_it_says_is_none() {
        let mut answer = request(0x46, 4, 8);
        assert!(read(&answer).is_some());
        put(&mut answer, KEY_SIZE, 9);
        assert_eq!(read(&answer), None);
    }

    #[test]
    fn hash_fields_are_the_letters_of_ethtool() {
        assert_eq!(fields("sdfn"), Some(0xf0));
        assert_eq!(letters(0xf0), "sdfn");
        assert_eq!((fields("sx"), fields("")), (None, Some(0)));
    }

    #[test]
    fn an_even_table_goes_round() {
        assert_eq!(even(5, 2), [0, 1, 0, 1, 0]);
        assert_eq!(even(2, 0), [0, 0]);
    }
}
