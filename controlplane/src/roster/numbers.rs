//! The numbers that probes' ways go by in marks.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use shunt_api::snapshot::{Mode, ProbeWay};

/// Numbers given out. One is not given to another way soon: packets marked with it may still be on their way.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    given: HashMap<(IpAddr, Mode), u16>,
    next: u16,
}

impl Numbers {
    /// Gives each way a number, the one it has if it has one; the others are free again. In the order of numbers.
    pub fn give(&mut self, ways: impl Iterator<Item = (IpAddr, Mode)>) -> Vec<ProbeWay> {
        let mut wanted = Vec::new();
        let mut seen = HashSet::new();
        wanted.extend(ways.filter(|way| seen.insert(*way)));
        self.given.retain(|way, _| seen.contains(way));
        let mut used: HashSet<u16> = self.given.values().copied().collect();
        for way in wanted {
            if self.given.contains_key(&way) {
                continue;
            }
            // A configuration has fewer ways than there are numbers.
            while !used.insert(self.next) {
                self.next = self.next.wrapping_add(1);
            }
            self.given.insert(way, self.next);
            self.next = self.next.wrapping_add(1);
        }
        let way = |(&(address, mode), &number): (&(IpAddr, Mode), &u16)| ProbeWay { number, address, mode };
        let mut given: Vec<ProbeWay> = self.given.iter().map(way).collect();
        given.sort_by_key(|way| way.number);
        given
    }

    /// The number of a way.
    pub fn of(&self, address: IpAddr, mode: Mode) -> Option<u16> {
        self.given.get(&(address, mode)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(addresses: std::ops::Range<u8>) -> impl Iterator<Item = (IpAddr, Mode)> {
        addresses.map(|last| ([10, 0, 0, last].into(), Mode::Dr))
    }

    fn given(numbers: &mut Numbers, addresses: std::ops::Range<u8>) -> Vec<(u16, u8)> {
        let last = |way: &ProbeWay| match way.address {
            IpAddr::V4(address) => (way.number, address.octets()[3]),
            IpAddr::V6(_) => unreachable!("all are IPv4"),
        };
        numbers.give(ways(addresses)).iter().map(last).collect()
    }

    #[test]
    fn a_way_keeps_its_number_and_nobody_else_gets_it_soon() {
        let mut numbers = Numbers::default();
        assert_eq!(given(&mut numbers, 1..4), [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(given(&mut numbers, 2..5), [(1, 2), (2, 3), (3, 4)]);
        assert_eq!(given(&mut numbers, 1..3), [(1, 2), (4, 1)]);
        assert_eq!(numbers.of([10, 0, 0, 1].into(), Mode::Dr), Some(4));
        assert_eq!(numbers.of([10, 0, 0, 1].into(), Mode::Ipip), None);
    }

    #[test]
    fn numbers_start_again_past_those_in_use() {
        let mut numbers = Numbers { next: u16::MAX, ..Numbers::default() };
        assert_eq!(given(&mut numbers, 1..3), [(0, 2), (u16::MAX, 1)]);
        numbers.next = u16::MAX;
        assert_eq!(given(&mut numbers, 1..4), [(0, 2), (1, 3), (u16::MAX, 1)]);
    }

    #[test]
    fn what_is_wanted_twice_gets_one_number() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.give(ways(1..2).chain(ways(1..2))).len(), 1);
    }
}
