//! What a person wants: the file `nic.toml`. Every key is optional but an interface's name; what is not
//! written is left as it is or follows the driver's profile.
//!
//! The file is this program's own, apart from the control plane's: neither reads the other's, so there are no
//! keys that one knows and the other refuses.

mod keys;

use std::collections::BTreeSet;

use ipnet::IpNet;
use shunt_api::config::document::{Key, Source, Table, Value as Written, hint};
use shunt_api::status::ConfigProblem;

use self::keys::{KEYS, Kind};
use crate::ethtool::rss;
use crate::ethtool::rules::{Protocol, Rule};
use crate::setting::{Item, Setting, Value};

/// Everything that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Of interfaces, in the order of the file.
    pub nics: Vec<DesiredNic>,
    /// Of the host.
    pub host: DesiredHost,
}

impl Desired {
    /// Names of all kernel parameters that are wanted.
    pub fn sysctls(&self) -> Vec<String> {
        let name = |wish: &Wish| match &wish.setting.item {
            Item::Sysctl(name) => Some(name.clone()),
            _ => None,
        };
        self.host.wishes.iter().filter_map(name).collect()
    }
}

/// What is wanted of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredNic {
    /// Its name.
    pub name: String,
    /// Where the file says so.
    pub line: usize,
    /// Queues that receive.
    pub queues: Option<Want<u32>>,
    /// Queues that share what no rule steers.
    pub spread: Option<Want<u32>>,
    /// Both directions of a flow to one queue.
    pub symmetric: Option<Want<bool>>,
    /// CPUs that serve the queues' interrupts, in turn.
    pub irq_cpus: Option<Want<Vec<u32>>>,
    /// Rules by destination.
    pub steer: Vec<Want<Rule>>,
    /// NAPI settings go to each polling context rather than to the device.
    pub napi_each: bool,
    /// What is said by keys that set one thing. A key may name more than the NIC has.
    pub wishes: Vec<Wish>,
}

/// What is wanted of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredHost {
    /// How all CPUs choose their frequency.
    pub governor: Option<Want<String>>,
    /// CPUs that the scheduler is to leave alone.
    pub isolated_cores: Option<Want<Vec<u32>>>,
    /// Kernel parameters and huge pages.
    pub wishes: Vec<Wish>,
}

/// A value that is wanted, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want<T> {
    /// What is wanted.
    pub value: T,
    /// The key with its whole path.
    pub key: String,
    /// As `optional` names it.
    pub name: String,
    /// Where the file says so.
    pub line: usize,
    /// Goes without if need be.
    pub optional: bool,
}

/// A setting that is to have a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which.
    pub setting: Setting,
    /// The value, and who says so.
    pub want: Want<Value>,
    /// Why one would.
    pub reason: String,
}

const NIC_EXAMPLE: &str = "[[nic]] with two brackets, and name = \"eth1\" below";
/// Keys of `[[nic]]` that mean more than one setting.
const NIC_KEYS: [&str; 9] =
    ["name", "queues", "spread", "symmetric", "irq_cpus", "steer", "napi_each", "features", "optional"];
const HOST_KEYS: [&str; 6] =
    ["governor", "huge_pages", "huge_page_kb", "isolated_cores", "sysctl", "optional"];
const QUEUES: std::ops::RangeInclusive<u32> = 1..=1024;
const CPUS: std::ops::RangeInclusive<u32> = 0..=8191;
const HUGE_PAGE_KB: u32 = 2048;
/// Parameters of the kernel's other parts are nothing to a NIC.
const SYSCTL_FAMILIES: [&str; 3] = ["kernel.", "net.", "vm."];

/// Reads a file's text.
pub fn parse(text: &str, file: &str) -> Result<Desired, ConfigProblem> {
    let source = Source::new(text, file);
    let raw = source.parse()?;
    let root = source.root(&raw);
    root.allow_only(&["nic", "host"])?;
    let mut desired = Desired::default();
    if let Some(nics) = root.optional("nic") {
        for element in nics.elements(NIC_EXAMPLE)? {
            let nic = nic(&element.table(NIC_EXAMPLE)?)?;
            if desired.nics.iter().any(|other| other.name == nic.name) {
                return Err(
                    element.problem(format!("`{}` has a [[nic]] already; keep one of them", nic.name))
                );
            }
            desired.nics.push(nic);
        }
    }
    if let Some(host) = root.optional("host") {
        desired.host = self::host(&host.table("[host]")?)?;
    }
    Ok(desired)
}

/// Makes wants of values, which is where `optional` is looked up.
struct Wants<'t, 'd> {
    table: &'t Table<'d>,
    optional: BTreeSet<String>,
}

