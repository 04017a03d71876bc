//! Where the figures come from, in a line: they mean little without.

use std::fs;
use std::process::Command;

/// Processor, cores, kernel and commit.
pub fn description() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores, Linux {}, commit {}", processor(), kernel(), commit())
}

/// Cores that other programs keep busy, averaged over the last minute.
pub fn busy_cores() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

fn processor() -> String {
    let table = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = table.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    name.unwrap_or("unknown processor").to_owned()
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Short hash of what is checked out; `+` when files differ from it, other than what benchmarks write.
fn commit() -> String {
    let Some(hash) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let others = [":(top)", ":(top,exclude)benches/results", ":(top,exclude)docs/performance.md"];
    let differs = git(&[&["status", "--porcelain", "--"][..], &others].concat());
    if differs.is_none_or(|files| !files.is_empty()) { hash + "+" } else { hash }
}

fn git(arguments: &[&str]) -> Option<String> {
    let said = Command::new("git").args(arguments).output().ok()?;
    let text = said.status.success().then_some(said.stdout)?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}
