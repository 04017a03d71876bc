//! What makes packets one flow, and the frozen hash that places a flow in a Maglev table.
//!
//! [`SlotHasher`] is shared by the whole fleet and described in `docs/maglev.md`; it never changes between
//! versions. The index into this process's own flow table is another hash (see `conntrack`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shunt_api::snapshot::{FleetKey, Protocol, ServicePort};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use crate::packet::transport;

/// Five-tuple of an IPv4 flow, named from the service's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey4 {
    /// Source of the client's packets.
    pub client: Ipv4Addr,
    /// Destination of the client's packets.
    pub vip: Ipv4Addr,
    /// Source port.
    pub client_port: u16,
    /// Destination port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Five-tuple of an IPv6 flow, named from the service's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey6 {
    /// Source of the client's packets.
    pub client: Ipv6Addr,
    /// Destination of the client's packets.
    pub vip: Ipv6Addr,
    /// Source port.
    pub client_port: u16,
    /// Destination port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// The bits of a key's last word that belong to the service: port and protocol.
const SERVICE_BITS: u64 = 0xff_ffff;

/// The last word of a flow's key.
fn ports_word(client_port: u16, port: u16, protocol: Protocol) -> u64 {
    u64::from(client_port) << 24 | u64::from(port) << 8 | u64::from(transport::number(protocol))
}

/// A flow of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowKey {
    /// IPv4
    V4(FlowKey4),
    /// IPv6
    V6(FlowKey6),
}

/// A key as the tables of its family store it: in `K` words.
pub trait Tuple<const K: usize>: Copy + Into<FlowKey> {
    /// Words of a service's key.
    type Service;

    /// The key of this family, if it is one.
    fn of(key: &FlowKey) -> Option<Self>;

    /// The words.
    fn words(&self) -> [u64; K];

    /// The key behind stored words; `None` if they were never made by [`Self::words`].
    fn from_words(words: [u64; K]) -> Option<Self>;

    /// What the words say of the service: VIP, port and protocol in the words of its key.
    fn service_key(words: &[u64; K]) -> Self::Service;

    /// The words under which a client's affinity to a backend of a service is stored. They are those of no flow.
    fn affinity_words(&self, service: u32) -> [u64; K];
}

impl Tuple<2> for FlowKey4 {
    type Service = [u64; 1];

    fn service_key(&[addresses, ports]: &[u64; 2]) -> [u64; 1] {
        [addresses << 32 | ports & SERVICE_BITS]
    }

    fn of(key: &FlowKey) -> Option<Self> {
        match key {
            FlowKey::V4(flow) => Some(*flow),
            FlowKey::V6(_) => None,
        }
    }

    fn words(&self) -> [u64; 2] {
        let addresses = u64::from(self.client.to_bits()) << 32 | u64::from(self.vip.to_bits());
        [addresses, ports_word(self.client_port, self.port, self.protocol)]
    }

    fn from_words(words: [u64; 2]) -> Option<Self> {
        Some(Self {
            client: Ipv4Addr::from_bits((words[0] >> 32) as u32),
            vip: Ipv4Addr::from_bits(words[0] as u32),
            client_port: (words[1] >> 24) as u16,
            port: (words[1] >> 8) as u16,
            protocol: transport::protocol(words[1] as u8)?,
        })
    }

    fn affinity_words(&self, service: u32) -> [u64; 2] {
        [u64::from(self.client.to_bits()) << 32 | u64::from(service), 0]
    }
}

impl Tuple<5> for FlowKey6 {
    type Service = [u64; 3];

    fn service_key(&[_, _, high, low, ports]: &[u64; 5]) -> [u64; 3] {
        [high, low, ports & SERVICE_BITS]
    }

    fn of(key: &FlowKey) -> Option<Self> {
        match key {
            FlowKey::V6(flow) => Some(*flow),
            FlowKey::V4(_) => None,
        }
    }

    fn words(&self) -> [u64; 5] {
        let (client, vip) = (self.client.to_bits(), self.vip.to_bits());
        [
            (client >> 64) as u64,
            client as u64,
            (vip >> 64) as u64,
            vip as u64,
            ports_word(self.client_port, self.port, self.protocol),
        ]
    }

