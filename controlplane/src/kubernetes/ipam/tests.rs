use shunt_api::address_pool::Selector;

use super::*;
use crate::kubernetes::facts::{Family, FamilyPolicy, Ingress, Port};

mod families;
mod following;
mod requests;
mod sharing;
mod taken;

const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// A cluster, its pools and who gives addresses.
#[derive(Default)]
struct World {
    pools: Vec<AddressPool>,
    /// There is another pool, which is wrong.
    refuses: bool,
    facts: Facts,
    ipam: Ipam,
}

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "default".into(), name: name.into() }
}

fn pool(name: &str, ranges: &[&str]) -> AddressPool {
    AddressPool::new(name, ranges.iter().map(|range| range.parse().unwrap()).collect())
}

fn labels(name: &str, value: &str) -> Selector {
    Selector::from([(name.into(), value.into())])
}

fn port(protocol: &str, number: u16) -> Port {
    Port {
        name: String::new(),
        protocol: None,
        protocol_name: protocol.into(),
        port: number,
        node_port: None,
    }
}

fn ingress(address: &str) -> Ingress {
    Ingress { ip: Some(address.parse().unwrap()), ip_mode: None, ports: vec![] }
}

impl World {
    fn new(pools: Vec<AddressPool>) -> Self {
        Self { pools, ..Self::default() }
    }

    /// A Service of IPv4 with TCP port 80, younger than all there are.
    fn add(&mut self, name: &str) -> &mut Service {
        let age = i64::try_from(self.facts.services.len()).unwrap();
        let service = Service {
            uid: format!("{name}-{age}"),
            created_s: age,
            families: vec![Family::V4],
            ports: vec![port("TCP", 80)],
            ..Service::default()
        };
        self.facts.services.entry(key(name)).insert_entry(service).into_mut()
    }

    fn service(&mut self, name: &str) -> &mut Service {
        self.facts.services.get_mut(&key(name)).unwrap()
    }

    fn annotate(&mut self, name: &str, annotation: &str, value: &str) {
        self.service(name).annotations.insert(annotation.into(), value.into());
    }

    /// All Services are ours.
    fn assign(&mut self) -> BTreeMap<ServiceKey, Allocation> {
        let offer = Offer { pools: &self.pools, is_whole: !self.refuses };
        self.ipam.assign(offer, &self.facts, self.facts.services.keys())
    }

