//! `nic-config`: how network interfaces stand for Shunt, what would suit it better, and the change to that and
//! back. `show`, `plan` and `doctor` change nothing and need no privilege.
//!
//! It reads a file of its own and knows nothing of the daemons; of `shunt-api` it has the reader of documents
//! alone. How things stand (`kernel`) and what is wanted (`desired`) make the steps between (`plan`, pure),
//! which are done one by one (`apply`), each after its inverse has reached the disk (`journal`).
//!
//! All of the program is here; manual pages and completions are made of [`command`].

mod apply;
mod desired;
mod doctor;
mod ethtool;
mod files;
mod genl;
mod halt;
mod host;
mod irq;
mod journal;
mod kernel;
mod link;
mod netdev;
mod netlink;
mod observe;
mod plan;
mod profile;
mod run;
mod setting;
mod settings;
mod show;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::halt::Halt;
use crate::run::{End, Place};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or nothing to do
  1  not done: an interface does not exist, the kernel refuses, or another nic-config is at work
  2  the command line or the file is wrong, or asks for what this machine does not have
  3  doctor: it works, and could work better
  4  doctor: it does not work, or far worse than it should";

const FILE_HELP: &str = "\
The file, in TOML, names interfaces and what they should be. Every key but the name is optional:

  [[nic]]
  name = \"eth1\"
  queues = 4                  # one worker of Shunt serves each
  irq_cpus = [2, 3, 4, 5]     # CPUs of the queues' interrupts, in turn
  ring_rx = 2048
  optional = [\"ring_rx\"]      # go without if it cannot be

  [host]
  governor = \"performance\"
  [host.sysctl]
  \"net.core.netdev_budget\" = 600

docs/nic-config.md has all keys.";

/// See and set how network interfaces stand for Shunt.
#[derive(Parser)]
#[command(name = "nic-config", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where `/proc` and `/sys` are.
    #[arg(long, global = true, hide = true, default_value = "/")]
    root: PathBuf,
    /// Where it is kept what `revert` puts back.
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/shunt/nic-config")]
    state: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Show driver, queues, rings, XDP features and NUMA node of interfaces; with -o json, every setting.
    #[command(after_help = "Examples:\n  nic-config show eth1\n  nic-config show -o json | jq '.[].driver'")]
    Show(Interfaces),
    /// Tell in words what interfaces will do for Shunt, and what to change.
    #[command(
        after_help = "Examples:\n  nic-config doctor eth1\n  nic-config doctor -o json | jq '.[].severity'\n\nWhat a NIC really gave Shunt is told by `lbctl get nics` once the dataplane runs.\n\nExit codes: 0 good, 3 could work better, 4 does not work well, 1 not examined."
    )]
    Doctor(Interfaces),
    /// Print the steps from how things stand to what a file wants, and change nothing.
    #[command(after_help = FILE_HELP)]
    Plan(File),
    /// Do those steps. What is already as wanted is left alone; if one is refused, all are undone.
    #[command(after_help = FILE_HELP)]
    Apply {
        #[command(flatten)]
        file: File,
        /// Print the steps and change nothing, as `plan` does.
        #[arg(long)]
        dry_run: bool,
        /// End at a step as if killed.
        #[arg(long, hide = true)]
        halt: Option<Halt>,
    },
    /// Put back how everything was before the first `apply`, also after a crash half-way.
    #[command(
        after_help = "What is not there any more, such as an interface that was removed, is told and forgotten. What cannot be put back\nis told and kept, so that `revert` may try again. A restart of the machine puts everything back by itself."
    )]
    Revert {
        #[command(flatten)]
        output: Output,
        /// End at a step as if killed.
        #[arg(long, hide = true)]
        halt: Option<Halt>,
    },
}

#[derive(Args)]
struct Interfaces {
    /// Interfaces; without any, all but the loopback interface.
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct File {
    /// What is wanted.
    #[arg(value_name = "FILE", default_value = "/etc/shunt/nic.toml")]
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Output {
    /// How to print what was found or done.
    #[arg(short, long, value_name = "table|json")]
    #[arg(value_enum, default_value = "table", hide_possible_values = true)]
    output: Format,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Command {
    fn format(&self) -> Format {
        match self {
            Self::Show(interfaces) | Self::Doctor(interfaces) => interfaces.output.output,
            Self::Plan(file) | Self::Apply { file, .. } => file.output.output,
            Self::Revert { output, .. } => output.output,
        }
    }
}

/// The command line.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program.
pub fn main() -> ExitCode {
    let Cli { command, root, state } = Cli::parse();
    let place = Place { root, state, json: command.format() == Format::Json };
    let end = match &command {
        Command::Show(chosen) => run::show(&place, &chosen.interfaces),
        Command::Doctor(chosen) => run::doctor(&place, &chosen.interfaces),
        Command::Plan(File { file, .. }) | Command::Apply { file: File { file, .. }, dry_run: true, .. } => {
            run::plan(&place, file)
        }
        Command::Apply { file, halt, .. } => run::apply(&place, &file.file, halt.unwrap_or_default()),
        Command::Revert { halt, .. } => run::revert(&place, halt.unwrap_or_default()),
    };
    match end {
        Ok(end) => code(end),
        // Whoever reads us, such as `head`, has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nic-config: {error}");
            code(run::end_of(&error))
        }
    }
}

fn code(end: End) -> ExitCode {
    ExitCode::from(match end {
        End::Good => 0,
        End::Incomplete => 1,
        End::File => 2,
        End::Advice => 3,
        End::Problem => 4,
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
