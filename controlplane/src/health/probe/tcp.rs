//! A TCP connection, for its own sake or to talk HTTP over.

use std::time::Duration;

use socket2::{Protocol, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::failure::{Failure, Within};
use super::{Target, socket};

/// A TCP header without options, which Linux leaves out of account as well.
const HEADER: u16 = 20;
/// Least that Linux takes.
const SEGMENT_MIN: u32 = 88;

/// Connects. Dropping the stream resets the connection: with an orderly end, this box would keep each of
/// thousands of connections in TIME_WAIT for a minute, and run out of ports.
pub async fn connect(target: &Target, within: Within) -> Result<TcpStream, Failure> {
    let socket = socket::open(target, Type::STREAM, Protocol::TCP)?;
    socket
        .set_linger(Some(Duration::ZERO))
        .map_err(|error| Failure::setup("set how a connection ends", &error))?;
    if let Some(room) = target.room() {
        // What a client learns by ICMP, this socket has to be told: nothing answers it on its own box.
        let most = u32::from(room.saturating_sub(HEADER)).max(SEGMENT_MIN);
        socket.set_tcp_mss(most).map_err(|error| Failure::setup("limit the size of packets", &error))?;
    }
    let connecting = async {
        let connected = TcpSocket::from_std_stream(socket.into()).connect(target.address).await;
        connected.map_err(|error| Failure::io(&error))
    };
    let stream = within.wait("no connection", connecting).await?;
    // Where nobody listens on a port that this box uses for its own connections, the kernel may connect a
    // socket with itself (RFC 9293 §3.5, simultaneous open).
    if stream.local_addr().is_ok_and(|own| own == target.address) {
        return Err(Failure::backend("connection refused"));
    }
    Ok(stream)
}
