//! The configuration a person writes: one TOML file, read into a [`Config`].
//!
//! Parsing is validating: whatever [`Config::parse`] returns is complete and consistent, and there is no
//! second step to forget. What is wrong comes back as a [`ConfigProblem`] with file, line, column, key and
//! a sentence that says what to write instead. Nothing here touches a NIC or a socket, and the secret that
//! [`Config::fleet_key_file`] names is read apart ([`KeyFile::read`]).
//!
//! `deploy/config/shunt.toml` shows every key.

mod consistency;
mod document;
mod key_file;
mod value;

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use consistency::{Listeners, Pools, Unique};
use document::{Source, Table, Value};
pub use key_file::{KeyFile, read_fleet_key};

use crate::snapshot::{DataplaneSettings, Mode, Nic, ServicePort, Timeouts, TunnelSource, XdpMode, ZeroCopy};
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
/// Weight of a backend: two backends may differ by this factor.
pub const WEIGHT: RangeInclusive<u32> = 0..=1_000;

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
    /// Outer source addresses of tunnels.
    pub tunnel: TunnelSource,
    /// Sets of backends, in the order of the file.
    pub pools: Vec<Pool>,
    /// What clients can reach, in the order of the file.
    pub services: Vec<Service>,
    warnings: Vec<ConfigProblem>,
}

/// A named set of backends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pool {
    /// Unique among pools.
    pub name: String,
    /// In the order of the file; may be empty.
    pub backends: Vec<Backend>,
}

/// One backend of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// Unique among services.
    pub name: String,
    /// At least one. No two services share a VIP on the same port.
    pub vips: Vec<IpAddr>,
    /// At least one.
    pub ports: Vec<ServicePort>,
    /// Index into [`Config::pools`].
    pub pool: usize,
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
        root.allow_only(&["fleet_key_file", "nic", "dataplane", "timeouts", "tunnel", "pools", "service"])?;
        let (dataplane, maglev_size) = dataplane(&root)?;
        let mut pools = Pools::default();
        read_pools(&root, &mut pools)?;
        let services = services(&root, &mut pools)?;
        let tunnel = tunnel(&root)?;
        let warnings = pools.warnings(&tunnel);
        Ok(Self {
            fleet_key_file: fleet_key_file(&root, file)?,
            nics: nics(&root)?,
            dataplane,
            maglev_size,
            timeouts: timeouts(&root)?,
            tunnel,
            pools: pools.into_pools(),
            services,
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
    Ok(Some(KeyFile::new(value::path(&value, file)?, value.problem(""))))
}

fn nics(root: &Table<'_>) -> Result<Vec<Nic>, ConfigProblem> {
    let example = "[[nic]] with two brackets, and name = \"eth1\" below";
    let Some(array) = root.optional("nic") else {
        return match root.optional("service") {
            Some(service) => {
                Err(service.problem(format!("services need a NIC to receive on; add {example}")))
            }
            None => Ok(Vec::new()),
        };
    };
    let elements = at_most(&array, array.elements(example)?, NICS_MAX, "NICs")?;
    let mut names = Unique::default();
    elements.iter().map(|element| nic(&element.table(example)?, &mut names)).collect()
}

fn nic<'d>(table: &Table<'d>, names: &mut Unique<'d, String>) -> Result<Nic, ConfigProblem> {
    table.allow_only(&["name", "queues", "xdp", "zero_copy"])?;
    let name = table.required("name", "\"eth1\"")?;
    let xdp = [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];
    let zero_copy = [("auto", ZeroCopy::Auto), ("on", ZeroCopy::On), ("off", ZeroCopy::Off)];
    Ok(Nic {
        name: names.insert(value::nic_name(&name)?, &name, "a NIC")?,
        queues: table.optional("queues").map(|value| value.integer(QUEUES)).transpose()?,
        xdp: or_default(table, "xdp", XdpMode::Auto, |value| value.one_of(&xdp))?,
        zero_copy: or_default(table, "zero_copy", ZeroCopy::Auto, |value| value.one_of(&zero_copy))?,
    })
}

