//! TCP (RFC 9293) and UDP (RFC 768) headers, as far as forwarding reads them.

use shunt_api::counters::DropReason;
use shunt_api::snapshot::Protocol;

/// TCP flag: the sender is done.
pub const FIN: u8 = 0x01;
/// TCP flag: first packet of a connection.
pub const SYN: u8 = 0x02;
/// TCP flag: the connection is dead.
pub const RST: u8 = 0x04;

/// TCP flag: the acknowledgement number counts.
pub const ACK: u8 = 0x10;
/// IANA number of TCP.
pub const TCP: u8 = 6;
/// IANA number of UDP.
pub const UDP: u8 = 17;

const TCP_HEADER_LENGTH: usize = 20;
const UDP_HEADER_LENGTH: usize = 8;

/// The fields that forwarding reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client's.
    pub source_port: u16,
    /// The service's.
    pub destination_port: u16,
    /// 0 for UDP.
    pub tcp_flags: u8,
}

impl Transport {
    /// Of a packet that has no ports.
    pub const NONE: Self =
        Self { protocol: Protocol::Udp, source_port: 0, destination_port: 0, tcp_flags: 0 };
}

/// TCP or UDP by its IANA number.
pub fn protocol(number: u8) -> Option<Protocol> {
    match number {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// Its IANA number.
pub fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

/// Reads the header at the start of an IP payload of `length` bytes, of which `payload` are at hand. A first
/// fragment is shorter than what its UDP header says.
pub fn parse(number: u8, payload: &[u8], length: usize, fragment: bool) -> Result<Transport, DropReason> {
    match protocol(number).ok_or(DropReason::UnsupportedProtocol)? {
        Protocol::Tcp => parse_tcp(payload, length),
        Protocol::Udp => parse_udp(payload, length, fragment),
    }
}

fn parse_tcp(payload: &[u8], length: usize) -> Result<Transport, DropReason> {
    let header = payload.first_chunk::<TCP_HEADER_LENGTH>().ok_or(DropReason::BadTransportHeader)?;
    let header_length = usize::from(header[12] >> 4) * 4;
    if header_length < TCP_HEADER_LENGTH || header_length > length {
        return Err(DropReason::BadTransportHeader);
    }
    let [source_port, destination_port] = ports(header);
    Ok(Transport { protocol: Protocol::Tcp, source_port, destination_port, tcp_flags: header[13] })
}

fn parse_udp(payload: &[u8], length: usize, fragment: bool) -> Result<Transport, DropReason> {
    let header = payload.first_chunk::<UDP_HEADER_LENGTH>().ok_or(DropReason::BadTransportHeader)?;
    let stated = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if stated < UDP_HEADER_LENGTH || (stated > length && !fragment) {
        return Err(DropReason::BadTransportHeader);
    }
    let [source_port, destination_port] = ports(header);
    Ok(Transport { protocol: Protocol::Udp, source_port, destination_port, tcp_flags: 0 })
}

/// Source and destination port: the first four bytes of either header.
pub fn ports<const N: usize>(header: &[u8; N]) -> [u16; 2] {
    [u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]])]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(data_offset: u8, length: usize) -> Vec<u8> {
        let mut header = vec![0; length];
        header[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        header[12] = data_offset << 4;
        header[13] = SYN | FIN;
        header
    }

    fn udp(length_field: u8, length: usize) -> Vec<u8> {
        let mut header = vec![0; length];
        header[..6].copy_from_slice(&[0x9c, 0x40, 0, 53, 0, length_field]);
        header
    }

    #[test]
    fn check() {
        let bad = Err(DropReason::BadTransportHeader);
        let tcp_ok = Transport {
            protocol: Protocol::Tcp,
            source_port: 40000,
            destination_port: 80,
            tcp_flags: SYN | FIN,
        };
        let udp_ok =
            Transport { protocol: Protocol::Udp, source_port: 40000, destination_port: 53, tcp_flags: 0 };
        let cases = [
            (TCP, tcp(5, 20), Ok(tcp_ok)),
            (TCP, tcp(15, 60), Ok(tcp_ok)),
            (TCP, tcp(4, 20), bad),
            (TCP, tcp(6, 20), bad),
            (TCP, tcp(5, 20)[..19].to_vec(), bad),
            (UDP, udp(8, 8), Ok(udp_ok)),
            (UDP, udp(7, 8), bad),
            (UDP, udp(9, 8), bad),
            (UDP, udp(8, 8)[..7].to_vec(), bad),
            (132, vec![0; 12], Err(DropReason::UnsupportedProtocol)),
        ];
        for (protocol, payload, expected) in cases {
            let read = parse(protocol, &payload, payload.len(), false);
            assert_eq!(read, expected, "protocol {protocol}, {} bytes", payload.len());
        }
        assert_eq!(parse(UDP, &udp(200, 8), 8, true), Ok(udp_ok), "a first fragment");
    }
}
