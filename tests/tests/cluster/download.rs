//! Slow downloads that run beside a scenario.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shunt_tests::client::{Transfer, download, run_inside};
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::wait;
use tokio::task::JoinSet;

use crate::client::source;
use crate::cluster::Cluster;
use crate::objects::PORT;

/// Bytes a second of each.
const RATE: u64 = 32_000;
/// For all of them to begin.
const LIMIT: Duration = Duration::from_secs(10);

/// Downloads under way.
pub struct Downloads {
    transfers: JoinHandle<Result<Vec<Transfer>>>,
    ended: Arc<AtomicUsize>,
}

impl Downloads {
    /// Starts `count` from each of these VIPs, to go on for so many seconds, and waits until data of all has come.
    pub fn start(cluster: &Cluster, vips: &[IpAddr], count: usize, seconds: u64) -> Result<Self> {
        let begun = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicUsize::new(0));
        let targets: Vec<IpAddr> = vips.iter().flat_map(|vip| vec![*vip; count]).collect();
        let total = targets.len();
        let client = cluster.client.clone();
        let (counted, over) = (Arc::clone(&begun), Arc::clone(&ended));
        let transfers =
            std::thread::spawn(move || run_inside(&client, || all(targets, seconds, counted, over)));
        let downloads = Self { transfers, ended };
        let all_begun = || begun.load(Ordering::Relaxed) + downloads.ended() >= total;
        wait::until_true("all downloads to begin", LIMIT, all_begun)?;
        Ok(downloads)
    }

    /// How many have ended, well or not.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    /// An error if one has ended: what a scenario does has to happen while all of them run.
    pub fn expect_running(&self) -> Result<()> {
        let ended = self.ended();
        ensure(ended == 0, || format!("{ended} downloads ended before all was done that they should survive"))
    }

    /// Waits for all of them.
    pub fn finish(self) -> Result<Vec<Transfer>> {
        self.transfers.join().unwrap_or_else(|_| Err(Error::Wrong("a thread of downloads panicked".into())))
    }
}

async fn all(
    targets: Vec<IpAddr>,
    seconds: u64,
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
) -> Vec<Transfer> {
    let mut under_way = JoinSet::new();
    for vip in targets {
        let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
        under_way.spawn(async move {
            let mut first = true;
            let progress = |_| {
                if std::mem::take(&mut first) {
                    begun.fetch_add(1, Ordering::Relaxed);
                }
            };
            let transfer = download(source(vip), (vip, PORT).into(), RATE * seconds, RATE, progress).await;
            ended.fetch_add(1, Ordering::Relaxed);
            transfer
        });
    }
    under_way.join_all().await
}
