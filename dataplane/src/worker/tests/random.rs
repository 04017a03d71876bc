//! Packets of every shape through every mode: what leaves is what etherparse says should leave.

use crate::packet::transport::RST;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::world::{BACKENDS, CLIENTS, IDLE_S, Links, TestWorker, Way, World, mac_of, nic_mac, target};
use crate::port::NicIndex;
use crate::testing::draft::{self, CLIENT_MAC, Draft, drafts};
use crate::testing::oracle::{self, Seen, ends, seen, seen_valid};

/// A packet of a client and what it comes in.
#[derive(Clone, Debug)]
pub struct Case {
    pub way: Way,
    pub draft: Draft,
    pub client: SocketAddr,
    pub tags: Vec<u16>,
    padding: usize,
    lead: u8,
    vlan_out: Option<u16>,
    /// Bytes of payload of its fragments.
    fragments: Option<usize>,
}

impl Case {
    pub fn v6(&self) -> bool {
        self.client.is_ipv6()
    }

    pub fn service(&self) -> SocketAddr {
        self.way.service(self.v6(), self.draft.tcp.is_some())
    }

    /// What the client sends.
    fn packets(&self) -> Vec<Vec<u8>> {
        let whole = self.draft.between(self.client, self.service());
        match self.fragments {
            Some(room) => draft::fragments(&whole, room),
            None => vec![whole],
        }
    }

    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.packets().iter().map(|ip| draft::frame(ip, &self.tags, self.padding)).collect()
    }
}

pub fn cases(most: usize) -> impl Strategy<Value = Case> {
    let client = any::<(bool, u16, u16)>().prop_map(|(v6, host, port)| {
        let ip: IpAddr = if v6 {
            [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, host].into()
        } else {
            [198, 18, (host >> 8) as u8, host as u8].into()
        };
        (ip, port).into()
    });
    let way = prop::sample::select(Way::ALL.to_vec());
    let frame = (
        prop::collection::vec(1u16..4095, 0..=2),
        0usize..40,
        prop::sample::select(vec![0u8, 20, 40]),
        prop::option::of(1u16..4095),
        prop::option::weighted(0.3, prop::sample::select(vec![64usize, 256, 1240])),
    );
    (way, drafts(most), client, frame).prop_map(
        |(way, draft, client, (tags, padding, lead, vlan_out, fragments))| Case {
            way,
            draft,
            client,
            // Replies of a translated flow could not get two tags.
            tags: if way == Way::Nat { tags.into_iter().take(1).collect() } else { tags },
            padding,
            lead,
            vlan_out,
            fragments,
        },
    )
}

/// Runs each case at a time when the flows of those before are forgotten.
pub fn run<T: std::fmt::Debug>(cases: impl Strategy<Value = T>, check: impl Fn(T, u32)) {
    let now = RefCell::new(0);
    let checked = TestRunner::default().run(&cases, |case| {
        *now.borrow_mut() += 2 * IDLE_S;
        check(case, *now.borrow());
        Ok(())
    });
    checked.unwrap();
}

/// The packet without the outer header of a tunnel; of the tunnel, the backend.
pub fn unwrapped(way: Way, outer: &[u8], inner_v6: bool) -> (IpAddr, Vec<u8>) {
    let sliced = etherparse::IpSlice::from_slice(outer).unwrap();
    assert_eq!(sliced.payload_ip_number().0, if inner_v6 { 41 } else { 4 });
    assert!(!sliced.is_fragmenting_payload());
    match (way, sliced.source_addr(), sliced.destination_addr()) {
        (Way::Ipip4, IpAddr::V4(source), backend @ IpAddr::V4(_)) => {
            assert_eq!((source.octets()[..2].to_vec(), outer.len() >= 20), (vec![10, 200], true));
            assert_eq!((outer[6], outer[8]), (0x40, 64), "DF and TTL");
            (backend, outer[20..].to_vec())
        }
        (Way::Ipip6, IpAddr::V6(source), backend @ IpAddr::V6(_)) => {
            assert_eq!(source.segments()[..4], [0xfd00, 0x200, 0, 0]);
            assert_eq!(outer[7], 64, "hop limit");
            (backend, outer[40..].to_vec())
        }
        other => panic!("{other:?}"),
    }
}

/// What left for a backend, as far as all modes agree.
fn check_link(case: &Case, out: &(NicIndex, Vec<u8>)) -> Seen {
    let seen = seen_valid(&out.1);
    assert_eq!((out.0, seen.source_mac), (BACKENDS, nic_mac(BACKENDS)));
    assert_eq!(seen.vlans, case.vlan_out.into_iter().collect::<Vec<_>>());
    // Tags that go make room for as much padding.
    let most = case.padding + 4 * case.tags.len();
    assert!(seen.padding <= most && (seen.padding == 0 || out.1.len() <= 64), "{seen:?}");
    seen
}