    fn from_words(words: [u64; 5]) -> Option<Self> {
        Some(Self {
            client: Ipv6Addr::from_bits(u128::from(words[0]) << 64 | u128::from(words[1])),
            vip: Ipv6Addr::from_bits(u128::from(words[2]) << 64 | u128::from(words[3])),
            client_port: (words[4] >> 24) as u16,
            port: (words[4] >> 8) as u16,
            protocol: transport::protocol(words[4] as u8)?,
        })
    }

    fn affinity_words(&self, service: u32) -> [u64; 5] {
        let client = self.client.to_bits();
        [(client >> 64) as u64, client as u64, u64::from(service), 0, 0]
    }
}

impl From<FlowKey4> for FlowKey {
    fn from(flow: FlowKey4) -> Self {
        Self::V4(flow)
    }
}

impl From<FlowKey6> for FlowKey {
    fn from(flow: FlowKey6) -> Self {
        Self::V6(flow)
    }
}

/// One end of a flow.
pub type End = (IpAddr, u16);

impl FlowKey {
    /// Between these ends; `None` if they are of different families.
    pub fn new((client, client_port): End, (vip, port): End, protocol: Protocol) -> Option<Self> {
        match (client, vip) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => {
                Some(Self::V4(FlowKey4 { client, vip, client_port, port, protocol }))
            }
            (IpAddr::V6(client), IpAddr::V6(vip)) => {
                Some(Self::V6(FlowKey6 { client, vip, client_port, port, protocol }))
            }
            _ => None,
        }
    }

    /// Between the same addresses.
    #[must_use]
    pub fn with_ports(mut self, client_port: u16, port: u16, protocol: Protocol) -> Self {
        match &mut self {
            Self::V4(flow) => *flow = FlowKey4 { client_port, port, protocol, ..*flow },
            Self::V6(flow) => *flow = FlowKey6 { client_port, port, protocol, ..*flow },
        }
        self
    }

    /// Source of the client's packets.
    pub fn client(&self) -> IpAddr {
        match self {
            Self::V4(flow) => flow.client.into(),
            Self::V6(flow) => flow.client.into(),
        }
    }

    /// Destination of the client's packets.
    pub fn vip(&self) -> IpAddr {
        match self {
            Self::V4(flow) => flow.vip.into(),
            Self::V6(flow) => flow.vip.into(),
        }
    }

    /// Source port.
    pub fn client_port(&self) -> u16 {
        match self {
            Self::V4(flow) => flow.client_port,
            Self::V6(flow) => flow.client_port,
        }
    }

    /// TCP or UDP.
    pub fn protocol(&self) -> Protocol {
        self.service_port().protocol
    }

    /// Protocol and destination port.
    pub fn service_port(&self) -> ServicePort {
        match *self {
            Self::V4(FlowKey4 { protocol, port, .. }) | Self::V6(FlowKey6 { protocol, port, .. }) => {
                ServicePort { protocol, port }
            }
        }
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServicePort { protocol, port } = self.service_port();
        match self {
            Self::V4(flow) => {
                write!(f, "{protocol} {}:{} -> {}:{port}", flow.client, flow.client_port, flow.vip)
            }
            Self::V6(flow) => {
                write!(f, "{protocol} [{}]:{} -> [{}]:{port}", flow.client, flow.client_port, flow.vip)
            }
        }
    }
}

/// Longest message that is hashed: tag, two IPv6 addresses, two ports, protocol.
const MESSAGE_LENGTH: usize = 1 + 16 + 16 + 2 + 2 + 1;

/// SipHash-1-3 under the fleet key, one tag byte per purpose so that no two purposes share outputs.
#[derive(Clone, Copy)]
pub struct SlotHasher(SipHasher13);

impl SlotHasher {
    const TAG_OFFSET: u8 = 1;
    const TAG_SKIP: u8 = 2;
    const TAG_FLOW: u8 = 3;
    const TAG_CLIENT: u8 = 4;

    /// Under this key.
    pub fn new(key: &FleetKey) -> Self {
        Self(SipHasher13::new_with_key(&key.0))
    }

    /// Where a backend's permutation of the slots begins; to be taken modulo the table size.
    pub fn offset(&self, backend: IpAddr) -> u64 {
        self.address(Self::TAG_OFFSET, backend)
    }

    /// How far a backend's permutation steps; to be taken modulo the table size less one, plus one.
    pub fn skip(&self, backend: IpAddr) -> u64 {
        self.address(Self::TAG_SKIP, backend)
    }

