//! The programs under test, running in the namespace of a load balancer.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use shunt_api::status::{Flows, Stats};

use crate::command;
use crate::error::{Error, Result, While, ensure};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::programs;
use crate::run::Run;
use crate::settings::{FLEET_KEY, Settings};
use crate::topology::Topology;
use crate::wait;

/// Starting, stopping and the first health report, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Both daemons, their files and their sockets.
pub struct Shunt<'t> {
    run: &'t Run,
    lb: &'t Namespace,
    paths: Paths,
    /// Entries that the kernel itself puts into a new bpffs.
    preloaded: BTreeSet<PathBuf>,
    dataplane: Option<Process>,
    controlplane: Option<Process>,
}

/// Where the daemons find things, all below the run's directory.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The configuration file.
    pub config: PathBuf,
    /// The control plane's socket.
    pub socket: PathBuf,
    /// The dataplane's socket.
    pub dataplane_socket: PathBuf,
    /// The bpffs with the dataplane's pins.
    pub bpf: PathBuf,
    /// The control plane's own files.
    pub state: PathBuf,
}

impl<'t> Shunt<'t> {
    /// Starts both daemons in a topology and waits until they are healthy.
    pub fn start(topology: &'t Topology, settings: &Settings) -> Result<Self> {
        Self::start_at(&topology.run, &topology.lb, settings)
    }

    /// Starts both daemons in any namespace and waits until they are healthy. A run has room for one pair.
    pub fn start_at(run: &'t Run, lb: &'t Namespace, settings: &Settings) -> Result<Self> {
        run.write("fleet.key", format!("{FLEET_KEY}\n"))?;
        let paths = Paths {
            config: run.write("shunt.toml", settings.to_string())?,
            socket: run.directory().join("controlplane.sock"),
            dataplane_socket: run.directory().join("dataplane.sock"),
            bpf: run.mount_bpf("bpf")?,
            state: run.subdirectory("state")?,
        };
        let preloaded = entries(&paths.bpf)?;
        let mut shunt = Self { run, lb, paths, preloaded, dataplane: None, controlplane: None };
        shunt.start_dataplane()?;
        shunt.start_controlplane()?;
        shunt.wait_healthy(PATIENCE)?;
        Ok(shunt)
    }

    /// Files and sockets.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Number of the control plane's process, if it runs.
    pub fn controlplane_pid(&self) -> Option<u32> {
        self.controlplane.as_ref().map(Process::pid)
    }

    /// What the dataplane has pinned.
    pub fn pins(&self) -> Result<Vec<PathBuf>> {
        Ok(entries(&self.paths.bpf)?.difference(&self.preloaded).cloned().collect())
    }

    /// Starts the dataplane, without waiting for anything.
    pub fn start_dataplane(&mut self) -> Result<()> {
        let Paths { dataplane_socket, bpf, .. } = &self.paths;
        let arguments = ["run".to_owned(), option("--socket", dataplane_socket), option("--bpf-dir", bpf)];
        self.dataplane = Some(self.spawn("shunt-dataplane", &arguments)?);
        Ok(())
    }

    /// Starts the control plane, without waiting for anything.
    pub fn start_controlplane(&mut self) -> Result<()> {
        let Paths { config, socket, dataplane_socket, state, .. } = &self.paths;
        let arguments = [
            option("--config", config),
            option("--socket", socket),
            option("--dataplane-socket", dataplane_socket),
            option("--state-dir", state),
        ];
        self.controlplane = Some(self.spawn("shunt-controlplane", &arguments)?);
        Ok(())
    }

    fn spawn(&self, program: &str, arguments: &[String]) -> Result<Process> {
        Process::start(self.run, self.lb, program, &programs::path(program)?, arguments)
    }

    /// `kill -9`.
    pub fn kill_dataplane(&mut self) -> Result<()> {
        self.dataplane.take().map_or(Ok(()), Process::kill)
    }

    /// `kill -9`.
    pub fn kill_controlplane(&mut self) -> Result<()> {
        self.controlplane.take().map_or(Ok(()), Process::kill)
    }

