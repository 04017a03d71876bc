use super::FamilyPolicy::{PreferDualStack, RequireDualStack, SingleStack};
use super::*;

const V4: &str = "198.51.100.1";
const V6: &str = "2001:db8::";

fn world(pools: &[(&str, &[&str])], families: [Family; 2], policy: FamilyPolicy) -> World {
    let mut world = World::new(pools.iter().map(|(name, ranges)| pool(name, ranges)).collect());
    let service = world.add("a");
    service.families = families.into();
    service.family_policy = policy;
    world
}

#[test]
fn families_are_given_as_the_policy_says() {
    let v4: (&str, &[&str]) = ("p4", &["198.51.100.0/24"]);
    let v6: (&str, &[&str]) = ("p6", &["2001:db8::/64"]);
    let dual: (&str, &[&str]) = ("zdual", &["2001:db8:1::/64", "203.0.113.0/24"]);
    let [forth, back] = [BOTH, [Family::V6, Family::V4]];
    let cases: [(&[_], _, _, &[&str]); 14] = [
        (&[v4, v6], forth, SingleStack, &[V4]),
        (&[v4, v6], back, SingleStack, &[V6]),
        (&[v4], back, SingleStack, &[]),
        (&[v4, v6, dual], forth, PreferDualStack, &["203.0.113.1", "2001:db8:1::"]),
        (&[v4, v6, dual], back, PreferDualStack, &["2001:db8:1::", "203.0.113.1"]),
        (&[v4, v6], forth, PreferDualStack, &[V4]),
        (&[v4, v6], back, PreferDualStack, &[V6]),
        (&[v6], forth, PreferDualStack, &[V6]),
        (&[v4], back, PreferDualStack, &[V4]),
        (&[], forth, PreferDualStack, &[]),
        (&[v4, v6, dual], back, RequireDualStack, &["2001:db8:1::", "203.0.113.1"]),
        (&[v4, v6], forth, RequireDualStack, &[V4, V6]),
        (&[v4, v6], back, RequireDualStack, &[V6, V4]),
        (&[v4], forth, RequireDualStack, &[]),
    ];
    for (pools, families, policy, expected) in cases {
        let mut world = world(pools, families, policy);
        let what = format!("{pools:?} {families:?} {policy:?}");
        assert_eq!(world.addresses(), format!("a={}", expected.join(",")), "{what}");
        assert_eq!(world.problem("a").is_empty(), !expected.is_empty(), "{what}");
        world.restart();
        assert_eq!(world.addresses(), format!("a={}", expected.join(",")), "{what}, started again");
    }
}

#[test]
fn the_second_address_comes_when_the_pool_has_it_and_from_no_other() {
    let mut world = world(&[("p", &["198.51.100.0/24"])], BOTH, PreferDualStack);
    assert_eq!(world.addresses(), "a=198.51.100.1");
    world.pools.push(pool("dual", &["203.0.113.0/24", "2001:db8:1::/64"]));
    assert_eq!((world.addresses(), world.problem("a")), ("a=198.51.100.1".into(), String::new()));
    world.pools[0] = pool("p", &["198.51.100.0/24", "2001:db8::/64"]);
    assert_eq!(world.addresses(), "a=198.51.100.1,2001:db8::");
    world.service("a").families = vec![Family::V6, Family::V4];
    assert_eq!(world.addresses(), "a=2001:db8::,198.51.100.1");
}

#[test]
fn a_change_of_policy_keeps_what_is_still_wanted() {
    let mut world = world(&[("p", &["198.51.100.0/24"])], BOTH, SingleStack);
    world.assign();
    world.service("a").family_policy = RequireDualStack;
    assert_eq!(world.addresses(), "a=198.51.100.1");
    let expected = "NoPool: `p` has no IPv6 addresses to give; add some, or a pool that has. It keeps 198.51.100.1 \
                    meanwhile";
    assert_eq!(world.problem("a"), expected);
    world.pools.push(pool("six", &["2001:db8::/64"]));
    assert_eq!((world.addresses(), world.problem("a")), ("a=198.51.100.1,2001:db8::".into(), String::new()));
    world.service("a").family_policy = PreferDualStack;
    assert_eq!(world.addresses(), "a=198.51.100.1,2001:db8::");
    world.service("a").family_policy = SingleStack;
    assert_eq!(world.addresses(), "a=198.51.100.1");
}

#[test]
fn a_pool_that_shrinks_takes_only_what_it_loses() {
    let pools: &[(&str, &[&str])] = &[("p", &["198.51.100.1-198.51.100.9", "2001:db8::/64"])];
    let mut world = world(pools, BOTH, PreferDualStack);
    assert_eq!(world.addresses(), "a=198.51.100.1,2001:db8::");
    world.pools[0] = pool("p", &["198.51.100.5-198.51.100.9", "2001:db8::/64"]);
    assert_eq!(world.addresses(), "a=198.51.100.5,2001:db8::");
    world.pools[0] = pool("p", &["2001:db8::/64"]);
    assert_eq!((world.addresses(), world.problem("a")), ("a=2001:db8::".into(), String::new()));
}

#[test]
fn an_address_asked_for_gets_the_other_family_beside_it() {
    let pools: &[(&str, &[&str])] =
        &[("p", &["198.51.100.0/24", "2001:db8::/64"]), ("q", &["203.0.113.0/24", "2001:db8:1::/64"])];
    for policy in [PreferDualStack, RequireDualStack] {
        let mut world = world(pools, BOTH, policy);
        world.annotate("a", ADDRESSES, "203.0.113.9");
        assert_eq!(world.addresses(), "a=203.0.113.9,2001:db8:1::");
        world.annotate("a", ADDRESSES, "2001:db8::7,198.51.100.7");
        assert_eq!(world.addresses(), "a=198.51.100.7,2001:db8::7");
    }
}

#[test]
fn without_families_there_is_nothing_to_give() {
    let mut world = public();
    world.add("a").families.clear();
    world.add("b").family_policy = RequireDualStack;
    assert_eq!((world.addresses(), world.problem("a")), ("a= b=198.51.100.1".into(), String::new()));
}
