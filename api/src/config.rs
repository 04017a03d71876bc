//! The configuration a person writes: one TOML file, read into a [`Config`].
//!
//! Parsing is validating: whatever [`Config::parse`] returns is complete and consistent, and there is no
//! second step to forget. What is wrong comes back as a [`ConfigProblem`] with file, line, column, key and
//! a sentence that says what to write instead. Nothing here touches a NIC or a socket, and the secret that
//! [`Config::fleet_key_file`] names is read apart ([`KeyFile::read`]).
//!
//! `deploy/config/shunt.toml` shows every key.

mod announce;
mod check;
mod consistency;
pub mod document;
mod extend;
mod key_file;
mod kubernetes;
mod machine;
pub mod manifest;
mod nat;
mod pool;
mod service;
mod taken;
mod value;

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

pub use announce::{Announce, AnnounceL2, AnnounceRoutes, Election, OnStop};
pub use check::{Check, CheckKind, Checked, HttpCheck, OnDown, Target, Targets, Tls, Via, WhenAllDown};
use document::{Source, Table, Value};
pub use extend::{LeftOut, Part};
use ipnet::IpNet;
pub use key_file::{KeyFile, read_fleet_key};
pub use kubernetes::{IpMode, Kubernetes, Lease};
use machine::Dataplane;
use serde::{Deserialize, Serialize};
pub use taken::Taken;

use crate::snapshot::{DataplaneSettings, Mode, Nat, Nic, PortMapping, Timeouts, Tunnel, UnlistedPorts};
use crate::status::ConfigProblem;

/// Largest file read: ten times what every limit below needs in practice, and small enough for memory.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most services: each costs every operator's table a row and the dataplane an entry per VIP and port.
pub const SERVICES_MAX: usize = 10_000;
/// Most pools: each may cost the dataplane a Maglev table of its own.
pub const POOLS_MAX: usize = 4_096;
/// Most backends of a pool: fewer than the default Maglev table has slots, so that each can get one.
pub const BACKENDS_MAX: usize = 65_000;
/// Most NICs: more than a server has slots for.
pub const NICS_MAX: usize = 32;
/// Queues of a NIC: more than this and workers outnumber a server's cores. The XDP program serves up to 256.
pub const QUEUES: RangeInclusive<u32> = 1..=64;
/// Core numbers: what `cpu_set_t` of the C library can name.
pub const CORES: RangeInclusive<u32> = 0..=1_023;
/// Frames per batch: what the workers' scratch space is sized for.
pub const BATCH: RangeInclusive<u32> = 1..=64;
/// Ring entries: at least a batch; beyond this a ring only adds delay.
pub const RING_SIZE: RangeInclusive<u32> = 64..=65_536;
/// Flows per family: below, a table is of no use; above, it would take more memory than such a box has.
pub const MAX_FLOWS: RangeInclusive<u32> = 1_000..=100_000_000;
/// Slots of a Maglev table; both ends are primes.
pub const MAGLEV_SIZE: RangeInclusive<u32> = 251..=655_373;
/// Answers of each kind per second and worker: a worker that gives more does hardly anything else.
pub const REPLY_RATE: RangeInclusive<u32> = 0..=1_000_000;
/// Most addresses that translated flows come from: each carries tens of thousands of flows to every backend port.
pub const NAT_SOURCES_MAX: usize = 256;
/// Weight of a backend: two backends may differ by this factor.
pub const WEIGHT: RangeInclusive<u32> = 0..=1_000;
/// Most source ranges of a service: enough for what a cloud publishes, and each costs the dataplane an entry.
pub const SOURCE_RANGES_MAX: usize = 10_000;
/// Most probes, over all pools: at the usual interval half as many per second, each with a socket of its own.
pub const PROBES_MAX: usize = 50_000;
/// Interval of a check: more often a probe costs a backend more than a client; after an hour a check tells nothing.
pub const CHECK_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
/// Timeout of a check: from what a busy machine on the same segment needs to when clients have long given up.
pub const CHECK_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
/// `rise` and `fall`: beyond this a verdict takes minutes at the usual interval.
pub const CHECK_COUNT: RangeInclusive<u32> = 1..=100;
/// Bytes sent and expected by a UDP check: what fits a packet on Ethernet, in a tunnel over IPv6 as well.
pub const CHECK_PAYLOAD_MAX: usize = 1_400;
/// Characters of an HTTP check's path: with its header, the request fits a packet.
pub const CHECK_PATH_MAX: usize = 1_000;
/// Bytes of text that an HTTP check looks for: of the little of an answer that is read.
pub const CHECK_TEXT_MAX: usize = 1_000;
/// Status codes of HTTP (RFC 9110, section 15).
pub const HTTP_STATUS: RangeInclusive<u32> = 100..=599;
/// Ports.
pub const PORT: RangeInclusive<u32> = 1..=65_535;
/// How long a backend's share may grow: from one step of the ramp to longer than caches take to fill.
pub const SLOW_START: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// Between unsolicited announcements of an address: more often is a flood, more seldom is after everyone forgot.
pub const ANNOUNCE_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// Priority in an election (RFC 5798, section 5.2.4): 255 is for the owner of an address, 0 for one that resigns.
pub const VRRP_PRIORITY: RangeInclusive<u32> = 1..=254;
/// Virtual router identifiers (RFC 5798, section 5.2.3).
pub const VRRP_GROUP: RangeInclusive<u32> = 1..=255;
/// Between advertisements: from what a busy box keeps up with to the field's end, 4095 hundredths of a second.
pub const ADVERTISE_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_millis(40_950);
/// Routing tables: 0 stands for none.
pub const ROUTE_TABLE: RangeInclusive<u32> = 1..=u32::MAX;
/// Values of `rtm_protocol`.
pub const ROUTE_PROTOCOL: RangeInclusive<u32> = 1..=255;
/// How long a stop may wait: systemd kills a service that takes longer than a minute and a half.
pub const WITHDRAW_DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
/// Most clusters: each is watched over connections of its own, by a box that has other things to do.
pub const CLUSTERS_MAX: usize = 16;
/// Most pools of addresses of a cluster: a pool for each team and purpose of a large one.
pub const ADDRESS_POOLS_MAX: usize = 1_000;
/// Most ranges of such a pool: as many as a provider hands out bit by bit.
pub const POOL_RANGES_MAX: usize = 1_000;
/// Most namespaces that such a pool names; a selector has no such limit.
pub const POOL_NAMESPACES_MAX: usize = 1_000;
/// Most ranges of a pool that a cluster defines: what the API server can check by the rules of its schema.
pub const MANIFEST_POOL_RANGES_MAX: usize = 100;
/// Most namespaces that such a pool names, for the same reason.
pub const MANIFEST_POOL_NAMESPACES_MAX: usize = 100;
/// Priority of such a pool.
pub const POOL_PRIORITY: RangeInclusive<u32> = 0..=10_000;

