//! The life of a Service as tables and tales: in `world.rs` is a small double of the API, in `converge.rs` whatever else
//! may happen.

use super::ownership::FINALIZER;
use super::status::{ADDRESS_ALLOCATED, PROGRAMMED};
use super::*;
use crate::kubernetes::facts::{Family, Ingress};
use shunt_api::config::{LeftOut, Part};
use world::{CLASS, NOW, World, ip, port, reporter, service};

mod converge;
mod world;

const START: &str = "(EnsuringLoadBalancer) finalizer status[203.0.113.10] (EnsuredLoadBalancer)";
const END: &str = "(DeletingLoadBalancer) -status -finalizer (DeletedLoadBalancer)";

/// A Service that is served, with what was told of it forgotten.
fn served(service: Service) -> World {
    let mut world = World::new(service);
    world.settle();
    world
}

#[test]
fn a_service_lives_from_its_finalizer_to_its_release() {
    let mut world = World::new(service());
    assert_eq!(world.settle(), START);
    assert_eq!(world.condition(PROGRAMMED), (true, "Programmed"));
    assert_eq!(world.condition(ADDRESS_ALLOCATED), (true, "Allocated"));
    world.service.deleting = true;
    assert_eq!(world.settle(), END);
    assert!(!world.service.has_finalizer && world.service.annotations.is_empty());
}

#[test]
fn nothing_is_shown_before_the_dataplane_has_it_nor_released_while_it_has() {
    let mut world = World::new(service());
    for programmed in [None, Some(vec![]), Some(vec![ip("203.0.113.99")])] {
        world.programmed = programmed;
        while world.step() {}
        assert_eq!((&world.service.ingress, &world.service.conditions), (&vec![], &BTreeMap::new()));
    }
    world.overdue = true;
    while world.step() {}
    assert_eq!(world.service.ingress, []);
    assert_eq!(world.condition(PROGRAMMED), (false, "WaitingForDataplane"));
    world.settle();
    world.service.deleting = true;
    for programmed in [None, Some(vec![ip("203.0.113.10")]), Some(vec![ip("203.0.113.99")])] {
        world.programmed = programmed;
        while world.step() {}
        assert!(world.service.has_finalizer);
    }
    world.programmed = Some(vec![]);
    while world.step() {}
    assert!(!world.service.has_finalizer);
}

#[test]
fn a_restart_writes_and_tells_nothing() {
    let mut world =
        served(Service { annotations: [("shunt.dev/mode".into(), "x".into())].into(), ..service() });
    world.reporter = reporter();
    world.programmed = None;
    assert_eq!(world.look(), []);
    assert_eq!(world.settle(), "");
    world.nodes = 0;
    assert_eq!(world.settle(), "status[203.0.113.10] (UnAvailableLoadBalancer)");
    assert_eq!(world.condition(PROGRAMMED), (false, "UnAvailableLoadBalancer"));
    world.reporter = reporter();
    assert_eq!(world.settle(), "");
    world.nodes = 1;
    assert_eq!(world.settle(), "status[203.0.113.10] (EnsuredLoadBalancer)");
}

#[test]
fn a_dataplane_that_does_not_take_over_is_told_but_takes_no_address_away() {
    let mut world = served(service());
    (world.programmed, world.overdue) = (None, true);
    assert_eq!(world.look(), [], "nothing is known of it");
    world.programmed = Some(vec![]);
    while world.step() {}
    assert_eq!(world.condition(PROGRAMMED), (false, "WaitingForDataplane"));
    assert_eq!(world.service.ingress.len(), 1);
    assert_eq!(world.settle(), "status[203.0.113.10] status[203.0.113.10]", "and that it came back");
    assert_eq!(world.condition(PROGRAMMED), (true, "Programmed"));
}

#[test]
fn a_restart_in_the_middle_of_a_release_goes_on() {
    let mut world = served(service());
    world.service.deleting = true;
    world.reporter = reporter();
    assert_eq!(world.settle(), END);
}

#[test]
fn a_changed_type_releases_and_claims_again() {
    let mut world = served(service());
    world.retype(false, None);
    assert_eq!(world.settle(), END);
    world.retype(true, Some(CLASS));
    assert_eq!(world.settle(), START);
    // A class may change by way of another type; then it is somebody else's.
    world.retype(false, None);
    world.settle();
    world.retype(true, Some("other.example/lb"));
    assert_eq!(world.settle(), "");
}

