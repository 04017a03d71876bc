//! `lbctl events`: what became another, and why.

use std::time::Duration;

use clap::Args;
use shunt_api::client::Client;
use shunt_api::status::Event;

use crate::Outcome;
use crate::output::{self, Format, count};

/// Between two looks for new events.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Which events to show.
#[derive(Args)]
pub struct Options {
    /// Only the last so many.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Go on with new ones as they come, until Ctrl-C; as JSON, one line each.
    #[arg(long)]
    follow: bool,
}

/// Shows what happened.
pub async fn run(options: &Options, control: &Client, format: Format) -> anyhow::Result<Outcome> {
    let mut events: Vec<Event> = control.get("/v1/events").await?;
    let all = events.len();
    events.drain(..all - options.limit.unwrap_or(all).min(all));
    if options.follow {
        follow(events, control, format).await?;
        return Ok(Outcome::Well);
    }
    match format {
        Format::Json => output::print_json(&events)?,
        Format::Table if events.is_empty() => {
            output::print("nothing happened since shunt-controlplane started\n")?;
        }
        Format::Table => output::print(&lines(&events))?,
    }
    Ok(Outcome::Well)
}

async fn follow(mut events: Vec<Event>, control: &Client, format: Format) -> anyhow::Result<()> {
    let mut seen = 0;
    loop {
        let first = events.first().map_or(0, |event| event.number);
        if seen > 0 && first > seen + 1 {
            eprintln!("lbctl: {} came and went in between", count((first - seen - 1) as usize, "event"));
        }
        output::print(&match format {
            Format::Json => json_lines(&events)?,
            Format::Table => lines(&events),
        })?;
        seen = events.last().map_or(seen, |event| event.number);
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        }
        events = control.get("/v1/events").await?;
        // A control plane that restarted counts from 1 again.
        if events.last().is_some_and(|event| event.number < seen) {
            seen = 0;
        }
        events.retain(|event| event.number > seen);
    }
}

fn lines(events: &[Event]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn json_lines(events: &[Event]) -> serde_json::Result<String> {
    events.iter().map(|event| Ok(serde_json::to_string(event)? + "\n")).collect()
}
