//! What a replay says: a line of JSON for every packet, and a summary for people.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;
use shunt_api::counters::{Counter, CounterValues, DropReason};
use shunt_api::snapshot::Mode;

use super::account::{Account, BAD_SOURCE_MAC, OVERSIZED, Subject, Verdict};

/// Width of the longest reason.
const REASON_WIDTH: usize = 26;

/// Counts of all packets so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// That came.
    pub packets: u64,
    /// That left.
    pub sent: u64,
    by_verdict: BTreeMap<Verdict, u64>,
    by_reason: BTreeMap<(Verdict, &'static str), u64>,
}

impl Summary {
    /// Counts one packet. Returns the numbers, from 1, of those that left because of it.
    pub fn add(&mut self, account: &Account) -> Range<u64> {
        self.packets += 1;
        *self.by_verdict.entry(account.verdict).or_default() += 1;
        if let Some(reason) = account.reason {
            *self.by_reason.entry((account.verdict, reason)).or_default() += 1;
        }
        let first = self.sent + 1;
        self.sent += u64::from(account.sent);
        first..self.sent + 1
    }

    /// Packets of which this became.
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.by_verdict.get(&verdict).copied().unwrap_or(0)
    }

    /// Packets of which this became for this reason.
    pub fn count_for(&self, verdict: Verdict, reason: &'static str) -> u64 {
        self.by_reason.get(&(verdict, reason)).copied().unwrap_or(0)
    }

    /// Drops of the worker's counters, and those outside of it.
    fn drops(&self, counted: &CounterValues) -> BTreeMap<String, u64> {
        let outside = [BAD_SOURCE_MAC, OVERSIZED];
        let outside = outside.map(|reason| (reason.to_owned(), self.count_for(Verdict::Drop, reason)));
        counted.drops.clone().into_iter().chain(outside).collect()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} packets came, {} left", self.packets, self.sent)?;
        for (verdict, count) in &self.by_verdict {
            writeln!(f, "{:<12}{count:>10}", verdict.name())?;
            for ((_, reason), count) in self.by_reason.iter().filter(|((of, _), _)| of == verdict) {
                let why = describe(*verdict, reason);
                writeln!(f, "  {reason:<REASON_WIDTH$}{count:>10}  {why}")?;
            }
        }
        Ok(())
    }
}

fn describe(verdict: Verdict, reason: &str) -> &'static str {
    match (verdict, reason) {
        (_, BAD_SOURCE_MAC) => "The Ethernet source is a group address.",
        (_, OVERSIZED) => "The packet has more pieces than a socket takes; was it put together by GRO?",
        (Verdict::Reply, "echo") => "An echo request was answered.",
        (Verdict::Reply, "reset") => "A TCP packet to a port without a service.",
        (Verdict::Reply, "unreachable") => "A UDP packet to a port without a service.",
        (Verdict::Reply, "too_big") => "The packet does not fit the way to the backend.",
        (Verdict::Pass, "neighbor_discovery") => "Neighbour discovery, which the host does.",
        (_, reason) => DropReason::from_name(reason).map_or("", |reason| reason.description().trim()),
    }
}

/// How fast the worker was; empty if it saw no packet.
pub fn rate(counted: &CounterValues, in_worker: Duration) -> String {
    let packets = counted.counter(Counter::RxPackets);
    if packets == 0 || in_worker.is_zero() {
        return String::new();
    }
    let per_s = packets as f64 / in_worker.as_secs_f64();
    format!("the worker took {in_worker:.1?} for {packets} packets, {per_s:.0} a second, one at a time\n")
}

/// A report that is being written: one JSON object, with one line for every packet.
#[derive(Debug)]
pub struct Report<W> {
    out: W,
    is_empty: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    number: u64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    flow: Option<Subject>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    out: Vec<u64>,
}

fn as_text<S: serde::Serializer>(subject: &Option<Subject>, serializer: S) -> Result<S::Ok, S::Error> {
    match subject {
        Some(subject) => serializer.collect_str(subject),
        None => serializer.serialize_none(),
    }
}

impl<W: Write> Report<W> {
    /// Begins.
    pub fn new(mut out: W) -> io::Result<Self> {
        write!(out, "{{\"packets\":[")?;
        Ok(Self { out, is_empty: true })
    }

    /// One packet: its number from 1, when it came, what became of it, and the numbers of those that left.
    pub fn packet(
        &mut self,
        number: u64,
        time: Duration,
        account: &Account,
        out: Range<u64>,
    ) -> io::Result<()> {
        let line = Line {
            number,
            time: format!("{}.{:09}", time.as_secs(), time.subsec_nanos()),
            flow: account.subject,
            verdict: account.verdict.name(),
            service: account.service.as_deref(),
            backend: account.backend,
            mode: account.mode,
            reason: account.reason,
            out: out.collect(),
        };
        let before = if std::mem::take(&mut self.is_empty) { "\n" } else { ",\n" };
        self.out.write_all(before.as_bytes())?;
        Ok(serde_json::to_writer(&mut self.out, &line)?)
    }

    /// Ends with the totals.
    pub fn finish(mut self, summary: &Summary, counted: &CounterValues) -> io::Result<()> {
        write!(self.out, "\n],\n\"counters\":")?;
        serde_json::to_writer(&mut self.out, &counted.counters)?;
        write!(self.out, ",\n\"drops\":")?;
        serde_json::to_writer(&mut self.out, &summary.drops(counted))?;
        writeln!(self.out, "}}")?;
        self.out.flush()
    }
}
