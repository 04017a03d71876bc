//! An ICMP echo request and its reply (RFC 792, RFC 4443 §4).

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::failure::{Failure, Within};
use super::{PAD_MAX, Target, socket};
use crate::checksum::checksum;

/// Length of the header: type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;
/// Longest reply read: the longest request with an IPv4 header and its options before it.
const REPLY_MAX: usize = PAD_MAX as usize + 60;

/// Numbers requests, so that no reply is taken for that to another probe, of this process or another one.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Sends a request and waits for its reply.
pub async fn ask(target: &Target, within: Within) -> Result<(), Failure> {
    let (socket, raw) = open(target)?;
    exchange(socket, raw, target, within).await
}

async fn exchange(socket: Socket, raw: bool, target: &Target, within: Within) -> Result<(), Failure> {
    // Connected, so that the kernel passes over what other hosts send.
    let address = SocketAddr::new(target.address.ip(), 0);
    socket.connect(&address.into()).map_err(|error| Failure::io(&error))?;
    // For tokio a datagram socket is a datagram socket: it reads and writes, whatever the protocol.
    let socket =
        UdpSocket::from_std(socket.into()).map_err(|error| Failure::setup("watch a socket", &error))?;
    let echo = Echo {
        address: target.address.ip(),
        number: NEXT.fetch_add(1, Ordering::Relaxed),
        process: std::process::id(),
    };
    let request = echo.request(usize::from(target.room().unwrap_or(0).min(PAD_MAX)));
    socket.send(&request).await.map_err(|error| Failure::io(&error))?;
    within.wait(&target.no_answer(), expect(&socket, &echo, raw)).await
}

async fn expect(socket: &UdpSocket, echo: &Echo, raw: bool) -> Result<(), Failure> {
    let mut buffer = [0; REPLY_MAX];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| Failure::io(&error))?;
        if echo.is_answered_by(&buffer[..length], raw) {
            return Ok(());
        }
    }
}

/// Opens a ping socket, to which the kernel gives its own replies only, or where `net.ipv4.ping_group_range`
/// forbids that, a raw one. Whether it is raw comes with it.
fn open(target: &Target) -> Result<(Socket, bool), Failure> {
    let protocol = if target.address.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let domain = Domain::for_address(target.address);
    match Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(protocol)) {
        Ok(socket) => socket::prepare(&socket, target).map(|()| (socket, false)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM | Errno::PROTONOSUPPORT) => {
                socket::open(target, Type::RAW, protocol).map(|socket| (socket, true))
            }
            _ => Err(Failure::setup("open a socket", &error)),
        },
    }
}

/// One request.
struct Echo {
    address: IpAddr,
    number: u32,
    process: u32,
}

