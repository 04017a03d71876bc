//! Clients of `shunt-echo`: one request each, from a chosen source address, every answer checked.
//!
//! Sockets belong to the namespace of the thread that makes them: run these futures with [`run_inside`].

mod bulk;

pub use bulk::{echo_many, upload};

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::echo::{Answer, pattern};
use crate::error::{Result, While};
use crate::namespace::Namespace;

/// Longest silence of a server before a request counts as failed.
const SILENCE: Duration = Duration::from_secs(10);
/// Questions under way in [`ask_udp_many`].
const AT_ONCE: usize = 20;
/// Longest wait for a datagram: nobody repeats it.
const DATAGRAM_LIMIT: Duration = Duration::from_secs(2);

/// An answer with what the client knows about itself.
#[derive(Clone, Debug)]
pub struct Answered {
    /// What the server said.
    pub answer: Answer,
    /// The client's end of the exchange.
    pub local: SocketAddr,
    /// The address asked.
    pub vip: SocketAddr,
}

/// How a long transfer went.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The address asked.
    pub vip: SocketAddr,
    /// Who sent it, if the answer began at all.
    pub server: Option<String>,
    /// Bytes that came and were right.
    pub received: u64,
    /// Why it is not complete.
    pub broken: Option<String>,
}

/// Runs a future of this module on a thread inside the namespace.
pub fn run_inside<F: Future<Output: Send>>(
    namespace: &Namespace,
    make: impl FnOnce() -> F + Send,
) -> Result<F::Output> {
    namespace.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(runtime.to(|| "start a runtime".to_owned())?.block_on(async { make().await }))
    })?
}

impl Answered {
    /// Whether the server saw the very address and port this client used, and the VIP it asked.
    pub fn is_faithful(&self) -> bool {
        let Answer { client, client_port, vip, .. } = &self.answer;
        SocketAddr::new(*client, *client_port) == self.local && *vip == self.vip.ip()
    }
}

/// Asks over TCP, on a new connection.
pub async fn ask_tcp(source: IpAddr, vip: SocketAddr) -> io::Result<Answered> {
    let mut stream = connect(source, vip).await?;
    let local = stream.local_addr()?;
    let head = request(&mut stream, "/").await?;
    let mut body = head.body;
    timeout(SILENCE, stream.read_to_end(&mut body)).await??;
    Ok(Answered { answer: serde_json::from_slice(&body)?, local, vip })
}

/// Asks nginx over TCP from this very port, which may be used again at once; the backend that answered.
pub async fn who(source: SocketAddr, vip: SocketAddr) -> io::Result<String> {
    let socket = if vip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Ended by a reset, neither side keeps the connection.
    socket.set_zero_linger()?;
    socket.bind(source)?;
    let mut stream = timeout(DATAGRAM_LIMIT, socket.connect(vip)).await??;
    let server = request(&mut stream, "/").await?.server;
    server.ok_or_else(|| io::Error::other("the answer names no backend"))
}

/// Asks over UDP, with one datagram.
pub async fn ask_udp(source: SocketAddr, vip: SocketAddr) -> io::Result<Answered> {
    ask_udp_marked(source, vip, 0).await
}

/// Asks over UDP, with one datagram of this TOS or traffic class.
pub async fn ask_udp_marked(source: SocketAddr, vip: SocketAddr, tos: u8) -> io::Result<Answered> {
    let socket = UdpSocket::bind(source).await?;
    if vip.is_ipv4() {
        sockopt::set_ip_tos(&socket, tos)?;
    } else {
        sockopt::set_ipv6_tclass(&socket, tos.into())?;
    }
    // A connected socket takes answers from nobody but the VIP.
    socket.connect(vip).await?;
    let local = socket.local_addr()?;
    socket.send(b"who are you?").await?;
    let mut buffer = vec![0; 2048];
    let length = timeout(DATAGRAM_LIMIT, socket.recv(&mut buffer)).await??;
    Ok(Answered { answer: serde_json::from_slice(&buffer[..length])?, local, vip })
}

