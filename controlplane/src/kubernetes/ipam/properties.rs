//! What holds whatever happens to Services and pools.

use proptest::prelude::*;
use proptest::sample::select;
use shunt_api::address_pool::Selector;

use super::*;
use crate::kubernetes::facts::{Family, FamilyPolicy, Ingress, Port};

/// So few pools and addresses that Services get in each other's way.
const RANGES: [&str; 6] = [
    "198.51.100.0-198.51.100.2",
    "198.51.100.4/31",
    "203.0.113.7",
    "2001:db8::/126",
    "2001:db8:1::/64",
    "192.0.2.0/29",
];

fn pools() -> impl Strategy<Value = Vec<AddressPool>> {
    let pool = (any::<[bool; 6]>(), prop::bool::weighted(0.8), 0..3_u32, prop::bool::weighted(0.2));
    let made = prop::collection::vec(pool, 0..4);
    made.prop_map(|made| {
        let mut left = RANGES.to_vec();
        let pool = |(number, (wants, auto_assign, priority, restricted)): (usize, ([bool; 6], _, _, _))| {
            let takes = |range: &&str| wants[RANGES.iter().position(|other| other == range).unwrap()];
            let (ranges, rest): (Vec<&str>, Vec<&str>) = left.iter().copied().partition(takes);
            left = rest;
            let ranges = ranges.into_iter().map(|range| range.parse().unwrap()).collect();
            let service_selector =
                if restricted { Selector::from([("team".into(), "web".into())]) } else { Selector::new() };
            AddressPool {
                auto_assign,
                priority,
                service_selector,
                ..AddressPool::new(format!("p{number}"), ranges)
            }
        };
        made.into_iter().enumerate().map(pool).collect()
    })
}

fn family_choice() -> impl Strategy<Value = (Vec<Family>, FamilyPolicy)> {
    let policies = [FamilyPolicy::SingleStack, FamilyPolicy::PreferDualStack, FamilyPolicy::RequireDualStack];
    let families = [[Family::V4, Family::V6], [Family::V6, Family::V4]];
    (select(families.to_vec()).prop_map(Vec::from), select(policies.to_vec()))
}

fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    let addresses = [
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.5",
        "2001:db8::1",
        "203.0.113.7,2001:db8::2",
        "no",
        "10.0.0.1",
    ];
    let maybe =
        |probability, values: &[&'static str]| prop::option::weighted(probability, select(values.to_vec()));
    (maybe(0.3, &addresses), maybe(0.2, &["p0", "p1", "p9"]), maybe(0.5, &["x", "y"])).prop_map(
        |(addresses, pool, share)| {
            let all = [(ADDRESSES, addresses), (POOL, pool), (SHARE, share)];
            let written = |(name, value): (&str, Option<&str>)| Some((name.to_owned(), value?.to_owned()));
            all.into_iter().filter_map(written).collect()
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    let ports = prop::collection::btree_set((select(vec!["TCP", "UDP"]), 80..83_u16), 1..3);
    let status =
        prop::collection::vec(select(vec!["198.51.100.1", "198.51.100.2", "2001:db8::1", "10.0.0.1"]), 0..3);
    (0..9_i64, family_choice(), annotations(), ports, status, any::<bool>(), prop::bool::weighted(0.1))
        .prop_map(|(created_s, (families, family_policy), annotations, ports, status, web, deleting)| {
            Service {
                created_s,
                families,
                family_policy,
                annotations,
                deleting,
                labels: if web { Selector::from([("team".into(), "web".into())]) } else { Selector::new() },
                ports: ports
                    .into_iter()
                    .map(|(protocol, port)| Port {
                        name: String::new(),
                        protocol: None,
                        protocol_name: protocol.into(),
                        port,
                        node_port: None,
                    })
                    .collect(),
                ingress: status
                    .into_iter()
                    .map(|address| Ingress { ip: address.parse().ok(), ip_mode: None, ports: vec![] })
                    .collect(),
                ..Service::default()
            }
        })
}

fn facts() -> impl Strategy<Value = Facts> {
    prop::collection::vec(service(), 0..12).prop_map(|services| {
        let named =
            |(number, service)| (ServiceKey { namespace: "n".into(), name: format!("s{number}") }, service);
        Facts { services: services.into_iter().enumerate().map(named).collect(), ..Facts::default() }
    })
}

fn assign(ipam: &mut Ipam, pools: &[AddressPool], facts: &Facts) -> BTreeMap<ServiceKey, Allocation> {
    ipam.assign(Offer { pools, is_whole: true }, facts, facts.services.keys())
}

/// All but what is told once.
fn lasting(allocations: &BTreeMap<ServiceKey, Allocation>) -> BTreeMap<&ServiceKey, Allocation> {
    allocations.iter().map(|(key, given)| (key, Allocation { moved: None, ..given.clone() })).collect()
}

/// Whether two Services may have the same address.
fn may_share(one: &Service, other: &Service) -> bool {
    let share = one.annotations.get(SHARE);
    let ports = |service: &Service| -> BTreeSet<(String, u16)> {
        service.ports.iter().map(|port| (port.protocol_name.clone(), port.port)).collect()
    };
    share.is_some() && share == other.annotations.get(SHARE) && ports(one).is_disjoint(&ports(other))
}

/// What holds of every result.
fn check(pools: &[AddressPool], facts: &Facts, allocations: &BTreeMap<ServiceKey, Allocation>) {
    let mut users: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
    for (key, given) in allocations {
        let service = &facts.services[key];
        let families: Vec<Family> = given.addresses.iter().map(|address| Family::of(*address)).collect();
        let wanted = match service.family_policy {
            FamilyPolicy::SingleStack => &service.families[..1],
            _ => &service.families[..],
        };
        assert!(
            families.iter().eq(wanted.iter().filter(|family| families.contains(family))),
            "{key}: {given:?}"
        );
        let lacks = given.addresses.is_empty() && !service.deleting;
        assert!(!lacks || given.problem.is_some(), "{key} has nothing and nobody says why");
        for address in &given.addresses {
            assert!(pools.iter().any(|pool| pool.contains(*address)), "{key} has {address} of no pool");
            for other in users.entry(*address).or_default().iter() {
                assert!(may_share(service, other), "{address} given twice: {service:?} {other:?}");
            }
            users.entry(*address).or_default().push(service);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_given_twice_and_asking_again_changes_nothing(
        pools in pools(), facts in facts(), later in facts(), other in pools(),
    ) {
        let mut ipam = Ipam::default();
        for (pools, facts) in [(&pools, &facts), (&pools, &later), (&other, &later), (&other, &facts)] {
            let first = assign(&mut ipam, pools, facts);
            check(pools, facts, &first);
            let again = assign(&mut ipam, pools, facts);
            prop_assert_eq!(lasting(&first), lasting(&again));
            prop_assert!(again.values().all(|given| given.moved.is_none()));
        }
    }

    /// The status is all that another leader needs. What one has left another may get once no status has it.
    #[test]
    fn another_leader_gives_the_same(pools in pools(), mut facts in facts()) {
        let mut ipam = Ipam::default();
        let mut before = assign(&mut ipam, &pools, &facts);
        for rounds in 0.. {
            for (key, given) in &before {
                let ingress = |address: &IpAddr| Ingress { ip: Some(*address), ip_mode: None, ports: vec![] };
                facts.services.get_mut(key).unwrap().ingress = given.addresses.iter().map(ingress).collect();
            }
            let after = assign(&mut ipam, &pools, &facts);
            check(&pools, &facts, &after);
            if lasting(&before) == lasting(&after) {
                break;
            }
            prop_assert!(rounds < 24, "it never settles: {:?} {:?}", before, after);
            before = after;
        }
        let after = assign(&mut Ipam::default(), &pools, &facts);
        prop_assert_eq!(lasting(&before), lasting(&after));
    }

    /// Nobody gets what another shows that has it no more.
    #[test]
    fn what_is_left_is_nobodys_while_it_is_shown(pools in pools(), mut facts in facts()) {
        let mut ipam = Ipam::default();
        let before = assign(&mut ipam, &pools, &facts);
        for service in facts.services.values_mut() {
            service.annotations.remove(ADDRESSES);
        }
        let after = assign(&mut ipam, &pools, &facts);
        for (key, given) in &after {
            for address in given.addresses.iter().filter(|address| !before[key].addresses.contains(address)) {
                let left = facts.services.iter().find(|(other, service)| {
                    let shows = service.ingress.iter().any(|ingress| ingress.ip == Some(*address));
                    *other != key && shows && !after[*other].addresses.contains(address)
                });
                prop_assert!(left.is_none(), "{} got {}, which {:?} shows", key, address, left);
            }
        }
    }

    /// Others keep what they have, unless they waited for what became free.
    #[test]
    fn removing_a_service_takes_nothing_from_others(pools in pools(), mut facts in facts(), which in any::<prop::sample::Index>()) {
        let mut ipam = Ipam::default();
        let before = assign(&mut ipam, &pools, &facts);
        if !before.is_empty() {
            facts.services.remove(*which.get(&before.keys().collect::<Vec<_>>()));
        }
        for (key, after) in assign(&mut ipam, &pools, &facts) {
            let before = &before[&key];
            let kept = before.addresses.iter().all(|address| after.addresses.contains(address));
            prop_assert!(kept || before.problem.is_some(), "{} {:?} {:?}", key, before, after);
            prop_assert!(before.addresses.len() <= after.addresses.len());
        }
    }

    #[test]
    fn the_order_of_pools_and_services_does_not_matter(
        (pools, shuffled) in pools().prop_flat_map(|pools| (Just(pools.clone()), Just(pools).prop_shuffle())),
        facts in facts(),
    ) {
        let one = assign(&mut Ipam::default(), &pools, &facts);
        let backwards = facts.services.keys().rev();
        prop_assert_eq!(one, Ipam::default().assign(Offer { pools: &shuffled, is_whole: true }, &facts, backwards));
    }
}
