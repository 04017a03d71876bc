//! What a packet costs against services, backends and source ranges, of which a service on the packet path should know
//! as little as of flows. All worlds of a chart stand ready and take turns, so that what the machine's neighbours do
//! meets all alike.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shunt_api::snapshot::Mode;
use shunt_tests::error::Result;

use crate::callgrind::{self, Count};
use crate::chart::lines::{Line, LineChart, Stroke, short};
use crate::markdown::{Table, figure};
use crate::pipeline::load::{Distribution, Family};
use crate::pipeline::scene::{Part, Scene};
use crate::pipeline::shape::Case;
use crate::pipeline::timing::per_packet;
use crate::results::{self, rounded, write_chart, write_json, write_source};
use crate::{Spread, machine, pipeline};

/// Turns of each world.
const ROUNDS: usize = 9;
/// Packets of a turn.
const PACKETS: usize = 100_000;
/// Most new flows of a turn.
const NEW: u32 = 1000;
/// Packets of a part while instructions are counted.
const COUNTED: usize = 20_000;
const FLOWS: [u32; 2] = [1_000, 100_000];
const ESTABLISHED: Part = Part::Forward(Distribution::Uniform);

/// Where results go.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Directory for JSON and charts.
    #[arg(long, default_value = results::DIRECTORY)]
    out: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { out: results::DIRECTORY.into() }
    }
}

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    Services,
    Backends,
    SourceRanges,
    /// Taken over from the pipeline's results.
    Flows,
}

/// One point: direct routing, IPv4, uniform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What grows.
    pub axis: Axis,
    /// To how many.
    pub count: u32,
    /// In the table.
    pub flows: u32,
    /// Median of the rounds.
    pub ns_per_packet: f64,
    /// If counted.
    pub instructions_per_packet: Option<f64>,
    /// A flow's first packet, median of the rounds.
    pub new_flow_ns: Option<f64>,
    /// If counted.
    pub new_flow_instructions: Option<f64>,
}

impl Axis {
    const MEASURED: [Self; 3] = [Self::Services, Self::Backends, Self::SourceRanges];

    fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Backends => "backends",
            Self::SourceRanges => "source ranges",
            Self::Flows => "flows",
        }
    }

    fn counts(self) -> &'static [u32] {
        match self {
            Self::Services => &[1, 10, 100, 1_000, 10_000],
            Self::Backends => &[1, 16, 256, 4_096],
            Self::SourceRanges => &[0, 100, 1_000, 10_000],
            Self::Flows => &[],
        }
    }

    fn case(self, count: u32, flows: u32) -> Case {
        let case = Case::new(Mode::Dr, Family::V4, flows);
        match self {
            Self::Services => Case { services: count, ..case },
            Self::Backends => Case { backends: count, ..case },
            Self::SourceRanges => Case { ranges: count, ..case },
            Self::Flows => Case { flows: count, ..case },
        }
    }
}

/// Measures every point, prints them and writes them down.
pub fn run(options: &Options) -> Result<()> {
    let machine = machine::description();
    println!("Scale, direct routing, IPv4, a port in memory: {machine}\n");
    let mut rows = Vec::new();
    for axis in Axis::MEASURED {
        for flows in FLOWS {
            eprintln!("{}, {flows} flows", axis.name());
            rows.extend(measure(axis, flows)?);
        }
    }
    if let Some(pipeline) = results::read_json::<Vec<pipeline::Row>>(&options.out, "pipeline")? {
        rows.extend(pipeline.iter().filter_map(of_pipeline));
    }
    println!("{}", markdown(&rows));
    write_json(&options.out, "scale", &rows)?;
    let source = format!("{machine}; medians of {ROUNDS} rounds of {PACKETS} packets");
    write_source(&options.out, "scale", &source)?;
    Axis::MEASURED.into_iter().try_for_each(|axis| write(axis, &rows, &source, &options.out))
}

fn measure(axis: Axis, flows: u32) -> Result<Vec<Row>> {
    let cases: Vec<Case> = axis.counts().iter().map(|count| axis.case(*count, flows)).collect();
    let counts = callgrind::instructions(&cases, COUNTED)?;
    let times = times(&cases);
    let row = |((count, counts), [new, established]): ((&u32, Vec<Count>), [f64; 2])| {
        let counted =
            |part| counts.iter().find(|count| count.part == part).map(|c| rounded(c.instructions, 1));
        Row {
            axis,
            count: *count,
            flows,
            ns_per_packet: rounded(established, 1),
            instructions_per_packet: counted(ESTABLISHED),
            new_flow_ns: Some(rounded(new, 1)),
            new_flow_instructions: counted(Part::New),
        }
    };
    Ok(axis.counts().iter().zip(counts).zip(times).map(row).collect())
}

/// Medians of nanoseconds: of a flow's first packet and of one of an established flow.
fn times(cases: &[Case]) -> Vec<[f64; 2]> {
    let new = |case: &Case| (case.flows / ROUNDS as u32).min(NEW) as usize;
    let mut scenes: Vec<Scene> =
        cases.iter().map(|case| Scene::new(*case, (new(case) * ROUNDS) as u32)).collect();
    let mut rounds = |part: Part, packets: &dyn Fn(&Case) -> usize| {
        let mut times = vec![Vec::with_capacity(ROUNDS); cases.len()];
        for round in 0..ROUNDS {
            // Another order in each round, so that nobody always comes after the same.
            for at in (0..cases.len()).map(|index| (index + round) % cases.len()) {
                times[at].push(per_packet(&mut scenes[at], part, packets(&cases[at])));
            }
        }
        times.into_iter().map(|times| Spread::of(times).median).collect::<Vec<_>>()
    };
    let first = rounds(Part::New, &new);
    let established = rounds(ESTABLISHED, &|_| PACKETS);
    first.into_iter().zip(established).map(|(first, established)| [first, established]).collect()
}

