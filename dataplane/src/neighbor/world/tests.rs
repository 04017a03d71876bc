//! The world against a kernel that is a table of routes, on a clock of its own.

use netlink_packet_route::neighbour::NeighbourState;
use shunt_api::mac::MacAddress;

use super::*;
use crate::neighbor::{Link, Vlan};

const NIC: u32 = 2;
const SECOND_NIC: u32 = 3;
const OTHER: u32 = 9;
const VLAN: u32 = 20;
const BACKEND: &str = "10.0.0.2";
const MAC_A: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xa]);
const MAC_B: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xb]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nic_mac(ifindex: u32) -> MacAddress {
    MacAddress([2, 0, 0, 0, 1, ifindex.to_le_bytes()[0]])
}

fn link(ifindex: u32, up: bool) -> Event {
    let link = Link { name: format!("eth{ifindex}"), mac: nic_mac(ifindex), mtu: 1500, up, vlan: None };
    Event::Link { ifindex, link }
}

/// A VLAN device on `parent`, tagged with its own ifindex.
fn vlan(ifindex: u32, parent: u32, up: bool) -> Event {
    let Event::Link { link, .. } = link(ifindex, up) else { unreachable!() };
    let link = Link { vlan: Some(Vlan { parent, tag: tag(ifindex) }), ..link };
    Event::Link { ifindex, link }
}

fn tag(ifindex: u32) -> VlanTag {
    VlanTag { tpid: 0x8100, id: ifindex as u16 }
}

fn neighbour(ifindex: u32, address: &str, state: NeighbourState, mac: Option<MacAddress>) -> Event {
    Event::Neighbour { key: (ifindex, ip(address)), state, mac }
}

fn reachable(ifindex: u32, address: &str, mac: MacAddress) -> Event {
    neighbour(ifindex, address, NeighbourState::Reachable, Some(mac))
}

fn gone(ifindex: u32, address: &str) -> Event {
    Event::NeighbourGone { key: (ifindex, ip(address)) }
}

fn via(ifindex: u32, gateway: Option<&str>) -> Answer {
    Answer::Via(Route { ifindex, gateway: gateway.map(ip), source: Some(ip("10.0.0.1")), mtu: None })
}

/// A hop over `ifindex` to `mac`, with all else as [`link`] and [`via`] have it.
fn resolved(ifindex: u32, gateway: Option<&str>, destination_mac: MacAddress) -> Hop {
    Hop::Resolved(ResolvedHop {
        ifindex,
        vlan: None,
        source_mac: nic_mac(ifindex),
        destination_mac,
        gateway: gateway.map(ip),
        source_address: Some(ip("10.0.0.1")),
        mtu: 1500,
    })
}

/// A hop over [`VLAN`] on `nic` to `mac`.
fn tagged(nic: u32, gateway: Option<&str>, destination_mac: MacAddress) -> Hop {
    let Hop::Resolved(hop) = resolved(VLAN, gateway, destination_mac) else { unreachable!() };
    Hop::Resolved(ResolvedHop { ifindex: nic, vlan: Some(tag(VLAN)), ..hop })
}

/// A world that serves two NICs and wants one backend, and the kernel it asks.
struct Bench {
    world: World,
    now: Instant,
    routes: BTreeMap<IpAddr, Answer>,
    entries: Vec<Event>,
    routes_asked: usize,
    resyncs: usize,
    inquiries: Vec<(Instant, Inquiry)>,
}

impl Bench {
    fn new(routes: &[(&str, Answer)], neighbours: &[Event]) -> Self {
        let now = Instant::now();
        let mut world = World::new(now);
        world.serve(&BTreeSet::from([NIC, SECOND_NIC]));
        world.want(&routes.iter().map(|(address, _)| ip(address)).collect(), now);
        let links = [NIC, SECOND_NIC, OTHER].map(|ifindex| link(ifindex, true));
        let mut bench = Self {
            world,
            now,
            routes: routes.iter().map(|(address, answer)| (ip(address), answer.clone())).collect(),
            entries: links.into_iter().chain(neighbours.iter().cloned()).collect(),
            routes_asked: 0,
            resyncs: 0,
            inquiries: Vec::new(),
        };
        bench.serve_requests();
        bench
    }

