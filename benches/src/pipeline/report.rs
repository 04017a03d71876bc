//! The rows as tables, JSON and charts.

use std::path::Path;

use shunt_tests::error::Result;

use super::Row;
use super::load::{Distribution, Family};
use crate::chart::lines::{Line, LineChart, Stroke, short};
use crate::markdown::{Table, figure};
use crate::results::{write_chart, write_json, write_source};

type Read = fn(&Row) -> Option<f64>;

/// Writes JSON and charts.
pub fn write(rows: &[Row], source: &str, directory: &Path) -> Result<()> {
    write_json(directory, "pipeline", rows)?;
    write_source(directory, "pipeline", source)?;
    for (name, distribution) in [("pipeline", Distribution::Uniform), ("pipeline-zipf", Distribution::Zipf)] {
        write_chart(directory, name, &packets_chart(rows, distribution, source))?;
    }
    write_chart(directory, "new-flows", &new_flows_chart(rows, source))
}

/// All tables.
pub fn markdown(rows: &[Row]) -> String {
    let time: Read = |row| Some(row.ns_per_packet);
    let instructions: Read = |row| row.instructions_per_packet;
    let (new, new_instructions): (Read, Read) = (|row| row.new_flow_ns, |row| row.new_flow_instructions);
    let of =
        |distribution| rows.iter().filter(move |row| row.distribution == distribution).collect::<Vec<_>>();
    let (uniform, zipf) = (of(Distribution::Uniform), of(Distribution::Zipf));
    let first: Vec<_> = uniform.iter().copied().filter(|row| row.new_flow_ns.is_some()).collect();
    [
        ("ns per packet, every flow as often", table(&uniform, time, floor, 1)),
        ("ns per packet, Zipf", table(&zipf, time, floor, 1)),
        (
            "instructions per packet",
            table(&uniform, instructions, |row| row.floor_instructions_per_packet, 0),
        ),
        ("ns per first packet of a flow", table(&first, new, |_| None, 0)),
        ("instructions per first packet of a flow", table(&first, new_instructions, |_| None, 0)),
    ]
    .map(|(title, table)| format!("{title}\n\n{table}"))
    .join("\n")
}

fn floor(row: &Row) -> Option<f64> {
    Some(row.floor_ns_per_packet)
}

/// Kinds of packets downwards, flows across, and how much the last column is of the first.
fn table(rows: &[&Row], read: Read, floor: Read, decimals: usize) -> Table {
    let flows = flows(rows);
    let header = flows.iter().map(|flows| format!("{} flows", short(f64::from(*flows))));
    let mut table = Table::new(std::iter::once(String::new()).chain(header).chain(["growth".to_owned()]));
    let mut line = |label: String, values: Vec<Option<f64>>| {
        let growth = values.first().copied().flatten().zip(values.last().copied().flatten());
        let growth = growth.filter(|_| values.len() > 1).map(|(first, last)| last / first);
        let cells = values.into_iter().map(|value| figure(value, decimals));
        table.row(std::iter::once(label).chain(cells).chain([figure(growth, 2)]));
    };
    for kind in kinds(rows) {
        let value = |flows: &u32| rows.iter().find(|row| row.flows == *flows && kind_of(row) == kind);
        line(name(kind), flows.iter().map(|flows| read(value(flows)?)).collect());
    }
    for family in [Family::V4, Family::V6] {
        let value = |flows: &u32| rows.iter().find(|row| row.flows == *flows && row.family == family);
        let values: Vec<_> = flows.iter().map(|flows| floor(value(flows)?)).collect();
        if values.iter().any(Option::is_some) {
            line(format!("floor, {}", family_name(family)), values);
        }
    }
    table
}

type Kind<'a> = (&'a str, Family);

fn kind_of(row: &Row) -> Kind<'_> {
    (&row.mode, row.family)
}

/// In the order of the rows.
fn kinds<'r>(rows: &[&'r Row]) -> Vec<Kind<'r>> {
    let mut kinds = Vec::new();
    for row in rows {
        if !kinds.contains(&kind_of(row)) {
            kinds.push(kind_of(row));
        }
    }
    kinds
}

fn flows(rows: &[&Row]) -> Vec<u32> {
    let mut flows: Vec<u32> = rows.iter().map(|row| row.flows).collect();
    flows.sort_unstable();
    flows.dedup();
    flows
}

