//! What is asked of the kernel for probes: a pair of devices, and a rule and a default route of each family that lead
//! marked packets to one of them (`linux/rtnetlink.h`, `linux/fib_rules.h`). Pure.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use shunt_api::snapshot::{PROBE_MARK, PROBE_MARK_MASK};

/// The device that packets with a probe's mark are routed to.
///
/// A veth pair, because IPv6 takes default routes by `lo` for "unreachable", and some kernels have no `dummy`.
pub const DEVICE: &str = "shunt-probe";
/// Its other end, which nothing ever reaches; a device without one has no carrier.
pub const PEER: &str = "shunt-probe-x";
/// The routing table of the default routes, `SH`: not 83, where announced routes stand.
pub const TABLE: u32 = 0x5348;
/// The rules' place: behind the one of local addresses, before all that people write.
const RULE_PRIORITY: u32 = 83;
/// Who made rules and routes, as `ip rule` and `ip route` show it.
const PROTOCOL: u8 = 83;
/// Bytes of IP packet with which IPv6 works.
pub const MTU_MIN: u32 = 1280;

/// Both families.
pub const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// Makes the pair. Fails with EEXIST where it is there.
pub fn make_devices() -> NetlinkMessage<RouteNetlinkMessage> {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(PEER.to_owned()));
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(DEVICE.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
}

/// Keeps a device of the pair from giving itself an IPv6 address, before it goes up.
pub fn without_address(device: &str) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut link = named(device);
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    link.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
    request(RouteNetlinkMessage::SetLink(link), 0)
}

/// Puts a device of the pair into service for IP packets of up to `mtu` bytes, which all neighbours take without being
/// asked for; and for one packet at a time, so that none comes along that is yet to be cut (GSO).
pub fn up(device: &str, mtu: u32) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut link = named(device);
    link.attributes.extend([LinkAttribute::Mtu(mtu), LinkAttribute::GsoMaxSegs(1)]);
    link.header.flags = LinkFlags::Up | LinkFlags::Noarp;
    link.header.change_mask = link.header.flags;
    request(RouteNetlinkMessage::SetLink(link), 0)
}

/// Removes the pair, and the routes with it.
pub fn remove_devices() -> NetlinkMessage<RouteNetlinkMessage> {
    request(RouteNetlinkMessage::DelLink(named(DEVICE)), 0)
}

/// Has marked packets routed by [`TABLE`]. Fails with EEXIST where it is so.
pub fn add_rule(family: AddressFamily) -> NetlinkMessage<RouteNetlinkMessage> {
    request(RouteNetlinkMessage::NewRule(rule(family)), NLM_F_CREATE | NLM_F_EXCL)
}

/// The opposite.
pub fn remove_rule(family: AddressFamily) -> NetlinkMessage<RouteNetlinkMessage> {
    request(RouteNetlinkMessage::DelRule(rule(family)), 0)
}

/// Routes everything that [`TABLE`] is asked for to the device. Fails with EEXIST where it is so.
pub fn add_route(family: AddressFamily, ifindex: u32) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut route = RouteMessage::default();
    route.header.address_family = family;
    route.header.table = RouteHeader::RT_TABLE_UNSPEC;
    route.header.protocol = RouteProtocol::Other(PROTOCOL);
    route.header.scope = if family == AddressFamily::Inet { RouteScope::Link } else { RouteScope::Universe };
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![RouteAttribute::Table(TABLE), RouteAttribute::Oif(ifindex)];
    request(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL)
}

fn rule(family: AddressFamily) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(RULE_PRIORITY),
        RuleAttribute::FwMark(PROBE_MARK),
        RuleAttribute::FwMask(PROBE_MARK_MASK),
        RuleAttribute::Table(TABLE),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    rule
}

fn named(device: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(device.to_owned()));
    link
}

fn request(message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes after the netlink header (16 bytes), which is checked for type, flags and length.
    fn check(message: &NetlinkMessage<RouteNetlinkMessage>, kind: u16, flags: u16) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        assert_eq!(bytes[0..4], (bytes.len() as u32).to_ne_bytes());
        assert_eq!(bytes[4..6], kind.to_ne_bytes());
        assert_eq!(bytes[6..8], (5 | flags).to_ne_bytes(), "NLM_F_REQUEST and NLM_F_ACK");
        bytes.split_off(16)
    }

    fn attribute(kind: u16, value: u32) -> Vec<u8> {
        [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
    }

    #[test]
    fn a_rule_is_for_marks_of_probes_and_no_others() {
        let (create, exclusive) = (0x400, 0x200);
        for (family, number) in FAMILIES.into_iter().zip([2, 10]) {
            let added = check(&add_rule(family), 32, create | exclusive);
            // struct fib_rule_hdr: FR_ACT_TO_TBL is 1.
            assert_eq!(added[..12], [number, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
            for (kind, value) in [(6, 83), (10, 0x5348_0000), (16, 0xffff_0000), (15, 21_320)] {
                let wanted = attribute(kind, value);
                assert!(added.windows(8).any(|bytes| bytes == wanted), "FRA {kind}: {added:?}");
            }
            assert_eq!(check(&remove_rule(family), 33, 0), added, "what is removed is what was added");
        }
    }

    #[test]
    fn a_route_is_a_default_route_by_the_device() {
        let route = check(&add_route(AddressFamily::Inet, 7), 24, 0x600);
        // struct rtmsg: family, two prefix lengths, TOS, table, protocol, RT_SCOPE_LINK, RTN_UNICAST, flags.
        assert_eq!(route[..12], [2, 0, 0, 0, 0, 83, 253, 1, 0, 0, 0, 0]);
        assert_eq!(route[12..], [attribute(15, 21_320), attribute(4, 7)].concat());
        assert_eq!(check(&add_route(AddressFamily::Inet6, 7), 24, 0x600)[..8], [10, 0, 0, 0, 0, 83, 0, 1]);
    }

    #[test]
    fn names_fit_the_kernel() {
        assert!([DEVICE, PEER].iter().all(|name| name.len() <= 15));
    }
}