impl Echo {
    /// The packet from its ICMP header on, at least as long as header and token are.
    fn request(&self, length: usize) -> Vec<u8> {
        let kind = if self.address.is_ipv4() { 8 } else { 128 };
        let mut packet = vec![kind, 0, 0, 0];
        // On a ping socket the kernel puts a number of its own in place of the identifier.
        packet.extend(self.number.to_be_bytes());
        packet.extend(self.token());
        packet.resize(length.max(packet.len()), 0);
        if self.address.is_ipv4() {
            let checksum = checksum(&[&packet]);
            packet[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        packet
    }

    /// The data that a reply must repeat.
    fn token(&self) -> [u8; 8] {
        let mut token = [0; 8];
        token[..4].copy_from_slice(&self.process.to_be_bytes());
        token[4..].copy_from_slice(&self.number.to_be_bytes());
        token
    }

    /// Whether this came from the host asked. A raw IPv4 socket reads the IP header too.
    fn is_answered_by(&self, packet: &[u8], raw: bool) -> bool {
        let (kind, header) = match (self.address, raw) {
            (IpAddr::V4(_), true) => (0, packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4)),
            (IpAddr::V4(_), false) => (0, 0),
            (IpAddr::V6(_), _) => (129, 0),
        };
        let Some(packet) = packet.get(header..).filter(|packet| packet.len() >= HEADER) else { return false };
        let same_identifier = !raw || packet[4..HEADER] == self.number.to_be_bytes();
        packet[..2] == [kind, 0] && same_identifier && packet[HEADER..].starts_with(&self.token())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{full, target};
    use super::*;

    fn echo(address: &str) -> Echo {
        Echo { address: address.parse().unwrap(), number: 0x0102_0304, process: 77 }
    }

    /// What a host makes of a request.
    fn reply(echo: &Echo) -> Vec<u8> {
        let mut packet = echo.request(0);
        packet[0] = if echo.address.is_ipv4() { 0 } else { 129 };
        packet
    }

    fn with_ip_header(packet: &[u8], header: usize) -> Vec<u8> {
        let mut whole = vec![0; header];
        whole[0] = 0x40 | (header / 4) as u8;
        whole.extend(packet);
        whole
    }

    /// Asks the loopback address over a socket of this kind; `None` if this system does not permit it.
    async fn ask_over(kind: Type, address: &str) -> Option<Result<(), Failure>> {
        let address = SocketAddr::new(address.parse().unwrap(), 0);
        let target = Target { way: full(address.ip(), 1_500), ..target(address) };
        let protocol = if address.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        let socket = socket::open(&target, kind, protocol).ok()?;
        let within = Within::starting_now(Duration::from_secs(5));
        Some(exchange(socket, kind == Type::RAW, &target, within).await)
    }

    #[tokio::test]
    async fn both_kinds_of_socket_serve() {
        for address in ["127.0.0.1", "::1"] {
            assert_eq!(ask_over(Type::RAW, address).await, Some(Ok(())), "{address}; run as root");
            match ask_over(Type::DGRAM, address).await {
                Some(result) => assert_eq!(result, Ok(()), "{address}"),
                None => println!("SKIPPED: ping socket to {address}: net.ipv4.ping_group_range forbids it"),
            }
        }
    }

    #[test]
    fn replies_are_known_with_and_without_an_ip_header() {
        let v4 = echo("192.0.2.1");
        assert!(v4.is_answered_by(&reply(&v4), false));
        assert!(v4.is_answered_by(&with_ip_header(&reply(&v4), 20), true));
        assert!(v4.is_answered_by(&with_ip_header(&reply(&v4), 24), true));
        let v6 = echo("2001:db8::1");
        assert!(v6.is_answered_by(&reply(&v6), false));
        assert!(v6.is_answered_by(&reply(&v6), true));
    }

    #[test]
    fn what_is_no_reply_to_this_request_is_passed_over() {
        let v6 = echo("2001:db8::1");
        assert!(!v6.is_answered_by(&v6.request(0), true), "the request itself");
        let other = Echo { number: 5, ..v6 };
        assert!(!v6.is_answered_by(&reply(&other), true), "another probe's");
        assert!(!v6.is_answered_by(&reply(&other), false), "another probe's, on a ping socket");
        let foreign = Echo { process: 78, ..echo("2001:db8::1") };
        assert!(!v6.is_answered_by(&reply(&foreign), true), "another process's");
        for length in 0..16 {
            assert!(!v6.is_answered_by(&reply(&v6)[..length], true), "cut to {length} bytes");
            let v4 = echo("192.0.2.1");
            assert!(!v4.is_answered_by(&with_ip_header(&reply(&v4)[..length], 20), true), "{length}");
        }
    }

    #[test]
    fn a_request_is_as_long_as_asked_and_its_checksum_adds_up() {
        for length in [0, 16, 17, 1_480, 4_000] {
            let packet = echo("192.0.2.1").request(length);
            assert_eq!(packet.len(), length.max(16));
            assert_eq!(checksum(&[&packet]), 0, "{length} bytes with their checksum");
        }
    }
}
