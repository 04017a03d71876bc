//! TCP connections with one small request each, from one client for all subjects: as many as come through, and the
//! time that they take at half of that.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;
use shunt_tests::client::run_inside;
use shunt_tests::decapsulator::Decapsulator;
use shunt_tests::error::{Error, Result, While};
use shunt_tests::process::Process;
use shunt_tests::servers;
use shunt_tests::topology::NODE_NIC;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::network::{BACKENDS, DIRECT, Network, TCP_PORT, VIP};
use super::packets::Latency;
use super::subject::{CONNECTED, Running, Subject};
use super::{GENERATOR_CORE, PERCENTILES, ROUNDS, median, pinning, turn};
use crate::results::rounded;

/// Connections at a time when as many as possible are made.
const AT_ONCE: usize = 64;
/// Longest time of one.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two looks whether connections are due, when they are made at a given rate.
const TICK: Duration = Duration::from_millis(1);
/// Share of its own most that a subject is given when the time of connections is measured.
const LOAD: f64 = 0.5;

/// What comes through a subject at most.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// Its name.
    pub subject: &'static str,
    /// Connections with a whole answer.
    pub connections_per_second: f64,
    /// Median of the rounds' ratios to the same without a load balancer.
    pub ratio_to_direct: f64,
}

/// What both came to, with the subjects in the order of [`CONNECTED`].
pub struct Connections {
    /// By subject.
    pub throughput: Vec<Throughput>,
    /// By subject.
    pub latency: Vec<Latency>,
}

/// A subject with a client before it and servers behind it.
struct Lane<'n> {
    subject: Subject,
    network: &'n Network,
    _server: Process,
    _tunnels: Option<Decapsulator>,
    _running: Running<'n>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    per_second: f64,
    /// Microseconds.
    delays: [f64; PERCENTILES.len()],
}

/// Measures all subjects, each for so long in each round.
pub fn measure(duration: Duration) -> Result<Connections> {
    let networks = CONNECTED.map(|_| Network::build()).into_iter().collect::<Result<Vec<_>>>()?;
    let lanes = CONNECTED.iter().zip(&networks).map(|(subject, network)| Lane::open(*subject, network));
    let lanes = lanes.collect::<Result<Vec<_>>>()?;
    let mut rounds = vec![Vec::with_capacity(ROUNDS); lanes.len()];
    for number in 0..ROUNDS {
        let mut round = vec![Round::default(); lanes.len()];
        for index in turn(number, lanes.len()) {
            round[index] = lanes[index].round(duration)?;
        }
        rounds.iter_mut().zip(round).for_each(|(all, one)| all.push(one));
        eprint!(".");
    }
    Ok(summary(&rounds))
}

impl<'n> Lane<'n> {
    fn open(subject: Subject, network: &'n Network) -> Result<Self> {
        let addresses = BACKENDS.into_iter().chain([VIP, DIRECT]);
        let at: Vec<SocketAddr> = addresses.map(|address| (address, TCP_PORT).into()).collect();
        let server = servers::start_nginx_at(&network.run, &network.backend, &at)?;
        pinning::pin(server.pid(), GENERATOR_CORE)?;
        let tunnelled = subject == Subject::ShuntIpip;
        let tunnels =
            tunnelled.then(|| Decapsulator::attach(&network.backend.namespace, NODE_NIC)).transpose()?;
        let running = subject.start(network)?;
        Ok(Self { subject, network, _server: server, _tunnels: tunnels, _running: running })
    }

    fn round(&self, duration: Duration) -> Result<Round> {
        let failed = |error: Error| Error::Wrong(format!("connections, {}: {error}", self.subject.name()));
        let per_second = self.inside(|target| saturate(target, duration)).map_err(failed)?;
        let times = self.inside(|target| at_rate(target, per_second * LOAD, duration)).map_err(failed)?;
        Ok(Round { per_second, delays: percentiles(times) })
    }

