//! Delivery of health checks on the running kernel: marked packets of real sockets leave by `v0` with the headers that
//! workers write, and nothing else leaves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};
use rustix::thread::{CapabilitySet, CapabilitySets};
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::{Mode, PROBE_MARK, ProbeWay, Tunnel};
use shunt_api::status::ProbeCounters;
use shunt_dataplane::limits::TICK;
use shunt_dataplane::packet;
use shunt_dataplane::packet::ethernet::VlanTag;
use shunt_dataplane::port::NicIndex;
use shunt_dataplane::probe::{Network, Probes, remove_leftovers, strict_filters};
use shunt_dataplane::rewrite::{self, Link};
use shunt_dataplane::table::{Exit, Hop, OpenHop};

use super::sandbox::{add_veth, run, sandboxed, wait_until};

const BACKEND: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x77]);
const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x02]);
const VIPS: [&str; 2] = ["203.0.113.10", "2001:db8::10"];
/// Expedited forwarding with an ECN capable transport.
const TOS: u32 = 0xba;
const MTU: u32 = 1500;

fn tunnel() -> Tunnel {
    let (source_v4, source_v6) = ("10.9.0.0/16".parse().unwrap(), "fd00:9::/64".parse().unwrap());
    Tunnel { source_v4: Some(source_v4), source_v6: Some(source_v6), fragment: false }
}

fn hop(vlan: Option<VlanTag>) -> OpenHop {
    let link = Link { destination: BACKEND, source: OWN, vlan, mtu: MTU };
    OpenHop { nic: NicIndex(0), link, on_link: true, source: None }
}

/// Every kind of way, by its number.
fn ways() -> Vec<(ProbeWay, OpenHop)> {
    let tag = Some(VlanTag { tpid: 0x8100, id: 20 });
    let kinds = [
        (Mode::Dr, "192.0.2.20", None),
        (Mode::Dr, "192.0.2.21", tag),
        (Mode::Ipip, "192.0.2.22", None),
        (Mode::Ipip, "192.0.2.23", tag),
        (Mode::Ipip, "fd00::24", None),
        (Mode::Ipip, "fd00::25", tag),
    ];
    let way = |(number, (mode, address, vlan)): (u16, (Mode, &str, Option<VlanTag>))| {
        (ProbeWay { number, address: address.parse().unwrap(), mode }, hop(vlan))
    };
    (0xfff0..).zip(kinds).map(way).collect()
}

/// Has all ways delivered by `v0`.
fn renew(probes: &mut Probes, now: Instant) {
    try_renew(probes, now);
    assert_eq!(probes.problem(), None);
}

fn try_renew(probes: &mut Probes, now: Instant) {
    let ifindex = run("cat /sys/class/net/v0/ifindex 2>/dev/null || ip -o link show v0 | cut -d: -f1");
    let hops: BTreeMap<IpAddr, Hop> =
        ways().into_iter().map(|(probe, hop)| (probe.address, Hop::Open(hop))).collect();
    probes.want(&ways().into_iter().map(|(probe, _)| probe).collect::<Vec<_>>());
    let ifindexes = [ifindex.trim().parse().unwrap()];
    probes.renew(Network { hops, tunnel: &tunnel(), ifindexes: &ifindexes, mtu: MTU }, now);
}

/// A box whose NIC `v0` finishes its packets itself; its own addresses are on the other end, where nobody looks.
fn start() -> Probes {
    add_veth();
    run("ip addr add fd00::1/64 dev v1 nodad && ethtool -K v0 tx off txvlan off");
    // Its own multicast reports would be counted among what is sent.
    run("sysctl -qw net.ipv6.conf.v0.disable_ipv6=1");
    let mut probes = Probes::default();
    renew(&mut probes, Instant::now());
    probes
}

/// A socket whose packets have a mark.
fn marked(mark: u32, vip: IpAddr) -> UdpSocket {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(SocketAddr::new(vip, 9)),
        socket2::Type::DGRAM,
        None,
    )
    .unwrap();
    socket.set_mark(mark).unwrap();
    match vip {
        IpAddr::V4(_) => socket.set_tos_v4(TOS).unwrap(),
        IpAddr::V6(_) => socket.set_tclass_v6(TOS).unwrap(),
    }
    socket.connect(&SocketAddr::new(vip, 9).into()).unwrap();
    socket.into()
}

