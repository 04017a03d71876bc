//! The kernel of this machine: what it tells of interfaces and the host, and what it takes. The one place
//! that knows which setting goes by which way.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_route::link::LinkFlags;
use serde::Serialize;

use crate::ethtool::{Ethtool, rss};
use crate::files::Root;
use crate::host::{self, HostState};
use crate::irq::{self, Irq};
use crate::observe::{self, Nic, ObserveError};
use crate::setting::{Coalescing, Direction, Item, Knob, QueueKind, Setting, Traffic, Value};
use crate::settings::Settings;
use crate::{link, netdev};

/// How everything stands that was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Interfaces by name.
    pub nics: BTreeMap<String, NicState>,
    /// The host.
    pub host: HostState,
}

impl Observed {
    /// What a setting is; `None` if there is no such setting here.
    pub fn value(&self, setting: &Setting) -> Option<&Value> {
        match &setting.nic {
            None => self.host.values.get(&setting.item),
            Some(nic) => {
                let values = &self.nics.get(nic)?.values;
                let none = matches!(setting.item, Item::Rule(_)).then_some(&Value::Absent);
                values.get(&setting.item).or(none)
            }
        }
    }
}

/// How an interface stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NicState {
    /// What it is.
    #[serde(flatten)]
    pub nic: Nic,
    /// What can be set and what it is.
    #[serde(rename = "settings", serialize_with = "by_name")]
    pub values: BTreeMap<Item, Value>,
    /// The most that some settings can be.
    #[serde(skip)]
    pub limits: BTreeMap<Item, u64>,
    /// Steering rules that fit; `None` if it has none.
    pub rules_max: Option<u32>,
    /// Offloads that are wanted but not at work.
    pub idle_features: Vec<String>,
    /// Interrupts of its queues.
    pub irqs: Vec<Irq>,
}

/// JSON has names only for keys.
fn by_name<S: serde::Serializer>(values: &BTreeMap<Item, Value>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(values.iter().map(|(item, value)| (item.to_string(), value)))
}

/// What to ask about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Interfaces.
    pub nics: Vec<String>,
    /// Kernel parameters.
    pub sysctls: Vec<String>,
}

/// Something whose settings can be observed and set: the kernel, or a test's double of it.
pub trait World {
    /// Names of all interfaces by index.
    fn names(&self) -> Result<BTreeMap<u32, String>, ObserveError>;
    /// How it stands. Interfaces that do not exist are left out.
    fn observe(&self, scope: &Scope) -> Result<Observed, ObserveError>;
    /// Changes one thing.
    fn set(&mut self, setting: &Setting, value: &Value) -> io::Result<()>;
}

/// The kernel, with its files at some root.
#[derive(Debug)]
pub struct Kernel {
    root: Root,
}

impl Kernel {
    /// With `/proc` and `/sys` at this root.
    pub fn at(root: Root) -> Self {
        Self { root }
    }

    /// States of interfaces in the order of their names; without names, of all but the loopback interface.
    pub fn nics(&self, names: &[String]) -> Result<Vec<NicState>, ObserveError> {
        let settings = Settings::open().map_err(ObserveError::Links)?;
        let ethtool = Ethtool::open().map_err(ObserveError::Links)?;
        let state = |found: observe::Found| {
            let name = found.nic.name.clone();
            self.state(found, &settings, &ethtool).map_err(|source| ObserveError::Driver { name, source })
        };
        observe::nics(names)?.into_iter().map(state).collect()
    }

    /// The host, with no kernel parameters.
    pub fn host(&self) -> HostState {
        host::observe(&self.root, &[])
    }

