//! BIRD beside a box or on a router, with the configurations that `deploy/bird` gives to operators.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::run::Run;

/// For a box of Shunt.
pub const BOX: &str = include_str!("../../deploy/bird/bird.conf");
/// For the router before two boxes.
pub const ROUTER: &str = include_str!("../../deploy/bird/router.conf");

/// A running BIRD.
pub struct Bird {
    process: Process,
    control: PathBuf,
}

impl Bird {
    /// Starts it inside a namespace; all its files are in the run's directory, under its name.
    pub fn start(run: &Run, namespace: &Namespace, name: &str, configuration: &str) -> Result<Self> {
        let configuration = configuration.replace("log syslog all;", "log stderr all;");
        let file = run.write(&format!("{name}.conf"), configuration)?;
        let [control, pid] = ["ctl", "pid"].map(|kind| run.directory().join(format!("{name}.{kind}")));
        let option = |letter: &str, path: &Path| [letter.to_owned(), path.display().to_string()];
        let files = [option("-c", &file), option("-s", &control), option("-P", &pid)];
        let arguments: Vec<_> = std::iter::once("-f".to_owned()).chain(files.into_iter().flatten()).collect();
        let process = Process::start(run, namespace, name, Path::new("bird"), &arguments)?;
        Ok(Self { process, control })
    }

    /// What `birdc` answers to a command.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        command::run(Command::new("birdc").arg("-s").arg(&self.control).args(words))
    }

    /// What it wrote to its log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// A configuration in which `define NAME = …;` has other values.
pub fn define(configuration: &str, values: &[(&str, String)]) -> Result<String> {
    let mut lines: Vec<_> = configuration.lines().map(str::to_owned).collect();
    for (name, value) in values {
        let begin = format!("define {name} = ");
        let line = lines.iter_mut().find(|line| line.starts_with(&begin));
        let line = line.ok_or_else(|| Error::Wrong(format!("the configuration defines no {name}")))?;
        *line = format!("{begin}{value};");
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_test_and_the_rest_is_the_operators() {
        let changed = define(BOX, &[("BOX_V4", "10.0.0.1".into()), ("BOX_AS", "1".into())]).unwrap();
        assert!(
            changed.contains("\ndefine BOX_V4 = 10.0.0.1;\n") && changed.contains("\ndefine BOX_AS = 1;\n")
        );
        let differing = BOX.lines().zip(changed.lines()).filter(|(one, other)| one != other).count();
        assert_eq!((differing, BOX.lines().count()), (2, changed.lines().count()));
        assert!(define(ROUTER, &[("BOX_V4", String::new())]).is_err());
        assert!(BOX.contains("\nlog syslog all;\n") && ROUTER.contains("\nlog syslog all;\n"));
    }
}
