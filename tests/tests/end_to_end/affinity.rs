//! `affinity`: all connections of a client go to one backend, whatever its port and the protocol, and stay there
//! when the pool grows. Without its backend the client moves once.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use shunt_api::counters::Counter;
use shunt_tests::client;
use shunt_tests::curl::{self, Curl, Manner, Request};
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::settings::{Backend, Settings, like_v4, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Segment, Shape, Topology};

use crate::observe::counting;
use crate::stage::{ECHO_PORT, all_good, start_servers, with_shunt};

const BACKENDS: usize = 8;
/// Backends of the pool before it grows.
const SMALLER_POOL: usize = 2;
const CONNECTIONS: u16 = 200;
/// Host numbers of clients that come when the pool has grown.
const LATE_CLIENTS: std::ops::Range<u8> = 20..40;

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: BACKENDS, far: 0, vips: vips(10).to_vec() };
    with_shunt(
        "affinity",
        shape,
        |topology| settings(topology, SMALLER_POOL),
        |topology, shunt| {
            let _servers = start_servers(topology)?;
            let clients = vips(10).map(|vip| topology.client_addresses(vip).map(|client| (vip, client)));
            let clients: Vec<(IpAddr, IpAddr)> = clients.into_iter().flatten().collect();
            let at_first = places(topology, &clients, 10_000)?;
            println!("   2 backends: {CONNECTIONS} connections of each client to one: {at_first:?}");

            shunt.apply(&settings(topology, BACKENDS))?;
            let (grown, counted) = counting(shunt, || places(topology, &clients, 20_000))?;
            let hits = counted.counter(Counter::AffinityHits);
            println!(
                "   {BACKENDS} backends: the same {CONNECTIONS} connections each, {hits} of them by memory: {grown:?}"
            );
            ensure(grown == at_first, || "a client moved when the pool grew".to_owned())?;
            let connections = clients.len() as u64 * u64::from(CONNECTIONS);
            ensure(hits >= connections, || {
                format!("only {hits} of {connections} connections were remembered")
            })?;
            late_clients(topology, &settings(topology, SMALLER_POOL))?;

            removed(topology, shunt, &clients, &grown)
        },
    )
}

fn settings(topology: &Topology, backends: usize) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    let nodes = &topology.dr[..backends];
    settings.serve("dr", "dr", nodes, like_v4(), (&vips(10), &["tcp/80", "udp/7"]));
    settings.with_service_keys("affinity = \"client_ip\"")
}

/// The one backend of each client.
fn places(topology: &Topology, clients: &[(IpAddr, IpAddr)], first_port: u16) -> Result<Vec<String>> {
    let place = |(index, &(vip, client)): (usize, &(IpAddr, IpAddr))| {
        let label = format!("affinity-{first_port}-{index}");
        place(topology, &label, vip, client, first_port)
    };
    clients.iter().enumerate().map(place).collect()
}

/// The one backend that answers a client's connections and a datagram.
fn place(topology: &Topology, label: &str, vip: IpAddr, client: IpAddr, first_port: u16) -> Result<String> {
    let mut requests: Vec<Request> = curl::requests(topology, vip, CONNECTIONS, first_port);
    requests.iter_mut().for_each(|request| request.from.set_ip(client));
    let replies = Curl::start(topology, label, &requests, &Manner::default())?.finish()?;
    all_good(&replies, &requests)?;
    let mut backends: BTreeSet<String> = replies.into_iter().map(|reply| reply.backend).collect();
    backends.insert(ask(topology, vip, client, first_port)?);
    let (one, others) = (backends.pop_first(), backends);
    ensure(others.is_empty(), || format!("{client} was answered by {one:?} and {others:?}"))?;
    one.ok_or_else(|| Error::Wrong(format!("{client} was answered by nobody")))
}

fn ask(topology: &Topology, vip: IpAddr, client: IpAddr, port: u16) -> Result<String> {
    let asked = client::run_inside(&topology.client, || async move {
        client::ask_udp((client, port).into(), (vip, ECHO_PORT).into()).await
    })?;
    asked.map(|answered| answered.answer.server).to(|| format!("get an answer from {vip} to {client}"))
}

/// Clients that nothing is remembered of go to the new backends too: staying is no accident.
fn late_clients(topology: &Topology, before: &Settings) -> Result<()> {
    let mut batch = String::new();
    for host in LATE_CLIENTS {
        let _ = writeln!(batch, "addr add {}/24 dev eth0", Segment::Front.v4(host));
    }
    topology.client.ip(&batch)?;
    let vip = vips(10)[0];
    let late = LATE_CLIENTS.map(|host| ask(topology, vip, Segment::Front.v4(host).into(), 9_000));
    let late: Vec<String> = late.collect::<Result<_>>()?;
    let old: BTreeSet<&str> = before.pools[0].backends.iter().map(|backend| backend.name.as_str()).collect();
    let on_new = late.iter().filter(|name| !old.contains(name.as_str())).count();
    println!("   {on_new} of {} clients that came later went to the new backends", late.len());
    ensure(on_new > late.len() / 2, || "the pool did not grow for new clients".to_owned())
}

/// The first client's backend goes and comes back: who was on it moves once, all others never.
fn removed(
    topology: &Topology,
    shunt: &Shunt<'_>,
    clients: &[(IpAddr, IpAddr)],
    before: &[String],
) -> Result<()> {
    let gone = &before[0];
    let all = settings(topology, BACKENDS);
    let mut without = all.clone();
    without.pools[0].backends.retain(|Backend { name, .. }| name != gone);
    shunt.apply(&without)?;
    let moved = places(topology, clients, 30_000)?;
    println!("   without {gone}: {moved:?}");
    for (before, after) in before.iter().zip(&moved) {
        ensure((after != before) == (before == gone), || format!("a client went from {before} to {after}"))?;
    }
    shunt.apply(&all)?;
    let after = places(topology, clients, 40_000)?;
    println!("   with {gone} again: {after:?}");
    ensure(after == moved, || "a client moved when the backend came back".to_owned())
}
