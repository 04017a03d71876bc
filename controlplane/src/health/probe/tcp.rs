//! A TCP connection, for its own sake or to talk HTTP over.

use std::time::Duration;

use socket2::{Protocol, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::failure::{Failure, Within};
use super::{Target, socket};

/// Connects. Dropping the stream resets the connection: with an orderly end, this box would keep each of
/// thousands of connections in TIME_WAIT for a minute, and run out of ports.
pub async fn connect(target: &Target, within: Within) -> Result<TcpStream, Failure> {
    let socket = socket::open(target, Type::STREAM, Protocol::TCP)?;
    socket
        .set_linger(Some(Duration::ZERO))
        .map_err(|error| Failure::setup("set how a connection ends", &error))?;
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
