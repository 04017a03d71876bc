//! The floor: the same sockets, settings, steering program and loop as Shunt's, with nothing in between but new Ethernet
//! addresses. What Shunt falls short of it is what Shunt itself costs.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use shunt_api::config::Config;
use shunt_api::snapshot::{DataplaneSettings, XdpMode, ZeroCopy};
use shunt_dataplane::limits::{MAX_SLEEP, SPINS_BEFORE_SLEEP};
use shunt_dataplane::port::xsk::{Offers, OwnUmem, QueueId, Settings, XskPort};
use shunt_dataplane::port::{Frame, NicIndex, Port};
use shunt_dataplane::program::Steering;
use shunt_tests::error::{Error, Result};
use shunt_tests::process::Process;
use shunt_tests::wait;

use super::network::{BACK, BACK_MAC, BACKEND_MAC, FRONT, Network, VIP};
use super::{START_LIMIT, SUBJECT_CORE, pinning, subject};

/// What the process is started with.
#[derive(clap::Args)]
pub struct Forwarding {
    /// Directory of a BPF file system for the steering program's pins.
    #[arg(long)]
    bpf_dir: PathBuf,
}

/// Said on stdout when packets are forwarded.
const READY: &str = "forwarding";

/// Starts it on the load balancer and waits until it forwards.
pub fn start(network: &Network) -> Result<Process> {
    let bpf = network.run.mount_bpf("bpf")?;
    let program = std::env::current_exe().map_err(wrong)?;
    let arguments = ["l2fwd".to_owned(), format!("--bpf-dir={}", bpf.display())];
    let mut process = Process::start(&network.run, &network.lb, "l2fwd", &program, &arguments)?;
    wait::until("the l2fwd loop to start", START_LIMIT, || {
        if !process.is_running() {
            return Err(Error::Wrong(format!("the l2fwd loop ended:\n{}", process.log())));
        }
        Ok(process.output().contains(READY).then_some(()))
    })?;
    Ok(process)
}

/// The process: forwards from each NIC to the other until it is killed.
pub fn forward(forwarding: &Forwarding) -> Result<()> {
    pinning::pin_this_thread(SUBJECT_CORE)?;
    let text = subject::settings("dr").to_string();
    let settings = Config::parse(&text, "settings of the benchmark").map_err(wrong)?.dataplane;
    let (port, _steering) = open(&settings, &forwarding.bpf_dir).map_err(wrong)?;
    println!("{READY}");
    run(port, settings.batch as usize)
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::Wrong(error.to_string())
}

type Opened = std::result::Result<(XskPort<OwnUmem>, Steering), Box<dyn std::error::Error>>;

fn open(settings: &DataplaneSettings, bpf_dir: &Path) -> Opened {
    let queues = [FRONT, BACK].into_iter().zip(0..).map(|(name, nic)| QueueId {
        nic: NicIndex(nic),
        name: name.to_owned(),
        queue: 0,
    });
    let queues: Vec<QueueId> = queues.collect();
    let settings = Settings { ring_size: settings.ring_size, busy_poll: settings.busy_poll };
    let mut steering = Steering::open(bpf_dir)?;
    [FRONT, BACK].into_iter().try_for_each(|nic| steering.load(nic))?;
    let (port, _, sockets) = XskPort::open(&queues, &settings, &mut Offers::of(ZeroCopy::Auto, false))?;
    for socket in &sockets {
        steering.insert_socket(&socket.queue.name, socket.queue.queue, socket.fd.as_fd())?;
    }
    steering.own(&BTreeMap::from([(VIP.into(), 0)]))?;
    [FRONT, BACK].into_iter().try_for_each(|nic| steering.attach(nic, XdpMode::Auto).map(drop))?;
    Ok((port, steering))
}

/// As `Worker::run` goes round.
fn run(mut port: XskPort<OwnUmem>, batch: usize) -> ! {
    let mut frames: Vec<Frame> = Vec::with_capacity(batch);
    let mut idle_rounds = 0;
    loop {
        let received = port.receive(&mut frames, batch);
        for frame in frames.drain(..) {
            let range = frame.range();
            let ethernet = &mut port.buffer(&frame)[range][..12];
            ethernet[..6].copy_from_slice(&BACKEND_MAC.0);
            ethernet[6..].copy_from_slice(&BACK_MAC.0);
            if let Err(frame) = port.transmit(NicIndex(1), frame) {
                port.release(frame);
            }
        }
        port.flush();
        idle_rounds = if received > 0 { 0 } else { idle_rounds + 1 };
        if idle_rounds > SPINS_BEFORE_SLEEP {
            port.wait(MAX_SLEEP);
        }
    }
}
