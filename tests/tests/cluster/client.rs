//! Clients outside of the cluster, and what they see.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use shunt_api::snapshot::Protocol;
use shunt_tests::attempt::{self, Outcome};
use shunt_tests::client::{Answered, ask_tcp, ask_udp, run_inside, who};
use shunt_tests::error::{Error, Result, While};
use tokio::time::{Instant, timeout};

use crate::cluster::Cluster;
use crate::objects::PORT;

/// For one question while the first answer is awaited; many of them find its moment.
const TRY: Duration = Duration::from_millis(500);
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(5);
/// For one attempt that may meet with silence.
const SILENCE: Duration = Duration::from_millis(500);
/// So many answers one after the other are hardly ever those of one node of two: 1 time in 500,000.
const IN_A_ROW: usize = 20;
/// Until something answers.
const LIMIT: Duration = Duration::from_secs(20);

/// Ports of attempts that may come too early, none of them used twice and none by [`ask`]: a node that gets a packet to a
/// VIP before kube-proxy knows it remembers for two minutes that it was forwarded as it is, and would do so again.
static NEXT_PORT: AtomicU16 = AtomicU16::new(10_000);

fn next_end(vip: IpAddr) -> SocketAddr {
    SocketAddr::new(source(vip), NEXT_PORT.fetch_add(1, Ordering::Relaxed))
}

/// The address of clients, of the family of a VIP (tests/cluster/README.md).
pub fn source(vip: IpAddr) -> IpAddr {
    if vip.is_ipv4() { [203, 0, 113, 2].into() } else { [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 2].into() }
}

/// Asks so many times over TCP, each on a new connection; every one has to be answered.
pub fn ask(cluster: &Cluster, vip: IpAddr, count: usize) -> Result<Vec<Answered>> {
    let asking = || async {
        let mut answers = Vec::new();
        for _ in 0..count {
            answers.push(ask_tcp(source(vip), (vip, PORT).into()).await?);
        }
        io::Result::Ok(answers)
    };
    run_inside(&cluster.client, asking)?.to(|| format!("ask {vip} {count} times"))
}

/// Asks over UDP; it has to be answered.
pub fn ask_datagram(cluster: &Cluster, vip: SocketAddr) -> Result<Answered> {
    let source = SocketAddr::new(source(vip.ip()), 0);
    run_inside(&cluster.client, || ask_udp(source, vip))?.to(|| format!("ask {vip} over UDP"))
}

/// Asks again and again until there is an answer; how long that took.
pub fn first_answer(cluster: &Cluster, vip: IpAddr) -> Result<Duration> {
    until_in_a_row(cluster, vip, 1)
}

/// Asks until it is certain that all nodes answer: each kube-proxy learns of a Service in its own time.
pub fn until_answered(cluster: &Cluster, vip: IpAddr) -> Result<()> {
    until_in_a_row(cluster, vip, IN_A_ROW).map(drop)
}

fn until_in_a_row(cluster: &Cluster, vip: IpAddr, wanted: usize) -> Result<Duration> {
    let asking = || async {
        let begin = Instant::now();
        let (mut last, mut answered) = (io::Error::other("nothing was tried"), 0);
        while begin.elapsed() < LIMIT {
            last = match timeout(TRY, who(next_end(vip), (vip, PORT).into())).await {
                Ok(Ok(_)) if answered + 1 == wanted => return Ok(begin.elapsed()),
                Ok(Ok(_)) => {
                    answered += 1;
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            answered = 0;
            // A refusal comes at once.
            tokio::time::sleep(PAUSE).await;
        }
        Err(last)
    };
    run_inside(&cluster.client, asking)?.to(|| format!("get {wanted} answers from {vip} within {LIMIT:?}"))
}

/// What becomes of one connection or datagram to an address that may not answer.
pub fn attempt(cluster: &Cluster, protocol: Protocol, to: SocketAddr) -> Result<Outcome> {
    let from = next_end(to.ip());
    let attempt = run_inside(&cluster.client, || attempt::one(protocol, from, to, SILENCE))?;
    match attempt {
        Ok(attempt) => Ok(attempt.outcome),
        // So does the box refuse what no Service has.
        Err(error) if error.kind() == io::ErrorKind::HostUnreachable => Ok(Outcome::Refused),
        Err(error) => Err(error).to(|| format!("reach {to}")),
    }
}

/// Whether a new connection to a Service's usual port is answered.
pub fn answers(cluster: &Cluster, vip: IpAddr) -> Result<bool> {
    Ok(attempt(cluster, Protocol::Tcp, (vip, PORT).into())? == Outcome::Answered)
}

/// Names of the pods that answered.
pub fn pods(answers: &[Answered]) -> BTreeSet<&str> {
    answers.iter().map(|answered| answered.answer.server.as_str()).collect()
}

/// Names of the nodes of the pods that answered.
pub fn nodes(answers: &[Answered]) -> BTreeSet<&str> {
    pods(answers).into_iter().map(node_of).collect()
}

/// The node in the name of a pod's server.
pub fn node_of(server: &str) -> &str {
    server.split('/').next().unwrap_or_default()
}

/// An error unless these very nodes' pods answer.
pub fn expect_nodes(cluster: &Cluster, vip: IpAddr, count: usize, expected: &[&str]) -> Result<()> {
    let answers = ask(cluster, vip, count)?;
    let found = nodes(&answers);
    let wanted: BTreeSet<&str> = expected.iter().copied().collect();
    if found == wanted {
        return Ok(());
    }
    Err(Error::Wrong(format!("pods of {found:?} answered, not of {wanted:?}")))
}
