//! A network namespace by name: configure it, run something inside it. Who creates and removes it is
//! [`crate::run::Run`].

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command;
use crate::error::{Error, Result, While};
use crate::leftovers::NETNS_DIRECTORY;

/// A named network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn named(name: String) -> Self {
        Self { name }
    }

    /// One that something else made, and removes.
    pub fn existing(name: &str) -> Self {
        Self::named(name.to_owned())
    }

    /// As in `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file to enter it by.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIRECTORY).join(&self.name)
    }

    /// Runs lines of `ip` commands inside.
    pub fn ip(&self, batch: &str) -> Result<()> {
        command::feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), batch).map(drop)
    }

    /// Sets kernel parameters, `/`-separated as below `/proc/sys`.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        // Files of /proc/sys/net belong to the namespace of the thread that opens them.
        self.inside(|| {
            settings.iter().try_for_each(|(key, value)| {
                fs::write(Path::new("/proc/sys/net").join(key), value).to(|| format!("set {key} to {value}"))
            })
        })?
    }

    /// A command line that runs `program` inside.
    ///
    /// Only the network namespace changes: unlike with `ip netns exec`, mounts of the caller, such as a
    /// bpffs, stay visible.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a short program inside; anything but exit code 0 is an error.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        command::run(self.command(program).args(arguments))
    }

    /// Calls `work` on a thread inside the namespace. Sockets made there stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path()).to(|| format!("open namespace {}", self.name))?;
        let entered = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .to(|| format!("enter namespace {}", self.name))?;
            Ok(work())
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|_| Err(Error::Wrong(format!("a thread inside {} panicked", self.name))))
    }
}
