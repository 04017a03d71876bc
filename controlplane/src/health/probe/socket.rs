//! The socket of a probe: marked and bound as the target says, not connected yet.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::failure::Failure;
use super::{SourceAndMark, Target};

/// Opens a non-blocking socket.
pub fn open(target: &Target, kind: Type, protocol: Protocol) -> Result<Socket, Failure> {
    let domain = Domain::for_address(target.address);
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))
        .map_err(|error| Failure::setup("open a socket", &error))?;
    prepare(&socket, target.bind)?;
    Ok(socket)
}

/// Marks and binds it.
pub fn prepare(socket: &Socket, bind: SourceAndMark) -> Result<(), Failure> {
    if let Some(mark) = bind.mark {
        socket
            .set_mark(mark)
            .map_err(|error| Failure::setup(&format!("mark a socket with {mark:#x}"), &error))?;
    }
    if let Some(source) = bind.source {
        socket
            .bind(&SocketAddr::new(source, 0).into())
            .map_err(|error| Failure::setup(&format!("send from {source}"), &error))?;
    }
    Ok(())
}
