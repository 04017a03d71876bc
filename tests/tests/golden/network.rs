//! The network that all scenarios share: NICs of the box, and the ways to backends (`tests/golden/network.toml`).

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;
use shunt_api::counters::DropReason;
use shunt_dataplane::packet::ethernet::VlanTag;
use shunt_dataplane::port::NicIndex;
use shunt_dataplane::rewrite::Link;
use shunt_dataplane::table::{Hop, NicLink, OpenHop, Table};

use crate::names;

/// As in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    nic: Vec<Nic>,
    /// The box's own address towards IPv4 backends.
    source_v4: IpAddr,
    /// The box's own address towards IPv6 backends.
    source_v6: IpAddr,
    /// By backend; a backend that is not there has the usual way.
    hops: BTreeMap<IpAddr, Way>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nic {
    mtu: u32,
}

/// What differs from the usual way to a backend: its own station, on the link of the first NIC.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Way {
    nic: u8,
    /// Of the path; the NIC's without it.
    mtu: Option<u32>,
    vlan: Option<u16>,
    svlan: Option<u16>,
    /// A gateway's station.
    via: Option<String>,
    /// The box has no address of the backend's family on the way.
    no_source: bool,
    /// The reason there is no way for.
    closed: Option<String>,
}

impl Network {
    /// Reads the file.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// NICs as the dataplane knows them.
    pub fn nics(&self) -> Box<[NicLink]> {
        let nics = (0u8..).zip(&self.nic);
        nics.map(|(index, nic)| NicLink { mac: names::own(index), mtu: nic.mtu }).collect()
    }

    /// The way to each backend of a table.
    pub fn hops(&self, table: &Table) -> Box<[Hop]> {
        let mut hops = vec![Hop::Closed(DropReason::NeighborUnresolved); table.backend_limit()];
        for (id, address) in table.backends() {
            hops[id.0 as usize] = self.hop(address);
        }
        hops.into()
    }

    fn hop(&self, address: IpAddr) -> Hop {
        let usual = Way::default();
        let way = self.hops.get(&address).unwrap_or(&usual);
        if let Some(reason) = &way.closed {
            return Hop::Closed(DropReason::from_name(reason).unwrap_or_else(|| panic!("{reason}")));
        }
        let last = match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        let gateway = way.via.as_ref().map(|via| names::station(via).unwrap_or_else(|| panic!("{via}")));
        let own = if address.is_ipv4() { self.source_v4 } else { self.source_v6 };
        let tag = |tpid| move |id| VlanTag { tpid, id };
        Hop::Open(OpenHop {
            nic: NicIndex(way.nic),
            link: Link {
                destination: gateway.unwrap_or(names::node(last)),
                source: names::own(way.nic),
                vlan: way.vlan.map(tag(0x8100)).or(way.svlan.map(tag(0x88a8))),
                mtu: way.mtu.unwrap_or(self.nic[usize::from(way.nic)].mtu),
            },
            on_link: gateway.is_none(),
            source: (!way.no_source).then_some(own),
        })
    }
}
