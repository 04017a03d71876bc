//! A benchmark that is told to end leaves neither processes nor files behind.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use shunt_tests::leftovers;
use shunt_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);

/// Processes that were started by this one and run.
fn children(parent: u32) -> Vec<u32> {
    let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let all: Vec<u32> = threads
        .flat_map(|t| of(t).split_whitespace().filter_map(|c| c.parse().ok()).collect::<Vec<_>>())
        .collect();
    all.into_iter().filter(|&child| leftovers::is_running(child)).collect()
}

#[test]
fn counting_that_is_interrupted_leaves_nothing() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_shunt-benches"))
        .args(["pipeline", "--only", "dr v4 100000 "])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = bench.id();
    let started = wait::until("valgrind to start", LIMIT, || {
        let counting = children(pid);
        Ok((!counting.is_empty()).then_some(counting))
    });
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(bench.wait().unwrap().code(), Some(130));
    let (started, _) = started.unwrap();
    wait::until_true("valgrind to end", LIMIT, || !started.iter().any(|&child| leftovers::is_running(child)))
        .unwrap();
    let prefix = format!("sh{pid}x");
    let left: Vec<_> = leftovers::runs().into_iter().filter(|run| run.starts_with(&prefix)).collect();
    assert!(left.is_empty(), "{left:?}");
}
