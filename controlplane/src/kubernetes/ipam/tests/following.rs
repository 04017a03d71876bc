//! Those who do not lead.

use super::*;

/// What one who does not lead serves.
fn followed(world: &World, ipam: &mut Ipam) -> String {
    let kept =
        ipam.keep(Offer { pools: &world.pools, is_whole: true }, &world.facts, world.facts.services.keys());
    let shown = |(key, allocation): (ServiceKey, Allocation)| {
        format!("{}={}", key.name, wish::words(&allocation.addresses))
    };
    kept.into_iter().map(shown).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_follower_serves_what_is_shown_and_gives_nothing() {
    let mut world = public();
    world.add("a");
    world.add("b").ingress = vec![ingress("198.51.100.5")];
    world.add("asking").requested_ip = Some("198.51.100.6".into());
    assert_eq!(followed(&world, &mut Ipam::default()), "a= asking= b=198.51.100.5");
    world.restart();
    let decided = "a=198.51.100.1 asking=198.51.100.6 b=198.51.100.5";
    assert_eq!(followed(&world, &mut Ipam::default()), decided);
    assert_eq!(world.addresses(), decided);
}

#[test]
fn a_follower_takes_only_what_its_pools_have_and_gives_no_address_twice() {
    let mut world = public();
    world.add("foreign").ingress = vec![ingress("192.0.2.1")];
    world.add("older").ingress = vec![ingress("198.51.100.5")];
    world.add("younger").ingress = vec![ingress("198.51.100.5")];
    assert_eq!(followed(&world, &mut Ipam::default()), "foreign= older=198.51.100.5 younger=");
}

#[test]
fn one_that_led_keeps_what_it_gave_while_nobody_leads() {
    let mut world = public();
    world.add("a");
    world.assign();
    world.add("late");
    let mut ipam = std::mem::take(&mut world.ipam);
    // Its status was never written.
    assert_eq!(followed(&world, &mut ipam), "a=198.51.100.1 late=");
    assert_eq!(followed(&world, &mut Ipam::default()), "a= late=");
}

#[test]
fn one_that_led_goes_by_a_status_that_another_wrote_since() {
    let mut world = public();
    for name in ["a", "b", "c"] {
        world.add(name);
    }
    world.restart();
    world.annotate("b", ADDRESSES, "198.51.100.5");
    world.add("undone");
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.5 c=198.51.100.3 undone=198.51.100.4");
    let mut ipam = std::mem::take(&mut world.ipam);
    let decided = "a=198.51.100.1 b=198.51.100.5 c=198.51.100.3 undone=198.51.100.4";
    assert_eq!(followed(&world, &mut ipam), decided, "b and the last one are still to be written");
    world.add("late");
    assert_eq!(
        followed(&world, &mut ipam),
        "a=198.51.100.1 b=198.51.100.5 c=198.51.100.3 late= undone=198.51.100.4"
    );
    // Another gives it what it gave to nobody, and moves one.
    world.service("late").ingress = vec![ingress("198.51.100.4")];
    world.service("c").ingress = vec![ingress("198.51.100.6")];
    let since = "a=198.51.100.1 b=198.51.100.5 c=198.51.100.6 late=198.51.100.4 undone=";
    assert_eq!(followed(&world, &mut ipam), since);
    world.service("undone").ingress = vec![ingress("198.51.100.2")];
    assert_eq!(followed(&world, &mut ipam), since.replace("undone=", "undone=198.51.100.2"));
    // A status that was taken away says nothing yet.
    world.service("a").ingress.clear();
    assert_eq!(followed(&world, &mut ipam), since.replace("undone=", "undone=198.51.100.2"));
}
