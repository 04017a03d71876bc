//! Against real kernels: boxes, a client and a bridge, each in a network namespace of its own. Needs root,
//! iproute2, iputils-arping and ndisc6.

mod boxes;
mod segment;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use shunt_api::mac::MacAddress;
use shunt_api::status::{L2Role, L2Status};

use super::arp::{self, Arp};
use super::frame::Ethernet;
use super::ndp::{self, Ndp};
use super::socket::Kind;
use boxes::{Runner, Victim, ip, wait};
use segment::{Segment, mac};

const V4: &str = "10.9.0.10";
const V6: &str = "fd09::10";
const SECOND: Duration = Duration::from_secs(1);
/// How the boxes of the takeover tests are elected.
const FIRST: &str = "{ priority = 150 }";
const SECOND_BOX: &str = "{ priority = 100 }";

#[test]
fn real_kernels_and_real_tools_find_the_addresses() {
    let segment = Segment::new(&["a"]);
    let mut runner = Runner::start(segment.host("a"), "true", &[V4, V6]);
    runner.until("it answers", |status| status.role == L2Role::Alone && status.problems.is_empty());

    let client = segment.client();
    for address in [V4, V6] {
        // Nobody answers the ping; the kernel has to find the neighbour to send it.
        client.run(&format!("ping -c 1 -W 1 {address} || true"));
        let neighbour = client.run(&format!("ip neigh show {address} dev v0"));
        assert!(neighbour.contains(&mac("a").to_string()), "{address}: {neighbour}");
    }
    let arping = client.run(&format!("arping -c 1 -w 2 -I v0 {V4}"));
    assert!(arping.to_lowercase().contains(&mac("a").to_string()), "{arping}");
    let probe = client.run(&format!("arping -D -c 1 -w 2 -I v0 {V4} || echo taken"));
    assert!(probe.contains("taken"), "duplicate address detection by ARP: {probe}");
    let ndisc = client.run(&format!("ndisc6 -1 -r 1 -w 1000 {V6} v0"));
    assert!(ndisc.to_lowercase().contains(&mac("a").to_string()), "{ndisc}");
    let free = client.run("arping -c 1 -w 1 -I v0 10.9.0.11 || true");
    assert!(free.contains("Received 0"), "nobody has this one: {free}");

    // A kernel that is given the address finds that it is taken.
    client.run(&format!("ip -6 address add {V6}/128 dev v0"));
    wait("duplicate address detection by IPv6", || {
        client
            .run("ip -6 address show dev v0")
            .lines()
            .any(|line| line.contains(V6) && line.contains("dadfailed"))
    });
    assert!(runner.status().answered >= 5, "{:?}", runner.status());
    runner.end();
}

#[test]
fn tagged_frames_are_another_segment_s() {
    let segment = Segment::new(&["a"]);
    let mut runner = Runner::start(segment.host("a"), "true", &[V4]);
    runner.until("it answers", |status| status.role == L2Role::Alone);
    let listener = segment.client().listen(Kind::Arp);
    // As `arping` would ask, with VLAN 5, and then without.
    let untagged = segment::request(mac("client"), "10.9.0.100", V4);
    let tagged = [&untagged[..12], &[0x81, 0, 0, 5], &untagged[12..]].concat();
    listener.send(&tagged);
    listener.send(&untagged);
    let reply = |frame: &[u8]| Ethernet::parse(frame).is_some_and(|frame| frame.destination == mac("client"));
    let (_, frame) = listener.next(SECOND, reply).expect("an answer to the second");
    assert_eq!(Arp::parse(Ethernet::parse(&frame).unwrap().payload).unwrap().sender_mac, mac("a"));
    assert!(listener.next(SECOND / 5, reply).is_none(), "and none to the first");
    assert_eq!(runner.status_later().answered, 1);
    runner.end();
}

