//! What the daemons answer when asked how they are.
//!
//! Dataplane socket: `GET /v1/status` → [`DataplaneStatus`], `GET /v1/stats` → [`Stats`],
//! `GET /v1/flows?…` ([`FlowFilter`]) → [`Flows`], `GET /v1/flows/count?…` → [`FlowCount`],
//! `POST /v1/explain` (see [`crate::explain`]),
//! `PUT /v1/snapshot` → [`crate::snapshot::Ack`] or 422 with [`crate::snapshot::Rejected`].
//!
//! Control-plane socket: `GET /v1/status` → [`ControlStatus`], `GET /v1/services` → list of [`ServiceView`],
//! `GET /v1/backends` → list of [`BackendView`], `GET /v1/events` → list of [`Event`], the oldest first,
//! `PUT /v1/drain` with [`DrainRequest`] → list of [`BackendView`] or 404 with the reason in text,
//! `POST /v1/reload` → [`Reloaded`] or 422 with [`ConfigProblem`], `POST /v1/explain` (see [`crate::explain`]).

mod cluster;
mod health;
mod l2;
mod routes;

use std::net::{IpAddr, SocketAddr};

pub use cluster::{ClusterAway, ClusterRole, ClusterServices, ClusterSource, ClusterStatus};
pub use health::{BackendHealth, ChecksStatus, Event, HealthState, ProbeView, TimeMs};
pub use l2::{L2Conflict, L2Role, L2Status};
pub use routes::RoutesStatus;
use serde::{Deserialize, Serialize};

use crate::counters::{CounterValues, DropReason};
use crate::mac::MacAddress;
use crate::snapshot::{Mode, PortMapping, Protocol, Rings, ServicePort};

/// How the dataplane is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataplaneStatus {
    /// Of the program.
    pub version: String,
    /// Random at start: tells a restarted dataplane from the one before.
    pub instance: u64,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Of the snapshot that all workers forward by; `None` before the first.
    pub generation: Option<u64>,
    /// Seconds since that snapshot arrived.
    pub generation_age_s: Option<u64>,
    /// What is wrong, in words with a remedy; empty when all is well.
    pub problems: Vec<String>,
    /// Settings of the snapshot that take effect at the next restart.
    pub restart_needed: Vec<String>,
    /// NICs attached to.
    pub nics: Vec<NicStatus>,
    /// Workers, by index.
    pub workers: Vec<WorkerStatus>,
    /// Flow tables.
    pub flows: FlowTablesStatus,
    /// The way to each backend address, those of probes to no backend of a pool among them.
    pub next_hops: Vec<NextHopStatus>,
    /// How the packets of health checks fare that are sent as clients' are; `None` unless that has been asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeCounters>,
}

/// What became of the box's own packets with the mark of a probe ([`crate::snapshot::PROBE_MARK`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeCounters {
    /// Ways that are open now.
    pub ways: u64,
    /// Packets sent to a backend.
    pub delivered: u64,
    /// Packets on the probe device without such a mark, or neither IPv4 nor IPv6.
    pub dropped_no_probe: u64,
    /// Packets of a number that no probe has, or whose backend has no open way.
    pub dropped_no_way: u64,
    /// Packets larger than the way carries.
    pub dropped_too_big: u64,
}

/// One attached NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicStatus {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// Own Ethernet address.
    pub mac: MacAddress,
    /// Bytes of IP packet the link carries.
    pub mtu: u32,
    /// Carrier and administratively up.
    pub up: bool,
    /// `native` or `generic`.
    pub xdp: String,
    /// What the sockets got, read back from them.
    pub zero_copy: bool,
    /// Packets larger than one buffer, jumbo frames, pass in several. Otherwise the dataplane's log names the
    /// largest MTU that does.
    pub multi_buffer: bool,
    /// Who drives the rings of the sockets.
    #[serde(default)]
    pub rings: Rings,
    /// Queues served.
    pub queues: u32,
    /// What the XDP program counted on this NIC.
    pub xdp_packets: XdpCounters,
    /// Kernel-side losses of the sockets, summed over queues.
    pub sockets: SocketCounters,
}

/// What the XDP program did with packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpCounters {
    /// To an owned address, or an ICMP error about one of our tunnels, and handed to a worker's socket.
    pub redirected: u64,
    /// Left to the kernel.
    pub passed: u64,
    /// To an owned address, but no socket on this queue.
    pub dropped_no_socket: u64,
    /// To an owned address, but the driver gave no room for a tunnel header.
    pub dropped_no_headroom: u64,
    /// To an owned address with a group address as Ethernet source, which IEEE 802.3 forbids.
    pub dropped_bad_source_mac: u64,
}

