//! What drivers take over the generic netlink family `ethtool` (Documentation/networking/ethtool-netlink.rst):
//! queues, rings, coalescing and offloads.

use std::io;

use crate::genl::{Attributes, Family};
use crate::setting::{Coalescing, Direction, QueueKind};

const FAMILY: &str = "ethtool";
const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const RINGS_SET: u8 = 16;
const CHANNELS_SET: u8 = 18;
const COALESCE_GET: u8 = 19;
const COALESCE_SET: u8 = 20;

/// First attribute of every message, and what is in it.
const HEADER: u16 = 1;
const HEADER_NAME: u16 = 2;
/// `ETHTOOL_A_FEATURES_*`, bit sets.
const FEATURES_HARDWARE: u16 = 2;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const FEATURES_FIXED: u16 = 5;
/// `ETHTOOL_A_BITSET_*`, as lists of named bits.
const BITSET_IS_LIST: u16 = 1;
const BITSET_BITS: u16 = 3;
const BITSET_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// A way to the kernel's family `ethtool`, which is there since Linux 5.6.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    family: Option<Family>,
}

/// An offload that can be switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name.
    pub name: String,
    /// Somebody wants it.
    pub wanted: bool,
    /// It is at work, which may need other offloads.
    pub active: bool,
}

impl Settings {
    /// Finds the family.
    pub fn open() -> io::Result<Self> {
        Ok(Self { family: Family::named(FAMILY)? })
    }

    /// All offloads that can be switched.
    pub fn features(&self, nic: &str) -> io::Result<Vec<Feature>> {
        let Some(family) = self.family else { return Ok(Vec::new()) };
        Ok(family.object(FEATURES_GET, about(nic))?.map(|answer| features(&answer)).unwrap_or_default())
    }

    /// Switches an offload.
    pub fn set_feature(&self, nic: &str, name: &str, on: bool) -> io::Result<()> {
        let bit = Attributes::default().text(BIT_NAME, name);
        let bit = if on { bit.with(BIT_VALUE, &[]) } else { bit };
        let bits = Attributes::default().nest(BITSET_BIT, &bit);
        let set = Attributes::default().nest(BITSET_BITS, &bits);
        self.family()?.change(FEATURES_SET, about(nic).nest(FEATURES_WANTED, &set))
    }

    /// Coalescing, as far as the driver has it.
    pub fn coalescing(&self, nic: &str) -> io::Result<Vec<(Coalescing, u64)>> {
        let Some(family) = self.family else { return Ok(Vec::new()) };
        let Some(answer) = family.object(COALESCE_GET, about(nic))? else { return Ok(Vec::new()) };
        let told =
            Coalescing::ALL.iter().filter_map(|&what| Some((what, answer.unsigned(coalescing(what))?)));
        Ok(told.collect())
    }

    /// Changes coalescing.
    pub fn set_coalescing(&self, nic: &str, what: Coalescing, value: u32) -> io::Result<()> {
        let kind = coalescing(what);
        let attributes = match what {
            Coalescing::AdaptiveRx | Coalescing::AdaptiveTx => about(nic).with(kind, &[u8::from(value != 0)]),
            _ => about(nic).number(kind, value),
        };
        self.family()?.change(COALESCE_SET, attributes)
    }

    /// Changes how many queues there are.
    pub fn set_queues(&self, nic: &str, kind: QueueKind, count: u32) -> io::Result<()> {
        let attribute = match kind {
            QueueKind::Rx => 6,
            QueueKind::Tx => 7,
            QueueKind::Combined => 9,
        };
        self.family()?.change(CHANNELS_SET, about(nic).number(attribute, count))
    }

    /// Changes how many descriptors a queue has.
    pub fn set_ring(&self, nic: &str, direction: Direction, descriptors: u32) -> io::Result<()> {
        let attribute = match direction {
            Direction::Rx => 6,
            Direction::Tx => 9,
        };
        self.family()?.change(RINGS_SET, about(nic).number(attribute, descriptors))
    }

    fn family(&self) -> io::Result<Family> {
        self.family.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

fn about(nic: &str) -> Attributes {
    Attributes::default().nest(HEADER, &Attributes::default().text(HEADER_NAME, nic))
}

/// `ETHTOOL_A_COALESCE_*`.
fn coalescing(what: Coalescing) -> u16 {
    match what {
        Coalescing::RxUsecs => 2,
        Coalescing::RxFrames => 3,
        Coalescing::TxUsecs => 6,
        Coalescing::TxFrames => 7,
        Coalescing::AdaptiveRx => 11,
        Coalescing::AdaptiveTx => 12,
    }
}

/// Those that hardware or kernel can switch, without those that never change.
fn features(answer: &Attributes) -> Vec<Feature> {
    let [possible, wanted, active, fixed] =
        [FEATURES_HARDWARE, FEATURES_WANTED, FEATURES_ACTIVE, FEATURES_FIXED].map(|set| names(answer, set));
    let switchable = possible.into_iter().filter(|name| !fixed.contains(name));
    let feature =
        |name: String| Feature { wanted: wanted.contains(&name), active: active.contains(&name), name };
    switchable.map(feature).collect()
}

/// Names of the bits that are set. A list has those alone; a set with a mask has all of the mask, and marks
/// those that are set.
fn names(answer: &Attributes, set: u16) -> Vec<String> {
    let Some(set) = answer.inner(set) else { return Vec::new() };
    let Some(bits) = set.inner(BITSET_BITS) else { return Vec::new() };
    let is_list = set.value(BITSET_IS_LIST).is_some();
    let name = |(_, bit): (u16, &[u8])| {
        let bit = Attributes::from(bit);
        let is_set = is_list || bit.value(BIT_VALUE).is_some();
        let name = String::from_utf8(bit.value(BIT_NAME)?.to_vec()).ok()?;
        let name = name.trim_end_matches('\0');
        (is_set && !name.is_empty()).then(|| name.to_owned())
    };
    bits.read().unwrap_or_default().into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Attributes {
        let bits = names.iter().fold(Attributes::default(), |bits, name| {
            bits.nest(BITSET_BIT, &Attributes::default().number(1, 0).text(BIT_NAME, name))
        });
        Attributes::default().with(BITSET_IS_LIST, &[]).nest(BITSET_BITS, &bits)
    }

    /// With a mask of all.
    fn masked(bits: &[(&str, bool)]) -> Attributes {
        let bits = bits.iter().fold(Attributes::default(), |bits, (name, is_set)| {
            let bit = Attributes::default().text(BIT_NAME, name);
            bits.nest(BITSET_BIT, &if *is_set { bit.with(BIT_VALUE, &[]) } else { bit })
        });
        Attributes::default().nest(BITSET_BITS, &bits)
    }

    #[test]
    fn features_are_those_that_can_be_switched() {
        let possible = [("rx-gro", true), ("rx-lro", true), ("rx-fcs", true), ("highdma", false), ("", true)];
        let answer = Attributes::default()
            .nest(FEATURES_HARDWARE, &masked(&possible))
            .nest(FEATURES_WANTED, &list(&["rx-gro", "rx-lro"]))
            .nest(FEATURES_ACTIVE, &list(&["rx-gro", "highdma"]))
            .nest(FEATURES_FIXED, &list(&["rx-fcs"]));
        let feature = |name: &str, active| Feature { name: name.to_owned(), wanted: true, active };
        assert_eq!(features(&answer), [feature("rx-gro", true), feature("rx-lro", false)]);
    }
}