#[test]
fn addresses_are_announced_by_burst_and_by_interval_and_when_the_link_is_back() {
    let segment = Segment::new(&["a"]);
    let (arps, ndps) = (segment.client().listen(Kind::Arp), segment.client().listen(Kind::Ndp));
    let start = Instant::now();
    let mut runner = Runner::start(segment.host("a"), "{ interval = \"1s\" }", &[V4, V6]);
    let ours = |frame: &[u8]| {
        let said = Ethernet::parse(frame).and_then(|frame| Arp::parse(frame.payload));
        said.is_some_and(|arp| arp.sender_mac == mac("a") && IpAddr::V4(arp.sender) == ip(V4))
    };
    // Two forms of three each; the kernel itself announces nothing of its own.
    let times: Vec<Duration> =
        (0..6).map(|_| arps.next(2 * SECOND, ours).expect("an announcement").0 - start).collect();
    println!("gratuitous ARP after {times:?}");
    assert!(times[1] < SECOND && times[3] - times[1] > SECOND / 2 && times[5] < 3 * SECOND);
    let advertised = |frame: &[u8]| {
        let target = V6.parse().unwrap();
        let said = Ethernet::parse(frame).and_then(|frame| Ndp::parse(frame.payload));
        said == Some(Ndp::Advertisement { target, link: Some(mac("a")) })
    };
    assert!(ndps.next(SECOND, advertised).is_some());
    // By interval.
    assert!(arps.next(2 * SECOND, ours).is_some() && arps.next(2 * SECOND, ours).is_some());

    segment.hub().run("ip link set dev a down");
    runner.until("the lost link is noticed", |status| status.role == L2Role::Unable);
    assert!(runner.status().problems.iter().any(|problem| problem.contains("link")));
    while arps.next(SECOND / 5, ours).is_some() {}
    let back = Instant::now();
    segment.hub().run("ip link set dev a up");
    let (at, _) = arps.next(2 * SECOND, ours).expect("an announcement");
    println!("announced {:?} after the link came back", at - back);
    assert!(at - back < SECOND + SECOND / 2);
    runner.end();
}

#[test]
fn another_station_s_claim_is_an_alarm_with_its_mac() {
    let segment = Segment::new(&["a"]);
    let mut runner = Runner::start(segment.host("a"), "true", &[V4, V6]);
    runner.until("it answers", |status| status.role == L2Role::Alone);
    let client = segment.client();
    client.run(&format!("ip address add {V4}/32 dev v0 && arping -A -c 3 -w 1 -I v0 {V4}; true"));
    client.listen(Kind::Ndp).send(&ndp::announcement(V6.parse().unwrap(), mac("client")));
    let both = |status: &L2Status| status.conflicts.len() == 2;
    runner.until("both claims are in the status", both);
    let conflicts = runner.status().conflicts;
    assert_eq!(conflicts[0].address, ip(V4));
    assert!(conflicts.iter().all(|conflict| conflict.mac == mac("client") && conflict.nic == "v0"));
    let told: Vec<String> =
        runner.events().into_iter().filter(|event| event.contains("claimed by")).collect();
    assert_eq!(told.len(), 2, "once each: {told:?}");
    assert!(
        told.iter()
            .all(|line| line.contains(&mac("client").to_string()) && line.contains(&mac("a").to_string()))
    );
    runner.end();
}

/// Waits until it has been asked so often who has [`V4`].
fn hear_questions(listener: &segment::Listener, count: usize) {
    let question = |frame: &[u8]| {
        let said = Ethernet::parse(frame).and_then(|frame| Arp::parse(frame.payload));
        said.is_some_and(|arp| arp.sender.is_unspecified() && IpAddr::V4(arp.target) == ip(V4))
    };
    for number in 0..count {
        assert!(listener.next(2 * SECOND, question).is_some(), "only {number} questions");
    }
}

#[test]
fn a_kernel_that_answers_for_an_address_is_an_alarm_with_its_mac() {
    let segment = Segment::new(&["a", "b"]);
    let (backend, client) = (segment.host("b"), segment.client());
    // As the backends of mode `dr` have it: with a VIP of each family on lo, nothing is said unasked.
    let on_lo =
        format!("ip link set lo up && ip address add {V4}/32 dev lo && ip address add {V6}/128 dev lo");
    for host in [backend, client] {
        host.run(&on_lo);
    }
    client.run("echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore");
    let questions = client.listen(Kind::Arp);
    let start = Instant::now();
    let mut runner = Runner::start(segment.host("a"), "{ interval = \"1s\" }", &[V4, V6]);
    runner.until("the backend that answers is known", |status| !status.conflicts.is_empty());
    let took = start.elapsed();
    println!("an answer for an address on lo: alarm after {took:?}");
    assert!(took <= 2 * SECOND, "{took:?}");
    let expected = (ip(V4), mac("b"), "v0".to_owned());
    // By then every question has been asked several times: with arp_ignore = 1 nobody answers, and Linux answers
    // neighbour solicitations for addresses on lo never.
    hear_questions(&questions, 3);
    let known = |status: L2Status| -> Vec<(IpAddr, MacAddress, String)> {
        status.conflicts.into_iter().map(|known| (known.address, known.mac, known.nic)).collect()
    };
    assert_eq!(known(runner.status_later()), std::slice::from_ref(&expected));

    // On a NIC it does, here as one that takes an address without looking.
    backend.run(&format!("ip address del {V6}/128 dev lo && ip address add {V6}/128 dev v0 nodad"));
    let moved = Instant::now();
    runner.until("it is known for the other, too", |status| status.conflicts.len() == 2);
    println!("an answer for an address on a NIC: alarm after {:?}", moved.elapsed());
    assert!(moved.elapsed() <= 2 * SECOND, "{:?}", moved.elapsed());
    assert_eq!(known(runner.status()), [expected, (ip(V6), mac("b"), "v0".to_owned())]);
    let told = runner.events().into_iter().filter(|event| event.contains("claimed by")).count();
    assert_eq!(told, 2, "once each: {:?}", runner.events());
    runner.end();
}

