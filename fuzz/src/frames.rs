//! Valid frames made of a few bytes each, and frames that answer what the worker sent. Mutations come afterwards.

use std::net::IpAddr;

use crate::bytes::Bytes;
use crate::inet::{self, HEADER_V4, HEADER_V6, ICMP, ICMP6, TCP, UDP};
use crate::setting;

/// An address and a port.
pub type End = (IpAddr, u16);

/// Bytes that payloads have at least, to which up to 255 are added: around what fits an MTU, a buffer, and the
/// pieces of one packet in the smallest buffers.
const PAYLOADS: [u16; 8] = [0, 1300, 0, 1900, 0, 500, 0, 6200];
/// Address of the NICs that frames come in by.
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TAG: [u8; 4] = [0x81, 0, 0, 20];
const SERVICE_TAG: [u8; 4] = [0x88, 0xa8, 0, 30];
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// An IP header to write.
#[derive(Clone, Copy, Debug)]
pub struct Ip {
    /// Of either family, which is that of the destination too.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// IANA number of the payload.
    pub protocol: u8,
    /// Number, place in units of eight bytes, and whether more follow.
    pub fragment: Option<(u16, u16, bool)>,
    /// No router may fragment it (IPv4).
    pub dont_fragment: bool,
    /// Words of IPv4 options, or IPv6 extension headers.
    pub extras: u8,
}

/// How the frame of a template differs from the plainest one.
#[derive(Clone, Copy, Debug)]
struct Traits(u8);

impl Traits {
    fn v6(self) -> bool {
        self.0 & 1 != 0
    }
    fn dont_fragment(self) -> bool {
        self.0 & 2 != 0
    }
    fn tags(self) -> &'static [[u8; 4]] {
        match self.0 >> 2 & 3 {
            0 => &[],
            1 => &[TAG],
            2 => &[SERVICE_TAG],
            _ => &[SERVICE_TAG, TAG],
        }
    }
    fn extras(self) -> u8 {
        self.0 >> 4 & 3
    }
    fn is_from_backend(self) -> bool {
        self.0 & 64 != 0
    }
    fn padded(self) -> bool {
        self.0 & 128 != 0
    }
}

/// A frame by the next eight bytes: kind, traits, client, destination, two of payload length (a choice and what
/// is added to it), two of anything.
/// `other` makes it another client's.
pub fn template(bytes: &mut Bytes<'_>, other: u8) -> Vec<u8> {
    let (kind, traits) = (bytes.byte(), Traits(bytes.byte()));
    let client = setting::client(bytes.byte().wrapping_add(other), traits.v6());
    let server = setting::server(bytes.byte(), traits.v6());
    let (length, extra) = (bytes.pick(&PAYLOADS) + u16::from(bytes.byte()), bytes.number());
    let plain = Ip {
        source: client.0,
        destination: server.0,
        protocol: if kind & 1 == 0 { TCP } else { UDP },
        fragment: None,
        dont_fragment: traits.dont_fragment(),
        extras: traits.extras(),
    };
    let icmp = if traits.v6() { ICMP6 } else { ICMP };
    let ip = match kind % 12 {
        0..=3 => packet(&plain, &segment(plain.protocol, client.1, server.1, extra as u8, length)),
        4 | 5 => {
            let fragment = Some((extra >> 8, 0, true));
            let whole_units = length / 8 * 8 + 4 * u16::from(plain.protocol == TCP);
            let first = segment(plain.protocol, client.1, server.1, extra as u8, whole_units);
            packet(&Ip { fragment, ..plain }, &first)
        }
        6 | 7 => {
            let fragment = Some((extra >> 8, extra & 0x7f, extra & 0x80 != 0));
            packet(&Ip { fragment, ..plain }, &vec![0xda; usize::from(length / 8 * 8)])
        }
        8 => packet(&Ip { protocol: icmp, ..plain }, &echo_request(traits.v6(), length)),
        9 => packet(&Ip { protocol: extra as u8, ..plain }, &vec![0; usize::from(length)]),
        10 => {
            let about = Ip { source: server.0, destination: client.0, protocol: TCP, extras: 0, ..plain };
            let about = packet(&about, &segment(TCP, server.1, client.1, 16, length % 64));
            error_about(&about, setting::router(traits.v6()), extra)
        }
        _ => {
            let backend = setting::server(extra as u8, traits.v6()).0;
            let about = Ip { source: server.0, destination: backend, protocol: 4, extras: 0, ..plain };
            error_about(&packet(&about, &[0x45; 40]), setting::router(traits.v6()), extra)
        }
    };
    let source = if traits.is_from_backend() { setting::station(extra as u8) } else { [2, 0, 0, 0, 0, 9] };
    let mut frame = ethernet(OURS, source, traits.tags(), &ip);
    if traits.padded() {
        frame.resize(frame.len().max(60) + usize::from(traits.extras()), 0xee);
    }
    frame
}

/// A frame around an IP packet.
pub fn ethernet(destination: [u8; 6], source: [u8; 6], tags: &[[u8; 4]], ip: &[u8]) -> Vec<u8> {
    let ether_type: [u8; 2] = if inet::is_v6(ip) { [0x86, 0xdd] } else { [8, 0] };
    [&destination[..], &source, tags.as_flattened(), &ether_type, ip].concat()
}

