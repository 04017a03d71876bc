//! `kill -9` of each daemon.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shunt_tests::curl::{self, Curl, Manner, Request};
use shunt_tests::error::{Result, ensure};
use shunt_tests::servers;
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::{PATIENCE, Shunt};
use shunt_tests::topology::{Arms, Shape, Topology};
use shunt_tests::wait;

use crate::stage::{all_good, request, start_servers, until_answered, with_shunt};

/// After a restart.
const RECOVERY_LIMIT: Duration = Duration::from_secs(2);

fn shape() -> Shape {
    Shape { arms: Arms::Two, queues: 1, dr: 4, far: 4, vips: [10, 20].into_iter().flat_map(vips).collect() }
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    let ports = &["tcp/80", "udp/7"];
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), ports));
    settings.serve("far", "ipip", &topology.far, like_v4(), (&vips(20), ports));
    settings
}

/// The dataplane forwards on while the control plane is dead, and the new one finds everything in order.
pub fn controlplane() -> Result<()> {
    with_shunt("controlplane_crash", shape(), settings, |topology, shunt| {
        let _servers = start_servers(topology)?;
        let load = Load::start(topology)?;
        load.wait_for(load.total() / 5)?;
        shunt.kill_controlplane()?;
        load.wait_for(load.total() * 2 / 5)?;
        let dead = shunt.lbctl(&["status"])?;
        let said = String::from_utf8_lossy(&[dead.stdout.as_slice(), &dead.stderr].concat()).into_owned();
        let said = said.lines().find(|line| line.contains("not running")).unwrap_or(&said).to_owned();
        ensure(dead.status.code() == Some(1), || {
            format!("`lbctl status` without a control plane: {dead:?}")
        })?;
        let restart = Instant::now();
        shunt.start_controlplane()?;
        shunt.wait_healthy(PATIENCE)?;
        let healthy = restart.elapsed();
        let total = load.total();
        load.finish()?;
        println!("   lbctl while it was dead: {said}");
        println!(
            "   0 of {total} requests failed; healthy {:.0} ms after the restart",
            healthy.as_secs_f64() * 1e3
        );
        ensure(healthy <= RECOVERY_LIMIT, || format!("it took {healthy:?} to be healthy again"))
    })
}

/// Requests on all VIPs at once, enough of them that things can happen meanwhile.
struct Load {
    curls: Vec<(Curl, Vec<Request>)>,
}

impl Load {
    const REQUESTS: u16 = 5_000;

    fn start(topology: &Topology) -> Result<Self> {
        let vips = [10, 20].into_iter().flat_map(vips);
        let manner = Manner { parallel: 5, ..Manner::default() };
        let start = |(index, vip): (u16, IpAddr)| {
            let requests = curl::requests(topology, vip, Self::REQUESTS, 10_000 + index * Self::REQUESTS);
            Ok((Curl::start(topology, &format!("load-{index}"), &requests, &manner)?, requests))
        };
        Ok(Self { curls: (0..).zip(vips).map(start).collect::<Result<_>>()? })
    }

    fn total(&self) -> usize {
        self.curls.iter().map(|(_, requests)| requests.len()).sum()
    }

    fn wait_for(&self, replies: usize) -> Result<()> {
        let came = || self.curls.iter().map(|(curl, _)| curl.replied()).sum::<usize>();
        wait::until_true(&format!("{replies} replies"), PATIENCE * 3, || came() >= replies).map(drop)
    }

    fn finish(mut self) -> Result<()> {
        let unfinished =
            self.curls.iter_mut().filter_map(|(curl, _)| curl.is_running().then_some(())).count();
        ensure(unfinished > 0, || "the load was over before the crash was".to_owned())?;
        self.curls.into_iter().try_for_each(|(curl, requests)| all_good(&curl.finish()?, &requests))
    }
}

/// While the dataplane is dead its packets are dropped and the host keeps quiet; a restart is all it takes.
pub fn dataplane() -> Result<()> {
    with_shunt("dataplane_crash", shape(), settings, |topology, shunt| {
        let _servers = start_servers(topology)?;
        let content = servers::publish(&topology.run, "file", 400_000)?;
        let downloads = downloads(topology);
        let manner =
            Manner { parallel: downloads.len(), rate: Some(100_000), limit: Duration::from_secs(60) };
        let mut curl = Curl::start(topology, "downloads", &downloads, &manner)?;
        let begun = || downloads.iter().all(|d| std::fs::metadata(&d.output).is_ok_and(|m| m.len() > 0));
        wait::until_true("all downloads to begin", PATIENCE, begun)?;

        shunt.kill_dataplane()?;
        silence(topology)?;
        let answer = shunt.lbctl(&["status"])?;
        ensure(answer.status.code() == Some(1), || {
            format!("`lbctl status` without a dataplane: {answer:?}")
        })?;

        recover(topology, shunt)?;
        ensure(curl.is_running(), || "the downloads were over before the crash was".to_owned())?;
        all_good(&curl.finish()?, &downloads)?;
        for download in &downloads {
            let same = std::fs::read(&download.output).is_ok_and(|got| got == content);
            ensure(same, || format!("{} differs from what was served", download.output.display()))?;
        }
        println!("   {} of {} downloads came through the crash whole", downloads.len(), downloads.len());
        for (index, vip) in (0..).zip([10, 20].into_iter().flat_map(vips)) {
            request(topology, &vip.to_string(), vip, 200, 20_000 + index * 200)?;
        }
        Ok(())
    })
}

fn downloads(topology: &Topology) -> Vec<Request> {
    let vips = [10, 20].into_iter().flat_map(vips);
    let of = |(index, vip): (u16, IpAddr)| {
        let mut downloads = curl::requests(topology, vip, 5, 30_000 + index * 5);
        for (number, download) in downloads.iter_mut().enumerate() {
            download.url = format!("http://{}/file", SocketAddr::new(vip, 80));
            download.output = topology.run.directory().join(format!("download-{index}-{number}"));
        }
        downloads
    };
    (0..).zip(vips).flat_map(of).collect()
}

/// Connections to the VIPs run into nothing: not into a reset by the host.
fn silence(topology: &Topology) -> Result<()> {
    const TIMED_OUT: u32 = 28;
    let vips = [10, 20].into_iter().flat_map(vips).zip((9_000..).step_by(3));
    let requests: Vec<_> = vips.flat_map(|(vip, port)| curl::requests(topology, vip, 3, port)).collect();
    let manner = Manner { limit: Duration::from_millis(1500), ..Manner::default() };
    let replies = Curl::start(topology, "silence", &requests, &manner)?.finish()?;
    let other = replies.iter().find(|reply| reply.exit != TIMED_OUT);
    ensure(other.is_none(), || format!("without a dataplane a connection should time out: {other:?}"))?;
    println!(
        "   while it was dead {} of {} connections timed out, none was refused",
        replies.len(),
        replies.len()
    );
    Ok(())
}

fn recover(topology: &Topology, shunt: &mut Shunt<'_>) -> Result<()> {
    let restart = Instant::now();
    shunt.start_dataplane()?;
    for vip in [10, 20].into_iter().flat_map(vips) {
        until_answered(topology, vip, PATIENCE)?;
    }
    let forwarding = restart.elapsed();
    shunt.wait_healthy(PATIENCE)?;
    let healthy = restart.elapsed();
    println!(
        "   forwarding again {:.0} ms after the restart, healthy after {:.0} ms",
        forwarding.as_secs_f64() * 1e3,
        healthy.as_secs_f64() * 1e3
    );
    ensure(forwarding <= RECOVERY_LIMIT, || format!("it took {forwarding:?} to forward again"))
}