    fn serve_requests(&mut self) {
        loop {
            let requests = self.world.requests(self.now);
            if requests == Requests::default() {
                return;
            }
            if requests.resync {
                self.resyncs += 1;
                self.world.resync(self.entries.clone(), self.now);
            }
            self.routes_asked += requests.routes.len();
            for address in requests.routes {
                let answer = self.routes.get(&address).cloned().unwrap_or(Answer::NoRoute);
                self.world.answer(address, answer, self.now);
            }
            self.inquiries.extend(requests.neighbours.into_iter().map(|inquiry| (self.now, inquiry)));
        }
    }

    fn say(&mut self, event: Event) -> &mut Self {
        self.world.apply(event, self.now);
        self.serve_requests();
        self
    }

    /// Lets time pass, serving each deadline on the way.
    fn pass(&mut self, milliseconds: u64) -> &mut Self {
        let end = self.now + Duration::from_millis(milliseconds);
        while self.world.next_deadline() <= end {
            self.now = self.now.max(self.world.next_deadline());
            self.serve_requests();
        }
        self.now = end;
        self
    }

    fn hop(&self, address: &str) -> Hop {
        self.world.hop(ip(address), self.world.wanted[&ip(address)].as_ref())
    }

    /// The inquiries since the last call, as seconds from `start` and whether to make an entry.
    fn inquired(&mut self, start: Instant) -> Vec<(f64, bool)> {
        let inquiries = std::mem::take(&mut self.inquiries);
        inquiries.into_iter().map(|(at, inquiry)| ((at - start).as_secs_f64(), inquiry.create)).collect()
    }
}

/// One event after the other, with the hop of [`BACKEND`] after each.
fn check(mut bench: Bench, steps: Vec<(&str, Event, Hop)>) {
    for (what, event, expected) in steps {
        bench.say(event);
        assert_eq!(bench.hop(BACKEND), expected, "{what}");
    }
}

#[test]
fn the_answer_decides_the_kind_of_hop() {
    let with_mtu = |mtu| Answer::Via(Route { ifindex: NIC, gateway: None, source: None, mtu: Some(mtu) });
    let bench = Bench::new(
        &[
            ("10.0.0.2", via(NIC, None)),
            ("10.0.0.3", via(NIC, None)),
            ("10.1.0.2", via(NIC, Some("10.0.0.254"))),
            ("10.2.0.2", via(SECOND_NIC, Some("fe80::1"))),
            ("10.3.0.2", via(OTHER, Some("10.9.0.1"))),
            ("10.4.0.2", Answer::NoRoute),
            ("10.0.0.1", Answer::Local { ifindex: OTHER }),
            ("10.5.0.2", via(77, None)),
            ("10.6.0.2", with_mtu(1400)),
            ("10.6.0.3", with_mtu(9000)),
        ],
        &[
            reachable(NIC, "10.0.0.2", MAC_A),
            reachable(NIC, "10.0.0.254", MAC_B),
            reachable(SECOND_NIC, "fe80::1", MAC_A),
            reachable(NIC, "10.6.0.2", MAC_A),
            reachable(NIC, "10.6.0.3", MAC_A),
        ],
    );
    assert_eq!(bench.hop("10.0.0.2"), resolved(NIC, None, MAC_A));
    assert_eq!(bench.hop("10.0.0.3"), Hop::Unresolved);
    assert_eq!(bench.hop("10.1.0.2"), resolved(NIC, Some("10.0.0.254"), MAC_B));
    assert_eq!(bench.hop("10.2.0.2"), resolved(SECOND_NIC, Some("fe80::1"), MAC_A));
    for (address, ifname) in [("10.3.0.2", "eth9"), ("10.0.0.1", "eth9"), ("10.5.0.2", "ifindex 77")] {
        assert_eq!(bench.hop(address), Hop::RouteElsewhere { ifname: ifname.to_owned() }, "{address}");
    }
    assert_eq!(bench.hop("10.4.0.2"), Hop::NoRoute);
    for (address, expected) in [("10.6.0.2", 1400), ("10.6.0.3", 1500)] {
        let Hop::Resolved(hop) = bench.hop(address) else { panic!("{address} is not resolved") };
        assert_eq!((hop.mtu, hop.source_address), (expected, None));
    }
}

