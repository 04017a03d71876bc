//! `lbctl drain` and `lbctl undrain`: take backends out of service without breaking connections, and bring them back.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use shunt_api::client::Client;
use shunt_api::status::{BackendView, DrainRequest, FlowCount};
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
    /// Only in this pool; otherwise in each that has it. Flows are counted for the address, over all pools.
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

/// What `-o json` prints.
#[derive(Serialize)]
struct Report {
    /// The backends that drain.
    backends: Vec<BackendView>,
    /// What they still serve, together.
    left: FlowCount,
}

/// Drains, and waits if that is asked for.
pub async fn drain(
    options: Options,
    control: &Client,
    dataplane: &Client,
    format: Format,
) -> anyhow::Result<Outcome> {
    let backends = set_drained(&options.which, true, control).await?;
    let left = match options.timeout {
        Some(timeout) => emptied(&backends, timeout, dataplane).await?,
        None => left(&backends, dataplane).await?,
    };
    let report = Report { backends, left };
    match format {
        Format::Json => output::print_json(&report)?,
        Format::Table => output::print(&text(&report))?,
    }
    Ok(Outcome::well_if(options.timeout.is_none() || is_empty(left)))
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

/// What is left once nothing is, or when the time is over, or on Ctrl-C.
async fn emptied(
    backends: &[BackendView],
    timeout: Duration,
    dataplane: &Client,
) -> anyhow::Result<FlowCount> {
    let end = Instant::now() + timeout;
    loop {
        let left = left(backends, dataplane).await?;
        let rest = end.saturating_duration_since(Instant::now());
        if is_empty(left) || rest.is_zero() {
            progress("");
            return Ok(left);
        }
        progress(&words(left));
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY.min(rest)) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                progress("");
                return Ok(left);
            }
        }
    }
}

/// On a terminal, in place of what was said before.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r{text:<50}\r");
    }
}

/// An address counts once, however many pools it is in: its flows are those of all.
async fn left(backends: &[BackendView], dataplane: &Client) -> anyhow::Result<FlowCount> {
    let addresses: BTreeSet<IpAddr> = backends.iter().map(|backend| backend.address).collect();
    let mut sum = FlowCount::default();
    for address in addresses {
        let count: FlowCount = dataplane.get(&format!("/v1/flows/count?backend={address}")).await?;
        sum.open += count.open;
        sum.closing += count.closing;
    }
    Ok(sum)
}

fn is_empty(left: FlowCount) -> bool {
    left == FlowCount::default()
}

fn words(left: FlowCount) -> String {
    let open = count(left.open as usize, "flow");
    match left.closing {
        0 => format!("{open} left"),
        closing => format!("{open} left, {closing} more that are closing"),
    }
}

fn text(report: &Report) -> String {
    let lines = report.backends.iter().map(|backend| format!("{}: {}\n", place(backend), backend.state));
    lines.collect::<String>() + &words(report.left) + "\n"
}

fn place(backend: &BackendView) -> String {
    format!("{} ({}) of pool {}", backend.name, backend.address, backend.pool)
}
