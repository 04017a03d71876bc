//! Packets of many flows, and which flow is next.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use shunt_dataplane::packet::checksum;

/// Address family of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    V4,
    V6,
}

/// How often each flow has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// All as often.
    Uniform,
    /// The one of rank r in proportion to 1/r.
    Zipf,
}

/// TCP port of every service.
pub const PORT: u16 = 80;
/// The first service's addresses; those of the others follow.
pub const VIP_V4: [u8; 4] = [203, 0, 113, 10];
pub const VIP_V6: [u16; 8] = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10];

/// The first clients' addresses.
pub const CLIENTS_V4: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 0);
pub const CLIENTS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0);

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

/// Flows of one client address.
const PORTS: u32 = 50_000;

/// A TCP segment without payload, to be made that of any flow: 60 bytes in IPv4, 74 in IPv6.
pub struct Frame {
    bytes: Vec<u8>,
    family: Family,
    services: u32,
}

/// How a translated flow is known to its backend: the lowest bits of addresses, so that ten million fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    backend: u16,
    source: u16,
    port: u16,
}

/// Where a family's headers have what distinguishes flows.
struct Layout {
    source: usize,
    destination: usize,
    /// Also the end of the addresses.
    transport: usize,
}

impl Layout {
    const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self { source: 26, destination: 30, transport: 34 },
            Family::V6 => Self { source: 22, destination: 38, transport: 54 },
        }
    }
}

impl Way {
    /// Of a packet on its way to the backend.
    pub fn of(family: Family, frame: &[u8]) -> Self {
        let Layout { destination, transport, .. } = Layout::of(family);
        let word = |end: usize| u16::from_be_bytes([frame[end - 2], frame[end - 1]]);
        Self { backend: word(transport), source: word(destination), port: word(transport + 2) }
    }
}

/// The address of a service.
pub fn vip_v4(service: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes(VIP_V4) + service)
}

/// The address of a service.
pub fn vip_v6(service: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(Ipv6Addr::from(VIP_V6).to_bits() + u128::from(service))
}

impl Frame {
    /// To the first service.
    pub fn new(family: Family) -> Self {
        Self::among(family, 1)
    }

    /// To any of so many services: each flow has its own.
    pub fn among(family: Family, services: u32) -> Self {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
        match family {
            Family::V4 => {
                bytes.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0]);
                bytes.extend(VIP_V4);
            }
            Family::V6 => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
                bytes.extend(CLIENTS_V6.octets());
                bytes.extend(VIP_V6.iter().flat_map(|group| group.to_be_bytes()));
            }
        }
        bytes.extend([0, 0, 0, PORT as u8, 0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 0, 4, 0, 0, 0, 0, 0]);
        bytes.resize(bytes.len().max(60), 0);
        Self { bytes, family, services }
    }

    /// The next packet of a flow.
    pub fn of(&mut self, flow: u32, flags: u8) -> &[u8] {
        let (client, port) = (flow / PORTS, (1024 + flow % PORTS) as u16);
        let service = scattered(flow) % self.services;
        let Layout { source, destination, transport } = Layout::of(self.family);
        match self.family {
            Family::V4 => {
                let address = (CLIENTS_V4.to_bits() + client).to_be_bytes();
                self.bytes[source..destination].copy_from_slice(&address);
                self.bytes[destination..transport].copy_from_slice(&vip_v4(service).octets());
            }
            Family::V6 => {
                self.bytes[destination - 4..destination].copy_from_slice(&client.to_be_bytes());
                self.bytes[destination..transport].copy_from_slice(&vip_v6(service).octets());
            }
        }
        self.finished(transport, [port, PORT], flags)
    }

    /// The next packet of a flow from its backend.
    pub fn back(&mut self, way: Way) -> &[u8] {
        let Layout { source, destination, transport } = Layout::of(self.family);
        let (of_backends, of_sources) = networks(self.family);
        self.bytes[source..destination].copy_from_slice(&of_backends);
        self.bytes[destination..transport].copy_from_slice(&of_sources);
        self.bytes[destination - 2..destination].copy_from_slice(&way.backend.to_be_bytes());
        self.bytes[transport - 2..transport].copy_from_slice(&way.source.to_be_bytes());
        self.finished(transport, [PORT, way.port], ACK)
    }

    fn finished(&mut self, transport: usize, [source, destination]: [u16; 2], flags: u8) -> &[u8] {
        if self.family == Family::V4 {
            self.bytes[24..26].fill(0);
            let sum = checksum::of(&self.bytes[14..34]);
            self.bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        self.bytes[transport..transport + 2].copy_from_slice(&source.to_be_bytes());
        self.bytes[transport + 2..transport + 4].copy_from_slice(&destination.to_be_bytes());
        self.bytes[transport + 13] = flags;
        &self.bytes
    }
}

/// Addresses of backends and of sources of translated flows, without their last two bytes.
fn networks(family: Family) -> (Vec<u8>, Vec<u8>) {
    match family {
        Family::V4 => {
            (super::shape::backend_v4(0).octets().into(), super::shape::source_v4(0).octets().into())
        }
        Family::V6 => {
            (super::shape::backend_v6(0).octets().into(), super::shape::source_v6(0).octets().into())
        }
    }
}

/// Neighbours no more.
fn scattered(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1) >> 8
}

/// Flows in the order of their packets, the same in every run.
pub struct Turns {
    state: u64,
    flows: u32,
    distribution: Distribution,
}

impl Turns {
    pub fn new(flows: u32, distribution: Distribution) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, flows, distribution }
    }

    /// A number in 0..1 (xorshift64, Marsaglia 2003).
    fn random(&mut self) -> f64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Iterator for Turns {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let flows = f64::from(self.flows);
        let at = match self.distribution {
            Distribution::Uniform => self.random() * flows,
            // The inverse of the distribution function, ranks taken as continuous.
            Distribution::Zipf => (self.random() * flows.ln()).exp() - 1.0,
        };
        // Ranks are scattered, so that neighbours in rank are none in address.
        let scattered = (at as u32).wrapping_mul(0x9e37_79b1) % self.flows;
        Some(if self.distribution == Distribution::Uniform { at as u32 } else { scattered })
    }
}