#[test]
fn a_mac_address_lives_until_the_neighbour_fails_its_probes() {
    use NeighbourState as Said;
    let says = |state, mac| neighbour(NIC, BACKEND, state, mac);
    check(
        Bench::new(&[(BACKEND, via(NIC, None))], &[]),
        vec![
            ("found", says(Said::Reachable, Some(MAC_A)), resolved(NIC, None, MAC_A)),
            ("doubted", says(Said::Stale, Some(MAC_A)), resolved(NIC, None, MAC_A)),
            ("moved, said by itself", says(Said::Stale, Some(MAC_B)), resolved(NIC, None, MAC_B)),
            ("probed", says(Said::Probe, Some(MAC_B)), resolved(NIC, None, MAC_B)),
            ("gave no answer", says(Said::Failed, None), Hop::Unresolved),
            ("looked for", says(Said::Incomplete, None), Hop::Unresolved),
            ("found again", says(Said::Reachable, Some(MAC_A)), resolved(NIC, None, MAC_A)),
            ("collected as garbage", gone(NIC, BACKEND), resolved(NIC, None, MAC_A)),
            ("looked for", says(Said::Incomplete, None), resolved(NIC, None, MAC_A)),
            ("gave no answer", says(Said::Failed, None), Hop::Unresolved),
            ("the same of another NIC", reachable(SECOND_NIC, BACKEND, MAC_B), Hop::Unresolved),
            ("made by hand", says(Said::Permanent, Some(MAC_B)), resolved(NIC, None, MAC_B)),
            ("deleted by hand", says(Said::Failed, None), resolved(NIC, None, MAC_B)),
            ("and gone", gone(NIC, BACKEND), resolved(NIC, None, MAC_B)),
            ("not there after all", says(Said::Failed, None), Hop::Unresolved),
        ],
    );
}

#[test]
fn links_come_go_and_change() {
    let other_mac = |mac| Event::Link {
        ifindex: NIC,
        link: Link { name: "eth2".to_owned(), mac, mtu: 1400, up: true, vlan: None },
    };
    let Hop::Resolved(hop) = resolved(NIC, None, MAC_A) else { unreachable!() };
    let changed = Hop::Resolved(ResolvedHop { source_mac: MAC_B, mtu: 1400, ..hop });
    check(
        Bench::new(&[(BACKEND, via(NIC, None))], &[reachable(NIC, BACKEND, MAC_A)]),
        vec![
            ("no carrier", link(NIC, false), Hop::NoRoute),
            ("back, and the kernel kept the entry", link(NIC, true), resolved(NIC, None, MAC_A)),
            ("new address and MTU", other_mac(MAC_B), changed),
            ("no carrier", link(NIC, false), Hop::NoRoute),
            ("flushed by the kernel", gone(NIC, BACKEND), Hop::NoRoute),
            ("back, somebody else may be there", link(NIC, true), Hop::Unresolved),
            ("found", reachable(NIC, BACKEND, MAC_B), resolved(NIC, None, MAC_B)),
            ("flushed before the link is reported", gone(NIC, BACKEND), resolved(NIC, None, MAC_B)),
            ("no carrier", link(NIC, false), Hop::NoRoute),
            ("back", link(NIC, true), Hop::Unresolved),
            ("removed", Event::LinkGone { ifindex: NIC }, Hop::NoRoute),
        ],
    );
}

