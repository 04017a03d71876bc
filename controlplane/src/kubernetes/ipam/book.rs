//! Which addresses are in use, by whom, and which is the next free one.
//!
//! Services share an address if their keys are the same and no port of theirs is: traffic policies, selectors and
//! namespaces do not matter, because this box forwards by port and asks no node to have an address to itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::pools::Pools;
use super::wish::Wish;
use super::{Reason, Refusal, SHARE, recorded};
use crate::kubernetes::facts::{Family, ServiceKey};

/// Most addresses of the same key that are looked at for one to share: where thousands of Services have one key and
/// the same port, looking at all of them would be a square.
const PARTNERS_MAX: usize = 32;

/// Numbers stand for pools and, in order of age, for Services.
pub struct Book<'w> {
    pools: &'w Pools<'w>,
    wishes: &'w [Wish<'w>],
    uses: HashMap<IpAddr, Use<'w>>,
    /// What can be given to nobody, and who has it.
    taken: HashMap<IpAddr, Holder<'w>>,
    /// Whose status has it. Until it has not any more, kube-proxy takes packets to it for that one.
    shown: HashMap<IpAddr, Vec<usize>>,
    /// Addresses in use by key.
    partners: HashMap<&'w str, BTreeSet<IpAddr>>,
    /// Addresses that were in use and no longer are: a cursor may be past them.
    freed: BTreeSet<IpAddr>,
    /// For each pool and family, the place before which everything is in use or was freed.
    cursors: HashMap<(usize, Family), Cursor>,
}

/// Who has an address that is not given here.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'f> {
    /// One that is not ours, has still to be released, or shows what it has left.
    Service(&'f ServiceKey),
    /// By name.
    Node(&'f str),
}

/// The users of one address.
#[derive(Default)]
struct Use<'w> {
    users: BTreeSet<usize>,
    /// The key of all users, who otherwise are but one.
    share: Option<&'w str>,
    ports: BTreeMap<PortId<'w>, usize>,
}

type PortId<'w> = (&'w str, u16);

#[derive(Clone, Copy, Default)]
struct Cursor {
    range: usize,
    offset: u128,
}

/// Why an address cannot be used.
pub struct Obstacle<'w> {
    /// Who has it.
    other: usize,
    /// A port that both have, if they could share but for that.
    port: Option<PortId<'w>>,
}