/// An IP packet with right checksums, but for fragments: theirs cover what is not in them.
pub fn packet(header: &Ip, payload: &[u8]) -> Vec<u8> {
    let (mut packet, header_length) = match (header.source, header.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            v4(header, &[source.octets(), destination.octets()].concat(), payload)
        }
        (source, destination) => v6(header, &[octets(source), octets(destination)].concat(), payload),
    };
    if header.fragment.is_none() {
        inet::seal_payload(&mut packet, header_length, header.protocol);
    }
    packet
}

fn v4(header: &Ip, addresses: &[u8], payload: &[u8]) -> (Vec<u8>, usize) {
    let header_length = HEADER_V4 + 4 * usize::from(header.extras);
    let mut packet = vec![0x45 + header.extras, 0x2e];
    packet.extend(((header_length + payload.len()) as u16).to_be_bytes());
    let (id, place, more) = header.fragment.unwrap_or_default();
    packet.extend(id.to_be_bytes());
    let field = place | u16::from(more) << 13 | u16::from(header.dont_fragment) << 14;
    packet.extend(field.to_be_bytes());
    packet.extend([64, header.protocol, 0, 0]);
    packet.extend(addresses);
    packet.resize(header_length, 1);
    inet::seal_header(&mut packet);
    packet.extend(payload);
    (packet, header_length)
}

fn v6(header: &Ip, addresses: &[u8], payload: &[u8]) -> (Vec<u8>, usize) {
    let mut chain = vec![DESTINATION_OPTIONS; usize::from(header.extras)];
    chain.extend(header.fragment.map(|_| FRAGMENT));
    let header_length = HEADER_V6 + 8 * chain.len();
    chain.push(header.protocol);
    let mut packet = vec![0x62, 0xe0, 0, 7];
    packet.extend(((8 * (chain.len() - 1) + payload.len()) as u16).to_be_bytes());
    packet.extend([chain[0], 64]);
    packet.extend(addresses);
    for pair in chain.windows(2) {
        let field = match (pair[0], header.fragment) {
            (FRAGMENT, Some((id, place, more))) => [place << 3 | u16::from(more), 0, id],
            _ => [0x0104, 0, 0],
        };
        packet.extend([pair[1], 0]);
        packet.extend(field.map(u16::to_be_bytes).as_flattened());
    }
    packet.extend(payload);
    (packet, header_length)
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A TCP segment or UDP datagram without its checksum.
pub fn segment(protocol: u8, source: u16, destination: u16, flags: u8, length: u16) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    match protocol {
        TCP => segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 4, 0, 0, 0, 0, 0]),
        _ => segment.extend([(length + 8).to_be_bytes(), [0, 0]].concat()),
    }
    segment.extend(payload(length));
    segment
}

/// Bytes of which no two pieces are alike, copied because every round of a loop here is traced.
fn payload(length: u16) -> &'static [u8] {
    static PAYLOAD: [u8; 8192] = {
        let mut bytes = [0; 8192];
        let mut at = 0;
        while at < bytes.len() {
            bytes[at] = (at ^ at >> 8) as u8;
            at += 1;
        }
        bytes
    };
    &PAYLOAD[..usize::from(length)]
}

fn echo_request(v6: bool, length: u16) -> Vec<u8> {
    let mut message = vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0, 7, 0, 1];
    message.extend(payload(length));
    message
}

/// An ICMP error of a router about an IP packet, to who sent it. `how` chooses kind, MTU and length of the quote.
pub fn error_about(ip: &[u8], router: IpAddr, how: u16) -> Vec<u8> {
    let v6 = inet::is_v6(ip);
    let kinds: [[u8; 2]; 4] =
        if v6 { [[2, 0], [1, 4], [3, 0], [4, 1]] } else { [[3, 4], [3, 1], [11, 0], [12, 0]] };
    let [kind, code] = kinds[usize::from(how >> 14)];
    let mtu = [576, 1400, 0, 1280][usize::from(how >> 12 & 3)];
    let least = if v6 { HEADER_V6 } else { HEADER_V4 } + 8;
    let quote = &ip[..(least + usize::from(how & 0xff)).min(ip.len())];
    let [high, low] = u16::to_be_bytes(mtu);
    let message = [&[kind, code, 0, 0, 0, 0, high, low], quote].concat();
    let source = |at: usize, length: usize| ip[at..at + length].to_vec();
    let destination = match v6 {
        true => IpAddr::from(<[u8; 16]>::try_from(source(8, 16)).expect("16 bytes")),
        false => IpAddr::from(<[u8; 4]>::try_from(source(12, 4)).expect("4 bytes")),
    };
    let protocol = if v6 { ICMP6 } else { ICMP };
    let header =
        Ip { source: router, destination, protocol, fragment: None, dont_fragment: false, extras: 0 };
    packet(&header, &message)
}

/// The frame that answers a TCP or UDP packet: both ends change places, which changes no checksum.
pub fn reversed(frame: &[u8], ip_offset: usize, header_length: usize) -> Vec<u8> {
    let mut answer = frame.to_vec();
    answer[..12].rotate_left(6);
    let ip = &mut answer[ip_offset..];
    if inet::is_v6(ip) {
        ip[8..40].rotate_left(16);
    } else {
        ip[12..20].rotate_left(4);
    }
    if let Some(ports) = ip.get_mut(header_length..header_length + 4) {
        ports.rotate_left(2);
    }
    answer
}
