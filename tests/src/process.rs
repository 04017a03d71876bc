//! Long-running programs of a scenario: started in a namespace, logged to the run's directory, ended by
//! their number.
//!
//! They die with the harness even if it is killed (`PR_SET_PDEATHSIG`), unless the run is kept. The signal
//! comes when the *thread* that started them ends, so scenarios start programs from their main thread only.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::command;
use crate::error::{Result, While};
use crate::lifecycle;
use crate::namespace::Namespace;
use crate::run::Run;
use crate::wait;

/// A started program; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    log: PathBuf,
    kept: bool,
}

impl Process {
    /// Starts `program` inside the namespace; its stdout goes to `NAME.out` and its stderr to `NAME.log` of
    /// the run's directory, after what is there already.
    pub fn start(
        run: &Run,
        namespace: &Namespace,
        name: &str,
        program: &Path,
        arguments: &[String],
    ) -> Result<Self> {
        let [output, log] = ["out", "log"].map(|kind| run.directory().join(format!("{name}.{kind}")));
        let append = |path: &Path| {
            let opened = File::options().create(true).append(true).open(path);
            opened.to(|| format!("open {}", path.display()))
        };
        let (stdout, stderr) = (append(&output)?, append(&log)?);
        let mut command = if run.is_kept() {
            namespace.command(program)
        } else {
            dying_with_us(&namespace.command(program))
        };
        command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        let _gate = lifecycle::gate();
        let child = command.spawn().to(|| format!("start {}", command::line(&command)))?;
        Ok(Self { name: name.to_owned(), child, output, log, kept: run.is_kept() })
    }

    /// Process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stdout so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal; a process that has ended is left alone.
    pub fn signal(&self, signal: Signal) {
        // The child is not reaped before `wait` or `drop`, so the number cannot be another's.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let Self { name, child, .. } = self;
        let ended = wait::until(&format!("{name} to end"), limit, || {
            child.try_wait().to(|| format!("wait for {name}"))
        });
        ended.map(|(status, _)| status)
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL);
        self.child.wait().to(|| format!("wait for {}", self.name)).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command line, run so that the kernel kills it when this thread ends.
fn dying_with_us(inner: &Command) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(inner.get_program()).args(inner.get_args());
    command
}