/// Sees the frames that the kernel sends and receives in this network namespace.
struct Tap(OwnedFd);

impl Tap {
    fn open() -> Self {
        const ETH_P_ALL: u16 = 3;
        let all = NonZeroU32::new(ETH_P_ALL.to_be().into()).map(Protocol::from_raw);
        let flags = SocketFlags::NONBLOCK;
        Self(rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, all).unwrap())
    }

    /// The next frame to the backend as it leaves `v0`. It is seen once more where it arrives, by then without a tag.
    fn next(&self) -> Vec<u8> {
        let [left, _] = [self.to_backend(), self.to_backend()];
        left
    }

    fn to_backend(&self) -> Vec<u8> {
        let (mut buffer, mut frame) = (vec![0; 1 << 16], Vec::new());
        wait_until("a frame to the backend is seen", || {
            let Ok((length, _)) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) else {
                return false;
            };
            frame = buffer[..length].to_vec();
            frame[..6] == BACKEND.0
        });
        frame
    }
}

/// What a worker makes of the packet in `frame`, which lies behind other headers there.
fn expected(probe: &ProbeWay, hop: &OpenHop, frame: &[u8]) -> Vec<u8> {
    // Of the number alone, so known only to the code under test: the last bits of the source, and the flow label.
    let outer_at = hop.link.header_length();
    let exit = Exit::of(hop, &tunnel(), probe.address);
    let outer = exit.outer(probe.mode, 0).unwrap().map(|outer| match outer {
        rewrite::Outer::V4 { destination, .. } => {
            let source: [u8; 4] = frame[outer_at + 12..outer_at + 16].try_into().unwrap();
            rewrite::Outer::V4 { source: source.into(), destination }
        }
        rewrite::Outer::V6 { destination, .. } => {
            let source: [u8; 16] = frame[outer_at + 8..outer_at + 24].try_into().unwrap();
            let first = u32::from_be_bytes(frame[outer_at..outer_at + 4].try_into().unwrap());
            rewrite::Outer::V6 { source: source.into(), destination, flow_label: first & 0xf_ffff }
        }
    });
    let inner_at = outer_at + outer.map_or(0, |outer| outer.length());
    let ip = &frame[inner_at..];
    let ether_type = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    let came = [&[0; 12][..], &ether_type, ip].concat();
    let inner = packet::parse(&came, came.len()).expect("a whole packet").inner();
    let mut buffer = came.clone();
    buffer.resize(came.len() + 64, 0);
    let placed = rewrite::place(&mut buffer, 0..came.len(), &inner, &hop.link, outer.as_ref()).unwrap();
    buffer[placed.range].to_vec()
}

/// The IP packet, after whatever headers: addressed to the VIP, and its checksums are right.
fn check_inner(frame: &[u8], vip: IpAddr, payload: &[u8]) {
    let udp_length = 8 + payload.len();
    let ip = &frame[frame.len() - udp_length - if vip.is_ipv4() { 20 } else { 40 }..];
    let udp = &ip[ip.len() - udp_length..];
    let parsed = etherparse::UdpHeader::from_slice(udp).unwrap().0;
    let (sum, destination) = match vip {
        IpAddr::V4(_) => {
            let header = etherparse::Ipv4Header::from_slice(ip).unwrap().0;
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            (parsed.calc_checksum_ipv4(&header, payload), IpAddr::from(header.destination))
        }
        IpAddr::V6(_) => {
            let header = etherparse::Ipv6Header::from_slice(ip).unwrap().0;
            (parsed.calc_checksum_ipv6(&header, payload), IpAddr::from(header.destination))
        }
    };
    assert_eq!((sum.unwrap(), destination), (parsed.checksum, vip));
    assert!(udp.ends_with(payload));
}

#[test]
fn packets_of_probes_leave_with_the_headers_that_workers_write() {
    sandboxed("probe::packets_of_probes_leave_with_the_headers_that_workers_write", |_| {
        let probes = start();
        let tap = Tap::open();
        let payload = b"are you there, and is it really you?";
        let mut sent = 0;
        for (probe, hop) in ways() {
            for vip in VIPS.map(|vip| vip.parse::<IpAddr>().unwrap()) {
                marked(PROBE_MARK | u32::from(probe.number), vip).send(payload).unwrap();
                let frame = tap.next();
                assert_eq!(frame, expected(&probe, &hop, &frame), "{probe:?} {vip}");
                check_inner(&frame, vip, payload);
                sent += 1;
            }
        }
        let counters = ProbeCounters { ways: 6, delivered: sent, ..Default::default() };
        assert_eq!(probes.counters(), Some(counters));
        probes.stop();
    });
}

