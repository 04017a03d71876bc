//! Writes the manual pages of all programs and what shells need to complete them, from their command lines. The
//! package is made of it (`deploy/package.sh`); nobody installs this program.
//!
//!     shunt-manual DIRECTORY
//!
//! makes `DIRECTORY/man/*.8`, a page for each program and each of its commands, and `DIRECTORY/completions/SHELL/*`.

mod page;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

/// Whom completions are written for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

fn programs() -> [Command; 4] {
    [
        lbctl::command(),
        nic_config::command(),
        shunt_controlplane::command(),
        shunt_dataplane::arguments::command(),
    ]
}

fn main() -> anyhow::Result<()> {
    let directory =
        std::env::args_os().nth(1).map(PathBuf::from).context("say where to: shunt-manual DIRECTORY")?;
    for program in programs() {
        write_pages(&program, &directory.join("man"))?;
        write_completions(&program, &directory.join("completions"))?;
    }
    Ok(())
}

fn write_pages(program: &Command, directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    for (name, text) in page::pages(program)? {
        let file = directory.join(format!("{name}.{}", page::SECTION));
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn write_completions(program: &Command, directory: &Path) -> anyhow::Result<()> {
    for shell in SHELLS {
        let directory = directory.join(shell.to_string());
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let (mut program, name) = (program.clone(), program.get_name().to_owned());
        let file = clap_complete::generate_to(shell, &mut program, &name, &directory)
            .with_context(|| directory.display().to_string())?;
        if shell == Shell::Bash {
            // bash-completion finds a program's file by the program's name.
            fs::rename(&file, directory.join(&name)).with_context(|| file.display().to_string())?;
        }
    }
    Ok(())
}
