//! Shunt as the load balancer of a real Kubernetes (`tests/cluster`): what upstream's specs do not ask. As root:
//!
//! ```text
//! make build
//! cargo test -p shunt-tests --test cluster -- --list
//! P=shunt-test cargo test -p shunt-tests --test cluster -- --run [FILTER…] [--changes=200]
//! ```
//!
//! They run in the cluster that `P` names if it is up; otherwise one is brought up, and taken down at the end. Shunt is
//! started in it with the usual configuration. Every case works in a Kubernetes namespace of its own.
//!
//! Without `--run`, as in a plain `cargo test`, it says that it was skipped. One scenario runs after the other, in the
//! main thread, as in `tests/end_to_end`.

mod api;
mod assignment;
mod basics;
mod boxes;
mod client;
mod cluster;
mod clusters;
mod download;
mod families;
mod latency;
mod objects;
mod ownership;
mod policies;
mod ports;
mod space;
mod survival;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use cluster::Cluster;
use shunt_tests::error::Result;
use shunt_tests::lifecycle;

/// One scenario: its name, what it shows, and the scenario itself.
type Scenario = (&'static str, &'static str, fn(&Cluster) -> Result<()>);

const SCENARIOS: &[Scenario] = &[
    ("dr", "clients reach pods on all nodes by DR", basics::dr),
    ("ipip", "and through tunnels", basics::ipip),
    ("nat", "and with translated addresses", basics::nat),
    ("assignment", "who has which address, and whose a Service is", assignment::run),
    ("families", "one family or two", families::run),
    ("policies", "what a Service says of ports, clients and nodes", policies::run),
    ("roll", "50 downloads while a Deployment rolls", survival::roll),
    ("drain", "50 downloads while a node is drained", survival::drain),
    ("exclude", "50 downloads while a node gets the exclude label", survival::exclude),
    ("autoscaler", "50 downloads while the autoscaler is about to remove a node", survival::autoscaler),
    ("controlplane", "50 downloads while the control plane is killed and started", survival::controlplane),
    ("outage", "50 downloads while the API server does not answer", survival::outage),
    ("boxes", "two boxes: one leads, both forward; one dies, comes back, loses the API server", boxes::run),
    ("clusters", "one box for two clusters, which know nothing of each other", clusters::run),
    ("latency", "from a Service to its first answer, from an endpoint to the dataplane", latency::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        SCENARIOS.iter().for_each(|(name, about, _)| println!("{name:<14} {about}"));
        return ExitCode::SUCCESS;
    }
    if !has("--run") {
        println!(
            "SKIPPED: scenarios in a real cluster need root and `-- --run`; `make test-cluster` runs them"
        );
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with('-')).collect();
    match lifecycle::install().and_then(|()| Cluster::open()) {
        Ok(Some(cluster)) => run(&cluster, &filters),
        // It was said why.
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cluster: &Cluster, filters: &[&str]) -> ExitCode {
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
    let start = Instant::now();
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, about, scenario) in SCENARIOS.iter().filter(|(name, ..)| chosen(name)) {
        println!("\n== {name}: {about}");
        let begin = Instant::now();
        match scenario(cluster) {
            Ok(()) => {
                passed += 1;
                println!("   ok in {:.1} s", begin.elapsed().as_secs_f64());
            }
            Err(error) => {
                failed.push(*name);
                println!("   FAILED in {:.1} s: {error}", begin.elapsed().as_secs_f64());
                cluster.show_logs();
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("\ncluster: {passed} passed, {} failed, {seconds:.0} s {}", failed.len(), failed.join(" "));
    if failed.is_empty() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