#[test]
fn a_new_service_of_the_same_name_starts_anew() {
    let mut world = served(service());
    world.service = Service { uid: "u2".into(), ..service() };
    world.programmed = Some(vec![]);
    assert_eq!(world.settle(), START);
    assert_eq!(world.reporter.told.len(), 1);
}

// The cases of Kubernetes' own test/integration/service/loadbalancer_test.go.

#[test]
fn ports_without_node_ports_are_served_but_by_nat() {
    let without = vec![port("TCP", 80, None), port("TCP", 443, None)];
    let mut world = World::new(Service { ports: without.clone(), ..service() });
    assert_eq!(world.settle(), START);
    assert_eq!(world.service.ingress[0].ports, []);

    let annotations: BTreeMap<_, _> = [("shunt.dev/mode".to_owned(), "nat".to_owned())].into();
    let mut nat = World::new(Service { ports: without, annotations, ..service() });
    nat.settle();
    let error = || Some("shunt.dev/NoNodePort".to_owned());
    assert_eq!(nat.service.ingress[0].ports, [(80, "TCP".into(), error()), (443, "TCP".into(), error())]);
    assert_eq!(nat.condition(PROGRAMMED), (false, "NoNodePort"));
    // One is allocated: the address stays, the other port still has its error.
    nat.service.ports[0].node_port = Some(30_080);
    assert_eq!(nat.settle(), "status[203.0.113.10] (EnsuredLoadBalancer)");
    assert_eq!(nat.service.ingress[0].ports, [(80, "TCP".into(), None), (443, "TCP".into(), error())]);
    nat.service.ports[1].node_port = Some(30_443);
    assert_eq!(nat.settle(), "status[203.0.113.10] (UpdatedLoadBalancer)");
    assert_eq!(nat.service.ingress[0].ports, []);
    // And cleared again.
    nat.service.ports[0].node_port = None;
    nat.settle();
    assert_eq!(nat.service.ingress[0].ports[0], (80, "TCP".into(), error()));
}

#[test]
fn node_ports_that_come_and_go_mean_nothing_to_dr() {
    let mut world = served(service());
    world.service.ports[0].node_port = None;
    assert_eq!(world.settle(), "");
    world.service.ports[0].node_port = Some(30_099);
    assert_eq!(world.settle(), "");
}

#[test]
fn a_foreign_class_gets_no_action_ever() {
    let classes = [Some("other.example/lb"), None];
    for class in classes {
        for deleting in [false, true] {
            let foreign =
                Service { class: class.map(String::from), has_finalizer: true, deleting, ..service() };
            let mut world = World::new(foreign);
            assert_eq!(world.settle(), "", "{class:?}");
            assert!(world.service.has_finalizer && world.reporter.told.is_empty());
        }
    }
}

#[test]
fn a_service_without_class_is_the_default_ones() {
    let mut world = World::new(Service { class: None, ..service() });
    world.reporter.class.default_class = true;
    assert_eq!(world.settle(), START);
    world.reporter.class.default_class = false;
    assert_eq!(world.settle(), END);
}

#[test]
fn mixed_protocols_are_served_and_what_cannot_be_has_an_error() {
    let mut world =
        World::new(Service { ports: vec![port("TCP", 53, None), port("UDP", 53, None)], ..service() });
    assert_eq!(world.settle(), START);
    world.service.ports.push(port("SCTP", 53, None));
    assert_eq!(
        world.settle(),
        "status[203.0.113.10] (SyncLoadBalancerFailed) (UpdatedLoadBalancer)"
            .replace(" (UpdatedLoadBalancer)", "")
    );
    let errors: Vec<_> = world.service.ingress[0]
        .ports
        .iter()
        .map(|(_, name, error)| (name.as_str(), error.is_some()))
        .collect();
    assert_eq!(errors, [("TCP", false), ("UDP", false), ("SCTP", true)]);
}

#[test]
fn the_ip_mode_follows_the_mode() {
    for (mode, expected) in [("dr", "VIP"), ("ipip", "VIP"), ("nat", "Proxy")] {
        let annotations = [("shunt.dev/mode".to_owned(), mode.to_owned())].into();
        let world = served(Service { annotations, ..service() });
        assert_eq!(world.service.ingress[0].ip_mode.as_deref(), Some(expected), "{mode}");
    }
}

// Addresses.

