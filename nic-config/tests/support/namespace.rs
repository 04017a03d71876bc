//! A network namespace of a test's own, and the real binary in it.
#![allow(dead_code)] // each test program uses a part

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// A network namespace with a veth pair `one`–`two` of four queues, and a directory; dropping it removes both.
pub struct Namespace {
    /// Of `ip netns`.
    pub name: String,
    /// Empty at first.
    pub directory: PathBuf,
}

impl Namespace {
    /// `None`, with a word why, without the right to make one.
    pub fn new(name: &str) -> Option<Self> {
        let name = format!("nic-config-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        let namespace = Self { name, directory };
        if !rustix::process::geteuid().is_root() {
            // Unlike println!, this is not captured by the test harness.
            let _ = writeln!(std::io::stderr(), "SKIPPED: making a network namespace needs root");
            return None;
        }
        std::fs::create_dir_all(&namespace.directory).unwrap();
        ip(&["netns", "add", &namespace.name]);
        let pair =
            "link add one numrxqueues 4 numtxqueues 4 type veth peer name two numrxqueues 4 numtxqueues 4";
        namespace.ip(pair);
        namespace.ip("link set one mtu 1400 up");
        namespace.ip("link set two up");
        Some(namespace)
    }

    /// `ip` in the namespace.
    pub fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split(' '));
        ip(&all);
    }

    /// A program in the namespace.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(arguments).output().unwrap()
    }

    /// The binary in the namespace.
    pub fn nic_config(&self, arguments: &[&str]) -> Output {
        self.run(env!("CARGO_BIN_EXE_nic-config"), arguments)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if rustix::process::geteuid().is_root() {
            ip(&["netns", "delete", &self.name]);
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// `ip`, which must succeed.
pub fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {}", arguments.join(" "));
}

/// What the binary printed, if it succeeded.
pub fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}
