//! `shunt-controlplane`: reads the configuration, decides what the dataplane should do, and keeps it in
//! agreement. It moves no packet: when it dies, the dataplane forwards on by what it has.

mod announce;
mod balance;
mod checksum;
mod control;
mod dataplane;
mod explain;
mod fleet_key;
mod health;
mod http;
mod journal;
mod kubernetes;
mod memory;
mod metrics;
mod roster;
mod source;
mod state;
mod until;
mod view;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use shunt_api::client::Client;
use shunt_api::daemon;
use shunt_controlplane::Arguments;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use announce::Announcing;
use control::Control;
use health::{Prober, Runner};
use journal::Journal;
use kubernetes::Providers;
use kubernetes::election::identity::identity;
use memory::Memory;
use source::file::{self, ConfigFile};

/// A supposed snapshot is compiled first.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    daemon::end("shunt-controlplane", start(Arguments::parse()))
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    daemon::start_log(&arguments.log_level)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(run(arguments));
    // A file system that hangs under a reader must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let hangup = signal(SignalKind::hangup())?;
    let stop = daemon::stop_signal()?;
    let (listener, socket_file) = daemon::listen(&arguments.socket, "shunt-controlplane").await?;

    health::raise_open_files();
    let (runner, results) = Runner::new(Prober::new(), health::seed());
    let memory = Memory::in_directory(&arguments.state_dir);
    let control = Control::new(runner, Journal::default(), memory.backends.read());
    let control = Arc::new(control.remembering(memory.clusters.read()));
    let keeping = memory.clone().keep(&control);
    let announcing = control.announcing();
    let standings = announcing.standings();
    let own_key = arguments.state_dir.join("fleet.key");
    let mut config_file = ConfigFile::new(arguments.config.clone(), own_key);
    // A problem is logged and shown in the status; the file may be mended while this runs.
    let _ = control.configure(config_file.read());

    let providers = Providers::start(Arc::clone(&control), identity(&arguments.state_dir));
    let (reload, requests) = mpsc::channel(1);
    let context = http::Context {
        control: Arc::clone(&control),
        announcing: standings.clone(),
        reload,
        dataplane: Client::dataplane(&arguments.dataplane_socket).with_timeout(EXPLAIN_TIMEOUT),
        config_file: arguments.config.display().to_string().into(),
        started: Instant::now(),
    };
    tracing::info!("listening on {}", arguments.socket.display());
    daemon::notify_ready();
    let outcome = tokio::select! {
        served = http::serve(listener, context) => served,
        () = file::follow(config_file, &control, hangup, requests) => Ok(()),
        () = control.runner().run() => Ok(()),
        () = control.follow_checks(results) => Ok(()),
        () = control.follow_steps() => Ok(()),
        () = keeping => Ok(()),
        () = daemon::beat_for_ever() => Ok(()),
        () = dataplane::keep_in_agreement(Client::dataplane(&arguments.dataplane_socket), &control, &standings) => Ok(()),
        name = stop => {
            tracing::info!("{name}: stopping; the dataplane forwards on");
            Ok(())
        }
    };
    daemon::notify_stopping();
    end(&control, announcing, providers, &memory).await?;
    drop(socket_file);
    outcome.map_err(|error| anyhow::anyhow!("the socket broke: {error}; start it again"))
}

/// Withdraws what is announced, lets another box lead, and keeps what a restart must not forget.
async fn end(
    control: &Control,
    announcing: Announcing,
    providers: Providers,
    memory: &Memory,
) -> anyhow::Result<()> {
    let withdraw_delay = control.look(|model| model.roster.withdraw_delay());
    control.stop_announcing();
    tokio::select! {
        _ = async { tokio::join!(announcing.end(withdraw_delay), providers.end()) } => {}
        name = daemon::stop_signal()? => tracing::info!("{name} again: stopping at once"),
    }
    memory.save(control);
    Ok(())
}
