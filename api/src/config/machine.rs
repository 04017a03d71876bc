//! The sections about this box: its NICs, workers, idle times and tunnels.

use super::consistency::{Unique, distinct};
use super::document::{Table, Value};
use super::{
    BATCH, CORES, MAGLEV_SIZE, MAX_FLOWS, NICS_MAX, QUEUES, REPLY_RATE, RING_SIZE, at_most, or_default, value,
};
use crate::snapshot::{DataplaneSettings, Nic, Rings, Timeouts, Tunnel, XdpMode, ZeroCopy};
use crate::status::ConfigProblem;

/// The section `[dataplane]`.
pub struct Dataplane {
    /// What takes effect when the dataplane restarts.
    pub settings: DataplaneSettings,
    /// Slots of every Maglev table.
    pub maglev_size: u32,
    /// Most answers of each kind that a worker gives per second.
    pub reply_rate: u32,
}

/// The NICs; a file with services must have one.
pub fn nics(root: &Table<'_>) -> Result<Vec<Nic>, ConfigProblem> {
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

/// Reads the section `[dataplane]`.
pub fn dataplane(root: &Table<'_>) -> Result<Dataplane, ConfigProblem> {
    let mut settings = DataplaneSettings::default();
    let (mut maglev_size, mut reply_rate) = (65_537, 1_000);
    let Some(section) = root.optional("dataplane") else {
        return Ok(Dataplane { settings, maglev_size, reply_rate });
    };
    let table = section.table("[dataplane]")?;
    table.allow_only(&[
        "cores",
        "busy_poll",
        "batch",
        "ring_size",
        "rings",
        "max_flows_v4",
        "max_flows_v6",
        "maglev_size",
        "reply_rate",
    ])?;
    if let Some(value) = table.optional("cores") {
        settings.cores = cores(&value)?;
    }
    let flows = |value: &Value<'_>| value.integer(MAX_FLOWS);
    settings.busy_poll = or_default(&table, "busy_poll", settings.busy_poll, Value::boolean)?;
    settings.batch = or_default(&table, "batch", settings.batch, |value| value.integer(BATCH))?;
    settings.ring_size =
        or_default(&table, "ring_size", settings.ring_size, |value| value::power_of_two(value, RING_SIZE))?;
    let rings = [("own", Rings::Own), ("xsk-rs", Rings::XskRs)];
    settings.rings = or_default(&table, "rings", settings.rings, |value| value.one_of(&rings))?;
    settings.max_flows_v4 = or_default(&table, "max_flows_v4", settings.max_flows_v4, flows)?;
    settings.max_flows_v6 = or_default(&table, "max_flows_v6", settings.max_flows_v6, flows)?;
    maglev_size = or_default(&table, "maglev_size", maglev_size, |value| value::prime(value, MAGLEV_SIZE))?;
    reply_rate = or_default(&table, "reply_rate", reply_rate, |value| value.integer(REPLY_RATE))?;
    Ok(Dataplane { settings, maglev_size, reply_rate })
}

fn cores(array: &Value<'_>) -> Result<Vec<u32>, ConfigProblem> {
    let elements = array.elements("an array such as [1, 2]")?;
    let cores = distinct(elements, |value| value.integer(CORES), |core| *core)?;
    Ok(cores.into_iter().map(|(core, _)| core).collect())
}

/// Reads the section `[timeouts]`.
pub fn timeouts(root: &Table<'_>) -> Result<Timeouts, ConfigProblem> {
    let mut timeouts = Timeouts::default();
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

/// Reads the section `[tunnel]`.
pub fn tunnel(root: &Table<'_>) -> Result<Tunnel, ConfigProblem> {
    let Some(section) = root.optional("tunnel") else { return Ok(Tunnel::default()) };
    let table = section.table("[tunnel]")?;
    table.allow_only(&["source_v4", "source_v6", "fragment"])?;
    Ok(Tunnel {
        source_v4: table.optional("source_v4").as_ref().map(value::prefix_v4).transpose()?,
        source_v6: table.optional("source_v6").as_ref().map(value::prefix_v6).transpose()?,
        fragment: or_default(&table, "fragment", false, Value::boolean)?,
    })
}