#[test]
fn a_box_with_two_nics_on_a_segment_is_no_alarm_to_itself() {
    let segment = Segment::new(&["a"]);
    let host = segment.host("a");
    // A second NIC that is used, a third that is not, and a kernel that answers by all of them.
    for (port, nic) in [("a2", "v1"), ("a3", "v2")] {
        segment.plug(port, host, nic);
    }
    host.run(&format!("ip link set lo up && ip address add {V4}/32 dev lo"));
    let questions = segment.client().listen(Kind::Arp);
    let mut runner = Runner::start_on(host, &["v0", "v1"], "{ interval = \"1s\" }", &[V4, V6]);
    runner.until("it answers", |status| status.role == L2Role::Alone);
    // Its kernel did answer: that is a problem of its own.
    runner.until("the kernel's address is told", |status| {
        status.problems.iter().any(|problem| problem.contains("ip address del 10.9.0.10 dev lo"))
    });
    hear_questions(&questions, 6);
    assert_eq!(runner.status_later().conflicts, []);
    runner.end();
}

/// When each of the two boxes said that it has [`V4`], in the order of time.
fn claims(listener: &segment::Listener, until: Instant) -> Vec<(Instant, MacAddress)> {
    let mut claims = Vec::new();
    let ours = |frame: &[u8]| {
        let said = Ethernet::parse(frame).and_then(|frame| Arp::parse(frame.payload));
        said.is_some_and(|arp| IpAddr::V4(arp.sender) == ip(V4))
    };
    let mut ask_at = Instant::now();
    loop {
        let now = Instant::now();
        if now >= until {
            break;
        }
        if now >= ask_at {
            // Somebody asks all the time.
            listener.send(&segment::request(mac("client"), "10.9.0.100", V4));
            ask_at = now + Duration::from_millis(5);
        }
        if let Some((at, frame)) = listener.next(ask_at - now, ours) {
            claims.push((at, Arp::parse(Ethernet::parse(&frame).unwrap().payload).unwrap().sender_mac));
        }
    }
    claims
}

/// The last of one box and the first of the other, and that they mix for no longer than `overlap`.
fn handover(
    claims: &[(Instant, MacAddress)],
    from: MacAddress,
    to: MacAddress,
    overlap: Duration,
) -> (Instant, Instant) {
    let first = claims.iter().find(|(_, mac)| *mac == to).expect("the other took over").0;
    let last = claims.iter().rev().find(|(_, mac)| *mac == from).expect("there was one before").0;
    assert!(last <= first + overlap, "{from} still answered {:?} after {to} began", last - first);
    (last, first)
}

#[test]
fn a_box_that_is_killed_is_replaced_within_a_second() {
    let segment = Segment::new(&["a", "b"]);
    let listener = segment.client().listen(Kind::Arp);
    let mut worst = Duration::ZERO;
    let mut standby = Runner::start(segment.host("b"), SECOND_BOX, &[V4, V6]);
    for _ in 0..3 {
        let victim = Victim::start(segment.host("a"), FIRST, &[V4, V6]);
        standby.until("the other leads", |status| {
            status.role == L2Role::Backup && status.master == Some(ip("10.9.0.1"))
        });
        listener.forget();
        let mut said = claims(&listener, Instant::now() + SECOND / 2);
        let killed = victim.kill();
        said.extend(claims(&listener, killed + 3 * SECOND / 2));
        let (_, first) = handover(&said, mac("a"), mac("b"), Duration::ZERO);
        println!("killed: the standby answered after {:?}", first - killed);
        worst = worst.max(first - killed);
        assert_eq!(standby.status_later().role, L2Role::Master);
    }
    assert!(worst <= SECOND, "{worst:?}");
    let client = segment.client();
    client.run(&format!("ping -c 1 -W 1 {V6} || true"));
    assert!(client.run(&format!("ip neigh show {V6}")).contains(&mac("b").to_string()));
    assert_eq!(standby.status().conflicts, [], "a peer of the group is no alarm");
    standby.end();
}

