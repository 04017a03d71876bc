//! What is explained of a packet is what then becomes of it.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use shunt_api::counters::DropReason;
use shunt_api::explain::{Explanation, PacketQuestion, Rule, Verdict};
use shunt_api::snapshot::{Protocol, Snapshot, UnlistedPorts};

use super::super::*;
use super::world::{BACKENDS, CLIENTS, TestWorker, Way, World, mac_of};
use crate::conntrack::Seconds;
use crate::explain::{Grounds, explain};
use crate::neighbor::HopMap;
use crate::packet::transport::{ACK, SYN};
use crate::table::{Forwarding, Hop};
use crate::testing::draft::{self, Draft};
use crate::testing::oracle::{Seen, ends, seen};

/// Questions, in rounds between which the configuration changes.
const QUESTIONS: usize = 2_400;
/// A multiple of the packets per second: how many answers may be given is settled once a second.
const ROUND: usize = 240;
const PER_SECOND: usize = 20;

fn questions() -> impl Strategy<Value = PacketQuestion> {
    // So few clients that many questions are about flows that are there.
    let client = (0u16..40, 40_000u16..40_010);
    let way = prop::sample::select(Way::ALL.to_vec());
    let more = (0u8..10, prop::sample::select(vec![60u16, 1400, 1480, 1500]));
    (any::<[bool; 3]>(), client, way, 0u8..20, more).prop_map(
        |([v6, tcp, begins], (host, port), way, odd, (rare, length))| {
            let service_port = if rare > 0 { way.service(v6, tcp).port() } else { 81 };
            let ip: IpAddr = match (odd, v6) {
                (0, _) => way.vip(v6),
                (_, true) => [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, host].into(),
                (_, false) => [198, 18, 0, host as u8].into(),
            };
            let to = match (odd, v6) {
                (1, true) => "fd00:9::1".parse().unwrap(),
                (1, false) => "10.0.9.1".parse().unwrap(),
                (2, true) => "2001:db8::99".parse().unwrap(),
                (2, false) => "203.0.113.99".parse().unwrap(),
                _ => way.vip(v6),
            };
            PacketQuestion {
                source: SocketAddr::new(ip, port),
                destination: SocketAddr::new(to, service_port),
                protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
                begins,
                length,
            }
        },
    )
}

/// What an operator may do, in turn.
fn change(round: usize, snapshot: &mut Snapshot) {
    match round % 6 {
        0 => {
            for backend in snapshot.pools.iter_mut().filter_map(|pool| pool.backends.first_mut()) {
                backend.weight = 0;
            }
        }
        1 => {
            for pool in snapshot.pools.iter_mut().filter(|pool| pool.backends.len() > 1) {
                pool.backends.remove(1);
            }
        }
        2 => snapshot.services.iter_mut().step_by(3).for_each(|service| {
            service.source_ranges =
                vec!["198.18.0.0/28".parse().unwrap(), "2001:db8:c::/124".parse().unwrap()];
        }),
        3 => snapshot.services.iter_mut().step_by(2).for_each(|service| {
            service.client_ip_affinity_s = Some(600);
        }),
        4 => {
            snapshot.reply_rate = 0;
            for service in snapshot.services.iter_mut().skip(4) {
                service.unlisted_ports = UnlistedPorts::Drop;
            }
        }
        _ => {
            let pools = snapshot.pools.len();
            snapshot.pools[round % pools].backends.clear();
        }
    }
}

/// No way to two of the backends for direct routing.
fn with_an_obstacle(world: &World) {
    let before = world.shared.forwarding.load_full();
    let mut hops = before.hops.clone();
    if let Hop::Open(hop) = &mut hops[1] {
        hop.on_link = false;
    }
    hops[2] = Hop::Closed(DropReason::RouteElsewhere);
    let next = Forwarding::new(before.sequence + 1, before.table.clone(), hops, before.nics.clone());
    world.shared.forwarding.store(Arc::new(next));
}

fn explained(world: &World, question: &PacketQuestion, now: u32) -> Explanation {
    let forwarding = world.shared.forwarding.load_full();
    let nics = [CLIENTS, BACKENDS].map(|nic| format!("nic{}", nic.0));
    let grounds = Grounds {
        forwarding: &forwarding,
        flows: &world.shared.flows,
        hops: &HopMap::default(),
        nics: &nics,
        now: Seconds(now),
    };
    explain(question, &grounds).unwrap()
}

fn frame(question: &PacketQuestion) -> Vec<u8> {
    let mut draft = match (question.protocol, question.begins) {
        (Protocol::Udp, _) => Draft::udp(&[]),
        (Protocol::Tcp, true) => Draft::tcp(SYN, &[]),
        (Protocol::Tcp, false) => Draft::tcp(ACK, &[]),
    };
    draft.ip.dont_fragment = true;
    let headers = draft.between(question.source, question.destination).len();
    draft.payload = vec![7; usize::from(question.length) - headers];
    draft::frame(&draft.between(question.source, question.destination), &[], 0)
}

