//! Maglev tables: from a set of weighted backends to slots (Eisenbud et al., "Maglev: A Fast and Reliable
//! Software Network Load Balancer", NSDI 2016, §3.4), with weights.
//!
//! A table depends on nothing but the fleet key, the table size and the set of (address, weight): not on
//! the order of the configuration, not on the box. `docs/maglev.md` has the recipe in words and vectors.
//! Built off the workers; the workers only read slots.

use std::net::IpAddr;

use crate::flow::SlotHasher;

/// Which backend each slot belongs to, as indices into the sorted members it was built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maglev {
    slots: Box<[u16]>,
}

/// One backend as the table sees it. Weight 0 gets no slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The backend's identity.
    pub address: IpAddr,
    /// Share relative to the others.
    pub weight: u16,
}

/// A backend's walk over all slots: `offset, offset + skip, offset + 2·skip, …` modulo the prime size.
struct Walk {
    member: u16,
    next: u32,
    skip: u32,
    weight: u64,
    credit: u64,
}

impl Maglev {
    /// Builds a table of `size` slots (a prime) over `candidates`, which must be sorted by address, distinct
    /// and fewer than 65,536; slots hold their indices. With no weight above 0 the table has no slots.
    ///
    /// Backends take turns; in each turn one adds its weight to its credit and, for every time the credit
    /// reaches the largest weight, takes the first slot of its walk that is still free. After any number of
    /// rounds each has taken its exact share, rounded down.
    pub fn build(hasher: &SlotHasher, size: u32, candidates: &[Candidate]) -> Self {
        assert!(candidates.is_sorted_by(|a, b| a.address < b.address), "candidates are sorted and distinct");
        assert!(candidates.len() < usize::from(FREE), "slots hold 16-bit indices");
        let mut walks = walks(hasher, size, candidates);
        let Some(turn) = walks.iter().map(|walk| walk.weight).max() else {
            return Self { slots: Box::default() };
        };
        let mut slots = vec![FREE; size as usize].into_boxed_slice();
        let mut free = size;
        while free > 0 {
            for walk in &mut walks {
                walk.credit += walk.weight;
                if walk.credit >= turn && free > 0 {
                    walk.credit -= turn;
                    walk.take(&mut slots, size);
                    free -= 1;
                }
            }
        }
        Self { slots }
    }

    /// The member for a flow's [`SlotHasher::flow`] hash; `None` if no backend takes new flows.
    pub fn choose(&self, flow_hash: u64) -> Option<u16> {
        let size = self.slots.len() as u64;
        (size > 0).then(|| self.slots[(flow_hash % size) as usize])
    }

    /// The slot of such a flow, and how many there are; `None` if no backend takes new flows.
    pub fn slot(&self, flow_hash: u64) -> Option<(u32, u32)> {
        let size = self.slots.len() as u64;
        (size > 0).then(|| ((flow_hash % size) as u32, size as u32))
    }

    /// All slots in order.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }
}

/// No member has this index.
const FREE: u16 = u16::MAX;

fn walks(hasher: &SlotHasher, size: u32, candidates: &[Candidate]) -> Vec<Walk> {
    let size = u64::from(size);
    let takes_part = candidates.iter().enumerate().filter(|(_, candidate)| candidate.weight > 0);
    takes_part
        .map(|(member, candidate)| Walk {
            member: member as u16,
            next: (hasher.offset(candidate.address) % size) as u32,
            skip: (hasher.skip(candidate.address) % (size - 1)) as u32 + 1,
            weight: u64::from(candidate.weight),
            credit: 0,
        })
        .collect()
}