#[test]
fn a_vlan_leads_through_the_nic_below_if_that_is_served_and_has_no_tag_itself() {
    let stacked = 30;
    let on = |parent| vec![vlan(VLAN, parent, true)];
    let served_vlan = BTreeSet::from([VLAN]);
    let nics = BTreeSet::from([NIC, SECOND_NIC]);
    let there = |name: &str| Hop::RouteElsewhere { ifname: name.to_owned() };
    for (what, served, links, device, expected) in [
        ("on a served NIC", &nics, on(NIC), VLAN, tagged(NIC, None, MAC_A)),
        ("on the other served NIC", &nics, on(SECOND_NIC), VLAN, tagged(SECOND_NIC, None, MAC_A)),
        ("on a NIC not served", &nics, on(OTHER), VLAN, there("eth20")),
        ("on a NIC nobody knows", &nics, on(77), VLAN, there("eth20")),
        ("served itself", &served_vlan, on(NIC), VLAN, resolved(VLAN, None, MAC_A)),
        ("on a VLAN", &nics, [on(NIC), vec![vlan(stacked, VLAN, true)]].concat(), stacked, there("eth30")),
        (
            "on a VLAN that is served",
            &served_vlan,
            [on(NIC), vec![vlan(stacked, VLAN, true)]].concat(),
            stacked,
            there("eth30"),
        ),
        ("the NIC is down", &nics, [on(NIC), vec![link(NIC, false)]].concat(), VLAN, Hop::NoRoute),
        ("the VLAN is down", &nics, vec![vlan(VLAN, NIC, false)], VLAN, Hop::NoRoute),
    ] {
        let found = [links, vec![reachable(device, BACKEND, MAC_A)]].concat();
        let mut bench = Bench::new(&[(BACKEND, via(device, None))], &found);
        bench.world.serve(served);
        bench.serve_requests();
        assert_eq!(bench.hop(BACKEND), expected, "{what}");
    }
}

#[test]
fn the_mtu_is_the_least_of_route_vlan_and_nic() {
    let with_mtu = |event: Event, mtu| match event {
        Event::Link { ifindex, link } => Event::Link { ifindex, link: Link { mtu, ..link } },
        other => other,
    };
    for (route, device, nic, expected) in [
        (None, 1500, 9000, 1500),
        (None, 1500, 1500, 1500),
        (Some(1400), 1500, 9000, 1400),
        (Some(9000), 1496, 9000, 1496),
        (None, 9000, 1500, 1500),
    ] {
        let links = [with_mtu(vlan(VLAN, NIC, true), device), with_mtu(link(NIC, true), nic)];
        let answer = Answer::Via(Route { ifindex: VLAN, gateway: None, source: None, mtu: route });
        let found = [&links[..], &[reachable(VLAN, BACKEND, MAC_A)]].concat();
        let Hop::Resolved(hop) = Bench::new(&[(BACKEND, answer)], &found).hop(BACKEND) else {
            panic!("{route:?} {device} {nic}: not resolved")
        };
        assert_eq!(hop.mtu, expected, "{route:?} {device} {nic}");
    }
}

#[test]
fn a_vlan_follows_its_own_changes_and_those_of_the_nic_below() {
    let gateway = Some("10.20.0.254");
    let open = |mac| tagged(NIC, gateway, mac);
    let say = |event| neighbour(VLAN, "10.20.0.254", event, None);
    let moved = |parent| vlan(VLAN, parent, true);
    check(
        Bench::new(&[(BACKEND, via(VLAN, gateway))], &[vlan(VLAN, NIC, true)]),
        vec![
            ("the same of the NIC itself", reachable(NIC, "10.20.0.254", MAC_B), Hop::Unresolved),
            ("found in the VLAN", reachable(VLAN, "10.20.0.254", MAC_A), open(MAC_A)),
            ("the VLAN goes down", vlan(VLAN, NIC, false), Hop::NoRoute),
            ("and up", vlan(VLAN, NIC, true), open(MAC_A)),
            ("the NIC loses its carrier, the VLAN says nothing", link(NIC, false), Hop::NoRoute),
            ("back, and the kernel kept the entry", link(NIC, true), open(MAC_A)),
            ("flushed by the kernel", gone(VLAN, "10.20.0.254"), open(MAC_A)),
            ("no carrier again", link(NIC, false), Hop::NoRoute),
            ("back, somebody else may be there", link(NIC, true), Hop::Unresolved),
            ("found", reachable(VLAN, "10.20.0.254", MAC_B), open(MAC_B)),
            ("looked for anew", say(NeighbourState::Incomplete), open(MAC_B)),
            ("no carrier meanwhile", link(NIC, false), Hop::NoRoute),
            ("back, somebody else may be there", link(NIC, true), Hop::Unresolved),
            ("found", reachable(VLAN, "10.20.0.254", MAC_B), open(MAC_B)),
            ("looked for anew", say(NeighbourState::Incomplete), open(MAC_B)),
            ("does not answer", say(NeighbourState::Failed), Hop::Unresolved),
            ("found again", reachable(VLAN, "10.20.0.254", MAC_A), open(MAC_A)),
            (
                "made anew on a NIC not served",
                moved(OTHER),
                Hop::RouteElsewhere { ifname: "eth20".to_owned() },
            ),
            ("and on one that is", moved(NIC), open(MAC_A)),
            ("the NIC is removed", Event::LinkGone { ifindex: NIC }, Hop::NoRoute),
            (
                "and the VLAN with it",
                Event::LinkGone { ifindex: VLAN },
                Hop::RouteElsewhere { ifname: "ifindex 20".to_owned() },
            ),
        ],
    );
}

