//! What the dataplane obeys: one whole, self-contained picture of services and backends.
//!
//! The control plane compiles it and sends it with `PUT /v1/snapshot`; it is never a delta, so sending it
//! again is always safe. `generation` grows with every change; the dataplane answers with [`Ack`] once
//! every worker forwards by it, or with [`Rejected`] and keeps what it had.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Everything the dataplane needs to forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Grows by at least one with every change.
    pub generation: u64,
    /// Key of the flow-to-slot hash, the same on every box that shares VIPs.
    pub fleet_key: FleetKey,
    /// Slots of every Maglev table; a prime in 251…655373.
    pub maglev_size: u32,
    /// NICs to attach to. Read when the dataplane starts its workers; a later change needs a restart and is
    /// reported as such.
    pub nics: Vec<Nic>,
    /// Workers, rings and table sizes. Read at the same time as `nics`.
    pub dataplane: DataplaneSettings,
    /// Idle times of flows.
    pub timeouts: Timeouts,
    /// How tunnels are made.
    pub tunnel: Tunnel,
    /// Where translated flows come from.
    pub nat: Nat,
    /// Most answers of each kind (echo, reset, unreachable, too big) that a worker gives per second.
    pub reply_rate: u32,
    /// Sets of backends; services point at them by index.
    pub pools: Vec<Pool>,
    /// What clients can reach.
    pub services: Vec<Service>,
    /// Ways that health checks take through the dataplane's path; may name backends that no pool has.
    #[serde(default)]
    pub probes: Vec<ProbeWay>,
}

/// Packets of the box itself that carry this mark are delivered to this backend as packets of clients would be,
/// whatever address they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeWay {
    /// Added to [`PROBE_MARK`]; at most 65,535. Unique in a snapshot, and means the same backend and mode in every
    /// snapshot of one control plane.
    pub number: u16,
    /// The backend.
    pub address: IpAddr,
    /// `dr` or `ipip`: packets in mode `nat` need no way of their own.
    pub mode: Mode,
}

/// `SO_MARK` of a health check's socket with [`ProbeWay::number`] 0.
pub const PROBE_MARK: u32 = 0x5348_0000;
/// The bits that tell such a mark from others.
pub const PROBE_MARK_MASK: u32 = 0xffff_0000;

/// 128-bit secret shared by the fleet; never printed.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FleetKey(pub [u8; 16]);

/// The text is not 32 hexadecimal digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a fleet key is 32 hexadecimal digits (128 bits); make one with `openssl rand -hex 16`")]
pub struct InvalidFleetKey;

impl fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKey(secret)")
    }
}

impl From<FleetKey> for String {
    fn from(key: FleetKey) -> Self {
        key.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for FleetKey {
    type Error = InvalidFleetKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let text = text.trim();
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidFleetKey);
        }
        let mut key = [0u8; 16];
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidFleetKey)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidFleetKey)?;
        }
        Ok(Self(key))
    }
}

/// One network interface whose queues Shunt serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Kernel name, at most 15 bytes.
    pub name: String,
    /// How many receive queues to serve, from queue 0; `None` serves all of them.
    pub queues: Option<u32>,
    /// Where the XDP program runs.
    pub xdp: XdpMode,
    /// Whether sockets share memory with the driver.
    pub zero_copy: ZeroCopy,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver where it can, otherwise generic with a loud warning.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the network stack: works everywhere, slower.
    Generic,
}

/// Whether sockets share memory with the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroCopy {
    /// Zero-copy where the driver has it, otherwise copy.
    #[default]
    Auto,
    /// Zero-copy or not at all.
    On,
    /// Copy.
    Off,
}

/// Workers, rings and table sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataplaneSettings {
    /// Cores for the workers, in order; empty lets the dataplane choose.
    pub cores: Vec<u32>,
    /// Poll without ever sleeping.
    pub busy_poll: bool,
    /// Most frames taken from a ring at once, 1…64.
    pub batch: u32,
    /// Entries of each receive and transmit ring; a power of two in 64…65536.
    pub ring_size: u32,
    /// Who drives the rings.
    #[serde(default)]
    pub rings: Rings,
    /// IPv4 flows the flow table is sized for.
    pub max_flows_v4: u32,
    /// IPv6 flows the flow table is sized for.
    pub max_flows_v6: u32,
}

