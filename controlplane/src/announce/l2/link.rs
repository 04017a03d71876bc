//! The NICs of this network namespace as the kernel has them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{LinkAddr, SockaddrStorage};
use shunt_api::mac::MacAddress;

/// What matters of a NIC to whoever speaks on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's number; another one if the NIC was removed and made again.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Administratively up and with carrier.
    pub up: bool,
    /// The first IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The first link-local IPv6 address.
    pub link_local: Option<Ipv6Addr>,
}

/// A NIC, and how the kernel calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What is known of it.
    pub facts: Facts,
    /// To bind a packet socket to it.
    pub address: LinkAddr,
}

impl Facts {
    /// The address that this box is elected with on the NIC: IPv4 if there is one, as it needs no IPv6 to be on.
    pub fn elected_with(&self) -> Option<IpAddr> {
        self.ipv4.map(IpAddr::V4).or(self.link_local.map(IpAddr::V6))
    }
}

/// All that the kernel has.
#[derive(Debug, Default)]
pub struct Links {
    /// NICs with an Ethernet address, by name.
    pub ethernet: BTreeMap<String, Link>,
    /// The kernel's own addresses, and a NIC that has each.
    pub addresses: BTreeMap<IpAddr, String>,
}

/// Asks the kernel.
pub fn read() -> io::Result<Links> {
    let all: Vec<InterfaceAddress> = getifaddrs()?.collect();
    let mut links = Links { ethernet: all.iter().filter_map(ethernet).collect(), ..Links::default() };
    for entry in &all {
        let Some(address) = entry.address.as_ref().and_then(ip) else { continue };
        links.addresses.insert(address, entry.interface_name.clone());
        let Some(link) = links.ethernet.get_mut(&entry.interface_name) else { continue };
        match address {
            IpAddr::V4(address) => _ = link.facts.ipv4.get_or_insert(address),
            IpAddr::V6(address) if address.is_unicast_link_local() => {
                link.facts.link_local.get_or_insert(address);
            }
            IpAddr::V6(_) => {}
        }
    }
    Ok(links)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

fn ethernet(entry: &InterfaceAddress) -> Option<(String, Link)> {
    let address = *entry.address.as_ref()?.as_link_addr()?;
    let mac = MacAddress(address.addr().filter(|_| address.halen() == 6)?);
    let running = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let facts = Facts {
        index: u32::try_from(address.ifindex()).ok()?,
        mac,
        up: entry.flags.contains(running),
        ipv4: None,
        link_local: None,
    };
    Some((entry.interface_name.clone(), Link { facts, address }))
}