    fn state(&self, found: observe::Found, settings: &Settings, ethtool: &Ethtool) -> io::Result<NicState> {
        let irqs = irq::of(&self.root, &found.nic.name, found.bus_device.as_deref());
        let mut state = NicState {
            values: found.flags.into_iter().map(|(item, on)| (item, Value::Switch(on))).collect(),
            limits: found.mtu_max.map(|max| (Item::Mtu, max.into())).into_iter().collect(),
            irqs,
            nic: found.nic,
            ..NicState::default()
        };
        state.values.extend(state.nic.mtu.map(|mtu| (Item::Mtu, Value::Number(mtu.into()))));
        let irqs = state.irqs.iter().map(|irq| (Item::Irq(irq.name.clone()), Value::Text(irq.cpus.clone())));
        state.values.extend(irqs);
        quantities(&mut state);
        offloads(&mut state, settings)?;
        spreading(&mut state, ethtool)?;
        steering(&mut state, ethtool)?;
        self.napis(&mut state)?;
        Ok(state)
    }

    /// sysfs shows the network namespace that it was mounted in; another's interface of the same name has
    /// another index.
    fn napis(&self, state: &mut NicState) -> io::Result<()> {
        let nic = &state.nic;
        if self.root.number(&sysfs(&nic.name, "ifindex")) == Some(u64::from(nic.ifindex)) {
            for knob in Knob::ALL {
                let value = self.root.number(&sysfs(&nic.name, knob_file(knob)));
                state.values.extend(value.map(|value| (Item::Napi(knob), Value::Number(value))));
            }
        }
        let each = netdev::napis(nic.ifindex)?.into_iter();
        state.values.extend(each.map(|(id, knob, value)| (Item::OneNapi { id, knob }, Value::Number(value))));
        Ok(())
    }

    fn set_host(&self, item: &Item, value: &Value) -> io::Result<()> {
        let file = match item {
            Item::Sysctl(name) => host::sysctl_file(name),
            Item::Governor(cpu) => host::governor_file(*cpu),
            Item::HugePages { size_kb } => host::huge_pages_file(*size_kb),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        self.root.write(&file, &value.to_string())
    }

    fn set_irq(&self, found: &observe::Found, name: &str, cpus: &str) -> io::Result<()> {
        let irqs = irq::of(&self.root, &found.nic.name, found.bus_device.as_deref());
        let irq = irqs.iter().find(|irq| irq.name == name).ok_or(io::ErrorKind::NotFound)?;
        self.root.write(&irq::affinity_file(irq.number), cpus)
    }

    fn set_nic(&self, found: &observe::Found, item: &Item, value: &Value) -> io::Result<()> {
        let (nic, ifindex) = (found.nic.name.as_str(), found.nic.ifindex);
        match (item, value) {
            (Item::Queues(kind), Value::Number(count)) => {
                Settings::open()?.set_queues(nic, *kind, small(*count)?)
            }
            (Item::Ring(direction), Value::Number(count)) => {
                Settings::open()?.set_ring(nic, *direction, small(*count)?)
            }
            (Item::Feature(name), Value::Switch(on)) => Settings::open()?.set_feature(nic, name, *on),
            (Item::Coalesce(what), Value::Number(number)) => {
                Settings::open()?.set_coalescing(nic, *what, small(*number)?)
            }
            (Item::Coalesce(what), Value::Switch(on)) => {
                Settings::open()?.set_coalescing(nic, *what, u32::from(*on))
            }
            (Item::Promiscuous, Value::Switch(on)) => link::set_flag(ifindex, LinkFlags::Promisc, *on),
            (Item::AllMulticast, Value::Switch(on)) => link::set_flag(ifindex, LinkFlags::Allmulti, *on),
            (Item::Up, Value::Switch(on)) => link::set_flag(ifindex, LinkFlags::Up, *on),
            (Item::Mtu, Value::Number(mtu)) => link::set_mtu(ifindex, small(*mtu)?),
            (Item::Napi(knob), Value::Number(number)) => {
                self.root.write(&sysfs(nic, knob_file(*knob)), &number.to_string())
            }
            (Item::OneNapi { id, knob }, Value::Number(number)) => netdev::set_napi(*id, *knob, *number),
            (Item::Irq(name), Value::Text(cpus)) => self.set_irq(found, name, cpus),
            _ => set_spreading(found, item, value),
        }
    }
}

impl World for Kernel {
    fn names(&self) -> Result<BTreeMap<u32, String>, ObserveError> {
        observe::names()
    }

