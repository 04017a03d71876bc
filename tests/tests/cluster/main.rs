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

use cluster::Cluster;
use shunt_tests::error::Result;
use shunt_tests::scenarios::{self, Scenario};

type In = fn(&Cluster) -> Result<()>;

const SCENARIOS: &[Scenario<In>] = &[
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
    let skipped = "scenarios in a real cluster need root and `-- --run`; `make test-cluster` runs them";
    scenarios::main("cluster", skipped, SCENARIOS, Cluster::open, |scenario, cluster| {
        scenario(cluster).inspect_err(|_| cluster.show_logs())
    })
}
