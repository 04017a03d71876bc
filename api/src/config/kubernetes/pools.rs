//! Pools of addresses for Services, and that nobody else has these addresses. The ranges of all clusters are kept
//! with their places, so that a problem can point at one and name the other.

use std::net::IpAddr;

use super::super::consistency::{Unique, distinct};
use super::super::document::{Table, Value};
use super::super::{
    ADDRESS_POOLS_MAX, POOL_NAMESPACES_MAX, POOL_PRIORITY, POOL_RANGES_MAX, at_most, or_default,
};
use super::{Others, names};
use crate::address_pool::{AddressPool, AddressRange, Selector};
use crate::status::ConfigProblem;

/// Ranges of all pools read so far.
#[derive(Default)]
pub struct Ranges<'d>(Vec<RangeRead<'d>>);

/// A range and its place.
struct RangeRead<'d> {
    range: AddressRange,
    /// What it belongs to, in words.
    pool: String,
    value: Value<'d>,
}

/// How the keys of a pool are written, and how long its lists may be.
pub struct Keys {
    /// Its ranges.
    pub addresses: &'static str,
    /// [`AddressPool::auto_assign`].
    pub auto_assign: &'static str,
    /// [`AddressPool::priority`].
    pub priority: &'static str,
    /// [`AddressPool::namespaces`].
    pub namespaces: &'static str,
    /// [`AddressPool::namespace_selector`].
    pub namespace_selector: &'static str,
    /// [`AddressPool::service_selector`].
    pub service_selector: &'static str,
    /// [`AddressPool::avoid_edges`].
    pub avoid_edges: &'static str,
    /// Most ranges.
    pub ranges_max: usize,
    /// Most namespaces.
    pub namespaces_max: usize,
}

/// As the file writes keys.
const KEYS: Keys = Keys {
    addresses: "addresses",
    auto_assign: "auto_assign",
    priority: "priority",
    namespaces: "namespaces",
    namespace_selector: "namespace_selector",
    service_selector: "service_selector",
    avoid_edges: "avoid_edges",
    ranges_max: POOL_RANGES_MAX,
    namespaces_max: POOL_NAMESPACES_MAX,
};

impl Keys {
    /// All that a pool may have, in the order in which they are told.
    pub fn all(&self) -> [&'static str; 7] {
        [
            self.addresses,
            self.auto_assign,
            self.priority,
            self.namespaces,
            self.namespace_selector,
            self.service_selector,
            self.avoid_edges,
        ]
    }
}

/// Reads the pools of a cluster.
pub fn read<'d>(
    list: &Value<'d>,
    cluster: Option<&str>,
    ranges: &mut Ranges<'d>,
) -> Result<Vec<AddressPool>, ConfigProblem> {
    let example = "{ name = \"public\", addresses = [\"198.51.100.0/24\"] }";
    let elements = at_most(list, list.elements(&format!("[{example}]"))?, ADDRESS_POOLS_MAX, "pools")?;
    let mut names = Unique::default();
    let pool = |element: &Value<'d>| {
        let table = element.table(example)?;
        let name_value = table.required("name", "\"public\"")?;
        let name =
            names.insert(names::label(&name_value, "\"public\"")?, &name_value, "a pool of this cluster")?;
        let shown = match cluster {
            Some(cluster) => format!("pool `{name}` of cluster `{cluster}`"),
            None => format!("pool `{name}` of [kubernetes]"),
        };
        let known: Vec<&str> = ["name"].into_iter().chain(KEYS.all()).collect();
        table.allow_only(&known)?;
        pool(&table, name, &shown, ranges, &KEYS)
    };
    elements.iter().map(pool).collect()
}

