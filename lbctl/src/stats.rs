//! `lbctl stats`: the workers' counters, once or as rates.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use shunt_api::client::Client;
use shunt_api::counters::{Counter, CounterValues, DropReason};
use shunt_api::status::Stats;
use tokio::time::Instant;

use crate::Outcome;
use crate::output::{self, Align, Columns, Format};

/// What to show of the counters.
#[derive(Args)]
pub struct Options {
    /// Show rates per second, renewed every so many seconds (1 unless given), until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = interval)]
    watch: Option<Duration>,
    /// One column per worker instead of their sum.
    #[arg(long)]
    per_worker: bool,
    /// Also the drop reasons that never occurred.
    #[arg(long)]
    all: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("write 0.1 to 3600 seconds".to_owned())
    }
}

/// Shows the counters.
pub async fn run(options: &Options, dataplane: &Client, format: Format) -> anyhow::Result<Outcome> {
    match options.watch {
        Some(interval) => watch(options, interval, dataplane, format).await?,
        None => {
            let stats: Stats = dataplane.get("/v1/stats").await?;
            match format {
                Format::Json => output::print_json(&stats)?,
                Format::Table => output::print(&table(options, &stats, None))?,
            }
        }
    }
    Ok(Outcome::Well)
}

/// Prints rates until Ctrl-C; as JSON, the counters themselves, one line per interval.
async fn watch(
    options: &Options,
    interval: Duration,
    dataplane: &Client,
    format: Format,
) -> anyhow::Result<()> {
    let clear = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let mut ticks = tokio::time::interval(interval);
    let mut before: Option<(Instant, Stats)> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        }
        let now = (Instant::now(), dataplane.get::<Stats>("/v1/stats").await?);
        match (format, &before) {
            (Format::Json, _) => output::print(&format!("{}\n", serde_json::to_string(&now.1)?))?,
            (Format::Table, Some((then, stats))) => {
                let since = Since { stats, elapsed: now.0 - *then };
                output::print(&format!("{clear}{}\n", table(options, &now.1, Some(&since))))?;
            }
            (Format::Table, None) => {}
        }
        before = Some(now);
    }
}

/// The counters of an earlier moment, for rates.
struct Since<'a> {
    stats: &'a Stats,
    elapsed: Duration,
}

/// A name and description with the values to show: one per column.
struct Line {
    name: &'static str,
    description: &'static str,
    values: Vec<u64>,
}

fn table(options: &Options, stats: &Stats, since: Option<&Since<'_>>) -> String {
    let now = shown(options, stats);
    let before = since.map(|since| (shown(options, since.stats), since.elapsed));
    let counters = Counter::ALL.iter().map(|&counter| {
        line(counter.name(), counter.description(), &now, before.as_ref(), |values| values.counter(counter))
    });
    let total = stats.total();
    let drops = DropReason::ALL.iter().filter(|&&reason| options.all || total.dropped(reason) > 0);
    let drops: Vec<Line> = drops
        .map(|&reason| {
            line(reason.name(), reason.description(), &now, before.as_ref(), |values| values.dropped(reason))
        })
        .collect();
    let mut text = section("COUNTER", options, since.is_some(), counters);
    if drops.is_empty() {
        let _ = writeln!(text, "\nNothing was dropped.");
    } else {
        let _ = write!(text, "\n{}", section("DROPPED", options, since.is_some(), drops.into_iter()));
    }
    text
}

/// What each value column is taken from: the sum, or every worker.
fn shown(options: &Options, stats: &Stats) -> Vec<CounterValues> {
    if options.per_worker { stats.workers.clone() } else { vec![stats.total()] }
}

fn line(
    name: &'static str,
    description: &'static str,
    now: &[CounterValues],
    before: Option<&(Vec<CounterValues>, Duration)>,
    value: impl Fn(&CounterValues) -> u64,
) -> Line {
    let nothing = CounterValues::default();
    let values = now.iter().enumerate().map(|(index, now)| match before {
        None => value(now),
        Some((before, elapsed)) => rate(value(now), value(before.get(index).unwrap_or(&nothing)), *elapsed),
    });
    Line { name, description: description.trim(), values: values.collect() }
}

/// Per second, rounded. A counter that went back belongs to a dataplane that has started again: it
/// counted from zero.
fn rate(now: u64, before: u64, elapsed: Duration) -> u64 {
    let grown = now.checked_sub(before).unwrap_or(now);
    (grown as f64 / elapsed.as_secs_f64()).round() as u64
}

fn section(title: &str, options: &Options, rates: bool, lines: impl Iterator<Item = Line>) -> String {
    let lines: Vec<Line> = lines.collect();
    let workers = lines.first().map_or(0, |line| line.values.len());
    let worker_titles: Vec<String> = (0..workers).map(|index| format!("WORKER {index}")).collect();
    let mut titles = vec![(title, Align::Left)];
    match (options.per_worker, rates) {
        (true, _) => titles.extend(worker_titles.iter().map(|title| (title.as_str(), Align::Right))),
        (false, true) => titles.push(("PER SECOND", Align::Right)),
        (false, false) => titles.push(("TOTAL", Align::Right)),
    }
    if !options.per_worker {
        titles.push(("MEANING", Align::Left));
    }
    let mut columns = Columns::new(&titles);
    if !options.per_worker {
        columns.wrap_last();
    }
    for line in lines {
        let mut cells = vec![line.name.to_owned()];
        cells.extend(line.values.iter().map(u64::to_string));
        if !options.per_worker {
            cells.push(line.description.to_owned());
        }
        columns.row(cells);
    }
    columns.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_rounded_and_survives_a_restart_of_the_dataplane() {
        for (now, before, millis, expected) in [(100, 0, 1000, 100), (3, 0, 2000, 2), (7, 1_000, 1000, 7)] {
            assert_eq!(rate(now, before, Duration::from_millis(millis)), expected, "{now} {before}");
        }
    }

    #[test]
    fn an_interval_is_a_reasonable_number_of_seconds() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "x", "0", "-1", "NaN", "1e9"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