    /// The flow's place; to be taken modulo the table size.
    pub fn flow(&self, flow: &FlowKey) -> u64 {
        let mut message = Message::new(Self::TAG_FLOW);
        match flow {
            FlowKey::V4(flow) => {
                message.push(&flow.client.octets());
                message.push(&flow.vip.octets());
                message.push(&flow.client_port.to_be_bytes());
                message.push(&flow.port.to_be_bytes());
                message.push(&[transport::number(flow.protocol)]);
            }
            FlowKey::V6(flow) => {
                message.push(&flow.client.octets());
                message.push(&flow.vip.octets());
                message.push(&flow.client_port.to_be_bytes());
                message.push(&flow.port.to_be_bytes());
                message.push(&[transport::number(flow.protocol)]);
            }
        }
        self.hash(&message)
    }

    /// The place of all flows of a client whose service has client-IP affinity; to be taken modulo the table
    /// size.
    pub fn client(&self, client: IpAddr) -> u64 {
        self.address(Self::TAG_CLIENT, client)
    }

    fn address(&self, tag: u8, address: IpAddr) -> u64 {
        let mut message = Message::new(tag);
        match address {
            IpAddr::V4(address) => message.push(&address.octets()),
            IpAddr::V6(address) => message.push(&address.octets()),
        }
        self.hash(&message)
    }

    fn hash(&self, message: &Message) -> u64 {
        let mut hasher = self.0;
        hasher.write(&message.bytes[..message.length]);
        hasher.finish()
    }
}

impl fmt::Debug for SlotHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotHasher(secret)")
    }
}

struct Message {
    bytes: [u8; MESSAGE_LENGTH],
    length: usize,
}

impl Message {
    fn new(tag: u8) -> Self {
        let mut bytes = [0; MESSAGE_LENGTH];
        bytes[0] = tag;
        Self { bytes, length: 1 }
    }

    fn push<const N: usize>(&mut self, part: &[u8; N]) {
        self.bytes[self.length..self.length + N].copy_from_slice(part);
        self.length += N;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SipHash-1-3 of the message's bytes by the reference key 00 01 … 0f: see docs/maglev.md.
    fn hasher() -> SlotHasher {
        SlotHasher::new(&FleetKey(std::array::from_fn(|i| i as u8)))
    }

    fn tcp4() -> FlowKey {
        FlowKey::V4(FlowKey4 {
            client: Ipv4Addr::new(192, 0, 2, 1),
            vip: Ipv4Addr::new(203, 0, 113, 10),
            client_port: 40000,
            port: 80,
            protocol: Protocol::Tcp,
        })
    }

    #[test]
    fn the_message_is_tag_addresses_ports_protocol() {
        let mut plain = SipHasher13::new_with_key(&std::array::from_fn(|i| i as u8));
        plain.write(&[3, 192, 0, 2, 1, 203, 0, 113, 10, 0x9c, 0x40, 0, 80, 6]);
        assert_eq!(hasher().flow(&tcp4()), plain.finish());
    }

    #[test]
    fn purposes_and_fields_do_not_share_outputs() {
        let address = IpAddr::from([10, 0, 0, 1]);
        assert_ne!(hasher().offset(address), hasher().skip(address));
        assert_ne!(hasher().offset(address), hasher().client(address));
        let FlowKey::V4(flow) = tcp4() else { unreachable!() };
        let udp = FlowKey::V4(FlowKey4 { protocol: Protocol::Udp, ..flow });
        assert_ne!(hasher().flow(&tcp4()), hasher().flow(&udp));
    }

    proptest! {
        #[test]
        fn words_round_trip(client: u128, vip: u128, client_port: u16, port: u16, tcp: bool) {
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            let v6 = FlowKey6 { client: client.into(), vip: vip.into(), client_port, port, protocol };
            prop_assert_eq!(FlowKey6::from_words(v6.words()), Some(v6));
            let v4 = FlowKey4 { client: (client as u32).into(), vip: (vip as u32).into(), client_port, port, protocol };
            prop_assert_eq!(FlowKey4::from_words(v4.words()), Some(v4));
            prop_assert_eq!(FlowKey4::from_words(v4.affinity_words(client as u32)), None, "no flow's");
            prop_assert_eq!(FlowKey6::from_words(v6.affinity_words(client as u32)), None, "no flow's");
        }
    }
}
