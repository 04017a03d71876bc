//! In words: what a NIC will do for Shunt, and what would make it do more. Pure.

use serde::Serialize;

use crate::files::cpu_list;
use crate::host::Cpus;
use crate::kernel::NicState;
use crate::profile::{self, Pitfall, Profile};
use crate::setting::{Coalescing, Item, Value};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works, and could work better.
    Advice,
    /// Does not work, or far worse than it should.
    Problem,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub subject: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// What to do, if anything.
    pub remedy: Option<String>,
}

/// An interface's findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Its name.
    pub nic: String,
    /// The worst of its findings.
    pub severity: Severity,
    /// In a fixed order.
    pub findings: Vec<Finding>,
    /// What went wrong elsewhere with this driver.
    pub pitfalls: Vec<Pitfall>,
}

/// Largest packet that fits one piece of the dataplane's packet memory (2048 bytes less headroom, an outer
/// header and the Ethernet header).
const ONE_PIECE_MTU: u32 = 1730;

fn good(subject: &'static str, what: impl Into<String>) -> Finding {
    Finding { subject, severity: Severity::Good, what: what.into(), remedy: None }
}

fn advice(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { subject, severity: Severity::Advice, what: what.into(), remedy: Some(remedy.into()) }
}

fn problem(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { subject, severity: Severity::Problem, what: what.into(), remedy: Some(remedy.into()) }
}

/// Examines an interface.
pub fn diagnose(state: &NicState, cpus: &Cpus) -> Diagnosis {
    let profile = profile::of(state.nic.driver.as_deref());
    let mut findings = vec![link(state), driver(state, profile), mode(state, profile)];
    findings.push(pieces(state, profile));
    findings.push(queues(state, cpus));
    findings.extend(spread(state));
    findings.push(checksums(profile));
    findings.extend(offloads(state, profile));
    findings.extend(interrupts(state));
    findings.extend(memory(state, cpus));
    Diagnosis {
        nic: state.nic.name.clone(),
        severity: findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Good),
        findings,
        pitfalls: profile.map(|profile| profile.pitfalls.clone()).unwrap_or_default(),
    }
}

fn link(state: &NicState) -> Finding {
    let name = &state.nic.name;
    match (state.nic.up, state.nic.carrier) {
        (false, _) => advice("link", "is down", format!("ip link set {name} up, or up = true in nic.toml")),
        (true, Some(false)) => {
            advice("link", "is up without a carrier", "look at the cable and the other end")
        }
        (true, _) => good("link", "is up"),
    }
}

fn driver(state: &NicState, profile: Option<&Profile>) -> Finding {
    match (&state.nic.driver, profile) {
        (Some(driver), Some(_)) => good("driver", format!("{driver}, which is known here")),
        (Some(driver), None) => {
            good("driver", format!("{driver}, of which nothing is known here but what the kernel tells"))
        }
        (None, _) => good("driver", "does not tell its name"),
    }
}

/// Native or generic, zero-copy or copy.
fn mode(state: &NicState, profile: Option<&Profile>) -> Finding {
    let by_profile = profile.is_some_and(|profile| profile.zero_copy);
    let Some(xdp) = &state.nic.xdp else {
        let likely =
            if by_profile { "native with zero-copy is likely" } else { "native with copying is likely" };
        let what = format!("the kernel is too old to tell (before 6.3); by its driver, {likely}");
        return advice("mode", what, "start Shunt and see `lbctl get nics`, or run a newer kernel");
    };
    let has = |feature: &str| xdp.features.iter().any(|known| known == feature);
    if !has("basic") {
        return problem(
            "mode",
            "generic: the driver has no XDP, so every frame is copied and becomes a kernel packet first",
            "use a NIC whose driver has native XDP; docs/nic-config.md names some",
        );
    }
    if has("xsk-zerocopy") {
        return good("mode", "native with zero-copy: the NIC writes frames where Shunt reads them");
    }
    let what = "native with copying: every frame is copied once each way";
    let remedy = if by_profile {
        "newer kernels have zero-copy for this driver"
    } else {
        "nothing to set; NICs with zero-copy are told in docs/nic-config.md"
    };
    advice("mode", what, remedy)
}

/// Frames of more than one piece.
fn pieces(state: &NicState, profile: Option<&Profile>) -> Finding {
    let mtu = state.nic.mtu.unwrap_or_default();
    let xdp = state.nic.xdp.as_ref();
    let has = |feature: &str| xdp.is_some_and(|xdp| xdp.features.iter().any(|known| known == feature));
    let segments = xdp.and_then(|xdp| xdp.zero_copy_segments_max);
    let zero_copy_pieces =
        segments.map_or(profile.is_some_and(|profile| profile.multi_buffer), |max| max > 1);
    if mtu <= ONE_PIECE_MTU {
        return good("frames", format!("MTU {mtu} fits one piece of packet memory"));
    }
    if has("xsk-zerocopy") && !zero_copy_pieces {
        let what =
            format!("with MTU {mtu} zero-copy may be refused: the driver takes frames of one piece only");
        return advice(
            "frames",
            what,
            format!("mtu = {ONE_PIECE_MTU} in nic.toml, or zero_copy = \"off\" in shunt.toml"),
        );
    }
    if !has("rx-sg") {
        let what =
            format!("MTU {mtu} needs frames in several pieces, which the driver does not have for XDP");
        return problem("frames", what, format!("mtu = {ONE_PIECE_MTU} in nic.toml"));
    }
    let many = segments.filter(|max| *max > 1).map(|max| format!(", up to {max} in zero-copy mode"));
    good("frames", format!("MTU {mtu} is taken, in several pieces if need be{}", many.unwrap_or_default()))
}

