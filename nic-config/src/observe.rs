//! How interfaces stand, gathered from netlink, the driver and the bus. What nobody reports is `None`.
//!
//! Everything but the NUMA node is asked of the network namespace this program runs in; sysfs is used only
//! for that node, by the device's place on its bus, which belongs to no namespace.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached};
use netlink_sys::protocols::NETLINK_ROUTE;
use serde::Serialize;

use crate::ethtool::{Ethtool, Queues, Rings};
use crate::netdev::{self, XdpSupport};
use crate::netlink;
use crate::setting::Item;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// Of the driver.
    pub driver: Option<String>,
    /// Where the device is plugged in.
    pub bus_address: Option<String>,
    /// Memory node the device is next to.
    pub numa_node: Option<u32>,
    /// Administratively up.
    pub up: bool,
    /// The other end is there.
    pub carrier: Option<bool>,
    /// Megabits per second.
    pub speed_mbps: Option<u32>,
    /// Ethernet address.
    pub mac: Option<String>,
    /// Bytes of IP packet.
    pub mtu: Option<u32>,
    /// Queues by kind.
    pub queues: Option<Queues>,
    /// Descriptors per queue.
    pub rings: Option<Rings>,
    /// What the driver can do with XDP.
    pub xdp: Option<XdpSupport>,
    /// The XDP program that is attached.
    pub xdp_program: Option<XdpProgram>,
}

/// An attached XDP program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct XdpProgram {
    /// `native`, `generic`, `offloaded`, or `multiple` when there are several.
    pub mode: String,
    /// Kernel number, as `bpftool prog` lists it.
    pub id: Option<u32>,
}

/// Why interfaces could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// No such interface.
    #[error("there is no interface `{name}` in this network namespace; {hint}")]
    NotFound {
        /// As asked for.
        name: String,
        /// The nearest name, or what to do.
        hint: String,
    },
    /// The kernel did not list the interfaces.
    #[error("the kernel does not list its network interfaces over netlink: {0}")]
    Links(#[source] io::Error),
    /// The kernel did not tell what drivers can do with XDP.
    #[error("the kernel does not tell its drivers' XDP features: {0}")]
    XdpFeatures(#[source] io::Error),
    /// A driver did not answer.
    #[error("{name} does not answer ethtool requests ({source}); is the interface being removed?")]
    Driver {
        /// Of the interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An interface, and what is needed to find out more.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it is.
    pub nic: Nic,
    /// Its flags that can be set.
    pub flags: Vec<(Item, bool)>,
    /// Directory of the device on its bus.
    pub bus_device: Option<PathBuf>,
    /// Largest IP packet that the driver takes, if there is a limit.
    pub mtu_max: Option<u32>,
    loopback: bool,
}

impl Nic {
    /// Queues that receive, whatever else they do.
    pub fn rx_queues(&self) -> Option<u32> {
        let queues = self.queues?;
        let sum = [queues.combined, queues.rx].into_iter().flatten().map(|queues| queues.current).sum();
        (sum > 0).then_some(sum)
    }
}

/// Names of all interfaces by index.
pub fn names() -> Result<BTreeMap<u32, String>, ObserveError> {
    let links = links().map_err(ObserveError::Links)?;
    Ok(links.into_iter().map(|link| (link.nic.ifindex, link.nic.name)).collect())
}

/// Observes the interfaces named, in that order; without names, all but the loopback interface.
pub fn nics(names: &[String]) -> Result<Vec<Found>, ObserveError> {
    let links = links().map_err(ObserveError::Links)?;
    let chosen = choose(&links, names)?;
    let mut xdp = netdev::xdp_support().map_err(ObserveError::XdpFeatures)?.unwrap_or_default();
    let ethtool = Ethtool::open().map_err(ObserveError::Links)?;
    let complete = |link: &Found| {
        let mut found = link.clone();
        let nic = &mut found.nic;
        nic.xdp = xdp.remove(&nic.ifindex);
        nic.numa_node = link.bus_device.as_deref().and_then(numa_node);
        ask_driver(&ethtool, nic)
            .map_err(|source| ObserveError::Driver { name: link.nic.name.clone(), source })?;
        Ok(found)
    };
    chosen.into_iter().map(complete).collect()
}

fn links() -> io::Result<Vec<Found>> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answers = netlink::dump(NETLINK_ROUTE, question)?;
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some(link(&message)),
        _ => None,
    });
    Ok(links.collect())
}

fn choose<'a>(links: &'a [Found], names: &[String]) -> Result<Vec<&'a Found>, ObserveError> {
    if names.is_empty() {
        return Ok(links.iter().filter(|link| !link.loopback).collect());
    }
    let find = |name: &String| {
        let found = links.iter().find(|link| link.nic.name == *name);
        found.ok_or_else(|| ObserveError::NotFound { name: name.clone(), hint: nearest(links, name) })
    };
    names.iter().map(find).collect()
}

fn nearest(links: &[Found], name: &str) -> String {
    let likeness = |link: &&Found| (strsim::jaro_winkler(&link.nic.name, name) * 1000.0) as u32;
    match links.iter().max_by_key(likeness) {
        Some(link) => format!("the nearest is `{}`", link.nic.name),
        None => "there is none at all".to_owned(),
    }
}

