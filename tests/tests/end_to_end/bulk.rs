//! Large transfers, and what the counters have to say afterwards.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use shunt_api::counters::{Counter, CounterValues};
use shunt_tests::client;
use shunt_tests::echo::Received;
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::process::Process;
use shunt_tests::servers;
use shunt_tests::shunt::{PATIENCE, Shunt};
use shunt_tests::topology::Topology;
use shunt_tests::wait;

use crate::stage::ECHO_PORT;

/// Bytes of an upload.
pub const UPLOAD: u64 = 10_000_000;
/// Bytes of a datagram.
pub const DATAGRAM: usize = 8192;

/// Starts `shunt-echo` on all backends.
pub fn start_echoes(topology: &Topology) -> Result<Vec<Process>> {
    topology.nodes().map(|node| servers::start_echo(topology, node, &[ECHO_PORT])).collect()
}

/// Uploads [`UPLOAD`] bytes to a VIP, every one of which has to arrive.
pub fn upload(topology: &Topology, vip: IpAddr) -> Result<Duration> {
    let source = topology.client_addresses(vip)[0];
    let start = Instant::now();
    let received = client::run_inside(&topology.client, || async move {
        client::upload(source, (vip, ECHO_PORT).into(), UPLOAD).await
    })?;
    let received = received.to(|| format!("upload {UPLOAD} bytes to {vip}"))?;
    let whole = Received { bytes: UPLOAD, wrong_at: None };
    ensure(received == whole, || format!("of an upload of {UPLOAD} bytes to {vip} came {received:?}"))?;
    Ok(start.elapsed())
}

/// Sends datagrams of [`DATAGRAM`] bytes to a VIP; every one has to come back byte by byte. Says how many were sent twice,
/// which must be one of a hundred at most.
pub fn echo(topology: &Topology, label: &str, vip: IpAddr, count: u16, first_port: u16) -> Result<usize> {
    let sources = topology.client_addresses(vip);
    let start = Instant::now();
    let echoed = client::run_inside(&topology.client, || {
        client::echo_many(sources, (vip, ECHO_PORT).into(), DATAGRAM, count, first_port)
    })?;
    let lost = echoed.iter().filter(|echoed| echoed.is_err()).count();
    let again = echoed.iter().filter(|echoed| matches!(echoed, Ok(true))).count();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "   {label:<20} {} of {count} datagrams of {DATAGRAM} bytes back in {seconds:.1} s, {again} of them sent twice",
        echoed.len() - lost
    );
    let first = echoed.into_iter().find(std::io::Result::is_err).map_or(Ok(()), |echoed| echoed.map(drop));
    first.to(|| format!("get all of {count} datagrams back from {vip}: {lost} are missing, the first"))?;
    ensure(again * 100 <= usize::from(count), || {
        format!("{again} of {count} datagrams to {vip} were lost once")
    })?;
    Ok(again)
}

/// Counters of all workers, once every packet received was sent on or dropped: they are read one by one while packets
/// pass.
pub fn conserved(shunt: &Shunt<'_>) -> Result<CounterValues> {
    let read = || {
        let total = shunt.stats()?.total();
        let gone = total.counter(Counter::TxPackets) + total.dropped_total();
        Ok((total.counter(Counter::RxPackets) == gone).then_some(total))
    };
    wait::until("every packet received to be sent or dropped", PATIENCE, read).map(|(total, _)| total)
}

/// The largest packet that the client's kernel sends to an address, as it learned from ICMP messages.
pub fn known_mtu(topology: &Topology, vip: IpAddr) -> Result<u32> {
    let route = topology.client.run("ip", &["route", "get", &vip.to_string()])?;
    let mtu = route.split_whitespace().skip_while(|word| *word != "mtu").nth(1);
    mtu.and_then(|mtu| mtu.parse().ok())
        .ok_or_else(|| Error::Wrong(format!("the client has learned no MTU: {}", route.trim())))
}
