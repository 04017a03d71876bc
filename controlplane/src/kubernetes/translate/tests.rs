use proptest::prelude::*;
use shunt_api::config::OnDown;

use super::*;
use crate::kubernetes::facts::{Endpoint, Node};

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".into(), name: name.into() }
}

fn port(protocol: &str, port: u16, node_port: Option<u16>) -> Port {
    let known = match protocol {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    };
    Port { name: String::new(), protocol: known, protocol_name: protocol.into(), port, node_port }
}

fn service() -> Service {
    Service {
        wants_load_balancer: true,
        families: vec![Family::V4, Family::V6],
        ports: vec![port("TCP", 80, Some(30_080)), port("UDP", 80, Some(30_081))],
        ..Service::default()
    }
}

/// Two nodes of both families, and one Service `shop/web`.
fn facts(service: Service) -> Facts {
    let node = |number: u8| Node {
        addresses: vec![
            format!("10.0.0.{number}").parse().unwrap(),
            format!("2001:db8:1::{number}").parse().unwrap(),
        ],
        ..Node::default()
    };
    Facts {
        services: [(key("web"), service)].into(),
        nodes: [("n1".to_owned(), node(1)), ("n2".to_owned(), node(2))].into(),
        ..Facts::default()
    }
}

fn settings() -> Settings {
    Settings { nat_families: [Family::V4, Family::V6].into(), ..Settings::default() }
}

fn translated(service: Service, vips: &[&str], settings: &Settings) -> Translated {
    let vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
    let addresses = [(key("web"), vips)].into();
    translate(&facts(service), &addresses, settings).remove(&key("web")).expect("it has addresses")
}

fn ports_of(translated: &Translated) -> Vec<String> {
    let services = &translated.wanted.services;
    services.iter().flat_map(|service| &service.ports).map(PortMapping::to_string).collect()
}

fn reasons(translated: &Translated) -> Vec<&str> {
    translated.problems.iter().map(|problem| problem.reason.as_str()).collect()
}

fn annotated(name: &str, value: &str) -> Service {
    Service { annotations: [(name.to_owned(), value.to_owned())].into(), ..service() }
}

