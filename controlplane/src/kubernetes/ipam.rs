//! Who has which address. Decides for every Service of ours what it should have, always the same for the same
//! circumstances, and so that whoever has an address keeps it. Never looks at a clock and never asks a cluster.
//!
//! The record is the Services' status, read when a Service is seen first; from then on [`Ipam`] knows better than a
//! status that is still to be written. An `Ipam` therefore belongs to one cluster and one term of leadership: the next
//! term begins with a new one. Nothing may be asked of it before all Services and all pools are known: what is not
//! known is free.
//!
//! In each [`Ipam::assign`], the oldest Service first:
//! 1. Everyone keeps what it has, unless no pool contains it any more, the Service no longer wants its family, or an
//!    older Service has it that it cannot share with. While a pool is refused, whatever is in no pool may be of that one
//!    and is kept: a slip in a pool takes no address away.
//! 2. Requested addresses are given. One that cannot be leaves the Service with what it has.
//! 3. Whoever lacks an address gets one from the pools that are for it. Whoever waits is tried again every time.
//!
//! Nobody is given what a node has, nor what is in the status of another Service that does not have it: be it not ours, or
//! not ours any more, or have it left the address, until its status says so kube-proxy takes packets to it for that one.
//!
//! Whoever does not lead takes the first step alone ([`Ipam::keep`]). To it a status that is another than when it was
//! decided is what somebody else decided since.

mod book;
mod given;
mod pools;
mod refusal;
mod round;
mod wish;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use shunt_api::address_pool::AddressPool;

use self::book::Holder;
use self::pools::Pools;
pub use self::refusal::{Reason, Refusal};
use self::round::Round;
use self::wish::Wish;
use super::facts::{Facts, Service, ServiceKey};

/// Annotation: the addresses that a Service wants, one of each family at most, with commas between.
pub const ADDRESSES: &str = "shunt.dev/addresses";
/// Annotation: the pool that a Service wants addresses of.
pub const POOL: &str = "shunt.dev/pool";
/// Annotation: Services where this is the same may share an address.
pub const SHARE: &str = "shunt.dev/share";

/// What there is to give addresses from.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'p> {
    /// In whatever order.
    pub pools: &'p [AddressPool],
    /// There are no others, refused ones for instance.
    pub is_whole: bool,
}

/// Remembers who was given what.
#[derive(Debug, Default)]
pub struct Ipam {
    held: HashMap<ServiceKey, Held>,
}

/// What a Service was given.
#[derive(Debug)]
struct Held {
    uid: String,
    addresses: Vec<IpAddr>,
    /// What its status said then.
    shown: Vec<IpAddr>,
}

/// What a Service should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// In the order of its families, one of each at most.
    pub addresses: Vec<IpAddr>,
    /// What it asks for and does not have, for as long as it does not; with addresses as well as without.
    pub problem: Option<Refusal>,
    /// Why it had to leave an address, said only by the call in which it had to.
    pub moved: Option<Refusal>,
}

impl Ipam {
    /// Decides for the Services with these keys; others, and those no longer there, have nothing from now on.
    pub fn assign<'k>(
        &mut self,
        offer: Offer<'_>,
        facts: &Facts,
        ours: impl IntoIterator<Item = &'k ServiceKey>,
    ) -> BTreeMap<ServiceKey, Allocation> {
        self.decide(offer, facts, ours, true)
    }

    /// The same, but that nobody is given anything: for whoever does not decide.
    pub fn keep<'k>(
        &mut self,
        offer: Offer<'_>,
        facts: &Facts,
        ours: impl IntoIterator<Item = &'k ServiceKey>,
    ) -> BTreeMap<ServiceKey, Allocation> {
        self.decide(offer, facts, ours, false)
    }

    fn decide<'k>(
        &mut self,
        offer: Offer<'_>,
        facts: &Facts,
        ours: impl IntoIterator<Item = &'k ServiceKey>,
        leads: bool,
    ) -> BTreeMap<ServiceKey, Allocation> {
        let pools = Pools::new(offer);
        let ours: BTreeSet<&ServiceKey> = ours.into_iter().collect();
        let taken = taken(facts, &ours);
        let known = ours.into_iter().filter_map(|key| facts.services.get_key_value(key));
        let mut wishes: Vec<Wish<'_>> = known.map(|(key, service)| Wish::of(key, service, facts)).collect();
        wishes.sort_by_key(|wish| (wish.service.created_s, wish.key));
        let mut round = Round::new(&pools, &wishes, taken);
        let had = wishes.iter().map(|wish| self.had(wish, leads)).enumerate();
        // What somebody else decided since goes before what was decided here.
        let (since, before): (Vec<_>, Vec<_>) = had.partition(|(_, (_, of_status))| *of_status && !leads);
        since.iter().chain(&before).for_each(|(who, (addresses, _))| round.keep(*who, addresses));
        if leads {
            round.settle();
        }
        let allocations: Vec<Allocation> = round.finish();
        let held = |(wish, allocation): (&Wish<'_>, &Allocation)| {
            let (uid, shown) = (wish.service.uid.clone(), recorded(wish.service));
            (wish.key.clone(), Held { uid, addresses: allocation.addresses.clone(), shown })
        };
        self.held = wishes.iter().zip(&allocations).map(held).collect();
        wishes.iter().map(|wish| wish.key.clone()).zip(allocations).collect()
    }

    /// What a Service had, and whether its status says so.
    fn had(&self, wish: &Wish<'_>, leads: bool) -> (Vec<IpAddr>, bool) {
        let shown = recorded(wish.service);
        let held = self.held.get(wish.key).filter(|held| held.uid == wish.service.uid);
        let is_news = |held: &Held| !shown.is_empty() && (held.addresses.is_empty() || held.shown != shown);
        match held.filter(|held| leads || !is_news(held)) {
            Some(held) => (held.addresses.clone(), false),
            None => (shown, true),
        }
    }
}

/// What nobody of these can be given, and who has it.
fn taken<'f>(facts: &'f Facts, ours: &BTreeSet<&ServiceKey>) -> HashMap<IpAddr, Holder<'f>> {
    let others = facts.services.iter().filter(|(key, _)| !ours.contains(key));
    let shown = others.flat_map(|(key, service)| {
        recorded(service).into_iter().map(move |address| (address, Holder::Service(key)))
    });
    let nodes = facts.nodes.iter().flat_map(|(name, node)| {
        node.addresses.iter().map(move |address| (address.to_canonical(), Holder::Node(name)))
    });
    shown.chain(nodes).collect()
}

/// The addresses in a Service's status.
fn recorded(service: &Service) -> Vec<IpAddr> {
    service.ingress.iter().filter_map(|ingress| ingress.ip).map(|address| address.to_canonical()).collect()
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