/// Reads a pool, whose keys are known to be known. `shown` says in words which one it is.
pub fn pool<'d>(
    table: &Table<'d>,
    name: String,
    shown: &str,
    ranges: &mut Ranges<'d>,
    keys: &Keys,
) -> Result<AddressPool, ConfigProblem> {
    let example = "[\"198.51.100.0/24\"]";
    let addresses = table.required(keys.addresses, example)?;
    let elements = at_most(&addresses, addresses.one_or_more(example)?, keys.ranges_max, "ranges")?;
    let read = distinct(elements, range, |range| *range)?;
    let mut pool = AddressPool::new(name, read.iter().map(|(range, _)| *range).collect());
    ranges.0.extend(read.into_iter().map(|(range, value)| RangeRead { range, pool: shown.into(), value }));
    pool.auto_assign = or_default(table, keys.auto_assign, pool.auto_assign, Value::boolean)?;
    pool.priority = or_default(table, keys.priority, pool.priority, |value| value.integer(POOL_PRIORITY))?;
    pool.namespaces =
        or_default(table, keys.namespaces, Vec::new(), |list| namespaces(list, keys.namespaces_max))?;
    pool.namespace_selector = or_default(table, keys.namespace_selector, Selector::new(), selector)?;
    pool.service_selector = or_default(table, keys.service_selector, Selector::new(), selector)?;
    pool.avoid_edges = or_default(table, keys.avoid_edges, pool.avoid_edges, Value::boolean)?;
    if pool.count(true) == 0 && pool.count(false) == 0 {
        return Err(addresses.problem(format!(
            "every address of the pool ends in .0 or .255, which are not given; add {}, or others",
            addresses.assigned(keys.avoid_edges, "false")
        )));
    }
    Ok(pool)
}

fn range(value: &Value<'_>) -> Result<AddressRange, ConfigProblem> {
    value
        .string("\"198.51.100.0/24\"")?
        .parse()
        .map_err(|error: crate::address_pool::RangeError| value.problem(error.to_string()))
}

fn namespaces(list: &Value<'_>, most: usize) -> Result<Vec<String>, ConfigProblem> {
    let example = "\"default\"";
    let elements = list.one_or_more(&format!("[{example}], or remove the key to serve all"))?;
    let elements = at_most(list, elements, most, "namespaces")?;
    let namespaces = distinct(elements, |value| names::label(value, example), String::clone)?;
    Ok(namespaces.into_iter().map(|(name, _)| name).collect())
}

fn selector(value: &Value<'_>) -> Result<Selector, ConfigProblem> {
    let example = format!("{{ {} }}", value.assigned("team", "\"web\""));
    let table = value.table(&example)?;
    if table.is_empty() {
        return Err(
            value.problem(format!("the selector is empty; write one such as {example}, or remove it"))
        );
    }
    let label = |(key, value)| Ok((names::label_key(&key)?, names::label_value(&value)?));
    table.entries().into_iter().map(label).collect()
}

impl Ranges<'_> {
    /// Puts them in order, and refuses two that have an address in common: it would be given twice. Points at the
    /// one that is further down in the file.
    pub fn refuse_overlap(&mut self) -> Result<(), ConfigProblem> {
        self.0.sort_by_key(|read| read.range);
        // Of ranges in order that overlap, there are neighbours that do.
        let Some([one, other]) = self.0.array_windows().find(|[one, other]| one.range.overlaps(&other.range))
        else {
            return Ok(());
        };
        let place = |read: &RangeRead<'_>| {
            let problem = read.value.problem("");
            (problem.line, problem.column)
        };
        let (first, second) = if place(one) < place(other) { (one, other) } else { (other, one) };
        Err(second.value.problem(format!(
            "{} overlaps {} of {} (line {}); write addresses that no other pool has",
            second.range,
            first.range,
            first.pool,
            first.value.line()
        )))
    }

    /// Refuses ranges with an address that the file gives to something else. They must be in order.
    pub fn refuse_taken(&self, others: &Others<'_, '_>) -> Result<(), ConfigProblem> {
        if self.0.is_empty() {
            return Ok(());
        }
        for service in others.services {
            self.refuse(&service.vips, || format!("a VIP of service `{}`", service.name))?;
        }
        for (pool, backend) in others.pools.backends() {
            self.refuse(&[backend.address], || {
                format!("backend `{}` of pool `{}`", backend.name, pool.name)
            })?;
        }
        for (source, _) in others.nat.sources() {
            self.refuse(&[*source], || "in sources of [nat]".into())?;
        }
        Ok(())
    }

    fn refuse(&self, addresses: &[IpAddr], what: impl Fn() -> String) -> Result<(), ConfigProblem> {
        let Some((address, read)) =
            addresses.iter().find_map(|address| Some((address, self.with(*address)?)))
        else {
            return Ok(());
        };
        let what = what();
        Err(read.value.problem(format!(
            "{} of {} contains {address}, which is {what}; leave it out, as in a range before and one behind it",
            read.range, read.pool
        )))
    }

    /// The range that an address lies in.
    fn with(&self, address: IpAddr) -> Option<&RangeRead<'_>> {
        let behind = self.0.partition_point(|read| read.range.first() <= address);
        self.0[..behind].last().filter(|read| read.range.contains(address))
    }
}