#[test]
fn neighbours_in_a_vlan_are_asked_about_like_any_other() {
    let mut bench =
        Bench::new(&[(BACKEND, via(VLAN, None)), ("10.3.0.2", via(30, None))], &[vlan(VLAN, NIC, true)]);
    let start = bench.now;
    assert_eq!(bench.inquiries[0].1.key, (VLAN, ip(BACKEND)), "asked of the VLAN device");
    assert_eq!(bench.inquired(start), [(0.0, true)], "at once, and only what is in use");
    bench.say(link(NIC, false)).pass(5000);
    assert_eq!(bench.inquired(start), [], "not while the NIC is down");
    bench.say(link(NIC, true));
    assert_eq!(bench.inquired(start).len(), 1, "and again when it is back");
    bench.say(reachable(VLAN, BACKEND, MAC_A)).pass(1000);
    bench.say(neighbour(VLAN, BACKEND, NeighbourState::Stale, Some(MAC_A)));
    assert_eq!(bench.pass(5000).inquired(start).len(), 1, "confirmed when in doubt");
}

#[test]
fn a_nic_added_again_has_another_ifindex() {
    let mut bench = Bench::new(&[(BACKEND, via(NIC, None))], &[reachable(NIC, BACKEND, MAC_A)]);
    bench.say(Event::LinkGone { ifindex: NIC });
    bench.routes.insert(ip(BACKEND), via(12, None));
    bench.say(link(12, true)).say(reachable(12, BACKEND, MAC_A)).pass(25);
    assert_eq!(bench.hop(BACKEND), Hop::RouteElsewhere { ifname: "eth12".to_owned() });
    bench.world.serve(&BTreeSet::from([12]));
    assert_eq!(bench.hop(BACKEND), resolved(12, None, MAC_A));
}

#[test]
fn a_change_of_routes_is_asked_for_within_the_debounce_and_only_where_it_matters() {
    let mut bench = Bench::new(
        &[(BACKEND, via(NIC, None)), ("10.1.0.2", via(NIC, None)), ("2001:db8::2", via(NIC, None))],
        &[reachable(NIC, BACKEND, MAC_A), reachable(SECOND_NIC, BACKEND, MAC_B)],
    );
    bench.routes.insert(ip(BACKEND), via(SECOND_NIC, None));
    for (event, asked) in [
        (Event::RouteChanged("192.0.2.0/24".parse().unwrap()), 0),
        (Event::RouteChanged("10.0.0.0/24".parse().unwrap()), 1),
        (Event::RouteChanged("10.0.0.0/15".parse().unwrap()), 2),
        (Event::RouteChanged("0.0.0.0/0".parse().unwrap()), 2),
        (Event::RouteChanged("::/0".parse().unwrap()), 1),
        (Event::RoutesChanged, 3),
        (link(OTHER, false), 3),
    ] {
        bench.routes_asked = 0;
        for _ in 0..100 {
            bench.say(event.clone());
        }
        assert_eq!(bench.routes_asked, 0, "{event:?} asked before the burst is over");
        assert_eq!(bench.pass(25).routes_asked, asked, "{event:?}");
    }
    assert_eq!(bench.hop(BACKEND), resolved(SECOND_NIC, None, MAC_B));
}

