//! A box without a kernel: frames, time and wishes in, frames and happenings out.

mod questions;

use std::net::Ipv4Addr;

use proptest::prelude::*;
use shunt_api::config::AnnounceL2;

use super::*;
use crate::announce::l2::arp::{Arp, Operation};
use crate::announce::l2::frame::{self, Ethernet};
use crate::announce::l2::ndp::Ndp;
use crate::announce::l2::socket::Kind;

const V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const PEER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
const PEER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
const SECOND: Duration = Duration::from_secs(1);

fn own(index: u32) -> MacAddress {
    MacAddress([2, 0, 0, 0, 1, u8::try_from(index).unwrap()])
}

fn nic(index: u32, up: bool) -> Facts {
    let host = u8::try_from(index).unwrap();
    Facts { index, mac: own(index), up, ipv4: Some(Ipv4Addr::new(192, 0, 2, host)), link_local: None }
}

fn nics(up: &[bool]) -> BTreeMap<String, Facts> {
    (1..).zip(up).map(|(index, up)| (format!("eth{index}"), nic(index, *up))).collect()
}

/// As the configuration would have it.
fn l2(text: &str) -> AnnounceL2 {
    let document = format!(
        "[announce]\nl2 = {text}\n[[nic]]\nname = \"eth1\"\n[pools.a]\nbackends = [{{ name = \"b\", address = \"10.0.0.1\" }}]\n\
         [[service]]\nname = \"s\"\nvip = [\"203.0.113.10\"]\nports = [\"tcp/80\"]\npool = \"a\"\n"
    );
    let config = shunt_api::config::Config::parse(&document, "shunt.toml").unwrap();
    config.announce.l2.unwrap()
}

fn wish(text: &str, count: usize, able: bool) -> Option<Wish> {
    let nics = (1..=count).map(|index| format!("eth{index}")).collect();
    Some((Settings { nics, l2: l2(text), able }, [V4.into(), V6.into()].into()))
}

/// A box that does what `text` says on NICs with these links, with what it said so far thrown away.
fn station(text: &str, up: &[bool], now: Instant) -> Station {
    let mut station = Station::new(now);
    station.want(wish(text, up.len(), true), nics(up), now);
    station.take_output();
    station
}

/// One that has become master of group 7 with priority 100, two seconds before `now`, and is done announcing.
fn master(up: &[bool], now: Instant) -> Station {
    let start = now - 10 * SECOND;
    let mut station = station("{ priority = 100, group = 7 }", up, start);
    let mut at = start;
    while at < now {
        station.tick(at);
        at += Duration::from_millis(100);
    }
    assert_eq!(station.role, L2Role::Master);
    station.take_output();
    station
}

fn request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let arp = Arp {
        operation: Operation::Request,
        sender_mac: PEER,
        sender,
        target_mac: MacAddress::default(),
        target,
    };
    // An answer to the opposite question is the question.
    let mut frame = Arp { sender: target, target: sender, sender_mac: frame::BROADCAST, ..arp }.answer(PEER);
    frame[21] = 1;
    frame
}

fn advertisement(group: u8, priority: u8) -> Vec<u8> {
    Advertisement { group, priority, interval_cs: 20 }.frame(PEER_IP, PEER_IP, PEER)
}

/// Group and priority of the advertisements among frames.
fn advertised(output: &Output) -> Vec<(u32, u8)> {
    let said =
        |sent: &Sent| Some((sent.nic, Advertisement::parse(&sent.frame[frame::HEADER..]).ok()?.0.priority));
    output.frames.iter().filter_map(said).collect()
}

/// The address that a frame says we have.
fn claim(sent: &Sent) -> Option<IpAddr> {
    let ethernet = Ethernet::parse(&sent.frame)?;
    match (Arp::parse(ethernet.payload), Ndp::parse(ethernet.payload)) {
        (Some(arp), _) => Some(arp.sender.into()).filter(|sender: &IpAddr| !sender.is_unspecified()),
        (_, Some(Ndp::Advertisement { target, .. })) => Some(target.into()),
        _ => None,
    }
}

/// Addresses that frames say we have.
fn claimed(output: &Output) -> BTreeSet<IpAddr> {
    output.frames.iter().filter_map(claim).collect()
}

