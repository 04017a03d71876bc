use std::net::Ipv4Addr;
use std::ops::Range;

use super::*;
use crate::snapshot::PortMapping;

const FILE: &str = r#"
nic = [{ name = "eth1" }]
nat.sources = "10.0.9.250"
[pools.file]
backends = [{ name = "f", address = "10.0.0.1" }]
[[service]]
name = "file"
vip = "203.0.113.1"
ports = ["tcp/80"]
pool = "file"
"#;

fn file() -> Config {
    Config::parse(FILE, "f").unwrap()
}

/// The pools and services of another file.
fn others(text: &str) -> (Vec<Pool>, Vec<Service>) {
    let text = format!("nic = [{{ name = \"eth1\" }}]\nnat.sources = [\"10.0.9.251\", \"fd00::9\"]\n{text}");
    let config = Config::parse(&text, "others").unwrap_or_else(|problem| panic!("{problem}"));
    (config.pools, config.services)
}

#[test]
fn what_does_not_contradict_is_added_with_its_pool() {
    let (pools, services) = others(
        r#"
        pools.unused = { backends = [{ name = "u", address = "10.0.0.9" }] }
        pools.used = { backends = [{ name = "n", address = "10.0.0.1" }] }
        service = [
            { name = "a", vip = "203.0.113.1", ports = ["tcp/81"], pool = "used" },
            { name = "b", vip = "203.0.113.2", ports = ["tcp/80", "udp/80"], pool = "used" },
        ]
        "#,
    );
    let (extended, left_out) = file().extended(&pools, &services);
    assert_eq!(left_out, []);
    let names: Vec<_> =
        extended.services.iter().map(|service| (service.name.as_str(), service.pool)).collect();
    assert_eq!(names, [("file", 0), ("a", 1), ("b", 1)]);
    let pools: Vec<_> = extended.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(pools, ["file", "used"]);
    let (same, _) = file().extended(&[], &[]);
    assert_eq!((same.pools, same.services), (file().pools, file().services));
}

#[test]
fn what_contradicts_is_left_out_with_its_reason_and_all_else_is_served() {
    let pool = |name: &str, mode: &str, address: &str| {
        format!(
            "pools.{name} = {{ mode = \"{mode}\", backends = [{{ name = \"n\", address = \"{address}\" }}] }}\n"
        )
    };
    let service = |name: &str, vip: &str, pool: &str| {
        format!("[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nports = [\"tcp/80\"]\npool = \"{pool}\"\n")
    };
    let pools = [
        pool("good", "dr", "10.0.0.5"),
        pool("vip", "dr", "10.0.0.7"),
        pool("six", "nat", "fd00::5"),
        pool("nat", "nat", "10.0.0.6"),
    ];
    let services = [
        service("port", "203.0.113.1", "good"),
        service("backend", "10.0.0.1", "good"),
        service("source", "10.0.9.250", "good"),
        service("to-vip", "203.0.113.7", "vip"),
        service("family", "2001:db8::7", "six"),
        service("first", "203.0.113.8", "good"),
        service("translated", "203.0.113.9", "nat"),
    ];
    let (mut pools, mut services) = others(&(pools.concat() + &services.concat()));
    // Parsing would refuse the rest itself.
    pools[1].backends[0].address = "203.0.113.1".parse().unwrap();
    services.push(Service {
        name: "file".into(),
        vips: vec!["203.0.113.10".parse().unwrap()],
        ..services[5].clone()
    });
    services.push(Service { name: "second".into(), ..services[5].clone() });
    let (extended, left_out) = file().extended(&pools, &services);
    let reasons: Vec<_> = left_out.iter().map(|left| format!("{}: {}", left.name, left.reason)).collect();
    let expected = [
        "port: 203.0.113.1 tcp/80 is served for file already",
        "backend: 10.0.0.1 is a backend or a NAT source; take it out of the pools of addresses",
        "source: 10.0.9.250 is a backend or a NAT source; take it out of the pools of addresses",
        "vip: backend n has 203.0.113.1, which is a VIP or a NAT source, and gets no traffic; give one of the two \
         another address",
        "family: its mode is nat, and nat.sources has no address of its family; add one",
        "file: there is another service of this name",
        "second: 203.0.113.8 tcp/80 is served for first already",
    ];
    assert_eq!(reasons, expected);
    let served: Vec<_> = extended.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(served, ["file", "to-vip", "first", "translated"]);
    assert!(extended.services.iter().all(|service| service.pool < extended.pools.len()));
}