/// The section `[dataplane]`: settings, and slots of the Maglev tables.
fn dataplane(root: &Table<'_>) -> Result<(DataplaneSettings, u32), ConfigProblem> {
    let mut settings = DataplaneSettings {
        cores: Vec::new(),
        busy_poll: false,
        batch: 64,
        ring_size: 2_048,
        max_flows_v4: 1_000_000,
        max_flows_v6: 250_000,
    };
    let Some(section) = root.optional("dataplane") else { return Ok((settings, 65_537)) };
    let table = section.table("[dataplane]")?;
    table.allow_only(&[
        "cores",
        "busy_poll",
        "batch",
        "ring_size",
        "max_flows_v4",
        "max_flows_v6",
        "maglev_size",
    ])?;
    if let Some(value) = table.optional("cores") {
        settings.cores = cores(&value)?;
    }
    let flows = |value: &Value<'_>| value.integer(MAX_FLOWS);
    settings.busy_poll = or_default(&table, "busy_poll", settings.busy_poll, Value::boolean)?;
    settings.batch = or_default(&table, "batch", settings.batch, |value| value.integer(BATCH))?;
    settings.ring_size =
        or_default(&table, "ring_size", settings.ring_size, |value| value::power_of_two(value, RING_SIZE))?;
    settings.max_flows_v4 = or_default(&table, "max_flows_v4", settings.max_flows_v4, flows)?;
    settings.max_flows_v6 = or_default(&table, "max_flows_v6", settings.max_flows_v6, flows)?;
    let slots = or_default(&table, "maglev_size", 65_537, |value| value::prime(value, MAGLEV_SIZE))?;
    Ok((settings, slots))
}

fn cores(array: &Value<'_>) -> Result<Vec<u32>, ConfigProblem> {
    let mut unique = Unique::default();
    let core = |value: &Value<'_>| value.integer(CORES);
    array
        .elements("an array such as [1, 2]")?
        .iter()
        .map(|value| unique.insert(core(value)?, value, "in this list"))
        .collect()
}

fn timeouts(root: &Table<'_>) -> Result<Timeouts, ConfigProblem> {
    let mut timeouts =
        Timeouts { unconfirmed_s: 30, tcp_established_s: 900, tcp_fin_s: 120, tcp_reset_s: 10, udp_s: 300 };
    let Some(section) = root.optional("timeouts") else { return Ok(timeouts) };
    let table = section.table("[timeouts]")?;
    let mut settings = [
        ("unconfirmed", &mut timeouts.unconfirmed_s),
        ("tcp_established", &mut timeouts.tcp_established_s),
        ("tcp_fin", &mut timeouts.tcp_fin_s),
        ("tcp_reset", &mut timeouts.tcp_reset_s),
        ("udp", &mut timeouts.udp_s),
    ];
    table.allow_only(&settings.each_ref().map(|(key, _)| *key))?;
    for (key, seconds) in &mut settings {
        **seconds = or_default(&table, key, **seconds, value::timeout_s)?;
    }
    Ok(timeouts)
}

fn tunnel(root: &Table<'_>) -> Result<TunnelSource, ConfigProblem> {
    let Some(section) = root.optional("tunnel") else { return Ok(TunnelSource::default()) };
    let table = section.table("[tunnel]")?;
    table.allow_only(&["source_v4", "source_v6"])?;
    Ok(TunnelSource {
        v4: table.optional("source_v4").as_ref().map(value::prefix_v4).transpose()?,
        v6: table.optional("source_v6").as_ref().map(value::prefix_v6).transpose()?,
    })
}

fn read_pools<'d>(root: &Table<'d>, pools: &mut Pools<'d>) -> Result<(), ConfigProblem> {
    let example = "[pools.web] with backends = [{ name = \"web1\", address = \"10.0.1.11\" }]";
    let Some(section) = root.optional("pools") else { return Ok(()) };
    let entries = section.table(example)?.entries();
    if entries.len() > POOLS_MAX {
        let (key, _) = &entries[POOLS_MAX];
        return Err(key.problem(format!("this is one pool too many; keep at most {POOLS_MAX}")));
    }
    for (key, value) in &entries {
        let name = value::key_name(key)?;
        let table = value.table(example)?;
        table.allow_only(&["mode", "backends"])?;
        let mode = or_default(&table, "mode", Mode::default(), value::mode)?;
        let list = table.optional("backends");
        let backends = list.as_ref().map_or(Ok(Vec::new()), |list| backends(list, mode))?;
        pools.insert(name, list.unwrap_or_else(|| value.clone()), backends);
    }
    Ok(())
}

