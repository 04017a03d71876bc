//! The tables `[pools.NAME]`.

use super::consistency::{Pools, Unique};
use super::document::{Table, Value};
use super::{BACKENDS_MAX, Backend, POOLS_MAX, WEIGHT, at_most, check, or_default, value};
use crate::snapshot::Mode;
use crate::status::ConfigProblem;

/// Reads every pool.
pub fn read<'d>(root: &Table<'d>) -> Result<Pools<'d>, ConfigProblem> {
    let mut pools = Pools::default();
    let example = "[pools.web] with backends = [{ name = \"web1\", address = \"10.0.1.11\" }]";
    let Some(section) = root.optional("pools") else { return Ok(pools) };
    let entries = section.table(example)?.entries();
    if entries.len() > POOLS_MAX {
        let (key, _) = &entries[POOLS_MAX];
        return Err(key.problem(format!("this is one pool too many; keep at most {POOLS_MAX}")));
    }
    for (key, value) in &entries {
        let name = value::key_name(key)?;
        let table = value.table(example)?;
        table.allow_only(&["mode", "backends", "check", "on_down", "slow_start"])?;
        let mode = or_default(&table, "mode", Mode::default(), value::mode)?;
        let list = table.optional("backends");
        let backends = list.as_ref().map_or(Ok(Vec::new()), |list| backends(list, mode))?;
        let health = check::health(&table, mode, backends.iter().map(|(backend, _)| backend))?;
        pools.insert(name, list.unwrap_or_else(|| value.clone()), backends, health);
    }
    Ok(pools)
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
