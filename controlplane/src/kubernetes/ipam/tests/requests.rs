use super::*;

fn two_pools() -> World {
    let shop = AddressPool { namespaces: vec!["shop".into()], ..pool("shop", &["203.0.113.0/24"]) };
    let spare = AddressPool { auto_assign: false, ..pool("spare", &["192.0.2.0/24"]) };
    World::new(vec![pool("public", &["198.51.100.0/24", "2001:db8::/64"]), spare, shop])
}

#[test]
fn a_requested_address_is_given() {
    let cases = [
        ("198.51.100.77", None, "198.51.100.77"),
        ("", Some("192.0.2.7"), "192.0.2.7"),
        (" ::ffff:198.51.100.77 ", Some(" 198.51.100.77"), "198.51.100.77"),
        ("", Some(""), "198.51.100.1"),
    ];
    for (annotation, field, expected) in cases {
        let mut world = two_pools();
        world.add("a").requested_ip = field.map(str::to_owned);
        world.annotate("a", ADDRESSES, annotation);
        assert_eq!((world.addresses(), world.problem("a")), (format!("a={expected}"), String::new()));
    }
}

/// The problem of a second Service that asks for this, and so has no address at all.
fn refused(annotation: &str, field: Option<&str>, pool: &str) -> String {
    let mut world = two_pools();
    world.add("first");
    world.assign();
    world.add("a").requested_ip = field.map(str::to_owned);
    world.annotate("a", ADDRESSES, annotation);
    world.annotate("a", POOL, pool);
    assert_eq!(world.addresses(), "a= first=198.51.100.1", "no other address instead");
    world.problem("a")
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let cases = [
        (
            "198.51.100.7",
            Some("198.51.100.8"),
            "spec.loadBalancerIP is 198.51.100.8, but annotation shunt.dev/addresses is 198.51.100.7; remove one of \
             the two",
        ),
        ("web", None, "annotation shunt.dev/addresses: `web` is not an IP address; write one of a pool's"),
        (
            "",
            Some("198.51.100.07"),
            "spec.loadBalancerIP: `198.51.100.07` is not an IP address; write one of a pool's",
        ),
        (
            "198.51.100.7,198.51.100.8",
            None,
            "annotation shunt.dev/addresses has two addresses of one family, 198.51.100.7 and 198.51.100.8; write one \
             of each at most",
        ),
    ];
    for (annotation, field, expected) in cases {
        assert_eq!(refused(annotation, field, ""), format!("InvalidRequest: {expected}"));
    }
}

#[test]
fn an_address_that_cannot_be_given_is_refused_with_the_reason() {
    let not_allowed = "PoolNotAllowed: pool `shop` is for other namespaces or Services, by its namespaces and \
                       selectors; ask for another";
    let cases = [
        (
            "2001:db8::7",
            "WrongFamily: 2001:db8::7 was asked for, but the Service is not IPv6; ask for an address of a family it \
             has, or change spec.ipFamilyPolicy",
        ),
        ("10.0.0.1", "AddressNotInPool: 10.0.0.1 is in no pool; ask for one of `shop`, `public`, `spare`"),
        ("203.0.113.7", not_allowed),
        (
            "198.51.100.255",
            "AddressAvoided: 198.51.100.255 ends in .0 or .255, which pool `public` does not give; ask for another, \
             or give the pool avoid_edges = false",
        ),
        (
            "198.51.100.1",
            "AddressInUse: 198.51.100.1 is in use by default/first; ask for another, or give both the same annotation \
             shunt.dev/share if their ports differ",
        ),
    ];
    for (address, expected) in cases {
        assert_eq!(refused(address, None, ""), expected);
        assert_eq!(refused("", Some(address), ""), expected);
    }
    let elsewhere = "AddressNotInPool: 198.51.100.7 is not in pool `spare`, which annotation shunt.dev/pool names; \
                     change one of the two";
    assert_eq!(refused("198.51.100.7", None, "spare"), elsewhere);
    assert_eq!(refused("", None, "shop"), not_allowed);
    let unknown = "UnknownPool: there is no pool `none`, which annotation shunt.dev/pool names; there are `shop`, \
                   `public`, `spare`";
    assert_eq!(
        (refused("", None, "none"), refused("198.51.100.7", None, "none")),
        (unknown.into(), unknown.into())
    );
}

