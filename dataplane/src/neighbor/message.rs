//! Netlink bytes ↔ what `World` understands (`linux/rtnetlink.h`, `linux/if_link.h`, `linux/neighbour.h`,
//! RFC 3549). Pure.
//!
//! Of each message only what is needed is decoded, so that an attribute of a newer kernel cannot make a
//! whole link or route unreadable; a message that makes no sense is skipped, never an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_route::link::{LinkFlags, LinkHeader, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use shunt_api::mac::MacAddress;

use super::facts::{Answer, Event, Inquiry, Route};
use super::schedule::Key;
use super::{Link, Vlan};
use crate::packet::ethernet::VlanTag;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTAX_MTU: u16 = 2;

const ROUTING_HEADER_BYTES: usize = 12;
const LINK_HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// One message as it stands in a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub payload: &'a [u8],
}

/// The messages of one datagram; what follows a malformed one is left out.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let length = usize::try_from(message.length()).ok()?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            payload: message.payload(),
        })
    })
}

/// The question for the route of `address`.
pub(super) fn ask_route(address: IpAddr) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut route = RouteMessage::default();
    route.header.address_family = family(address);
    route.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    route.attributes.push(RouteAttribute::Destination(address.into()));
    request(RouteNetlinkMessage::GetRoute(route), 0)
}

/// Use of a neighbour as if a packet were sent to it: the kernel resolves or confirms what needs it.
pub(super) fn ask_neighbour(inquiry: Inquiry) -> NetlinkMessage<RouteNetlinkMessage> {
    let (ifindex, address) = inquiry.key;
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = family(address);
    neighbour.header.ifindex = ifindex;
    neighbour.header.flags = NeighbourFlags::Use;
    neighbour.attributes.push(NeighbourAttribute::Destination(address.into()));
    let create = if inquiry.create { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
    request(RouteNetlinkMessage::NewNeighbour(neighbour), NLM_F_ACK | create)
}

/// The question for all links.
pub(super) fn ask_links() -> NetlinkMessage<RouteNetlinkMessage> {
    request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)
}

/// The question for all neighbours of both families.
pub(super) fn ask_neighbours() -> NetlinkMessage<RouteNetlinkMessage> {
    request(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), NLM_F_DUMP)
}

fn request(message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    NetlinkMessage::new(header, NetlinkPayload::from(message))
}

/// What a message from the kernel means for the world, if anything.
pub(super) fn event(message: Message) -> Option<Event> {
    match message.kind {
        RTM_NEWLINK | RTM_DELLINK => link_event(message),
        RTM_NEWNEIGH | RTM_DELNEIGH => neighbour_event(message),
        RTM_NEWROUTE | RTM_DELROUTE => Some(Event::RouteChanged(prefix(message.payload)?)),
        RTM_NEWADDR | RTM_DELADDR | RTM_NEWRULE | RTM_DELRULE | RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
            Some(Event::RoutesChanged)
        }
        _ => None,
    }
}

/// Bridge and other families speak of a link's ports in the same messages; they are not about the link.
fn link_event(message: Message) -> Option<Event> {
    let header = LinkHeader::parse(message.payload).ok()?;
    let ifindex = header.index;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    if message.kind == RTM_DELLINK {
        return Some(Event::LinkGone { ifindex });
    }
    // RUNNING follows carrier a moment later, when the kernel's own transmit queue is attached: a neighbour
    // solicitation sent before would be lost.
    let up = header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running);
    let (mut address, mut name, mut mtu) = (MacAddress::default(), None, None);
    for attribute in attributes(message.payload, LINK_HEADER_BYTES) {
        match attribute.kind() {
            IFLA_ADDRESS => address = mac(attribute.value()).unwrap_or_default(),
            IFLA_IFNAME => name = Some(text(attribute.value())),
            IFLA_MTU => mtu = number(attribute.value()),
            _ => {}
        }
    }
    // Wireless events carry little but the name; they tell nothing.
    let link = Link { name: name?, mac: address, mtu: mtu?, up, vlan: vlan(message.payload) };
    Some(Event::Link { ifindex, link })
}

