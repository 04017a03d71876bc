//! What can be set, by name, and the values it can have. Everything else in this program speaks of a NIC or of
//! the host in these two words, so what is observed, planned, remembered and restored is one and the same.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ethtool::rules::Rule;

/// One thing that can be set: on an interface, or on the host if there is no name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Setting {
    /// Of the interface.
    pub nic: Option<String>,
    /// What of it.
    pub item: Item,
}

impl Setting {
    /// Of an interface.
    pub fn of(nic: &str, item: Item) -> Self {
        Self { nic: Some(nic.to_owned()), item }
    }

    /// Of the host.
    pub fn host(item: Item) -> Self {
        Self { nic: None, item }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.nic {
            Some(nic) => write!(f, "{nic}: {}", self.item),
            None => self.item.fmt(f),
        }
    }
}

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// How many queues of a kind there are.
    Queues(QueueKind),
    /// Descriptors per queue.
    Ring(Direction),
    /// Which queue each slot of the RSS indirection table leads to.
    RssTable,
    /// The key of the Toeplitz hash, in hexadecimal.
    RssKey,
    /// What the NIC does to addresses and ports before it hashes them; 0 is nothing, 1 makes both directions
    /// of a flow alike (`RXH_XFRM_SYM_XOR`).
    RssTransform,
    /// Which fields of such packets are hashed: letters as `ethtool -N rx-flow-hash` has them.
    HashFields(Traffic),
    /// An offload, by the kernel's name: whether it is wanted.
    Feature(String),
    /// When a NIC interrupts.
    Coalesce(Coalescing),
    /// Takes every frame.
    Promiscuous,
    /// Takes every frame to a multicast address.
    AllMulticast,
    /// Administratively up.
    Up,
    /// Largest IP packet in bytes.
    Mtu,
    /// How interrupts give way to polling, for every queue that there is and will be.
    Napi(Knob),
    /// The same for one polling context of the kernel.
    OneNapi {
        /// The kernel's number.
        id: u32,
        /// Which of its settings.
        knob: Knob,
    },
    /// The steering rule at a place in the NIC's table.
    Rule(u32),
    /// Which CPUs serve an interrupt, by the interrupt's name: its number changes with the queues.
    Irq(String),
    /// A kernel parameter, by its name under `/proc/sys` with dots.
    Sysctl(String),
    /// How a CPU chooses its frequency.
    Governor(u32),
    /// Huge pages that are set aside.
    HugePages {
        /// Size of one.
        size_kb: u32,
    },
}

/// What a queue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueKind {
    /// Receives and transmits.
    Combined,
    /// Receives.
    Rx,
    /// Transmits.
    Tx,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Receive.
    Rx,
    /// Transmit.
    Tx,
}

/// What packets a choice of hash fields is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// TCP over IPv4.
    Tcp4,
    /// UDP over IPv4.
    Udp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
}

impl Traffic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp4, Self::Udp4, Self::Tcp6, Self::Udp6];
}

/// What an interrupt waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coalescing {
    /// Microseconds after a frame came.
    RxUsecs,
    /// So many frames.
    RxFrames,
    /// Microseconds after a frame went.
    TxUsecs,
    /// So many frames.
    TxFrames,
    /// The driver chooses by the load, on receipt.
    AdaptiveRx,
    /// The driver chooses by the load, on transmission.
    AdaptiveTx,
}

impl Coalescing {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::RxUsecs, Self::RxFrames, Self::TxUsecs, Self::TxFrames, Self::AdaptiveRx, Self::AdaptiveTx];
}

/// How interrupts give way to polling (Documentation/networking/napi.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Knob {
    /// Empty polls before interrupts are let in again.
    DeferHardIrqs,
    /// Nanoseconds after which the kernel polls by itself.
    GroFlushTimeout,
}