fn queues(state: &NicState, cpus: &Cpus) -> Finding {
    let Some(queues) = state.nic.rx_queues() else {
        return good("queues", "the driver does not tell; Shunt takes them to be one");
    };
    let online = cpus.online.len() as u32;
    if queues > online {
        let what = format!("{queues} receive queues, each with a worker, and {online} CPUs");
        return advice("queues", what, format!("queues = {online} or fewer in nic.toml"));
    }
    good("queues", format!("{queues} receive queues, each with a worker"))
}

fn spread(state: &NicState) -> Option<Finding> {
    let Value::Table(table) = state.values.get(&Item::RssTable)? else { return None };
    let queues = state.nic.rx_queues()?;
    let idle: Vec<u32> = (0..queues).filter(|queue| !table.contains(queue)).collect();
    if idle.is_empty() {
        return Some(good("RSS", "spreads packets over all queues"));
    }
    let steered = state.values.values().any(|value| matches!(value, Value::Rule(_)));
    let idle = cpu_list(&idle);
    Some(match steered {
        true => good("RSS", format!("gives queue {idle} nothing; steering rules do")),
        false => {
            advice("RSS", format!("gives queue {idle} nothing"), format!("spread = {queues} in nic.toml"))
        }
    })
}

fn checksums(profile: Option<&Profile>) -> Finding {
    if profile.is_some_and(|profile| profile.name == "veth") {
        return advice(
            "checksums",
            "packets made on this host arrive with unfinished checksums, and Shunt does not finish them",
            "ethtool -K PEER tx off, at the other end",
        );
    }
    good("checksums", "Shunt writes them itself, so none is left to the NIC")
}

/// What the profile wants off and the driver has on.
fn offloads(state: &NicState, profile: Option<&Profile>) -> Vec<Finding> {
    let is_on = |item: &Item| state.values.get(item) == Some(&Value::Switch(true));
    let wanted_off = profile.map(|profile| profile.off.clone()).unwrap_or_default();
    let features = wanted_off.into_iter().map(Item::Feature);
    let adaptive = [Coalescing::AdaptiveRx, Coalescing::AdaptiveTx].map(Item::Coalesce);
    let finding = |item: Item| {
        let remedy = "a [[nic]] for it in nic.toml, then `nic-config apply`";
        match &item {
            Item::Feature(name) if name == "rx-lro" => {
                problem("offloads", "LRO is on: packets are merged, and most drivers refuse XDP", remedy)
            }
            item => advice("offloads", format!("{item} is on, and Shunt wants it off"), remedy),
        }
    };
    features.chain(adaptive).filter(is_on).map(finding).collect()
}

fn interrupts(state: &NicState) -> Option<Finding> {
    let first = state.irqs.first()?;
    let several = state.irqs.iter().any(|irq| irq.queue != first.queue);
    if several && state.irqs.iter().all(|irq| irq.cpus == first.cpus) {
        let what = format!("those of all queues may go to the same CPUs ({})", first.cpus);
        return Some(advice("interrupts", what, "irq_cpus = [...] in nic.toml"));
    }
    Some(good("interrupts", "each queue's has CPUs of its own, as far as there are several"))
}

fn memory(state: &NicState, cpus: &Cpus) -> Option<Finding> {
    let node = state.nic.numa_node?;
    let near = cpu_list(cpus.nodes.get(&node)?);
    Some(good(
        "memory",
        format!("next to node {node}; its CPUs are {near}, which suit irq_cpus here and cores in shunt.toml"),
    ))
}

/// For people.
pub fn text(diagnoses: &[Diagnosis]) -> String {
    let blocks: Vec<String> = diagnoses.iter().map(block).collect();
    let proof = "What a NIC really gave Shunt is told by `lbctl get nics` once the dataplane runs.";
    [blocks.join("\n\n"), proof.to_owned()].join("\n\n")
}

fn block(diagnosis: &Diagnosis) -> String {
    let mut lines = vec![diagnosis.nic.clone()];
    for finding in &diagnosis.findings {
        let mark = match finding.severity {
            Severity::Good => "ok",
            Severity::Advice => "advice",
            Severity::Problem => "PROBLEM",
        };
        lines.push(format!("  {mark:<8} {:<11} {}", finding.subject, finding.what));
        lines.extend(finding.remedy.as_ref().map(|remedy| format!("  {:<8} {:<11} -> {remedy}", "", "")));
    }
    if !diagnosis.pitfalls.is_empty() {
        lines.push("  known of this driver:".to_owned());
    }
    for Pitfall { what, remedy, source } in &diagnosis.pitfalls {
        lines.push(format!("  - {what}\n    -> {remedy}  {source}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests;
