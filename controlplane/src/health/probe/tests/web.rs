use shunt_api::config::HttpCheck;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::rustls::RootCertStore;

use super::*;

pub fn no_roots() -> RootCertStore {
    RootCertStore::empty()
}

pub fn http() -> HttpCheck {
    HttpCheck {
        port: None,
        tls: None,
        method: "GET".into(),
        path: "/healthz?full".into(),
        host: None,
        status: vec![200..=299],
        text: None,
    }
}

/// Reads a request's head, answers and ends. Returns the head.
pub async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return String::new(),
        }
    }
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
    String::from_utf8(request).unwrap()
}

/// Serves the same answer to everybody.
async fn serve(text: impl Into<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let text = text.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream, &text).await;
        }
    });
    address
}

async fn ask_http(check: HttpCheck, text: impl Into<Vec<u8>>) -> Result<(), String> {
    ask(CheckKind::Http(check), serve(text).await, PATIENCE).await
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nall ok";

#[tokio::test]
async fn expected_and_other_statuses() {
    assert_eq!(ask_http(http(), OK).await, Ok(()));
    assert_eq!(ask_http(http(), "HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask_http(http(), busy).await, Err("status 503 instead of 200-299".into()));
    let redirected = "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    let strict = HttpCheck { status: vec![200..=200], ..http() };
    assert_eq!(ask_http(strict, redirected).await, Err("status 302 instead of 200".into()));
    let lenient = HttpCheck { status: vec![200..=200, 300..=399], ..http() };
    assert_eq!(ask_http(lenient, redirected).await, Ok(()));
}

#[tokio::test]
async fn expected_text_may_be_anywhere_in_the_first_64_kib() {
    let ok = || HttpCheck { text: Some("all ok".into()), ..http() };
    assert_eq!(ask_http(ok(), OK).await, Ok(()));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n3\r\n ok\r\n0\r\n\r\n";
    assert_eq!(ask_http(ok(), chunked).await, Ok(()), "across two chunks");
    let until_the_end = "HTTP/1.0 200 OK\r\n\r\nit is all ok";
    assert_eq!(ask_http(ok(), until_the_end).await, Ok(()), "ended by closing");

    let bad = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad";
    assert_eq!(ask_http(ok(), bad).await, Err("the text `all ok` is not in the answer".into()));
    let long = |before: usize| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}all ok", before + 6, "x".repeat(before))
    };
    assert_eq!(ask_http(ok(), long((64 << 10) - 6)).await, Ok(()));
    let beyond = "the text `all ok` is not in the first 64 KiB of the answer";
    assert_eq!(ask_http(ok(), long((64 << 10) - 5)).await, Err(beyond.into()));
}

#[tokio::test]
async fn what_is_no_answer() {
    let silent = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = silent.local_addr().unwrap();
    let result = ask(CheckKind::Http(http()), address, SHORT).await;
    assert_eq!(result, Err("no answer within 50 ms".into()));
    assert_eq!(ask_http(http(), "SSH-2.0-OpenSSH\r\n\r\n").await, Err("the answer is not HTTP/1.1".into()));
    let closed = "the connection was closed before the answer was complete";
    assert_eq!(ask_http(http(), "").await, Err(closed.into()));
    assert_eq!(ask_http(http(), "HTTP/1.1 20").await, Err(closed.into()));
}

/// What becomes of a request to a server that sends `first` at once, `then` once it is asked, and stays.
async fn ask_slow(check: HttpCheck, first: &str, then: &str) -> Result<(), String> {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (result, _stream) = tokio::join!(ask(CheckKind::Http(check), address, SHORT * 10), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        if !then.is_empty() {
            assert!(stream.read(&mut [0; 1_024]).await.unwrap() > 0);
            stream.write_all(then.as_bytes()).await.unwrap();
        }
        stream
    });
    result
}

#[tokio::test]
async fn an_answer_that_does_not_end() {
    let text = || HttpCheck { text: Some("all ok".into()), ..http() };
    let part = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nall";
    assert_eq!(ask_slow(text(), "", part).await, Err("no complete answer within 500 ms".into()));
    assert_eq!(ask_slow(http(), "", part).await, Ok(()), "nobody asked for the text");
    let head = "HTTP/1.1 200 OK\r\nContent-";
    assert_eq!(ask_slow(http(), "", head).await, Err("no answer within 500 ms".into()));
}

#[tokio::test]
async fn a_probe_that_is_given_up_ends_its_connection() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let probing = ask(CheckKind::Http(http()), listener.local_addr().unwrap(), PATIENCE);
    assert!(tokio::time::timeout(SHORT, probing).await.is_err());
    let (mut stream, _) = listener.accept().await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_server_that_speaks_first_speaks_no_http() {
    let reason = ask_slow(http(), "220 mail.example ESMTP\r\n", "").await.unwrap_err();
    assert!(reason.contains("HTTP"), "{reason}");
}

/// The request that arrives.
async fn request(check: HttpCheck, room: Option<u16>) -> String {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let target = target(listener.local_addr().unwrap());
    let way = room.and_then(|room| full(target.address.ip(), room));
    let target = Target { way, ..target };
    let (prober, check) = (Prober::new(), super::check(CheckKind::Http(check), PATIENCE));
    let serve = async { answer(listener.accept().await.unwrap().0, OK.as_bytes()).await };
    let (result, request) = tokio::join!(prober.probe(&check, &target), serve);
    result.unwrap();
    request.replace(&target.address.to_string(), "ADDRESS").to_lowercase()
}

#[tokio::test]
async fn the_request_is_the_one_configured() {
    let version = env!("CARGO_PKG_VERSION");
    let head = |request: &str, host: &str| {
        format!(
            "{request} http/1.1\r\nhost: {host}\r\nconnection: close\r\nuser-agent: shunt/{version} health check\r\n"
        )
    };
    assert_eq!(request(http(), None).await, head("get /healthz?full", "address") + "\r\n");
    let check =
        HttpCheck { method: "HEAD".into(), path: "/".into(), host: Some("example.com".into()), ..http() };
    assert_eq!(request(check, None).await, head("head /", "example.com") + "\r\n");
    let padded = request(http(), Some(1_520)).await;
    assert!((1_500..1_800).contains(&padded.len()), "{} bytes", padded.len());
    assert!(padded.starts_with(&head("get /healthz?full", "address")));
}

#[tokio::test]
async fn a_request_that_cannot_be_written_is_not_the_backends_fault() {
    let check = super::check(CheckKind::Http(HttpCheck { path: "no path".into(), ..http() }), PATIENCE);
    let failure = Prober::new().probe(&check, &target(LOOPBACK)).await.unwrap_err();
    assert_eq!(failure.fault, Fault::Own, "{failure}");
}
