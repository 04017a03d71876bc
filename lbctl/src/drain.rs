//! `lbctl drain` and `lbctl undrain`: take backends out of service without breaking connections, and bring them back.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use shunt_api::client::Client;
use shunt_api::status::{BackendView, DrainRequest};
use tokio::time::Instant;

use crate::Outcome;
use crate::output::{self, Format, count};

/// Between two looks at the flows that are left.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whom to drain.
#[derive(Args)]
pub struct Which {
    /// Name or address of a backend.
    backend: String,
    /// Only in this pool; otherwise in each that has it.
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
}

/// How to drain.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    which: Which,
    /// Wait until no flow is left, for so long at most, such as 5m; exit code 1 if some are left then. The backend is
    /// drained either way, until `lbctl undrain`.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

/// Drains, and waits if that is asked for.
pub async fn drain(options: Options, control: &Client, format: Format) -> anyhow::Result<Outcome> {
    let mut backends = set_drained(&options.which, true, control).await?;
    if let Some(timeout) = options.timeout {
        backends = emptied(backends, timeout, control).await?;
    }
    let left = flows(&backends);
    match format {
        Format::Json => output::print_json(&backends)?,
        Format::Table => output::print(&text(&backends))?,
    }
    Ok(Outcome::well_if(options.timeout.is_none() || left == 0))
}

/// Ends a drain.
pub async fn undrain(which: &Which, control: &Client, format: Format) -> anyhow::Result<Outcome> {
    let backends = set_drained(which, false, control).await?;
    match format {
        Format::Json => output::print_json(&backends)?,
        Format::Table => {
            let line = |backend: &BackendView| {
                let state = match backend.state.as_str() {
                    "draining" => "still draining, because its weight is 0 in the configuration file",
                    "reachable" => "takes new flows again",
                    other => other,
                };
                format!("{}: {state}\n", place(backend))
            };
            output::print(&backends.iter().map(line).collect::<String>())?;
        }
    }
    Ok(Outcome::Well)
}

async fn set_drained(which: &Which, drained: bool, control: &Client) -> anyhow::Result<Vec<BackendView>> {
    let request = DrainRequest { backend: which.backend.clone(), pool: which.pool.clone(), drained };
    Ok(control.put("/v1/drain", &request).await?)
}

/// The backends once they have no flows, or when the time is over, or on Ctrl-C.
async fn emptied(
    mut backends: Vec<BackendView>,
    timeout: Duration,
    control: &Client,
) -> anyhow::Result<Vec<BackendView>> {
    let end = Instant::now() + timeout;
    while flows(&backends) > 0 && Instant::now() < end {
        if io::stderr().is_terminal() {
            eprint!("\r{:<30}", left(&backends));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY.min(end - Instant::now())) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(backends);
            }
        }
        let all: Vec<BackendView> = control.get("/v1/backends").await?;
        let is_meant = |backend: &BackendView| {
            backends.iter().any(|meant| (&meant.pool, &meant.name) == (&backend.pool, &backend.name))
        };
        backends = all.into_iter().filter(is_meant).collect();
    }
    if io::stderr().is_terminal() {
        eprint!("\r{:<30}\r", "");
    }
    Ok(backends)
}

/// An address counts once, however many pools it is in: its flows are those of all.
fn flows(backends: &[BackendView]) -> u64 {
    let mut by_address: Vec<_> = backends.iter().map(|backend| (backend.address, backend.flows)).collect();
    by_address.sort_unstable();
    by_address.dedup_by_key(|(address, _)| *address);
    by_address.iter().map(|(_, flows)| flows).sum()
}

fn left(backends: &[BackendView]) -> String {
    format!("{} left", count(flows(backends) as usize, "flow"))
}

fn text(backends: &[BackendView]) -> String {
    let lines = backends.iter().map(|backend| format!("{}: {}\n", place(backend), backend.state));
    lines.collect::<String>() + &left(backends) + "\n"
}

fn place(backend: &BackendView) -> String {
    format!("{} ({}) of pool {}", backend.name, backend.address, backend.pool)
}
