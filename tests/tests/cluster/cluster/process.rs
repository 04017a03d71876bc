//! The processes of the cluster and of Shunt: what happens to them in scenarios.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use shunt_tests::error::{Error, Result, While};
use shunt_tests::{leftovers, wait};

use super::{Cluster, LOOK, START_LIMIT};

impl Cluster {
    /// Number of a process that the cluster's scripts started.
    pub(super) fn recorded(&self, name: &str) -> Result<u32> {
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
}
