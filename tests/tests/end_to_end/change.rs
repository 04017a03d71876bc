//! Slow downloads while the configuration changes a hundred times.
//!
//! Each pool has backends that stay, though their weights change down to 0; one that is there at the
//! beginning, so that downloads run on it, and is removed and added again and again; and some that come and
//! go. Downloads on the ones that stay have to end whole. A download whose backend was removed is lost with
//! it: that is counted, not judged.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shunt_tests::curl::{self, Curl, Manner, Reply, Request};
use shunt_tests::error::{Result, ensure};
use shunt_tests::servers;
use shunt_tests::settings::{Backend, Settings, like_v4, like_v6, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Shape, Topology};
use shunt_tests::wait;

use crate::stage::{start_servers, with_shunt};

const CHANGES: usize = 100;
/// Of each VIP; of four VIPs, five sixths of them on backends that stay.
const DOWNLOADS: u16 = 16;
const DOWNLOADS_MIN: usize = 50;
const FILE_BYTES: u64 = 1_000_000;
const RATE: u64 = 125_000;
/// Backends 1…5 of each pool stay, 6 is there at the beginning, 7 and 8 are not.
const STAYING: usize = 5;
const BACKENDS: usize = 8;
/// A part of a download that does not come within this time never comes.
const STALL: Duration = Duration::from_secs(15);

pub fn run() -> Result<()> {
    let vips = [10, 20].into_iter().flat_map(vips).collect();
    let shape = Shape { arms: Arms::Two, queues: 1, dr: BACKENDS, far: BACKENDS, vips };
    let first = |topology: &Topology| settings(topology, 0);
    with_shunt("change", shape, first, |topology, shunt| {
        let content = servers::publish(&topology.run, "file", FILE_BYTES)?;
        // What waits in the client's buffer no longer needs the network; a small one keeps packets coming.
        topology.client.sysctl(&[("ipv4/tcp_rmem", "4096 16384 32768")])?;
        let _servers = start_servers(topology)?;
        let downloads = downloads(topology);
        let manner = Manner { parallel: downloads.len(), rate: Some(RATE), limit: Duration::from_secs(60) };
        let mut curl = Curl::start(topology, "downloads", &downloads, &manner)?;
        change(topology, shunt, &downloads)?;
        let over = curl.replies().iter().filter(|reply| reply.exit == 0).count();
        ensure(curl.is_running() && over == 0, || {
            format!("{over} downloads were over before the last change: they have to run through all of them")
        })?;
        judge(&curl.finish()?, &downloads, &content)
    })
}

/// The configuration after this many changes.
fn settings(topology: &Topology, change: usize) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    let ports = &["tcp/80"];
    settings.serve("dr", "dr", [], like_v4(), (&vips(10), ports));
    settings.serve("far", "ipip", [], like_v4(), (&vips(20), ports));
    let likes = [like_v4(), like_v6()];
    for ((pool, nodes), like) in settings.pools.iter_mut().zip([&topology.dr, &topology.far]).zip(likes) {
        for (number, node) in (1..).zip(nodes) {
            let present =
                number <= STAYING || (change + number).is_multiple_of(if number == 6 { 6 } else { 3 });
            // At every change another one of the staying backends drains and others count double or more.
            let weight = if number <= STAYING { (change * number) % 4 } else { 1 };
            let weight = if change == 0 { 1 } else { u16::try_from(weight).unwrap_or(1) };
            if present {
                pool.backends.push(Backend { weight, ..Backend::of(node, like) });
            }
        }
        // The order in the file must not matter.
        pool.backends.rotate_left(change % STAYING);
    }
    settings
}

/// Applies the changes evenly over the first half of the downloads.
fn change(topology: &Topology, shunt: &Shunt<'_>, downloads: &[Request]) -> Result<()> {
    let begun =
        || downloads.iter().all(|download| fs::metadata(&download.output).is_ok_and(|file| file.len() > 0));
    wait::until_true("all downloads to begin", STALL, begun)?;
    let total = FILE_BYTES * downloads.len() as u64;
    let mut slowest = Duration::ZERO;
    let begin = Instant::now();
    for number in 1..=CHANGES {
        let wanted = total / 2 * number as u64 / CHANGES as u64;
        wait::until_true(&format!("the downloads to go on at change {number}"), STALL, || {
            received(downloads) >= wanted
        })?;
        let start = Instant::now();
        shunt.apply(&settings(topology, number))?;
        slowest = slowest.max(start.elapsed());
    }
    let (seconds, slowest) = (begin.elapsed().as_secs_f64(), slowest.as_secs_f64() * 1e3);
    println!("   {CHANGES} changes in {seconds:.1} s, the slowest reload took {slowest:.0} ms");
    Ok(())
}

fn received(downloads: &[Request]) -> u64 {
    downloads.iter().filter_map(|download| fs::metadata(&download.output).ok()).map(|file| file.len()).sum()
}

fn downloads(topology: &Topology) -> Vec<Request> {
    let vips = [10, 20].into_iter().flat_map(vips);
    let mut downloads = Vec::new();
    for (first_port, vip) in (10_000u16..).step_by(DOWNLOADS.into()).zip(vips) {
        for request in curl::requests(topology, vip, DOWNLOADS, first_port) {
            let url = format!("http://{}/file", SocketAddr::new(vip, 80));
            let output = topology.run.directory().join(format!("download-{}", downloads.len()));
            downloads.push(Request { url, output, ..request });
        }
    }
    downloads
}

fn judge(replies: &[Reply], downloads: &[Request], content: &[u8]) -> Result<()> {
    let whole = |reply: &Reply| {
        let download = downloads.iter().find(|download| Some(download.from) == reply.local);
        let same =
            download.is_some_and(|download| fs::read(&download.output).is_ok_and(|got| got == content));
        same && reply.is_good()
    };
    let stays = |reply: &&Reply| {
        let number = reply.backend.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<usize>();
        number.is_ok_and(|number| number <= STAYING)
    };
    let (staying, leaving): (Vec<_>, Vec<_>) = replies.iter().partition(stays);
    let broken: Vec<_> = staying.iter().filter(|reply| !whole(reply)).collect();
    let lost = leaving.iter().filter(|reply| !whole(reply)).count();
    println!(
        "   {} downloads on backends that stay: {} broken, every byte compared",
        staying.len(),
        broken.len()
    );
    println!("   {} downloads on backends that were removed meanwhile: {lost} lost with them", leaving.len());
    let unknown = replies.iter().find(|reply| reply.backend.is_empty());
    ensure(unknown.is_none(), || format!("a download never began: {unknown:?}"))?;
    ensure(broken.is_empty(), || format!("e.g. {:?}", broken[0]))?;
    ensure(staying.len() >= DOWNLOADS_MIN, || {
        format!("{} downloads on backends that stay are too few to show it", staying.len())
    })
}
