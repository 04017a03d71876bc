//! Asking who else has our addresses, and what the answers come to.

use super::*;

/// The address that a frame asks for without saying that anybody has it.
fn question(sent: &Sent) -> Option<IpAddr> {
    let ethernet = Ethernet::parse(&sent.frame)?;
    match (Arp::parse(ethernet.payload), Ndp::parse(ethernet.payload)) {
        (Some(arp), _) => arp.sender.is_unspecified().then_some(arp.target.into()),
        (_, Some(Ndp::Solicitation { source, target, .. })) => {
            source.is_unspecified().then_some(target.into())
        }
        _ => None,
    }
}

/// Addresses that frames ask for, each with its NIC.
fn asked(output: &Output) -> Vec<(u32, IpAddr)> {
    output.frames.iter().filter_map(|sent| Some((sent.nic, question(sent)?))).collect()
}

/// What a station that has one of our addresses says when eth1 has asked for it.
fn answer(address: IpAddr, from: MacAddress) -> (Kind, Vec<u8>) {
    let question = match address {
        IpAddr::V4(address) => arp::probe(address, own(1)),
        IpAddr::V6(address) => return (Kind::Ndp, ndp::answer(Ipv6Addr::UNSPECIFIED, address, own(1), from)),
    };
    (Kind::Arp, Arp::parse(&question[frame::HEADER..]).unwrap().answer(from))
}

#[test]
fn a_station_that_only_answers_is_an_alarm_too() {
    let now = Instant::now();
    let mut station = station("true", &[true, false], now);
    station.tick(now);
    let output = station.take_output();
    assert_eq!(asked(&output), [(1, V4.into()), (1, V6.into())]);
    let first_question = output.frames.iter().position(|sent| question(sent).is_some());
    assert_eq!(first_question, Some(3), "what is said comes first: two forms of ARP and an advertisement");
    assert_eq!(output.frames.len(), 5);

    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let to_us = (Kind::Ndp, ndp::answer(link_local, V6, own(1), MacAddress([2, 0, 0, 0, 0, 8])));
    for (kind, frame) in [answer(V4.into(), PEER), answer(V6.into(), PEER), to_us] {
        for _ in 0..3 {
            station.receive("eth1", kind, &frame, now);
        }
    }
    let output = station.take_output();
    assert_eq!(output.happenings.len(), 3, "once for each address and MAC: {:?}", texts(&output));
    assert!(texts(&output)[0].starts_with("claimed by 02:00:00:00:00:09 on eth1, "));
    let advice = |number: usize| output.happenings[number].reason.clone().unwrap();
    assert!(advice(0).contains("arp_ignore = 1") && advice(1).contains("on its lo"), "{}", advice(1));
    assert_eq!(station.status(&[]).conflicts.len(), 3);

    // Asked again with every announcement, and never else.
    let mut rounds = 0;
    for second in 1..200 {
        station.tick(now + second * SECOND);
        let output = station.take_output();
        let on_eth1: BTreeSet<IpAddr> = asked(&output).into_iter().map(|(_, address)| address).collect();
        assert_eq!(on_eth1, claimed(&output), "second {second}");
        rounds += asked(&output).len();
    }
    assert!((2 * 4..=2 * 8).contains(&rounds), "{rounds} questions");
}

#[test]
fn the_box_itself_is_no_alarm() {
    let now = Instant::now();
    let (mut station, unused) = (station("true", &[true, true], now), MacAddress([2, 0, 0, 0, 1, 77]));
    station.set_own([own(1), own(2), unused].into());
    station.tick(now);
    let questions = station.take_output().frames.into_iter().filter(|sent| question(sent).is_some());
    // Both NICs are on one segment with a third, for which the kernel answers.
    for sent in questions {
        let kind = if sent.frame[12..14] == frame::ARP.to_be_bytes() { Kind::Arp } else { Kind::Ndp };
        let other = if sent.nic == 1 { "eth2" } else { "eth1" };
        station.receive(other, kind, &sent.frame, now);
    }
    for (address, from) in
        [(V4.into(), own(2)), (V6.into(), own(2)), (V4.into(), unused), (V6.into(), unused)]
    {
        let (kind, frame) = answer(address, from);
        station.receive("eth1", kind, &frame, now);
    }
    assert_eq!((station.take_output(), station.status(&[]).conflicts), (Output::default(), vec![]));
    let (kind, frame) = answer(V4.into(), PEER);
    station.receive("eth1", kind, &frame, now);
    assert_eq!(station.status(&[]).conflicts.len(), 1, "but another station is");
}

#[test]
fn the_question_of_another_box_is_answered_by_the_master_only() {
    let now = Instant::now();
    let mut backup = station("{ priority = 100, group = 7 }", &[true], now);
    let mut master = master(&[true], now);
    for (kind, frame) in [(Kind::Arp, arp::probe(V4, PEER)), (Kind::Ndp, ndp::probe(V6, PEER))] {
        backup.receive("eth1", kind, &frame, now);
        backup.tick(now + SECOND / 2);
        assert_eq!(backup.take_output(), Output::default(), "nor does it ask");
        master.receive("eth1", kind, &frame, now);
        let output = master.take_output();
        assert_eq!((output.frames.len(), claimed(&output).len(), output.happenings.len()), (1, 1, 0));
    }
    assert_eq!(master.status(&[]).conflicts, [], "to ask is not to have");
}

#[test]
fn the_answer_of_a_box_that_yields_is_no_alarm() {
    let now = Instant::now();
    let mut station = station("{ priority = 100, group = 7 }", &[true], now);
    station.receive("eth1", Kind::VrrpV4, &advertisement(7, 50), now);
    let later = now + SECOND;
    station.tick(later);
    let output = station.take_output();
    assert_eq!((station.role, asked(&output).len()), (L2Role::Master, 2), "it asks when it takes over");
    let (kind, frame) = answer(V4.into(), PEER);
    station.receive("eth1", kind, &frame, later);
    assert_eq!(station.status(&[]).conflicts, []);
    station.receive("eth1", kind, &frame, later + 4 * SECOND);
    assert_eq!(station.status(&[]).conflicts.len(), 1, "but one that never yields is");
}

#[test]
fn thousands_are_asked_for_no_faster_than_they_are_announced() {
    let now = Instant::now();
    let addresses: BTreeSet<IpAddr> =
        (0..1_000).map(|low| Ipv4Addr::from(0xcb00_7100 + low).into()).collect();
    let mut station = Station::new(now);
    let (settings, _) = wish("true", 1, true).unwrap();
    station.want(Some((settings, addresses.clone())), nics(&[true]), now);
    let mut all = BTreeSet::new();
    for number in 0..10 {
        let at = now + number * Duration::from_millis(10);
        station.tick(at);
        station.tick(at + Duration::from_millis(9));
        let output = station.take_output();
        assert_eq!((asked(&output).len(), output.frames.len()), (100, 300));
        let asked: BTreeSet<IpAddr> = asked(&output).into_iter().map(|(_, address)| address).collect();
        assert_eq!(asked, claimed(&output));
        all.extend(asked);
    }
    assert_eq!(all, addresses);
}