impl Walk {
    /// Takes the next free slot. There is one, and the walk visits all because `size` is prime.
    fn take(&mut self, slots: &mut [u16], size: u32) {
        loop {
            let slot = &mut slots[self.next as usize];
            self.next += self.skip;
            if self.next >= size {
                self.next -= size;
            }
            if *slot == FREE {
                *slot = self.member;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shunt_api::snapshot::FleetKey;

    use super::*;

    const SIZE: u32 = 65537;

    fn hasher() -> SlotHasher {
        SlotHasher::new(&FleetKey(std::array::from_fn(|i| i as u8)))
    }

    fn equal(count: u32) -> Vec<Candidate> {
        (1..=count).map(|i| Candidate { address: IpAddr::V4((0x0a00_0000 + i).into()), weight: 1 }).collect()
    }

    fn weighted(weights: &[u16]) -> Vec<Candidate> {
        equal(weights.len() as u32)
            .into_iter()
            .zip(weights)
            .map(|(c, &weight)| Candidate { weight, ..c })
            .collect()
    }

    fn counts(table: &Maglev, members: usize) -> Vec<usize> {
        let mut counts = vec![0; members];
        table.slots().iter().for_each(|&member| counts[usize::from(member)] += 1);
        counts
    }

    /// FNV-1a (64 bit) over the slots as little-endian 16-bit numbers.
    fn fingerprint(table: &Maglev) -> u64 {
        table.slots().iter().flat_map(|slot| slot.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// The vectors of docs/maglev.md, line by line: `address-hex offset skip`, then tables.
    #[test]
    fn vectors_of_the_documentation_hold() {
        let document = include_str!("../../docs/maglev.md");
        let mut found = 0;
        for line in document.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let actual = match cells[1] {
                "table" => {
                    let weights: Vec<u16> = cells[3].split(' ').map(|w| w.parse().unwrap()).collect();
                    let table = Maglev::build(&hasher(), cells[2].parse().unwrap(), &weighted(&weights));
                    let first: Vec<String> = table.slots()[..8].iter().map(u16::to_string).collect();
                    format!("{} / {:016x}", first.join(" "), fingerprint(&table))
                }
                "backend" => {
                    let address: IpAddr = cells[2].parse().unwrap();
                    format!("{:016x} / {:016x}", hasher().offset(address), hasher().skip(address))
                }
                "client" => {
                    let hash = hasher().client(cells[2].parse().unwrap());
                    format!("{hash:016x} / {}", hash % 65537)
                }
                "flow" => format!(
                    "{:016x} / {}",
                    hasher().flow(&flow(cells[2])),
                    hasher().flow(&flow(cells[2])) % 65537
                ),
                other => panic!("unknown vector {other}"),
            };
            assert_eq!(cells[cells.len() - 2], actual, "{line}");
            found += 1;
        }
        assert!(found >= 10, "{found} vectors");
    }

    /// `tcp 192.0.2.1 40000 203.0.113.10 80`
    fn flow(text: &str) -> crate::flow::FlowKey {
        use crate::flow::{FlowKey, FlowKey4, FlowKey6};
        use shunt_api::snapshot::Protocol;
        let parts: Vec<&str> = text.split(' ').collect();
        let protocol = if parts[0] == "tcp" { Protocol::Tcp } else { Protocol::Udp };
        let (client_port, port) = (parts[2].parse().unwrap(), parts[4].parse().unwrap());
        match (parts[1].parse().unwrap(), parts[3].parse().unwrap()) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => {
                FlowKey::V4(FlowKey4 { client, vip, client_port, port, protocol })
            }
            (IpAddr::V6(client), IpAddr::V6(vip)) => {
                FlowKey::V6(FlowKey6 { client, vip, client_port, port, protocol })
            }
            mixed => panic!("{mixed:?}"),
        }
    }

    #[test]
    fn equal_weights_differ_by_one_slot_at_most_and_none_is_empty() {
        for count in [1, 2, 3, 10, 100, 1000] {
            let table = Maglev::build(&hasher(), SIZE, &equal(count));
            let counts = counts(&table, count as usize);
            let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(max - min <= 1, "{count} backends: {min}…{max}");
        }
    }

    #[test]
    fn weights_are_shares_and_zero_drains() {
        for weights in
            [vec![1, 2, 5], vec![1, 0, 1], vec![1000, 1, 1, 1], vec![100; 300], vec![3, 7, 11, 13, 17]]
        {
            let table = Maglev::build(&hasher(), SIZE, &weighted(&weights));
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            for (count, &weight) in counts(&table, weights.len()).into_iter().zip(&weights) {
                let share = f64::from(SIZE) * f64::from(weight) / total;
                assert!(
                    (count as f64 - share).abs() <= 1.0 + share * 0.01,
                    "{weights:?}: {count} for {share}"
                );
                assert!(weight > 0 || count == 0);
            }
        }
    }

    #[test]
    fn all_drained_or_none_at_all_choose_nobody() {
        assert_eq!(Maglev::build(&hasher(), SIZE, &[]).choose(1), None);
        assert_eq!(Maglev::build(&hasher(), SIZE, &weighted(&[0, 0])).choose(1), None);
    }

    #[test]
    fn removing_one_of_a_hundred_moves_at_most_one_percent_of_the_others() {
        let all = equal(100);
        let before = Maglev::build(&hasher(), SIZE, &all);
        let mut worst = 0.0_f64;
        for removed in [0, 17, 50, 99] {
            let mut rest = all.clone();
            let gone = rest.remove(removed).address;
            let after = Maglev::build(&hasher(), SIZE, &rest);
            let pairs = before.slots().iter().zip(after.slots());
            let kept = pairs.map(|(&b, &a)| (all[usize::from(b)].address, rest[usize::from(a)].address));
            let (mut others, mut moved) = (0, 0);
            for (was, is) in kept.filter(|&(was, _)| was != gone) {
                others += 1;
                moved += u32::from(was != is);
            }
            worst = worst.max(f64::from(moved) / f64::from(others));
        }
        println!("worst share of the others' slots that move: {:.2} %", worst * 100.0);
        assert!(worst <= 0.01, "{worst}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn only_shares_matter(addresses in proptest::collection::btree_set(any::<u32>(), 1..50), weight in 2u16..100) {
            let table = |weight| {
                let candidate = |&a: &u32| Candidate { address: IpAddr::V4(a.into()), weight };
                Maglev::build(&hasher(), 251, &addresses.iter().map(candidate).collect::<Vec<_>>())
            };
            prop_assert!(table(weight).slots().iter().all(|&slot| usize::from(slot) < addresses.len()));
            prop_assert_eq!(table(weight), table(1));
        }
    }
}