impl<'t, 'd> Wants<'t, 'd> {
    /// What is optional must be wanted: `given` are the names that can be.
    fn of(table: &'t Table<'d>, given: &[&str]) -> Result<Self, ConfigProblem> {
        let mut optional = BTreeSet::new();
        if let Some(names) = table.optional("optional") {
            for element in names.elements("an array of keys, such as [\"mtu\"]")? {
                let name = element.string("\"mtu\"")?;
                if !given.contains(&name) {
                    let reason = format!("`{name}` is not set in this table; {}", hint(name, given));
                    return Err(element.problem(reason));
                }
                optional.insert(name.to_owned());
            }
        }
        Ok(Self { table, optional })
    }

    fn want<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Written<'d>) -> Result<T, ConfigProblem>,
    ) -> Result<Option<Want<T>>, ConfigProblem> {
        let Some(written) = self.table.optional(key) else { return Ok(None) };
        Ok(Some(self.made(key, read(&written)?, &written)))
    }

    fn made<T>(&self, key: &str, value: T, written: &Written<'d>) -> Want<T> {
        Want {
            value,
            key: written.field().to_owned(),
            name: key.to_owned(),
            line: written.line(),
            optional: self.optional.contains(key),
        }
    }
}

fn nic(table: &Table<'_>) -> Result<DesiredNic, ConfigProblem> {
    let known: Vec<&str> = NIC_KEYS.into_iter().chain(KEYS.iter().map(|key| key.name)).collect();
    table.allow_only(&known)?;
    let written = table.required("name", "\"eth1\"")?;
    let name = nic_name(&written)?;
    let given: Vec<&str> = table.entries().into_iter().map(|(key, _)| key.name).collect();
    let wants = Wants::of(table, &given)?;
    let queues = wants.want("queues", |value| value.integer(QUEUES))?;
    let napi_each = table.optional("napi_each");
    Ok(DesiredNic {
        line: written.line(),
        spread: wants.want("spread", |value| spread(value, queues.as_ref()))?,
        symmetric: wants.want("symmetric", Written::boolean)?,
        irq_cpus: wants.want("irq_cpus", cpus)?,
        steer: steer(&wants, queues.as_ref())?,
        napi_each: napi_each.map(|value| value.boolean()).transpose()?.unwrap_or(false),
        wishes: wishes(&name, &wants)?,
        queues,
        name,
    })
}

fn nic_name(written: &Written<'_>) -> Result<String, ConfigProblem> {
    let name = written.string("\"eth1\"")?;
    let fits = (1..=15).contains(&name.len()) && !name.contains(['/', ':']) && name != "." && name != "..";
    if !fits || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(written.problem("this is no interface's name; `nic-config show` lists those there are"));
    }
    Ok(name.to_owned())
}

fn spread(written: &Written<'_>, queues: Option<&Want<u32>>) -> Result<u32, ConfigProblem> {
    let spread = written.integer(QUEUES)?;
    match queues {
        Some(queues) if spread > queues.value => {
            let there = queues.value;
            Err(written.problem(format!("there are to be {there} queues; write a number up to {there}")))
        }
        _ => Ok(spread),
    }
}

fn cpus(written: &Written<'_>) -> Result<Vec<u32>, ConfigProblem> {
    let elements = written.elements("an array of CPU numbers, such as [2, 3]")?;
    if elements.is_empty() {
        return Err(written.problem("the array is empty; write at least one CPU's number, such as [2]"));
    }
    elements.iter().map(|element| element.integer(CPUS)).collect()
}

fn steer(wants: &Wants<'_, '_>, queues: Option<&Want<u32>>) -> Result<Vec<Want<Rule>>, ConfigProblem> {
    let example = "an array of tables, such as [{ to = \"192.0.2.10\", queue = 1 }]";
    let Some(written) = wants.table.optional("steer") else { return Ok(Vec::new()) };
    let elements = written.elements(example)?;
    let rule = |element: &Written<'_>| {
        let rule = rule(&element.table(example)?)?;
        match queues {
            Some(queues) if rule.queue >= queues.value => Err(element.problem(format!(
                "queue {} is none of the {} that there are to be; they count from 0",
                rule.queue, queues.value
            ))),
            _ => Ok(rule),
        }
    };
    elements.iter().map(|element| Ok(wants.made("steer", rule(element)?, element))).collect()
}