/// Whether a Maglev table can have so many slots.
pub fn is_maglev_size(size: u32) -> bool {
    MAGLEV_SIZE.contains(&size) && value::is_prime(size)
}

/// A valid configuration. Only [`Config::parse`] and [`Config::load`] make one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where the fleet key is; `None` lets the control plane keep one of its own.
    pub fleet_key_file: Option<KeyFile>,
    /// NICs to serve.
    pub nics: Vec<Nic>,
    /// Workers, rings and table sizes.
    pub dataplane: DataplaneSettings,
    /// Slots of every Maglev table.
    pub maglev_size: u32,
    /// Idle times of flows.
    pub timeouts: Timeouts,
    /// How tunnels are made.
    pub tunnel: Tunnel,
    /// Where translated flows come from: no VIP, and no backend.
    pub nat: Nat,
    /// Most answers of each kind that a worker gives per second; 0 gives none.
    pub reply_rate: u32,
    /// How VIPs become reachable.
    pub announce: Announce,
    /// Sets of backends, in the order of the file.
    pub pools: Vec<Pool>,
    /// What clients can reach, in the order of the file.
    pub services: Vec<Service>,
    /// Clusters whose Services are served too, in the order of the file.
    pub kubernetes: Vec<Kubernetes>,
    warnings: Vec<ConfigProblem>,
}

/// A named set of backends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pool {
    /// Unique among pools.
    pub name: String,
    /// In the order of the file; may be empty.
    pub backends: Vec<Backend>,
    /// How backends are found to be up; `None` takes them to be.
    pub check: Option<Check>,
    /// What becomes of the flows of a backend that goes down.
    pub on_down: OnDown,
    /// For how long the share of a backend that came up grows; `None`: it is whole at once.
    pub slow_start: Option<Duration>,
}

/// One backend of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Backend {
    /// Unique in its pool.
    pub name: String,
    /// Unique in its pool, and never a VIP.
    pub address: IpAddr,
    /// Share of new flows relative to the pool's sum, 0…1000; 0 drains.
    pub weight: u16,
    /// Its own mode or the pool's.
    pub mode: Mode,
}