#[test]
fn a_backend_that_cannot_be_one_is_left_out_alone() {
    let (pools, services) = others(
        r#"
        pools.nodes = { backends = [
            { name = "vip", address = "10.0.0.1" },
            { name = "good", address = "10.0.0.2" },
            { name = "source", address = "10.0.0.3" },
            { name = "own", address = "10.0.0.4" },
        ] }
        service = [
            { name = "a", vip = "203.0.113.2", ports = ["tcp/80"], pool = "nodes" },
            { name = "b", vip = "203.0.113.3", ports = ["tcp/80"], pool = "nodes" },
        ]
        "#,
    );
    let (mut file, mut services) = (file(), services);
    file.pools[0].backends[0].address = "10.0.0.9".parse().unwrap();
    file.services[0].vips = vec!["10.0.0.1".parse().unwrap()];
    file.nat.sources = vec!["10.0.0.3".parse().unwrap()];
    services[0].vips.push("10.0.0.4".parse().unwrap());
    let (extended, left_out) = file.extended(&pools, &services);
    assert_eq!(extended.services.len(), 3);
    let left: Vec<_> = extended.pools[1].backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(left, ["good"]);
    assert!(left_out.iter().all(|left| (left.part, left.name.as_str()) == (Part::Backend, "nodes")));
    assert_eq!(left_out.len(), 3);
    // Who comes later and wants the address of one that is used is left out as before.
    services[1].vips.push("10.0.0.2".parse().unwrap());
    let (_, left_out) = file.extended(&pools, &services);
    assert_eq!(left_out.iter().filter(|left| left.part == Part::Service && left.name == "b").count(), 1);
}

#[test]
fn beyond_the_limits_services_are_left_out() {
    let (pools, services) = others(
        r#"
        pools.used = { backends = [{ name = "n", address = "10.0.0.1" }] }
        service = [{ name = "a", vip = "203.0.113.1", ports = ["tcp/81"], pool = "used" }]
        "#,
    );
    let many: Vec<_> = (0..=SERVICES_MAX)
        .map(|number| Service {
            name: format!("s{number}"),
            vips: vec![Ipv4Addr::from_bits(0xcb00_0000 + number as u32).into()],
            ..services[0].clone()
        })
        .collect();
    let (extended, left_out) = file().extended(&pools, &many);
    assert_eq!((extended.services.len(), left_out.len()), (SERVICES_MAX, 2));
    assert!(left_out[0].reason.contains("let another box serve it"), "{}", left_out[0].reason);
}

const NODES: usize = 50;

/// What is asked, and which pools lose their checks, with two services on one pool that asks each node on one port, and
/// services with pools of their own that ask it on these ports.
fn probed(owners: &[Range<u16>]) -> (usize, Vec<String>) {
    let node = |number: usize| format!("{{ name = \"n{number}\", address = \"10.0.1.{number}\" }}");
    let nodes = (1..=NODES).map(node).collect::<Vec<_>>().join(",");
    let (mut pools, mut services) = others(&format!(
        r#"
        pools.p = {{ check = {{ type = "tcp", via = "direct" }}, backends = [{nodes}] }}
        service = [
            {{ name = "a", vip = "203.0.113.2", ports = ["tcp/10256"], pool = "p" }},
            {{ name = "b", vip = "203.0.113.3", ports = ["tcp/10256"], pool = "p" }},
        ]
        "#
    ));
    for (number, ports) in owners.iter().enumerate() {
        let port =
            |port| PortMapping { port: ServicePort { port, ..services[0].ports[0].port }, target: None };
        services.push(Service {
            name: format!("s{number}"),
            vips: vec![Ipv4Addr::from_bits(0xcb00_8000 + u32::try_from(number).unwrap()).into()],
            ports: ports.clone().map(port).collect(),
            pool: pools.len(),
            ..services[0].clone()
        });
        pools.push(Pool { name: format!("p{number}"), ..pools[0].clone() });
    }
    let (extended, left_out) = file().extended(&pools, &services);
    assert_eq!(extended.services.len(), 1 + services.len(), "all are served");
    let name = |left: LeftOut| {
        assert!(left.part == Part::Check && left.reason.contains("more than 50000 probes"), "{left:?}");
        left.name
    };
    (extended.targets().targets.len(), left_out.into_iter().map(name).collect())
}

#[test]
fn too_many_probes_cost_as_few_as_can_be_their_checks() {
    let one = |number: u16| number..number + 1;
    let many: Vec<Range<u16>> = (1..=1_001).map(one).collect();
    let cases: [(&[_], usize, &[&str]); 4] = [
        (&many[..999], 1_000, &[]),
        // The last that came.
        (&many, 1_000, &["p1000", "p999"]),
        // Not what others share, nor small ones.
        (&[one(1), 2..1_001, one(2_000)], 3, &["p1"]),
        // What is asked for both is asked once.
        (&[1..1_000, 1..1_000], 1_000, &[]),
    ];
    for (owners, ports, expected) in cases {
        assert_eq!(probed(owners), (NODES * ports, expected.iter().map(ToString::to_string).collect()));
    }
}