/// What holds where nothing is configured.
impl Default for DataplaneSettings {
    fn default() -> Self {
        Self {
            cores: Vec::new(),
            busy_poll: false,
            batch: 64,
            ring_size: 2_048,
            rings: Rings::Own,
            max_flows_v4: 1_000_000,
            max_flows_v6: 250_000,
        }
    }
}

/// Who drives the rings of AF_XDP sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rings {
    /// The dataplane itself.
    #[default]
    Own,
    /// The library xsk-rs.
    XskRs,
}

/// Idle times after which a flow is forgotten, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// A flow seen with one packet only.
    pub unconfirmed_s: u32,
    /// TCP with traffic.
    pub tcp_established_s: u32,
    /// TCP after the client's FIN.
    pub tcp_fin_s: u32,
    /// TCP after the client's RST.
    pub tcp_reset_s: u32,
    /// UDP.
    pub udp_s: u32,
}

/// What holds where nothing is configured.
impl Default for Timeouts {
    fn default() -> Self {
        Self { unconfirmed_s: 30, tcp_established_s: 900, tcp_fin_s: 120, tcp_reset_s: 10, udp_s: 300 }
    }
}

/// How tunnels are made. The outer source's prefix is fixed, its remaining bits are the flow's entropy, so that a
/// backend's NIC spreads tunnels over its queues. `None` uses the box's own address on the way to the
/// backend, without entropy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Outer sources of IPv4 tunnels.
    pub source_v4: Option<Ipv4Net>,
    /// Outer sources of IPv6 tunnels.
    pub source_v6: Option<Ipv6Net>,
    /// Whether a packet that may be fragmented and does not fit is sent in two outer IPv4 fragments, instead of
    /// being dropped.
    pub fragment: bool,
}

/// Source address translation of mode `nat`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// Addresses that translated flows come from and replies go to; none is a VIP. Empty without `nat` backends.
    pub sources: Vec<IpAddr>,
    /// Translated IPv4 flows there is room for.
    pub max_flows_v4: u32,
    /// Translated IPv6 flows there is room for.
    pub max_flows_v6: u32,
}

/// A named set of backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// As in the configuration.
    pub name: String,
    /// In any order: the dataplane sorts by address.
    pub backends: Vec<Backend>,
}

/// One backend of a pool. Its identity is its address: boxes that share a fleet key agree on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// As in the configuration.
    pub name: String,
    /// Of the machine, not of the service.
    pub address: IpAddr,
    /// Share of new flows relative to the pool's sum, 0…1000; 0 drains.
    pub weight: u16,
    /// How packets get there.
    pub mode: Mode,
}

/// How packets get to a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Direct routing: the same IP packet to the backend's MAC address, on the same L2 segment.
    #[default]
    Dr,
    /// IP-in-IP (RFC 2003, RFC 2473, RFC 4213): an outer IPv4 or IPv6 header of the backend's family.
    Ipip,
    /// Destination and source rewritten; replies come back through this box.
    Nat,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dr => "dr",
            Self::Ipip => "ipip",
            Self::Nat => "nat",
        })
    }
}

/// What clients can reach: every VIP on every port, served by one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// As in the configuration.
    pub name: String,
    /// Addresses, of either family.
    pub vips: Vec<IpAddr>,
    /// Protocol and port pairs.
    pub ports: Vec<PortMapping>,
    /// Index into [`Snapshot::pools`].
    pub pool: u32,
    /// Prefixes that clients may come from; empty allows all.
    pub source_ranges: Vec<IpNet>,
    /// Seconds for which a client keeps its backend over connections; `None` balances each connection alone.
    pub client_ip_affinity_s: Option<u32>,
    /// What packets to other ports of the VIPs get. Services that share a VIP agree on it.
    pub unlisted_ports: UnlistedPorts,
}

/// What a packet to a port without a service gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnlistedPorts {
    /// TCP a reset, UDP "port unreachable", as from a host.
    #[default]
    Reject,
    /// Silence.
    Drop,
}

impl fmt::Display for UnlistedPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reject => "reject",
            Self::Drop => "drop",
        })
    }
}