/// Asks over UDP from ports `first_port…`, with one datagram each, [`AT_ONCE`] at a time.
pub async fn ask_udp_many(
    sources: [IpAddr; 2],
    vip: SocketAddr,
    count: u16,
    first_port: u16,
) -> Vec<io::Result<Answered>> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    for (port, source) in (first_port..).zip(sources.into_iter().cycle()).take(count.into()) {
        let turns = Arc::clone(&turns);
        asking.spawn(async move {
            let _turn = turns.acquire().await.map_err(io::Error::other)?;
            ask_udp((source, port).into(), vip).await
        });
    }
    asking.join_all().await
}

/// Downloads `bytes` of the pattern at `rate` bytes a second and checks every one; `progress` is called with
/// the bytes of each part.
pub async fn download(
    source: IpAddr,
    vip: SocketAddr,
    bytes: u64,
    rate: u64,
    mut progress: impl FnMut(u64),
) -> Transfer {
    let mut transfer = Transfer { vip, server: None, received: 0, broken: None };
    let outcome = receive(source, bytes, rate, &mut transfer, &mut progress).await;
    transfer.broken = match outcome {
        Ok(()) if transfer.received == bytes => None,
        Ok(()) => Some(format!("ended after {} of {bytes} bytes", transfer.received)),
        Err(error) => Some(error.to_string()),
    };
    transfer
}

async fn receive(
    source: IpAddr,
    bytes: u64,
    rate: u64,
    transfer: &mut Transfer,
    progress: &mut impl FnMut(u64),
) -> io::Result<()> {
    let mut stream = connect(source, transfer.vip).await?;
    let head = request(&mut stream, &format!("/stream?bytes={bytes}&rate={rate}")).await?;
    transfer.server = head.server;
    let mut part = head.body;
    loop {
        let wrong = (transfer.received..).zip(&part).find(|(offset, byte)| pattern(*offset) != **byte);
        if let Some((offset, _)) = wrong {
            return Err(io::Error::other(format!("byte {offset} is wrong")));
        }
        transfer.received += part.len() as u64;
        progress(part.len() as u64);
        part.clear();
        if timeout(SILENCE, stream.read_buf(&mut part)).await?? == 0 {
            return Ok(());
        }
    }
}

async fn connect(source: IpAddr, vip: SocketAddr) -> io::Result<TcpStream> {
    let socket = if vip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((source, 0).into())?;
    timeout(SILENCE, socket.connect(vip)).await?
}

/// The head of an answer, and what came with it of the body.
struct Head {
    server: Option<String>,
    body: Vec<u8>,
}

async fn request(stream: &mut TcpStream, target: &str) -> io::Result<Head> {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: vip\r\n\r\n").as_bytes()).await?;
    read_head(stream).await
}

async fn read_head(stream: &mut TcpStream) -> io::Result<Head> {
    let mut received = Vec::new();
    let end = loop {
        if timeout(SILENCE, stream.read_buf(&mut received)).await?? == 0 {
            return Err(io::Error::other("closed before the answer"));
        }
        if let Some(at) = received.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let body = received.split_off(end);
    let head = String::from_utf8_lossy(&received);
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("answered {}", head.lines().next().unwrap_or_default())));
    }
    let server = head.lines().find_map(|line| line.strip_prefix("x-backend: ")).map(str::to_owned);
    Ok(Head { server, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo;

    pub(super) fn local<T>(test: impl AsyncFnOnce(SocketAddr) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let free = std::net::TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
            let server = tokio::spawn(async move { echo::serve("here", &[free]).await });
            // The first poll of the server binds its sockets.
            tokio::task::yield_now().await;
            let result = test(free).await;
            server.abort();
            result
        })
    }

    #[test]
    fn answers_name_the_server_and_the_client_it_saw() {
        local(async |server| {
            for answered in [
                ask_tcp("::1".parse().unwrap(), server).await.unwrap(),
                ask_udp("[::1]:0".parse().unwrap(), server).await.unwrap(),
            ] {
                assert_eq!(answered.answer.server, "here");
                assert!(answered.is_faithful(), "{answered:?}");
            }
        });
    }

    #[test]
    fn downloads_are_paced_and_checked() {
        local(async |server| {
            let start = std::time::Instant::now();
            let transfer = download("::1".parse().unwrap(), server, 20_000, 100_000, |_| ()).await;
            assert_eq!((transfer.received, transfer.broken), (20_000, None));
            assert_eq!(transfer.server.as_deref(), Some("here"));
            assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
        });
    }
}
