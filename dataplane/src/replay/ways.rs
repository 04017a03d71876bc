//! The ways out of a box that is not there: every backend is on the link and answers, by the one NIC there is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use shunt_api::counters::DropReason;
use shunt_api::mac::MacAddress;

use crate::packet::ethernet::VlanTag;
use crate::path_mtu::PathMtus;
use crate::port::NicIndex;
use crate::rewrite::Link;
use crate::table::{Hop, NicLink, OpenHop, Table};

/// Where packets to a backend go that no [`Neighbor`] is given for.
const UNKNOWN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// Of the NIC.
const OWN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xfe]);
/// Where tunnels come from, unless the configuration says (RFC 5737).
const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// Where tunnels come from, unless the configuration says (RFC 3849).
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe);

const CUSTOMER_TPID: u16 = 0x8100;
const VLAN_MAX: u16 = 4094;

/// A backend's next hop; text form `10.0.0.1=02:00:00:00:00:0a`, or with `@20` behind it for VLAN 20.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Of the backend.
    pub backend: IpAddr,
    /// Of the station to send to.
    pub mac: MacAddress,
    /// Tag to send with, 1 to 4094.
    pub vlan: Option<u16>,
}

/// The text is not that of a [`Neighbor`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("write a backend's address and its MAC address, 10.0.0.1=02:00:00:00:00:0a, with @20 for VLAN 20")]
pub struct InvalidNeighbor;

impl FromStr for Neighbor {
    type Err = InvalidNeighbor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (backend, station) = text.split_once('=').ok_or(InvalidNeighbor)?;
        let (mac, vlan) = match station.split_once('@') {
            None => (station, None),
            Some((mac, vlan)) => (mac, Some(vlan.parse().map_err(|_| InvalidNeighbor)?)),
        };
        if vlan.is_some_and(|vlan| !(1..=VLAN_MAX).contains(&vlan)) {
            return Err(InvalidNeighbor);
        }
        let backend = backend.parse().map_err(|_| InvalidNeighbor)?;
        Ok(Self { backend, mac: mac.parse().map_err(|_| InvalidNeighbor)?, vlan })
    }
}

/// The ways to all backends.
#[derive(Clone, Debug)]
pub struct Ways {
    neighbors: BTreeMap<IpAddr, Neighbor>,
    mtu: u32,
}

impl Ways {
    /// With these neighbours, the last one of a backend counting, and `mtu` bytes of IP packet everywhere.
    pub fn new(neighbors: &[Neighbor], mtu: u32) -> Self {
        Self { neighbors: neighbors.iter().map(|neighbor| (neighbor.backend, *neighbor)).collect(), mtu }
    }

    /// A neighbour that is no backend of the table.
    pub fn stranger(&self, table: &Table) -> Option<IpAddr> {
        let is_backend = |address| table.backends().any(|(_, backend)| backend == address);
        self.neighbors.keys().copied().find(|&address| !is_backend(address))
    }

    /// The way to each backend of a table, by identity.
    pub fn hops(&self, table: &Table, paths: &PathMtus) -> Box<[Hop]> {
        let mut by_id = vec![Hop::Closed(DropReason::NeighborUnresolved); table.backend_limit()];
        for (id, backend) in table.backends() {
            by_id[id.0 as usize] = Hop::Open(self.hop(backend, paths));
        }
        by_id.into()
    }

    /// What replies to clients leave by.
    pub fn nics(&self) -> Box<[NicLink]> {
        [NicLink { mac: OWN_MAC, mtu: self.mtu }].into()
    }

    fn hop(&self, backend: IpAddr, paths: &PathMtus) -> OpenHop {
        let neighbor = self.neighbors.get(&backend);
        let vlan = neighbor.and_then(|neighbor| neighbor.vlan);
        OpenHop {
            nic: NicIndex(0),
            link: Link {
                destination: neighbor.map_or(UNKNOWN_MAC, |neighbor| neighbor.mac),
                source: OWN_MAC,
                vlan: vlan.map(|id| VlanTag { tpid: CUSTOMER_TPID, id }),
                mtu: paths.limit(backend, self.mtu),
            },
            on_link: true,
            source: Some(if backend.is_ipv4() { OWN_V4.into() } else { OWN_V6.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbor_is_address_mac_and_maybe_vlan() {
        let mac = MacAddress([2, 0, 0, 0, 0, 10]);
        for (text, backend, vlan) in [
            ("10.0.0.1=02:00:00:00:00:0a", "10.0.0.1", None),
            ("fd00::1=02:00:00:00:00:0a", "fd00::1", None),
            ("10.0.0.1=02:00:00:00:00:0a@20", "10.0.0.1", Some(20)),
        ] {
            let backend = backend.parse().unwrap();
            assert_eq!(text.parse(), Ok(Neighbor { backend, mac, vlan }), "{text}");
        }
        for bad in [
            "",
            "10.0.0.1",
            "=02:00:00:00:00:0a",
            "10.0.0.1=",
            "10.0.0.1=02:00",
            "10.0.0=02:00:00:00:00:0a",
            "10.0.0.1=02:00:00:00:00:0a@",
            "10.0.0.1=02:00:00:00:00:0a@0",
            "10.0.0.1=02:00:00:00:00:0a@4095",
            "10.0.0.1=02:00:00:00:00:0a@20@30",
        ] {
            assert_eq!(bad.parse::<Neighbor>(), Err(InvalidNeighbor), "{bad}");
        }
    }
}