fn texts(output: &Output) -> Vec<&str> {
    output.happenings.iter().map(|happening| happening.text.as_str()).collect()
}

#[test]
fn a_box_alone_answers_for_its_addresses_only() {
    let now = Instant::now();
    let mut station = station("true", &[true], now);
    let client = Ipv4Addr::new(192, 0, 2, 77);
    for (target, answers) in [(V4, 1), (Ipv4Addr::new(203, 0, 113, 11), 0)] {
        station.receive("eth1", Kind::Arp, &request(client, target), now);
        assert_eq!(station.take_output().frames.len(), answers, "{target}");
    }
    station.receive("eth1", Kind::Arp, &request(Ipv4Addr::UNSPECIFIED, V4), now);
    assert_eq!(claimed(&station.take_output()), [V4.into()].into(), "a probe");
    let asker = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77);
    for source in [asker, Ipv6Addr::UNSPECIFIED] {
        station.receive("eth1", Kind::Ndp, &ndp::tests::solicitation(source, V6, PEER), now);
        assert_eq!(claimed(&station.take_output()), [V6.into()].into());
    }
    assert_eq!((station.status(&[]).answered, station.status(&[]).addresses), (4, 2));
}

#[test]
fn what_is_not_for_this_box_is_not_answered() {
    let now = Instant::now();
    let mut station = station("true", &[true, true], now);
    let good = request(Ipv4Addr::new(192, 0, 2, 77), V4);
    let mut to_other = good.clone();
    to_other[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x55]);
    let mut echo = good.clone();
    echo[6..12].copy_from_slice(&own(2).0);
    for (what, nic, frame) in
        [("for another", "eth1", &to_other), ("our own", "eth1", &echo), ("no NIC", "eth9", &good)]
    {
        station.receive(nic, Kind::Arp, frame, now);
        assert_eq!(station.take_output(), Output::default(), "{what}");
    }
    station.receive("eth2", Kind::Arp, &good, now);
    assert_eq!(station.take_output().frames[0].nic, 2);
}

#[test]
fn addresses_are_announced_when_they_come_and_when_a_link_does() {
    let now = Instant::now();
    let mut station = station("true", &[true, false], now);
    station.tick(now);
    let output = station.take_output();
    assert_eq!(claimed(&output), [V4.into(), V6.into()].into());
    assert!(output.frames.iter().all(|sent| sent.nic == 1));
    let later = now + 10 * SECOND;
    for second in 1..10 {
        station.tick(now + second * SECOND);
    }
    station.take_output();
    station.set_nics(nics(&[true, true]), later);
    station.tick(later);
    let nics_used: BTreeSet<u32> = station.take_output().frames.iter().map(|sent| sent.nic).collect();
    assert_eq!(nics_used, [1, 2].into());
    let mut moved = nics(&[true, true]);
    moved.get_mut("eth1").unwrap().mac = MacAddress([2, 7, 7, 7, 7, 7]);
    station.set_nics(moved, later);
    station.tick(later + SECOND);
    assert_eq!(claimed(&station.take_output()).len(), 2, "a new MAC address");
}

#[test]
fn another_station_with_our_address_is_an_alarm_until_it_is_quiet() {
    let now = Instant::now();
    let mut station = station("true", &[true], now);
    for _ in 0..5 {
        station.receive("eth1", Kind::Arp, &arp::announcements(V4, PEER)[1], now);
        let advertisement = ndp::announcement(V6, PEER);
        station.receive("eth1", Kind::Ndp, &advertisement, now);
    }
    let output = station.take_output();
    let text = "claimed by 02:00:00:00:00:09 on eth1, which is not this box (02:00:00:00:01:01)";
    assert_eq!(texts(&output), [text, text]);
    assert!(output.happenings.iter().all(|happening| happening.level == Level::ERROR));
    assert_eq!(output.happenings[0].subject, "address 203.0.113.10");
    let conflicts = station.status(&[]).conflicts;
    assert_eq!(
        conflicts.iter().map(|c| (c.address, c.mac)).collect::<Vec<_>>(),
        [(V4.into(), PEER), (V6.into(), PEER)]
    );
    // Told the segment once more, at once.
    station.tick(now);
    assert_eq!(claimed(&station.take_output()).len(), 2);
    station.tick(now + 300 * SECOND);
    assert_eq!(texts(&station.take_output()), ["claimed by nobody else any more"; 2]);
    assert_eq!(station.status(&[]).conflicts, []);
}

