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