    fn observe(&self, scope: &Scope) -> Result<Observed, ObserveError> {
        let there = || {
            let all = observe::names()?;
            Ok(scope.nics.iter().filter(|name| all.values().any(|there| there == *name)).cloned().collect())
        };
        let states = of_those_there(there, |names| self.nics(names))?;
        let nics = states.into_iter().map(|state| (state.nic.name.clone(), state)).collect();
        Ok(Observed { nics, host: host::observe(&self.root, &scope.sysctls) })
    }

    fn set(&mut self, setting: &Setting, value: &Value) -> io::Result<()> {
        let Some(nic) = &setting.nic else { return self.set_host(&setting.item, value) };
        let found = observe::nics(std::slice::from_ref(nic)).map_err(io::Error::other)?;
        let found = found.first().ok_or(io::ErrorKind::NotFound)?;
        self.set_nic(found, &setting.item, value)
    }
}

/// Looks at those that are there, and again if it fails because one of them went away meanwhile.
fn of_those_there<T>(
    mut there: impl FnMut() -> Result<Vec<String>, ObserveError>,
    mut look: impl FnMut(&[String]) -> Result<Vec<T>, ObserveError>,
) -> Result<Vec<T>, ObserveError> {
    let mut names = there()?;
    // Without names, all would be looked at.
    while !names.is_empty() {
        let error = match look(&names) {
            Ok(seen) => return Ok(seen),
            Err(error) => error,
        };
        let left = there()?;
        if left.len() >= names.len() {
            return Err(error);
        }
        names = left;
    }
    Ok(Vec::new())
}

/// What goes by the ethtool ioctl.
fn set_spreading(found: &observe::Found, item: &Item, value: &Value) -> io::Result<()> {
    let (ethtool, nic) = (Ethtool::open()?, found.nic.name.as_str());
    match (item, value) {
        (Item::RssTable, Value::Table(table)) => {
            let as_shipped = *table == rss::even(table.len(), found.nic.rx_queues().unwrap_or(0));
            let change = if as_shipped { rss::Change::TableAsShipped } else { rss::Change::Table(table) };
            ethtool.set_rss(nic, change)
        }
        (Item::RssKey, Value::Text(key)) => {
            let key = bytes(key).ok_or(io::ErrorKind::InvalidInput)?;
            ethtool.set_rss(nic, rss::Change::Key(&key))
        }
        (Item::RssTransform, Value::Number(transform)) => {
            let transform = u8::try_from(*transform).map_err(|_| io::ErrorKind::InvalidInput)?;
            ethtool.set_rss(nic, rss::Change::Transform(transform))
        }
        (Item::HashFields(traffic), Value::Text(letters)) => {
            let fields = rss::fields(letters).ok_or(io::ErrorKind::InvalidInput)?;
            ethtool.set_hash_fields(nic, flow_type(*traffic), fields)
        }
        (Item::Rule(place), Value::Rule(rule)) => ethtool.set_rule(nic, *place, Some(rule)),
        (Item::Rule(place), Value::Absent) => ethtool.set_rule(nic, *place, None),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn quantities(state: &mut NicState) {
    let queues = state.nic.queues.map(|queues| {
        [
            (Item::Queues(QueueKind::Combined), queues.combined),
            (Item::Queues(QueueKind::Rx), queues.rx),
            (Item::Queues(QueueKind::Tx), queues.tx),
        ]
    });
    let rings = state
        .nic
        .rings
        .map(|rings| [(Item::Ring(Direction::Rx), rings.rx), (Item::Ring(Direction::Tx), rings.tx)]);
    let all = queues.into_iter().flatten().chain(rings.into_iter().flatten());
    for (item, quantity) in all.filter_map(|(item, quantity)| Some((item, quantity?))) {
        state.values.insert(item.clone(), Value::Number(quantity.current.into()));
        state.limits.insert(item, quantity.max.into());
    }
}

fn offloads(state: &mut NicState, settings: &Settings) -> io::Result<()> {
    for feature in settings.features(&state.nic.name)? {
        if feature.wanted && !feature.active {
            state.idle_features.push(feature.name.clone());
        }
        state.values.insert(Item::Feature(feature.name), Value::Switch(feature.wanted));
    }
    for (what, value) in settings.coalescing(&state.nic.name)? {
        let value = match what {
            Coalescing::AdaptiveRx | Coalescing::AdaptiveTx => Value::Switch(value != 0),
            _ => Value::Number(value),
        };
        state.values.insert(Item::Coalesce(what), value);
    }
    Ok(())
}

fn spreading(state: &mut NicState, ethtool: &Ethtool) -> io::Result<()> {
    let nic = state.nic.name.as_str();
    let Some(rss) = ethtool.rss(nic)? else { return Ok(()) };
    state.values.insert(Item::RssTable, Value::Table(rss.table));
    state.values.insert(Item::RssTransform, Value::Number(rss.transform.into()));
    if !rss.key.is_empty() {
        state.values.insert(Item::RssKey, Value::Text(hexadecimal(&rss.key)));
    }
    for traffic in Traffic::ALL {
        if let Some(fields) = ethtool.hash_fields(nic, flow_type(traffic))? {
            state.values.insert(Item::HashFields(traffic), Value::Text(rss::letters(fields)));
        }
    }
    Ok(())
}

fn steering(state: &mut NicState, ethtool: &Ethtool) -> io::Result<()> {
    let Some(table) = ethtool.rules(&state.nic.name)? else { return Ok(()) };
    state.rules_max = Some(table.capacity);
    for (place, rule) in table.rules {
        let value = rule.map_or_else(|| Value::Text("of another kind".to_owned()), Value::Rule);
        state.values.insert(Item::Rule(place), value);
    }
    Ok(())
}

/// `TCP_V4_FLOW` and its like (linux/ethtool.h).
fn flow_type(traffic: Traffic) -> u32 {
    match traffic {
        Traffic::Tcp4 => 1,
        Traffic::Udp4 => 2,
        Traffic::Tcp6 => 5,
        Traffic::Udp6 => 6,
    }
}

fn sysfs(nic: &str, file: &str) -> String {
    format!("/sys/class/net/{nic}/{file}")
}

fn knob_file(knob: Knob) -> &'static str {
    match knob {
        Knob::DeferHardIrqs => "napi_defer_hard_irqs",
        Knob::GroFlushTimeout => "gro_flush_timeout",
    }
}

fn small(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_goes_away_while_it_is_looked_at_is_left_out() {
        let check = |mut there: Vec<Vec<&str>>| {
            let there = || Ok(there.remove(0).into_iter().map(str::to_owned).collect());
            let look = |names: &[String]| match names {
                [one] if one == "eth0" => Ok(names.to_vec()),
                _ => Err(ObserveError::Links(io::ErrorKind::NotFound.into())),
            };
            of_those_there(there, look).ok()
        };
        assert_eq!(check(vec![vec!["eth0"]]), Some(vec!["eth0".to_owned()]));
        assert_eq!(check(vec![vec!["eth0", "eth1"], vec!["eth0"]]), Some(vec!["eth0".to_owned()]));
        assert_eq!(check(vec![vec!["eth1"], vec![]]), Some(vec![]));
        assert_eq!(check(vec![vec!["eth1"], vec!["eth1"]]), None);
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        assert_eq!(bytes(&hexadecimal(&[0x6d, 0x5a, 0])), Some(vec![0x6d, 0x5a, 0]));
        assert_eq!(bytes("6d5"), Some(vec![0x6d, 5]));
        assert_eq!(bytes("zz"), None);
    }
}
