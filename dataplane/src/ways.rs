//! From what the kernel says of routes, neighbours and links to the ways that workers read. Pure; called by the
//! control thread for every publication.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use shunt_api::counters::DropReason;
use shunt_api::mac::MacAddress;

use crate::limits::SINGLE_BUFFER_MTU;
use crate::neighbor::{self, HopMap, LinkMap};
use crate::packet::ethernet;
use crate::packet::steering::MIN_HEADROOM;
use crate::path_mtu::PathMtus;
use crate::port::NicIndex;
use crate::rewrite::Link;
use crate::table::{Hop, NicLink, OpenHop, Table};

/// What is known of the network.
pub struct Ways<'a> {
    /// The way to each backend address.
    pub hops: &'a HopMap,
    /// All links.
    pub links: &'a LinkMap,
    /// Of the NICs served, in their order.
    pub ifindexes: &'a [u32],
    /// Learned from ICMP messages.
    pub path_mtus: &'a PathMtus,
    /// What the sockets can carry, if that is limited.
    pub mtu_limit: Option<u32>,
}

impl Ways<'_> {
    /// The way to each backend of a table, by `BackendId`.
    pub fn to_backends(&self, table: &Table) -> Box<[Hop]> {
        let mut by_id = vec![Hop::Closed(DropReason::NeighborUnresolved); table.backend_limit()];
        for (id, address) in table.backends() {
            if let Some(hop) = self.hops.get(&address) {
                by_id[id.0 as usize] = self.to(address, hop);
            }
        }
        by_id.into()
    }

    /// The way to each of these addresses.
    pub fn to_each(&self, addresses: BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Hop> {
        let unknown = Hop::Closed(DropReason::NeighborUnresolved);
        let to = |address| (address, self.hops.get(&address).map_or(unknown, |hop| self.to(address, hop)));
        addresses.into_iter().map(to).collect()
    }

    /// What replies to clients leave by, by `NicIndex`.
    pub fn nics(&self) -> Box<[NicLink]> {
        let nic = |ifindex| {
            let link = self.links.get(ifindex);
            let mtu = self.carried(link.map_or(0, |link| link.mtu));
            NicLink { mac: link.map(|link| link.mac).unwrap_or_default(), mtu }
        };
        self.ifindexes.iter().map(nic).collect()
    }

    fn to(&self, backend: IpAddr, hop: &neighbor::Hop) -> Hop {
        let resolved = match hop {
            neighbor::Hop::Resolved(resolved) => resolved,
            neighbor::Hop::NoRoute => return Hop::Closed(DropReason::NoRoute),
            neighbor::Hop::RouteElsewhere { .. } => return Hop::Closed(DropReason::RouteElsewhere),
            neighbor::Hop::Unresolved => return Hop::Closed(DropReason::NeighborUnresolved),
        };
        let Some(index) = self.ifindexes.iter().position(|ifindex| *ifindex == resolved.ifindex) else {
            return Hop::Closed(DropReason::RouteElsewhere);
        };
        let link = Link {
            destination: resolved.destination_mac,
            source: resolved.source_mac,
            vlan: resolved.vlan,
            mtu: self.carried(self.path_mtus.limit(backend, resolved.mtu)),
        };
        Hop::Open(OpenHop {
            nic: NicIndex(index as u8),
            link,
            on_link: resolved.gateway.is_none(),
            source: resolved.source_address,
        })
    }

    fn carried(&self, mtu: u32) -> u32 {
        self.mtu_limit.map_or(mtu, |limit| mtu.min(limit))
    }
}

/// The Ethernet addresses that frames to a NIC carry: its own, then those of the VLAN devices on it, each once. Empty if
/// its own is not known.
pub fn stations(links: &LinkMap, nic: u32) -> Vec<MacAddress> {
    let Some(own) = links.get(&nic).map(|link| link.mac).filter(|mac| *mac != MacAddress::default()) else {
        return Vec::new();
    };
    let is_on = |ifindex: u32| {
        let mut below = links.get(&ifindex).and_then(|link| link.vlan);
        // Two tags at most are read; a chain of devices has an end.
        for _ in 0..links.len() {
            match below {
                Some(vlan) if vlan.parent == nic => return true,
                Some(vlan) => below = links.get(&vlan.parent).and_then(|link| link.vlan),
                None => return false,
            }
        }
        false
    };
    let mut macs = vec![own];
    for (ifindex, link) in links {
        if !macs.contains(&link.mac) && is_on(*ifindex) {
            macs.push(link.mac);
        }
    }
    macs
}

/// Every address of ours with the headroom that its packets need: for a tunnel header, and for the VLAN tag of the
/// way out if any has one.
pub fn headrooms(table: &Table, hops: &[Hop], nics: &[NicLink]) -> BTreeMap<IpAddr, u32> {
    // Clients of translated flows may have tags, too; a packet that fills its buffer has no other room for them.
    let jumbo = table.nat.is_some() && nics.iter().any(|nic| nic.mtu > SINGLE_BUFFER_MTU);
    let tagged = jumbo || open(hops).any(|hop| hop.link.vlan.is_some());
    let tag = if tagged { ethernet::TAG_LENGTH as u32 } else { 0 };
    let with_tag = |headroom: u32| match headroom + tag {
        0 => 0,
        headroom => headroom.max(MIN_HEADROOM),
    };
    table.owned().into_iter().map(|(address, headroom)| (address, with_tag(headroom))).collect()
}

/// Where routers send their errors about our tunnels to.
pub fn tunnel_sources(table: &Table, hops: &[Hop]) -> BTreeSet<IpNet> {
    if !table.has_tunnels() {
        return BTreeSet::new();
    }
    let configured = [table.tunnel.source_v4.map(IpNet::V4), table.tunnel.source_v6.map(IpNet::V6)];
    // Where a prefix is configured no tunnel of ours comes from the box's own address, and errors are the kernel's.
    let is_used = |own: &IpAddr| configured[usize::from(own.is_ipv6())].is_none();
    let own = open(hops).filter_map(|hop| hop.source.filter(is_used).map(IpNet::from));
    configured.into_iter().flatten().chain(own).collect()
}

fn open(hops: &[Hop]) -> impl Iterator<Item = &OpenHop> {
    hops.iter().filter_map(|hop| match hop {
        Hop::Open(hop) => Some(hop),
        Hop::Closed(_) => None,
    })
}

#[cfg(test)]
mod tests;
