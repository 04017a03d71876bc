//! Messages built by netlink-packet-route, which knows nothing of our decoding, as the kernel sends them.

use netlink_packet_core::Emitable;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVlan, LinkAttribute, LinkInfo, VlanProtocol,
};
use netlink_packet_route::neighbour::NeighbourState;
use netlink_packet_route::route::{RouteMetric, RouteVia};

use super::*;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);

fn payload(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn decoded(kind: u16, payload: &[u8]) -> Option<Event> {
    event(Message { kind, flags: 0, sequence: 0, payload })
}

fn link_message(flags: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = 4;
    message.header.flags = flags;
    message.attributes = vec![
        LinkAttribute::IfName("eth1".to_owned()),
        LinkAttribute::Mtu(9000),
        LinkAttribute::Address(MAC.0.to_vec()),
    ];
    message
}

#[test]
fn links() {
    for (flags, up) in [
        (LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running, true),
        (LinkFlags::Up, false),
        (LinkFlags::Up | LinkFlags::LowerUp, false),
        (LinkFlags::LowerUp | LinkFlags::Running, false),
    ] {
        let link = Link { name: "eth1".to_owned(), mac: MAC, mtu: 9000, up, vlan: None };
        let bytes = payload(&link_message(flags));
        assert_eq!(decoded(RTM_NEWLINK, &bytes), Some(Event::Link { ifindex: 4, link }), "{flags}");
        assert_eq!(decoded(RTM_DELLINK, &bytes), Some(Event::LinkGone { ifindex: 4 }));
    }
    let mut port_of_a_bridge = link_message(LinkFlags::Up);
    port_of_a_bridge.header.interface_family = AddressFamily::Bridge;
    assert_eq!(decoded(RTM_DELLINK, &payload(&port_of_a_bridge)), None);
    let mut wireless = link_message(LinkFlags::Up);
    wireless.attributes.truncate(1);
    assert_eq!(decoded(RTM_NEWLINK, &payload(&wireless)), None);
}

#[test]
fn vlan_devices() {
    use LinkAttribute::{Link as Below, LinkInfo as Info, LinkNetNsId};
    let of = |data: Vec<InfoVlan>| {
        Info(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(data))])
    };
    let customer = || of(vec![InfoVlan::Protocol(VlanProtocol::Ieee8021Q), InfoVlan::Id(20)]);
    let provider = || of(vec![InfoVlan::Id(4094), InfoVlan::Protocol(VlanProtocol::Ieee8021Ad)]);
    let without_id = of(vec![InfoVlan::Protocol(VlanProtocol::Ieee8021Q)]);
    let without_protocol = of(vec![InfoVlan::Id(20)]);
    let veth = Info(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(LinkMessage::default()))),
    ]);
    let on = |parent, tpid, id| Some(Vlan { parent, tag: VlanTag { tpid, id } });
    for (what, attributes, expected) in [
        ("802.1Q", vec![Below(3), customer()], on(3, 0x8100, 20)),
        ("802.1ad, in another order", vec![provider(), Below(300)], on(300, 0x88a8, 4094)),
        ("the NIC is in another namespace", vec![Below(3), customer(), LinkNetNsId(0)], None),
        ("no NIC", vec![customer()], None),
        ("no identifier", vec![Below(3), without_id], None),
        ("no protocol", vec![Below(3), without_protocol], None),
        ("a name and nothing else", vec![Below(3), Info(vec![LinkInfo::Kind(InfoKind::Vlan)])], None),
        ("another kind", vec![Below(3), veth], None),
        ("a NIC", vec![], None),
    ] {
        let mut message = link_message(LinkFlags::Up);
        message.attributes.extend(attributes);
        let Some(Event::Link { link, .. }) = decoded(RTM_NEWLINK, &payload(&message)) else {
            panic!("{what}: not a link")
        };
        assert_eq!(link.vlan, expected, "{what}");
        assert_eq!((&*link.name, link.mac, link.mtu), ("eth1", MAC, 9000), "{what}");
    }
}

