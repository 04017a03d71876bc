//! Everything known about links, routes and neighbours, and what follows from it. Pure: facts come in with
//! [`World::apply`] and [`World::answer`], questions go out with [`World::requests`], hops with
//! [`World::news`]; `now` is always an argument.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::entry::{Need, Neighbour, State};
use super::facts::{Answer, Event, Inquiry, Requests, Route};
use super::rounds::Rounds;
use super::schedule::{Key, Schedule};
use super::{Hop, HopMap, Link, LinkMap, ResolvedHop};
use crate::packet::ethernet::VlanTag;

/// Everything is read from the kernel again this often, in case an event was lost without a sign, and for
/// changes that have no event (path MTU, redirects).
const RESYNC_EVERY: Duration = Duration::from_secs(60);
/// Least time between two resyncs when events keep overrunning the socket.
const RESYNC_PAUSE: Duration = Duration::from_secs(1);

/// What is known, and what is to be asked.
#[derive(Debug)]
pub(super) struct World {
    served: BTreeSet<u32>,
    wanted: BTreeMap<IpAddr, Option<Answer>>,
    links: LinkMap,
    neighbours: BTreeMap<Key, Neighbour>,
    schedule: Schedule,
    rounds: Rounds,
    resync_due: Instant,
    resynced: Option<Instant>,
    /// Something changed that decides which neighbours are in use.
    unsettled: bool,
    /// Something changed that shows in a hop or a link.
    news: bool,
}

/// How frames of a route leave.
#[derive(Clone, Copy, Debug)]
struct Egress {
    /// The NIC, which Shunt serves.
    nic: u32,
    /// What it has to put on them.
    vlan: Option<VlanTag>,
}

impl World {
    /// Knows nothing and wants to read everything.
    pub fn new(now: Instant) -> Self {
        Self {
            served: BTreeSet::new(),
            wanted: BTreeMap::new(),
            links: LinkMap::new(),
            neighbours: BTreeMap::new(),
            schedule: Schedule::default(),
            rounds: Rounds::default(),
            resync_due: now,
            resynced: None,
            unsettled: true,
            news: true,
        }
    }

    /// Shunt serves exactly these NICs.
    pub fn serve(&mut self, served: &BTreeSet<u32>) {
        self.served.clone_from(served);
        self.changed();
    }

