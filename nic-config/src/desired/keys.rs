//! The keys of a `[[nic]]` table that set one thing, or one thing in each of a few places, as data.

use std::ops::RangeInclusive;

use crate::setting::{Coalescing, Direction, Item, Knob, Traffic};

/// What is written behind a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Number(RangeInclusive<u32>),
    /// `true` or `false`.
    Switch,
    /// Letters of hash fields.
    HashFields,
}

/// A key and what it sets.
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What is written behind it.
    pub kind: Kind,
    /// What it sets. Where a NIC has only some of these, those are set.
    pub items: fn() -> Vec<Item>,
    /// Why one would, for whoever reads the plan.
    pub reason: &'static str,
}

const fn key(name: &'static str, kind: Kind, items: fn() -> Vec<Item>, reason: &'static str) -> Key {
    Key { name, kind, items, reason }
}

fn feature(name: &str) -> Vec<Item> {
    vec![Item::Feature(name.to_owned())]
}

/// Descriptors that some NIC might take.
const RING: Kind = Kind::Number(1..=65_536);
/// Microseconds and frames that some NIC might take.
const WAIT: Kind = Kind::Number(0..=1_000_000);
/// From the smallest that IPv4 knows to the largest that a packet can say.
const MTU: Kind = Kind::Number(68..=65_535);
const SPREADS_BY: &str =
    "packets are spread over queues by these fields; with ports (f, n), fragments go elsewhere";
const MODERATION: &str = "an interrupt for each packet costs CPU, a late one costs time";
const RINGS: &str = "a longer ring outlasts a longer pause of its worker, and takes more cache";
const POLLING: &str = "a worker that polls is not interrupted";

/// In the order in which a file would have them.
pub const KEYS: [Key; 24] = [
    key("up", Kind::Switch, || vec![Item::Up], "a NIC that is down has no interrupts to place and no link"),
    key("mtu", MTU, || vec![Item::Mtu], "encapsulation adds to packets, and zero-copy limits their size"),
    key("promiscuous", Kind::Switch, || vec![Item::Promiscuous], "frames to multicast addresses of others"),
    key(
        "all_multicast",
        Kind::Switch,
        || vec![Item::AllMulticast],
        "frames to multicast addresses are let in",
    ),
    key("ring_rx", RING, || vec![Item::Ring(Direction::Rx)], RINGS),
    key("ring_tx", RING, || vec![Item::Ring(Direction::Tx)], RINGS),
    key("hash_tcp4", Kind::HashFields, || vec![Item::HashFields(Traffic::Tcp4)], SPREADS_BY),
    key("hash_udp4", Kind::HashFields, || vec![Item::HashFields(Traffic::Udp4)], SPREADS_BY),
    key("hash_tcp6", Kind::HashFields, || vec![Item::HashFields(Traffic::Tcp6)], SPREADS_BY),
    key("hash_udp6", Kind::HashFields, || vec![Item::HashFields(Traffic::Udp6)], SPREADS_BY),
    key("rx_usecs", WAIT, || vec![Item::Coalesce(Coalescing::RxUsecs)], MODERATION),
    key("rx_frames", WAIT, || vec![Item::Coalesce(Coalescing::RxFrames)], MODERATION),
    key("tx_usecs", WAIT, || vec![Item::Coalesce(Coalescing::TxUsecs)], MODERATION),
    key("tx_frames", WAIT, || vec![Item::Coalesce(Coalescing::TxFrames)], MODERATION),
    key(
        "adaptive",
        Kind::Switch,
        || vec![Item::Coalesce(Coalescing::AdaptiveRx), Item::Coalesce(Coalescing::AdaptiveTx)],
        "the driver lengthens its waits by guesses about TCP; Shunt sees both ends' delay",
    ),
    key(
        "gro",
        Kind::Switch,
        || feature("rx-gro"),
        "merges what is passed to the kernel; a veth takes redirected frames only with it",
    ),
    key("lro", Kind::Switch, || feature("rx-lro"), "merged packets are none that came from the wire"),
    key("gro_hw", Kind::Switch, || feature("rx-gro-hw"), "merged packets are none that came from the wire"),
    key(
        "rx_vlan",
        Kind::Switch,
        || feature("rx-vlan-hw-parse"),
        "XDP does not see a tag that the NIC took off",
    ),
    key("tx_vlan", Kind::Switch, || feature("tx-vlan-hw-insert"), "the kernel writes tags itself"),
    key("rx_checksum", Kind::Switch, || feature("rx-checksum"), "the kernel trusts the NIC with checksums"),
    key("ntuple", Kind::Switch, || feature("rx-ntuple-filter"), "steering rules need it"),
    key("napi_defer_hard_irqs", WAIT, || vec![Item::Napi(Knob::DeferHardIrqs)], POLLING),
    key(
        "gro_flush_timeout_ns",
        Kind::Number(0..=1_000_000_000),
        || vec![Item::Napi(Knob::GroFlushTimeout)],
        POLLING,
    ),
];