#[test]
fn a_vlan_device_as_the_kernel_sends_it() {
    #[rustfmt::skip]
    let bytes = [
        0, 0, 1, 0, 7, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0, // Ethernet, ifindex 7, up, running, lower up
        12, 0, 3, 0, b'e', b't', b'h', b'1', b'.', b'2', b'0', 0,
        8, 0, 4, 0, 0xdc, 0x05, 0, 0,                         // MTU 1500
        8, 0, 5, 0, 3, 0, 0, 0,                               // on ifindex 3
        10, 0, 1, 0, 2, 0, 0, 0, 0, 7, 0, 0,
        48, 0, 18, 0,                                         // IFLA_LINKINFO
        9, 0, 1, 0, b'v', b'l', b'a', b'n', 0, 0, 0, 0,
        32, 0, 2, 0,                                          // IFLA_INFO_DATA
        6, 0, 5, 0, 0x88, 0xa8, 0, 0,                         // protocol, in network order
        6, 0, 1, 0, 20, 0, 0, 0,                              // identifier, in host order
        12, 0, 2, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,      // flags: REORDER_HDR
    ];
    let vlan = Some(Vlan { parent: 3, tag: VlanTag { tpid: 0x88a8, id: 20 } });
    let link = Link { name: "eth1.20".to_owned(), mac: MAC, mtu: 1500, up: true, vlan };
    assert_eq!(decoded(RTM_NEWLINK, &bytes), Some(Event::Link { ifindex: 7, link }));
    for length in 0..bytes.len() {
        if let Some(Event::Link { link, .. }) = decoded(RTM_NEWLINK, &bytes[..length]) {
            assert_eq!(link.vlan, None, "cut to {length} bytes");
        }
    }
}

#[test]
fn neighbours() {
    for (address, family) in [("10.0.0.2", AddressFamily::Inet), ("fe80::2", AddressFamily::Inet6)] {
        let address: IpAddr = address.parse().unwrap();
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        message.header.ifindex = 4;
        message.header.state = NeighbourState::Stale;
        message.attributes = vec![
            NeighbourAttribute::Destination(address.into()),
            NeighbourAttribute::LinkLayerAddress(MAC.0.to_vec()),
        ];
        let (key, state) = ((4, address), NeighbourState::Stale);
        let bytes = payload(&message);
        assert_eq!(decoded(RTM_NEWNEIGH, &bytes), Some(Event::Neighbour { key, state, mac: Some(MAC) }));
        assert_eq!(decoded(RTM_DELNEIGH, &bytes), Some(Event::NeighbourGone { key }));
        message.header.flags = NeighbourFlags::Proxy;
        assert_eq!(decoded(RTM_NEWNEIGH, &payload(&message)), None);
        message.header = NeighbourHeader { family: AddressFamily::Bridge, ..Default::default() };
        assert_eq!(decoded(RTM_NEWNEIGH, &payload(&message)), None);
    }
}

fn route_message(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.kind = kind;
    message.attributes = attributes;
    message
}

#[test]
fn changed_prefixes() {
    let mut default = route_message(RouteType::Unicast, vec![RouteAttribute::Oif(4)]);
    assert_eq!(prefix(&payload(&default)), Some("0.0.0.0/0".parse().unwrap()));
    default.header.address_family = AddressFamily::Inet6;
    assert_eq!(prefix(&payload(&default)), Some("::/0".parse().unwrap()));
    default.header.address_family = AddressFamily::Mpls;
    assert_eq!(prefix(&payload(&default)), None);
    let destination = RouteAttribute::Destination(Ipv4Addr::new(10, 1, 0, 0).into());
    let mut route = route_message(RouteType::Unicast, vec![destination]);
    route.header.destination_prefix_length = 16;
    let expected = Event::RouteChanged("10.1.0.0/16".parse().unwrap());
    assert_eq!(decoded(RTM_NEWROUTE, &payload(&route)), Some(expected));
    route.header.destination_prefix_length = 200;
    assert_eq!(decoded(RTM_DELROUTE, &payload(&route)), None);
    for kind in [RTM_NEWADDR, RTM_DELADDR, RTM_NEWRULE, RTM_DELRULE, RTM_NEWNEXTHOP, RTM_DELNEXTHOP] {
        assert_eq!(decoded(kind, &[]), Some(Event::RoutesChanged));
    }
}