impl Knob {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::DeferHardIrqs, Self::GroFlushTimeout];
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queues(kind) => write!(f, "queues.{}", word(kind)),
            Self::Ring(direction) => write!(f, "ring.{}", word(direction)),
            Self::RssTable => f.write_str("rss.table"),
            Self::RssKey => f.write_str("rss.key"),
            Self::RssTransform => f.write_str("rss.transform"),
            Self::HashFields(traffic) => write!(f, "rss.hash.{}", word(traffic)),
            Self::Feature(name) => write!(f, "feature.{name}"),
            Self::Coalesce(what) => write!(f, "coalesce.{}", word(what)),
            Self::Promiscuous => f.write_str("promiscuous"),
            Self::AllMulticast => f.write_str("all-multicast"),
            Self::Up => f.write_str("up"),
            Self::Mtu => f.write_str("mtu"),
            Self::Napi(knob) => write!(f, "napi.{}", word(knob)),
            Self::OneNapi { id, knob } => write!(f, "napi.{id}.{}", word(knob)),
            Self::Rule(location) => write!(f, "rule.{location}"),
            Self::Irq(name) => write!(f, "irq.{name}"),
            Self::Sysctl(name) => write!(f, "sysctl.{name}"),
            Self::Governor(cpu) => write!(f, "governor.cpu{cpu}"),
            Self::HugePages { size_kb } => write!(f, "huge-pages.{size_kb}kB"),
        }
    }
}

/// The word that serde writes for a plain variant.
fn word(variant: &impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(serde_json::Value::String(word)) => word,
        _ => unreachable!("plain variants are written as a word"),
    }
}

/// What a setting is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// On or off.
    Switch(bool),
    /// A quantity, in the setting's own unit.
    Number(u64),
    /// One number per slot.
    Table(Vec<u32>),
    /// A steering rule.
    Rule(Rule),
    /// Words, a list of CPUs, a key.
    Text(String),
    /// There is no such rule.
    Absent,
}

impl Value {
    /// The quantity.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Serves the same end: RSS tables that give each queue the same share are alike in whatever order.
    pub fn serves(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Table(is), Self::Table(wanted)) => is == wanted || shares(is) == shares(wanted),
            _ => self == wanted,
        }
    }
}

/// How many slots each queue has, by queue.
fn shares(table: &[u32]) -> Vec<(u32, usize)> {
    let mut queues = table.to_vec();
    queues.sort_unstable();
    queues.chunk_by(|a, b| a == b).map(|slots| (slots[0], slots.len())).collect()
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(on) => f.write_str(if *on { "on" } else { "off" }),
            Self::Number(number) => number.fmt(f),
            Self::Table(table) => {
                let shares: Vec<String> =
                    shares(table).iter().map(|(queue, slots)| format!("{queue}x{slots}")).collect();
                write!(f, "[{}]", shares.join(" "))
            }
            Self::Rule(rule) => rule.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Absent => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_and_read_as_what_it_is() {
        let rule = Rule { to: "192.0.2.0/24".parse().unwrap(), protocol: None, port: None, queue: 1 };
        for value in [
            Value::Switch(true),
            Value::Number(7),
            Value::Table(vec![0, 1]),
            Value::Rule(rule),
            Value::Text("7".to_owned()),
            Value::Absent,
        ] {
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value, "{json}");
        }
    }

    #[test]
    fn settings_have_short_names() {
        for (setting, name) in [
            (Setting::of("eth1", Item::Queues(QueueKind::Combined)), "eth1: queues.combined"),
            (Setting::of("eth1", Item::HashFields(Traffic::Udp4)), "eth1: rss.hash.udp4"),
            (
                Setting::of("eth1", Item::OneNapi { id: 8, knob: Knob::DeferHardIrqs }),
                "eth1: napi.8.defer-hard-irqs",
            ),
            (Setting::host(Item::Sysctl("net.core.somaxconn".to_owned())), "sysctl.net.core.somaxconn"),
        ] {
            assert_eq!(setting.to_string(), name);
        }
    }

    #[test]
    fn tables_of_equal_shares_serve_each_other() {
        let check =
            |is: &[u32], wanted: &[u32]| Value::Table(is.to_vec()).serves(&Value::Table(wanted.to_vec()));
        assert!(check(&[0, 0, 1, 1], &[0, 1, 0, 1]));
        assert!(!check(&[0, 0, 0, 1], &[0, 1, 0, 1]));
        assert!(!Value::Number(1).serves(&Value::Number(2)));
    }
}