#[test]
fn one_address_is_not_called_addresses() {
    let now = Instant::now();
    let mut station = Station::new(now);
    let (settings, _) = wish("true", 1, true).unwrap();
    station.want(Some((settings, [V4.into()].into())), nics(&[true]), now);
    assert_eq!(texts(&station.take_output()), ["answers for 1 address"]);
}

#[test]
fn a_backup_is_silent_and_a_master_speaks() {
    let now = Instant::now();
    let mut station = station("{ priority = 100, group = 7 }", &[true], now);
    let client = Ipv4Addr::new(192, 0, 2, 77);
    assert_eq!(station.status(&[]).role, L2Role::Backup);
    station.receive("eth1", Kind::VrrpV4, &advertisement(7, 200), now);
    station.receive("eth1", Kind::Arp, &request(client, V4), now);
    station.receive("eth1", Kind::Arp, &arp::announcements(V4, PEER)[0], now);
    station.tick(now + SECOND / 2);
    assert_eq!(station.take_output(), Output::default());
    assert_eq!(station.status(&[]).master, Some(PEER_IP));

    let later = now + SECOND;
    station.tick(later);
    let output = station.take_output();
    assert_eq!(advertised(&output), [(1, 100)], "and before all else");
    assert!(Advertisement::parse(&output.frames[0].frame[frame::HEADER..]).is_ok());
    assert_eq!(claimed(&output).len(), 2);
    assert_eq!(texts(&output), ["master of group 7: answers for 2 addresses"]);
    assert_eq!(output.happenings[0].reason.as_deref(), Some("no master advertised for 1000 ms"));

    // What the old master said is still under way: no alarm. Later it is one.
    station.receive("eth1", Kind::Arp, &arp::announcements(V4, PEER)[0], later + SECOND);
    assert_eq!(station.status(&[]).conflicts, []);
    station.receive("eth1", Kind::Arp, &arp::announcements(V4, PEER)[0], later + 4 * SECOND);
    assert_eq!(station.status(&[]).conflicts.len(), 1);
}

#[test]
fn a_master_yields_at_once_and_falls_silent() {
    let now = Instant::now();
    let mut station = master(&[true], now);
    station.receive("eth1", Kind::VrrpV4, &advertisement(7, 101), now);
    station.receive("eth1", Kind::Arp, &request(Ipv4Addr::new(192, 0, 2, 77), V4), now);
    station.tick(now + SECOND / 2);
    let output = station.take_output();
    assert_eq!(output.frames, []);
    assert_eq!(texts(&output), ["backup of group 7: answers for no address any more"]);
    assert_eq!(output.happenings[0].reason.as_deref(), Some("192.0.2.9 is master with priority 101"));
}

#[test]
fn a_rival_of_lower_rank_is_told_and_the_segment_too() {
    let now = Instant::now();
    let mut station = master(&[true], now);
    for number in 0..50 {
        let at = now + number * Duration::from_millis(20);
        station.receive("eth1", Kind::VrrpV4, &advertisement(7, 99), at);
        station.receive("eth1", Kind::Arp, &arp::announcements(V4, PEER)[0], at);
        station.tick(at);
    }
    let output = station.take_output();
    assert!((5..=55).contains(&advertised(&output).len()), "{:?}", advertised(&output));
    let of_v6 = output.frames.iter().filter(|sent| claim(sent) == Some(V6.into())).count();
    assert_eq!(of_v6, 1, "announced anew once, not fifty times");
    assert_eq!(station.status(&[]).conflicts, [], "the rival is a peer");
}

#[test]
fn other_groups_and_damaged_advertisements_are_counted() {
    let now = Instant::now();
    let mut station = master(&[true], now);
    let mut damaged = advertisement(7, 200);
    damaged[36] ^= 1;
    for frame in [advertisement(8, 200), damaged] {
        station.receive("eth1", Kind::VrrpV4, &frame, now);
    }
    assert_eq!((station.role, station.status(&[]).advertisements_refused), (L2Role::Master, 2));
}

