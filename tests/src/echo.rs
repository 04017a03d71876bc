//! The small server behind `shunt-echo`: says who answered and whom it saw, over TCP (HTTP/1.1) and UDP, streams
//! a known pattern slowly, and checks one that is sent to it. It never logs and never ends by itself.

mod upload;

pub use upload::Received;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// What every request is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Name of the server.
    pub server: String,
    /// Address the server saw as the client's.
    pub client: IpAddr,
    /// Port the server saw as the client's.
    pub client_port: u16,
    /// Address the client asked, as the server sees it.
    pub vip: IpAddr,
}

/// Longest request head and write.
const BUFFER: usize = 8192;
/// Longest datagram.
const DATAGRAM: usize = 65_535;
/// Datagrams of so many bytes and more come back as they are; shorter ones are answered like all requests.
pub const ECHOED: usize = 1000;
/// Connections waiting to be accepted.
const BACKLOG: u32 = 1024;
/// Between two writes of a stream.
const TICK: Duration = Duration::from_millis(10);
/// Writes of a stream per second.
const TICKS_PER_SECOND: u64 = 100;
/// Pause after a failed accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Byte of every stream at this offset; no period that a repeated or missing segment could hide in.
pub fn pattern(offset: u64) -> u8 {
    offset.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]
}

/// Serves TCP and UDP on all addresses, for ever.
///
/// # Errors
/// Whatever binding one of the addresses ends with.
pub async fn serve(name: &str, addresses: &[SocketAddr]) -> io::Result<()> {
    let name: Arc<str> = name.into();
    let mut servers = tokio::task::JoinSet::new();
    for &address in addresses {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let datagrams = UdpSocket::bind(address).await?;
        servers.spawn(accept(listener, Arc::clone(&name)));
        servers.spawn(reply(datagrams, Arc::clone(&name)));
    }
    servers.join_all().await;
    Ok(())
}

async fn accept(listener: TcpListener, name: Arc<str>) {
    loop {
        match listener.accept().await {
            // A client that goes away early is its own business.
            Ok((stream, client)) => drop(tokio::spawn(converse(stream, client, Arc::clone(&name)))),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn reply(socket: UdpSocket, name: Arc<str>) {
    let vip = socket.local_addr().map(|address| address.ip());
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let _ = match &vip {
            _ if length >= ECHOED => socket.send_to(&buffer[..length], client).await,
            Ok(vip) => socket.send_to(answer(&name, client, *vip).as_bytes(), client).await,
            Err(_) => continue,
        };
    }
}

fn answer(name: &str, client: SocketAddr, vip: IpAddr) -> String {
    let (client, client_port) = (client.ip().to_canonical(), client.port());
    let answer = Answer { server: name.to_owned(), client, client_port, vip: vip.to_canonical() };
    serde_json::to_string(&answer).unwrap_or_default()
}

async fn converse(mut stream: TcpStream, client: SocketAddr, name: Arc<str>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some((target, rest)) = read_request(&mut stream).await? else {
        return Ok(());
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let number = |key: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.filter(|(name, _)| *name == key).find_map(|(_, value)| value.parse::<u64>().ok());
        value.unwrap_or(0)
    };
    if path == "/stream" {
        let (bytes, rate) = (number("bytes"), number("rate"));
        stream.write_all(head("200 OK", &name, bytes).as_bytes()).await?;
        send_pattern(&mut stream, bytes, rate).await?;
    } else if path == "/upload" {
        let body = upload::receive(&mut stream, rest, number("bytes")).await?.text();
        stream.write_all((head("200 OK", &name, body.len() as u64) + &body).as_bytes()).await?;
    } else {
        let status = if path == "/" { "200 OK" } else { "404 Not Found" };
        let body = answer(&name, client, stream.local_addr()?.ip()) + "\n";
        stream.write_all((head(status, &name, body.len() as u64) + &body).as_bytes()).await?;
    }
    stream.shutdown().await
}

fn head(status: &str, name: &str, length: u64) -> String {
    format!("HTTP/1.1 {status}\r\nx-backend: {name}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
}

/// The request target of a `GET` or `PUT` and what came behind its head; `None` for anything else.
async fn read_request(stream: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut request = Vec::new();
    let end = loop {
        if let Some(at) = request.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        if request.len() > BUFFER || stream.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    };
    let rest = request.split_off(end);
    let head = String::from_utf8_lossy(&request);
    let line = head.strip_prefix("GET ").or_else(|| head.strip_prefix("PUT "));
    let target = line.and_then(|line| line.split_whitespace().next());
    Ok(target.map(|target| (target.to_owned(), rest)))
}

/// Sends the pattern, `rate` bytes a second; 0 is as fast as it goes.
async fn send_pattern(stream: &mut TcpStream, bytes: u64, rate: u64) -> io::Result<()> {
    let chunk = if rate == 0 { BUFFER as u64 } else { (rate / TICKS_PER_SECOND).max(1) };
    let mut tick = tokio::time::interval(TICK);
    let mut sent = 0;
    while sent < bytes {
        if rate > 0 {
            tick.tick().await;
        }
        let end = bytes.min(sent + chunk);
        let part: Vec<u8> = (sent..end).map(pattern).collect();
        stream.write_all(&part).await?;
        sent = end;
    }
    Ok(())
}