#[test]
fn what_is_needed_is_asked_of_the_kernel_and_no_more() {
    let mut bench = Bench::new(
        &[(BACKEND, via(NIC, None)), ("10.3.0.2", via(OTHER, None))],
        &[reachable(NIC, "10.0.0.99", MAC_A)],
    );
    let start = bench.now;
    assert_eq!(bench.inquired(start), [(0.0, true)], "at once, and only what is in use");
    let again = bench.pass(1500).inquired(start);
    assert!(matches!(again[..], [(1.0..=1.2, false)]), "{again:?}");

    bench.say(reachable(NIC, BACKEND, MAC_A)).pass(20_000);
    assert_eq!(bench.inquired(start), [], "nothing is in doubt");

    let stale = bench.now;
    bench.say(neighbour(NIC, BACKEND, NeighbourState::Stale, Some(MAC_A)));
    let inquired = bench.pass(5000).inquired(stale);
    assert!(matches!(inquired[..], [(_, false)]), "{inquired:?}");

    let deleted = bench.say(reachable(NIC, BACKEND, MAC_A)).pass(10_000).now;
    bench.say(neighbour(NIC, BACKEND, NeighbourState::Failed, None)).say(gone(NIC, BACKEND));
    assert_eq!(bench.inquired(deleted), [], "the deletion may have more to delete");
    assert_eq!(bench.pass(25).inquired(deleted), [(0.02, true)], "deleted by hand: looked up anew");

    bench.world.want(&BTreeSet::new(), bench.now);
    bench.inquiries.clear();
    assert_eq!(bench.pass(30_000).inquired(start), [], "nobody wants it");
    assert!(bench.world.neighbours.keys().all(|key| key.1 != ip("10.3.0.2")), "{:?}", bench.world.neighbours);
}

#[test]
fn the_kernel_is_read_again_each_minute_and_after_an_overrun() {
    let mut bench = Bench::new(&[(BACKEND, via(NIC, None))], &[reachable(NIC, BACKEND, MAC_A)]);
    assert_eq!(bench.resyncs, 1);
    bench.entries.retain(|event| !matches!(event, Event::Link { ifindex: OTHER, .. }));
    bench.entries.push(reachable(NIC, BACKEND, MAC_B));
    bench.pass(10_000);
    bench.world.overrun(bench.now);
    bench.serve_requests();
    assert_eq!(bench.hop(BACKEND), resolved(NIC, None, MAC_B));
    assert!(!bench.world.links.contains_key(&OTHER));
    for _ in 0..10 {
        bench.world.overrun(bench.now);
        bench.pass(50);
    }
    assert_eq!(bench.resyncs, 2, "not more than one a second");
    assert_eq!(bench.pass(600).resyncs, 3);
    bench.entries.retain(|event| !matches!(event, Event::Neighbour { .. }));
    bench.inquiries.clear();
    assert_eq!(bench.pass(60_100).resyncs, 4);
    assert_eq!(
        bench.hop(BACKEND),
        resolved(NIC, None, MAC_B),
        "lost to the kernel, but not known to be wrong"
    );
    assert_eq!(bench.inquiries.first().map(|(_, inquiry)| inquiry.create), Some(true));
}

#[test]
fn news_are_told_once_and_only_if_there_are_any() {
    let mut bench = Bench::new(&[(BACKEND, via(NIC, None))], &[reachable(NIC, BACKEND, MAC_A)]);
    let (links, hops) = bench.world.news().unwrap();
    assert_eq!(links.len(), 3);
    assert_eq!(hops, HopMap::from([(ip(BACKEND), resolved(NIC, None, MAC_A))]));
    for event in [
        neighbour(NIC, BACKEND, NeighbourState::Stale, Some(MAC_A)),
        reachable(NIC, "10.0.0.77", MAC_B),
        link(NIC, true),
        Event::RoutesChanged,
    ] {
        bench.say(event.clone()).pass(100);
        assert_eq!(bench.world.news(), None, "{event:?}");
    }
    bench.say(reachable(NIC, BACKEND, MAC_B));
    assert_eq!(bench.world.news().unwrap().1[&ip(BACKEND)], resolved(NIC, None, MAC_B));
}

#[test]
fn a_route_that_could_not_be_told_is_asked_for_again() {
    let mut bench = Bench::new(&[(BACKEND, via(NIC, None))], &[reachable(NIC, BACKEND, MAC_A)]);
    bench.routes_asked = 0;
    bench.world.ask_again(ip(BACKEND), bench.now);
    bench.world.ask_again(ip("10.0.0.3"), bench.now);
    assert_eq!(bench.pass(25).routes_asked, 1);
}