    /// Asks the control plane to end, which withdraws what it announces first.
    pub fn end_controlplane(&self) {
        self.controlplane.iter().for_each(|daemon| daemon.signal(Signal::TERM));
    }

    /// Waits for the end of the control plane that was asked for, which must be with exit code 0.
    pub fn controlplane_ended(&mut self) -> Result<()> {
        self.controlplane.take().map_or(Ok(()), ended)
    }

    /// Asks both daemons to end; both have to, with exit code 0.
    pub fn stop(&mut self) -> Result<()> {
        for daemon in [self.controlplane.take(), self.dataplane.take()].into_iter().flatten() {
            daemon.signal(Signal::TERM);
            ended(daemon)?;
        }
        Ok(())
    }

    /// Lets the daemons of a kept run live on.
    pub fn release(self) -> Paths {
        self.paths
    }

    /// An `lbctl` command line for these daemons.
    pub fn lbctl_command(&self) -> Result<Command> {
        let mut command = Command::new(programs::path("lbctl")?);
        let Paths { socket, dataplane_socket, .. } = &self.paths;
        command.arg(option("--socket", socket)).arg(option("--dataplane-socket", dataplane_socket));
        Ok(command)
    }

    /// Runs `lbctl`; its exit code is the caller's to judge.
    pub fn lbctl(&self, arguments: &[&str]) -> Result<Output> {
        command::output(self.lbctl_command()?.args(arguments))
    }

    /// Runs `lbctl … -o json` and reads its answer.
    pub fn lbctl_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let mut command = self.lbctl_command()?;
        let answer = command::run(command.args(arguments).args(["-o", "json"]))?;
        let read = serde_json::from_str(&answer).map_err(std::io::Error::from);
        read.to(|| format!("read the answer of `{}`", command::line(&command)))
    }

    /// Counters of all workers.
    pub fn stats(&self) -> Result<Stats> {
        self.lbctl_json(&["stats"])
    }

    /// Client ends of the flows that it has met and not forgotten.
    pub fn client_ends(&self) -> Result<BTreeSet<SocketAddr>> {
        let Flows { flows, .. } = self.lbctl_json(&["flows", "--limit", "100000"])?;
        Ok(flows.iter().map(|flow| SocketAddr::new(flow.client, flow.client_port)).collect())
    }

    /// Waits until `lbctl status` finds nothing wrong, and says how long that took.
    pub fn wait_healthy(&mut self, limit: Duration) -> Result<Duration> {
        let mut said = String::new();
        let healthy = wait::until("`lbctl status` to be healthy", limit, || {
            let daemons =
                [("shunt-dataplane", &mut self.dataplane), ("shunt-controlplane", &mut self.controlplane)];
            for (name, daemon) in daemons {
                if let Some(daemon) = daemon
                    && !daemon.is_running()
                {
                    return Err(Error::Wrong(format!("{name} ended:\n{}", tail(&daemon.log()))));
                }
            }
            let output = self.lbctl(&["status"])?;
            said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            Ok(output.status.success().then_some(()))
        });
        match healthy {
            Ok(((), elapsed)) => Ok(elapsed),
            Err(Error::Timeout { what, limit }) => {
                Err(Error::Timeout { what: format!("{what}; it says:\n{said}"), limit })
            }
            Err(error) => Err(error),
        }
    }

    /// Writes other settings and makes the daemons take them over.
    pub fn apply(&self, settings: &Settings) -> Result<()> {
        self.run.write("shunt.toml", settings.to_string())?;
        command::run(self.lbctl_command()?.arg("reload")).map(drop)
    }
}

fn entries(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir(directory).to(|| format!("read {}", directory.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn ended(mut daemon: Process) -> Result<()> {
    let status = daemon.wait(PATIENCE)?;
    ensure(status.success(), || format!("a stopped daemon ended with {status}:\n{}", tail(&daemon.log())))
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// The last lines of a log.
pub fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
