//! Netlink bytes ↔ routes (`linux/rtnetlink.h`, RFC 3549). Pure.
//!
//! Of each message only what is needed is decoded, so that an attribute of a newer kernel cannot make a route
//! unreadable.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::plan::{Found, KIND, Place};

pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;
pub const NLM_F_DUMP_INTR: u16 = 0x10;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTA_DST: u16 = 1;
const RTA_PRIORITY: u16 = 6;
const RTA_TABLE: u16 = 15;
const ROUTE_HEADER_BYTES: usize = 12;

/// One message as it stands in a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// Socket that caused it; 0 for the kernel itself.
    pub port: u32,
    pub payload: &'a [u8],
}

/// One change of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Remove(Found),
    Add(IpAddr),
}

impl Change {
    /// Of the route.
    pub fn prefix(&self) -> IpNet {
        match self {
            Self::Remove(found) => found.prefix,
            Self::Add(address) => IpNet::from(*address),
        }
    }
}

/// The messages of one datagram; what follows a malformed one is left out.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let length = usize::try_from(message.length()).ok()?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            port: message.port_number(),
            payload: message.payload(),
        })
    })
}

/// The question for all routes of one family at a place.
pub fn question(place: Place, family: AddressFamily) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut route = at(place);
    route.header.address_family = family;
    request(RouteNetlinkMessage::GetRoute(route), NLM_F_DUMP)
}

/// The order to change something at a place.
pub fn order(place: Place, change: Change) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut route = at(place);
    let prefix = change.prefix();
    route.header.address_family =
        if prefix.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    route.header.destination_prefix_length = prefix.prefix_len();
    route.attributes.push(RouteAttribute::Destination(prefix.addr().into()));
    match change {
        Change::Add(_) => {
            route.header.kind = KIND;
            request(RouteNetlinkMessage::NewRoute(route), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
        }
        Change::Remove(found) => {
            route.header.kind = found.kind;
            route.header.tos = found.tos;
            route.attributes.push(RouteAttribute::Priority(found.priority));
            request(RouteNetlinkMessage::DelRoute(route), NLM_F_ACK)
        }
    }
}

fn at(place: Place) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.protocol = place.protocol.into();
    route.attributes.push(RouteAttribute::Table(place.table));
    route
}

fn request(message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    NetlinkMessage::new(header, NetlinkPayload::from(message))
}

/// The route that a message of the kernel is about, and where; `None` if it is about none that could be ours.
pub fn route(message: Message) -> Option<(Place, Found)> {
    if !matches!(message.kind, RTM_NEWROUTE | RTM_DELROUTE) {
        return None;
    }
    let header = RouteHeader::parse(message.payload).ok()?;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    // For sources of their own: we make no such routes, and could not name one to delete it.
    if header.source_prefix_length > 0 {
        return None;
    }
    let (mut table, mut address, mut priority) = (u32::from(header.table), unspecified, 0);
    let attributes = NlasIterator::new(message.payload.get(ROUTE_HEADER_BYTES..).unwrap_or_default());
    for attribute in attributes.map_while(Result::ok) {
        match attribute.kind() {
            RTA_TABLE => table = number(attribute.value())?,
            RTA_PRIORITY => priority = number(attribute.value())?,
            RTA_DST => address = ip(attribute.value())?,
            _ => {}
        }
    }
    let prefix = IpNet::new(address, header.destination_prefix_length).ok()?;
    let place = Place { table, protocol: header.protocol.into() };
    Some((place, Found { prefix, kind: header.kind, tos: header.tos, priority }))
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteType;

    use super::*;

    const PLACE: Place = Place { table: 1000, protocol: 83 };

    fn bytes(mut message: NetlinkMessage<RouteNetlinkMessage>) -> Vec<u8> {
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn orders_say_what_is_read_back_from_them() {
        let removed = |prefix: &str| Found {
            prefix: prefix.parse().unwrap(),
            kind: RouteType::Unicast,
            tos: 0x10,
            priority: 20,
        };
        let added = |address: &str| Found {
            prefix: IpNet::from(address.parse::<IpAddr>().unwrap()),
            kind: RouteType::BlackHole,
            tos: 0,
            priority: 0,
        };
        for found in [removed("10.0.0.0/8"), removed("2001:db8::/32"), removed("0.0.0.0/0")] {
            let datagram = bytes(order(PLACE, Change::Remove(found)));
            let read: Vec<_> = messages(&datagram).map(route).collect();
            assert_eq!(read, [Some((PLACE, found))]);
        }
        for address in ["203.0.113.1", "2001:db8::1"] {
            let mut datagram = bytes(order(PLACE, Change::Add(address.parse().unwrap())));
            datagram.extend(datagram.clone());
            let read: Vec<_> = messages(&datagram).map(route).collect();
            assert_eq!(read, [Some((PLACE, added(address))); 2]);
        }
    }

    #[test]
    fn nonsense_is_no_route() {
        let datagram = bytes(order(PLACE, Change::Add("203.0.113.1".parse().unwrap())));
        let message = messages(&datagram).next().unwrap();
        for length in 0..message.payload.len() {
            let cut = Message { payload: &message.payload[..length], ..message };
            assert!(route(cut).is_none_or(
                |(place, found)| (place, found.prefix.addr()) != (PLACE, [203, 0, 113, 1].into())
            ));
            assert_eq!(messages(&datagram[..length]).count(), 0);
        }
        assert_eq!(route(Message { kind: 16, ..message }), None, "about a link");
        let mut long = message.payload.to_vec();
        long[1] = 33;
        assert_eq!(route(Message { payload: &long, ..message }), None);
        long[1..3].copy_from_slice(&[32, 8]);
        assert_eq!(route(Message { payload: &long, ..message }), None, "for one source");
    }
}