#[test]
fn answers() {
    let source = Ipv4Addr::new(10, 0, 0, 1);
    let gateway = Ipv4Addr::new(10, 0, 0, 254);
    let oif = RouteAttribute::Oif(4);
    let plain = Route { ifindex: 4, gateway: None, source: None, mtu: None };
    let metrics = RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(9), RouteMetric::Mtu(1400)]);
    let via: Ipv6Addr = "fe80::1".parse().unwrap();
    for (kind, attributes, expected) in [
        (RouteType::Unicast, vec![oif.clone()], Answer::Via(plain.clone())),
        (
            RouteType::Unicast,
            vec![
                oif.clone(),
                RouteAttribute::Gateway(gateway.into()),
                RouteAttribute::PrefSource(source.into()),
                metrics,
            ],
            Answer::Via(Route {
                ifindex: 4,
                gateway: Some(gateway.into()),
                source: Some(source.into()),
                mtu: Some(1400),
            }),
        ),
        (
            RouteType::Unicast,
            vec![
                oif.clone(),
                RouteAttribute::Via(RouteVia::Inet6(via)),
                RouteAttribute::PrefSource(Ipv4Addr::UNSPECIFIED.into()),
                RouteAttribute::Metrics(vec![RouteMetric::Mtu(0)]),
            ],
            Answer::Via(Route { gateway: Some(via.into()), ..plain }),
        ),
        (
            RouteType::Unicast,
            vec![oif.clone(), RouteAttribute::EncapType(netlink_packet_route::route::RouteLwEnCapType::Mpls)],
            Answer::NoRoute,
        ),
        (RouteType::Unicast, vec![], Answer::NoRoute),
        (RouteType::Local, vec![oif.clone()], Answer::Local { ifindex: 4 }),
        (RouteType::Broadcast, vec![oif.clone()], Answer::NoRoute),
        (RouteType::Unreachable, vec![oif], Answer::NoRoute),
    ] {
        let message = route_message(kind, attributes);
        assert_eq!(route_answer(&payload(&message)), expected, "{message:?}");
    }
    assert_eq!(route_answer(&[2]), Answer::NoRoute);
}

#[test]
fn questions_are_what_the_kernel_expects() {
    let create = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    for (create_it, flags) in [(true, create), (false, NLM_F_REQUEST | NLM_F_ACK)] {
        let key = (4, "10.0.0.2".parse().unwrap());
        let mut question = ask_neighbour(Inquiry { key, create: create_it });
        question.finalize();
        let mut bytes = vec![0; question.buffer_len()];
        question.serialize(&mut bytes);
        let sent: Vec<Message> = messages(&bytes).collect();
        assert_eq!((sent.len(), sent[0].kind, sent[0].flags), (1, RTM_NEWNEIGH, flags));
        let body = [2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1, 0, 8, 0, 1, 0, 10, 0, 0, 2];
        assert_eq!(sent[0].payload, body, "AF_INET, ifindex 4, NUD_NONE, NTF_USE, NDA_DST");
    }
    let mut question = ask_route("2001:db8::1".parse().unwrap());
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    assert_eq!(bytes[16..28], [10, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "AF_INET6, /128");
    assert_eq!(bytes[28..32], [20, 0, 1, 0], "RTA_DST");
}

#[test]
fn a_datagram_is_read_up_to_what_is_malformed() {
    let mut bytes = Vec::new();
    for (length, kind) in [(20u32, 3u16), (17, 4)] {
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.resize(bytes.len() + (length as usize - 16).next_multiple_of(4), 0xaa);
    }
    let kinds = |bytes: &[u8]| messages(bytes).map(|m| (m.kind, m.payload.len())).collect::<Vec<_>>();
    assert_eq!(kinds(&bytes), [(3, 4), (4, 1)]);
    bytes.extend([255; 16]);
    assert_eq!(kinds(&bytes), [(3, 4), (4, 1)]);
    for length in 0..bytes.len() {
        assert!(kinds(&bytes[..length]).len() <= 2, "and it ends");
    }
    for kind in 0..120 {
        for length in 0..40 {
            _ = decoded(kind, &vec![0xff; length]);
            _ = decoded(kind, &vec![0; length]);
            _ = route_answer(&vec![0xff; length]);
        }
    }
}