#[test]
fn a_box_that_resigns_is_replaced_sooner_and_preempts_when_it_is_back() {
    let segment = Segment::new(&["a", "b"]);
    let listener = segment.client().listen(Kind::Arp);
    let mut first = Runner::start(segment.host("a"), FIRST, &[V4, V6]);
    let mut standby = Runner::start(segment.host("b"), SECOND_BOX, &[V4, V6]);
    first.until("the first leads", |status| status.role == L2Role::Master);
    standby.until("the other follows", |status| status.master == Some(ip("10.9.0.1")));
    listener.forget();
    let mut said = claims(&listener, Instant::now() + SECOND / 2);
    let stopped = Instant::now();
    first.set_able(false);
    said.extend(claims(&listener, stopped + SECOND));
    let (_, at) = handover(&said, mac("a"), mac("b"), Duration::ZERO);
    println!("resigned: the standby answered after {:?}", at - stopped);
    assert!(at - stopped <= SECOND / 4, "{:?}", at - stopped);
    assert_eq!(first.status().role, L2Role::Unable);
    assert!(first.status().problems[0].contains("dataplane"), "{:?}", first.status());

    listener.forget();
    let back = Instant::now();
    first.set_able(true);
    let said = claims(&listener, back + 3 * SECOND / 2);
    // The one that is preempted learns of it by the other's advertisement.
    handover(&said, mac("b"), mac("a"), SECOND / 20);
    assert_eq!((first.status_later().role, standby.status_later().role), (L2Role::Master, L2Role::Backup));
    assert_eq!(standby.status().master, Some(ip("10.9.0.1")));
    for runner in [&first, &standby] {
        assert_eq!((runner.status().conflicts, runner.status().advertisements_refused), (vec![], 0));
    }
    // Ended by its owner, it resigns too.
    let stopped = Instant::now();
    first.end();
    standby.until("the standby leads", |status| status.role == L2Role::Master);
    println!("ended: the standby was master after {:?}", stopped.elapsed());
    standby.end();
}

#[test]
fn a_box_whose_link_is_cut_is_replaced_and_yields_when_it_is_back() {
    let segment = Segment::new(&["a", "b"]);
    let listener = segment.client().listen(Kind::Arp);
    let mut first = Runner::start(segment.host("a"), FIRST, &[V4, V6]);
    let mut standby = Runner::start(segment.host("b"), SECOND_BOX, &[V4, V6]);
    first.until("the first leads", |status| status.role == L2Role::Master);
    standby.until("the other follows", |status| status.master == Some(ip("10.9.0.1")));
    // The way between them is cut, and both have their links: each is master on its side.
    segment.hub().run("bridge link set dev a state 0");
    standby.until("the standby leads", |status| status.role == L2Role::Master);
    assert_eq!(first.status_later().role, L2Role::Master);
    let mended = Instant::now();
    segment.hub().run("bridge link set dev a state 3");
    standby.until("one leads again", |status| status.role == L2Role::Backup);
    println!("mended: one master again after {:?}", mended.elapsed());
    claims(&listener, Instant::now() + SECOND / 5); // what was under way
    listener.forget();
    let said = claims(&listener, Instant::now() + SECOND / 2);
    let others = said.iter().filter(|(_, claimed_by)| *claimed_by != mac("a")).count();
    assert!(said.len() > 20 && others == 0, "{others} of {}", said.len());

    let cut = Instant::now();
    segment.hub().run("ip link set dev a down");
    standby.until("the standby leads", |status| status.role == L2Role::Master);
    println!("link down: the standby was master after {:?}", cut.elapsed());
    assert!(cut.elapsed() <= SECOND);
    first.until("it knows", |status| status.role == L2Role::Unable);
    first.end();
    standby.end();
}

#[test]
fn a_standby_that_was_stopped_hears_before_it_acts() {
    let segment = Segment::new(&["a", "b"]);
    let listener = segment.client().listen(Kind::Arp);
    let mut first = Runner::start(segment.host("a"), FIRST, &[V4]);
    first.until("the first leads", |status| status.role == L2Role::Master);
    let victim = Victim::start(segment.host("b"), SECOND_BOX, &[V4]);
    claims(&listener, Instant::now() + SECOND);
    listener.forget();
    for _ in 0..3 {
        victim.signal(Signal::STOP);
        let mut said = claims(&listener, Instant::now() + SECOND);
        victim.signal(Signal::CONT);
        said.extend(claims(&listener, Instant::now() + SECOND / 2));
        let others = said.iter().filter(|(_, claimed_by)| *claimed_by != mac("a")).count();
        assert!(said.len() > 20 && others == 0, "{others} of {}", said.len());
    }
    victim.kill();
    first.end();
}

