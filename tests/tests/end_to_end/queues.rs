//! Two queues and two workers: connections use both, and one flow whose packets come in on both queues
//! still goes to one backend, even when the pool changes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use shunt_api::counters::Counter;
use shunt_tests::command;
use shunt_tests::echo::Answer;
use shunt_tests::error::{Result, While, ensure};
use shunt_tests::settings::{Settings, like_v4, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Shape, Topology};

use crate::stage::{ECHO_PORT, request, start_servers, with_shunt};

const QUEUES: u32 = 2;
const REQUESTS: u16 = 2_000;
/// Flows sent over both queues, and the datagrams of each.
const FLOWS: u16 = 40;
const DATAGRAMS: u64 = 20;
/// Backends of a pool before it grows to all eight.
const SMALLER_POOL: usize = 4;

pub fn run() -> Result<()> {
    let processors = std::thread::available_parallelism().to(|| "count processors".into())?.get();
    if processors < QUEUES as usize {
        println!("   SKIPPED: choosing the queue by the sender's processor needs {QUEUES} of them");
        return Ok(());
    }
    let shape = Shape {
        arms: Arms::Two,
        queues: QUEUES,
        dr: 8,
        far: 8,
        vips: [10, 20].into_iter().flat_map(vips).collect(),
    };
    with_shunt("queues", shape, settings, |topology, shunt| {
        let _servers = start_servers(topology)?;
        let before = received(shunt)?;
        for (number, first_port) in [(10, 10_000), (20, 10_000 + REQUESTS)] {
            for vip in vips(number) {
                request(topology, &vip.to_string(), vip, REQUESTS, first_port)?;
            }
        }
        let connections = grown(&before, &received(shunt)?);
        println!("   packets by worker: {connections:?}");
        both_received(&connections, u64::from(REQUESTS))?;

        queue_by_processor(topology)?;
        for vip in [10, 20].into_iter().flat_map(vips) {
            let before = received(shunt)?;
            one_backend_per_flow(topology, vip)?;
            let datagrams = grown(&before, &received(shunt)?);
            println!(
                "   {vip}: {FLOWS} flows of {DATAGRAMS} packets, by worker {datagrams:?}, one backend each"
            );
            both_received(&datagrams, u64::from(FLOWS) * DATAGRAMS / 2)?;
        }
        for vip in [10, 20].into_iter().flat_map(vips) {
            known_to_the_other_worker(topology, shunt, vip)?;
        }
        Ok(())
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    let ports = &["tcp/80", "udp/7"];
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), ports));
    settings.serve("far", "ipip", &topology.far, like_v4(), (&vips(20), ports));
    settings
}

/// Packets received by worker.
fn received(shunt: &Shunt<'_>) -> Result<Vec<u64>> {
    let stats = shunt.stats()?;
    Ok(stats.workers.iter().map(|worker| worker.counter(Counter::RxPackets)).collect())
}

fn grown(before: &[u64], after: &[u64]) -> Vec<u64> {
    before.iter().zip(after).map(|(before, after)| after - before).collect()
}

fn both_received(packets: &[u64], least: u64) -> Result<()> {
    ensure(packets.len() == QUEUES as usize && packets.iter().all(|count| *count >= least), || {
        format!("each of {QUEUES} workers should have received {least} packets or more: {packets:?}")
    })
}

/// Makes the switch choose the load balancer's queue by the processor that handles the packet, which is the
/// one that sent it, instead of by the flow.
fn queue_by_processor(topology: &Topology) -> Result<()> {
    let port = "/sys/class/net/front-lb/queues";
    let choice = |queue| format!("echo {:x} > {port}/tx-{queue}/xps_cpus\n", 1 << queue);
    let script: String = (0..QUEUES).map(choice).collect();
    // `ip netns exec`, unlike nsenter, shows the namespace's own /sys.
    let switch = topology.switch.name();
    command::run(Command::new("ip").args(["netns", "exec", switch, "sh", "-ec", &script])).map(drop)
}

fn one_backend_per_flow(topology: &Topology, vip: IpAddr) -> Result<()> {
    let source = topology.client_addresses(vip)[0];
    let seen = topology.client.inside(|| {
        (0..FLOWS).map(|flow| backends_of_flow(source, 20_000 + flow, vip)).collect::<io::Result<Vec<_>>>()
    })?;
    let seen = seen.to(|| format!("get answers from {vip} to datagrams of both queues"))?;
    let split = seen.iter().find(|backends| backends.len() != 1);
    ensure(split.is_none(), || format!("a flow was answered by more than one backend: {split:?}"))?;
    let backends = seen.iter().flat_map(BTreeMap::keys).collect::<BTreeSet<_>>();
    ensure(backends.len() > 1, || format!("all flows went to {backends:?}: that shows nothing"))
}

/// Sends datagrams of one flow from one processor after the other; who answered how many.
fn backends_of_flow(source: IpAddr, port: u16, vip: IpAddr) -> io::Result<BTreeMap<String, u64>> {
    let socket = open(source, port)?;
    let mut answers = BTreeMap::new();
    for number in 0..DATAGRAMS {
        run_on(number as usize % QUEUES as usize)?;
        *answers.entry(ask(&socket, vip)?).or_default() += 1;
    }
    Ok(answers)
}

/// Flows that began on queue 0 stay where they are when the pool grows and they come in on queue 1: the
/// workers share one flow table.
fn known_to_the_other_worker(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr) -> Result<()> {
    let source = topology.client_addresses(vip)[0];
    let grown = settings(topology);
    let mut smaller = grown.clone();
    smaller.pools.iter_mut().for_each(|pool| pool.backends.truncate(SMALLER_POOL));
    shunt.apply(&smaller)?;
    let answers = |first_port: u16, processor: usize| {
        let asked = topology.client.inside(|| {
            run_on(processor)?;
            let twice = |port| {
                let socket = open(source, port)?;
                // The second packet confirms the flow.
                ask(&socket, vip)?;
                ask(&socket, vip)
            };
            (first_port..first_port + FLOWS).map(twice).collect::<io::Result<Vec<_>>>()
        })?;
        asked.to(|| format!("get answers from {vip} to datagrams from processor {processor}"))
    };
    let before = answers(21_000, 0)?;
    shunt.apply(&grown)?;
    let after = answers(21_000, 1)?;
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    let fresh = answers(22_000, 1)?;
    let added = grown.pools.iter().flat_map(|pool| &pool.backends[SMALLER_POOL..]);
    let added: BTreeSet<_> = added.map(|backend| backend.name.as_str()).collect();
    let on_added = fresh.iter().filter(|backend| added.contains(backend.as_str())).count();
    println!(
        "   {vip}: {moved} of {FLOWS} flows moved when the pool grew; {on_added} new ones went to its new members"
    );
    ensure(moved == 0, || "worker 1 does not know the flows of worker 0".to_owned())?;
    ensure(on_added > 0, || "no new flow went to a new backend: the pool did not grow".to_owned())
}

fn open(source: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((source, port))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(socket)
}

/// Makes the calling thread, and so what it sends, use one processor.
fn run_on(processor: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}

/// Sends a datagram to the VIP; the name of the backend that answers.
fn ask(socket: &UdpSocket, vip: IpAddr) -> io::Result<String> {
    socket.send_to(b"who are you?", (vip, ECHO_PORT))?;
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer)?;
    if from.ip() != vip {
        return Err(io::Error::other(format!("{from} answered instead of {vip}")));
    }
    Ok(serde_json::from_slice::<Answer>(&buffer[..length])?.server)
}
