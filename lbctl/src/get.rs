//! `lbctl get`: services and backends as the control plane has them, NICs as the dataplane has them.
//!
//! With a name, the exit code also says whether the thing named is healthy.

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;
use shunt_api::client::Client;
use shunt_api::status::{BackendView, DataplaneStatus, NicStatus, ServiceView};

use crate::Outcome;
use crate::output::{self, Align, Columns, Format};

/// What to list.
#[derive(Subcommand)]
pub enum What {
    /// Services: what clients can reach, and how many backends can serve it.
    #[command(after_help = "Example: lbctl get services web")]
    Services {
        /// Only this service; exit code 1 if none of its backends is usable.
        name: Option<String>,
    },
    /// Backends: where connections go, which are up, and whether the way there is open.
    #[command(after_help = "Example: lbctl get backends web1 -o json")]
    Backends {
        /// Only backends of this name or address; exit code 1 if one is down or the way to it is not open.
        name: Option<String>,
    },
    /// NICs: how the dataplane is attached, and what was lost before a worker saw it.
    #[command(after_help = "Example: lbctl get nics eth1")]
    Nics {
        /// Only this NIC; exit code 1 if its link is down.
        name: Option<String>,
    },
}

/// Something that can be listed.
trait Listed: Serialize {
    /// One of them, in a sentence.
    const NOUN: &'static str;
    /// What a person may call it by.
    fn names(&self) -> Vec<String>;
    /// Whether it does its work.
    fn is_well(&self) -> bool;
    /// All of them for a person to read.
    fn table(all: &[Self]) -> String
    where
        Self: Sized;
}

/// Lists what was asked for.
pub async fn run(
    what: What,
    control: &Client,
    dataplane: &Client,
    format: Format,
) -> anyhow::Result<Outcome> {
    match what {
        What::Services { name } => {
            list::<ServiceView>(control.get("/v1/services").await?, name.as_deref(), format)
        }
        What::Backends { name } => {
            list::<BackendView>(control.get("/v1/backends").await?, name.as_deref(), format)
        }
        What::Nics { name } => {
            let status: DataplaneStatus = dataplane.get("/v1/status").await?;
            list(status.nics, name.as_deref(), format)
        }
    }
}

fn list<T: Listed>(mut all: Vec<T>, name: Option<&str>, format: Format) -> anyhow::Result<Outcome> {
    if let Some(name) = name {
        let known: Vec<String> = all.iter().flat_map(Listed::names).collect();
        all.retain(|one| one.names().iter().any(|known| known == name));
        if all.is_empty() {
            anyhow::bail!(not_found(T::NOUN, name, &known));
        }
    }
    match format {
        Format::Json => output::print_json(&all)?,
        Format::Table => output::print(&T::table(&all))?,
    }
    Ok(Outcome::well_if(name.is_none() || all.iter().all(Listed::is_well)))
}

fn not_found(noun: &str, name: &str, known: &[String]) -> String {
    let nearest = known.iter().max_by(|a, b| {
        strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)).then_with(|| b.cmp(a))
    });
    match nearest {
        Some(nearest) => format!("there is no {noun} `{name}`; the nearest is `{nearest}`"),
        None => format!("there is no {noun} `{name}`, nor any other"),
    }
}

impl Listed for ServiceView {
    const NOUN: &'static str = "service";

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn is_well(&self) -> bool {
        self.backends_usable > 0
    }

    fn table(all: &[Self]) -> String {
        let mut columns = Columns::new(&[
            ("SERVICE", Align::Left),
            ("VIP", Align::Left),
            ("PORT", Align::Left),
            ("POOL", Align::Left),
            ("USABLE", Align::Right),
        ]);
        for service in all {
            columns.row(vec![
                service.name.clone(),
                service.vip.to_string(),
                service.port.to_string(),
                service.pool.clone(),
                format!("{}/{}", service.backends_usable, service.backends_total),
            ]);
        }
        columns.text()
    }
}

impl Listed for BackendView {
    const NOUN: &'static str = "backend";

    fn names(&self) -> Vec<String> {
        vec![self.name.clone(), self.address.to_string()]
    }

    fn is_well(&self) -> bool {
        matches!(self.state.as_str(), "reachable" | "draining")
    }

