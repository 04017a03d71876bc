//! The cluster that scenarios run in, and the Shunt that serves it.

mod balancer;
mod config;
mod neighbour;
mod process;

use std::fs;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use shunt_api::counters::Counter;
use shunt_api::status::{ControlStatus, ServiceView};
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::namespace::Namespace;
use shunt_tests::process::Process;
use shunt_tests::run::Run;
use shunt_tests::wait;

pub use self::balancer::Balancer;
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

/// Runs a script with arguments and settings; whether it tested anything.
fn run_script(words: &[&str], settings: &[(&str, &str)]) -> Result<bool> {
    let mut script = Command::new(script(words[0]));
    let nodes = std::env::var("NODES").unwrap_or_else(|_| "2".to_owned());
    script.args(&words[1..]).env("NODES", nodes).envs(settings.iter().copied()).stdin(Stdio::null());
    let line = words.join(" ");
    match script.status().to(|| format!("run tests/cluster/{line}"))?.code() {
        Some(0) => Ok(true),
        Some(SKIPPED) => Ok(false),
        code => Err(Error::Wrong(format!("tests/cluster/{line} ended with {code:?}"))),
    }
}

impl Cluster {
    /// The one that `P` names, brought up if need be; `None` if that cannot be done here.
    pub fn open() -> Result<Option<Self>> {
        let prefix = std::env::var("P").unwrap_or_else(|_| "shunt-test".to_owned());
        let usual = || Path::new("/var/tmp/shunt-cluster").join(&prefix);
        let state = std::env::var_os("RUN").filter(|path| !path.is_empty()).map_or_else(usual, PathBuf::from);
        let own = !state.join("up").exists();
        if own && !run_script(&["up.sh"], &[("P", &prefix)])? {
            return Ok(None);
        }
        run_script(&["shunt.sh"], &[("P", &prefix)])?;
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
        // The file is there a moment before anyone listens.
        let listens = || UnixStream::connect(&socket).is_ok();
        wait::until_true("kubectl to listen", START_LIMIT, listens)?;
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
        self.first().status()
    }

    /// What is served.
    pub fn services(&self) -> Result<Vec<ServiceView>> {
        self.first().services()
    }

    /// Whether the dataplane serves an address.
    pub fn serves(&self, vip: IpAddr) -> Result<bool> {
        Ok(self.services()?.iter().any(|service| service.vip == vip))
    }

    /// Whether the dataplane forwards by all that the control plane knows.
    pub fn is_acknowledged(&self) -> Result<bool> {
        let status = self.status()?;
        Ok(status.acknowledged == Some(status.generation))
    }

    /// Packets that the workers have received so far.
    pub fn received(&self) -> Result<u64> {
        self.first().counter(Counter::RxPackets)
    }

    /// What Shunt wrote from addresses that are wanted, by the API server's audit log: verb, object, answer.
    fn audited(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let path = self.state.join("cp/log/audit.log");
        let log = fs::read_to_string(&path).to(|| format!("read {}", path.display()))?;
        let entries = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let wanted = entries.filter(|entry| entry["sourceIPs"][0].as_str().is_some_and(&is_wanted));
        let line = |entry: serde_json::Value| {
            let code = &entry["responseStatus"]["code"];
            format!("{} {} {code}", entry["verb"], entry["requestURI"])
        };
        Ok(wanted.map(line).collect())
    }

    /// The end of Shunt's logs, for a scenario that failed.
    pub fn show_logs(&self) {
        let names = ["shunt-dataplane", "shunt-controlplane", "shunt-dataplane2", "shunt-controlplane2"];
        for name in names {
            let Ok(log) = fs::read_to_string(self.state.join(format!("{name}.log"))) else { continue };
            let lines: Vec<_> = log.lines().collect();
            println!("   {name}:");
            lines[lines.len().saturating_sub(10)..].iter().for_each(|line| println!("     {line}"));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.own && std::env::var_os("KEEP").is_none_or(|keep| keep.is_empty()) {
            let _ = run_script(&["down.sh"], &[("P", &self.prefix)]);
        }
    }
}
