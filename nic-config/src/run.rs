//! The commands: what each reads, does and prints.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde_json::json;
use shunt_api::status::ConfigProblem;

use crate::apply::{self, Applied, ApplyError, Restored};
use crate::desired::{self, Desired};
use crate::doctor::{self, Severity};
use crate::files::Root;
use crate::halt::Halt;
use crate::journal::{Entry, Epoch, Journal};
use crate::kernel::{Kernel, NicState, Scope, World};
use crate::plan::{self, Impossible, Plan, Step};
use crate::show;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All is as asked for.
    Good,
    /// The file is wrong, or asks for what this machine does not have.
    File,
    /// Not all could be done.
    Incomplete,
    /// Works, and could work better.
    Advice,
    /// Does not work, or far worse than it should.
    Problem,
}

/// What all commands share.
pub struct Place {
    /// Where `/proc` and `/sys` are.
    pub root: PathBuf,
    /// Where it is kept what to put back.
    pub state: PathBuf,
    /// Print for programs rather than for people.
    pub json: bool,
}

impl Place {
    fn kernel(&self) -> Kernel {
        Kernel::at(Root::at(&self.root))
    }

    fn journal(&self) -> anyhow::Result<Journal> {
        let boot_id = Root::at(&self.root).read("/proc/sys/kernel/random/boot_id");
        let boot_id = boot_id.context("/proc/sys/kernel/random/boot_id cannot be read; is /proc mounted?")?;
        let namespace = fs::metadata("/proc/self/ns/net")
            .map_err(|error| anyhow!("/proc/self/ns/net cannot be read ({error}); is /proc mounted?"))?
            .ino();
        Ok(Journal::open(&self.state, Epoch { boot_id, namespace })?)
    }

    fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let mut text = if self.json { serde_json::to_string_pretty(value)? } else { text() };
        text.push('\n');
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

/// Shows interfaces.
pub fn show(place: &Place, names: &[String]) -> anyhow::Result<End> {
    let states = place.kernel().nics(names)?;
    place.print(&states, || show::text(&states.iter().map(|state| state.nic.clone()).collect::<Vec<_>>()))?;
    Ok(End::Good)
}

/// Tells what interfaces will do for Shunt.
pub fn doctor(place: &Place, names: &[String]) -> anyhow::Result<End> {
    let kernel = place.kernel();
    let cpus = kernel.host().cpus;
    let diagnoses: Vec<_> =
        kernel.nics(names)?.iter().map(|state: &NicState| doctor::diagnose(state, &cpus)).collect();
    place.print(&diagnoses, || doctor::text(&diagnoses))?;
    Ok(match diagnoses.iter().map(|diagnosis| diagnosis.severity).max() {
        None | Some(Severity::Good) => End::Good,
        Some(Severity::Advice) => End::Advice,
        Some(Severity::Problem) => End::Problem,
    })
}

/// Tells what `apply` would do.
pub fn plan(place: &Place, file: &Path) -> anyhow::Result<End> {
    let desired = read(file)?;
    let scope =
        Scope { nics: desired.nics.iter().map(|nic| nic.name.clone()).collect(), sysctls: desired.sysctls() };
    let plan = plan::plan(&place.kernel().observe(&scope)?, &desired)?;
    place.print(&plan, || plan_text(&plan))?;
    Ok(End::Good)
}

/// Does what the plan says.
pub fn apply(place: &Place, file: &Path, mut halt: Halt) -> anyhow::Result<End> {
    let desired = read(file)?;
    let mut journal = place.journal()?;
    let Applied { done, notes } = apply::apply(&mut place.kernel(), &mut journal, &desired, &mut halt)?;
    let applied = json!({ "done": done, "notes": notes });
    place.print(&applied, || plan_text(&Plan { steps: done, notes }))?;
    Ok(End::Good)
}

/// Puts back what was before the first `apply`.
pub fn revert(place: &Place, mut halt: Halt) -> anyhow::Result<End> {
    let mut journal = place.journal()?;
    let stale = journal.is_stale();
    let restored = apply::revert(&mut place.kernel(), &mut journal, &mut halt)?;
    let value = |entry: &Entry| json!({ "setting": entry.setting.to_string(), "to": entry.before });
    let failed: Vec<&String> = restored.failed.iter().map(|(_, why)| why).collect();
    let gone: Vec<String> = restored.gone.iter().map(ToString::to_string).collect();
    let done: Vec<_> = restored.done.iter().map(value).collect();
    let json = json!({ "done": done, "gone": gone, "failed": failed });
    place.print(&json, || restored_text(&restored, stale))?;
    Ok(if restored.failed.is_empty() { End::Good } else { End::Incomplete })
}

fn read(file: &Path) -> anyhow::Result<Desired> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| {
        anyhow!("{name} cannot be read ({error}); `nic-config plan --help` has an example")
    })?;
    Ok(desired::parse(&text, &name)?)
}

fn plan_text(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.steps.iter().map(step).collect();
    if lines.is_empty() {
        lines.push("nothing to change".to_owned());
    }
    lines.extend(plan.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}

fn step(step: &Step) -> String {
    let Step { setting, from, to, reason, origin, optional } = step;
    let optional = if *optional { ", optional" } else { "" };
    format!("{setting}  {from} -> {to}\n    {reason} ({origin}{optional})")
}

fn restored_text(restored: &Restored, stale: bool) -> String {
    let done = restored.done.iter().map(|entry| format!("{}  -> {}", entry.setting, entry.before));
    let gone = restored.gone.iter().map(|setting| format!("note: {setting} is not there any more"));
    let failed = restored.failed.iter().map(|(_, why)| format!("FAILED: {why}"));
    let lines: Vec<String> = done.chain(gone).chain(failed).collect();
    match (lines.is_empty(), stale) {
        (true, true) => "nothing to put back: the machine was started anew since".to_owned(),
        (true, false) => "nothing to put back".to_owned(),
        _ => lines.join("\n"),
    }
}

/// Which errors are the file's.
pub fn end_of(error: &anyhow::Error) -> End {
    let file = error.is::<ConfigProblem>()
        || error.is::<Impossible>()
        || matches!(error.downcast_ref(), Some(ApplyError::Impossible(_)));
    if file { End::File } else { End::Incomplete }
}