    fn table(all: &[Self]) -> String {
        let mut columns = Columns::new(&[
            ("POOL", Align::Left),
            ("BACKEND", Align::Left),
            ("ADDRESS", Align::Left),
            ("MODE", Align::Left),
            ("WEIGHT", Align::Right),
            ("STATE", Align::Left),
            ("VIA", Align::Left),
            ("FLOWS", Align::Right),
        ]);
        for backend in all {
            columns.row(vec![
                backend.pool.clone(),
                backend.name.clone(),
                backend.address.to_string(),
                backend.mode.to_string(),
                backend.weight.to_string(),
                backend.state.clone(),
                via(backend),
                backend.flows.to_string(),
            ]);
        }
        let mut text = columns.text();
        for backend in all.iter().filter(|backend| backend.state == "down") {
            let _ = writeln!(text, "{} of pool {} is down{}", backend.name, backend.pool, why(backend));
        }
        text
    }
}

/// Since when a backend is down, and why.
fn why(backend: &BackendView) -> String {
    let health = backend.health.as_ref();
    let since = health.and_then(|health| health.since_ms).map(|since| format!(" since {since}"));
    let reason = health.and_then(|health| health.reason.as_ref()).map(|reason| format!(": {reason}"));
    since.unwrap_or_default() + &reason.unwrap_or_default()
}

/// The NIC packets leave by, their VLAN if they are tagged, and the router if there is one between.
fn via(backend: &BackendView) -> String {
    let Some(hop) = &backend.next_hop else { return "-".to_owned() };
    let vlan = hop.vlan.map(|id| format!(" vlan {id}")).unwrap_or_default();
    let gateway = hop.gateway.map(|gateway| format!(" {gateway}")).unwrap_or_default();
    format!("{}{vlan}{gateway}", hop.nic)
}

impl Listed for NicStatus {
    const NOUN: &'static str = "NIC";

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn is_well(&self) -> bool {
        self.up
    }

    fn table(all: &[Self]) -> String {
        let mut columns = Columns::new(&[
            ("NIC", Align::Left),
            ("LINK", Align::Left),
            ("XDP", Align::Left),
            ("QUEUES", Align::Right),
            ("MTU", Align::Right),
            ("REDIRECTED", Align::Right),
            ("PASSED", Align::Right),
            ("LOST", Align::Right),
        ]);
        for nic in all {
            columns.row(vec![
                nic.name.clone(),
                if nic.up { "up" } else { "down" }.to_owned(),
                attachment(nic),
                nic.queues.to_string(),
                nic.mtu.to_string(),
                nic.xdp_packets.redirected.to_string(),
                nic.xdp_packets.passed.to_string(),
                losses(nic).iter().map(|(number, _)| number).sum::<u64>().to_string(),
            ]);
        }
        let mut text = columns.text();
        for nic in all {
            for (number, why) in losses(nic).into_iter().filter(|(number, _)| *number > 0) {
                let _ = writeln!(text, "{}: {number} lost: {why}", nic.name);
            }
        }
        text
    }
}

/// How the dataplane is attached to a NIC: `native zero-copy`.
pub fn attachment(nic: &NicStatus) -> String {
    format!("{} {}", nic.xdp, if nic.zero_copy { "zero-copy" } else { "copy" })
}

/// What a NIC lost before or after the workers, with what it means.
fn losses(nic: &NicStatus) -> [(u64, &'static str); 7] {
    let (xdp, sockets) = (&nic.xdp_packets, &nic.sockets);
    [
        (xdp.dropped_no_socket, "no worker serves the queue; is the dataplane running with all queues?"),
        (xdp.dropped_no_headroom, "the driver leaves no room for a tunnel header; try xdp = \"generic\""),
        (xdp.dropped_bad_source_mac, "the Ethernet source was a group address, which no sender may use"),
        (sockets.rx_dropped, "the kernel could not hand the packet to the socket"),
        (
            sockets.rx_ring_full,
            "a worker did not empty its ring in time; serve more queues or raise ring_size",
        ),
        (sockets.rx_fill_ring_empty, "the kernel had no free frame; raise ring_size"),
        (sockets.tx_invalid, "the kernel refused to transmit a frame; please report this"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_leads_to_the_nearest() {
        let known = ["web".to_owned(), "dns".to_owned()];
        assert_eq!(not_found("service", "wbe", &known), "there is no service `wbe`; the nearest is `web`");
        assert_eq!(not_found("service", "web", &[]), "there is no service `web`, nor any other");
    }
}
