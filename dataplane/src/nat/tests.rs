//! What handing out sources promises: unique, found again, exhausted only when it is.

use std::collections::HashMap;
use std::sync::Barrier;

use super::*;
use crate::flow::FlowKey4;

const LIMITS: IdleLimits = [0, 0, 0, 30, 300, 900, 120, 10, 10_800];
const BACKEND: [u8; 4] = [10, 0, 0, 1];

fn nat(sources: u8, flows: usize) -> Nat {
    let tables = Arc::new(NatTables::new(flows, 1, &RandomState::with_seeds(1, 2, 3, 4)));
    let ids = (0..u16::from(sources)).map(SourceId).collect();
    let addresses = (0..sources).map(|i| Some([10, 0, 9, i].into())).collect();
    Nat::new(tables, ids, Box::default(), addresses, &RandomState::with_seeds(1, 2, 3, 4))
}

fn flow(client: u32) -> FlowKey4 {
    FlowKey4 {
        client: (0x0a64_0000 + client).into(),
        vip: [203, 0, 113, 10].into(),
        client_port: 40_000,
        port: 80,
        protocol: Protocol::Tcp,
    }
}

fn last_hop(mac: u8) -> LastHop {
    LastHop::new(NicIndex(0), MacAddress([2, 0, 0, 0, 0, mac]), Tags::None).unwrap()
}

fn outward(flow: &FlowKey4, hash: u64) -> Outward<'_, FlowKey4> {
    Outward {
        flow,
        hash,
        backend: BackendId(3),
        end: (BACKEND.into(), 30_080),
        protocol: Protocol::Tcp,
        last_hop: last_hop(1),
        state: State::Unconfirmed,
        begins: Begins::Surely,
        now: Seconds(5),
        limits: &LIMITS,
    }
}

fn reply(nat: &Nat, binding: Binding) -> FlowKey4 {
    let (IpAddr::V4(source), port) = nat.source(binding).unwrap() else { panic!("IPv4") };
    FlowKey4 { client: BACKEND.into(), vip: source, client_port: 30_080, port, protocol: Protocol::Tcp }
}

#[test]
fn a_reply_finds_its_flow_and_way() {
    let nat = nat(1, 1000);
    let flow = flow(1);
    let Taken::New(binding) = nat.take(&nat.tables.v4, &outward(&flow, 99)) else { panic!("new") };
    let reply = reply(&nat, binding);
    assert!(reply.port >= NAT_PORT_MIN);
    let owner = |now| owner(&nat.tables.v4, &reply, Seconds(now), &LIMITS);
    let found = owner(34).unwrap();
    assert_eq!((found.flow, found.last_hop, found.hit.control.backend()), (flow, last_hop(1), BackendId(3)));
    assert_eq!(owner(35), None, "idle for 30 s");
    let other = FlowKey4 { client_port: 30_081, ..reply };
    assert!(
        super::owner(&nat.tables.v4, &other, Seconds(5), &LIMITS).is_none(),
        "another port of the backend"
    );
}

#[test]
fn a_flow_gets_its_own_source_again() {
    let nat = nat(3, 1000);
    let flow = flow(1);
    let taken = nat.take(&nat.tables.v4, &outward(&flow, 99));
    let Taken::New(binding) = taken else { panic!("new") };
    assert_eq!(nat.take(&nat.tables.v4, &outward(&flow, 99)), Taken::Adopted(binding));
    let moved =
        Outward { last_hop: last_hop(2), state: State::Established, now: Seconds(50), ..outward(&flow, 99) };
    assert!(nat.refresh(&nat.tables.v4, &moved, binding));
    let owner = owner(&nat.tables.v4, &reply(&nat, binding), Seconds(900), &LIMITS).unwrap();
    assert_eq!((owner.last_hop, owner.hit.control.state()), (last_hop(2), State::Established));
}

#[test]
fn a_binding_that_is_another_flows_is_not_refreshed() {
    let nat = nat(1, 1000);
    let (mine, other) = (flow(1), flow(2));
    let Taken::New(binding) = nat.take(&nat.tables.v4, &outward(&other, 99)) else { panic!("new") };
    assert!(!nat.refresh(&nat.tables.v4, &outward(&mine, 99), binding));
    assert!(!nat.refresh(&nat.tables.v4, &outward(&mine, 99), Binding::NONE));
    let Taken::New(own) = nat.take(&nat.tables.v4, &outward(&mine, 99)) else { panic!("new") };
    assert_ne!(own, binding, "the first candidate is in use");
}

#[test]
fn a_source_that_is_no_longer_configured_is_left() {
    let mut nat = nat(2, 1000);
    let flow = flow(1);
    let Taken::New(binding) = nat.take(&nat.tables.v4, &outward(&flow, 99)) else { panic!("new") };
    let (gone, _) = binding.parts().unwrap();
    nat.addresses[usize::from(gone.0)] = None;
    nat.v4 = nat.v4.iter().copied().filter(|id| *id != gone).collect();
    assert!(!nat.refresh(&nat.tables.v4, &outward(&flow, 99), binding));
    let Taken::New(next) = nat.take(&nat.tables.v4, &outward(&flow, 99)) else { panic!("new") };
    assert!(nat.source(next).is_some() && next.parts().unwrap().0 != gone);
}

