//! What is wrong between the load balancer and a server that is itself well: checks through the service see it, direct
//! ones do not. Both are made of the same backends at once, by direct routing and by tunnels, over IPv4 and IPv6.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shunt_api::status::BackendView;
use shunt_tests::error::{Result, ensure};
use shunt_tests::process::Process;
use shunt_tests::servers;
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Node, Shape, Topology};
use shunt_tests::wait;

use crate::stage::with_shunt_after;

/// Pools: name, last number of their VIPs, mode, keys.
const POOLS: [(&str, u8, &str, &str); 4] = [
    ("dr-service", 10, "dr", SERVICE),
    ("dr-direct", 11, "dr", DIRECT),
    ("far-service", 20, "ipip", SERVICE),
    ("far-direct", 21, "ipip", DIRECT),
];
const SERVICE: &str =
    r#"check = { type = "http", interval = "500ms", timeout = "400ms", rise = 1, fall = 2 }"#;
const DIRECT: &str =
    r#"check = { type = "http", interval = "500ms", timeout = "400ms", rise = 1, fall = 2, via = "direct" }"#;
/// Below what a full packet of the links has, and above what a short one has.
const SMALL_MTU: u32 = 1_400;
const MTU: u32 = 1_600;
const LIMIT: Duration = Duration::from_secs(10);
/// For as long direct checks have to go on succeeding once all that should has failed.
const STILL: Duration = Duration::from_secs(2);

pub fn run() -> Result<()> {
    let all = POOLS.iter().flat_map(|(_, number, ..)| vips(*number)).collect();
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 3, far: 4, vips: all };
    let servers = RefCell::default();
    let prepare = |topology: &Topology| {
        servers
            .replace(topology.nodes().map(|node| start(topology, node)).collect::<Result<Vec<Process>>>()?);
        Ok(settings(topology))
    };
    with_shunt_after("paths", shape, prepare, |topology, shunt| {
        wait_for(shunt, &[])?;
        break_all(topology, true)?;
        let down =
            ["dr-service dr2", "dr-service dr3", "far-service far2", "far-service far3", "far-service far4"];
        wait_for(shunt, &down)?;
        let still =
            wait::until_true("nothing", STILL, || states(shunt).is_ok_and(|states| names(&states) != down));
        ensure(still.is_err(), || format!("then it was {:?}", states(shunt)))?;
        for (backend, reason) in states(shunt)? {
            println!("   {backend}: {reason}");
        }
        break_all(topology, false)?;
        wait_for(shunt, &[])?;
        println!("   direct checks of all of them succeeded all the while; mended, all are up");
        Ok(())
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    for (name, number, mode, keys) in POOLS {
        let nodes = if mode == "dr" { &topology.dr } else { &topology.far };
        settings.serve(name, mode, nodes, like_v4(), (&vips(number), &["tcp/80"]));
        settings.pools.iter_mut().filter(|pool| pool.name == name).for_each(|pool| pool.keys = keys);
    }
    settings
}

/// nginx on every address, those of the node itself as well.
fn start(topology: &Topology, node: &Node) -> Result<Process> {
    let everywhere: [IpAddr; 2] = ["0.0.0.0", "::"].map(|any| any.parse().expect("an address"));
    servers::start_nginx_at(&topology.run, node, &everywhere.map(|any| SocketAddr::new(any, 80)))
}

/// The second backend of each segment lacks its VIPs, the path to the third loses full packets, and the fourth, which
/// only the far one has, has no tunnel. Or all of that is mended.
fn break_all(topology: &Topology, broken: bool) -> Result<()> {
    let verb = if broken { "del" } else { "add" };
    for (nodes, number) in [(&topology.dr, 10), (&topology.far, 20)] {
        let [v4, v6] = vips(number);
        nodes[1].namespace.ip(&format!("addr {verb} {v4}/32 dev lo\naddr {verb} {v6}/128 dev lo\n"))?;
        topology.lose_large_packets(&nodes[2], if broken { SMALL_MTU } else { MTU })?;
    }
    topology.decapsulators[3].set_closed(broken)
}

/// Waits until exactly these backends are down.
fn wait_for(shunt: &Shunt<'_>, down: &[&str]) -> Result<()> {
    let mut seen = BTreeMap::new();
    let waited = wait::until(&format!("{down:?} to be down"), LIMIT, || {
        seen = states(shunt)?;
        Ok((names(&seen) == down).then_some(()))
    });
    waited.map(drop).inspect_err(|_| println!("   last seen: {seen:#?}"))
}

fn names(down: &BTreeMap<String, String>) -> Vec<&str> {
    down.keys().map(String::as_str).collect()
}

/// What is down or not known to be up, and why.
fn states(shunt: &Shunt<'_>) -> Result<BTreeMap<String, String>> {
    let backends: Vec<BackendView> = shunt.lbctl_json(&["get", "backends"])?;
    let not_up = backends.into_iter().filter(|backend| {
        let health = backend.health.as_ref();
        health.is_none_or(|health| health.state != shunt_api::status::HealthState::Up)
    });
    let reason = |backend: BackendView| {
        let failures = backend.health.iter().flat_map(|health| &health.probes);
        let failures = failures
            .filter_map(|probe| Some(format!("{}: {}", probe.question, probe.last_failure.as_ref()?)));
        (format!("{} {}", backend.pool, backend.name), failures.collect::<Vec<_>>().join("; "))
    };
    Ok(not_up.map(reason).collect())
}