#[test]
fn a_service_gets_a_pool_per_family() {
    let both = translated(service(), &["203.0.113.10", "2001:db8::10"], &settings());
    let pools: Vec<_> = both.wanted.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(pools, ["nodes:dr/v4/keep", "nodes:dr/v6/keep"]);
    let services: Vec<_> =
        both.wanted.services.iter().map(|s| (s.name.as_str(), s.pool, s.vips[0].is_ipv4())).collect();
    assert_eq!(services, [("shop/web", 0, true), ("shop/web/v6", 1, false)]);
    let addresses = |pool: usize| -> Vec<_> {
        both.wanted.pools[pool].backends.iter().map(|backend| backend.address.to_string()).collect()
    };
    assert_eq!(addresses(0), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(addresses(1), ["2001:db8:1::1", "2001:db8:1::2"]);
    assert_eq!(both.vips().len(), 2);
    assert_eq!(reasons(&both), [""; 0]);
}

#[test]
fn names_stay_when_a_family_is_added() {
    let settings = Settings { cluster: Some("prod".into()), ..settings() };
    let names = |vips: &[&str]| -> Vec<_> {
        translated(service(), vips, &settings)
            .wanted
            .services
            .into_iter()
            .map(|service| service.name)
            .collect()
    };
    assert_eq!(names(&["2001:db8::10"]), ["prod/shop/web/v6"]);
    assert_eq!(names(&["203.0.113.10"]), ["prod/shop/web"]);
    assert_eq!(names(&["203.0.113.10", "2001:db8::10"]), ["prod/shop/web", "prod/shop/web/v6"]);
}

#[test]
fn the_mode_decides_over_ports() {
    for (mode, expected) in [
        ("dr", ["tcp/80", "udp/80"]),
        ("ipip", ["tcp/80", "udp/80"]),
        ("nat", ["tcp/80:30080", "udp/80:30081"]),
    ] {
        let translated = translated(annotated(MODE, mode), &["203.0.113.10"], &settings());
        assert_eq!(ports_of(&translated), expected, "{mode}");
        assert_eq!(translated.mode.to_string(), mode);
        let backends = &translated.wanted.pools[0].backends;
        assert!(backends.iter().all(|backend| backend.mode == translated.mode));
    }
}

#[test]
fn an_unknown_mode_is_named_and_the_default_holds() {
    let settings = Settings { mode: Mode::Ipip, ..settings() };
    let translated = translated(annotated(MODE, "dsr"), &["203.0.113.10"], &settings);
    assert_eq!(translated.mode, Mode::Ipip);
    assert_eq!(reasons(&translated), ["InvalidAnnotation"]);
    let message = &translated.problems[0].message;
    assert!(message.contains("shunt.dev/mode") && message.contains("dr, ipip, nat"), "{message}");
}

#[test]
fn ports_that_cannot_be_served_leave_the_others() {
    let ports = vec![port("TCP", 80, None), port("SCTP", 80, Some(30_082)), port("UDP", 53, Some(30_053))];
    for (mode, served, errors) in [
        ("dr", &["tcp/80", "udp/53"][..], &[("SCTP", PROTOCOL_NOT_SUPPORTED)][..]),
        ("nat", &["udp/53:30053"], &[("TCP", NO_NODE_PORT), ("SCTP", PROTOCOL_NOT_SUPPORTED)]),
    ] {
        let service = Service { ports: ports.clone(), ..annotated(MODE, mode) };
        let translated = translated(service, &["203.0.113.10"], &settings());
        assert_eq!(ports_of(&translated), served, "{mode}");
        let found: Vec<_> = translated.port_errors.iter().map(|e| (e.protocol.as_str(), e.error)).collect();
        assert_eq!(found, errors, "{mode}");
        assert_eq!(translated.problems.len(), errors.len(), "each is told");
    }
}

#[test]
fn a_service_without_a_port_that_can_be_served_has_no_pool() {
    let service = Service { ports: vec![port("TCP", 80, None)], ..annotated(MODE, "nat") };
    let translated = translated(service, &["203.0.113.10"], &settings());
    assert_eq!(translated.wanted, Wanted::default());
    assert_eq!(translated.port_errors[0].error, "shunt.dev/NoNodePort");
}

#[test]
fn nat_needs_a_source_of_the_family() {
    let settings = Settings { nat_families: [Family::V4].into(), ..settings() };
    let translated = translated(annotated(MODE, "nat"), &["203.0.113.10", "2001:db8::10"], &settings);
    assert_eq!(translated.vips(), ["203.0.113.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(reasons(&translated), ["NoNatSource"]);
}

#[test]
fn a_headless_service_is_refused() {
    let translated = translated(Service { headless: true, ..service() }, &["203.0.113.10"], &settings());
    assert_eq!(translated.wanted, Wanted::default());
    assert_eq!(reasons(&translated), ["HeadlessService"]);
}

#[test]
fn policies_are_taken_over() {
    let service = Service {
        affinity_s: Some(10_800),
        source_ranges: vec!["192.0.2.9/24".into(), "x".into()],
        ..service()
    };
    let translated = translated(service, &["203.0.113.10", "2001:db8::10"], &settings());
    for service in &translated.wanted.services {
        assert_eq!(service.client_ip_affinity_s, Some(10_800));
        assert_eq!(service.source_ranges, ["192.0.2.0/24".parse().unwrap()]);
    }
    assert_eq!(reasons(&translated), ["InvalidSourceRange", "NoSourceRangeOfFamily"]);
}

#[test]
fn flows_of_a_node_that_fails_its_check_stay() {
    let translated = translated(service(), &["203.0.113.10"], &settings());
    let pool = &translated.wanted.pools[0];
    assert_eq!((pool.on_down, pool.check.is_some()), (OnDown::Keep, true));
}

#[test]
fn without_nodes_the_vip_is_still_served() {
    let mut facts = facts(service());
    facts.nodes.values_mut().for_each(|node| node.exclude_label = Some(String::new()));
    let addresses: Addresses = [(key("web"), vec!["203.0.113.10".parse().unwrap()])].into();
    let translated = translate(&facts, &addresses, &settings());
    assert_eq!(reasons(&translated[&key("web")]), [UNAVAILABLE]);
    assert_eq!(translated[&key("web")].vips().len(), 1);
    let included = Settings { include_excluded_nodes: true, ..settings() };
    assert_eq!(reasons(&translate(&facts, &addresses, &included)[&key("web")]), [""; 0]);
}

#[test]
fn addresses_of_an_unknown_service_are_nothing() {
    let addresses = [(key("gone"), vec!["203.0.113.10".parse().unwrap()])].into();
    assert_eq!(translate(&facts(service()), &addresses, &settings()), BTreeMap::new());
}

#[test]
fn services_that_ask_the_same_of_all_nodes_have_one_pool() {
    let mut facts = facts(service());
    let others = [
        ("api", service()),
        ("often", annotated("shunt.dev/health-interval", "500ms")),
        ("ports", annotated("shunt.dev/health-check", "tcp")),
        ("unchecked", annotated("shunt.dev/health-check", "none")),
        ("datagrams", Service { ports: vec![port("UDP", 53, None)], ..service() }),
        ("tunnelled", annotated("shunt.dev/mode", "ipip")),
        ("local", Service { local: true, ..service() }),
    ];
    facts.services.extend(others.map(|(name, service)| (key(name), service)));
    let vip = |at: usize| vec![IpAddr::from([203, 0, 113, at as u8 + 1])];
    let addresses = facts.services.keys().enumerate().map(|(at, key)| (key.clone(), vip(at))).collect();
    for (cluster, prefix) in [(None, ""), (Some("prod".to_owned()), "prod/")] {
        let translated = translate(&facts, &addresses, &Settings { cluster, ..settings() });
        let merged = merged(translated.values());
        let pool_of = |service: &str| {
            let name = format!("{prefix}shop/{service}");
            let service = merged.services.iter().find(|of| of.name == name).unwrap();
            merged.pools[service.pool].name.strip_prefix(prefix).unwrap()
        };
        for (service, pool) in [
            ("web", "nodes:dr/v4/keep"),
            ("api", "nodes:dr/v4/keep"),
            (
                "often",
                "nodes:dr/v4/keep (http GET /healthz port 10256 every 500ms, timeout 500ms, rise 2, fall 3, via direct)",
            ),
            ("ports", "shop/ports/v4"),
            ("unchecked", "nodes:dr/v4/keep (no check)"),
            ("datagrams", "nodes:dr/v4/rehash"),
            ("tunnelled", "nodes:ipip/v4/keep"),
            ("local", "shop/local/v4"),
        ] {
            assert_eq!(pool_of(service), pool);
        }
        let names: HashSet<_> = merged.pools.iter().map(|pool| &pool.name).collect();
        assert_eq!((names.len(), merged.pools.len()), (7, 7));
    }
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    (prop::option::of(0..4u8), any::<[bool; 3]>()).prop_map(|(node, [ready, serving, terminating])| {
        Endpoint { node: node.map(|node| format!("n{node}")), ready, serving, terminating }
    })
}

fn any_node() -> impl Strategy<Value = Node> {
    let label = prop::sample::select(vec![None, Some(""), Some("true"), Some("false")]);
    let addresses = prop::collection::vec((any::<bool>(), 0..4u8), 0..3);
    (addresses, label, any::<[bool; 2]>()).prop_map(|(addresses, label, [leaving, deleting])| Node {
        addresses: addresses
            .into_iter()
            .map(
                |(v4, n)| {
                    if v4 {
                        [10, 0, 0, n].into()
                    } else {
                        [0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(n)].into()
                    }
                },
            )
            .collect(),
        exclude_label: label.map(String::from),
        leaving,
        deleting,
    })
}

proptest! {
    /// What the configuration would refuse never comes out: an address twice, a VIP as a backend, families mixed with
    /// nat, a pool that is not there. New flows only go to nodes that may have them.
    #[test]
    fn what_is_wanted_can_be_configured(
        nodes in prop::collection::btree_map((0..4u8).prop_map(|n| format!("n{n}")), any_node(), 0..4),
        endpoints in prop::collection::vec(any_endpoint(), 0..8),
        local in any::<bool>(),
        mode in prop::sample::select(vec!["dr", "ipip", "nat", "?"]),
        vips in prop::sample::subsequence(vec!["10.0.0.1", "2001:db8:1::2"], 1..=2),
    ) {
        let service = Service { local, ..annotated(MODE, mode) };
        let facts = Facts { nodes, endpoints: [(key("web"), endpoints)].into(), ..facts(service) };
        let vips: Vec<IpAddr> = vips.into_iter().map(|vip| vip.parse().unwrap()).collect();
        let addresses = [(key("web"), vips.clone())].into();
        let translated = translate(&facts, &addresses, &settings()).remove(&key("web")).unwrap();
        for service in &translated.wanted.services {
            let pool = &translated.wanted.pools[service.pool];
            let distinct: HashSet<_> = pool.backends.iter().map(|backend| backend.address).collect();
            prop_assert_eq!(distinct.len(), pool.backends.len());
            for backend in &pool.backends {
                prop_assert!(!vips.contains(&backend.address));
                let node = &facts.nodes[&backend.name];
                prop_assert!(node.addresses.contains(&backend.address));
                if translated.mode == Mode::Nat {
                    prop_assert_eq!(backend.address.is_ipv4(), service.vips[0].is_ipv4());
                }
                let allowed = !node.deleting && matches!(node.exclude_label.as_deref(), None | Some("false"));
                prop_assert!(backend.weight == 0 || allowed);
            }
        }
        prop_assert_eq!(translated.vips(), vips);
    }
}