impl<'w> Book<'w> {
    /// None of the Services has anything.
    pub fn new(pools: &'w Pools<'w>, wishes: &'w [Wish<'w>], taken: HashMap<IpAddr, Holder<'w>>) -> Self {
        let mut shown: HashMap<IpAddr, Vec<usize>> = HashMap::with_capacity(wishes.len());
        for (who, wish) in wishes.iter().enumerate() {
            recorded(wish.service)
                .into_iter()
                .for_each(|address| shown.entry(address).or_default().push(who));
        }
        Self {
            pools,
            wishes,
            uses: HashMap::with_capacity(wishes.len()),
            taken,
            shown,
            partners: HashMap::new(),
            freed: BTreeSet::new(),
            cursors: HashMap::new(),
        }
    }

    /// What keeps a Service from using an address.
    pub fn obstacle(&self, address: IpAddr, who: usize) -> Option<Obstacle<'w>> {
        let used = self.uses.get(&address)?;
        let other = *used.users.iter().find(|user| **user != who)?;
        if used.share.is_none() || used.share != self.wishes[who].share {
            return Some(Obstacle { other, port: None });
        }
        let taken = |port| used.ports.get(&port).filter(|user| **user != who).map(|user| (port, *user));
        ports(&self.wishes[who]).find_map(taken).map(|(port, other)| Obstacle { other, port: Some(port) })
    }

    /// A Service uses an address from now on; there must be no obstacle.
    pub fn enter(&mut self, address: IpAddr, who: usize) {
        let wish = &self.wishes[who];
        let used = self.uses.entry(address).or_default();
        used.users.insert(who);
        used.share = wish.share;
        used.ports.extend(ports(wish).map(|port| (port, who)));
        if let Some(share) = wish.share {
            self.partners.entry(share).or_default().insert(address);
        }
        self.freed.remove(&address);
    }

    /// A Service uses an address no longer.
    pub fn leave(&mut self, address: IpAddr, who: usize) {
        let Some(used) = self.uses.get_mut(&address) else { return };
        used.users.remove(&who);
        used.ports.retain(|_, user| *user != who);
        if !used.users.is_empty() {
            return;
        }
        self.uses.remove(&address);
        if let Some(addresses) = self.wishes[who].share.and_then(|share| self.partners.get_mut(share)) {
            addresses.remove(&address);
        }
        self.freed.insert(address);
    }

    /// Addresses that a Service could share with others of its key.
    pub fn shareable(&self, who: usize) -> Vec<IpAddr> {
        let Some(addresses) = self.wishes[who].share.and_then(|share| self.partners.get(share)) else {
            return Vec::new();
        };
        let looked_at = addresses.iter().copied().take(PARTNERS_MAX);
        let is_its =
            |address: &IpAddr| self.obstacle(*address, who).is_none() && self.holder(*address, who).is_none();
        looked_at.filter(is_its).collect()
    }

    /// An address of a pool that nobody uses, for a Service; rather one that it shows.
    pub fn free(&mut self, pool: usize, family: Family, who: usize) -> Option<IpAddr> {
        let own = || self.shown_in(pool, family, who);
        own().or_else(|| self.freed_in(pool, family, who)).or_else(|| self.next(pool, family, who))
    }

    /// A cursor may be past it, since it is given to nobody else.
    fn shown_in(&self, pool: usize, family: Family, who: usize) -> Option<IpAddr> {
        let is_free = |address: &IpAddr| {
            let of_pool = Family::of(*address) == family && self.pools.contains(pool, *address);
            of_pool && !self.uses.contains_key(address) && self.is_given(pool, *address, who)
        };
        recorded(self.wishes[who].service).into_iter().find(is_free)
    }

    fn freed_in(&self, pool: usize, family: Family, who: usize) -> Option<IpAddr> {
        if self.freed.is_empty() {
            return None;
        }
        let ranges = self.pools.ranges(pool, family).iter();
        let mut freed = ranges.flat_map(|range| self.freed.range(range.first()..=range.last()));
        freed.find(|address| self.is_given(pool, **address, who)).copied()
    }

    /// Whether a pool gives a Service one of its addresses, but for who uses it.
    fn is_given(&self, pool: usize, address: IpAddr, who: usize) -> bool {
        self.pools.at(pool).gives(address) && self.holder(address, who).is_none()
    }

    /// Moves a cursor on to the next address that nobody uses.
    fn next(&mut self, pool: usize, family: Family, who: usize) -> Option<IpAddr> {
        let mut cursor = self.cursors.get(&(pool, family)).copied().unwrap_or_default();
        let mut found = None;
        while let (None, Some(range)) = (found, self.pools.ranges(pool, family).get(cursor.range)) {
            match range.nth(cursor.offset) {
                None => cursor = Cursor { range: cursor.range + 1, offset: 0 },
                Some(address) if !self.uses.contains_key(&address) && self.is_given(pool, address, who) => {
                    found = Some(address);
                }
                Some(_) => cursor.offset += 1,
            }
        }
        self.cursors.insert((pool, family), cursor);
        found
    }

    /// Who has an address that this Service therefore cannot be given, though no pool's user has it.
    fn holder(&self, address: IpAddr, who: usize) -> Option<Holder<'w>> {
        let uses = |other: &usize| self.uses.get(&address).is_some_and(|used| used.users.contains(other));
        let has_left = |other: &&usize| **other != who && !uses(other);
        let shown = || self.shown.get(&address)?.iter().find(has_left);
        let taken = self.taken.get(&address).copied();
        taken.or_else(|| shown().map(|other| Holder::Service(self.wishes[*other].key)))
    }

    /// Refuses an address that a Service cannot be given, whoever uses it.
    pub fn is_ours_to_give(&self, address: IpAddr, who: usize) -> Result<(), Refusal> {
        let message = match self.holder(address, who) {
            None => return Ok(()),
            Some(Holder::Service(key)) => {
                format!(
                    "{address} is in the status of {key}; ask for another, or wait until that one has left it"
                )
            }
            Some(Holder::Node(name)) => format!("{address} is an address of node {name}; ask for another"),
        };
        Err(Reason::AddressInUse.because(message))
    }

    /// That a requested address is in use.
    pub fn in_use(&self, address: IpAddr, obstacle: &Obstacle<'_>) -> Refusal {
        let other = self.wishes[obstacle.other].key;
        Reason::AddressInUse.because(match obstacle.port {
            Some((protocol, port)) => format!(
                "{other} has {protocol} port {port} of {address}; ask for another address, or change one of the ports"
            ),
            None => format!(
                "{address} is in use by {other}; ask for another, or give both the same annotation {SHARE} if their \
                 ports differ"
            ),
        })
    }

    /// That a Service had to leave an address to an older one.
    pub fn lost(&self, address: IpAddr, obstacle: &Obstacle<'_>) -> Refusal {
        let other = self.wishes[obstacle.other].key;
        Reason::AddressInUse.because(match obstacle.port {
            Some((protocol, port)) => {
                format!(
                    "{address} was left to {other}, which is older and has {protocol} port {port} of it too"
                )
            }
            None => format!(
                "{address} was left to {other}, which is older and does not share it with this Service"
            ),
        })
    }
}

fn ports<'w>(wish: &Wish<'w>) -> impl Iterator<Item = PortId<'w>> {
    wish.service.ports.iter().map(|port| (port.protocol_name.as_str(), port.port))
}
