//! The section `[nat]`, and what mode `nat` asks of services and their pools.

use std::collections::HashMap;
use std::net::IpAddr;

use super::consistency::{Listeners, Listening, PoolRead, Pools, distinct};
use super::document::{Table, Value};
use super::{MAX_FLOWS, NAT_SOURCES_MAX, at_most, or_default, value};
use crate::snapshot::Nat;
use crate::status::ConfigProblem;

/// The section `[nat]` with the places of its addresses.
pub struct Section<'d> {
    max_flows_v4: u32,
    max_flows_v6: u32,
    sources: Vec<(IpAddr, Value<'d>)>,
    list: Option<Value<'d>>,
}

/// Reads the section; without it there is no source, and the sizes are the usual ones.
pub fn read<'d>(root: &Table<'d>) -> Result<Section<'d>, ConfigProblem> {
    let mut read = Section { max_flows_v4: 250_000, max_flows_v6: 100_000, sources: Vec::new(), list: None };
    let Some(section) = root.optional("nat") else { return Ok(read) };
    let table = section.table("[nat]")?;
    table.allow_only(&["sources", "max_flows_v4", "max_flows_v6"])?;
    let flows = |value: &Value<'_>| value.integer(MAX_FLOWS);
    read.max_flows_v4 = or_default(&table, "max_flows_v4", read.max_flows_v4, flows)?;
    read.max_flows_v6 = or_default(&table, "max_flows_v6", read.max_flows_v6, flows)?;
    read.list = table.optional("sources");
    if let Some(list) = &read.list {
        let elements = list.one_or_more("[\"10.0.1.250\"]")?;
        let elements = at_most(list, elements, NAT_SOURCES_MAX, "addresses")?;
        read.sources = distinct(elements, value::address, |source| *source)?;
    }
    Ok(read)
}

impl<'d> Section<'d> {
    /// Refuses a service that asks of its backends what their modes cannot do.
    pub fn refuse_misfit(&self, listening: &Listening<'_>, pool: &PoolRead<'_>) -> Result<(), ConfigProblem> {
        refuse_targets(listening, pool)?;
        refuse_other_family(listening, pool)?;
        self.refuse_without_source(listening, pool)
    }

    /// A translated flow comes from an address of the family of its VIP.
    fn refuse_without_source(
        &self,
        listening: &Listening<'_>,
        pool: &PoolRead<'_>,
    ) -> Result<(), ConfigProblem> {
        for (vip, value) in &listening.vips {
            let Some((backend, _)) = pool.first_nat(vip.is_ipv4()) else { continue };
            if !self.sources.iter().any(|(source, _)| source.is_ipv4() == vip.is_ipv4()) {
                let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
                return Err(value.problem(format!(
                    "backend `{}` of pool `{}` is of mode nat, and flows to it need an {family} address to come \
                     from; add one that is routed to this box to sources in [nat]",
                    backend.name, pool.name
                )));
            }
        }
        Ok(())
    }

    /// Replies to a source that is a VIP, or that another machine has, would not be told apart or not arrive.
    pub fn refuse_taken_sources(
        &self,
        listeners: &Listeners,
        pools: &Pools<'_>,
    ) -> Result<(), ConfigProblem> {
        let advice = "write an unused address that is routed to this box";
        for (source, value) in &self.sources {
            if let Some(service) = listeners.owner(source) {
                return Err(value.problem(format!("{source} is a VIP of service `{service}`; {advice}")));
            }
        }
        let values: HashMap<&IpAddr, &Value<'_>> =
            self.sources.iter().map(|(source, value)| (source, value)).collect();
        for (pool, backend) in pools.backends() {
            if let Some(value) = values.get(&backend.address) {
                let (source, name) = (backend.address, &backend.name);
                return Err(
                    value.problem(format!("{source} is backend `{name}` of pool `{}`; {advice}", pool.name))
                );
            }
        }
        Ok(())
    }

    /// Addresses that flows come from, with their places.
    pub fn sources(&self) -> impl Iterator<Item = &(IpAddr, Value<'d>)> {
        self.sources.iter()
    }

    /// Sources without a use. A cluster's Services may choose mode nat at any time.
    pub fn warning(&self, pools: &Pools<'_>) -> Option<ConfigProblem> {
        let list = self.list.as_ref().filter(|_| !pools.have_nat())?;
        Some(list.problem("nothing uses these addresses, because no backend is of mode nat"))
    }

    /// The section without its places.
    pub fn into_nat(self) -> Nat {
        Nat {
            sources: self.sources.into_iter().map(|(source, _)| source).collect(),
            max_flows_v4: self.max_flows_v4,
            max_flows_v6: self.max_flows_v6,
        }
    }
}

/// Modes `dr` and `ipip` deliver the client's packet as it is, and so to the port that the client used.
fn refuse_targets(listening: &Listening<'_>, pool: &PoolRead<'_>) -> Result<(), ConfigProblem> {
    let with_target = listening.ports.iter().find(|(mapping, _)| mapping.target.is_some());
    let Some(((mapping, value), (backend, _))) = with_target.zip(pool.first_not_nat()) else { return Ok(()) };
    let (name, mode, port) = (&backend.name, backend.mode, mapping.port);
    Err(value.problem(format!(
        "backend `{name}` of pool `{}` is of mode {mode}, and dr and ipip cannot change the port; write \"{port}\", \
         or give the service a pool of mode nat",
        pool.name
    )))
}

fn refuse_other_family(listening: &Listening<'_>, pool: &PoolRead<'_>) -> Result<(), ConfigProblem> {
    for (vip, _) in &listening.vips {
        if let Some((_, value)) = pool.first_nat(!vip.is_ipv4()) {
            return Err(value.problem(format!(
                "nat cannot change the family: service `{}` has VIP {vip}; use a service and pool per family",
                listening.service
            )));
        }
    }
    Ok(())
}
