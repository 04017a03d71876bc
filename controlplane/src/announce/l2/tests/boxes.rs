//! Boxes that announce: on a thread of this process, or in a process of their own that can be killed.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use shunt_api::config::Config;
use shunt_api::status::L2Status;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

use super::segment::{Host, enter};
use crate::announce::Wanted;
use crate::announce::l2::{Settings, run};
use crate::journal::Journal;

/// Set in the process that is to die: what it does, and the addresses.
const VICTIM: &str = "SHUNT_TEST_L2_VICTIM";
/// The longest that anything takes here.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Waits for what no channel tells.
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::yield_now();
    }
}

/// As `announce.l2 = {text}` means it.
fn settings(nics: &[&str], text: &str, able: bool) -> Settings {
    let document = format!(
        "[announce]\nl2 = {text}\n[[nic]]\nname = \"v0\"\n[pools.a]\n\
         backends = [{{ name = \"b\", address = \"10.0.0.1\" }}]\n\
         [[service]]\nname = \"s\"\nvip = [\"203.0.113.10\"]\nports = [\"tcp/80\"]\npool = \"a\"\n"
    );
    let l2 = Config::parse(&document, "shunt.toml").unwrap().announce.l2.unwrap();
    Settings { nics: nics.iter().map(|name| (*name).to_owned()).collect(), l2, able }
}

fn these(settings: Settings, addresses: &[&str]) -> Wanted<Settings> {
    Wanted::These { settings, addresses: addresses.iter().map(|address| ip(address)).collect() }
}

/// A box of this process.
pub struct Runner {
    wanted: watch::Sender<Wanted<Settings>>,
    standing: watch::Receiver<L2Status>,
    journal: Journal,
    waiter: Runtime,
    thread: JoinHandle<()>,
}

impl Runner {
    /// One that announces by `v0`.
    pub fn start(host: &Host, text: &str, addresses: &[&str]) -> Self {
        Self::start_on(host, &["v0"], text, addresses)
    }

    /// One that announces by these NICs.
    pub fn start_on(host: &Host, nics: &[&str], text: &str, addresses: &[&str]) -> Self {
        Self::start_after(host, || (), nics, text, addresses)
    }

    /// One whose thread does something first.
    pub fn start_after(
        host: &Host,
        first: impl FnOnce() + Send + 'static,
        nics: &[&str],
        text: &str,
        addresses: &[&str],
    ) -> Self {
        let (wanted, wanted_there) = watch::channel(these(settings(nics, text, true), addresses));
        let (standing_there, standing) = watch::channel(L2Status::default());
        let (journal, namespace) = (Journal::default(), host.file());
        let journal_there = journal.clone();
        let thread = thread::spawn(move || {
            enter(&namespace);
            first();
            let runtime = Builder::new_current_thread().build().unwrap();
            runtime.block_on(run(wanted_there, journal_there, standing_there));
        });
        let waiter = Builder::new_current_thread().enable_all().build().unwrap();
        Self { wanted, standing, journal, waiter, thread }
    }

    /// Waits until the status is as expected.
    pub fn until(&mut self, what: &str, expected: impl Fn(&L2Status) -> bool) {
        let reached = self.standing.wait_for(|status| expected(status));
        let reached =
            self.waiter.block_on(async { timeout(PATIENCE, reached).await.map(|status| status.is_ok()) });
        assert_eq!(reached, Ok(true), "{what}: not within {PATIENCE:?}: {:?}", self.standing.borrow());
    }

    /// The status that was published last.
    pub fn status(&self) -> L2Status {
        self.standing.borrow().clone()
    }

    /// The status after the NICs were looked at again, so that it knows all that has happened until now.
    pub fn status_later(&mut self) -> L2Status {
        let start = Instant::now();
        let changed = Duration::from_millis(600);
        while let Some(left) = changed.checked_sub(start.elapsed()) {
            let _ = self.waiter.block_on(async { timeout(left, self.standing.changed()).await });
        }
        self.status()
    }

    /// Whether the dataplane forwards.
    pub fn set_able(&self, now_able: bool) {
        self.wanted.send_modify(|wanted| {
            if let Wanted::These { settings, .. } = wanted {
                settings.able = now_able;
            }
        });
    }

    /// It is not known what is wanted.
    pub fn forget(&self) {
        self.wanted.send_replace(Wanted::Unknown);
    }

    /// Nothing is wanted.
    pub fn unuse(&self) {
        self.wanted.send_replace(Wanted::Unused);
    }

    /// As `lbctl events` shows them.
    pub fn events(&self) -> Vec<String> {
        self.journal.kept().iter().map(ToString::to_string).collect()
    }

    /// Ends it as the control plane does, and waits for it.
    pub fn end(self) {
        drop(self.wanted);
        self.thread.join().unwrap();
    }
}

/// A box in a process of its own.
pub struct Victim(Child);

impl Victim {
    /// One that announces by `v0`; returns when it has begun to.
    pub fn start(host: &Host, text: &str, addresses: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["announce::l2::tests::victim", "--exact", "--ignored", "--nocapture"])
            .env(VICTIM, format!("{text};{}", addresses.join(",")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = host.inside(|| command.spawn().unwrap());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the other process does not announce");
        Self(child)
    }

    /// Stops it, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Kills it as nothing can resist; returns when.
    pub fn kill(mut self) -> Instant {
        let now = Instant::now();
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        now
    }
}

/// What the process does until it is killed, or whoever started it is gone.
pub fn be_victim() {
    let Ok(task) = std::env::var(VICTIM) else { return };
    let (text, addresses) = task.split_once(';').unwrap();
    let addresses: Vec<&str> = addresses.split(',').collect();
    let (wanted, wanted_there) = watch::channel(these(settings(&["v0"], text, true), &addresses));
    let standing = watch::Sender::new(L2Status::default());
    let announcing = thread::spawn(move || {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(wanted_there, Journal::default(), standing));
    });
    println!("ready");
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(wanted);
    announcing.join().unwrap();
}
