//! Which core runs what: load comes from the first, what is measured works on the second.

use std::fs;

use rustix::process::{Pid, getpriority_process, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use shunt_tests::error::{Error, Result, While};

/// Keeps the calling thread on a core.
pub fn pin_this_thread(core: usize) -> Result<()> {
    sched_setaffinity(None, &only(core)).to(|| format!("run on core {core}"))
}

/// Lets a kernel thread be scheduled as this process is, which its whole session may have a priority for.
pub fn prioritise(thread: u32) -> Result<()> {
    let what = || format!("set the priority of kernel thread {thread}");
    let session = fs::read_to_string("/proc/self/autogroup").unwrap_or_default();
    let session = session.rsplit(' ').next().and_then(|nice| nice.trim().parse().ok()).unwrap_or(0);
    let own = getpriority_process(None).to(what)?;
    setpriority_process(Pid::from_raw(thread.cast_signed()), own.min(session)).to(what)
}

/// Keeps a process of one thread, or a kernel thread, on a core.
pub fn pin(process: u32, core: usize) -> Result<()> {
    sched_setaffinity(Pid::from_raw(process.cast_signed()), &only(core))
        .to(|| format!("keep process {process} on core {core}"))
}

/// Kernel threads that poll the NICs of this name, of all network namespaces.
pub fn polling_threads(nic: &str) -> Result<Vec<u32>> {
    let start = format!("napi/{nic}-");
    let entries = fs::read_dir("/proc").to(|| "list processes".to_owned())?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let named = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(&start))
    };
    Ok(pids.filter(named).collect())
}

/// Fails unless there is a core for the load and one for what is measured.
pub fn demand_cores(cores: usize) -> Result<()> {
    let available = shunt_dataplane::cores::available();
    match (0..cores).find(|core| !available.contains(core)) {
        Some(missing) => Err(Error::Wrong(format!(
            "core {missing} is not available to this process; run it where it may use cores 0 to {}",
            cores - 1
        ))),
        None => Ok(()),
    }
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}
