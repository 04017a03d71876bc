//! Connections and transfers from the demo's client, with a progress display.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::{self, Answered, Transfer};
use crate::error::{Error, Result};
use crate::topology::Topology;

/// Connections under way at a time.
const AT_ONCE: usize = 16;
/// Transfers to each VIP.
const TRANSFERS_EACH: usize = 6;
/// Size of a transfer, and bytes a second: six seconds.
const TRANSFER_BYTES: u64 = 600_000;
const TRANSFER_RATE: u64 = 100_000;

/// Makes `count` connections to the targets and from the client's addresses, by turns.
pub fn connect(
    topology: &Topology,
    targets: &[SocketAddr],
    count: usize,
) -> Result<Vec<io::Result<Answered>>> {
    let bar = bar(count as u64, "connections {bar:40} {pos}/{len}");
    let turns: Vec<_> = turns(topology, targets, count);
    let (report, reports) = channel();
    let show = |reports: Receiver<u64>| {
        reports.iter().for_each(|made| bar.inc(made));
        Ok(())
    };
    let answers =
        beside(show, reports, || client::run_inside(&topology.client, || connect_all(turns, report)));
    bar.finish_and_clear();
    answers
}

async fn connect_all(turns: Vec<(IpAddr, SocketAddr)>, report: Sender<u64>) -> Vec<io::Result<Answered>> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut connections = JoinSet::new();
    for (source, target) in turns {
        let (permits, report) = (Arc::clone(&permits), report.clone());
        connections.spawn(async move {
            let _permit = permits.acquire().await.map_err(io::Error::other)?;
            let answered = client::ask_tcp(source, target).await;
            // Nobody looks any more only when the demo is failing already.
            let _ = report.send(1);
            answered
        });
    }
    connections.join_all().await
}

/// Runs slow transfers from all targets and calls `at_third` when a third of the bytes is there.
pub fn download(
    topology: &Topology,
    targets: &[SocketAddr],
    at_third: impl FnOnce() -> Result<()>,
) -> Result<Vec<Transfer>> {
    let turns = turns(topology, targets, targets.len() * TRANSFERS_EACH);
    let total = TRANSFER_BYTES * turns.len() as u64;
    let bar = bar(total, "transfers   {bar:40} {bytes}/{total_bytes}");
    let (report, reports) = channel();
    let show = |reports: Receiver<u64>| {
        let mut at_third = Some(at_third);
        let mut outcome = Ok(());
        for received in reports {
            bar.inc(received);
            if bar.position() * 3 >= total
                && let Some(act) = at_third.take()
            {
                outcome = bar.suspend(act);
            }
        }
        outcome
    };
    let transfers =
        beside(show, reports, || client::run_inside(&topology.client, || download_all(turns, report)));
    bar.finish_and_clear();
    transfers
}

async fn download_all(turns: Vec<(IpAddr, SocketAddr)>, report: Sender<u64>) -> Vec<Transfer> {
    let mut transfers = JoinSet::new();
    for (source, target) in turns {
        let report = report.clone();
        transfers.spawn(async move {
            let progress = |bytes| {
                let _ = report.send(bytes);
            };
            client::download(source, target, TRANSFER_BYTES, TRANSFER_RATE, progress).await
        });
    }
    transfers.join_all().await
}

/// Source and target of each connection.
fn turns(topology: &Topology, targets: &[SocketAddr], count: usize) -> Vec<(IpAddr, SocketAddr)> {
    let of = |(number, target): (usize, &SocketAddr)| {
        // Each target in turn with the one address, then each with the other.
        let addresses = topology.client_addresses(target.ip());
        (addresses[number / targets.len() % addresses.len()], *target)
    };
    targets.iter().cycle().take(count).enumerate().map(of).collect()
}

/// Does `work` on a thread of its own while this one shows what it reports. Programs are started by this
/// thread only, since they die with the thread that started them.
fn beside<T: Send, R: Send>(
    show: impl FnOnce(Receiver<R>) -> Result<()>,
    reports: Receiver<R>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(work);
        let shown = show(reports);
        let done =
            worker.join().unwrap_or_else(|_| Err(Error::Wrong("the demo's client panicked".to_owned())));
        shown.and(done)
    })
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("         {template}"));
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
