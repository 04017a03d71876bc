//! The section `[announce]`: who makes the network deliver VIPs to this box. Without the section nobody here does.
//!
//! [`AnnounceL2`] is for the segment the box is on, [`AnnounceRoutes`] for a routing daemon beside it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Table, Value};
use super::{
    ADVERTISE_INTERVAL, ANNOUNCE_INTERVAL, ROUTE_PROTOCOL, ROUTE_TABLE, VRRP_GROUP, VRRP_PRIORITY,
    WITHDRAW_DELAY, or_default, value,
};
use crate::status::ConfigProblem;

/// How VIPs become reachable; both ways may be used at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Announce {
    /// ARP and neighbour discovery on the segment.
    pub l2: Option<AnnounceL2>,
    /// Routes in a table of the kernel.
    pub routes: Option<AnnounceRoutes>,
}

/// The box answers ARP requests (RFC 826) and neighbour solicitations (RFC 4861) for VIPs and `[nat]` sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnnounceL2 {
    /// From one unsolicited announcement of an address to the next.
    pub interval: Duration,
    /// The election between boxes; `None`: this box alone answers, and always does.
    pub election: Option<Election>,
}

/// How two or more boxes of a segment decide which of them answers: VRRPv3 (RFC 5798).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Election {
    /// 1…254; the highest that is alive answers.
    pub priority: u8,
    /// The virtual router's identifier, 1…255: the same on boxes that stand in for one another, and unlike that of
    /// any other VRRP on the segment.
    pub group: u8,
    /// From one advertisement to the next, in whole hundredths of a second. A standby takes over after a little
    /// more than three without one.
    pub advertise_interval: Duration,
    /// Whether a box takes over from one of lower priority that is alive.
    pub preempt: bool,
}

/// VIPs appear as routes that a routing daemon exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnnounceRoutes {
    /// The routing table; none that the box itself routes by.
    pub table: u32,
    /// `rtm_protocol` of the routes, by which Shunt knows its own.
    pub protocol: u8,
    /// Whether the routes of a VIP need a backend that is up.
    pub require_backend: bool,
    /// How long forwarding goes on after the routes were withdrawn, before the box stops.
    pub withdraw_delay: Duration,
    /// What becomes of the routes when the control plane stops.
    pub on_stop: OnStop,
}

/// What becomes of routes when the control plane stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// They go: packets take another way.
    Withdraw,
    /// They stay, for the control plane that starts next: the dataplane forwards on meanwhile.
    Keep,
}

/// Every minute is more often than switches forget addresses, which they do after five.
const L2: AnnounceL2 = AnnounceL2 { interval: Duration::from_secs(60), election: None };
/// A standby takes over after three intervals and a skew of at most one more, so within a second.
const ADVERTISE: Duration = Duration::from_millis(200);
/// The delay lets a router hear of the withdrawal while packets that it still sends are served.
const ROUTES: AnnounceRoutes = AnnounceRoutes {
    table: TABLE,
    protocol: PROTOCOL,
    require_backend: true,
    withdraw_delay: Duration::from_secs(1),
    on_stop: OnStop::Withdraw,
};
/// As the protocol, and no number of the kernel. Beyond 252, `ip import-table` of FRR cannot reach.
const TABLE: u32 = 83;
/// The letter S, and in [`TAKEN`] nobody's.
const PROTOCOL: u8 = 0x53;
/// Numbers by which others know their routes (`linux/rtnetlink.h`, and `zebra/rt_netlink.h` of FRR). Daemons delete
/// what carries their number and is not theirs, and so does Shunt.
const TAKEN: [(RangeInclusive<u8>, &str); 9] = [
    (0..=4, "the kernel and operators"),
    (8..=10, "routing daemons"),
    (11..=11, "zebra"),
    (12..=12, "BIRD"),
    (13..=17, "routing daemons and DHCP"),
    (18..=18, "keepalived"),
    (42..=42, "Babel"),
    (99..=99, "Open/R"),
    (186..=198, "FRR"),
];
/// Tables the kernel looks into without being told to (`linux/rtnetlink.h`).
const OWN_TABLES: [(u32, &str); 3] = [(253, "default"), (254, "main"), (255, "local")];

/// Reads the section; without it nothing is announced.
pub fn read(root: &Table<'_>) -> Result<Announce, ConfigProblem> {
    let Some(section) = root.optional("announce") else { return Ok(Announce::default()) };
    let table = section.table("[announce]")?;
    table.allow_only(&["l2", "routes"])?;
    Ok(Announce {
        l2: switched(
            &table,
            "l2",
            "true, or { priority = 100 } if another box stands in for this one",
            L2,
            l2,
        )?,
        routes: switched(&table, "routes", "true, or a table such as { table = 83 }", ROUTES, routes)?,
    })
}