/// A port that clients reach and, for `nat` backends, the port it is translated to; text form `tcp/80` or
/// `tcp/80:30080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortMapping {
    /// What clients use.
    pub port: ServicePort,
    /// What `nat` backends listen on, 1…65535, such as a NodePort; `None` is the same port.
    pub target: Option<u16>,
}

/// Protocol and port; text form `tcp/80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ServicePort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// 1…65535.
    pub port: u16,
}

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
}

/// The text is not `tcp/PORT` or `udp/PORT`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no tcp or udp port from 1 to 65535; write tcp/80 or udp/53")]
pub struct InvalidServicePort(String);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

impl From<ServicePort> for String {
    fn from(port: ServicePort) -> Self {
        port.to_string()
    }
}

impl TryFrom<String> for ServicePort {
    type Error = InvalidServicePort;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parsed = text.split_once('/').and_then(|(protocol, port)| {
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return None,
            };
            Some(Self { protocol, port: number(port)? })
        });
        parsed.ok_or(InvalidServicePort(text))
    }
}

/// The text is not `PROTOCOL/PORT` or `PROTOCOL/PORT:TARGET`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is no tcp or udp port from 1 to 65535; write tcp/80 or udp/53, or tcp/80:30080 for nat backends that listen on 30080"
)]
pub struct InvalidPortMapping(String);

impl From<ServicePort> for PortMapping {
    fn from(port: ServicePort) -> Self {
        Self { port, target: None }
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            None => self.port.fmt(f),
            Some(target) => write!(f, "{}:{target}", self.port),
        }
    }
}

impl From<PortMapping> for String {
    fn from(mapping: PortMapping) -> Self {
        mapping.to_string()
    }
}

impl TryFrom<String> for PortMapping {
    type Error = InvalidPortMapping;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (port, target) = match text.split_once(':') {
            None => (text.as_str(), None),
            Some((port, target)) => (port, Some(target)),
        };
        let parsed = ServicePort::try_from(port.to_owned()).ok();
        let target = target.map(|target| number(target).ok_or(())).transpose();
        match (parsed, target) {
            (Some(port), Ok(target)) => Ok(Self { port, target }),
            _ => Err(InvalidPortMapping(text)),
        }
    }
}

/// A port number as people write it: digits alone, not 0.
fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&number: &u16| digits && number != 0)
}

/// Every worker forwards by this generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The snapshot's.
    pub generation: u64,
    /// Settings that differ from the running ones and take effect when the dataplane restarts, in words.
    pub restart_needed: Vec<String>,
}

/// The snapshot was refused whole; what was served before still is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the dataplane refused the snapshot: {reason}")]
pub struct Rejected {
    /// What is wrong and what to do.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_port_is_protocol_slash_number() {
        for good in ["tcp/80", "udp/65535"] {
            assert_eq!(ServicePort::try_from(good.to_owned()).unwrap().to_string(), good);
        }
        for bad in ["", "80", "tcp/", "tcp/0", "tcp/65536", "sctp/1", "tcp/+80", "TCP/80", "tcp/80/1"] {
            assert!(ServicePort::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_mapping_may_name_a_target() {
        for good in ["tcp/80", "tcp/80:30080", "udp/65535:1"] {
            assert_eq!(PortMapping::try_from(good.to_owned()).unwrap().to_string(), good);
        }
        for bad in
            ["", "80:30080", "tcp/80:", "tcp/80:0", "tcp/80:65536", "tcp/:1", "tcp/80:1:2", "tcp/80:+1"]
        {
            assert!(PortMapping::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fleet_key_is_32_digits_and_never_printed() {
        let key = FleetKey::try_from("000102030405060708090a0b0c0d0e0f\n".to_owned()).unwrap();
        assert_eq!(key.0[15], 15);
        assert_eq!(String::from(key), "000102030405060708090a0b0c0d0e0f");
        assert!(!format!("{key:?}").contains("0f"));
        for bad in ["", "00", "000102030405060708090a0b0c0d0e0g", "000102030405060708090a0b0c0d0e0f00"] {
            assert_eq!(FleetKey::try_from(bad.to_owned()), Err(InvalidFleetKey), "{bad}");
        }
    }
}
