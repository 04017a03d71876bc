//! The socket of a probe: marked and bound as its way asks for, not connected yet.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::failure::Failure;
use super::{Target, Way};

/// The port that [`own_address`] names to the kernel, which is not used: "discard" (RFC 863).
const NO_PORT: u16 = 9;
/// A group of global scope (RFC 5771), to which nothing is sent.
const GROUP_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 1, 0)), NO_PORT);
/// The same (RFC 4291, section 2.7).
const GROUP_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1)), NO_PORT);

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
/// The source is the address from which this box talks to the backend: so the answer finds back, whatever the route that
/// marked packets take may say.
pub fn prepare(socket: &Socket, target: &Target) -> Result<(), Failure> {
    let destination = target.address.ip();
    let Some(way) = &target.way else {
        // Without a route to it, connecting says so.
        return own_address(destination).map_or(Ok(()), |source| allowed(source, target));
    };
    let source = source(destination, way).map_err(|error| {
        let family = if destination.is_ipv4() { "IPv4" } else { "IPv6" };
        Failure::own(format!(
            "this box has no {family} address towards {}: {error}; give it one",
            way.backend
        ))
    })?;
    allowed(source, target)?;
    socket.set_mark(way.mark).map_err(|error| Failure::setup("mark a socket", &error))?;
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

/// The address to ask a destination of a backend from. If they are of different families it is one of the NIC that leads
/// to the backend, or else the one towards the destination.
fn source(destination: IpAddr, way: &Way) -> io::Result<IpAddr> {
    if way.backend.is_ipv4() == destination.is_ipv4() {
        return own_address(way.backend);
    }
    let of_nic = way.nic.as_ref().map(|nic| address_of(nic, destination.is_ipv4()));
    of_nic.and_then(Result::ok).map_or_else(|| own_address(destination), Ok)
}

/// An address of a NIC that hosts behind routers can answer to: what the kernel would send to a group of any scope from,
/// for which no route is needed. Sends nothing.
fn address_of(nic: &str, ipv4: bool) -> io::Result<IpAddr> {
    let group = if ipv4 { GROUP_V4 } else { GROUP_V6 };
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM.cloexec(), None)?;
    socket.bind_device(Some(nic.as_bytes()))?;
    socket.connect(&group.into())?;
    let own = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(own.ip())
}

/// The address that this box has towards a peer, by its routes. Sends nothing.
fn own_address(peer: IpAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if peer.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect((peer, NO_PORT))?;
    Ok(socket.local_addr()?.ip())
}
