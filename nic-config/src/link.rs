//! What the kernel's routing netlink changes of an interface: its MTU and its flags.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink;

/// Sets the largest IP packet.
pub fn set_mtu(ifindex: u32, mtu: u32) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Mtu(mtu));
    change(ifindex, message)
}

/// Sets or clears one flag.
pub fn set_flag(ifindex: u32, flag: LinkFlags, on: bool) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.change_mask = flag;
    message.header.flags = if on { flag } else { LinkFlags::empty() };
    change(ifindex, message)
}

fn change(ifindex: u32, mut message: LinkMessage) -> io::Result<()> {
    message.header.index = ifindex;
    netlink::query(NETLINK_ROUTE, RouteNetlinkMessage::SetLink(message)).map(drop)
}