fn of_pipeline(row: &pipeline::Row) -> Option<Row> {
    let same = (row.mode.as_str(), row.family, row.distribution);
    (same == ("dr", Family::V4, Distribution::Uniform)).then_some(Row {
        axis: Axis::Flows,
        count: row.flows,
        flows: row.flows,
        ns_per_packet: row.ns_per_packet,
        instructions_per_packet: row.instructions_per_packet,
        new_flow_ns: row.new_flow_ns,
        new_flow_instructions: row.new_flow_instructions,
    })
}

/// One table for each axis.
pub fn markdown(rows: &[Row]) -> String {
    let of_axis = |axis: Axis| {
        let rows: Vec<_> = rows.iter().filter(|row| row.axis == axis).collect();
        let head =
            [axis.name(), "flows", "ns", "to the first", "instructions", "new flow, ns", "instructions"];
        let mut table = Table::new(head);
        for row in &rows {
            let same = |other: &&&Row| axis == Axis::Flows || other.flows == row.flows;
            let first = rows.iter().find(same).map(|first| row.ns_per_packet / first.ns_per_packet);
            table.row([
                short(row.count.into()),
                short(row.flows.into()),
                figure(Some(row.ns_per_packet), 1),
                figure(first, 2),
                figure(row.instructions_per_packet, 0),
                figure(row.new_flow_ns, 0),
                figure(row.new_flow_instructions, 0),
            ]);
        }
        (!rows.is_empty()).then(|| table.to_string())
    };
    Axis::MEASURED.into_iter().chain([Axis::Flows]).filter_map(of_axis).collect::<Vec<_>>().join("\n")
}

fn write(axis: Axis, rows: &[Row], source: &str, directory: &Path) -> Result<()> {
    let name = format!("scale-{}", axis.name().replace(' ', "-"));
    write_chart(directory, &name, &chart(axis, rows, source))
}

fn chart(axis: Axis, rows: &[Row], source: &str) -> LineChart {
    type Read = fn(&Row) -> Option<f64>;
    let established: Read = |row| Some(row.ns_per_packet);
    let line = |label: &str, stroke: fn(usize) -> Stroke, read: Read, index: usize| {
        let flows = FLOWS[index];
        let rows = rows.iter().filter(|row| (row.axis, row.flows) == (axis, flows));
        let points = rows.filter_map(|row| Some((f64::from(row.count), read(row)?))).collect();
        let label = format!("{label}, {} flows", short(flows.into()));
        Line { label, stroke: stroke(index), points }
    };
    LineChart {
        title: format!("Time of a packet by {}", axis.name()),
        subtitle: "ns on one core, direct routing, IPv4, port in memory; less is better".to_owned(),
        source: source.to_owned(),
        axis: axis.name().to_owned(),
        lines: vec![
            line("packet", Stroke::Filled, established, 0),
            line("packet", Stroke::Filled, established, 1),
            line("first", Stroke::Rings, |row| row.new_flow_ns, 0),
            line("first", Stroke::Rings, |row| row.new_flow_ns, 1),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(axis: Axis, count: u32, ns: f64) -> Row {
        Row {
            axis,
            count,
            flows: 1000,
            ns_per_packet: ns,
            instructions_per_packet: Some(180.0),
            new_flow_ns: Some(90.0),
            new_flow_instructions: None,
        }
    }

    #[test]
    fn each_axis_has_a_table_that_compares_with_its_first_row() {
        let rows = [
            row(Axis::Services, 1, 20.0),
            row(Axis::Services, 10_000, 22.0),
            row(Axis::SourceRanges, 0, 20.0),
        ];
        let text = markdown(&rows);
        assert!(text.contains("| 10 k     |   1 k | 22.0 |         1.10 |          180 |"), "{text}");
        assert_eq!(text.matches("new flow, ns").count(), 2, "{text}");
    }

    #[test]
    fn a_chart_has_the_points_of_its_axis() {
        let rows = [row(Axis::Services, 1, 20.0), row(Axis::Backends, 16, 20.0)];
        let chart = chart(Axis::Backends, &rows, "");
        assert_eq!(chart.lines[0].points, [(16.0, 20.0)]);
        assert!(chart.lines[1].points.is_empty());
    }

    #[test]
    fn every_case_is_timed() {
        let cases = [Axis::Services.case(10, 1000), Axis::SourceRanges.case(100, 1000)];
        let times = times(&cases);
        assert!(times.len() == 2 && times.as_flattened().iter().all(|time| *time > 0.0), "{times:?}");
    }

    #[test]
    fn flows_are_those_of_the_pipeline() {
        let axis = serde_json::to_string(&Axis::SourceRanges).unwrap();
        assert_eq!(axis, "\"source-ranges\"");
        assert_eq!(Axis::Flows.case(5, 1).flows, 5);
    }
}
