//! The socket of a probe: marked and bound as its way asks for, not connected yet.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::Target;
use super::failure::Failure;

/// The port that [`own_address`] names to the kernel, which is not used: "discard" (RFC 863).
const NO_PORT: u16 = 9;

/// Opens a non-blocking socket.
pub fn open(target: &Target, kind: Type, protocol: Protocol) -> Result<Socket, Failure> {
    let domain = Domain::for_address(target.address);
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))
        .map_err(|error| Failure::setup("open a socket", &error))?;
    prepare(&socket, target)?;
    Ok(socket)
}

/// Marks and binds it, if its packets go by way of the dataplane.
///
/// The source is the address from which this box talks to the backend: the answer finds back whatever the route that
/// marked packets take may say. Where the VIP is of the other family it is the address towards the VIP.
pub fn prepare(socket: &Socket, target: &Target) -> Result<(), Failure> {
    let destination = target.address.ip();
    let Some(way) = target.way else {
        // Without a route to it, connecting says so.
        return own_address(destination).map_or(Ok(()), |source| allowed(source, target));
    };
    let towards = if way.backend.is_ipv4() == destination.is_ipv4() { way.backend } else { destination };
    let source = own_address(towards).map_err(|error| {
        Failure::own(format!("this box has no address to ask {destination} from: {error}"))
    })?;
    allowed(source, target)?;
    socket
        .set_mark(way.mark)
        .map_err(|error| Failure::setup(&format!("mark a socket with {:#x}", way.mark), &error))?;
    socket
        .bind(&SocketAddr::new(source, 0).into())
        .map_err(|error| Failure::setup(&format!("send from {source}"), &error))
}

fn allowed(source: IpAddr, target: &Target) -> Result<(), Failure> {
    if !target.never_from.contains(&source) {
        return Ok(());
    }
    Err(Failure::own(format!(
        "the source would be {source}, a VIP or NAT source; give the box another address and that one to nothing else"
    )))
}

/// The address that this box has towards a peer, by its routes. Sends nothing.
fn own_address(peer: IpAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if peer.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect((peer, NO_PORT))?;
    Ok(socket.local_addr()?.ip())
}
