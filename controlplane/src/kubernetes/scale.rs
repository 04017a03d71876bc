//! How long a look takes, step by step, with as many Services as a large cluster has:
//! `cargo test --release -p shunt-controlplane kubernetes::scale -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shunt_api::compile::compile;
use shunt_api::config::Config;
use shunt_api::snapshot::FleetKey;

use super::double::objects;
use super::facts::{Facts, ServiceKey};
use super::ipam::{Ipam, Offer};
use super::report::ownership::MARK;
use super::translate::wanted::{self, Wanted};
use super::translate::{Addresses, Settings, merged, translate};
use super::{double::objects::CLASS, extract};
use crate::control::Control;
use crate::health::{Prober, Runner};
use crate::journal::Journal;
use crate::roster::{Memory, Roster};
use crate::source::Desired;

const SERVICES: u16 = 2_000;
const NODES: u8 = 50;
/// From a change to what the dataplane is sent, on any machine that this is run on.
const LIMIT: Duration = Duration::from_millis(200);

struct Cluster {
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    nodes: Vec<Node>,
    namespace: Namespace,
}

fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// The nodes of a Service's three pods.
fn pods(number: u16) -> [u8; 3] {
    [0, 1, 2].map(|pod| ((number * 7 + pod * 17) % u16::from(NODES)) as u8 + 1)
}

impl Cluster {
    /// Every other Service is Local.
    fn new(services: u16) -> Self {
        let service = |number: u16| {
            let mut service = objects::service(&format!("s{number}"), number, number % 2 == 1);
            service["metadata"]["annotations"] = json!({ MARK: CLASS });
            typed(service)
        };
        Self {
            services: (0..services).map(service).collect(),
            slices: (0..services)
                .map(|number| typed(objects::slice(&format!("s{number}"), &pods(number))))
                .collect(),
            nodes: (1..=NODES).map(|number| typed(objects::node(number))).collect(),
            namespace: typed(objects::namespace()),
        }
    }

    fn facts(&self) -> Facts {
        extract::facts(
            self.services.iter(),
            self.slices.iter(),
            self.nodes.iter(),
            std::iter::once(&self.namespace),
        )
    }
}

fn file() -> Config {
    let text = r#"
        nic = [{ name = "eth1" }]
        [kubernetes]
        kubeconfig = "/none"
        pools = [{ name = "default", addresses = ["198.18.0.0/15"] }]
    "#;
    Config::parse(text, "f").unwrap_or_else(|problem| panic!("{problem}"))
}

/// Runs a step and says how long it took.
fn timed<T>(step: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    println!("  {step:<22} {:8.2} ms", began.elapsed().as_secs_f64() * 1e3);
    result
}

fn decide(cluster: &Cluster, ipam: &mut Ipam, config: &Config) -> Wanted {
    let facts = timed("facts", || cluster.facts());
    let ours: Vec<&ServiceKey> = facts.services.keys().collect();
    let offer = Offer { pools: &config.kubernetes[0].pools, is_whole: true };
    let allocations = timed("assign", || ipam.assign(offer, &facts, ours));
    let addresses: Addresses =
        allocations.iter().map(|(key, of)| (key.clone(), of.addresses.clone())).collect();
    let translated: BTreeMap<_, _> =
        timed("translate", || translate(&facts, &addresses, &Settings::default()));
    timed("merge", || merged(translated.values()))
}

/// What [`Control::set_cluster`] consists of.
fn steps_of_control(roster: &mut Roster, config: &Config, wanted: &Wanted) {
    let wanted = timed("merge clusters", || wanted::merged(std::iter::once(wanted)));
    let (extended, left_out) = timed("extended", || config.extended(&wanted.pools, &wanted.services));
    assert_eq!(left_out, []);
    let snapshot = timed("compile", || compile(&extended, FleetKey([7; 16])));
    timed("roster.load", || roster.load(Arc::new(extended), snapshot));
    let balance = timed("balance", || roster.balance(Instant::now())).unwrap();
    let again = timed("clone and compare", || balance.snapshot.clone() == balance.snapshot);
    assert!(again);
    timed("memory", || roster.memory());
    timed("vips with backends", || roster.vips_with_backends());
    let watches = timed("watches", || roster.watches(&[], &std::collections::HashMap::new()));
    let text = timed("encode", || serde_json::to_vec(&balance.snapshot).unwrap());
    println!(
        "  {} pools, {} backends, {} probes, {} KiB",
        balance.snapshot.pools.len(),
        balance.snapshot.pools.iter().map(|pool| pool.backends.len()).sum::<usize>(),
        watches.len(),
        text.len() / 1024,
    );
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
#[ignore = "measures: see the module's head"]
fn a_change_among_2000_services_is_decided_in_no_time() {
    let config = file();
    let mut cluster = Cluster::new(SERVICES);
    println!("objects: {} MiB", resident_mib());
    let control = Control::new(Runner::new(Prober::new(), 0).0, Journal::default(), Memory::default());
    let snapshot = compile(&config, FleetKey([7; 16]));
    control.configure(Ok(Box::new(Desired { config: Arc::new(config.clone()), snapshot }))).unwrap();
    let (mut ipam, mut roster) = (Ipam::default(), Roster::new(Memory::default()));
    for change in 0..4_u16 {
        println!("look {change}");
        cluster.slices[usize::from(change) * 2 + 1] =
            typed(objects::slice(&format!("s{}", change * 2 + 1), &[1, 2]));
        let began = Instant::now();
        let wanted = decide(&cluster, &mut ipam, &config);
        timed("set_cluster", || control.set_cluster(&None, wanted.clone()));
        let snapshot = control.published().borrow().clone();
        let took = began.elapsed();
        println!("  in all {took:?}; {} MiB; published {}", resident_mib(), snapshot.is_some());
        println!(" set_cluster, step by step");
        steps_of_control(&mut roster, &config, &wanted);
        assert!(cfg!(debug_assertions) || took < LIMIT, "{took:?}");
    }
}