    /// Runs a client on the core of the load.
    fn inside<T: Send, F: Future<Output = std::io::Result<T>>>(
        &self,
        client: impl FnOnce(SocketAddr) -> F + Send,
    ) -> Result<T> {
        let target = (self.subject.asked(), TCP_PORT).into();
        let run = || async move {
            pinning::pin_this_thread(GENERATOR_CORE)?;
            client(target).await.to(|| format!("connect to {target}"))
        };
        run_inside(&self.network.client.namespace, run)?
    }
}

/// Connections per second, when a new one is made as soon as one is through.
async fn saturate(target: SocketAddr, duration: Duration) -> std::io::Result<f64> {
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..AT_ONCE {
        clients.spawn(async move {
            let mut through = 0u64;
            while start.elapsed() < duration {
                ask(target).await?;
                through += 1;
            }
            std::io::Result::Ok(through)
        });
    }
    let through = clients.join_all().await.into_iter().sum::<std::io::Result<u64>>()?;
    Ok(through as f64 / start.elapsed().as_secs_f64())
}

/// Times of connections made at a rate, whether or not the ones before are through.
async fn at_rate(target: SocketAddr, per_second: f64, duration: Duration) -> std::io::Result<Vec<Duration>> {
    let start = Instant::now();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut clients = JoinSet::new();
    let (mut made, mut elapsed) = (0, Duration::ZERO);
    while elapsed < duration {
        tick.tick().await;
        elapsed = start.elapsed().min(duration);
        let due = (elapsed.as_secs_f64() * per_second) as u64;
        for _ in made..due {
            clients.spawn(ask(target));
        }
        made = due;
    }
    clients.join_all().await.into_iter().collect()
}

/// One connection from its start to its end, and how long it took.
async fn ask(target: SocketAddr) -> std::io::Result<Duration> {
    let start = Instant::now();
    let exchange = async {
        let mut stream = TcpStream::connect(target).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = Vec::with_capacity(512);
        stream.read_to_end(&mut answer).await?;
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            return Err(std::io::Error::other("the answer is not 200 OK"));
        }
        Ok(())
    };
    timeout(LIMIT, exchange).await??;
    Ok(start.elapsed())
}

/// Microseconds.
fn percentiles(mut times: Vec<Duration>) -> [f64; PERCENTILES.len()] {
    times.sort_unstable();
    PERCENTILES.map(|share| {
        let rank = (times.len() as f64 * share).ceil() as usize;
        times.get(rank.max(1) - 1).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    })
}

fn summary(rounds: &[Vec<Round>]) -> Connections {
    let direct = &rounds[0];
    let mut connections = Connections { throughput: Vec::new(), latency: Vec::new() };
    for (subject, rounds) in CONNECTED.iter().zip(rounds) {
        let ratios = rounds.iter().zip(direct).map(|(own, direct)| own.per_second / direct.per_second);
        let per_second = median(rounds.iter().map(|round| round.per_second));
        connections.throughput.push(Throughput {
            subject: subject.name(),
            connections_per_second: rounded(per_second, 0),
            ratio_to_direct: rounded(median(ratios), 3),
        });
        let delay = |index: usize| rounded(median(rounds.iter().map(|round| round.delays[index])), 1);
        connections.latency.push(Latency {
            subject: subject.name(),
            of: "connection",
            per_second: rounded(per_second * LOAD, 0),
            p50_us: delay(0),
            p99_us: delay(1),
            p99_9_us: delay(2),
            lost: 0.0,
        });
    }
    connections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_count_from_below() {
        let times = (1..=1000).rev().map(Duration::from_micros).collect();
        let rounded = percentiles(times).map(f64::round);
        assert_eq!(rounded, [500.0, 990.0, 999.0]);
        assert!(percentiles(Vec::new())[0].is_nan());
    }

    #[test]
    fn clients_ask_and_are_answered() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = listener.local_addr().unwrap();
            let answers = tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(async move {
                        let mut request = [0; 64];
                        let _ = stream.read(&mut request).await;
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                    });
                }
            });
            let duration = Duration::from_millis(100);
            assert!(saturate(target, duration).await.unwrap() > 0.0);
            assert_eq!(at_rate(target, 1000.0, duration).await.unwrap().len(), 100);
            answers.abort();
        });
    }
}