/// Takes pairs of one address towards one backend for as many flows as there are ports. Returns how many got one,
/// and how many had when the first got none.
fn take_all(nat: &Nat, confirm: bool) -> (usize, Option<usize>) {
    let mut taken = HashMap::new();
    let mut first_failure = None;
    for client in 0..PORTS as u32 {
        let flow = flow(client);
        let outward = outward(&flow, u64::from(client) * 0x1234_5678_9abc);
        match nat.take(&nat.tables.v4, &outward) {
            Taken::New(binding) => {
                let before = taken.insert(binding.0, client);
                assert!(before.is_none() || !confirm, "handed out twice");
                let established = Outward { state: State::Established, ..outward };
                assert!(!confirm || nat.refresh(&nat.tables.v4, &established, binding));
            }
            Taken::Exhausted => _ = first_failure.get_or_insert(taken.len()),
            other => panic!("{other:?}"),
        }
    }
    (taken.len(), first_failure)
}

const PORTS: usize = (u16::MAX - NAT_PORT_MIN) as usize + 1;

#[test]
fn sources_run_out_only_when_nearly_all_are_taken() {
    let nat = nat(1, 100_000);
    let (taken, first_failure) = take_all(&nat, true);
    let share = |count: usize| count as f64 / PORTS as f64;
    println!("first failure at {:.2}, {:.2} taken", share(first_failure.unwrap()), share(taken));
    assert!(share(first_failure.unwrap()) > 0.85 && share(taken) > 0.95);
    // They are there again when their flows are over, whether or not anybody has swept.
    for client in 0..2000 {
        let late = flow(0x8000 + client + PORTS as u32);
        let at = |now| Outward { now: Seconds(now), ..outward(&late, u64::from(client)) };
        if nat.take(&nat.tables.v4, &at(6)) == Taken::Exhausted {
            assert!(matches!(nat.take(&nat.tables.v4, &at(5 + 900)), Taken::New(_)));
            return;
        }
    }
    panic!("nothing was exhausted");
}

#[test]
fn a_flood_of_first_packets_shuts_nobody_out() {
    let nat = nat(1, 100_000);
    let confirmed: Vec<_> = (0..1000)
        .map(|client| {
            let flow = flow(client + 2 * PORTS as u32);
            let Taken::New(binding) = nat.take(&nat.tables.v4, &outward(&flow, 99)) else { panic!("new") };
            let established = Outward { state: State::Established, ..outward(&flow, 99) };
            assert!(nat.refresh(&nat.tables.v4, &established, binding));
            (flow, binding)
        })
        .take(20)
        .collect();
    assert_eq!(take_all(&nat, false).1, None);
    for (flow, binding) in confirmed {
        assert!(nat.refresh(&nat.tables.v4, &outward(&flow, 99), binding), "a confirmed flow keeps its pair");
    }
}

#[test]
fn what_begins_nothing_takes_nothing() {
    let nat = nat(1, 1000);
    let flow = flow(1);
    let never = Outward { begins: Begins::Never, ..outward(&flow, 99) };
    assert_eq!(nat.take(&nat.tables.v4, &never), Taken::NoFlow);
    let Taken::New(binding) = nat.take(&nat.tables.v4, &outward(&flow, 99)) else { panic!("new") };
    assert_eq!(nat.take(&nat.tables.v4, &never), Taken::Adopted(binding));
}

#[test]
fn a_flow_that_lost_its_entry_finds_its_pair_behind_free_ones() {
    let nat = nat(1, 1000);
    let (first, second) = (flow(1), flow(2));
    let Taken::New(ahead) = nat.take(&nat.tables.v4, &outward(&first, 99)) else { panic!("new") };
    let Taken::New(own) = nat.take(&nat.tables.v4, &outward(&second, 99)) else { panic!("new") };
    let key = outward(&first, 99).key(nat.source(ahead).unwrap()).unwrap();
    assert!(nat.tables.v4.remove(find(&nat.tables.v4, &key).unwrap()));
    let midstream = Outward { begins: Begins::Maybe, ..outward(&second, 99) };
    assert_eq!(nat.peek(&nat.tables.v4, &midstream, Binding::NONE), nat.source(own));
    assert_eq!(nat.take(&nat.tables.v4, &midstream), Taken::Adopted(own));
}

#[test]
fn workers_never_get_the_same_pair() {
    const FLOWS: u32 = 20_000;
    let nat = nat(1, 100_000);
    let barrier = Barrier::new(4);
    let taken: Vec<(u32, Binding)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4u32)
            .map(|worker| {
                let (nat, barrier) = (&nat, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    // Two workers see each flow, and all begin with the same candidates.
                    (0..FLOWS)
                        .filter(|client| client % 2 == worker % 2)
                        .map(|client| {
                            match nat.take(&nat.tables.v4, &outward(&flow(client), u64::from(client / 4))) {
                                Taken::New(binding) | Taken::Adopted(binding) => (client, binding),
                                other => panic!("{client}: {other:?}"),
                            }
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let mut owners = HashMap::new();
    for (client, binding) in &taken {
        assert_eq!(*owners.entry(binding.0).or_insert(*client), *client, "one pair for two flows");
    }
    assert_eq!(taken.len(), 2 * FLOWS as usize);
}

#[test]
fn a_last_hop_is_one_word() {
    for (nic, mac, id) in [(0, [2, 0, 0, 0, 0, 1], 0), (31, [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff], 4094)] {
        let tags = if id == 0 { Tags::None } else { Tags::One(VlanTag { tpid: 0x8100, id }) };
        let hop = LastHop::new(NicIndex(nic), MacAddress(mac), tags).unwrap();
        assert_eq!((hop.nic(), hop.mac()), (NicIndex(nic), MacAddress(mac)));
        assert_eq!(hop.vlan().map_or(0, |tag| tag.id), id);
    }
    for tags in [Tags::Stacked, Tags::One(VlanTag { tpid: 0x88a8, id: 1 })] {
        assert_eq!(LastHop::new(NicIndex(0), MacAddress([2; 6]), tags), None);
    }
}