#[test]
fn a_box_that_cannot_forward_resigns_and_comes_back() {
    let now = Instant::now();
    let mut station = master(&[true], now);
    station.want(wish("{ priority = 100, group = 7 }", 1, false), nics(&[true]), now);
    let output = station.take_output();
    assert_eq!(advertised(&output), [(1, LEAVES)]);
    assert_eq!(texts(&output), ["unable: answers for no address"]);
    let status = station.status(&[]);
    assert_eq!((status.role, status.addresses, status.problems.len()), (L2Role::Unable, 0, 1));
    station.receive("eth1", Kind::Arp, &request(Ipv4Addr::new(192, 0, 2, 77), V4), now);
    station.tick(now + 5 * SECOND);
    assert_eq!(station.take_output(), Output::default());
    station.want(wish("{ priority = 100, group = 7 }", 1, true), nics(&[true]), now);
    assert_eq!(station.status(&[]).role, L2Role::Backup);
}

#[test]
fn a_box_that_loses_a_nic_leaves_the_addresses_to_others() {
    let now = Instant::now();
    let mut station = master(&[true, true], now);
    station.set_nics(nics(&[true, false]), now);
    let output = station.take_output();
    assert_eq!(advertised(&output), [(1, LEAVES), (2, LEAVES)]);
    let status = station.status(&[]);
    assert_eq!((status.role, status.priority), (L2Role::Backup, Some(1)));
    assert!(status.problems[0].starts_with("eth2 has no link; "), "{:?}", status.problems);
    // If nobody else is there, it takes over again.
    station.tick(now + SECOND);
    assert_eq!(advertised(&station.take_output()), [(1, 1)]);
    // The link is back, and has to prove itself.
    let back = now + 2 * SECOND;
    station.set_nics(nics(&[true, true]), back);
    assert_eq!(station.status(&[]).priority, Some(1));
    station.set_nics(nics(&[true, true]), back + 5 * SECOND);
    assert_eq!(station.status(&[]).priority, Some(100));
    station.set_nics(nics(&[false, false]), back + 6 * SECOND);
    assert_eq!(station.status(&[]).role, L2Role::Unable);
}

#[test]
fn nothing_is_left_of_what_is_not_wanted() {
    let now = Instant::now();
    let mut station = master(&[true], now);
    station.close(now);
    let output = station.take_output();
    assert_eq!(advertised(&output), [(1, LEAVES)]);
    assert_eq!(texts(&output), ["off: answers for no address"]);
    assert_eq!(station.next_deadline(), None);
    station.receive("eth1", Kind::Arp, &request(Ipv4Addr::new(192, 0, 2, 77), V4), now);
    assert_eq!(station.take_output(), Output::default());
}

#[test]
fn another_group_is_another_election() {
    let now = Instant::now();
    let mut station = master(&[true], now);
    station.want(wish("{ priority = 100, group = 8 }", 1, true), nics(&[true]), now);
    let output = station.take_output();
    let (said, _) = Advertisement::parse(&output.frames[0].frame[frame::HEADER..]).unwrap();
    assert_eq!((said.group, said.priority), (7, LEAVES));
    assert_eq!((station.role, station.status(&[]).group), (L2Role::Backup, Some(8)));
    // With another priority it stays what it is.
    let mut station = master(&[true], now);
    station.want(wish("{ priority = 50, group = 7 }", 1, true), nics(&[true]), now);
    station.tick(now);
    assert_eq!((station.role, advertised(&station.take_output())), (L2Role::Master, vec![(1, 50)]));
}

proptest! {
    #[test]
    fn no_frame_makes_it_panic_or_answer_more_than_once(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
        kind in prop_oneof![Just(Kind::Arp), Just(Kind::Ndp), Just(Kind::VrrpV4), Just(Kind::VrrpV6)],
    ) {
        let now = Instant::now();
        let mut station = master(&[true], now);
        if let Some(first) = bytes.first_mut() {
            *first |= 1;
        }
        station.receive("eth1", kind, &bytes, now);
        prop_assert!(station.take_output().frames.len() <= 1);
    }
}