#[test]
fn what_fits_no_way_is_dropped_and_counted() {
    sandboxed("probe::what_fits_no_way_is_dropped_and_counted", |_| {
        let probes = start();
        let [v4, v6] = VIPS.map(|vip| vip.parse::<IpAddr>().unwrap());
        let [direct, tunnelled] = [0xfff0, 0xfff2].map(|number| PROBE_MARK | number);
        let before = sent_by_v0();
        marked(PROBE_MARK | 7, v4).send(b"no such number").unwrap();
        marked(PROBE_MARK | 7, v6).send(b"no such number").unwrap();
        // 1481 bytes of IP packet, which go by an Ethernet header alone but not through the tunnel.
        marked(tunnelled, v4).send(&[0; 1453]).unwrap();
        run("ip route add 203.0.113.0/24 dev shunt-probe");
        marked(0, v4).send(b"no probe").unwrap();
        assert_eq!(sent_by_v0(), before);
        marked(tunnelled, v4).send(&[0; 1452]).unwrap();
        marked(direct, v4).send(&[0; 1472]).unwrap();
        assert_eq!(sent_by_v0(), before + 2);
        let counters = ProbeCounters {
            ways: 6,
            delivered: 2,
            dropped_no_probe: 1,
            dropped_no_way: 2,
            dropped_too_big: 1,
        };
        assert_eq!(probes.counters(), Some(counters));
        probes.stop();
    });
}