    /// Exactly these addresses need a hop.
    pub fn want(&mut self, wanted: &BTreeSet<IpAddr>, now: Instant) {
        let (dropped, kept) = std::mem::take(&mut self.wanted)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(address, _)| !wanted.contains(address));
        self.wanted = kept;
        for address in dropped.keys() {
            self.rounds.forget(address);
        }
        for &address in wanted {
            if let Entry::Vacant(new) = self.wanted.entry(address) {
                new.insert(None);
                self.rounds.start([address], now);
            }
        }
        self.changed();
    }

    /// Takes note of a change.
    pub fn apply(&mut self, event: Event, now: Instant) {
        match event {
            Event::Link { ifindex, link } => self.link(ifindex, link, now),
            Event::LinkGone { ifindex } => {
                self.links.remove(&ifindex);
                self.neighbours.retain(|key, _| key.0 != ifindex);
                self.suspect_all(now);
                self.changed();
            }
            Event::Neighbour { key, state, mac } => self.neighbour(key, now, |known| known.heard(state, mac)),
            Event::NeighbourGone { key } => self.neighbour(key, now, Neighbour::removed),
            Event::RouteChanged(prefix) => {
                let inside = self.wanted.range(prefix.network()..=prefix.broadcast());
                self.rounds.suspect(inside.map(|(address, _)| *address), now);
            }
            Event::RoutesChanged => self.suspect_all(now),
        }
    }

    /// Takes note of the route of `address`.
    pub fn answer(&mut self, address: IpAddr, answer: Answer, now: Instant) {
        self.rounds.answered(now);
        if let Some(known) = self.wanted.get_mut(&address)
            && known.as_ref() != Some(&answer)
        {
            *known = Some(answer);
            self.changed();
        }
    }

    /// The route of `address` could not be told just now; it is asked for again.
    pub fn ask_again(&mut self, address: IpAddr, now: Instant) {
        self.rounds.answered(now);
        self.rounds.suspect(self.wanted.contains_key(&address).then_some(address), now);
    }

    /// Takes note of all links and neighbours that there are; whatever is not among them is gone.
    pub fn resync(&mut self, found: Vec<Event>, now: Instant) {
        let (mut links, mut neighbours) = (BTreeSet::new(), BTreeSet::new());
        for event in found {
            match &event {
                Event::Link { ifindex, .. } => _ = links.insert(*ifindex),
                Event::Neighbour { key, .. } => _ = neighbours.insert(*key),
                _ => {}
            }
            self.apply(event, now);
        }
        let lost: Vec<u32> = self.links.keys().filter(|ifindex| !links.contains(ifindex)).copied().collect();
        for ifindex in lost {
            self.apply(Event::LinkGone { ifindex }, now);
        }
        let lost: Vec<Key> =
            self.neighbours.keys().filter(|key| !neighbours.contains(key)).copied().collect();
        for key in lost {
            self.apply(Event::NeighbourGone { key }, now);
        }
        self.rounds.start(self.wanted.keys().copied(), now);
        self.resynced = Some(now);
        self.resync_due = now + RESYNC_EVERY;
    }

    /// Events were lost: everything has to be read again.
    pub fn overrun(&mut self, now: Instant) {
        self.resync_due = self.resynced.map_or(now, |resynced| now.max(resynced + RESYNC_PAUSE));
    }

    /// What must be asked now. A resync comes alone.
    pub fn requests(&mut self, now: Instant) -> Requests {
        if now >= self.resync_due {
            return Requests { resync: true, ..Requests::default() };
        }
        self.settle(now);
        let routes = self.rounds.take_due(now);
        let due = self.schedule.take_due(now);
        Requests { resync: false, routes, neighbours: due.into_iter().map(|key| self.inquire(key)).collect() }
    }

    /// When [`World::requests`] will have something, if nothing happens before.
    pub fn next_deadline(&self) -> Instant {
        let next = [self.rounds.next(), self.schedule.next(), Some(self.resync_due)];
        next.into_iter().flatten().min().expect("the resync is always due some time")
    }

    /// All links and all hops, if any of them may have changed since the last call.
    pub fn news(&mut self) -> Option<(LinkMap, HopMap)> {
        if !std::mem::take(&mut self.news) {
            return None;
        }
        let hops =
            self.wanted.iter().map(|(address, answer)| (*address, self.hop(*address, answer.as_ref())));
        Some((self.links.clone(), hops.collect()))
    }

    fn hop(&self, address: IpAddr, answer: Option<&Answer>) -> Hop {
        match answer {
            None => Hop::Unresolved,
            Some(Answer::NoRoute) => Hop::NoRoute,
            Some(Answer::Local { ifindex }) => self.elsewhere(*ifindex),
            Some(Answer::Via(route)) => match self.egress(route.ifindex) {
                Some(egress) => self.hop_via(address, route, egress),
                None => self.elsewhere(route.ifindex),
            },
        }
    }

    fn hop_via(&self, address: IpAddr, route: &Route, egress: Egress) -> Hop {
        let (Some(device), Some(nic)) = (self.link_up(route.ifindex), self.link_up(egress.nic)) else {
            return Hop::NoRoute;
        };
        let neighbour = self.neighbours.get(&(route.ifindex, route.gateway.unwrap_or(address)));
        let Some(destination_mac) = neighbour.and_then(|neighbour| neighbour.mac) else {
            return Hop::Unresolved;
        };
        Hop::Resolved(ResolvedHop {
            ifindex: egress.nic,
            vlan: egress.vlan,
            source_mac: device.mac,
            destination_mac,
            gateway: route.gateway,
            source_address: route.source,
            mtu: route.mtu.unwrap_or(u32::MAX).min(device.mtu).min(nic.mtu),
        })
    }

    /// How frames leave for a route by `device`, if they can leave by Shunt at all. One tag is written at most,
    /// so there is no way for a VLAN on a VLAN.
    fn egress(&self, device: u32) -> Option<Egress> {
        if self.served.contains(&device) {
            return Some(Egress { nic: device, vlan: None });
        }
        let vlan = self.links.get(&device)?.vlan?;
        let stacked = self.links.get(&vlan.parent).is_some_and(|parent| parent.vlan.is_some());
        let served = self.served.contains(&vlan.parent) && !stacked;
        served.then_some(Egress { nic: vlan.parent, vlan: Some(vlan.tag) })
    }

    fn link_up(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex).filter(|link| link.up)
    }

    fn elsewhere(&self, ifindex: u32) -> Hop {
        let name = self.links.get(&ifindex).map(|link| link.name.clone());
        Hop::RouteElsewhere { ifname: name.unwrap_or_else(|| format!("ifindex {ifindex}")) }
    }

    fn link(&mut self, ifindex: u32, link: Link, now: Instant) {
        if !link.up {
            self.unplug(ifindex);
        }
        if self.links.get(&ifindex) != Some(&link) {
            self.links.insert(ifindex, link);
            self.changed();
        }
        self.suspect_all(now);
    }

    /// A link went down, and with it the VLANs on it, whether or not the kernel says so of each.
    fn unplug(&mut self, ifindex: u32) {
        let links = &self.links;
        let cut = |device: u32| {
            let vlan = links.get(&device).and_then(|link| link.vlan);
            device == ifindex || vlan.is_some_and(|vlan| vlan.parent == ifindex)
        };
        for (_, neighbour) in self.neighbours.iter_mut().filter(|(key, _)| cut(key.0)) {
            *neighbour = neighbour.unplugged();
        }
    }

    fn neighbour(&mut self, key: Key, now: Instant, change: impl FnOnce(Neighbour) -> Neighbour) {
        let before = self.neighbours.get(&key).copied().unwrap_or(Neighbour::UNKNOWN);
        let after = change(before);
        let in_use = self.schedule.contains(&key);
        if after.state == State::Absent && !in_use {
            self.neighbours.remove(&key);
        } else {
            self.neighbours.insert(key, after);
        }
        if in_use {
            self.schedule.plan(key, after.need(), now);
            self.news |= before.mac != after.mac;
        }
    }

    /// The question about `key`. Once it is asked the kernel has an entry, though it does not report its
    /// first state. Making an entry is asked for only where there is none, and the kernel then refuses if a
    /// person has made a permanent one a moment ago; using that one would strip it of being permanent.
    fn inquire(&mut self, key: Key) -> Inquiry {
        let neighbour = self.neighbours.entry(key).or_insert(Neighbour::UNKNOWN);
        let create = neighbour.state == State::Absent;
        if create {
            neighbour.state = State::Resolving;
        }
        Inquiry { key, create }
    }

    /// Brings the schedule into line with the neighbours that the hops use.
    fn settle(&mut self, now: Instant) {
        if !std::mem::take(&mut self.unsettled) {
            return;
        }
        let in_use: BTreeSet<Key> =
            self.wanted.iter().filter_map(|(address, answer)| self.key(*address, answer.as_ref()?)).collect();
        self.schedule.keep(&in_use);
        for key in in_use {
            let need = self.neighbours.get(&key).map_or(Need::Resolve, |neighbour| neighbour.need());
            self.schedule.plan(key, need, now);
        }
        let schedule = &self.schedule;
        self.neighbours.retain(|key, neighbour| neighbour.state != State::Absent || schedule.contains(key));
    }

    /// The neighbour that frames to `address` go to, if they can go at all.
    fn key(&self, address: IpAddr, answer: &Answer) -> Option<Key> {
        let Answer::Via(route) = answer else { return None };
        let nic = self.egress(route.ifindex)?.nic;
        self.link_up(route.ifindex).and(self.link_up(nic))?;
        Some((route.ifindex, route.gateway.unwrap_or(address)))
    }

    fn suspect_all(&mut self, now: Instant) {
        self.rounds.suspect(self.wanted.keys().copied(), now);
    }

    fn changed(&mut self) {
        self.unsettled = true;
        self.news = true;
    }
}

#[cfg(test)]
mod tests;
