//! A datagram and its answer, or its refusal.

use std::io;

use socket2::{Protocol, Type};
use tokio::net::UdpSocket;

use super::failure::{Failure, Within};
use super::{Target, socket};

/// Longest answer looked at: more than any expected beginning has.
const ANSWER_MAX: usize = 2_048;

/// Sends `payload` and waits for what starts with `answer`. Other datagrams are passed over. Returns whether
/// an answer came; where none is expected, none is a success.
pub async fn ask(
    payload: &[u8],
    answer: Option<&[u8]>,
    target: &Target,
    within: Within,
) -> Result<bool, Failure> {
    let socket = open(target)?;
    // Connected, so that an ICMP error is reported and nobody else's datagrams are.
    socket.connect(target.address).await.map_err(|error| Failure::io(&error))?;
    socket.send(payload).await.map_err(|error| Failure::io(&error))?;
    let mut other = false;
    match within.limit(expect(&socket, answer, &mut other)).await {
        Some(result) => result.map(|()| true),
        None if answer.is_none() => Ok(false),
        None if other => Err(Failure::backend("the answer is not the expected one")),
        None => Err(within.over("no answer")),
    }
}

fn open(target: &Target) -> Result<UdpSocket, Failure> {
    let socket = socket::open(target, Type::DGRAM, Protocol::UDP)?;
    UdpSocket::from_std(socket.into()).map_err(|error| Failure::setup("watch a socket", &error))
}

/// Sets `other` when something came that is not the answer.
async fn expect(socket: &UdpSocket, answer: Option<&[u8]>, other: &mut bool) -> Result<(), Failure> {
    let mut buffer = [0; ANSWER_MAX];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::backend("port unreachable"),
            _ => Failure::io(&error),
        })?;
        if answer.is_none_or(|answer| buffer[..length].starts_with(answer)) {
            return Ok(());
        }
        *other = true;
    }
}
