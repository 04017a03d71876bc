//! End to end: the real programs between real peers, in network namespaces of their own. As root:
//!
//! ```text
//! cargo build --release
//! cargo test --release -p shunt-tests --test end_to_end -- --run [FILTER…]
//! ```
//!
//! Without `--run`, as in a plain `cargo test`, it says that it was skipped: it takes minutes and root.
//!
//! Scenarios run one after the other, each in a topology of its own, because the figures they print and the
//! times they allow mean nothing when two of them share the cores; and in this process's main thread,
//! because programs die with the thread that started them. That is also why this is not the standard test
//! harness. After every scenario the programs are stopped and nothing may be left of it.

mod affinity;
mod balance;
mod bulk;
mod change;
mod checks;
mod crash;
mod drain;
mod echo;
mod ecmp;
mod explain;
mod fragments;
mod health;
mod host;
mod icmp_errors;
mod interrupt;
mod jumbo;
mod loops;
mod modes;
mod nat;
mod next_hops;
mod observe;
mod one_arm;
mod path_mtu;
mod paths;
mod probes;
mod queues;
mod routes;
mod segment;
mod source_ranges;
mod stage;
mod takeover;
mod through_nat;
mod throughput;
mod unlisted;
mod vlan;

use std::process::ExitCode;

use shunt_tests::error::Result;
use shunt_tests::scenarios::{self, Scenario};

type Alone = fn() -> Result<()>;

const SCENARIOS: &[Scenario<Alone>] = &[
    ("balance", "2,000 requests per mode and family, all answered, spread by weight", balance::run),
    ("one_arm", "clients and backends on one NIC", one_arm::run),
    ("explain", "1,000 packets go where `lbctl explain` says", explain::run),
    ("modes", "generic, copy, busy polling, xsk-rs and small rings", modes::run),
    ("next_hops", "MACs, routes and NICs that change", next_hops::run),
    ("host", "traffic to the box itself is untouched", host::run),
    ("queues", "two queues, two workers, one flow on both", queues::run),
    ("nat", "2,000 requests per family with translated addresses and ports", nat::two_arms),
    ("nat_one_arm", "the same with clients and backends on one NIC", nat::one_arm),
    ("unlisted", "ports without a service are refused at once, or silent", unlisted::run),
    ("echo", "pings of the VIPs are answered, within a rate", echo::run),
    ("loops", "a backend that sends packets back is found out", loops::run),
    ("icmp_errors", "\"too big\" from a router reaches the backend", icmp_errors::run),
    ("source_ranges", "who may not come gets no answer", source_ranges::run),
    ("affinity", "a client stays on its backend", affinity::run),
    ("path_mtu", "uploads whose packets do not fit the tunnel, or the path behind it", path_mtu::run),
    ("probes", "health checks of the box itself take the way of traffic", probes::run),
    ("fragments", "datagrams of 8 kB in fragments", fragments::run),
    ("jumbo", "packets of 9,000 bytes", jumbo::run),
    ("vlan", "clients on a VLAN", vlan::run),
    ("health", "nginx stopped and started 20 times: connections go and come in time", health::stop_and_start),
    ("flapping", "a backend that flaps for a minute disturbs nobody", health::flapping),
    ("checks", "5,000 checks every two seconds: what they cost, and how punctual they are", checks::run),
    ("paths", "checks through the service see what direct ones do not", paths::run),
    ("drain", "a backend is drained under load: nothing breaks, and it empties", drain::run),
    ("change", "50 slow downloads survive 100 changes", change::run),
    ("controlplane_crash", "kill -9 of the control plane under load", crash::controlplane),
    ("dataplane_crash", "kill -9 of the dataplane", crash::dataplane),
    ("routes", "routes to VIPs follow backends, dataplane and control plane", routes::run),
    ("ecmp", "50 downloads survive the death of one of two boxes behind a BGP router", ecmp::run),
    ("segment", "clients find VIPs by ARP and neighbour discovery, without a route", segment::run),
    ("takeover", "two boxes on a segment: one dies, leaves, comes back", takeover::run),
    ("throughput", "iperf3 through DR and IP-in-IP", throughput::run),
    ("interrupt", "Ctrl-C and kill -9 of the demo leave nothing behind", interrupt::run),
];

fn main() -> ExitCode {
    let skipped = "the end-to-end scenarios need root and `-- --run`; `make test` runs them";
    scenarios::main("end to end", skipped, SCENARIOS, || Ok(Some(())), |scenario, ()| scenario())
}
