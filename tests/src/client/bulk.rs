//! Much at once: uploads, and datagrams that need several packets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{DATAGRAM_LIMIT, SILENCE, connect, read_head};
use crate::echo::{ECHOED, Received, pattern};

/// Bytes of one write: many, so that few segments are not full.
const PART: u64 = 1 << 20;
/// Datagrams under way: each takes up to 26 kB of a receive buffer of 208 kB, since the kernel counts the buffers that
/// its fragments lie in.
const LARGE_AT_ONCE: usize = 5;

/// Sends `bytes` of the pattern to a `shunt-echo`, and returns what it says of them.
///
/// # Errors
/// Whatever ends the connection, and nothing going on for longer than a server may be silent.
pub async fn upload(source: IpAddr, vip: SocketAddr, bytes: u64) -> io::Result<Received> {
    let mut stream = connect(source, vip).await?;
    let head = format!("PUT /upload?bytes={bytes} HTTP/1.1\r\nhost: vip\r\ncontent-length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut sent = 0;
    while sent < bytes {
        let end = bytes.min(sent + PART);
        let part: Vec<u8> = (sent..end).map(pattern).collect();
        timeout(SILENCE, stream.write_all(&part)).await??;
        sent = end;
    }
    let mut body = read_head(&mut stream).await?.body;
    timeout(SILENCE, stream.read_to_end(&mut body)).await??;
    Ok(serde_json::from_slice(&body)?)
}

/// Sends datagrams of `length` bytes, at least [`ECHOED`], from ports `first_port…`, each with content of its own:
/// every one has to come back as it was. Those that do not in time are sent once more, because a kernel without room
/// for a moment drops some; says which were.
pub async fn echo_many(
    sources: [IpAddr; 2],
    vip: SocketAddr,
    length: usize,
    count: u16,
    first_port: u16,
) -> Vec<io::Result<Again>> {
    assert!(length >= ECHOED, "a server does not send datagrams of {length} bytes back");
    let turns = Arc::new(Semaphore::new(LARGE_AT_ONCE));
    let mut echoing = JoinSet::new();
    for (port, source) in (first_port..).zip(sources.into_iter().cycle()).take(count.into()) {
        let turns = Arc::clone(&turns);
        echoing.spawn(async move {
            let _turn = turns.acquire().await.map_err(io::Error::other)?;
            echo((source, port).into(), vip, length).await
        });
    }
    echoing.join_all().await
}

/// Whether a datagram was sent twice.
pub type Again = bool;

async fn echo(source: SocketAddr, vip: SocketAddr, length: usize) -> io::Result<Again> {
    let socket = UdpSocket::bind(source).await?;
    socket.connect(vip).await?;
    let first = u64::from(source.port()) * u64::from(u16::MAX);
    let content: Vec<u8> = (first..).take(length).map(pattern).collect();
    let mut buffer = vec![0; length + 1];
    for again in [false, true] {
        socket.send(&content).await?;
        let Ok(received) = timeout(DATAGRAM_LIMIT, socket.recv(&mut buffer)).await else { continue };
        let same = buffer[..received?] == content;
        return if same { Ok(again) } else { Err(io::Error::other("another datagram came back")) };
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::super::tests::local;
    use super::*;

    #[test]
    fn uploads_are_counted_and_compared() {
        local(async |server| {
            let received = upload("::1".parse().unwrap(), server, 300_000).await.unwrap();
            assert_eq!(received, Received { bytes: 300_000, wrong_at: None });
        });
    }

    #[test]
    fn large_datagrams_come_back_as_they_are() {
        local(async |server| {
            let sources = ["::1".parse().unwrap(); 2];
            let echoed = echo_many(sources, server, 8192, 3, 47_001).await;
            assert!(
                echoed.len() == 3 && echoed.iter().all(|echoed| matches!(echoed, Ok(false))),
                "{echoed:?}"
            );
        });
    }
}