    /// As `name=address,address name=…`, in the order of the names.
    fn addresses(&mut self) -> String {
        let shown = |(key, allocation): (ServiceKey, Allocation)| {
            format!("{}={}", key.name, wish::words(&allocation.addresses).replace(", ", ","))
        };
        self.assign().into_iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    /// Of one Service: its problem, or nothing.
    fn problem(&mut self, name: &str) -> String {
        self.assign()[&key(name)].problem.as_ref().map(Refusal::to_string).unwrap_or_default()
    }

    /// The leader writes every status and another box takes over.
    fn restart(&mut self) {
        for (key, allocation) in self.assign() {
            let ingress = allocation.addresses.iter().map(|address| ingress(&address.to_string())).collect();
            self.facts.services.get_mut(&key).unwrap().ingress = ingress;
        }
        self.ipam = Ipam::default();
    }
}

fn public() -> World {
    World::new(vec![pool("public", &["198.51.100.0/29"])])
}

#[test]
fn the_oldest_gets_the_lowest_address_that_is_no_edge() {
    let mut world = public();
    for name in ["c", "b", "a"] {
        world.add(name);
    }
    assert_eq!(world.addresses(), "a=198.51.100.3 b=198.51.100.2 c=198.51.100.1");
    let allocation = &world.assign()[&key("a")];
    assert_eq!((&allocation.problem, &allocation.moved), (&None, &None));
}

#[test]
fn nothing_but_its_own_wish_moves_a_service() {
    let mut world = public();
    for name in ["a", "b", "c"] {
        world.add(name);
    }
    world.assign();
    world.facts.services.remove(&key("a"));
    let kept = "b=198.51.100.2 c=198.51.100.3";
    assert_eq!(world.addresses(), kept);
    world.service("b").ports = vec![port("UDP", 53), port("TCP", 80)];
    world.service("b").local = true;
    world.service("c").labels = labels("team", "web");
    assert_eq!(world.addresses(), kept, "other ports, policies and labels");
    world.pools.insert(0, AddressPool { priority: 9, ..pool("first", &["203.0.113.0/24"]) });
    assert_eq!(world.addresses(), kept, "a better pool");
    world.pools[1].service_selector = labels("team", "db");
    world.pools[1].auto_assign = false;
    assert_eq!(world.addresses(), kept, "a restriction says who is given an address, not who loses one");
    world.restart();
    assert_eq!(world.addresses(), kept, "another leader");
    world.add("d");
    assert_eq!(world.addresses(), format!("{kept} d=203.0.113.1"));
}

#[test]
fn who_is_not_ours_any_more_has_nothing() {
    let mut world = public();
    world.add("a");
    world.add("b");
    world.assign();
    let ours = [key("b"), key("gone")];
    let allocations = world.ipam.assign(Offer { pools: &world.pools, is_whole: true }, &world.facts, &ours);
    assert_eq!(allocations.into_keys().collect::<Vec<_>>(), [key("b")]);
    world.add("c").created_s = -1;
    assert_eq!(world.addresses(), "a=198.51.100.3 b=198.51.100.2 c=198.51.100.1");
}

#[test]
fn a_new_service_of_the_same_name_is_another_one() {
    let mut world = public();
    world.add("a");
    world.add("b");
    world.assign();
    let again = world.service("a");
    again.uid = "other".into();
    again.created_s = 9;
    world.annotate("b", ADDRESSES, "198.51.100.1");
    assert_eq!(world.addresses(), "a=198.51.100.2 b=198.51.100.1");
}

/// Its finalizer still has to be removed, and until then packets reach it.
#[test]
fn a_service_that_is_being_deleted_keeps_its_address_and_gets_none() {
    let mut world = public();
    world.add("a");
    world.assign();
    world.service("a").deleting = true;
    world.add("b").deleting = true;
    assert_eq!(world.addresses(), "a=198.51.100.1 b=");
    assert_eq!(world.problem("b"), "");
}

#[test]
fn of_two_that_claim_an_address_the_older_has_it() {
    let mut world = public();
    for name in ["a", "b", "c"] {
        world.add(name).ingress = vec![ingress("198.51.100.5")];
    }
    world.service("a").created_s = 7;
    let allocations = world.assign();
    let shown: Vec<_> = allocations.values().map(|allocation| allocation.addresses[0].to_string()).collect();
    assert_eq!(shown, ["198.51.100.2", "198.51.100.5", "198.51.100.1"]);
    let moved = allocations[&key("a")].moved.as_ref().unwrap().to_string();
    let expected = "AddressInUse: 198.51.100.5 was left to default/b, which is older and does not share it with this \
                    Service";
    assert_eq!((moved.as_str(), &allocations[&key("b")].moved), (expected, &None));
    assert!(world.assign().values().all(|allocation| allocation.moved.is_none()), "told once");
}

#[test]
fn an_address_that_no_pool_has_any_more_is_left() {
    let mut world = public();
    world.add("a");
    world.add("b").ingress = vec![ingress("198.51.100.6"), Ingress { ip: None, ..ingress("::1") }];
    assert_eq!(world.addresses(), "a=198.51.100.1 b=198.51.100.6");
    world.pools = vec![pool("public", &["198.51.100.4-198.51.100.6"])];
    let allocations = world.assign();
    assert_eq!(allocations[&key("a")].addresses[0].to_string(), "198.51.100.4");
    let left = "AddressNotInPool: 198.51.100.1 was left, because no pool has it any more";
    assert_eq!(allocations[&key("a")].moved.as_ref().unwrap().to_string(), left);
    assert_eq!(allocations[&key("b")].addresses[0].to_string(), "198.51.100.6");
    world.pools.clear();
    assert_eq!(world.addresses(), "a= b=");
    let none = "NoPool: no pool gives this Service an IPv4 address by itself; add a pool, or let one that there is \
                serve it";
    assert_eq!(world.problem("b"), none);
    world.pools = vec![pool("other", &["203.0.113.0/24"])];
    assert_eq!(world.addresses(), "a=203.0.113.1 b=203.0.113.2");
}

#[test]
fn the_oldest_that_waits_gets_what_becomes_free() {
    let mut world = World::new(vec![pool("public", &["198.51.100.0/31", "198.51.100.8"])]);
    for name in ["a", "b", "c", "d"] {
        world.add(name);
    }
    world.service("d").created_s = -1;
    assert_eq!(world.addresses(), "a=198.51.100.8 b= c= d=198.51.100.1");
    let expected = "PoolExhausted: pool `public` is exhausted: all its 2 IPv4 addresses are in use; the next one that \
                    is free goes to whoever waits longest";
    assert_eq!(world.problem("c"), expected);
    world.facts.services.remove(&key("a"));
    assert_eq!(world.addresses(), "b=198.51.100.8 c= d=198.51.100.1");
    world.pools.push(pool("more", &["203.0.113.7"]));
    assert_eq!(world.addresses(), "b=198.51.100.8 c=203.0.113.7 d=198.51.100.1");
    world.add("e");
    let both = "PoolExhausted: pools `more`, `public` are exhausted: all their 3 IPv4 addresses are in use; the next \
                one that is free goes to whoever waits longest";
    assert_eq!(world.problem("e"), both);
}

#[test]
fn pools_are_tried_restricted_ones_first_then_by_priority_then_by_name() {
    let at = |name: &str, third: u8| pool(name, &[&format!("198.51.{third}.0/24")]);
    let general = |priority| AddressPool { priority, ..at("general", 1) };
    let web = AddressPool { service_selector: labels("team", "web"), ..at("web", 2) };
    let here = AddressPool { namespaces: vec!["default".into()], priority: 1, ..at("here", 3) };
    let live = AddressPool { namespace_selector: labels("stage", "live"), ..at("live", 4) };
    let elsewhere = AddressPool { namespaces: vec!["shop".into()], priority: 99, ..at("elsewhere", 5) };
    let spare = AddressPool { auto_assign: false, priority: 99, ..at("spare", 6) };
    let cases = [
        (vec![at("b", 8), at("a", 7)], "a"),
        (vec![at("a", 7), general(1)], "general"),
        (vec![general(9), web.clone()], "web"),
        (vec![web, here], "here"),
        (vec![live, general(9)], "live"),
        (vec![elsewhere.clone(), spare.clone(), general(0)], "general"),
    ];
    for (pools, expected) in cases {
        let mut world = World::new(pools);
        world.facts.namespaces.insert("default".into(), labels("stage", "live"));
        world.add("a").labels = labels("team", "web");
        let given = world.assign()[&key("a")].addresses[0];
        let pool = world.pools.iter().find(|pool| pool.contains(given)).unwrap();
        assert_eq!(pool.name, expected);
    }
    let mut world = World::new(vec![elsewhere, spare]);
    world.add("a");
    assert!(world.problem("a").starts_with("NoPool: no pool gives this Service an IPv4 address by itself; "));
}

/// Pools that overlap are refused where they are written; should they come here, no address is given twice.
#[test]
fn overlapping_pools_give_an_address_once() {
    let mut world =
        World::new(vec![pool("a", &["198.51.100.1-198.51.100.2"]), pool("b", &["198.51.100.0/30"])]);
    for name in ["a", "b", "c"] {
        world.add(name);
        world.annotate(name, POOL, "b");
    }
    let given = "a=198.51.100.1 b=198.51.100.2 c=198.51.100.3";
    assert_eq!((world.addresses().as_str(), world.addresses().as_str()), (given, given));
}

/// Were every address looked at, this would not end.
#[test]
fn thousands_of_services_get_addresses_of_large_pools() {
    let mut world = World::new(vec![pool("public", &["10.0.0.0/8", "2001:db8::/64"])]);
    for number in 0..10_000 {
        let service = world.add(&format!("s{number}"));
        service.families = BOTH.into();
        service.family_policy = FamilyPolicy::RequireDualStack;
    }
    let first = world.assign();
    let distinct: BTreeSet<IpAddr> =
        first.values().flat_map(|allocation| allocation.addresses.clone()).collect();
    assert_eq!(distinct.len(), 20_000);
    assert_eq!(world.assign(), first);
}
