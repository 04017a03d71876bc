//! What several scenarios look at: counters around an action, attempts from the client, files byte by byte.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shunt_api::counters::{Counter, CounterValues, DropReason};
use shunt_api::snapshot::Protocol;
use shunt_tests::attempt::{self, Attempts};
use shunt_tests::client;
use shunt_tests::curl::{self, Curl, Manner, Reply};
use shunt_tests::error::{Result, While, ensure};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::Topology;

/// How far the counters of all workers went up.
#[derive(Debug)]
pub struct Grown {
    before: CounterValues,
    after: CounterValues,
}

impl Grown {
    /// Of one counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.after.counter(counter) - self.before.counter(counter)
    }

    /// Of the drops for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.after.dropped(reason) - self.before.dropped(reason)
    }
}

/// Does the work, and says what was counted meanwhile.
pub fn counting<T>(shunt: &Shunt<'_>, work: impl FnOnce() -> Result<T>) -> Result<(T, Grown)> {
    let before = shunt.stats()?.total();
    let done = work()?;
    let after = shunt.stats()?.total();
    Ok((done, Grown { before, after }))
}

/// An error unless as much was counted as should be.
pub fn counted(what: &str, got: u64, expected: impl Into<u64>) -> Result<()> {
    let expected = expected.into();
    ensure(got == expected, || format!("{what}: {got} were counted instead of {expected}"))
}

/// Attempts from these addresses of the client by turns, all at once, ports from `first_port` on.
pub fn attempt(
    topology: &Topology,
    (protocol, to): (Protocol, SocketAddr),
    from: &[IpAddr],
    (count, first_port): (u16, u16),
    limit: Duration,
) -> Result<Attempts> {
    let ends = attempt::ends(from, count, first_port);
    let attempts = client::run_inside(&topology.client, || attempt::many(protocol, ends, to, limit))?;
    attempts.to(|| format!("try {protocol} {to}"))
}

/// Downloads a file from a VIP by so many connections at once and compares every byte; how they were answered.
pub fn download(
    topology: &Topology,
    label: &str,
    (vip, file, content): (IpAddr, &str, &[u8]),
    (count, first_port): (u16, u16),
    limit: Duration,
) -> Result<Vec<Reply>> {
    let mut requests = curl::requests(topology, vip, count, first_port);
    for (number, request) in requests.iter_mut().enumerate() {
        request.url = format!("http://{}/{file}", SocketAddr::new(vip, 80));
        request.output = topology.run.directory().join(format!("{label}-{first_port}-{number}"));
    }
    let manner = Manner { parallel: requests.len(), rate: None, limit };
    let replies =
        Curl::start(topology, &format!("curl-{label}-{first_port}"), &requests, &manner)?.finish()?;
    let failed = replies.iter().find(|reply| reply.exit != 0 || reply.status != 200);
    ensure(failed.is_none(), || format!("{label}: a download from {vip} failed: {failed:?}"))?;
    for request in &requests {
        let same = fs::read(&request.output).is_ok_and(|got| got == content);
        ensure(same, || format!("{} differs from what was served", request.output.display()))?;
    }
    Ok(replies)
}