/// The backends of a pool, each with the value that holds its address.
fn backends<'d>(list: &Value<'d>, mode: Mode) -> Result<Vec<(Backend, Value<'d>)>, ConfigProblem> {
    let example = "{ name = \"web1\", address = \"10.0.1.11\" }";
    let elements = at_most(list, list.elements(&format!("[{example}]"))?, BACKENDS_MAX, "backends")?;
    let (mut names, mut addresses) = (Unique::default(), Unique::default());
    let backend = |element: &Value<'d>| {
        let table = element.table(example)?;
        table.allow_only(&["name", "address", "weight", "mode"])?;
        let name = table.required("name", "\"web1\"")?;
        let address = table.required("address", "\"10.0.1.11\"")?;
        let backend = Backend {
            name: names.insert(value::name(&name)?, &name, "a backend of this pool")?,
            address: addresses.insert(value::address(&address)?, &address, "a backend of this pool")?,
            weight: or_default(&table, "weight", 1, weight)?,
            mode: or_default(&table, "mode", mode, value::mode)?,
        };
        Ok((backend, address))
    };
    elements.iter().map(backend).collect()
}

fn weight(value: &Value<'_>) -> Result<u16, ConfigProblem> {
    Ok(u16::try_from(value.integer(WEIGHT)?).expect("the range fits"))
}

fn services(root: &Table<'_>, pools: &mut Pools<'_>) -> Result<Vec<Service>, ConfigProblem> {
    let example = "[[service]] with two brackets, and name, vip, ports and pool below";
    let Some(array) = root.optional("service") else { return Ok(Vec::new()) };
    let elements = at_most(&array, array.elements(example)?, SERVICES_MAX, "services")?;
    let mut names = Unique::default();
    let mut listeners = Listeners::default();
    let mut services = Vec::with_capacity(elements.len());
    for element in &elements {
        let table = element.table(example)?;
        table.allow_only(&["name", "vip", "ports", "pool"])?;
        let name_value = table.required("name", "\"web\"")?;
        let name = names.insert(value::name(&name_value)?, &name_value, "a service")?;
        let vips = list(&table, "vip", "\"203.0.113.10\"", value::address)?;
        let ports = list(&table, "ports", "\"tcp/80\"", value::service_port)?;
        listeners.insert(&name, &vips, &ports)?;
        services.push(Service {
            name,
            vips: vips.into_iter().map(|(vip, _)| vip).collect(),
            ports: ports.into_iter().map(|(port, _)| port).collect(),
            pool: pools.used(&table.required("pool", "\"web\"")?)?,
        });
    }
    pools.refuse_vips(&listeners)?;
    Ok(services)
}

/// A required list without repetition, each element with its value; one element may stand without brackets.
fn list<'d, T: Clone + Eq + std::hash::Hash + std::fmt::Display>(
    table: &Table<'d>,
    key: &str,
    example: &str,
    read: impl Fn(&Value<'d>) -> Result<T, ConfigProblem>,
) -> Result<Vec<(T, Value<'d>)>, ConfigProblem> {
    let elements = table.required(key, &format!("[{example}]"))?.one_or_more(&format!("[{example}]"))?;
    let mut unique = Unique::default();
    let element = |value: Value<'d>| Ok((unique.insert(read(&value)?, &value, "in this list")?, value));
    elements.into_iter().map(element).collect()
}

fn or_default<'d, T>(
    table: &Table<'d>,
    key: &str,
    default: T,
    read: impl Fn(&Value<'d>) -> Result<T, ConfigProblem>,
) -> Result<T, ConfigProblem> {
    table.optional(key).map_or(Ok(default), |value| read(&value))
}

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
