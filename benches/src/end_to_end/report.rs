//! The results as tables, JSON and charts.

use std::path::Path;

use shunt_tests::error::Result;

use super::connections::Connections;
use super::packets::{Latency, Packets, SIZES};
use super::subject::{CONNECTED, Subject};
use crate::chart::{Bar, Chart, Group, Scale};
use crate::markdown::grouped;
use crate::results::{write_chart, write_json, write_source};
use crate::terminal;

/// Prints and writes what the forwarders did.
pub fn packets(packets: &Packets, source: &str, directory: &Path) -> Result<()> {
    let mut rows = Vec::new();
    for points in packets.throughput.chunks(SIZES.len()) {
        let figures = points
            .iter()
            .flat_map(|point| [grouped(point.packets_per_second), format!("{:.2}", point.ratio_to_floor)]);
        rows.push(std::iter::once(label(points[0].subject)).chain(figures).collect());
    }
    let header = ["packets/s", "64 bytes", "to floor", "512 bytes", "to floor", "1500 bytes", "to floor"];
    terminal::print(&header, rows);
    write_json(directory, "end-to-end", &packets.throughput)?;
    write_source(directory, "end-to-end", source)?;
    write_chart(directory, "end-to-end", &throughput_chart(packets, source))
}

/// Prints and writes what the clients saw.
pub fn connections(connections: &Connections, source: &str, directory: &Path) -> Result<()> {
    let rows = connections.throughput.iter().map(|point| {
        let per_second = grouped(point.connections_per_second);
        vec![label(point.subject), per_second, format!("{:.2}", point.ratio_to_direct)]
    });
    terminal::print(&["connections/s", "", "to direct"], rows);
    write_json(directory, "connections", &connections.throughput)?;
    write_source(directory, "connections", source)?;
    let bars = connections.throughput.iter().map(|point| {
        let text = format!("{}  ({:.2})", grouped(point.connections_per_second), point.ratio_to_direct);
        bar(point.subject, point.connections_per_second, text)
    });
    let chart = Chart {
        title: "Connections per second".to_owned(),
        subtitle:
            "TCP connection, one small HTTP request, close; more is better; in brackets: to no load balancer"
                .to_owned(),
        source: source.to_owned(),
        scale: Scale::Linear,
        groups: vec![Group { label: String::new(), bars: bars.collect() }],
    };
    write_chart(directory, "connections", &chart)
}

/// Prints and writes how long packets and connections took.
pub fn latency(points: &[Latency], source: &str, directory: &Path) -> Result<()> {
    for of in ["packet", "connection"] {
        let points = || points.iter().filter(|point| point.of == of);
        let rows = points().map(|point| {
            let delays = [point.p50_us, point.p99_us, point.p99_9_us].map(|delay| format!("{delay:.1}"));
            let lost = format!("{:.1} %", point.lost * 100.0);
            [label(point.subject), grouped(point.per_second)]
                .into_iter()
                .chain(delays)
                .chain([lost])
                .collect()
        });
        let head = format!("{of}, µs at half load");
        terminal::print(&[&head, "offered/s", "p50", "p99", "p99.9", "lost"], rows);
        let chart = latency_chart(of, points(), source);
        write_chart(directory, if of == "packet" { "latency" } else { "latency-connections" }, &chart)?;
    }
    write_json(directory, "latency", points)?;
    write_source(directory, "latency", source)
}

fn throughput_chart(packets: &Packets, source: &str) -> Chart {
    let group = |bytes: usize| {
        let points = packets.throughput.iter().filter(|point| point.frame_bytes == bytes);
        let bars = points.map(|point| {
            let text = format!("{}  ({:.2})", grouped(point.packets_per_second), point.ratio_to_floor);
            bar(point.subject, point.packets_per_second, text)
        });
        Group { label: format!("{bytes} bytes"), bars: bars.collect() }
    };
    Chart {
        title: "Packets per second by frame size".to_owned(),
        subtitle: "veth, AF_XDP in copy mode, one core; more is better; in brackets: to the bare l2fwd loop"
            .to_owned(),
        source: source.to_owned(),
        scale: Scale::Linear,
        groups: SIZES.map(group).into(),
    }
}

fn latency_chart<'p>(of: &str, points: impl Iterator<Item = &'p Latency>, source: &str) -> Chart {
    let points: Vec<_> = points.collect();
    type Read = fn(&Latency) -> f64;
    let percentiles: [(&str, Read); 3] = [
        ("median", |point| point.p50_us),
        ("99 %", |point| point.p99_us),
        ("99.9 %", |point| point.p99_9_us),
    ];
    let group = |(name, read): (&str, Read)| {
        let bars =
            points.iter().map(|point| bar(point.subject, read(point), format!("{:.1} µs", read(point))));
        Group { label: name.to_owned(), bars: bars.collect() }
    };
    Chart {
        title: format!("Time of a {of} at half of each one's own most"),
        subtitle: "µs, logarithmic; less is better".to_owned(),
        source: source.to_owned(),
        scale: Scale::Logarithmic,
        groups: percentiles.map(group).into(),
    }
}

fn bar(subject: &str, value: f64, text: String) -> Bar {
    Bar { label: label(subject), value, text, colour: named(subject).colour() }
}

fn label(subject: &str) -> String {
    named(subject).label().to_owned()
}

fn named(name: &str) -> Subject {
    CONNECTED.into_iter().find(|subject| subject.name() == name).expect("results are of subjects")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_is_found_by_its_name() {
        for subject in CONNECTED {
            assert_eq!(named(subject.name()), subject);
        }
    }
}
