//! The tables `[[service]]`.

use ipnet::IpNet;

use super::consistency::{Listeners, Listening, Pools, Unique, distinct};
use super::document::{Table, Value};
use super::nat::Section;
use super::{SERVICES_MAX, SOURCE_RANGES_MAX, Service, WhenAllDown, at_most, check, or_default, value};
use crate::snapshot::UnlistedPorts;
use crate::status::ConfigProblem;

/// Seconds of `affinity = "client_ip"`: as long as Kubernetes keeps `ClientIP` by default.
const CLIENT_IP_AFFINITY_S: u32 = 10_800;

/// All services of a file.
#[derive(Default)]
pub struct Services {
    /// In the order of the file.
    pub services: Vec<Service>,
    /// What is allowed in them but hardly meant.
    pub warnings: Vec<ConfigProblem>,
}

/// Reads every service, and holds it against the others, its pool and `[nat]`.
pub fn read(root: &Table<'_>, pools: &mut Pools<'_>, nat: &Section<'_>) -> Result<Services, ConfigProblem> {
    let example = "[[service]] with two brackets, and name, vip, ports and pool below";
    let mut read = Services::default();
    let mut listeners = Listeners::default();
    if let Some(array) = root.optional("service") {
        let elements = at_most(&array, array.elements(example)?, SERVICES_MAX, "services")?;
        let mut names = Unique::default();
        for element in &elements {
            let table = element.table(example)?;
            read.add(&table, &mut names, &mut listeners, pools, nat)?;
        }
    }
    pools.refuse_vips(&listeners)?;
    nat.refuse_taken_sources(&listeners, pools)?;
    Ok(read)
}

impl Services {
    fn add<'d>(
        &mut self,
        table: &Table<'d>,
        names: &mut Unique<'d, String>,
        listeners: &mut Listeners,
        pools: &mut Pools<'_>,
        nat: &Section<'_>,
    ) -> Result<(), ConfigProblem> {
        table.allow_only(&[
            "name",
            "vip",
            "ports",
            "pool",
            "affinity",
            "source_ranges",
            "unlisted_ports",
            "when_all_down",
        ])?;
        let name_value = table.required("name", "\"web\"")?;
        let name = names.insert(value::name(&name_value)?, &name_value, "a service")?;
        let listening = listening(table, name)?;
        listeners.insert(&listening)?;
        let pool = pools.used(&table.required("pool", "\"web\"")?)?;
        nat.refuse_misfit(&listening, pools.at(pool))?;
        let ranges = table.optional("source_ranges");
        let source_ranges = ranges.as_ref().map_or(Ok(Vec::new()), source_ranges)?;
        if let Some(ranges) = ranges {
            self.warnings.extend(unreachable(&listening, &source_ranges, &ranges));
        }
        self.services.push(Service {
            pool,
            source_ranges,
            client_ip_affinity_s: table.optional("affinity").as_ref().map(affinity_s).transpose()?,
            name: listening.service,
            vips: listening.vips.into_iter().map(|(vip, _)| vip).collect(),
            ports: listening.ports.into_iter().map(|(port, _)| port).collect(),
            unlisted_ports: listening.unlisted_ports,
            when_all_down: or_default(table, "when_all_down", WhenAllDown::default(), check::when_all_down)?,
        });
        Ok(())
    }
}

fn listening<'d>(table: &Table<'d>, service: String) -> Result<Listening<'d>, ConfigProblem> {
    let (vip, port) = ("[\"203.0.113.10\"]", "[\"tcp/80\"]");
    let vips = table.required("vip", vip)?.one_or_more(vip)?;
    let ports = table.required("ports", port)?.one_or_more(port)?;
    let words = [("reject", UnlistedPorts::Reject), ("drop", UnlistedPorts::Drop)];
    Ok(Listening {
        service,
        vips: distinct(vips, value::address, |vip| *vip)?,
        // One port cannot have two targets.
        ports: distinct(ports, value::port_mapping, |mapping| mapping.port)?,
        unlisted_ports: or_default(table, "unlisted_ports", UnlistedPorts::default(), |value| {
            value.one_of(&words)
        })?,
        unlisted_ports_value: table.optional("unlisted_ports"),
    })
}

/// For how many seconds a client keeps its backend.
fn affinity_s(value: &Value<'_>) -> Result<u32, ConfigProblem> {
    let example = "{ client_ip = \"3h\" }";
    match value.text() {
        Some("client_ip") => Ok(CLIENT_IP_AFFINITY_S),
        Some(text) => {
            let text = text.escape_debug();
            Err(value.problem(format!("`{text}` is not known here; write \"client_ip\" or {example}")))
        }
        None => {
            let table = value.table(example)?;
            table.allow_only(&["client_ip"])?;
            value::timeout_s(&table.required("client_ip", "\"3h\"")?)
        }
    }
}

fn source_ranges(list: &Value<'_>) -> Result<Vec<IpNet>, ConfigProblem> {
    let elements = list.one_or_more("[\"192.0.2.0/24\"], or remove the key to allow all")?;
    let elements = at_most(list, elements, SOURCE_RANGES_MAX, "prefixes")?;
    let ranges = distinct(elements, value::source_range, |range| *range)?;
    Ok(ranges.into_iter().map(|(range, _)| range).collect())
}

/// A warning for each family in which there are VIPs but no client may come: `list` holds the ranges.
fn unreachable(listening: &Listening<'_>, ranges: &[IpNet], list: &Value<'_>) -> Vec<ConfigProblem> {
    let warning = |v4: bool| {
        let (vip, _) = listening.vips.iter().find(|(vip, _)| vip.is_ipv4() == v4)?;
        if ranges.iter().any(|range| range.addr().is_ipv4() == v4) {
            return None;
        }
        let (family, all) = if v4 { ("IPv4", "0.0.0.0/0") } else { ("IPv6", "::/0") };
        Some(list.problem(format!(
            "no {family} client can reach {vip}, because no range is {family}; add one, or \"{all}\" for all"
        )))
    };
    [true, false].into_iter().filter_map(warning).collect()
}