/// Sends the packet and holds what leaves, or is counted, against what was said.
fn check(worker: &mut TestWorker, said: &Explanation, now: u32) {
    let before = worker.values();
    let sent = worker.pass(CLIENTS, &frame(&said.packet), now);
    let after = worker.values();
    let reason =
        DropReason::ALL.iter().copied().find(|&reason| after.dropped(reason) > before.dropped(reason));
    let context = format!("{said:#?}\nsent: {sent:?}, dropped: {reason:?}");
    match said.verdict {
        Verdict::Forward | Verdict::Translate => {
            let (nic, bytes) = sent.expect(&context);
            let Seen { destination_mac, ip, .. } = seen(&bytes);
            assert_eq!((nic, destination_mac), (BACKENDS, mac_of(said.backend.unwrap())), "{context}");
            let wire = &said.steps.last().unwrap().finding;
            let (source, destination) = outermost(said, &ip);
            assert!(
                wire.contains(&destination) && (source.is_empty() || wire.contains(&source)),
                "{context}"
            );
        }
        Verdict::Return => assert_eq!(sent.expect(&context).0, CLIENTS, "{context}"),
        Verdict::Reply => {
            let sent = seen(&sent.expect(&context).1);
            let protocol = etherparse::IpSlice::from_slice(&sent.ip).unwrap().payload_ip_number();
            let by_icmp = !matches!(protocol, etherparse::IpNumber::TCP);
            assert_eq!(by_icmp, said.reason.as_deref() != Some("reset"), "{context}");
        }
        // The steering program would not have let it come this far.
        Verdict::Pass => assert_eq!(reason, Some(DropReason::NotOurAddress), "{context}"),
        Verdict::Drop => assert_eq!(reason.map(DropReason::name), said.reason.as_deref(), "{context}"),
    }
}

/// Addresses that the last step has to name: of the tunnel, or of the packet itself. A source that is taken when the
/// packet comes cannot be named.
fn outermost(said: &Explanation, ip: &[u8]) -> (String, String) {
    if said
        .steps
        .iter()
        .any(|step| step.rule == Rule::Source && step.finding.contains("is taken when it comes"))
    {
        return (String::new(), ends(ip).1.to_string());
    }
    let sliced = etherparse::IpSlice::from_slice(ip).unwrap();
    match sliced.payload_ip_number().0 {
        4 | 41 => (sliced.source_addr().to_string(), sliced.destination_addr().to_string()),
        _ => (ends(ip).0.to_string(), ends(ip).1.to_string()),
    }
}

#[test]
fn what_is_explained_is_what_happens() {
    let mut world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    let (mut runner, questions) = (TestRunner::deterministic(), questions());
    let mut verdicts = std::collections::BTreeMap::new();
    for number in 0..QUESTIONS {
        if number > 0 && number % ROUND == 0 {
            world.reconfigure(|snapshot| change(number / ROUND - 1, snapshot));
            with_an_obstacle(&world);
        }
        let now = (number / PER_SECOND) as u32;
        let question = questions.new_tree(&mut runner).unwrap().current();
        let said = explained(&world, &question, now);
        check(&mut worker, &said, now);
        *verdicts.entry(format!("{:?} {:?}", said.verdict, said.reason)).or_insert(0) += 1;
    }
    println!("{verdicts:#?}");
    let reasons = [
        "source_denied",
        "no_backend",
        "unlisted_port",
        "from_our_address",
        "route_elsewhere",
        "backend_not_on_link",
        "too_big",
    ];
    for wanted in reasons {
        assert!(
            verdicts.keys().any(|verdict| verdict.contains(wanted)),
            "{wanted} never came up: {verdicts:?}"
        );
    }
}

#[test]
fn the_answer_to_a_translated_flow_goes_back() {
    let world = World::new(1, |_| ());
    let mut worker = world.worker(0);
    for v6 in [false, true] {
        let source: IpAddr = if v6 { "2001:db8:c::1".parse().unwrap() } else { [198, 18, 0, 1].into() };
        let question = PacketQuestion {
            source: SocketAddr::new(source, 40_000),
            destination: Way::Nat.service(v6, true),
            protocol: Protocol::Tcp,
            begins: true,
            length: 80,
        };
        let (_, sent) = worker.pass(CLIENTS, &frame(&question), 1).unwrap();
        let (translated, backend) = ends(&seen(&sent).ip);
        let answer = PacketQuestion { source: backend, destination: translated, begins: false, ..question };
        let said = explained(&world, &answer, 1);
        assert_eq!((said.verdict, said.backend), (Verdict::Return, Some(backend.ip())), "{said:#?}");
        assert!(
            said.steps.iter().any(|step| step.decides && step.finding.contains(&question.source.to_string()))
        );
        check(&mut worker, &said, 1);
        // And the flow's next packet leaves from where the first one did.
        let next = explained(&world, &PacketQuestion { begins: false, ..question }, 1);
        assert!(next.steps.last().unwrap().finding.contains(&translated.to_string()), "{next:#?}");
    }
}