fn rule(table: &Table<'_>) -> Result<Rule, ConfigProblem> {
    table.allow_only(&["to", "protocol", "port", "queue"])?;
    let to = table.required("to", "\"192.0.2.10\"")?;
    let text = to.string("\"192.0.2.10\"")?;
    let prefix: Option<IpNet> =
        text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?)));
    let prefix = prefix.ok_or_else(|| to.problem(format!("`{text}` is neither an address nor a prefix")))?;
    let protocol = table.optional("protocol").map(|written| match written.string("\"tcp\"")? {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(written.problem("write \"tcp\" or \"udp\", or leave the key out for both")),
    });
    let protocol = protocol.transpose()?;
    let port = table.optional("port");
    let number = port.as_ref().map(|port| port.integer(1..=65_535)).transpose()?;
    if let (Some(port), None) = (&port, protocol) {
        return Err(port.problem("a port needs a protocol; add protocol = \"tcp\""));
    }
    Ok(Rule {
        to: prefix.trunc(),
        protocol,
        port: number.map(|port| port as u16),
        queue: table.required("queue", "0")?.integer(0..=1023)?,
    })
}

fn wishes(nic: &str, wants: &Wants<'_, '_>) -> Result<Vec<Wish>, ConfigProblem> {
    let mut wishes = Vec::new();
    let mut add = |item, want, reason: &str| {
        wishes.push(Wish { setting: Setting::of(nic, item), want, reason: reason.to_owned() });
    };
    for key in &KEYS {
        let Some(want) = wants.want(key.name, |written| value(&key.kind, written))? else { continue };
        (key.items)().into_iter().for_each(|item| add(item, want.clone(), key.reason));
    }
    if let Some(features) = wants.table.optional("features") {
        for (key, written) in features.table("a table, such as { rx-all = false }")?.entries() {
            let want = wants.made("features", Value::Switch(written.boolean()?), &written);
            add(Item::Feature(key.name.to_owned()), want, "as the file says");
        }
    }
    Ok(wishes)
}

fn value(kind: &Kind, written: &Written<'_>) -> Result<Value, ConfigProblem> {
    match kind {
        Kind::Number(range) => Ok(Value::Number(written.integer(range.clone())?.into())),
        Kind::Switch => Ok(Value::Switch(written.boolean()?)),
        Kind::HashFields => {
            let letters = written.string("\"sdfn\"")?;
            let fields = rss::fields(letters).ok_or_else(|| {
                let known = "s (source), d (destination), f and n (ports), m (MAC), v (VLAN), t (protocol)";
                written.problem(format!("`{letters}` has letters that stand for no field; known: {known}"))
            })?;
            Ok(Value::Text(rss::letters(fields)))
        }
    }
}

fn host(table: &Table<'_>) -> Result<DesiredHost, ConfigProblem> {
    table.allow_only(&HOST_KEYS)?;
    let sysctls = table.optional("sysctl").map(|written| written.table("[host.sysctl]")).transpose()?;
    let sysctls = sysctls.map(|table| table.entries()).unwrap_or_default();
    let entries = table.entries();
    let given: Vec<&str> = entries.iter().chain(&sysctls).map(|(key, _)| key.name).collect();
    let wants = Wants::of(table, &given)?;
    let mut wishes = Vec::new();
    for (Key { name, .. }, written) in &sysctls {
        let want = wants.made(name, Value::Text(sysctl(name, written)?), written);
        let setting = Setting::host(Item::Sysctl((*name).to_owned()));
        wishes.push(Wish { setting, want, reason: "as the file says".to_owned() });
    }
    let size = table.optional("huge_page_kb");
    let size_kb = size.as_ref().map(|size| size.integer(4..=16_777_216)).transpose()?;
    let pages =
        wants.want("huge_pages", |written| Ok(Value::Number(written.integer(0..=u32::MAX)?.into())))?;
    if let (Some(size), None) = (&size, &pages) {
        return Err(size.problem("how many pages of this size? add huge_pages = 64"));
    }
    wishes.extend(pages.map(|want| Wish {
        setting: Setting::host(Item::HugePages { size_kb: size_kb.unwrap_or(HUGE_PAGE_KB) }),
        want,
        reason: "flow tables and packet memory miss the translation cache less on huge pages".to_owned(),
    }));
    Ok(DesiredHost {
        governor: wants.want("governor", |written| Ok(written.string("\"performance\"")?.to_owned()))?,
        isolated_cores: wants.want("isolated_cores", cpus)?,
        wishes,
    })
}

fn sysctl(name: &str, written: &Written<'_>) -> Result<String, ConfigProblem> {
    let parts: Vec<&str> = name.split('.').collect();
    let known = SYSCTL_FAMILIES.iter().any(|family| name.starts_with(family));
    if !known || parts.iter().any(|part| part.is_empty() || part.contains("..")) || name.contains("//") {
        let families = SYSCTL_FAMILIES.map(|family| format!("{family}*")).join(", ");
        return Err(written.problem(format!(
            "`{name}` is none of {families}; write names in quotes, such as \"net.core.netdev_budget\" = 600"
        )));
    }
    Ok(crate::host::in_one_line(&written.text_or_number()?))
}

#[cfg(test)]
mod tests;