/// `XDP_STATISTICS` of the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketCounters {
    /// Dropped by the kernel, other reasons.
    pub rx_dropped: u64,
    /// Dropped because the worker did not empty its ring in time.
    pub rx_ring_full: u64,
    /// Dropped because the kernel had no free frame.
    pub rx_fill_ring_empty: u64,
    /// Descriptors the kernel refused to transmit.
    pub tx_invalid: u64,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Moving packets or looking for some.
    Running,
    /// Asleep until a packet comes.
    Waiting,
    /// Has not gone round its loop for longer than the watchdog allows.
    Stalled,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// From 0.
    pub index: u32,
    /// Core it is pinned to, if pinning worked.
    pub core: Option<u32>,
    /// What it is doing.
    pub state: WorkerState,
    /// Generation it forwards by; `None` for the moment in which it has not seen the latest change.
    pub generation: Option<u64>,
    /// `NIC:queue` pairs it serves.
    pub queues: Vec<String>,
}

/// Both flow tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTablesStatus {
    /// IPv4.
    pub v4: FlowTableStatus,
    /// IPv6.
    pub v6: FlowTableStatus,
    /// Translated IPv4 flows, which are among `v4` too; `None` without `[nat]` sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_v4: Option<FlowTableStatus>,
    /// Translated IPv6 flows, which are among `v6` too; `None` without `[nat]` sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_v6: Option<FlowTableStatus>,
}

/// One flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTableStatus {
    /// Entries there is room for.
    pub capacity: u64,
    /// Entries in use at the last sweep.
    pub used: u64,
    /// Bytes of memory.
    pub size_bytes: u64,
    /// Bytes of it on huge pages.
    #[serde(default)]
    pub huge_page_bytes: u64,
}

/// The way to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopStatus {
    /// Of the backend.
    pub address: IpAddr,
    /// Set when packets can leave.
    pub resolved: Option<ResolvedHop>,
    /// Set when they cannot: the name of the [`crate::counters::DropReason`] they are counted under.
    pub unresolved: Option<String>,
    /// Flows at the last sweep that this backend serves.
    pub flows: u64,
}

impl NextHopStatus {
    /// The name of the [`DropReason`] that packets in this mode are counted under; `None` when they can leave.
    /// Direct routing needs a way without a gateway.
    pub fn obstacle(&self, mode: Mode) -> Option<&str> {
        match &self.resolved {
            Some(way) if mode == Mode::Dr && way.gateway.is_some() => {
                Some(DropReason::BackendNotOnLink.name())
            }
            Some(_) => None,
            None => Some(self.unresolved.as_deref().unwrap_or(DropReason::NeighborUnresolved.name())),
        }
    }
}

/// A way that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedHop {
    /// NIC packets leave by.
    pub nic: String,
    /// Identifier of the VLAN they are tagged for on that NIC; absent where they leave untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Ethernet destination.
    pub mac: MacAddress,
    /// Router on the way, if not on the same link.
    pub gateway: Option<IpAddr>,
    /// Bytes of IP packet that fit.
    pub mtu: u32,
}

/// Counters of all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// By worker index.
    pub workers: Vec<CounterValues>,
}

impl Stats {
    /// Sum over the workers.
    pub fn total(&self) -> CounterValues {
        let mut total = CounterValues::default();
        self.workers.iter().for_each(|worker| total.add(worker));
        total
    }
}

/// Which flows to list; absent fields match all. The query string of `GET /v1/flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFilter {
    /// Client address.
    pub client: Option<IpAddr>,
    /// VIP.
    pub vip: Option<IpAddr>,
    /// Service port.
    pub port: Option<u16>,
    /// Transport protocol.
    pub protocol: Option<Protocol>,
    /// Backend address.
    pub backend: Option<IpAddr>,
    /// Most flows to answer with; default 1000.
    pub limit: Option<usize>,
}

/// A walk over the flow table while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// What matched.
    pub flows: Vec<FlowView>,
    /// More matched than `limit` allowed.
    pub truncated: bool,
}

