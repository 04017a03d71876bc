//! `shunt-dataplane`: moves packets. Takes a snapshot from the control plane, attaches to the NICs it names
//! and forwards by it, for ever, whether the control plane lives or not.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use shunt_api::daemon;
use shunt_dataplane::arguments::{Arguments, Command};
use shunt_dataplane::clock::Clock;
use shunt_dataplane::control::Control;
use shunt_dataplane::http;
use shunt_dataplane::probe;
use shunt_dataplane::program::{Steering, detach_leftovers};
use shunt_dataplane::replay::command;
use tokio::sync::mpsc;

/// Requests waiting for the control task: more askers than this wait their turn at the socket.
const COMMAND_QUEUE: usize = 64;

fn main() -> ExitCode {
    daemon::end("shunt-dataplane", start(Arguments::parse()))
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    daemon::start_log(&arguments.log_level)?;
    match arguments.command {
        Command::Run { socket, bpf } => run(&socket, &bpf.path),
        Command::Detach { bpf } => detach(&bpf.path),
        Command::Replay(options) => Ok(command::run(&options)?),
    }
}

fn detach(bpf_dir: &Path) -> anyhow::Result<()> {
    let mut removed = detach_leftovers(bpf_dir)?;
    removed.extend(probe::remove_leftovers()?);
    if removed.is_empty() {
        println!("nothing to remove in {}", bpf_dir.display());
    }
    removed.iter().for_each(|what| println!("removed {what}"));
    Ok(())
}

fn run(socket: &Path, bpf_dir: &Path) -> anyhow::Result<()> {
    let clock = Clock::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let signal = daemon::stop_signal()?;
        let (listener, socket_file) = daemon::listen(socket, "shunt-dataplane").await?;
        let control = Control::new(Steering::open(bpf_dir)?, clock);
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
        let server = tokio::spawn(http::serve(listener, commands));
        tracing::info!("listening on {}", socket.display());
        daemon::notify_ready();
        let stop = async {
            tracing::info!("{}: detaching from the NICs", signal.await);
            daemon::notify_stopping();
        };
        control.run(queue, stop).await?;
        server.abort();
        drop(socket_file);
        Ok(())
    })
}
