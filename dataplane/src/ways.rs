//! From what the kernel says of routes, neighbours and links to the ways that workers read. Pure; called by the
//! control thread for every publication.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use shunt_api::counters::DropReason;

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
mod tests {
    use std::time::Instant;

    use shunt_api::mac::MacAddress;
    use shunt_api::snapshot::Mode::{Dr, Ipip};

    use super::*;
    use crate::neighbor::ResolvedHop;
    use crate::packet::ethernet::VlanTag;
    use crate::testing::{snapshot, table};

    const DR: &str = "10.0.0.1";
    const FAR: &str = "10.0.0.2";

    fn resolved(vlan: Option<VlanTag>) -> neighbor::Hop {
        neighbor::Hop::Resolved(ResolvedHop {
            ifindex: 7,
            source_mac: MacAddress([2; 6]),
            destination_mac: MacAddress([4; 6]),
            vlan,
            gateway: None,
            source_address: "10.0.0.254".parse().ok(),
            mtu: 9000,
        })
    }

    fn small() -> Table {
        table(&snapshot(
            &[&[(DR, 1, Dr)], &[(FAR, 1, Ipip)]],
            &[("192.0.2.1", "tcp/80", 0), ("192.0.2.2", "tcp/80", 1)],
        ))
    }

    fn mtus(path_mtus: &PathMtus, mtu_limit: Option<u32>) -> Vec<u32> {
        let hops: HopMap = [DR, FAR].map(|address| (address.parse().unwrap(), resolved(None))).into();
        let ways = Ways { hops: &hops, links: &LinkMap::new(), ifindexes: &[3, 7], path_mtus, mtu_limit };
        let hops = ways.to_backends(&small());
        assert!(open(&hops).all(|hop| hop.nic == NicIndex(1) && hop.on_link));
        open(&hops).map(|hop| hop.link.mtu).collect()
    }

    #[test]
    fn the_least_mtu_on_the_way_counts() {
        let mut paths = PathMtus::default();
        assert_eq!(mtus(&paths, None), [9000, 9000]);
        paths.heard(FAR.parse().unwrap(), 1400, Instant::now());
        assert_eq!(mtus(&paths, None), [9000, 1400]);
        assert_eq!(mtus(&paths, Some(1730)), [1730, 1400]);
    }

    #[test]
    fn a_tag_needs_room_for_itself_and_the_mark() {
        let tag = VlanTag { tpid: 0x8100, id: 20 };
        for (vlan, expected) in [(None, [0, 20]), (Some(tag), [MIN_HEADROOM, 24])] {
            let hops: HopMap = [(DR.parse().unwrap(), resolved(vlan))].into();
            let path_mtus = &PathMtus::default();
            let ways =
                Ways { hops: &hops, links: &LinkMap::new(), ifindexes: &[7], path_mtus, mtu_limit: None };
            let (table, hops) = (small(), ways.to_backends(&small()));
            assert_eq!(headrooms(&table, &hops, &[]).into_values().collect::<Vec<_>>(), expected);
            assert_eq!(tunnel_sources(&table, &hops), ["10.0.0.254/32".parse().unwrap()].into());
        }
    }
}
