//! What both daemons do alike: log, listen, answer, tell systemd. With the feature `daemon`; clients need none
//! of it.

mod listen;
mod pulse;

use std::io::IsTerminal;
use std::process::ExitCode;

use axum::Router;
use axum::extract::Request;
use axum::extract::connect_info::Connected;
use axum::http::StatusCode;
use axum::serve::IncomingStream;
pub use listen::{ListenError, SocketFile, listen};
pub use pulse::{Pulse, beat_for_ever};
use sd_notify::NotifyState;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The filter is not one.
#[derive(Debug, thiserror::Error)]
#[error("--log-level {filter}: {source}; write one such as info")]
pub struct InvalidFilter {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Logs to standard error from now on: `error`, `warn`, `info`, `debug`, `trace`, or a filter by module.
pub fn start_log(filter: &str) -> Result<(), InvalidFilter> {
    let invalid = |source| InvalidFilter { filter: filter.to_owned(), source };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter).map_err(invalid)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

/// The exit code of a program, and why it failed in one line on standard error.
pub fn end<E: std::fmt::Display>(program: &str, result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tells systemd that requests are answered, if it started this process.
pub fn notify_ready() {
    notify(NotifyState::Ready);
}

/// Tells systemd that the process ends.
pub fn notify_stopping() {
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("systemd cannot be told: {error}");
    }
}

/// From now on SIGTERM and SIGINT end the returned future, with their name, instead of the process. Must be
/// called in a tokio runtime.
pub fn stop_signal() -> std::io::Result<impl Future<Output = &'static str>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Serves for ever. `paths` is told to who asks for something else.
pub async fn serve(listener: UnixListener, router: Router, paths: &'static str) -> std::io::Result<()> {
    let unknown = async move |request: Request| {
        let (method, path) = (request.method(), request.uri().path());
        (StatusCode::NOT_FOUND, format!("there is no {method} {path}; try {paths}\n"))
    };
    let router = router.fallback(unknown);
    axum::serve(listener, router.into_make_service_with_connect_info::<Peer>()).await
}

/// Who is at the other end of a request, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// User.
    pub uid: Option<u32>,
    /// Process.
    pub pid: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self {
            uid: credentials.map(|credentials| credentials.uid()),
            pid: credentials.and_then(|credentials| credentials.pid()),
        }
    }
}
