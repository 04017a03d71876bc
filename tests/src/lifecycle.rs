//! Nothing is left behind: every [`crate::run::Run`] of this process is registered here and removed when
//! its owner drops it, when the process is told to end (Ctrl-C, `kill`), and when it panics.
//!
//! Whoever creates something that outlives a function (a namespace, a mount, a process) holds [`gate`]
//! meanwhile; once the process is ending, the gate never opens again, so nothing is created behind the
//! back of the removal.

use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

use rustix::process::WaitOptions;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Result, While};
use crate::leftovers;

static RUNS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Exit code after a signal, as shells have it for SIGINT.
const INTERRUPTED: i32 = 130;
/// Exit code of a panicked Rust program.
const PANICKED: i32 = 101;

/// Keeps the removal out while something is being created.
pub struct Gate {
    runs: MutexGuard<'static, Vec<String>>,
}

/// Opens unless the process is ending; then the caller sleeps until the end.
pub fn gate() -> Gate {
    Gate { runs: RUNS.lock().unwrap_or_else(PoisonError::into_inner) }
}

impl Gate {
    /// From now on the run is removed if the process ends.
    pub fn register(&mut self, run: &str) {
        self.runs.push(run.to_owned());
    }

    /// The run is gone, or has been left to live on its own.
    pub fn forget(&mut self, run: &str) {
        self.runs.retain(|known| known != run);
    }
}

/// Watches for signals and panics. Call once, first thing in `main`.
pub fn install() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .to(|| "start the signal watcher".to_owned())?;
    let signals = runtime
        .block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            kinds.into_iter().map(signal).collect::<std::io::Result<Vec<_>>>()
        })
        .to(|| "catch signals".to_owned())?;
    let Ok([mut interrupt, mut terminate, mut hangup]) = <[_; 3]>::try_from(signals) else {
        unreachable!("one stream per kind")
    };
    let watcher = thread::Builder::new().name("signals".to_owned());
    let watch = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
                _ = hangup.recv() => (),
            }
        });
        eprintln!("\ninterrupted, cleaning up");
        // Held until the exit: whoever comes to the gate now waits there for the end.
        let gate = gate();
        remove(&gate.runs);
        reap();
        std::process::exit(INTERRUPTED);
    };
    watcher.spawn(watch).to(|| "start the signal watcher".to_owned())?;
    install_panic_hook();
    Ok(())
}

fn install_panic_hook() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        match RUNS.try_lock() {
            Ok(runs) => remove(&runs),
            Err(TryLockError::Poisoned(poisoned)) => remove(&poisoned.into_inner()),
            // Either the removal is already at work or this thread panicked inside the gate.
            Err(TryLockError::WouldBlock) => leftovers::remove_runs_of(std::process::id()),
        }
        std::process::exit(PANICKED);
    }));
}

/// Collects the killed programs: where the first process of a container does not, they would stay as
/// zombies.
fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

fn remove(runs: &[String]) {
    for run in runs {
        if let Err(error) = leftovers::remove(run) {
            eprintln!("{run}: {error}; run `shunt-demo --clean`");
        }
    }
}
