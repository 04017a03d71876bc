//! The demo's tables.

use std::collections::BTreeSet;
use std::io;

use comfy_table::{CellAlignment, Table, presets};

use crate::client::{Answered, Transfer};
use crate::decapsulator::Decapsulated;
use crate::topology::Topology;

/// Connections by backend: how it is reached, how many it served, and as whom it saw the client.
pub fn connections(topology: &Topology, answers: &[io::Result<Answered>], tunnels: &[Decapsulated]) -> Table {
    let mut table = table(["backend", "mode", "IPv4", "IPv6", "client addresses the backend saw"]);
    let dr = topology.dr.iter().map(|node| (node, "dr".to_owned()));
    let far =
        topology.far.iter().zip(tunnels).map(|(node, tunnel)| (node, format!("ipip {}", kinds(tunnel))));
    for (node, mode) in dr.chain(far) {
        let served: Vec<_> = answers.iter().flatten().filter(|a| a.answer.server == node.name).collect();
        let v4 = served.iter().filter(|answered| answered.vip.is_ipv4()).count();
        let clients: BTreeSet<_> = served.iter().map(|answered| answered.answer.client).collect();
        let clients: Vec<_> = clients.iter().map(ToString::to_string).collect();
        let (v4, v6) = (v4.to_string(), (served.len() - v4).to_string());
        table.add_row([node.name.clone(), mode, v4, v6, clients.join(" ")]);
    }
    numbers(&mut table, [2, 3]);
    table
}

/// The kinds of tunnel that packets came by, as the backend itself counted them.
fn kinds(tunnel: &Decapsulated) -> String {
    let kinds = [
        ("4in4", tunnel.four_in_four),
        ("6in4", tunnel.six_in_four),
        ("4in6", tunnel.four_in_six),
        ("6in6", tunnel.six_in_six),
        ("malformed", tunnel.malformed),
    ];
    let seen = kinds.into_iter().filter(|(_, packets)| *packets > 0).map(|(kind, _)| kind);
    seen.collect::<Vec<_>>().join(" ")
}

/// Transfers by backend.
pub fn transfers(topology: &Topology, transfers: &[Transfer], removed: &str) -> Table {
    let mut table = table(["backend", "transfers", "whole", "broken", ""]);
    for node in topology.nodes() {
        let own: Vec<_> = transfers.iter().filter(|t| t.server.as_deref() == Some(&node.name)).collect();
        let broken = own.iter().filter(|transfer| transfer.broken.is_some()).count();
        let (all, whole, broken) =
            (own.len().to_string(), (own.len() - broken).to_string(), broken.to_string());
        let remark = if node.name == removed { "removed, its transfers with it" } else { "" };
        table.add_row([node.name.clone(), all, whole, broken, remark.to_owned()]);
    }
    numbers(&mut table, [1, 2, 3]);
    table
}

/// Connections without an answer, and answers to another client than the one that asked.
pub fn unanswered(answers: &[io::Result<Answered>]) -> Vec<String> {
    let problem = |answer: &io::Result<Answered>| match answer {
        Ok(answered) if answered.is_faithful() => None,
        Ok(answered) => Some(format!("a backend saw another client or VIP: {answered:?}")),
        Err(error) => Some(format!("a connection got no answer: {error}")),
    };
    answers.iter().filter_map(problem).collect()
}

/// Connections that a backend answered.
pub fn served(answers: &[io::Result<Answered>], backend: &str) -> usize {
    answers.iter().flatten().filter(|answered| answered.answer.server == backend).count()
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn numbers(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