/// What makes the link a VLAN device. The device below may be in another network namespace; its ifindex there
/// means nothing here.
fn vlan(payload: &[u8]) -> Option<Vlan> {
    let of_link = |kind| value(payload, LINK_HEADER_BYTES, kind);
    let info = of_link(IFLA_LINKINFO)?;
    if text(value(info, 0, IFLA_INFO_KIND)?) != "vlan" || of_link(IFLA_LINK_NETNSID).is_some() {
        return None;
    }
    let data = value(info, 0, IFLA_INFO_DATA)?;
    let id = u16::from_ne_bytes(value(data, 0, IFLA_VLAN_ID)?.try_into().ok()?);
    let tpid = u16::from_be_bytes(value(data, 0, IFLA_VLAN_PROTOCOL)?.try_into().ok()?);
    Some(Vlan { parent: number(of_link(IFLA_LINK)?)?, tag: VlanTag { tpid, id } })
}

fn neighbour_event(message: Message) -> Option<Event> {
    let header = NeighbourHeader::parse(message.payload).ok()?;
    let of_ip = matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6);
    if !of_ip || header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut link_layer) = (None, None);
    for attribute in attributes(message.payload, ROUTING_HEADER_BYTES) {
        match attribute.kind() {
            NDA_DST => address = ip(attribute.value()),
            NDA_LLADDR => link_layer = mac(attribute.value()),
            _ => {}
        }
    }
    let key: Key = (header.ifindex, address?);
    Some(match message.kind {
        RTM_DELNEIGH => Event::NeighbourGone { key },
        _ => Event::Neighbour { key, state: header.state, mac: link_layer },
    })
}

fn prefix(payload: &[u8]) -> Option<IpNet> {
    let header = RouteHeader::parse(payload).ok()?;
    let destination = attributes(payload, ROUTING_HEADER_BYTES).find(|attribute| attribute.kind() == RTA_DST);
    let address = match (destination, header.address_family) {
        (Some(attribute), _) => ip(attribute.value())?,
        (None, AddressFamily::Inet) => Ipv4Addr::UNSPECIFIED.into(),
        (None, AddressFamily::Inet6) => Ipv6Addr::UNSPECIFIED.into(),
        (None, _) => return None,
    };
    IpNet::new(address, header.destination_prefix_length).ok()
}

/// The answer to [`ask_route`] in a `RTM_NEWROUTE` message.
pub(super) fn route_answer(payload: &[u8]) -> Answer {
    let Ok(header) = RouteHeader::parse(payload) else { return Answer::NoRoute };
    let mut ifindex = None;
    let mut route = Route { ifindex: 0, gateway: None, source: None, mtu: None };
    for attribute in attributes(payload, ROUTING_HEADER_BYTES) {
        let value = attribute.value();
        match attribute.kind() {
            RTA_OIF => ifindex = number(value),
            RTA_GATEWAY => route.gateway = ip(value),
            RTA_VIA => route.gateway = value.get(2..).and_then(ip),
            RTA_PREFSRC => route.source = ip(value).filter(|address| !address.is_unspecified()),
            RTA_METRICS => route.mtu = route_mtu(value),
            // Such frames would need a header that only the kernel's own transmit path adds.
            RTA_ENCAP_TYPE => return Answer::NoRoute,
            _ => {}
        }
    }
    match (header.kind, ifindex) {
        (RouteType::Unicast, Some(ifindex)) => Answer::Via(Route { ifindex, ..route }),
        (RouteType::Local, Some(ifindex)) => Answer::Local { ifindex },
        _ => Answer::NoRoute,
    }
}

fn route_mtu(metrics: &[u8]) -> Option<u32> {
    number(value(metrics, 0, RTAX_MTU)?).filter(|mtu| *mtu > 0)
}

fn attributes(payload: &[u8], header_bytes: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(payload.get(header_bytes..).unwrap_or_default()).map_while(Result::ok)
}

fn value(payload: &[u8], header_bytes: usize, kind: u16) -> Option<&[u8]> {
    let attribute = attributes(payload, header_bytes).find(|attribute| attribute.kind() == kind)?;
    let end = usize::from(attribute.length());
    attribute.into_inner().get(ATTRIBUTE_HEADER_BYTES..end)
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

fn mac(value: &[u8]) -> Option<MacAddress> {
    Some(MacAddress(value.try_into().ok()?))
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests;