fn sent_by_v0() -> u64 {
    let links: serde_json::Value = serde_json::from_str(&run("ip -s -j link show dev v0")).unwrap();
    links[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
}

/// All that a dataplane makes for probes, as iproute2 shows it.
fn traces() -> String {
    run("ip -o link | grep -o 'shunt-probe[-x]*@.*>' ; ip rule | grep 21320; ip -6 rule | grep 21320; \
         ip route show table 21320 2>/dev/null; ip -6 route show table 21320 2>/dev/null; true")
}

/// Lets the control thread look as often as it does.
fn a_second_passes(probes: &mut Probes, now: &mut Instant) {
    let end = *now + Duration::from_secs(1);
    while *now < end {
        *now += TICK;
        probes.tick(*now);
    }
}

#[test]
fn it_is_taken_over_mended_and_removed() {
    sandboxed("probe::it_is_taken_over_mended_and_removed", |_| {
        assert_eq!(traces(), "");
        let probes = start();
        let made = traces();
        assert_eq!(made.lines().count(), 6, "two devices, two rules, two routes:\n{made}");
        assert!(!run("ip addr show dev shunt-probe").contains("inet"), "it has no address");

        // As after kill -9.
        drop(probes);
        assert_eq!(traces(), made);
        let (mut probes, now) = (Probes::default(), Instant::now());
        renew(&mut probes, now);
        assert_eq!(traces(), made, "taken over");
        run("ip link del shunt-probe");
        renew(&mut probes, now);
        assert_eq!(traces().lines().count(), 6, "the device is back at once when something changes");

        probes.stop();
        assert_eq!(traces(), "");
        assert_eq!(remove_leftovers().unwrap(), None);
        renew(&mut Probes::default(), now);
        assert!(remove_leftovers().unwrap().is_some());
        assert_eq!(traces(), "");
    });
}

#[test]
fn what_others_remove_is_back_within_a_second() {
    sandboxed("probe::what_others_remove_is_back_within_a_second", |_| {
        let (mut probes, mut now) = (start(), Instant::now());
        for command in [
            "ip rule del priority 83",
            "ip -6 rule del priority 83",
            "ip route flush table 21320",
            "ip -6 route flush table 21320",
            "ip rule del priority 83 && ip -6 rule del priority 83 && ip route flush table 21320",
            "tc qdisc del dev shunt-probe clsact",
            "tc filter del dev shunt-probe egress",
            "tc qdisc del dev shunt-probe clsact && ip rule del priority 83 && ip route flush table 21320",
            "ip link set shunt-probe down",
            "ip link del shunt-probe",
            "ip link del shunt-probe-x",
        ] {
            run(command);
            a_second_passes(&mut probes, &mut now);
            assert_eq!((traces().lines().count(), probes.problem()), (6, None), "after `{command}`");
            let before = probes.counters().unwrap().delivered;
            for vip in VIPS {
                marked(PROBE_MARK | 0xfff0, vip.parse().unwrap()).send(b"").unwrap();
            }
            assert_eq!(probes.counters().unwrap().delivered, before + 2, "after `{command}`");
        }
        probes.stop();
    });
}

/// Hears of changes of this network namespace from now on.
fn changes_of_qdiscs_rules_and_routes() -> netlink_sys::Socket {
    const RTNLGRP_TC: u32 = 4;
    const RTNLGRP_IPV4_ROUTE: u32 = 7;
    const RTNLGRP_IPV4_RULE: u32 = 8;
    const RTNLGRP_IPV6_RULE: u32 = 19;
    let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
    socket.bind_auto().unwrap();
    for group in [RTNLGRP_TC, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE] {
        socket.add_membership(group).unwrap();
    }
    socket.set_non_blocking(true).unwrap();
    socket
}

#[test]
fn a_look_at_what_is_right_changes_nothing() {
    sandboxed("probe::a_look_at_what_is_right_changes_nothing", |_| {
        let (mut probes, mut now) = (start(), Instant::now());
        let filter = "tc filter show dev shunt-probe egress";
        let (made, changes) = (run(filter), changes_of_qdiscs_rules_and_routes());
        assert!(made.contains("direct-action"), "{made}");
        a_second_passes(&mut probes, &mut now);
        let heard = changes.recv_from_full().map(|(message, _)| message);
        assert_eq!(heard.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(run(filter), made, "it is the same program");
        run("tc qdisc del dev shunt-probe clsact");
        a_second_passes(&mut probes, &mut now);
        assert!(changes.recv_from_full().is_ok(), "changes are heard of");
        assert_eq!(run(filter), made, "and the same again when it was gone");
        probes.stop();
    });
}

#[test]
fn what_cannot_be_made_is_a_problem_until_it_can() {
    sandboxed("probe::what_cannot_be_made_is_a_problem_until_it_can", |_| {
        add_veth();
        let (mut probes, now) = (Probes::default(), Instant::now());
        let sets = rustix::thread::capabilities(None).unwrap();
        let effective = sets.effective - CapabilitySet::NET_ADMIN;
        rustix::thread::set_capabilities(None, CapabilitySets { effective, ..sets }).unwrap();
        try_renew(&mut probes, now);
        let problem = probes.problem().expect("it may not make devices").to_owned();
        assert!(problem.contains("via = \"service\"") && problem.contains("CAP_NET_ADMIN"), "{problem}");
        assert_eq!(probes.counters(), None);

        probes.tick(now + Duration::from_secs(1));
        assert_eq!(probes.problem(), Some(problem.as_str()), "it is tried once more, soon");
        rustix::thread::set_capabilities(None, sets).unwrap();
        probes.tick(now + Duration::from_secs(10));
        assert!(probes.problem().is_some(), "but not all the time");
        probes.tick(now + Duration::from_secs(20));
        assert_eq!((probes.problem(), traces().lines().count()), (None, 6));
        probes.stop();
    });
}

#[test]
fn without_probes_nothing_is_made() {
    sandboxed("probe::without_probes_nothing_is_made", |_| {
        let mut probes = Probes::default();
        let now = Instant::now();
        probes.renew(Network { hops: BTreeMap::new(), tunnel: &tunnel(), ifindexes: &[1], mtu: MTU }, now);
        probes.tick(now);
        assert_eq!((traces().as_str(), probes.problem(), probes.counters()), ("", None, None));
        probes.stop();
    });
}

#[test]
fn a_strict_filter_is_found() {
    sandboxed("probe::a_strict_filter_is_found", |_| {
        add_veth();
        let found = |all: u8, own: u8| {
            run(&format!("sysctl -qw net.ipv4.conf.all.rp_filter={all} net.ipv4.conf.v0.rp_filter={own}"));
            !strict_filters(["v0"].into_iter()).is_empty()
        };
        for (all, own, strict) in [(0, 0, false), (1, 0, true), (0, 1, true), (2, 1, false), (1, 2, false)] {
            assert_eq!(found(all, own), strict, "all {all}, own {own}");
        }
    });
}