/// How many flows a filter matches; the answer to `GET /v1/flows/count?…`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    /// Flows that may go on.
    pub open: u64,
    /// TCP connections of which a FIN or RST was seen, and which are remembered a little longer.
    pub closing: u64,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// Client address.
    pub client: IpAddr,
    /// Client port.
    pub client_port: u16,
    /// VIP.
    pub vip: IpAddr,
    /// Protocol and port of the service.
    pub port: ServicePort,
    /// Address of the backend; `None` if it is gone from the configuration.
    pub backend: Option<IpAddr>,
    /// Where the backend sees the flow come from; `None` if it is not translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
    /// Name of the state, e.g. `established`.
    pub state: String,
    /// Seconds since its last packet, within a second.
    pub idle_s: u32,
    /// Seconds until it is forgotten if no packet comes.
    pub expires_s: u32,
}

/// How the control plane is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlStatus {
    /// Of the program.
    pub version: String,
    /// Seconds since start.
    pub uptime_s: u64,
    /// The configuration file.
    pub config_file: String,
    /// Why the file as it is now is not what is served; `None` when it is.
    pub config_problem: Option<ConfigProblem>,
    /// Generation the control plane wants.
    pub generation: u64,
    /// Generation the dataplane acknowledged, if it is connected.
    pub acknowledged: Option<u64>,
    /// Why the dataplane does not serve `generation`; `None` when it does.
    pub dataplane_problem: Option<String>,
    /// What else is wrong, in words with a remedy, such as a service all of whose backends are down.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Health checks; `None` if there are none.
    #[serde(default)]
    pub checks: Option<ChecksStatus>,
    /// Answering for addresses on the segments; `None` if that is not asked for.
    #[serde(default)]
    pub l2: Option<L2Status>,
    /// Routes to VIPs; `None` if they are not asked for.
    #[serde(default)]
    pub routes: Option<RoutesStatus>,
    /// Clusters whose Services are served, in the order of the file.
    #[serde(default)]
    pub clusters: Vec<ClusterStatus>,
    /// Services configured.
    pub services: usize,
    /// Distinct backend addresses configured.
    pub backends: usize,
    /// The dataplane's own status, if it is connected.
    pub dataplane: Option<DataplaneStatus>,
}

/// Why a configuration file was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{file}{}: {}{reason}", position(*line, *column), key(field))]
pub struct ConfigProblem {
    /// Path as given.
    pub file: String,
    /// From 1; 0 when the file could not be read.
    pub line: usize,
    /// From 1; 0 when the file could not be read.
    pub column: usize,
    /// Dotted path of the key, e.g. `pools.web.backends[1].weight`; `-` when there is none.
    pub field: String,
    /// What is wrong and what to write instead.
    pub reason: String,
}

fn position(line: usize, column: usize) -> String {
    if line == 0 { String::new() } else { format!(":{line}:{column}") }
}

fn key(field: &str) -> String {
    if field == "-" { String::new() } else { format!("{field}: ") }
}

/// One service on one VIP and port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Name in the configuration.
    pub name: String,
    /// Address clients use.
    pub vip: IpAddr,
    /// Protocol and port clients use, and the port of `nat` backends if it is another.
    pub port: PortMapping,
    /// Pool that serves it.
    pub pool: String,
    /// Backends with a weight above 0 and an open way that are not down.
    pub backends_usable: usize,
    /// Backends in the pool.
    pub backends_total: usize,
}

/// One backend in one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// Pool it belongs to.
    pub pool: String,
    /// Name in the configuration.
    pub name: String,
    /// Of the machine.
    pub address: IpAddr,
    /// How packets get there.
    pub mode: Mode,
    /// Share of new flows; 0 drains.
    pub weight: u16,
    /// `reachable`, `draining`, `down` (its checks fail), `unknown` (dataplane not connected) or the drop reason its
    /// packets are counted under.
    pub state: String,
    /// What its checks say; `None` if its pool has none.
    #[serde(default)]
    pub health: Option<BackendHealth>,
    /// The way there, if open.
    pub next_hop: Option<ResolvedHop>,
    /// Flows at the last sweep, over all pools.
    pub flows: u64,
}

/// Which backends to drain, or to drain no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// Name or address.
    pub backend: String,
    /// Only in this pool; `None`: in each that has it.
    pub pool: Option<String>,
    /// Whether they take no new flows from now on, or do so again.
    pub drained: bool,
}

/// The file was read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Generation now wanted.
    pub generation: u64,
    /// Whether anything differs from what was served before.
    pub changed: bool,
    /// Generation the dataplane acknowledged within two seconds, if it did.
    pub acknowledged: Option<u64>,
    /// Settings that take effect when the dataplane restarts.
    pub restart_needed: Vec<String>,
}
