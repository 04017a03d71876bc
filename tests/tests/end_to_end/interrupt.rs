//! The demo, ended at different moments: nothing of it may be left.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::{command, leftovers, programs, wait};

/// For the demo to get somewhere, and to clean up.
const LIMIT: Duration = Duration::from_secs(30);
/// Exit code after Ctrl-C.
const INTERRUPTED: i32 = 130;

pub fn run() -> Result<()> {
    for signal in [Signal::INT, Signal::TERM] {
        interrupt("its namespaces are being made", signal, |run, _| {
            wait::until_true("the demo's first namespace", LIMIT, || !leftovers::traces_of(run).is_empty())
                .map(drop)
        })?;
    }
    interrupt("the programs start", Signal::INT, |run, _| {
        let socket = leftovers::directory_of(run).join("dataplane.sock");
        wait::until_true("the demo's dataplane", LIMIT, || socket.exists()).map(drop)
    })?;
    interrupt("transfers run", Signal::INT, |_, output| {
        let line = output.map_while(std::io::Result::ok).find(|line| line.contains("long transfers"));
        ensure(line.is_some(), || "the demo never came to its long transfers".to_owned())
    })?;
    killed()
}

/// Lines of a program.
type Lines<'c> = &'c mut dyn Iterator<Item = std::io::Result<String>>;

/// Starts the demo, waits for a moment of its life, sends the signal, and looks for what is left.
fn interrupt(moment: &str, signal: Signal, reach: impl FnOnce(&str, Lines<'_>) -> Result<()>) -> Result<()> {
    let mut demo = Demo::start()?;
    demo.reach(reach)?;
    let processes = leftovers::processes_of(&demo.run);
    demo.signal(signal);
    let (status, elapsed) = wait::until("the interrupted demo to end", LIMIT, || {
        demo.child.try_wait().to(|| "wait for the demo".to_owned())
    })?;
    ensure(status.code() == Some(INTERRUPTED), || {
        format!("interrupted while {moment}, the demo ended with {status}")
    })?;
    gone(&demo.run, &processes)?;
    let name = if signal == Signal::INT { "Ctrl-C" } else { "SIGTERM" };
    println!("   {name} while {moment}: nothing left after {:.0} ms", elapsed.as_secs_f64() * 1e3);
    Ok(())
}

/// `kill -9` leaves namespaces, but no process; `--clean` removes the rest.
fn killed() -> Result<()> {
    let mut demo = Demo::start()?;
    demo.reach(|_, output| {
        let line = output.map_while(std::io::Result::ok).find(|line| line.contains("long transfers"));
        ensure(line.is_some(), || "the demo never came to its long transfers".to_owned())
    })?;
    let processes = leftovers::processes_of(&demo.run);
    ensure(!processes.is_empty(), || "the demo runs no programs".to_owned())?;
    demo.child.kill().to(|| "kill the demo".into())?;
    demo.child.wait().to(|| "wait for the demo".into())?;
    ensure(!leftovers::traces_of(&demo.run).is_empty(), || "kill -9 left nothing to clean".to_owned())?;
    let said = command::run(Command::new(programs::path("shunt-demo")?).args(["--clean", &demo.run]))?;
    ensure(said.contains(&demo.run), || {
        format!("--clean does not say that it removed {}: {said}", demo.run)
    })?;
    gone(&demo.run, &processes)?;
    println!("   kill -9 while transfers run: nothing left after `shunt-demo --clean`");
    Ok(())
}

fn gone(run: &str, processes: &[u32]) -> Result<()> {
    let traces = leftovers::traces_of(run);
    ensure(traces.is_empty(), || format!("left behind: {}", traces.join(", ")))?;
    wait::until_true("the demo's programs to end", LIMIT, || {
        processes.iter().all(|pid| !leftovers::is_running(*pid))
    })
    .map(drop)
}

/// A running demo; dropping it kills it and removes what it left.
struct Demo {
    child: Child,
    run: String,
}

impl Demo {
    fn start() -> Result<Self> {
        let mut command = Command::new(programs::path("shunt-demo")?);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let child = command.spawn().to(|| "start the demo".to_owned())?;
        let run = format!("sh{}x0", child.id());
        Ok(Self { child, run })
    }

    fn reach(&mut self, reach: impl FnOnce(&str, Lines<'_>) -> Result<()>) -> Result<()> {
        let output =
            self.child.stdout.take().ok_or_else(|| Error::Wrong("the demo's output is taken".into()))?;
        let mut lines = BufReader::new(output).lines();
        reach(&self.run, &mut lines)?;
        // Reads the rest, so that the demo does not fail at writing it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        leftovers::remove_runs_of(self.child.id());
    }
}
