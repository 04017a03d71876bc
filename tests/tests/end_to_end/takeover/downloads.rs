//! Slow downloads that run until nobody needs them any more.
//!
//! The servers hold them back: curl, told to read slowly, at times leaves one of many unread for ten seconds.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shunt_tests::curl::{self, Curl, Manner, Request};
use shunt_tests::error::{Result, ensure};
use shunt_tests::topology::Topology;
use shunt_tests::{servers, wait};

/// Of each VIP.
const DOWNLOADS: u16 = 12;
/// Nobody waits for the end: ten minutes at [`servers::SLOW_RATE`].
const FILE_BYTES: u64 = 600 * servers::SLOW_RATE;
/// A part of a download that does not come within this time never comes.
const STALL: Duration = Duration::from_secs(20);
/// Of each, for it to go on: two seconds of it.
const PART: u64 = 2 * servers::SLOW_RATE;

/// Downloads over all VIPs.
pub struct Downloads {
    curl: Curl,
    requests: Vec<Request>,
    content: Vec<u8>,
}

impl Downloads {
    /// Starts them, and returns when all have begun.
    pub fn start(topology: &Topology, vips: &[IpAddr]) -> Result<Self> {
        let content = servers::publish(&topology.run, "file", FILE_BYTES)?;
        let mut requests = Vec::new();
        for (first_port, vip) in (10_000u16..).step_by(1_000).zip(vips) {
            for request in curl::requests(topology, *vip, DOWNLOADS, first_port) {
                let url = format!("http://{}/slow/file", SocketAddr::new(*vip, 80));
                let output = topology.run.directory().join(format!("download-{}", requests.len()));
                requests.push(Request { url, output, ..request });
            }
        }
        let manner = Manner { parallel: requests.len(), rate: None, limit: Duration::from_secs(600) };
        let curl = Curl::start(topology, "downloads", &requests, &manner)?;
        let begun = Self { curl, requests, content };
        wait::until_true("all downloads to begin", STALL, || begun.received().all(|bytes| bytes > 0))?;
        Ok(begun)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.requests.len()
    }

    /// The client's end of each.
    pub fn ends(&self) -> impl Iterator<Item = SocketAddr> {
        self.requests.iter().map(|request| request.from)
    }

    fn received(&self) -> impl Iterator<Item = u64> {
        self.requests.iter().map(|request| fs::metadata(&request.output).map_or(0, |file| file.len()))
    }

    /// Waits until each has got more; says how long that took.
    pub fn go_on(&self) -> Result<Duration> {
        let before: Vec<_> = self.received().collect();
        let more = || self.received().zip(&before).filter(|(now, before)| *now >= **before + PART).count();
        let waited = wait::until_true("all downloads to go on", STALL, || more() == self.count());
        waited.inspect_err(|_| println!("   only {} of {} downloads go on", more(), self.count()))
    }

    /// Every one has to be under way still, with the right bytes.
    pub fn finish(mut self) -> Result<()> {
        let (over, runs) = (self.curl.replied(), self.curl.is_running());
        let right = |request: &&Request| {
            fs::read(&request.output).is_ok_and(|got| !got.is_empty() && self.content.starts_with(&got))
        };
        let survived = self.requests.iter().filter(right).count() - over.min(self.count());
        println!("   {survived} of {} downloads survived it all, every byte compared", self.count());
        ensure(runs && survived == self.count(), || {
            format!("downloads broke, e.g. {:?}", self.curl.replies().first())
        })
    }
}
