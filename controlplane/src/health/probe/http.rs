//! One HTTP/1.1 request and its answer (RFC 9112), over TCP or TLS.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderName, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use shunt_api::config::{HttpCheck, Tls};
use tokio::io::{AsyncRead, AsyncWrite};

use super::failure::{Failure, Within};
use super::tls::Connectors;
use super::{PAD_MAX, Target, tcp};

/// As much of an answer as is searched for the expected text.
const SEARCHED: usize = 64 << 10;
/// What makes a request longer.
const PADDING: HeaderName = HeaderName::from_static("x-padding");

/// Asks and looks at the answer.
pub async fn ask(
    check: &HttpCheck,
    target: &Target,
    connectors: &Connectors,
    within: Within,
) -> Result<(), Failure> {
    let request = request(check, target)?;
    let stream = tcp::connect(target, within).await?;
    let missing = target.no_answer();
    let Some(tls) = &check.tls else { return talk(stream, request, check, &missing, within).await };
    let stream =
        connectors.connect(tls, server_name(tls, check), target.address.ip(), stream, within).await?;
    talk(stream, request, check, &missing, within).await
}

fn request(check: &HttpCheck, target: &Target) -> Result<Request<Empty<Bytes>>, Failure> {
    let host = check.host.clone().unwrap_or_else(|| host(target.address, check.tls.is_some()));
    let mut request = Request::builder()
        .method(check.method.as_str())
        .uri(check.path.as_str())
        .header(HOST, host)
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("shunt/", env!("CARGO_PKG_VERSION"), " health check"));
    if let Some(room) = target.room() {
        request = request.header(PADDING, "x".repeat(usize::from(room.min(PAD_MAX))));
    }
    request.body(Empty::new()).map_err(|error| Failure::own(format!("this is no HTTP request: {error}")))
}

/// The `Host` header for an address (RFC 9112 §3.2): without the port that the scheme implies.
fn host(address: SocketAddr, tls: bool) -> String {
    match (address, if tls { 443 } else { 80 }) {
        (SocketAddr::V6(v6), port) if v6.port() == port => format!("[{}]", v6.ip()),
        (_, port) if address.port() == port => address.ip().to_string(),
        _ => address.to_string(),
    }
}

/// The name a certificate must have: the one configured, or that of the `Host` header.
fn server_name<'c>(tls: &'c Tls, check: &'c HttpCheck) -> Option<&'c str> {
    tls.server_name.as_deref().or_else(|| check.host.as_deref().map(without_port))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        _ if host.starts_with('[') => host.trim_start_matches('[').split(']').next().unwrap_or(host),
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

async fn talk<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
    check: &HttpCheck,
    missing: &str,
    within: Within,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // The connection moves the bytes. When it has ended, what it has read may still be looked at.
    let moving = async {
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        result = exchange(sender, request, check, missing, within) => result,
        never = moving => match never {},
    }
}

async fn exchange(
    mut sender: SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
    check: &HttpCheck,
    missing: &str,
    within: Within,
) -> Result<(), Failure> {
    let sending = async { sender.send_request(request).await.map_err(|error| broken(&error)) };
    let response = within.wait(missing, sending).await?;
    let status = response.status().as_u16();
    let expected = check.status.as_slice();
    if !expected.iter().any(|range| range.contains(&status)) {
        return Err(Failure::backend(format!("status {status} instead of {}", in_words(expected))));
    }
    match &check.text {
        Some(text) => within.wait("no complete answer", search(response, text)).await,
        None => Ok(()),
    }
}

/// `200`, `200-299`, `200 or 204`.
fn in_words(ranges: &[RangeInclusive<u16>]) -> String {
    let word = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    ranges.iter().map(word).collect::<Vec<_>>().join(" or ")
}

/// Reads until `text` has come.
async fn search(response: Response<Incoming>, text: &str) -> Result<(), Failure> {
    let mut body = response.into_body();
    let mut read: Vec<u8> = Vec::new();
    while read.len() < SEARCHED {
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        let from = read.len().saturating_sub(text.len());
        read.extend(&data[..data.len().min(SEARCHED - read.len())]);
        if contains(&read[from..], text.as_bytes()) {
            return Ok(());
        }
    }
    match text {
        "" => Ok(()),
        _ if read.len() < SEARCHED => {
            Err(Failure::backend(format!("the text `{text}` is not in the answer")))
        }
        _ => Err(Failure::backend(format!("the text `{text}` is not in the first 64 KiB of the answer"))),
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

/// What ended the conversation.
fn broken(error: &hyper::Error) -> Failure {
    let cause = error.source();
    if let Some(cause) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        return Failure::io(cause);
    }
    if let Some(cause) = cause.and_then(|cause| cause.downcast_ref::<hyper::Error>()) {
        return broken(cause);
    }
    if error.is_parse() {
        return Failure::backend("the answer is not HTTP/1.1");
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return Failure::backend("the connection was closed before the answer was complete");
    }
    // Such as a server that speaks before it is asked.
    Failure::backend(format!("no HTTP answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_headers_leave_out_the_usual_port() {
        let table = [
            ("192.0.2.1:80", false, "192.0.2.1"),
            ("192.0.2.1:443", true, "192.0.2.1"),
            ("192.0.2.1:443", false, "192.0.2.1:443"),
            ("[2001:db8::1]:80", false, "[2001:db8::1]"),
            ("[2001:db8::1]:8080", false, "[2001:db8::1]:8080"),
        ];
        for (address, tls, expected) in table {
            assert_eq!(host(address.parse().unwrap(), tls), expected);
        }
    }

    #[test]
    fn server_names_have_no_port() {
        let table = [
            ("example.com", "example.com"),
            ("example.com:8443", "example.com"),
            ("[2001:db8::1]:8443", "2001:db8::1"),
            ("192.0.2.1", "192.0.2.1"),
        ];
        for (host, name) in table {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn expected_statuses_as_people_write_them() {
        assert_eq!(in_words(&[200..=200]), "200");
        assert_eq!(in_words(&[200..=299, 401..=401]), "200-299 or 401");
    }
}
