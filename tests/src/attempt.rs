//! One connection or datagram, and what its sender sees of it: an answer, a refusal or nothing.
//!
//! Sockets belong to the namespace of the thread that makes them: run these futures with
//! [`crate::client::run_inside`].

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use shunt_api::snapshot::Protocol;

/// What the sender sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A connection, or a datagram back.
    Answered,
    /// A reset, or an ICMP "port unreachable": the socket has `ECONNREFUSED`.
    Refused,
    /// Nothing within the limit.
    Silent,
}

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What the sender saw.
    pub outcome: Outcome,
    /// How long that took.
    pub after: Duration,
}

/// How many attempts ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// See [`Outcome::Answered`].
    pub answered: u64,
    /// See [`Outcome::Refused`].
    pub refused: u64,
    /// See [`Outcome::Silent`].
    pub silent: u64,
    /// The longest time until an answer or a refusal.
    pub slowest: Duration,
}

impl FromIterator<Attempt> for Attempts {
    fn from_iter<I: IntoIterator<Item = Attempt>>(attempts: I) -> Self {
        attempts.into_iter().fold(Self::default(), |mut sum, Attempt { outcome, after }| {
            match outcome {
                Outcome::Answered => sum.answered += 1,
                Outcome::Refused => sum.refused += 1,
                Outcome::Silent => sum.silent += 1,
            }
            if outcome != Outcome::Silent {
                sum.slowest = sum.slowest.max(after);
            }
            sum
        })
    }
}

impl Attempts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.answered + self.refused + self.silent
    }
}

/// Attempts from each of these ends, all at once.
///
/// # Errors
/// Whatever a socket ends with besides a refusal.
pub async fn many(
    protocol: Protocol,
    from: Vec<SocketAddr>,
    to: SocketAddr,
    limit: Duration,
) -> io::Result<Attempts> {
    let mut under_way = JoinSet::new();
    for from in from {
        under_way.spawn(one(protocol, from, to, limit));
    }
    under_way.join_all().await.into_iter().collect()
}

/// One attempt. Over UDP it is a single datagram; a TCP connection is closed at once.
///
/// # Errors
/// Whatever the socket ends with besides a refusal.
pub async fn one(
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    limit: Duration,
) -> io::Result<Attempt> {
    let start = Instant::now();
    let ended = match protocol {
        Protocol::Tcp => timeout(limit, connect(from, to)).await,
        Protocol::Udp => timeout(limit, ask(from, to)).await,
    };
    let outcome = match ended {
        Err(_) => Outcome::Silent,
        Ok(Ok(())) => Outcome::Answered,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Outcome::Refused,
        Ok(Err(error)) => return Err(error),
    };
    Ok(Attempt { outcome, after: start.elapsed() })
}

/// So many ends of these addresses, by turns, with ports from this one on.
pub fn ends(addresses: &[std::net::IpAddr], count: u16, first_port: u16) -> Vec<SocketAddr> {
    let ports = first_port..first_port.saturating_add(count);
    addresses.iter().cycle().zip(ports).map(|(address, port)| SocketAddr::new(*address, port)).collect()
}

async fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(from)?;
    socket.connect(to).await.map(drop)
}

async fn ask(from: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(from).await?;
    // ICMP errors come to connected sockets only.
    socket.connect(to).await?;
    socket.send(b"anybody?").await?;
    socket.recv(&mut [0; 2048]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    #[test]
    fn answers_refusals_and_silence_are_told_apart() {
        let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        run(async {
            let listener = tokio::net::TcpListener::bind(any).await.unwrap();
            let mute = UdpSocket::bind(any).await.unwrap();
            let unused = std::net::UdpSocket::bind(any).unwrap().local_addr().unwrap();
            for (protocol, to, outcome) in [
                (Protocol::Tcp, listener.local_addr().unwrap(), Outcome::Answered),
                (Protocol::Udp, mute.local_addr().unwrap(), Outcome::Silent),
                (Protocol::Udp, unused, Outcome::Refused),
            ] {
                let attempts = many(protocol, vec![any, any], to, LIMIT).await.unwrap();
                let counted = match outcome {
                    Outcome::Answered => attempts.answered,
                    Outcome::Refused => attempts.refused,
                    Outcome::Silent => attempts.silent,
                };
                assert_eq!((counted, attempts.total()), (2, 2), "{outcome:?}: {attempts:?}");
            }
        });
    }

    #[test]
    fn ends_take_addresses_by_turns() {
        let addresses = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        let ends = ends(&addresses, 3, 7);
        let texts: Vec<_> = ends.iter().map(SocketAddr::to_string).collect();
        assert_eq!(texts, ["10.0.0.1:7", "10.0.0.2:8", "10.0.0.1:9"]);
    }
}