#[test]
fn boxes_without_ipv4_are_elected_by_ipv6() {
    let segment = Segment::new(&["a", "b"]);
    for name in ["a", "b"] {
        segment.host(name).run("ip -4 address flush dev v0");
    }
    let mut first = Runner::start(segment.host("a"), FIRST, &[V6]);
    let mut standby = Runner::start(segment.host("b"), SECOND_BOX, &[V6]);
    first.until("the first leads", |status| status.role == L2Role::Master);
    standby.until("the other follows", |status| matches!(status.master, Some(IpAddr::V6(_))));
    first.end();
    standby.until("the standby leads", |status| status.role == L2Role::Master);
    standby.end();
}

#[test]
fn thousands_of_addresses_join_their_groups() {
    let segment = Segment::new(&["a"]);
    let addresses: BTreeSet<IpAddr> =
        (0..3_000).map(|number| Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 1, number).into()).collect();
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let host = segment.host("a");
    let start = Instant::now();
    let mut runner = Runner::start(host, "true", &texts);
    wait("all groups are joined", || host.groups() >= 3_000);
    println!("3000 groups joined in {:?}", start.elapsed());
    assert_eq!(runner.status_later().problems, Vec::<String>::new());
    let last = texts[2_999];
    let ndisc = segment.client().run(&format!("ndisc6 -1 -r 2 -w 1000 {last} v0"));
    assert!(ndisc.to_lowercase().contains(&mac("a").to_string()), "{ndisc}");
    runner.end();
    wait("they are left", || host.groups() < 20);
}

#[test]
fn what_is_in_the_way_is_told_with_what_to_do() {
    let segment = Segment::new(&["a"]);
    let host = segment.host("a");
    let mut runner = Runner::start_on(host, &["v0", "v9"], FIRST, &[V4]);
    runner.until("a NIC is missing", |status| {
        status.problems.iter().any(|problem| problem.starts_with("there is no NIC v9 "))
            && status.priority == Some(1)
    });
    runner.end();

    host.run("ip link set v0 mtu 1000");
    let mut runner = Runner::start(host, "true", &[V4, V6]);
    runner.until("the kernel has no IPv6 there", |status| {
        status.problems.iter().any(|problem| problem.contains("MTU is at least 1280"))
    });
    assert_eq!(runner.status().role, L2Role::Alone);
    runner.end();

    host.run(&format!("ip address add {V4}/32 dev lo"));
    let mut runner = Runner::start(host, "true", &[V4]);
    runner.until("the kernel has the address too", |status| {
        status.problems.iter().any(|problem| problem.contains("ip address del 10.9.0.10 dev lo"))
    });
    runner.end();

    let without = || {
        let sets = capabilities(None).unwrap();
        let effective = sets.effective - CapabilitySet::NET_RAW;
        set_capabilities(None, CapabilitySets { effective, ..sets }).unwrap();
    };
    let mut runner = Runner::start_after(host, without, &["v0"], "true", &[V4]);
    runner.until("it may not listen", |status| {
        status.problems.iter().any(|problem| problem.contains("CAP_NET_RAW")) && status.role == L2Role::Unable
    });
    runner.end();
}

#[test]
fn unknown_wishes_change_nothing_and_unused_ends_it() {
    let segment = Segment::new(&["a"]);
    let mut runner = Runner::start(segment.host("a"), "true", &[V4]);
    runner.until("it answers", |status| status.role == L2Role::Alone && status.addresses == 1);
    runner.forget();
    assert_eq!(runner.status_later().role, L2Role::Alone);
    runner.unuse();
    runner.until("it is silent", |status| status.role == L2Role::Off && status.addresses == 0);
    let free = segment.client().run(&format!("arping -c 1 -w 1 -I v0 {V4} || true"));
    assert!(free.contains("Received 0"), "{free}");
    runner.end();
}

#[test]
#[ignore = "other tests start this as a process and kill it"]
fn victim() {
    boxes::be_victim();
}

/// The tools that these tests are about.
fn installed(program: &str) -> bool {
    Command::new("which").arg(program).output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_tools_are_here() {
    for program in ["arping", "ndisc6", "ping", "ip", "bridge"] {
        assert!(installed(program), "{program} is missing: run deploy/bootstrap.sh");
    }
    assert_eq!(arp::announcements(V4.parse().unwrap(), mac("a")).len(), 2);
}
