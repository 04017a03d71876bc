//! One round of giving addresses: keep, grant what was requested, fill what is missing.

use std::collections::HashMap;
use std::net::IpAddr;

use super::book::{Book, Holder};
use super::given::Given;
use super::pools::Pools;
use super::wish::{Wish, words};
use super::{Allocation, POOL, Reason, Refusal};
use crate::kubernetes::facts::{Family, FamilyPolicy};

/// Numbers stand for pools and, in order of age, for Services.
pub struct Round<'w> {
    pools: &'w Pools<'w>,
    wishes: &'w [Wish<'w>],
    book: Book<'w>,
    given: Vec<Given>,
    problems: Vec<Option<Refusal>>,
    moved: Vec<Option<Refusal>>,
    /// An address was left since the last look.
    left: bool,
    /// Somebody was given something since the last look.
    changed: bool,
}

/// Where a Service may get addresses from.
struct Choice {
    /// The Service.
    who: usize,
    /// In the order to try them.
    pools: Vec<usize>,
    /// Addresses that it can share, which are better than free ones.
    shareable: Vec<IpAddr>,
}

impl<'w> Round<'w> {
    /// The oldest Service is the first.
    pub fn new(pools: &'w Pools<'w>, wishes: &'w [Wish<'w>], taken: HashMap<IpAddr, Holder<'w>>) -> Self {
        Self {
            pools,
            wishes,
            book: Book::new(pools, wishes, taken),
            given: vec![Given::default(); wishes.len()],
            problems: vec![None; wishes.len()],
            moved: vec![None; wishes.len()],
            left: false,
            changed: false,
        }
    }

    /// Lets a Service keep what it had, as far as that can be: those that come later leave what they cannot share. To be
    /// called before all else.
    pub fn keep(&mut self, who: usize, had: &[IpAddr]) {
        for &address in had {
            let family = Family::of(address);
            if !self.wishes[who].families.contains(&family) || self.given[who].of(family).is_some() {
                continue;
            }
            let lost = match self.book.obstacle(address, who) {
                // It may be another machine's by now, so it cannot even be kept until there is another.
                _ if self.pools.lack(address) => Some(
                    Reason::AddressNotInPool
                        .because(format!("{address} was left, because no pool has it any more")),
                ),
                Some(obstacle) => Some(self.book.lost(address, &obstacle)),
                None => None,
            };
            if lost.is_none() {
                self.book.enter(address, who);
                self.given[who] = self.given[who].with(family, Some(address));
            } else if self.moved[who].is_none() {
                self.moved[who] = lost;
            }
        }
    }

    /// Gives until nobody can be given more.
    pub fn settle(&mut self) {
        let alive = |who: &usize| !self.wishes[*who].service.deleting;
        let mut open: Vec<usize> = (0..self.wishes.len()).filter(alive).collect();
        let asks = |who: &usize| !matches!(&self.wishes[*who].request, Ok(request) if request.is_empty());
        let mut asking: Vec<usize> = open.iter().copied().filter(asks).collect();
        // The last time nothing changes, so that every problem is told as things are in the end.
        self.changed = true;
        while std::mem::take(&mut self.changed) {
            while self.pass(&mut asking, Self::grant) {}
            self.pass(&mut open, Self::fill);
        }
    }

    /// Takes a step for each Service in order of age; those that have all they want leave the list. Ends early, to
    /// begin again with the oldest, when an address was left that an older Service may be waiting for. Says whether
    /// any was left: each time, somebody has moved to where it wants to be, so that it happens but so often.
    fn pass(&mut self, list: &mut Vec<usize>, step: fn(&mut Self, usize) -> bool) -> bool {
        let mut waiting = Vec::new();
        let mut any_left = false;
        for (at, &who) in list.iter().enumerate() {
            if !step(self, who) {
                waiting.push(who);
            }
            any_left |= self.left;
            if std::mem::take(&mut self.left) && !waiting.is_empty() {
                waiting.extend(&list[at + 1..]);
                break;
            }
        }
        *list = waiting;
        any_left
    }

    /// Gives a Service the addresses it asks for, all or none. Whether it need not be tried again.
    fn grant(&mut self, who: usize) -> bool {
        let request = match &self.wishes[who].request {
            Ok(request) => request,
            Err(refusal) => {
                self.problems[who] = Some(refusal.clone());
                return true;
            }
        };
        let refusal = request.iter().find_map(|address| self.refuse(who, *address).err());
        if refusal.is_none() {
            let new = request
                .iter()
                .fold(self.given[who], |given, address| given.with(Family::of(*address), Some(*address)));
            self.give(who, new);
        }
        self.problems[who] = refusal;
        self.problems[who].is_none()
    }

    /// Refuses a requested address that a Service does not have and cannot get.
    fn refuse(&self, who: usize, address: IpAddr) -> Result<(), Refusal> {
        let (wish, family) = (&self.wishes[who], Family::of(address));
        if !wish.families.contains(&family) {
            return Err(Reason::WrongFamily.because(format!(
                "{address} was asked for, but the Service is not {family}; ask for an address of a family it has, or change \
                 spec.ipFamilyPolicy"
            )));
        }
        let named = self.pools.named(wish)?;
        if let Some(pool) = named.filter(|pool| !self.pools.contains(*pool, address)) {
            return Err(Reason::AddressNotInPool.because(format!(
                "{address} is not in pool `{}`, which annotation {POOL} names; change one of the two",
                self.pools.at(pool).name
            )));
        }
        if self.given[who].of(family) == Some(address) {
            return Ok(());
        }
        let pool = named.or_else(|| self.pools.of(address)).ok_or_else(|| self.pools.outside(address))?;
        self.pools.allow(pool, wish)?;
        if !self.pools.at(pool).gives(address) {
            return Err(Reason::AddressAvoided.because(format!(
                "{address} ends in .0 or .255, which pool `{}` does not give; ask for another, or give the pool \
                 avoid_edges = false",
                self.pools.at(pool).name
            )));
        }
        self.book.is_ours_to_give(address, who)?;
        let obstacle = self.book.obstacle(address, who);
        obstacle.map_or(Ok(()), |obstacle| Err(self.book.in_use(address, &obstacle)))
    }

    /// Gives a Service what it lacks. Whether it has all it wants.
    fn fill(&mut self, who: usize) -> bool {
        let wish = &self.wishes[who];
        let given = self.given[who];
        if !wish.is_granted(|address| given.addresses().any(|has| has == address)) {
            // Why is known already; any other address than the requested one would not be what was asked for.
            return false;
        }
        match self.plan(who) {
            Ok(new) => {
                self.give(who, new);
                self.problems[who] = None;
                new.has_all(wish.families)
            }
            Err(refusal) => {
                self.problems[who] = Some(refusal);
                false
            }
        }
    }

    /// What a Service should have.
    fn plan(&mut self, who: usize) -> Result<Given, Refusal> {
        let wish = &self.wishes[who];
        let mut kept = self.given[who];
        let named = self.pools.named(wish)?;
        if let Some(pool) = named {
            kept = kept.retain(|address| self.pools.contains(pool, address));
        }
        if kept.has_all(wish.families) {
            return Ok(kept);
        }
        let choice = self.choice(who, named)?;
        match (wish.families, wish.service.family_policy) {
            (&[primary, secondary], FamilyPolicy::PreferDualStack) => {
                self.prefer(kept, [primary, secondary], &choice)
            }
            (&[primary, secondary], _) => self.require(kept, [primary, secondary], &choice),
            (families, _) => families.iter().try_fold(kept, |kept, family| self.add(kept, *family, &choice)),
        }
    }

    fn choice(&self, who: usize, named: Option<usize>) -> Result<Choice, Refusal> {
        let wish = &self.wishes[who];
        let mut pools = match named {
            Some(pool) => {
                self.pools.allow(pool, wish)?;
                vec![pool]
            }
            None => self.pools.automatic(wish),
        };
        let shareable = self.book.shareable(who);
        if !shareable.is_empty() {
            let shares = |pool: usize| shareable.iter().any(|address| self.pools.contains(pool, *address));
            pools.sort_by_key(|pool| !shares(*pool));
        }
        Ok(Choice { who, pools, shareable })
    }

    /// Both from one pool if that can be, or else whichever can be had. A second address is of the first one's pool,
    /// so that nobody has to look in two places for what belongs together.
    fn prefer(&mut self, kept: Given, families: [Family; 2], choice: &Choice) -> Result<Given, Refusal> {
        if let Some(address) = kept.addresses().next() {
            let from = self.pools.of(address).filter(|pool| choice.pools.contains(pool));
            let second = families.into_iter().find(|family| kept.of(*family).is_none());
            let added = from.zip(second).and_then(|(pool, family)| self.pick(pool, family, choice));
            return Ok(second.map_or(kept, |family| kept.with(family, added)));
        }
        let both = self.both(families, choice);
        let one = |family: Family| self.add(kept, family, choice);
        match both {
            Some(both) => Ok(both),
            None => {
                let [primary, secondary] = families.map(one);
                primary.or_else(|refusal| secondary.map_err(|_| refusal))
            }
        }
    }

    /// Both, of one pool if that can be: two pools are better than nothing.
    fn require(&mut self, kept: Given, families: [Family; 2], choice: &Choice) -> Result<Given, Refusal> {
        let held = kept.addresses().next();
        if let Some(both) = held.is_none().then(|| self.both(families, choice)).flatten() {
            return Ok(both);
        }
        let beside = held.and_then(|address| self.pools.of(address));
        let mut pools = choice.pools.clone();
        pools.sort_by_key(|pool| Some(*pool) != beside);
        let choice = Choice { pools, shareable: choice.shareable.clone(), ..*choice };
        families.into_iter().try_fold(kept, |kept, family| self.add(kept, family, &choice))
    }

    /// With an address of a family, if there is none yet.
    fn add(&mut self, kept: Given, family: Family, choice: &Choice) -> Result<Given, Refusal> {
        if kept.of(family).is_some() {
            return Ok(kept);
        }
        let found = choice.pools.iter().find_map(|pool| self.pick(*pool, family, choice));
        let exhausted = || self.pools.exhausted(&choice.pools, family);
        found.map(|address| kept.with(family, Some(address))).ok_or_else(exhausted)
    }

    /// Both of one pool.
    fn both(&mut self, families: [Family; 2], choice: &Choice) -> Option<Given> {
        choice.pools.iter().find_map(|pool| {
            families.into_iter().try_fold(Given::default(), |given, family| {
                Some(given.with(family, Some(self.pick(*pool, family, choice)?)))
            })
        })
    }

    /// An address of a pool and a family, rather a shared one than a free one.
    fn pick(&mut self, pool: usize, family: Family, choice: &Choice) -> Option<IpAddr> {
        let of_family = choice.shareable.iter().copied().filter(|address| Family::of(*address) == family);
        let shared = of_family.into_iter().find(|address| self.pools.contains(pool, *address));
        shared.or_else(|| self.book.free(pool, family, choice.who))
    }

    /// Makes it so.
    fn give(&mut self, who: usize, new: Given) {
        let old = std::mem::replace(&mut self.given[who], new);
        for family in [Family::V4, Family::V6] {
            if old.of(family) == new.of(family) {
                continue;
            }
            self.changed = true;
            if let Some(address) = old.of(family) {
                self.book.leave(address, who);
                self.left = true;
            }
            if let Some(address) = new.of(family) {
                self.book.enter(address, who);
            }
        }
    }

    /// What came of it, for each Service.
    pub fn finish(self) -> Vec<Allocation> {
        let told = self.problems.into_iter().zip(self.moved);
        let allocation = |((wish, given), (problem, moved)): ((&Wish<'_>, Given), (Option<Refusal>, _))| {
            let addresses: Vec<IpAddr> =
                wish.families.iter().filter_map(|family| given.of(*family)).collect();
            Allocation { problem: problem.map(|problem| keeping(problem, &addresses)), moved, addresses }
        };
        self.wishes.iter().zip(self.given).zip(told).map(allocation).collect()
    }
}

/// Adds what a Service has meanwhile.
fn keeping(problem: Refusal, addresses: &[IpAddr]) -> Refusal {
    if addresses.is_empty() {
        return problem;
    }
    Refusal { message: format!("{}. It keeps {} meanwhile", problem.message, words(addresses)), ..problem }
}
