use super::*;

/// Two Services with TCP ports, and keys.
fn two(first: (&str, u16), second: (&str, u16)) -> World {
    let mut world = public();
    for (name, (share, number)) in [("a", first), ("b", second)] {
        world.add(name).ports = vec![port("TCP", number)];
        world.annotate(name, SHARE, share);
    }
    world
}

#[test]
fn services_share_if_key_and_ports_allow() {
    let (shared, apart) = ("a=198.51.100.1 b=198.51.100.1", "a=198.51.100.1 b=198.51.100.2");
    let cases = [
        (("web", 80), ("web", 443), shared),
        (("web", 80), ("web", 80), apart),
        (("web", 80), ("db", 443), apart),
        (("", 80), ("", 443), apart),
        (("web", 80), ("", 443), apart),
    ];
    for (first, second, expected) in cases {
        let mut world = two(first, second);
        assert_eq!(world.addresses(), expected, "{first:?} {second:?}");
        world.restart();
        assert_eq!(world.addresses(), expected);
    }
    let mut world = two(("web", 53), ("web", 53));
    world.service("b").ports = vec![port("UDP", 53)];
    world.service("b").local = true;
    assert_eq!(world.addresses(), shared, "another protocol, and another policy");
}

#[test]
fn a_request_for_a_shared_address_is_as_good_as_sharing() {
    let mut world = two(("web", 80), ("", 80));
    world.assign();
    world.annotate("b", ADDRESSES, "198.51.100.1");
    assert!(world.problem("b").starts_with("AddressInUse: 198.51.100.1 is in use by default/a; "));
    world.annotate("b", SHARE, "web");
    let expected = "AddressInUse: default/a has TCP port 80 of 198.51.100.1; ask for another address, or change one \
                    of the ports. It keeps 198.51.100.2 meanwhile";
    assert_eq!(world.problem("b"), expected);
    world.service("b").ports = vec![port("TCP", 81)];
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.1");
}

#[test]
fn a_key_given_to_living_services_moves_nobody() {
    let mut world = two(("", 80), ("", 81));
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.2");
    world.annotate("a", SHARE, "web");
    world.annotate("b", SHARE, "web");
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.2");
    world.add("c").ports = vec![port("TCP", 82)];
    world.annotate("c", SHARE, "web");
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.2 c=198.51.100.1");
}

#[test]
fn the_younger_leaves_when_sharing_is_no_longer_possible() {
    let mut world = two(("web", 80), ("web", 443));
    world.assign();
    world.service("a").ports.push(port("TCP", 443));
    let moved = world.assign().remove(&key("b")).unwrap();
    let expected =
        "AddressInUse: 198.51.100.1 was left to default/a, which is older and has TCP port 443 of it too";
    assert_eq!(moved.moved.unwrap().to_string(), expected);
    assert_eq!((world.addresses().as_str(), moved.problem), ("a=198.51.100.1 b=198.51.100.2", None));
    world.service("a").ports.pop();
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.2", "and does not come back");

    let mut world = two(("web", 80), ("web", 443));
    world.assign();
    world.annotate("a", SHARE, "other");
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.2", "nor when the key changes");
}

#[test]
fn an_address_is_shared_rather_than_taken_of_a_better_pool() {
    let mut world = two(("web", 80), ("web", 443));
    world.pools.push(AddressPool { priority: 7, ..pool("better", &["203.0.113.0/24"]) });
    world.annotate("a", POOL, "public");
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.1");
    world.annotate("b", POOL, "better");
    assert_eq!(world.addresses(), "a=198.51.100.1 b=203.0.113.1");
}

#[test]
fn who_leaves_a_shared_address_leaves_it_to_the_others() {
    let mut world = two(("web", 80), ("web", 443));
    world.assign();
    world.facts.services.remove(&key("a"));
    world.add("c").ports = vec![port("TCP", 443)];
    assert_eq!(world.addresses(), "b=198.51.100.1 c=198.51.100.2");
}

/// A key for thousands of Services on one port is of no use, and no reason to take long.
#[test]
fn a_key_that_all_have_does_not_slow_down() {
    let mut world = World::new(vec![pool("public", &["10.0.0.0/16"])]);
    for number in 0..3_000 {
        let name = format!("s{number}");
        world.add(&name);
        world.annotate(&name, SHARE, "all");
    }
    let distinct: BTreeSet<IpAddr> = world.assign().into_values().flat_map(|given| given.addresses).collect();
    assert_eq!(distinct.len(), 3_000);
}
