//! What a run leaves on the machine, and its removal.
//!
//! A run owns everything that carries its name `sh<pid>x<n>`: the directory `<tmp>/shunt-<run>` with
//! the mounts below it, the network namespaces `<run>-<role>`, and every process inside these. Removal needs
//! nothing but the name, so it also works for runs whose process was killed; it never looks at anything else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Result, While};
use crate::wait;

/// Where `ip netns` keeps the names.
pub const NETNS_DIRECTORY: &str = "/run/netns";
/// Before the run's name in the name of its directory.
const DIRECTORY_PREFIX: &str = "shunt-";
/// File of a run's directory that says who owns it.
pub const OWNER_FILE: &str = "owner";
/// Content of [`OWNER_FILE`] when the run shall outlive its maker.
pub const KEPT: &str = "kept";

/// Between SIGKILL and the end of a process.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Where a run keeps its files and mounts.
pub fn directory_of(run: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{DIRECTORY_PREFIX}{run}"))
}

/// Removes everything of one run. Removing it twice is fine.
pub fn remove(run: &str) -> Result<()> {
    let namespaces = namespaces_of(run);
    kill_inside(&namespaces)?;
    let directory = directory_of(run);
    for mount in mounts_below(&directory) {
        unmount(&mount, UnmountFlags::DETACH).to(|| format!("unmount {}", mount.display()))?;
    }
    for namespace in &namespaces {
        let path = Path::new(NETNS_DIRECTORY).join(namespace);
        // A name whose mount is already gone still has its file.
        let _ = unmount(&path, UnmountFlags::DETACH);
        fs::remove_file(&path).to(|| format!("remove {}", path.display()))?;
    }
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).to(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Removes all runs of one process, as far as that is possible.
pub fn remove_runs_of(pid: u32) {
    for run in runs().iter().filter(|run| maker(run) == Some(pid)) {
        if let Err(error) = remove(run) {
            eprintln!("{run}: {error}; run `shunt-demo --clean`");
        }
    }
}

/// Removes the runs that nobody owns any more, those left running on purpose included; of these, only one
/// if `only` names it. Returns their names.
pub fn remove_abandoned(only: Option<&str>) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for run in runs().into_iter().filter(|run| only.is_none_or(|only| only == run)) {
        let owner = fs::read_to_string(directory_of(&run).join(OWNER_FILE)).unwrap_or_default();
        if owner == KEPT || !owner_lives(&run, &owner) {
            remove(&run)?;
            removed.push(run);
        }
    }
    Ok(removed)
}

/// All runs that left a trace on this machine.
pub fn runs() -> BTreeSet<String> {
    let directories = names_in(&std::env::temp_dir());
    let by_directory = directories.iter().filter_map(|name| name.strip_prefix(DIRECTORY_PREFIX));
    let namespaces = names_in(Path::new(NETNS_DIRECTORY));
    let by_namespace = namespaces.iter().filter_map(|name| name.split('-').next());
    by_directory.chain(by_namespace).filter(|run| maker(run).is_some()).map(str::to_owned).collect()
}

/// Namespaces, mounts and directories of a run that exist now, in words; empty when it is gone.
pub fn traces_of(run: &str) -> Vec<String> {
    let directory = directory_of(run);
    let mut traces = namespaces_of(run);
    traces.extend(mounts_below(&directory).iter().map(|path| path.display().to_string()));
    traces.extend(directory.exists().then(|| directory.display().to_string()));
    traces
}

/// Processes inside a run's namespaces.
pub fn processes_of(run: &str) -> Vec<u32> {
    processes_inside(&namespaces_of(run))
}

/// Whether a process runs: it exists and is not a zombie.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// What identifies a process beyond its reusable number: its start time in clock ticks since boot.
pub fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name in parentheses, may contain anything; start time is field 22.
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

fn owner_lives(run: &str, owner: &str) -> bool {
    match (maker(run).and_then(start_time), owner) {
        (None, _) => false,
        // A run without a directory was interrupted at its very beginning or end.
        (Some(_), "") => true,
        (Some(started), owner) => started == owner,
    }
}

/// The process number in a run's name.
fn maker(run: &str) -> Option<u32> {
    let (pid, number) = run.strip_prefix("sh")?.split_once('x')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn namespaces_of(run: &str) -> Vec<String> {
    let mut names = names_in(Path::new(NETNS_DIRECTORY));
    names.retain(|name| name.strip_prefix(run).is_some_and(|rest| rest.starts_with('-')));
    names
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let targets = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    targets.filter(|target| target.starts_with(directory)).collect()
}

fn kill_inside(namespaces: &[String]) -> Result<()> {
    wait::until_true("killed processes to end", KILL_LIMIT, || {
        let inside = processes_inside(namespaces);
        for pid in inside.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may have ended on its own meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        inside.is_empty()
    })?;
    Ok(())
}

/// Numbers of all processes in these network namespaces, except this one. A zombie has left its namespace.
fn processes_inside(namespaces: &[String]) -> Vec<u32> {
    let inode_of = |path: PathBuf| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let paths = namespaces.iter().map(|name| Path::new(NETNS_DIRECTORY).join(name));
    let inodes: BTreeSet<_> = paths.filter_map(inode_of).collect();
    let is_inside = |pid: &u32| {
        let namespace = inode_of(format!("/proc/{pid}/ns/net").into());
        *pid != std::process::id() && namespace.is_some_and(|inode| inodes.contains(&inode))
    };
    let everyone = names_in(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    everyone.filter(is_inside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_runs() {
        assert_eq!(maker("sh123x0"), Some(123));
        for other in ["", "sh", "sh12", "shx1", "sh1x", "cni-123", "shell12x1", "sh1x2y"] {
            assert_eq!(maker(other), None, "{other}");
        }
    }

    #[test]
    fn an_owner_is_known_by_number_and_start_time() {
        let pid = std::process::id();
        let run = format!("sh{pid}x0");
        assert!(owner_lives(&run, &start_time(pid).unwrap()));
        assert!(!owner_lives(&run, "1"), "the number is in use again by another process");
        assert!(!owner_lives("sh4194305x0", ""), "no process has a number above the kernel's limit");
    }
}
