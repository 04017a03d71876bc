//! The cluster that scenarios run in, and the Shunt that serves it.

mod config;
mod process;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use shunt_api::client::Client;
use shunt_api::counters::Counter;
use shunt_api::status::{ControlStatus, ServiceView, Stats};
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::namespace::Namespace;
use shunt_tests::process::Process;
use shunt_tests::run::Run;
use shunt_tests::wait;

pub use self::config::Pool;
use crate::api::Api;

/// Exit code of scripts that tested nothing.
const SKIPPED: i32 = 77;
/// Until the control plane, started afresh, serves what it should.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Between two looks at something that takes seconds.
const LOOK: Duration = Duration::from_millis(100);

/// A cluster that is up, with Shunt in it.
#[derive(Debug)]
pub struct Cluster {
    /// Its API.
    pub api: Api,
    /// The namespace of clients outside of it.
    pub client: Namespace,
    /// Names of its nodes.
    pub nodes: Vec<String>,
    prefix: String,
    state: PathBuf,
    /// It was brought up here, so it is taken down here.
    own: bool,
    /// Gone before the directory that its log is in.
    _proxy: Process,
    _files: Run,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join(name)
}

/// Runs a script; its exit code.
fn run_script(name: &str, prefix: &str) -> Result<Option<i32>> {
    let mut script = Command::new(script(name));
    let nodes = std::env::var("NODES").unwrap_or_else(|_| "2".to_owned());
    let status = script.env("P", prefix).env("NODES", nodes).stdin(Stdio::null()).status();
    Ok(status.to(|| format!("run tests/cluster/{name}"))?.code())
}

impl Cluster {
    /// The one that `P` names, brought up if need be; `None` if that cannot be done here.
    pub fn open() -> Result<Option<Self>> {
        let prefix = std::env::var("P").unwrap_or_else(|_| "shunt-test".to_owned());
        let usual = || Path::new("/var/tmp/shunt-cluster").join(&prefix);
        let state = std::env::var_os("RUN").filter(|path| !path.is_empty()).map_or_else(usual, PathBuf::from);
        let own = !state.join("up").exists();
        if own {
            match run_script("up.sh", &prefix)? {
                Some(0) => {}
                Some(SKIPPED) => return Ok(None),
                code => return Err(Error::Wrong(format!("tests/cluster/up.sh ended with {code:?}"))),
            }
        }
        ensure(run_script("shunt.sh", &prefix)? == Some(0), || "Shunt could not be started".to_owned())?;
        Self::connect(prefix, state, own).map(Some)
    }

    fn connect(prefix: String, state: PathBuf, own: bool) -> Result<Self> {
        let files = Run::of_files()?;
        let client = Namespace::existing(&format!("{prefix}-client"));
        let socket = files.directory().join("api.sock");
        let api = Api::at(socket.clone());
        let settings = fs::read_to_string(state.join("settings")).to(|| "read the settings".to_owned())?;
        let programs = settings.split(['\n', ' ']).find_map(|word| word.strip_prefix("bin="));
        let kubectl =
            Path::new(programs.ok_or_else(|| Error::Wrong("no bin= in settings".into()))?).join("kubectl");
        let arguments = [
            format!("--kubeconfig={}", state.join("kubeconfig.mgmt").display()),
            "proxy".to_owned(),
            format!("--unix-socket={}", socket.display()),
        ];
        let proxy = Process::start(&files, &client, "kubectl", &kubectl, &arguments)?;
        wait::until_true("kubectl to listen", START_LIMIT, || socket.exists())?;
        let nodes = api.get("/api/v1/nodes")?["items"].clone();
        let name = |node: &serde_json::Value| node["metadata"]["name"].as_str().map(str::to_owned);
        let nodes = nodes.as_array().into_iter().flatten().filter_map(name).collect();
        Ok(Self { api, client, nodes, prefix, state, own, _proxy: proxy, _files: files })
    }

    /// A node's network namespace.
    pub fn node(&self, name: &str) -> Namespace {
        Namespace::existing(&format!("{}-{name}", self.prefix))
    }

    /// The name of the image that pods run.
    pub fn image(&self) -> Result<String> {
        let settings =
            fs::read_to_string(self.state.join("settings")).to(|| "read the settings".to_owned())?;
        let images = settings.split(['\n', ' ']).find_map(|word| word.strip_prefix("images="));
        let file = Path::new(images.unwrap_or_default()).join("agnhost.name");
        Ok(fs::read_to_string(&file).to(|| format!("read {}", file.display()))?.trim().to_owned())
    }

    /// Whether Services can have addresses of two families.
    pub fn has_both_families(&self) -> Result<bool> {
        let node = self.api.get(&format!("/api/v1/nodes/{}", self.nodes[0]))?;
        Ok(node["spec"]["podCIDRs"].as_array().is_some_and(|cidrs| cidrs.len() == 2))
    }

    /// One of the programs beside those that serve the cluster.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let lbctl = fs::read_link(self.state.join("lbctl")).to(|| "find Shunt's programs".to_owned())?;
        let path = lbctl.with_file_name(name);
        ensure(path.is_file(), || format!("{} is missing; run make build", path.display()))?;
        Ok(path)
    }

    /// How the control plane is, and the dataplane.
    pub fn status(&self) -> Result<ControlStatus> {
        self.ask("/v1/status")
    }

    /// What is served.
    pub fn services(&self) -> Result<Vec<ServiceView>> {
        self.ask("/v1/services")
    }

    /// Whether the dataplane serves an address.
    pub fn serves(&self, vip: IpAddr) -> Result<bool> {
        Ok(self.services()?.iter().any(|service| service.vip == vip))
    }

    /// Packets that the workers have received so far.
    pub fn received(&self) -> Result<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let client = Client::dataplane(self.state.join("dataplane.sock"));
        let stats = runtime.to(|| "start a runtime".to_owned())?.block_on(client.get::<Stats>("/v1/stats"));
        let stats = stats.map_err(|error| Error::Wrong(error.to_string()))?;
        Ok(stats.workers.iter().map(|worker| worker.counter(Counter::RxPackets)).sum())
    }

    /// Asks the control plane.
    pub fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let client = Client::controlplane(self.state.join("controlplane.sock"));
        let answer = runtime.to(|| "start a runtime".to_owned())?.block_on(client.get(path));
        answer.map_err(|error| Error::Wrong(error.to_string()))
    }

    /// The end of Shunt's logs, for a scenario that failed.
    pub fn show_logs(&self) {
        for name in ["shunt-dataplane", "shunt-controlplane"] {
            let log = fs::read_to_string(self.state.join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            println!("   {name}:");
            lines[lines.len().saturating_sub(10)..].iter().for_each(|line| println!("     {line}"));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.own && std::env::var_os("KEEP").is_none_or(|keep| keep.is_empty()) {
            let _ = run_script("down.sh", &self.prefix);
        }
    }
}