fn link(message: &LinkMessage) -> Found {
    let flags = message.header.flags;
    let mut nic = Nic { ifindex: message.header.index, up: flags.contains(LinkFlags::Up), ..Nic::default() };
    let (mut bus, mut device, mut mtu_max) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => nic.name.clone_from(name),
            LinkAttribute::Carrier(carrier) => nic.carrier = Some(*carrier != 0),
            LinkAttribute::Address(address) => nic.mac = mac(address),
            LinkAttribute::Mtu(mtu) => nic.mtu = Some(*mtu),
            LinkAttribute::MaxMtu(max) => mtu_max = Some(*max).filter(|&max| max > 0),
            LinkAttribute::Xdp(xdp) => nic.xdp_program = xdp_program(xdp),
            LinkAttribute::ParentDevBusName(name) => bus = Some(name),
            LinkAttribute::ParentDevName(name) => device = Some(name),
            _ => {}
        }
    }
    let bus_device =
        bus.zip(device).map(|(bus, device)| Path::new("/sys/bus").join(bus).join("devices").join(device));
    let settable = [
        (Item::Up, LinkFlags::Up),
        (Item::Promiscuous, LinkFlags::Promisc),
        (Item::AllMulticast, LinkFlags::Allmulti),
    ];
    let flags_set = settable.map(|(item, flag)| (item, flags.contains(flag))).to_vec();
    Found { nic, flags: flags_set, loopback: flags.contains(LinkFlags::Loopback), bus_device, mtu_max }
}

fn mac(address: &[u8]) -> Option<String> {
    let pairs: Vec<String> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    (pairs.len() == 6).then(|| pairs.join(":"))
}

fn xdp_program(xdp: &[LinkXdp]) -> Option<XdpProgram> {
    let mode = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some("native".to_owned()),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic".to_owned()),
        LinkXdp::Attached(XdpAttached::Hardware) => Some("offloaded".to_owned()),
        LinkXdp::Attached(XdpAttached::Multiple) => Some("multiple".to_owned()),
        LinkXdp::Attached(XdpAttached::Other(mode)) => Some(format!("mode {mode}")),
        _ => None,
    })?;
    let id = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    });
    Some(XdpProgram { mode, id })
}

fn ask_driver(ethtool: &Ethtool, nic: &mut Nic) -> io::Result<()> {
    if let Some(driver) = ethtool.driver(&nic.name)? {
        nic.driver = Some(driver.name);
        nic.bus_address = driver.bus_address;
    }
    nic.queues = ethtool.queues(&nic.name)?;
    nic.rings = ethtool.rings(&nic.name)?;
    nic.speed_mbps = ethtool.speed_mbps(&nic.name)?;
    Ok(())
}

/// The node of the device or of the nearest device above it: a virtio device has none itself, but sits on a
/// PCI device that has. Machines with one node say -1.
fn numa_node(bus_device: &Path) -> Option<u32> {
    let device = fs::canonicalize(bus_device).ok()?;
    let told = device.ancestors().find_map(|above| fs::read_to_string(above.join("numa_node")).ok());
    told?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up;
        message.attributes = attributes;
        message
    }

    fn named(name: &str) -> Found {
        link(&message(vec![LinkAttribute::IfName(name.to_owned())]))
    }

    #[test]
    fn a_link_is_read_from_its_attributes() {
        let seen = link(&message(vec![
            LinkAttribute::IfName("eth1".to_owned()),
            LinkAttribute::Mtu(9000),
            LinkAttribute::Carrier(0),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 10]),
            LinkAttribute::Xdp(vec![LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(12)]),
            LinkAttribute::ParentDevName("0000:01:00.0".to_owned()),
            LinkAttribute::ParentDevBusName("pci".to_owned()),
        ]));
        assert_eq!(seen.bus_device, Some(PathBuf::from("/sys/bus/pci/devices/0000:01:00.0")));
        let Nic { name, ifindex, up, carrier, mac, mtu, xdp_program, .. } = seen.nic;
        assert_eq!((name.as_str(), ifindex, up, carrier, mtu), ("eth1", 7, true, Some(false), Some(9000)));
        assert_eq!(mac.as_deref(), Some("02:00:00:00:00:0a"));
        assert_eq!(xdp_program, Some(XdpProgram { mode: "native".to_owned(), id: Some(12) }));
    }

    #[test]
    fn what_is_not_attached_or_no_ethernet_address_is_none() {
        assert_eq!(xdp_program(&[LinkXdp::Attached(XdpAttached::None)]), None);
        assert_eq!(mac(&[10, 0, 0, 1]), None);
    }

    #[test]
    fn an_unknown_name_leads_to_the_nearest() {
        let links = [named("enp1s0f0"), named("eth1")];
        let error = choose(&links, &["eht1".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "there is no interface `eht1` in this network namespace; the nearest is `eth1`");
        let chosen = choose(&links, &["eth1".to_owned(), "enp1s0f0".to_owned()]).unwrap();
        assert_eq!(
            chosen.iter().map(|link| link.nic.name.as_str()).collect::<Vec<_>>(),
            ["eth1", "enp1s0f0"]
        );
    }

    #[test]
    fn the_node_of_a_device_is_that_of_the_nearest_above() {
        let root = std::env::temp_dir().join(format!("nic-config-numa-{}", std::process::id()));
        let virtio = root.join("0000:00:03.0/virtio0");
        fs::create_dir_all(&virtio).unwrap();
        let node = |text: &str| {
            fs::write(root.join("0000:00:03.0/numa_node"), text).unwrap();
            numa_node(&virtio)
        };
        assert_eq!(node("1\n"), Some(1));
        assert_eq!(node("-1\n"), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