/// What clients can reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Service {
    /// Unique among services.
    pub name: String,
    /// At least one. No two services share a VIP on the same port.
    pub vips: Vec<IpAddr>,
    /// At least one. Only services whose backends are all of mode `nat` have targets.
    pub ports: Vec<PortMapping>,
    /// Index into [`Config::pools`].
    pub pool: usize,
    /// Prefixes that clients may come from; empty allows all.
    pub source_ranges: Vec<IpNet>,
    /// Seconds for which a client keeps its backend; `None` balances each connection alone.
    pub client_ip_affinity_s: Option<u32>,
    /// What packets to other ports of the VIPs get. Services that share a VIP agree on it.
    pub unlisted_ports: UnlistedPorts,
    /// What becomes of new flows when all backends are down.
    pub when_all_down: WhenAllDown,
}

impl Config {
    /// Reads and parses a file.
    pub fn load(path: &Path) -> Result<Self, ConfigProblem> {
        let file = path.display().to_string();
        Self::parse(&read_text(path)?, &file)
    }

    /// Parses the text of a file; `file` names it in problems, and relative paths start at its directory.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigProblem> {
        let source = Source::new(text, file);
        let document = source.parse()?;
        let root = source.root(&document);
        if root.is_empty() {
            let reason = "the file is empty; write at least [[nic]], [pools.NAME] and [[service]]";
            return Err(root.problem(reason));
        }
        root.allow_only(&[
            "fleet_key_file",
            "nic",
            "dataplane",
            "timeouts",
            "tunnel",
            "nat",
            "announce",
            "pools",
            "service",
            "kubernetes",
        ])?;
        let Dataplane { settings, maglev_size, reply_rate } = machine::dataplane(&root)?;
        let nat = nat::read(&root)?;
        let mut pools = pool::read(&root)?;
        let service::Services { services, mut warnings } = service::read(&root, &mut pools, &nat)?;
        let tunnel = machine::tunnel(&root)?;
        warnings.extend(pools.warnings(&tunnel));
        let others = kubernetes::Others { services: &services, pools: &pools, nat: &nat };
        let kubernetes = kubernetes::read(&root, file, &others)?;
        warnings.extend(nat.warning(&pools).filter(|_| kubernetes.is_empty()));
        warnings.extend(check::hold(&pools, &services)?);
        warnings.sort_by_key(|warning| (warning.line, warning.column));
        Ok(Self {
            fleet_key_file: fleet_key_file(&root, file)?,
            nics: machine::nics(&root)?,
            dataplane: settings,
            maglev_size,
            timeouts: machine::timeouts(&root)?,
            tunnel,
            nat: nat.into_nat(),
            reply_rate,
            announce: announce::read(&root)?,
            pools: pools.into_pools(),
            services,
            kubernetes,
            warnings,
        })
    }

    /// What is allowed but hardly meant, such as a pool whose weights are all 0; in the order of the file.
    pub fn warnings(&self) -> &[ConfigProblem] {
        &self.warnings
    }
}

/// Reads the text of a configuration file; the problem is one of the file as a whole, or the place of the
/// first byte that is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, ConfigProblem> {
    let file = path.display().to_string();
    let whole =
        |reason: String| ConfigProblem { file: file.clone(), line: 0, column: 0, field: "-".into(), reason };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        whole(match error.kind() {
            io::ErrorKind::NotFound => "the file does not exist; create it or name another one".into(),
            io::ErrorKind::IsADirectory => "this is a directory; name a file in it".into(),
            _ => format!("the file cannot be read: {error}; make it readable for this user"),
        })
    })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(whole(format!(
            "the file is larger than {} MiB; is it the right one?",
            FILE_BYTES_MAX >> 20
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
        Source::new(&text, &file).problem(good, "", "this byte is not UTF-8; save the file as UTF-8")
    })
}

fn fleet_key_file(root: &Table<'_>, file: &str) -> Result<Option<KeyFile>, ConfigProblem> {
    let Some(value) = root.optional("fleet_key_file") else { return Ok(None) };
    Ok(Some(KeyFile::new(value::path(&value, file, "\"/etc/shunt/fleet.key\"")?, value.problem(""))))
}

/// The value of a key that may be left out.
fn or_default<'d, T>(
    table: &Table<'d>,
    key: &str,
    default: T,
    read: impl Fn(&Value<'d>) -> Result<T, ConfigProblem>,
) -> Result<T, ConfigProblem> {
    table.optional(key).map_or(Ok(default), |value| read(&value))
}

/// The elements of an array, unless they are more than so many.
fn at_most<'d>(
    array: &Value<'d>,
    elements: Vec<Value<'d>>,
    limit: usize,
    what: &str,
) -> Result<Vec<Value<'d>>, ConfigProblem> {
    if elements.len() <= limit {
        return Ok(elements);
    }
    Err(array.problem(format!("these are {} {what}; keep at most {limit}", elements.len())))
}

#[cfg(test)]
mod tests;