/// What is `true` with every default, `false` or absent, or a table of keys.
fn switched<'d, T>(
    section: &Table<'d>,
    key: &str,
    example: &str,
    default: T,
    read: impl Fn(&Table<'d>, T) -> Result<T, ConfigProblem>,
) -> Result<Option<T>, ConfigProblem> {
    let Some(value) = section.optional(key) else { return Ok(None) };
    match value.boolean() {
        Ok(on) => Ok(on.then_some(default)),
        Err(_) => read(&value.table(example)?, default).map(Some),
    }
}

fn l2(table: &Table<'_>, default: AnnounceL2) -> Result<AnnounceL2, ConfigProblem> {
    table.allow_only(&["interval", "priority", "group", "advertise_interval", "preempt"])?;
    let interval = |value: &Value<'_>| value::duration(value, ANNOUNCE_INTERVAL);
    Ok(AnnounceL2 {
        interval: or_default(table, "interval", default.interval, interval)?,
        election: election(table)?,
    })
}

/// The priority makes an election of it; without one, the other keys of an election mean a forgotten priority.
fn election(table: &Table<'_>) -> Result<Option<Election>, ConfigProblem> {
    let Some(priority) = table.optional("priority") else {
        let keys = ["group", "advertise_interval", "preempt"];
        let Some((key, value)) = keys.iter().find_map(|key| Some((key, table.optional(key)?))) else {
            return Ok(None);
        };
        return Err(value.problem(format!(
            "`{key}` is for two boxes that stand in for one another; add priority = 100, or remove it"
        )));
    };
    Ok(Some(Election {
        priority: byte(&priority, VRRP_PRIORITY)?,
        group: or_default(table, "group", 1, |value| byte(value, VRRP_GROUP))?,
        advertise_interval: or_default(table, "advertise_interval", ADVERTISE, advertise_interval)?,
        preempt: or_default(table, "preempt", true, Value::boolean)?,
    }))
}

/// The field of an advertisement counts hundredths of a second.
fn advertise_interval(value: &Value<'_>) -> Result<Duration, ConfigProblem> {
    let interval = value::duration(value, ADVERTISE_INTERVAL)?;
    if interval.subsec_nanos() % 10_000_000 == 0 {
        return Ok(interval);
    }
    Err(value.problem("VRRP counts hundredths of a second; write one such as \"200ms\""))
}

fn routes(table: &Table<'_>, default: AnnounceRoutes) -> Result<AnnounceRoutes, ConfigProblem> {
    table.allow_only(&["table", "protocol", "require_backend", "withdraw_delay", "on_stop"])?;
    let delay = |value: &Value<'_>| value::duration(value, WITHDRAW_DELAY);
    let on_stop = |value: &Value<'_>| value.one_of(&[("withdraw", OnStop::Withdraw), ("keep", OnStop::Keep)]);
    Ok(AnnounceRoutes {
        table: or_default(table, "table", default.table, routing_table)?,
        protocol: or_default(table, "protocol", default.protocol, protocol)?,
        require_backend: or_default(table, "require_backend", default.require_backend, Value::boolean)?,
        withdraw_delay: or_default(table, "withdraw_delay", default.withdraw_delay, delay)?,
        on_stop: or_default(table, "on_stop", default.on_stop, on_stop)?,
    })
}

fn routing_table(value: &Value<'_>) -> Result<u32, ConfigProblem> {
    let number = value.integer(ROUTE_TABLE)?;
    match OWN_TABLES.iter().find(|(table, _)| *table == number) {
        Some((_, name)) => Err(value.problem(format!(
            "{number} is the table `{name}`, by which this box routes its own packets; write another, such as {TABLE}"
        ))),
        None => Ok(number),
    }
}

fn protocol(value: &Value<'_>) -> Result<u8, ConfigProblem> {
    let number = byte(value, ROUTE_PROTOCOL)?;
    match TAKEN.iter().find(|(numbers, _)| numbers.contains(&number)) {
        Some((_, owner)) => Err(value.problem(format!(
            "{number} marks the routes of {owner}; write a number of Shunt's own, such as {PROTOCOL}"
        ))),
        None => Ok(number),
    }
}

fn byte(value: &Value<'_>, range: RangeInclusive<u32>) -> Result<u8, ConfigProblem> {
    Ok(u8::try_from(value.integer(range)?).expect("the range fits"))
}

#[cfg(test)]
mod tests;
