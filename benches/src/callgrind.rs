//! Instructions per packet: this program starts itself under valgrind, and callgrind counts what runs inside
//! `measured_turn` and `measured_floor`. The count is the same in every run of the same binary.
//!
//! The child leaves a file for each part that it measured: callgrind writes one whenever [`end_of_part`] returns.

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use shunt_tests::error::{Result, While, ensure};
use shunt_tests::run::Run;

use crate::pipeline::scene::{Part, Scene};
use crate::pipeline::shape::Case;

/// Flows up to which callgrind may watch from the start: it makes a program fifty times slower, and establishing
/// flows takes long enough without.
const WATCHED_FLOWS: u32 = 10_000;
/// Children at once. Counts do not mind what else runs.
const AT_ONCE: usize = 2;

/// What the child does.
#[derive(clap::Args, Debug)]
pub struct Options {
    #[command(flatten)]
    case: Case,
    /// Packets of each part
    #[arg(long)]
    packets: usize,
}

/// What a part of a case took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// The part.
    pub part: Part,
    /// Instructions per packet.
    pub instructions: f64,
}

/// The child: every part of a case, once.
pub fn count(options: &Options) -> Result<()> {
    let Options { case, packets } = options;
    let mut scene = Scene::new(*case, packets_of(case, Part::New, *packets) as u32);
    if case.flows > WATCHED_FLOWS {
        switch_on()?;
    }
    for part in case.parts() {
        let _ = scene.pass(part, packets_of(case, part, *packets));
        end_of_part();
    }
    Ok(())
}

/// Each case's counts, measured on so many packets for each part.
pub fn instructions(cases: &[Case], packets: usize) -> Result<Vec<Vec<Count>>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![None; cases.len()]));
    let work = || -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(index) else { return Ok(()) };
            let counts = of_case(case, packets)?;
            done.lock().expect("no panic while locked")[index] = Some(counts);
        }
    };
    let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic while counting")).collect()
    });
    outcomes.into_iter().collect::<Result<()>>()?;
    let done = done.into_inner().expect("no panic while locked");
    Ok(done.into_iter().map(|counts| counts.expect("every case was counted")).collect())
}

/// Packets of a part of which there shall be so many: only so many flows can be new.
fn packets_of(case: &Case, part: Part, packets: usize) -> usize {
    if part == Part::New { packets.min(case.new_flows() as usize) } else { packets }
}

fn of_case(case: &Case, packets: usize) -> Result<Vec<Count>> {
    let run = Run::of_files()?;
    valgrind(case, packets, run.directory())?;
    read(case, packets, run.directory())
}

fn valgrind(case: &Case, packets: usize, directory: &Path) -> Result<()> {
    let program = std::env::current_exe().to(|| "find this program".to_owned())?;
    let at_start = if case.flows > WATCHED_FLOWS { "no" } else { "yes" };
    // Which ends with this program, however that ends.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "valgrind"])
        .args(["--tool=callgrind", "--toggle-collect=*measured_turn*", "--toggle-collect=*measured_floor*"])
        .args(["--dump-after=*end_of_part*", &format!("--instr-atstart={at_start}")])
        .arg(format!("--callgrind-out-file={}", directory.join("out").display()))
        .arg(program)
        .arg("count")
        .args(case.arguments())
        .arg(format!("--packets={packets}"));
    let output = command
        .stdin(Stdio::null())
        .output()
        .to(|| "start setpriv, which comes with util-linux".to_owned())?;
    ensure(output.status.success(), || {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = said.lines().filter(|line| !line.starts_with("==")).collect();
        let case = case.arguments().join(" ");
        format!(
            "counting {case} under valgrind, which deploy/bootstrap.sh installs, failed: {}",
            lines.join("\n")
        )
    })
}

fn read(case: &Case, packets: usize, directory: &Path) -> Result<Vec<Count>> {
    let of_part = |(index, part): (usize, Part)| {
        let path = part_path(directory, index);
        let text = fs::read_to_string(&path).to(|| format!("read {}", path.display()))?;
        let total = total(&text).ok_or(io::ErrorKind::InvalidData);
        let total = total.map_err(io::Error::from).to(|| format!("find the total in {}", path.display()))?;
        let packets = packets_of(case, part, packets);
        Ok(Count { part, instructions: total as f64 / packets as f64 })
    };
    case.parts().into_iter().enumerate().map(of_part).collect()
}

/// callgrind numbers its files from 1.
fn part_path(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("out.{}", index + 1))
}

/// Events of a profile (Callgrind Format Specification, "totals:"); the first kind is instructions.
fn total(profile: &str) -> Option<u64> {
    let line = profile.lines().find_map(|line| line.strip_prefix("totals:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Where callgrind writes what it has counted, and begins anew.
#[inline(never)]
fn end_of_part() {
    black_box(());
}

/// Tells the callgrind that this process runs under to begin.
fn switch_on() -> Result<()> {
    let pid = format!("--pid={}", std::process::id());
    let mut command = Command::new("vgdb");
    let command = command.args([&pid, "instrumentation", "on"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn().to(|| "start vgdb, which comes with valgrind".to_owned())?;
    // Not a call that waits: valgrind takes commands while the program runs.
    let status = loop {
        if let Some(status) = child.try_wait().to(|| "wait for vgdb".to_owned())? {
            break status;
        }
    };
    ensure(status.success(), || format!("vgdb could not switch callgrind on: {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_profile_is_found() {
        let profile =
            "# callgrind format\nversion: 1\npart: 2\nevents: Ir\nfn=(1) main\n1 7\ntotals: 123456\n";
        for (text, expected) in [
            (profile, Some(123_456)),
            ("totals: 12 3 4\n", Some(12)),
            ("summary: 9\n", None),
            ("totals: many\n", None),
            ("totals:\n", None),
            ("", None),
        ] {
            assert_eq!(total(text), expected, "{text}");
        }
    }
}
