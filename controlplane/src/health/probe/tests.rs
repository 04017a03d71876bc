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

fn target(address: SocketAddr) -> Target {
    Target { address, bind: SourceAndMark::default(), pad_to: 0 }
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
async fn probes_come_from_the_source_told() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let source = "127.0.0.77".parse().unwrap();
    let bind = SourceAndMark { source: Some(source), mark: Some(0x5a) };
    let target = Target { bind, ..target(listener.local_addr().unwrap()) };
    Prober::new().probe(&check(TCP, PATIENCE), &target).await.unwrap();
    let (_, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.ip(), source);
    let socket = socket::open(&target, Type::STREAM, socket2::Protocol::TCP).unwrap();
    assert_eq!(socket.mark().unwrap(), 0x5a);
}

#[tokio::test]
async fn a_source_that_this_box_does_not_have_is_its_own_fault() {
    let bind = SourceAndMark { source: Some("192.0.2.77".parse().unwrap()), mark: None };
    let target = Target { bind, ..target(LOOPBACK) };
    for kind in [TCP, CheckKind::Icmp, udp(None)] {
        let failure = Prober::new().probe(&check(kind, PATIENCE), &target).await.unwrap_err();
        assert_eq!(failure.fault, Fault::Own);
        assert!(failure.reason.starts_with("cannot send from 192.0.2.77: "), "{failure}");
        assert!(failure.reason.ends_with("; give this box that address"), "{failure}");
    }
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
        for pad_to in [0, 1_480, u16::MAX] {
            let target = Target { pad_to, ..target(address.parse().unwrap()) };
            let result = prober.probe(&check, &target).await;
            assert!(result.is_ok(), "{address} with {pad_to} bytes: {}; run as root", result.unwrap_err());
        }
    }
}