/// One packet of a client left right. Returns the IP packet that a `nat` backend gets.
fn check_forwarded(case: &Case, ip: &[u8], out: &(NicIndex, Vec<u8>)) -> Vec<u8> {
    let seen = check_link(case, out);
    match case.way {
        Way::Dr => {
            assert_eq!(seen.ip, ip);
            let hosts = [1, 2, 3].map(|host| mac_of([10, 0, 0, host].into()));
            assert!(hosts.contains(&seen.destination_mac), "{seen:?}");
        }
        Way::Ipip4 | Way::Ipip6 => {
            let (backend, inner) = unwrapped(case.way, &seen.ip, case.v6());
            assert_eq!(inner, ip);
            // 25 bytes with an outer IPv4 header are one too few for a frame.
            assert!(seen.padding == 0 || out.1.len() == 60, "{seen:?}");
            assert_eq!(seen.destination_mac, mac_of(backend));
            let class = |ip: &[u8]| if ip[0] >> 4 == 4 { ip[1] } else { ip[0] << 4 | ip[1] >> 4 };
            assert_eq!(class(&seen.ip), class(ip), "TOS and ECN are copied");
        }
        Way::Nat => {}
    }
    seen.ip
}

/// The packet that a `nat` backend gets is the client's between other ends.
fn check_translated(case: &Case, got: &[u8], out: &(NicIndex, Vec<u8>)) {
    let (source, backend) = ends(got);
    let sources: [IpAddr; 3] = ["10.0.9.1", "10.0.9.2", "fd00:9::1"].map(|source| source.parse().unwrap());
    assert!(sources.contains(&source.ip()) && source.port() >= 1024, "{source}");
    assert_eq!(backend.port(), target(case.draft.tcp.is_some()));
    assert_eq!(seen(&out.1).destination_mac, mac_of(backend.ip()));
    assert_eq!(got, case.draft.between(source, backend));
}

/// The client is told, if it may be, that its packet does not fit.
fn check_too_big(case: &Case, ip: &[u8], sent: &[(NicIndex, Vec<u8>)]) {
    let told = if case.v6() { ip.len() > 1280 } else { case.draft.ip.dont_fragment };
    let [(nic, frame)] = sent else {
        assert!(sent.is_empty() && !told, "{sent:?}");
        return;
    };
    let seen = seen_valid(frame);
    assert_eq!((*nic, seen.destination_mac, &seen.vlans), (CLIENTS, CLIENT_MAC, &case.tags));
    let error = oracle::icmp(&seen.ip);
    let (kind, most) = if case.v6() { ([2, 0], 1232) } else { ([3, 4], 548) };
    assert!(told && error.kind == kind, "{error:?}");
    assert_eq!(u32::from_be_bytes(error.value) as usize, 1500 - case.way.outer_length());
    assert_eq!((error.source, error.destination), (case.service().ip(), case.client.ip()));
    assert_eq!(error.data, ip[..most.min(ip.len())]);
}

fn check(case: &Case, worker: &mut TestWorker, now: u32) {
    let (packets, frames) = (case.packets(), case.frames());
    frames.iter().for_each(|frame| worker.inject(CLIENTS, case.lead, frame));
    let sent = worker.turn(now);
    if case.way == Way::Nat && case.draft.tcp.is_some_and(|flags| flags & RST != 0) {
        return assert!(sent.is_empty(), "a reset takes no source");
    }
    if packets[0].len() + case.way.outer_length() > 1500 {
        return check_too_big(case, &packets[0], &sent);
    }
    assert_eq!(sent.len(), packets.len(), "{:?}", worker.values());
    let got: Vec<_> = packets.iter().zip(&sent).map(|(ip, out)| check_forwarded(case, ip, out)).collect();
    if case.way == Way::Nat {
        let whole = if case.fragments.is_some() { draft::joined(&got) } else { got[0].clone() };
        check_translated(case, &whole, &sent[0]);
    }
    let stations: Vec<_> = sent.iter().map(|(_, frame)| &frame[..6]).collect();
    assert!(stations.windows(2).all(|pair| pair[0] == pair[1]), "fragments part");
}

#[test]
fn every_packet_leaves_right() {
    let world = RefCell::new(World::new(1, |_| ()));
    let worker = RefCell::new(world.borrow().worker(0));
    run(cases(1500), |case, now| {
        world.borrow_mut().relink(Links { vlan: case.vlan_out, mtu: 1500 });
        check(&case, &mut worker.borrow_mut(), now);
    });
}

/// NICs want 60 bytes at least, and not every driver makes up what is missing; a shorter frame came by one that
/// does.
#[test]
fn a_short_frame_keeps_the_padding_that_it_needs_and_no_more() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    for (way, v6) in Way::ALL.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let client = if v6 { "[2001:db8:c::1]:1" } else { "198.18.0.1:1" }.parse().unwrap();
        for payload in [0, 1, 17, 18, 19, 100] {
            let ip = Draft::udp(&vec![7; payload]).between(client, way.service(v6, false));
            for padding in [0, 1, 18, 30] {
                let frame = draft::frame(&ip, &[], padding);
                let (_, out) = worker.pass(CLIENTS, &frame, 1).unwrap();
                let (length, least) =
                    (14 + ip.len() + way.outer_length(), if frame.len() < 60 { 0 } else { 60 });
                assert_eq!(out.len(), length.max(least), "{way:?} {payload} {padding}");
            }
        }
    }
}
