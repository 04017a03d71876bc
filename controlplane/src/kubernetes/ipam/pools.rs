//! The pools, and which of them are for whom.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use shunt_api::address_pool::{AddressPool, AddressRange};

use super::wish::Wish;
use super::{Offer, POOL, Reason, Refusal};
use crate::kubernetes::facts::Family;

/// Most pools that a message names.
const NAMED_MAX: usize = 5;

/// All pools; a number stands for one of them.
pub struct Pools<'p> {
    /// In the order in which they are tried: restricted ones first, then by priority, then by name.
    pools: Vec<&'p AddressPool>,
    by_name: HashMap<&'p str, usize>,
    /// Ranges of each pool, by family.
    ranges: Vec<[Vec<AddressRange>; 2]>,
    /// Ranges that have no address in common, by their first: their last one, and whose they are.
    disjoint: BTreeMap<IpAddr, (IpAddr, usize)>,
    /// What is in none of them may be in one that was refused.
    is_whole: bool,
    /// The others. Overlapping pools are refused where they are written, so that there is hardly ever one.
    overlapping: Vec<(AddressRange, usize)>,
}

impl<'p> Pools<'p> {
    /// All that there are.
    pub fn new(offer: Offer<'p>) -> Self {
        let is_whole = offer.is_whole;
        let mut pools: Vec<&AddressPool> = offer.pools.iter().collect();
        pools.sort_by_key(|pool| (!pool.is_restricted(), u32::MAX - pool.priority, &pool.name));
        let of_family = |pool: &AddressPool, v4: bool| {
            pool.ranges.iter().copied().filter(|range| range.is_v4() == v4).collect()
        };
        let ranges = pools.iter().map(|pool| [of_family(pool, true), of_family(pool, false)]).collect();
        let by_name = pools.iter().enumerate().map(|(number, pool)| (pool.name.as_str(), number)).collect();
        let mut all =
            Self { pools, by_name, ranges, disjoint: BTreeMap::new(), is_whole, overlapping: Vec::new() };
        all.index();
        all
    }

    fn index(&mut self) {
        for (number, pool) in self.pools.iter().enumerate() {
            for range in &pool.ranges {
                let before = self.disjoint.range(..=range.last()).next_back();
                if before.is_some_and(|(_, (last, _))| *last >= range.first()) {
                    self.overlapping.push((*range, number));
                } else {
                    self.disjoint.insert(range.first(), (range.last(), number));
                }
            }
        }
    }

    /// A pool.
    pub fn at(&self, number: usize) -> &'p AddressPool {
        self.pools[number]
    }

    /// The ranges of a family that a pool has.
    pub fn ranges(&self, number: usize, family: Family) -> &[AddressRange] {
        &self.ranges[number][family as usize]
    }

    /// The pool that an address lies in.
    pub fn of(&self, address: IpAddr) -> Option<usize> {
        let before = self.disjoint.range(..=address).next_back();
        let found = before.filter(|(_, (last, _))| *last >= address).map(|(_, (_, number))| *number);
        let other = || self.overlapping.iter().find(|(range, _)| range.contains(address));
        found.or_else(|| other().map(|(_, number)| *number))
    }

    /// Whether an address is certain to be in no pool.
    pub fn lack(&self, address: IpAddr) -> bool {
        self.is_whole && self.of(address).is_none()
    }

    /// Whether an address lies in a pool.
    pub fn contains(&self, number: usize, address: IpAddr) -> bool {
        self.of(address) == Some(number) || self.at(number).contains(address)
    }

    /// The pool that a Service names, if it names one.
    pub fn named(&self, wish: &Wish<'_>) -> Result<Option<usize>, Refusal> {
        let Some(name) = wish.pool else { return Ok(None) };
        let Some(number) = self.by_name.get(name) else {
            let all: Vec<usize> = (0..self.pools.len()).collect();
            return Err(Reason::UnknownPool.because(format!(
                "there is no pool `{}`, which annotation {POOL} names; {}",
                name.escape_debug(),
                if all.is_empty() {
                    "there is none at all".into()
                } else {
                    format!("there are {}", self.words(&all))
                }
            )));
        };
        Ok(Some(*number))
    }

    /// Refuses a pool that is not for a Service.
    pub fn allow(&self, number: usize, wish: &Wish<'_>) -> Result<(), Refusal> {
        if self.serves(number, wish) {
            return Ok(());
        }
        Err(Reason::PoolNotAllowed.because(format!(
            "pool `{}` is for other namespaces or Services, by its namespaces and selectors; ask for another",
            self.at(number).name
        )))
    }

    /// The pools that a Service gets addresses from without naming one, in the order to try them.
    pub fn automatic(&self, wish: &Wish<'_>) -> Vec<usize> {
        let eligible = |number: &usize| self.at(*number).auto_assign && self.serves(*number, wish);
        (0..self.pools.len()).filter(eligible).collect()
    }

    fn serves(&self, number: usize, wish: &Wish<'_>) -> bool {
        self.at(number).serves(&wish.key.namespace, wish.namespace_labels, &wish.service.labels)
    }

    /// That none of these pools has an address of a family left.
    pub fn exhausted(&self, numbers: &[usize], family: Family) -> Refusal {
        let count = |number: usize| self.at(number).count(family == Family::V4);
        let having: Vec<usize> = numbers.iter().copied().filter(|number| count(*number) > 0).collect();
        let all = having.iter().copied().map(count).fold(0, u128::saturating_add);
        match having[..] {
            [] => Reason::NoPool.because(match numbers {
                [] => format!(
                    "no pool gives this Service an {family} address by itself; add a pool, or let one that there is \
                     serve it"
                ),
                _ => format!("{} has no {family} addresses to give; add some, or a pool that has", self.words(numbers)),
            }),
            [_] => Reason::PoolExhausted.because(format!(
                "pool {} is exhausted: all its {all} {family} addresses are in use; the next one that is free goes to \
                 whoever waits longest",
                self.words(&having)
            )),
            _ => Reason::PoolExhausted.because(format!(
                "pools {} are exhausted: all their {all} {family} addresses are in use; the next one that is free goes \
                 to whoever waits longest",
                self.words(&having)
            )),
        }
    }

    /// That no pool has a requested address.
    pub fn outside(&self, address: IpAddr) -> Refusal {
        let v4 = address.is_ipv4();
        let having: Vec<usize> =
            (0..self.pools.len()).filter(|number| self.at(*number).count(v4) > 0).collect();
        let advice = if having.is_empty() {
            "there is none for its family".into()
        } else {
            format!("ask for one of {}", self.words(&having))
        };
        Reason::AddressNotInPool.because(format!("{address} is in no pool; {advice}"))
    }

    fn words(&self, numbers: &[usize]) -> String {
        let names: Vec<String> =
            numbers.iter().take(NAMED_MAX).map(|number| format!("`{}`", self.at(*number).name)).collect();
        let more = numbers.len().saturating_sub(NAMED_MAX);
        let names = names.join(", ");
        if more > 0 { format!("{names} and {more} more") } else { names }
    }
}
