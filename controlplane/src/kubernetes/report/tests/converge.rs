//! Whatever a Service is and becomes.

use proptest::prelude::*;

use super::super::ownership::MARK;
use super::super::*;
use super::world::{CLASS, World, ip, port, service};
use crate::kubernetes::facts::Ingress;

fn any_service() -> impl Strategy<Value = Service> {
    let class = prop::sample::select(vec![None, Some(CLASS), Some("other.example/lb")]);
    let mode = prop::sample::select(vec![None, Some("nat"), Some("ipip"), Some("?")]);
    let mark = prop::sample::select(vec![None, Some(CLASS), Some("other")]);
    let ports = prop::collection::vec(
        (prop::sample::select(vec!["TCP", "UDP", "SCTP"]), 1..9u16, any::<bool>()),
        0..3,
    );
    let ingress = prop::sample::select(vec![None, Some("203.0.113.10"), Some("198.51.100.1")]);
    (class, mode, mark, ports, ingress, any::<[bool; 5]>()).prop_map(
        |(class, mode, mark, ports, shown, [wants, deleting, has_finalizer, local, headless])| {
            let annotations = [("shunt.dev/mode", mode), (MARK, mark)];
            let annotation = |(name, value): (&str, Option<&str>)| Some((name.to_owned(), value?.to_owned()));
            let ports = ports
                .into_iter()
                .map(|(name, at, node_port)| port(name, at, node_port.then_some(30_000 + at)));
            let entry = |ip: &str| Ingress { ip: ip.parse().ok(), ip_mode: None, ports: vec![] };
            Service {
                wants_load_balancer: wants,
                class: class.map(String::from),
                annotations: annotations.into_iter().filter_map(annotation).collect(),
                ports: ports.collect(),
                ingress: shown.filter(|_| wants).map(entry).into_iter().collect(),
                deleting,
                has_finalizer,
                local,
                headless,
                ..service()
            }
        },
    )
}

fn any_addresses() -> impl Strategy<Value = (Vec<IpAddr>, Option<Problem>)> {
    let addresses = prop::sample::subsequence(vec!["203.0.113.10", "2001:db8::10"], 0..=2);
    let problem =
        prop::sample::select(vec![None, Some(Problem::new("PoolExhausted", "none is free; add a range"))]);
    (addresses, problem).prop_map(|(addresses, problem)| (addresses.into_iter().map(ip).collect(), problem))
}

proptest! {
    /// Whatever the Service is and becomes: acting comes to an end, then a restart has nothing to say, and a finalizer
    /// is where it should be. What is another controller's stays as it is.
    #[test]
    fn always_converges(
        steps in prop::collection::vec((any_service(), any_addresses(), 0..3u8, any::<[bool; 2]>()), 1..4),
        default_class in any::<bool>(),
    ) {
        let mut world = World::new(Service::default());
        world.reporter.class.default_class = default_class;
        for (wanted, (addresses, problem), nodes, [unknown, overdue]) in steps {
            world.service = wanted;
            (world.addresses, world.problem, world.nodes) = (addresses, problem, nodes);
            world.overdue = overdue;
            if unknown {
                world.programmed = None;
            }
            let before = world.service.clone();
            world.settle();
            let class = world.reporter.class.clone();
            let foreign = before.class.as_ref().is_some_and(|name| name != CLASS);
            if foreign && before.annotations.get(MARK).is_none_or(|mark| mark != CLASS) {
                prop_assert_eq!(&world.service, &before);
            }
            let ours = is_ours(&world.service, &class);
            if ours {
                prop_assert_eq!(world.service.has_finalizer, !world.service.deleting);
            }
            prop_assert!(!needs_cleanup(&world.service, &class));
            let nat_ip_mode = world.reporter.nat_ip_mode;
            world.reporter = Reporter::new(class, nat_ip_mode);
            prop_assert_eq!(world.look(), []);
        }
    }
}
