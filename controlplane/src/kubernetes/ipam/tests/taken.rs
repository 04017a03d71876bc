//! What nobody is given, and what nobody loses.

use super::*;
use crate::kubernetes::facts::Node;

#[test]
fn what_others_show_and_what_nodes_have_is_not_given() {
    let mut world = public();
    world
        .facts
        .nodes
        .insert("n1".into(), Node { addresses: vec!["198.51.100.1".parse().unwrap()], ..Node::default() });
    world.add("other").ingress = vec![ingress("::ffff:198.51.100.2")];
    for name in ["a", "b", "c"] {
        world.add(name);
    }
    world.annotate("b", ADDRESSES, "198.51.100.2");
    world.annotate("c", ADDRESSES, "198.51.100.1");
    let assign = |world: &World| {
        let offer = Offer { pools: &world.pools, is_whole: true };
        let ours = ["a", "b", "c"].map(key);
        let allocations = Ipam::default().assign(offer, &world.facts, &ours);
        ours.map(|key| {
            let problem = allocations[&key].problem.as_ref().map(Refusal::to_string).unwrap_or_default();
            (wish::words(&allocations[&key].addresses), problem)
        })
    };
    let by_node = "AddressInUse: 198.51.100.1 is an address of node n1; ask for another";
    let by_other = "AddressInUse: 198.51.100.2 is in the status of default/other; ask for another, or wait until that one has left it";
    let expected = [("198.51.100.3", ""), ("", by_other), ("", by_node)];
    assert_eq!(assign(&world), expected.map(|(addresses, problem)| (addresses.into(), problem.into())));

    // The other one was released, and whoever waits is given it.
    world.service("other").ingress.clear();
    let [_, b, _] = assign(&world);
    assert_eq!(b, ("198.51.100.2".into(), String::new()));
}

#[test]
fn who_has_an_address_keeps_it_whatever_others_show() {
    let mut world = public();
    world.add("a");
    world.restart();
    let before = world.addresses();
    let address = world.service("a").ingress.clone();
    world.add("other").ingress = address;
    let offer = Offer { pools: &world.pools, is_whole: true };
    let allocations = world.ipam.assign(offer, &world.facts, &[key("a")]);
    assert_eq!(format!("a={}", wish::words(&allocations[&key("a")].addresses)), before);
}

#[test]
fn what_a_service_has_left_is_given_to_nobody_while_it_shows_it() {
    let mut world = World::new(vec![pool("public", &["198.51.100.1", "198.51.100.8/30"])]);
    for name in ["a", "b"] {
        world.add(name);
    }
    world.restart();
    world.annotate("a", ADDRESSES, "198.51.100.10");
    world.add("c");
    world.add("d");
    world.annotate("d", ADDRESSES, "198.51.100.1");
    // Its status is not written yet.
    let written = "a=198.51.100.10 b=198.51.100.8 c=198.51.100.9 d=";
    assert_eq!(world.addresses(), written);
    let problem = "AddressInUse: 198.51.100.1 is in the status of default/a; ask for another, or wait until that one has left it";
    assert_eq!(world.problem("d"), problem);
    // It may have it again itself.
    world.annotate("a", ADDRESSES, "198.51.100.1");
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.8 c=198.51.100.9 d=");
    world.annotate("a", ADDRESSES, "198.51.100.10");
    assert_eq!(world.addresses(), written);
    world.restart();
    assert_eq!(world.addresses(), "a=198.51.100.10 b=198.51.100.8 c=198.51.100.9 d=198.51.100.1");
}

#[test]
fn what_is_shown_by_others_is_shared_with_nobody() {
    let sharing = |world: &mut World, name: &str, number: u16| {
        world.add(name).ports = vec![port("TCP", number)];
        world.annotate(name, SHARE, "web");
    };
    let mut world = public();
    sharing(&mut world, "a", 80);
    sharing(&mut world, "b", 81);
    world.restart();
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.1");
    // Its port is free, but for what its status says.
    world.annotate("a", ADDRESSES, "198.51.100.5");
    sharing(&mut world, "c", 80);
    assert_eq!(world.addresses(), "a=198.51.100.5 b=198.51.100.1 c=198.51.100.2");
    let node = Node { addresses: vec!["198.51.100.1".parse().unwrap()], ..Node::default() };
    world.restart();
    world.facts.nodes.insert("n1".into(), node);
    sharing(&mut world, "d", 82);
    let kept = "a=198.51.100.5 b=198.51.100.1 c=198.51.100.2";
    assert_eq!(world.addresses(), format!("{kept} d=198.51.100.2"), "b keeps it, though a node has it");
}

#[test]
fn a_slip_in_a_pool_takes_no_address_away() {
    let mut world = World::new(vec![pool("first", &["198.51.100.0/29"]), pool("second", &["192.0.2.0/29"])]);
    for name in ["a", "b", "both"] {
        world.add(name);
    }
    world.annotate("b", POOL, "second");
    let both = world.service("both");
    (both.families, both.family_policy) = (BOTH.to_vec(), FamilyPolicy::PreferDualStack);
    let before = world.addresses();
    assert_eq!(before, "a=198.51.100.1 b=192.0.2.1 both=198.51.100.2");

    // Also for whoever takes over meanwhile.
    for restarts in [false, true] {
        if restarts {
            world.restart();
        }
        (world.pools, world.refuses) = (vec![pool("second", &["192.0.2.0/29"])], true);
        assert_eq!(world.addresses(), before);
        (world.pools, world.refuses) = (vec![pool("first", &["198.51.100.0/29"])], true);
        assert_eq!(world.addresses(), before);
        assert_eq!(
            world.problem("b"),
            "UnknownPool: there is no pool `second`, which annotation shunt.dev/pool names; there are `first`. It keeps \
             192.0.2.1 meanwhile"
        );
    }
    // Nothing of it is given, and it is left when there is no such pool.
    world.add("late");
    world.annotate("late", ADDRESSES, "192.0.2.3");
    assert_eq!(world.problem("late"), "AddressNotInPool: 192.0.2.3 is in no pool; ask for one of `first`");
    world.refuses = false;
    assert_eq!(world.addresses(), "a=198.51.100.1 b= both=198.51.100.2 late=");
}