#[test]
fn an_address_that_cannot_be_had_is_told_once() {
    let mut world = World::new(service());
    world.addresses.clear();
    world.problem = Some(Problem::new("PoolExhausted", "pool `a` has no free address; add a range"));
    assert_eq!(world.settle(), "(EnsuringLoadBalancer) finalizer status[] (SyncLoadBalancerFailed)");
    assert_eq!(world.condition(ADDRESS_ALLOCATED), (false, "PoolExhausted"));
    world.reporter = reporter();
    assert_eq!(world.settle(), "");
    world.addresses = vec![ip("203.0.113.10")];
    world.problem = None;
    assert_eq!(world.settle(), "status[203.0.113.10] (EnsuredLoadBalancer)");
}

#[test]
fn an_address_that_is_lost_is_shown_until_it_is_withdrawn() {
    let mut world = served(service());
    world.addresses.clear();
    world.problem = Some(Problem::new("NoPool", "no pool has 203.0.113.10; add one"));
    world.step();
    assert_eq!(world.service.ingress.len(), 1);
    world.settle();
    assert_eq!(world.service.ingress, []);
}

#[test]
fn without_an_address_or_a_reason_nothing_is_done() {
    let mut world = served(service());
    world.addresses.clear();
    assert_eq!(world.settle(), "");
}

#[test]
fn a_moved_address_is_shown_when_the_new_one_is_served() {
    let mut world = served(service());
    world.addresses = vec![ip("203.0.113.11")];
    world.moved =
        Some(Problem::new("AddressNotInPool", "203.0.113.10 was left, because no pool has it any more"));
    world.step();
    assert_eq!(world.service.ingress[0].ip, Some(ip("203.0.113.10")));
    assert_eq!(world.settle(), "(AddressNotInPool) status[203.0.113.11] (EnsuredLoadBalancer)");
}

#[test]
fn an_address_that_cannot_be_served_any_more_stays_on_record() {
    let nat: BTreeMap<_, _> = [("shunt.dev/mode".to_owned(), "nat".to_owned())].into();
    let mut world = World::new(Service { annotations: nat, ..service() });
    world.addresses.push(ip("2001:db8::10"));
    let shown = |world: &World| -> Vec<_> { world.service.ingress.iter().filter_map(|of| of.ip).collect() };
    world.settle();
    assert_eq!(shown(&world), [ip("203.0.113.10")], "there is no source for the other, and there was none");
    world.nat_families.push(Family::V6);
    world.settle();
    assert_eq!(shown(&world), world.addresses);
    for families in [vec![Family::V4], vec![]] {
        world.nat_families = families;
        world.settle();
        assert_eq!(shown(&world), world.addresses);
        assert_eq!(world.condition(PROGRAMMED), (false, "NoNatSource"));
    }
    // Another address was never served.
    world.addresses.remove(0);
    world.settle();
    assert_eq!(shown(&world), world.addresses);
    world.addresses = vec![ip("203.0.113.11")];
    world.settle();
    assert!(shown(&world).is_empty());
}

#[test]
fn a_second_family_is_added_behind_the_first() {
    let mut world = served(service());
    world.addresses.push(ip("2001:db8::10"));
    assert_eq!(world.settle(), "status[203.0.113.10,2001:db8::10] (EnsuredLoadBalancer)");
}

#[test]
fn a_headless_service_is_refused() {
    let mut world = World::new(Service { headless: true, ..service() });
    assert_eq!(world.settle(), "(EnsuringLoadBalancer) finalizer status[] (SyncLoadBalancerFailed)");
    assert_eq!(world.condition(ADDRESS_ALLOCATED), (false, "HeadlessService"));
}

// Transitions.

#[test]
fn changes_of_the_service_are_told_but_neither_pods_nor_nodes() {
    let mut world = served(service());
    world.service.ports[0].port = 81;
    // The dataplane is asked first, and what is shown needs no change.
    assert_eq!(world.settle(), "(UpdatedLoadBalancer)");
    for check in ["auto", "tcp"] {
        world.service.annotations.insert("shunt.dev/health-check".into(), check.into());
        world.settle();
        world.nodes += 1;
        assert_eq!(world.settle(), "", "they are those of thousands of Services");
    }
    world.service.source_ranges = vec!["192.0.2.0/24".into()];
    assert_eq!(world.settle(), "(UpdatedLoadBalancer)");
}

