//! The cluster that scenarios run in, and the Shunt that serves it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use shunt_api::client::Client;
use shunt_api::counters::Counter;
use shunt_api::status::{ControlStatus, ServiceView, Stats};
use shunt_tests::command;
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::leftovers;
use shunt_tests::namespace::Namespace;
use shunt_tests::process::Process;
use shunt_tests::run::Run;
use shunt_tests::wait;
use toml::{Table, Value};

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

    /// Calls `work` while Shunt has another configuration, and gives it back its own.
    pub fn with_config<T>(
        &self,
        change: impl FnOnce(&mut Table),
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let usual = self.config()?;
        let mut table: Table = usual.parse().map_err(|error| Error::Wrong(format!("shunt.toml: {error}")))?;
        change(&mut table);
        self.configure(&table.to_string())?;
        let outcome = work();
        self.configure(&usual)?;
        outcome
    }

    /// Calls `work` while addresses come from these pools.
    pub fn with_pools<T>(&self, pools: &[Pool], work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.with_config(|table| set_pools(table, pools), work)
    }

    /// Gives Shunt other pools from now on; for use inside of [`Self::with_pools`].
    pub fn set_pools(&self, pools: &[Pool]) -> Result<()> {
        let mut table: Table =
            self.config()?.parse().map_err(|error| Error::Wrong(format!("shunt.toml: {error}")))?;
        set_pools(&mut table, pools);
        self.configure(&table.to_string())
    }

    fn config(&self) -> Result<String> {
        fs::read_to_string(self.state.join("shunt.toml")).to(|| "read Shunt's configuration".to_owned())
    }

    fn configure(&self, text: &str) -> Result<()> {
        fs::write(self.state.join("shunt.toml"), text).to(|| "write Shunt's configuration".to_owned())?;
        command::run(Command::new(script("lbctl.sh")).env("P", &self.prefix).arg("reload")).map(drop)
    }

    /// Number of a process that the cluster's scripts started.
    fn recorded(&self, name: &str) -> Result<u32> {
        let path = self.state.join("pid").join(name);
        let text = fs::read_to_string(&path).to(|| format!("read {}", path.display()))?;
        let pid = text.split(' ').next().and_then(|word| word.parse::<u32>().ok());
        let started = text.split_whitespace().nth(1);
        let runs =
            |pid: &u32| leftovers::is_running(*pid) && started == leftovers::start_time(*pid).as_deref();
        pid.filter(runs).ok_or_else(|| Error::Wrong(format!("{name} does not run")))
    }

    /// Sends a signal to a process that the cluster's scripts started.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.recorded(name)?.cast_signed());
        kill_process(pid.expect("no process has number 0"), signal).to(|| format!("signal {name}"))
    }

    /// Kills the control plane, calls `meanwhile`, and starts it again as it was.
    pub fn restart_controlplane(&self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        let outcome = self.restart("shunt-controlplane", "lb", meanwhile)?;
        wait::until_true("the control plane to serve again", START_LIMIT, || {
            self.status().is_ok_and(|status| status.acknowledged == Some(status.generation))
        })?;
        outcome
    }

    /// Kills the API server, calls `meanwhile`, and starts it again as it was.
    pub fn restart_apiserver(&self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        let outcome = self.restart("cp-apiserver", "cp", meanwhile)?;
        wait::until_every(LOOK, "the API server to be ready", START_LIMIT, || {
            Ok(self.api.get("/readyz").is_ok().then_some(()))
        })?;
        outcome
    }

    /// Kills a process that the cluster's scripts started in a namespace, calls `meanwhile`, and starts it again with the
    /// same command line, directory and log.
    fn restart(
        &self,
        name: &str,
        namespace: &str,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<Result<()>> {
        let process = PathBuf::from(format!("/proc/{}", self.recorded(name)?));
        let line =
            fs::read_to_string(process.join("cmdline")).to(|| format!("read {name}'s command line"))?;
        let [directory, log] = ["cwd", "fd/2"].map(|link| fs::read_link(process.join(link)));
        let directory = directory.to(|| format!("find {name}'s directory"))?;
        let log = log.to(|| format!("find {name}'s log"))?;
        self.signal(name, Signal::KILL)?;
        wait::until_true(&format!("{name} to end"), START_LIMIT, || self.recorded(name).is_err())?;
        let outcome = meanwhile();
        let log = fs::File::options().append(true).open(&log).to(|| format!("open {}", log.display()))?;
        let mut command = Command::new("setsid");
        command.args(["nsenter", &format!("--net=/run/netns/{}-{namespace}", self.prefix), "--"]);
        command.args(line.trim_end_matches('\0').split('\0')).current_dir(directory).stdin(Stdio::null());
        command.stdout(log.try_clone().to(|| "open a log twice".to_owned())?).stderr(log);
        // setsid and nsenter put the program in their place, so the number stays.
        let started = command.spawn().to(|| format!("start {name}"))?.id();
        let time = leftovers::start_time(started).unwrap_or_default();
        fs::write(self.state.join("pid").join(name), format!("{started} {time}\n"))
            .to(|| format!("record {name}"))?;
        Ok(outcome)
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
        if self.own {
            let _ = run_script("down.sh", &self.prefix);
        }
    }
}

/// A pool of addresses: its name, its addresses, and other keys as in the configuration.
pub type Pool<'a> = (&'a str, &'a [&'a str], &'a str);

fn set_pools(table: &mut Table, pools: &[Pool]) {
    let pool = |(name, addresses, more): &Pool| {
        let mut pool: Table = more.parse().expect("keys of a pool are TOML");
        let addresses = addresses.iter().map(|address| Value::from(*address)).collect();
        pool.insert("name".into(), (*name).into());
        pool.insert("addresses".into(), Value::Array(addresses));
        Value::Table(pool)
    };
    if let Some(cluster) = table.get_mut("kubernetes").and_then(Value::as_table_mut) {
        cluster.insert("pools".into(), Value::Array(pools.iter().map(pool).collect()));
    }
}
