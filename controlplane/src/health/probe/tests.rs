//! Probes against real listeners on the loopback addresses. What a listener does is spawned and ends with
//! the test's runtime.

pub mod https;
mod web;

use std::net::Ipv4Addr;

use shunt_api::config::Via;
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};

use super::*;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what is never answered.
const SHORT: Duration = Duration::from_millis(50);

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn check(kind: CheckKind, timeout: Duration) -> Check {
    Check { kind, interval: PATIENCE, timeout, rise: 2, fall: 3, via: Via::Direct }
}

pub fn target(address: SocketAddr) -> Target {
    Target { address, way: None, never_from: Arc::default() }
}

/// A way that carries so many bytes.
pub fn full(backend: IpAddr, room: u16) -> Option<Way> {
    Some(Way { mark: 0x5a, backend, room: Some(room), nic: None })
}

/// Probes; the reason if it failed by fault of the backend.
async fn ask(kind: CheckKind, address: SocketAddr, timeout: Duration) -> Result<(), String> {
    let prober = Prober { connectors: Connectors::new(web::no_roots()) };
    match prober.probe(&check(kind, timeout), &target(address)).await {
        Ok(latency) => {
            assert!(latency.is_none_or(|latency| latency < timeout), "{latency:?}");
            Ok(())
        }
        Err(Failure { reason, fault }) => {
            assert_eq!(fault, Fault::Backend, "{reason}");
            Err(reason)
        }
    }
}

/// Somebody who listens and answers no first packet, and what it takes to be so.
pub fn deaf_listener(address: &str) -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // Nobody accepts: once the queue is full, the kernel drops what asks to join it.
    let fill = |_| {
        let client = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        let _ = client.connect(&address.into());
        client
    };
    let mut sockets: Vec<_> = (0..4).map(fill).collect();
    sockets.push(listener);
    (address, sockets)
}

const TCP: CheckKind = CheckKind::Tcp { port: None };

#[tokio::test]
async fn tcp_up_and_refused() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(ask(TCP, address, PATIENCE).await, Ok(()));
    drop(listener);
    assert_eq!(ask(TCP, address, PATIENCE).await, Err("connection refused".into()));
}

#[tokio::test]
async fn tcp_ends_with_a_reset_so_that_nothing_lingers() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    ask(TCP, listener.local_addr().unwrap(), PATIENCE).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn tcp_without_an_answer_to_the_first_packet() {
    let (address, _queued) = deaf_listener("127.0.0.1:0");
    assert_eq!(ask(TCP, address, SHORT).await, Err("no connection within 50 ms".into()));
}

#[tokio::test]
async fn probes_by_way_of_the_dataplane_are_marked_and_come_from_the_address_towards_the_backend() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let backend = "127.0.0.77".parse().unwrap();
    let target = Target { way: full(backend, 300), ..target(listener.local_addr().unwrap()) };
    Prober::new().probe(&check(TCP, PATIENCE), &target).await.unwrap();
    let (_, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.ip(), Ipv4Addr::LOCALHOST, "which is what this host talks to 127.0.0.77 from");
    let socket = socket::open(&target, Type::STREAM, socket2::Protocol::TCP).unwrap();
    assert_eq!(socket.mark().unwrap(), 0x5a);
    assert_eq!(socket.local_addr().unwrap().as_socket().unwrap().ip(), Ipv4Addr::LOCALHOST);
}

#[tokio::test]
async fn no_probe_comes_from_a_vip() {
    let never_from = Arc::new(HashSet::from([IpAddr::from(Ipv4Addr::LOCALHOST)]));
    for way in [None, full(Ipv4Addr::LOCALHOST.into(), 1_500)] {
        let target = Target { way, never_from: Arc::clone(&never_from), ..target(LOOPBACK) };
        for kind in [TCP, CheckKind::Icmp, udp(None)] {
            let failure = Prober::new().probe(&check(kind, PATIENCE), &target).await.unwrap_err();
            assert_eq!(failure.fault, Fault::Own);
            assert!(failure.reason.starts_with("the source would be 127.0.0.1, a VIP"), "{failure}");
        }
    }
}

#[tokio::test]
async fn a_box_without_an_address_of_the_family_says_so() {
    // RFC 6666, the discard prefix, which is routed nowhere on a box without IPv6 of its own.
    let address: SocketAddr = "[100::1]:80".parse().unwrap();
    let routed = std::net::UdpSocket::bind("[::]:0").and_then(|socket| socket.connect(address)).is_ok();
    let target = Target { way: full(address.ip(), 1_500), ..target(address) };
    let failure = Prober::new().probe(&check(TCP, SHORT), &target).await.unwrap_err();
    let expected =
        if routed { "no connection within" } else { "this box has no IPv6 address towards 100::1: " };
    assert!(failure.reason.starts_with(expected), "{failure}");
}

fn udp(answer: Option<&[u8]>) -> CheckKind {
    CheckKind::Udp { port: None, payload: b"ping".into(), answer: answer.map(Into::into) }
}

#[tokio::test]
async fn udp_answers_are_compared_by_their_beginning() {
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        loop {
            let (length, client) = server.recv_from(&mut buffer).await.unwrap();
            let answer: &[u8] = if &buffer[..length] == b"ping" { b"pong and more" } else { b"what?" };
            server.send_to(answer, client).await.unwrap();
        }
    });
    assert_eq!(ask(udp(Some(b"pong")), address, PATIENCE).await, Ok(()));
    assert_eq!(ask(udp(None), address, PATIENCE).await, Ok(()));
    let unexpected = ask(udp(Some(b"gnop")), address, SHORT).await;
    assert_eq!(unexpected, Err("the answer is not the expected one".into()));
}

#[tokio::test]
async fn udp_silence_is_a_failure_only_where_an_answer_is_expected() {
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let address = server.local_addr().unwrap();
    assert_eq!(ask(udp(None), address, SHORT).await, Ok(()));
    assert_eq!(ask(udp(Some(b"pong")), address, SHORT).await, Err("no answer within 50 ms".into()));
}

#[tokio::test]
async fn udp_closed_port() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = UdpSocket::bind(address).await.unwrap();
        let closed = server.local_addr().unwrap();
        drop(server);
        for answer in [None, Some(&b"pong"[..])] {
            assert_eq!(ask(udp(answer), closed, PATIENCE).await, Err("port unreachable".into()));
        }
    }
}

#[tokio::test]
async fn icmp_to_both_loopback_addresses_in_all_sizes() {
    let prober = Prober::new();
    let check = check(CheckKind::Icmp, PATIENCE);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        for room in [0, 1_500, u16::MAX] {
            let address: SocketAddr = address.parse().unwrap();
            let target = Target { way: full(address.ip(), room), ..target(address) };
            let result = prober.probe(&check, &target).await;
            assert!(result.is_ok(), "{address} with {room} bytes: {}; run as root", result.unwrap_err());
        }
    }
}