fn name((mode, family): Kind<'_>) -> String {
    let mode = match mode {
        "dr" => "DR",
        "ipip" => "IP-in-IP",
        "nat" => "NAT",
        "nat-return" => "NAT, replies",
        other => other,
    };
    format!("{mode}, {}", family_name(family))
}

fn family_name(family: Family) -> &'static str {
    if family == Family::V4 { "IPv4" } else { "IPv6" }
}

fn stroke((mode, family): Kind<'_>) -> Stroke {
    let colour = ["dr", "ipip", "nat", "nat-return"].iter().position(|known| *known == mode).unwrap_or(0);
    if family == Family::V4 { Stroke::Filled(colour) } else { Stroke::Rings(colour) }
}

fn lines(rows: &[&Row], read: Read) -> Vec<Line> {
    let line = |kind: Kind<'_>| {
        let mut rows: Vec<_> = rows.iter().filter(|row| kind_of(row) == kind).collect();
        rows.sort_by_key(|row| row.flows);
        let points = rows.iter().filter_map(|row| Some((f64::from(row.flows), read(row)?))).collect();
        Line { label: name(kind), stroke: stroke(kind), points }
    };
    kinds(rows).into_iter().map(line).collect()
}

fn packets_chart(rows: &[Row], distribution: Distribution, source: &str) -> LineChart {
    let rows: Vec<_> = rows.iter().filter(|row| row.distribution == distribution).collect();
    let mut all = lines(&rows, |row| Some(row.ns_per_packet));
    let v4: Vec<_> = rows.iter().copied().filter(|row| kind_of(row) == ("dr", Family::V4)).collect();
    all.extend(lines(&v4, floor).pop().map(|line| Line {
        label: "MAC swap only".to_owned(),
        stroke: Stroke::Floor,
        ..line
    }));
    let share = match distribution {
        Distribution::Uniform => "every flow has as many packets",
        Distribution::Zipf => "packets over flows by Zipf's law",
    };
    LineChart {
        title: "Time of a packet by flows in the table".to_owned(),
        subtitle: format!("ns on one core, port in memory, {share}; less is better"),
        source: source.to_owned(),
        axis: "flows".to_owned(),
        lines: all,
    }
}

fn new_flows_chart(rows: &[Row], source: &str) -> LineChart {
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| row.distribution == Distribution::Uniform && row.new_flow_ns.is_some())
        .collect();
    LineChart {
        title: "Time of a flow's first packet by flows in the table".to_owned(),
        subtitle: "ns on one core, port in memory; less is better".to_owned(),
        source: source.to_owned(),
        axis: "flows".to_owned(),
        lines: lines(&rows, |row| row.new_flow_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(mode: &str, flows: u32, ns: f64) -> Row {
        Row {
            mode: mode.to_owned(),
            family: Family::V4,
            flows,
            distribution: Distribution::Uniform,
            ns_per_packet: ns,
            ns_least: ns,
            ns_most: ns,
            instructions_per_packet: None,
            floor_ns_per_packet: 5.0,
            floor_instructions_per_packet: None,
            new_flow_ns: (mode != "nat-return").then_some(80.0),
            new_flow_instructions: None,
        }
    }

    #[test]
    fn kinds_stand_downwards_and_flows_across() {
        let rows = [row("dr", 1000, 20.0), row("dr", 10_000_000, 30.0), row("nat-return", 1000, 40.0)];
        let text = markdown(&rows);
        assert!(text.contains("| DR, IPv4           |      20.0 |       30.0 |   1.50 |"), "{text}");
        assert!(text.contains("| NAT, replies, IPv4 |      40.0 |          – |      – |"), "{text}");
        assert!(text.contains("| floor, IPv4        |       5.0 |        5.0 |   1.00 |"), "{text}");
    }

    #[test]
    fn charts_have_a_line_for_each_kind() {
        let rows = [row("dr", 1000, 20.0), row("dr", 100_000, 30.0), row("nat-return", 1000, 40.0)];
        let labels = |chart: LineChart| chart.lines.into_iter().map(|line| line.label).collect::<Vec<_>>();
        let packets = labels(packets_chart(&rows, Distribution::Uniform, ""));
        assert_eq!(packets, ["DR, IPv4", "NAT, replies, IPv4", "MAC swap only"]);
        assert_eq!(labels(new_flows_chart(&rows, "")), ["DR, IPv4"]);
    }
}
