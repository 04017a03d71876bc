//! Streams that send something every 10 ms, to see for how long nothing came.

use std::net::IpAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shunt_tests::client::{self, Transfer};
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::topology::Topology;
use tokio::task::JoinSet;

/// Of each VIP.
const STREAMS: usize = 5;
const BYTES: u64 = 750_000;
/// Bytes a second: 15 s in all.
const RATE: u64 = 50_000;

/// Longer silence than this is not for want of a processor: acknowledgements and what they call for were lost
/// again and again.
const SILENCE_LIMIT: Duration = Duration::from_secs(3);

/// Streams on their way.
pub struct Streams(JoinHandle<Result<Vec<Stream>>>);

/// One of them, and when its parts came.
struct Stream {
    transfer: Transfer,
    came: Vec<Instant>,
}

impl Streams {
    /// Starts them from the topology's client.
    pub fn start(topology: &Topology, vips: &[IpAddr], port: u16) -> Result<Self> {
        let client = topology.client.clone();
        let ends: Vec<_> = vips
            .iter()
            .flat_map(|vip| {
                topology.client_addresses(*vip).into_iter().cycle().take(STREAMS).map(|from| (from, *vip))
            })
            .collect();
        let all = move || {
            client::run_inside(&client, || async move {
                let mut streams = JoinSet::new();
                for (from, vip) in ends {
                    streams.spawn(async move {
                        let mut came = Vec::new();
                        let note = |_| came.push(Instant::now());
                        let transfer = client::download(from, (vip, port).into(), BYTES, RATE, note).await;
                        Stream { transfer, came }
                    });
                }
                streams.join_all().await
            })
        };
        Ok(Self(std::thread::spawn(all)))
    }

    /// Waits for their end, all of them whole, and prints the longest silence between each of the moments and the
    /// next.
    pub fn finish(self, moments: &[(&str, Instant)]) -> Result<()> {
        let joined = self.0.join().unwrap_or_else(|_| Err(Error::Wrong("the streams panicked".into())));
        let streams = joined?;
        let broken: Vec<_> = streams.iter().filter(|stream| stream.transfer.broken.is_some()).collect();
        println!("   {} streams: {} broken; longest silence of any", streams.len(), broken.len());
        let ends = moments.iter().skip(1).map(|(_, end)| Some(*end)).chain([None]);
        for ((what, begin), end) in moments.iter().zip(ends) {
            let longest = streams.iter().map(|stream| stream.silence(*begin, end)).max().unwrap_or_default();
            println!("     {what:<26} {:.0} ms", longest.as_secs_f64() * 1e3);
            ensure(longest <= SILENCE_LIMIT, || format!("a stream was silent for {longest:?} when {what}"))?;
        }
        ensure(broken.is_empty(), || format!("{} streams broke, e.g. {:?}", broken.len(), broken[0].transfer))
    }
}

impl Stream {
    /// The longest time between two parts, of which the second came after `begin` and not after `end`.
    fn silence(&self, begin: Instant, end: Option<Instant>) -> Duration {
        let pairs = self.came.iter().zip(self.came.iter().skip(1));
        let within = pairs.filter(|(_, to)| **to > begin && end.is_none_or(|end| **to <= end));
        within.map(|(from, to)| *to - *from).max().unwrap_or_default()
    }
}