#[test]
fn a_wrong_annotation_is_told_and_served_by_the_default() {
    let mut world = served(service());
    world.service.annotations.insert("shunt.dev/mode".into(), "x".into());
    assert_eq!(world.look_for("InvalidAnnotation"), 1);
    assert_eq!(world.condition(PROGRAMMED), (true, "Programmed"));
    assert_eq!(world.look_for("InvalidAnnotation"), 0);
}

#[test]
fn an_unknown_annotation_is_told_once_and_counts_for_nothing() {
    let mut world = served(service());
    world.service.annotations.insert("shunt.dev/modus".into(), "nat".into());
    world.service.annotations.insert("example.net/mode".into(), "nat".into());
    assert_eq!(world.look_for("UnknownAnnotation"), 1);
    assert_eq!(world.look_for("UnknownAnnotation"), 0);
    let (told, _, message) = &world.service.conditions[PROGRAMMED];
    assert!(*told && message.contains("shunt.dev/modus is not known"), "{message}");
    assert!(message.ends_with("shunt.dev/on-down"), "not the mark: {message}");
}

#[test]
fn a_service_that_is_left_out_is_told_why_until_it_is_served() {
    let left = |name: &str, part| LeftOut { part, name: name.into(), reason: "taken".into() };
    let mut service = service();
    // With a check that is its own, it has a pool of its own.
    service.annotations.insert("shunt.dev/health-check".into(), "tcp".into());
    let mut world = World::new(service);
    world.left_out = vec![left("shop/web", Part::Service)];
    assert_eq!(world.settle(), "(EnsuringLoadBalancer) finalizer status[] (LeftOut)");
    assert_eq!(world.condition(PROGRAMMED), (false, "LeftOut"));
    assert_eq!(world.condition(ADDRESS_ALLOCATED), (true, "Allocated"));
    world.reporter = reporter();
    assert_eq!(world.settle(), "");
    world.left_out = vec![left("shop/web/v4", Part::Check)];
    assert_eq!(world.settle(), "(NotChecked) status[203.0.113.10] (EnsuredLoadBalancer)");
    assert_eq!(world.condition(PROGRAMMED), (true, "Programmed"));
    // It is served no longer, and what it shows stays.
    world.left_out = vec![left("shop/web", Part::Service)];
    assert_eq!(world.settle(), "(LeftOut) status[203.0.113.10]");
    assert_eq!(world.service.ingress.len(), 1);
}

#[test]
fn a_conflict_is_told_once_until_a_status_is_taken() {
    let mut world = served(service());
    assert!(world.reporter.conflict("u1").is_some_and(|event| event.warning));
    assert_eq!(world.reporter.conflict("u1"), None);
    world.reporter.written("u1");
    assert!(world.reporter.conflict("u1").is_some());
    assert_eq!(world.reporter.conflict("another"), None);
}

#[test]
fn a_lost_finalizer_or_mark_is_set_again() {
    let mut world = served(service());
    world.service.has_finalizer = false;
    assert_eq!(world.settle(), "(EnsuringLoadBalancer) finalizer");
    world.service.annotations.clear();
    assert_eq!(world.settle(), "finalizer");
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let mut world = served(service());
    world.service.condition_times.insert(PROGRAMMED.into(), "earlier".into());
    world.service.annotations.insert("shunt.dev/mode".into(), "ipip".into());
    world.settle();
    assert_eq!(world.service.condition_times[PROGRAMMED], "earlier");
    world.nodes = 0;
    world.settle();
    assert_eq!(world.service.condition_times[PROGRAMMED], NOW);
}

#[test]
fn what_is_equal_is_not_written() {
    let mut world =
        served(Service { ports: vec![port("TCP", 80, None), port("SCTP", 9, None)], ..service() });
    world.service.ingress[0].ports.reverse();
    world.service.ingress[0].ip_mode = None;
    assert_eq!(world.settle(), "");
    world.service.ingress[0].ip_mode = Some("Proxy".into());
    assert_eq!(world.settle(), "status[203.0.113.10]");
    world.service.ingress.push(Ingress { ip: None, ip_mode: None, ports: vec![] });
    assert_eq!(world.settle(), "status[203.0.113.10]");
}

#[test]
fn the_finalizer_is_the_one_that_kubernetes_knows() {
    assert_eq!(FINALIZER, "service.kubernetes.io/load-balancer-cleanup");
}