#[test]
fn a_changed_request_moves_a_service_and_a_refused_one_does_not() {
    let mut world = two_pools();
    world.add("a");
    world.add("b");
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.2");
    world.annotate("a", ADDRESSES, "192.0.2.7");
    assert_eq!(world.addresses(), "a=192.0.2.7 b=198.51.100.2");
    world.service("b").requested_ip = Some("192.0.2.7".into());
    assert_eq!(world.addresses(), "a=192.0.2.7 b=198.51.100.2");
    let problem = world.problem("b");
    assert!(problem.starts_with("AddressInUse: 192.0.2.7 is in use by default/a; "), "{problem}");
    assert!(problem.ends_with(". It keeps 198.51.100.2 meanwhile"), "{problem}");
    world.restart();
    world.service("a").annotations.clear();
    assert_eq!(world.addresses(), "a=192.0.2.7 b=198.51.100.2", "what was asked for stays when nobody asks");
    world.facts.services.remove(&key("a"));
    assert_eq!((world.addresses(), world.problem("b")), ("b=192.0.2.7".into(), String::new()));
}

/// Each wants what a younger one leaves, all in the same moment.
#[test]
fn a_chain_of_moves_comes_to_its_end_at_once() {
    let mut world = two_pools();
    for name in ["a", "b", "c", "d"] {
        world.add(name);
    }
    world.assign();
    world.annotate("a", ADDRESSES, "198.51.100.2");
    world.annotate("b", ADDRESSES, "198.51.100.3");
    world.annotate("c", ADDRESSES, "198.51.100.9");
    world.annotate("d", ADDRESSES, "198.51.100.3");
    let moved = "a=198.51.100.2 b=198.51.100.3 c=198.51.100.9 d=198.51.100.4";
    assert_eq!((world.addresses().as_str(), world.addresses().as_str()), (moved, moved));
}

#[test]
fn an_address_that_is_waited_for_is_not_given_to_another() {
    let mut world = World::new(vec![pool("public", &["198.51.100.1-198.51.100.2"])]);
    for name in ["a", "b", "anyone", "asks"] {
        world.add(name);
    }
    world.annotate("asks", ADDRESSES, "198.51.100.1");
    assert_eq!(world.addresses(), "a=198.51.100.2 anyone= asks=198.51.100.1 b=");
    world.facts.services.remove(&key("asks"));
    assert_eq!(world.addresses(), "a=198.51.100.2 anyone= b=198.51.100.1");
}

#[test]
fn a_named_pool_is_used_whatever_else_there_is() {
    let mut world = two_pools();
    world.add("a");
    world.annotate("a", POOL, "spare");
    assert_eq!(world.addresses(), "a=192.0.2.1");
    world.annotate("a", POOL, "public");
    assert_eq!(world.addresses(), "a=198.51.100.1");
    world.annotate("a", POOL, "gone");
    assert_eq!(world.addresses(), "a=198.51.100.1");
    assert!(world.problem("a").ends_with(". It keeps 198.51.100.1 meanwhile"));
    world.service("a").annotations.clear();
    assert_eq!((world.addresses(), world.problem("a")), ("a=198.51.100.1".into(), String::new()));
}

#[test]
fn a_service_waits_where_it_is_for_a_named_pool_that_is_exhausted() {
    let spare = AddressPool { auto_assign: false, ..pool("spare", &["192.0.2.7"]) };
    let mut world = World::new(vec![pool("public", &["198.51.100.7"]), spare]);
    world.add("a");
    world.assign();
    world.add("b");
    world.annotate("b", POOL, "spare");
    world.add("c");
    world.assign();
    world.annotate("a", POOL, "spare");
    assert_eq!(world.addresses(), "a=198.51.100.7 b=192.0.2.7 c=");
    assert!(
        world.problem("a").starts_with("PoolExhausted: pool `spare` is exhausted: all its 1 IPv4 addresses")
    );
    world.facts.services.remove(&key("b"));
    assert_eq!(world.addresses(), "a=192.0.2.7 c=198.51.100.7", "and what it leaves goes to who waits");
}
