//! A load balancer in front of a cluster: what it says of itself, and what happens to it. There may be a second one.

use std::time::Duration;

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use shunt_api::client::Client;
use shunt_api::counters::Counter;
use shunt_api::status::{BackendView, ClusterStatus, ControlStatus, ServiceView, Stats};
use shunt_tests::error::{Error, Result, While};
use shunt_tests::namespace::Namespace;
use shunt_tests::wait;

use super::{Cluster, run_script};

const DAEMONS: [&str; 2] = ["shunt-dataplane", "shunt-controlplane"];
/// All of a box's links.
const NICS: [&str; 3] = ["cli0", "nod0", "mgmt"];
/// From SIGKILL to the end.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// One of the boxes of a cluster.
#[derive(Clone, Copy)]
pub struct Balancer<'c> {
    cluster: &'c Cluster,
    /// As in `BOX` of the scripts.
    number: &'static str,
}

impl Cluster {
    /// The box that every cluster has.
    pub fn first(&self) -> Balancer<'_> {
        Balancer { cluster: self, number: "" }
    }

    /// The one beside it, which is made if need be, and runs no Shunt at first.
    pub fn second(&self) -> Result<Balancer<'_>> {
        run_script(&["net.sh", "box"], &[("P", &self.prefix)])?;
        Ok(Balancer { cluster: self, number: "2" })
    }
}

impl Balancer<'_> {
    /// For people.
    pub fn name(&self) -> String {
        format!("box {}", if self.number.is_empty() { "1" } else { self.number })
    }

    fn namespace(&self) -> Namespace {
        self.cluster.node(&format!("lb{}", self.number))
    }

    fn script(&self, words: &[&str]) -> Result<()> {
        run_script(words, &[("P", &self.cluster.prefix), ("BOX", self.number)]).map(drop)
    }

    /// Starts Shunt with the usual configuration, or lets it take that over, and waits until it is healthy.
    pub fn start(&self) -> Result<()> {
        self.script(&["shunt.sh"])
    }

    /// The same with this configuration.
    pub fn start_with(&self, config: &str) -> Result<()> {
        let path = self.cluster.state.join("scenario.toml");
        std::fs::write(&path, config).to(|| format!("write {}", path.display()))?;
        self.script(&["shunt.sh", &path.display().to_string()])
    }

    /// Ends Shunt in order.
    pub fn stop(&self) -> Result<()> {
        self.script(&["shunt.sh", "stop"])
    }

    /// As when the power fails: no more packet leaves, then nothing runs any more.
    pub fn die(&self) -> Result<()> {
        self.set_links("down")?;
        let names = DAEMONS.map(|name| format!("{name}{}", self.number));
        names.iter().try_for_each(|name| self.cluster.signal(name, Signal::KILL))?;
        let dead = || names.iter().all(|name| self.cluster.recorded(name).is_err());
        wait::until_true("both daemons to be dead", KILL_LIMIT, dead).map(drop)
    }

    /// Gives it its links back.
    pub fn plug(&self) -> Result<()> {
        self.set_links("up")?;
        self.reach_cluster(true)
    }

    fn set_links(&self, state: &str) -> Result<()> {
        self.namespace().ip(&NICS.map(|nic| format!("link set {nic} {state}\n")).concat())
    }

    /// Takes its way to the API server, without a word to either side, or gives it back.
    pub fn reach_cluster(&self, reaches: bool) -> Result<()> {
        let state = if reaches { "up" } else { "down" };
        self.cluster.node("sw").ip(&format!("link set lb{}-mgmt {state}\n", self.number))
    }

    /// How the control plane is, and the dataplane.
    pub fn status(&self) -> Result<ControlStatus> {
        self.ask("/v1/status")
    }

    /// How it stands to its only cluster.
    pub fn seat(&self) -> Result<ClusterStatus> {
        let none = || Error::Wrong(format!("{} serves no cluster", self.name()));
        self.status()?.clusters.pop().ok_or_else(none)
    }

    /// What is served.
    pub fn services(&self) -> Result<Vec<ServiceView>> {
        self.ask("/v1/services")
    }

    /// By what it chooses backends.
    pub fn backends(&self) -> Result<Vec<BackendView>> {
        self.ask("/v1/backends")
    }

    /// Sum of a counter over all workers.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        let socket = self.socket("dataplane");
        let stats: Stats = get(&Client::dataplane(socket), "/v1/stats")?;
        Ok(stats.total().counter(counter))
    }

    /// Asks the control plane.
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        get(&Client::controlplane(self.socket("controlplane")), path)
    }

    fn socket(&self, of: &str) -> std::path::PathBuf {
        self.cluster.state.join(format!("{of}{}.sock", self.number))
    }

    /// Everything that this box has written to the cluster so far, each as the API server has noted it.
    pub fn writes(&self) -> Result<Vec<String>> {
        let host = if self.number.is_empty() { ".3" } else { ".4" };
        self.cluster.audited(|address| address.ends_with(host))
    }
}

fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.to(|| "start a runtime".to_owned())?.block_on(client.get(path));
    answer.map_err(|error| Error::Wrong(error.to_string()))
}
