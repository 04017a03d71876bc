//! Results as Markdown, and where a document wants them. A document marks a place with `<!-- NAME -->` and
//! `<!-- /NAME -->`, a line each; what stands between is renewed from `NAME.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use shunt_tests::error::{Error, Result, While};

use crate::markdown::{Table, grouped};
use crate::results::{self, read_json};
use crate::{pipeline, scale};

/// What to do with the tables.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Document whose marked places are renewed; without it, tables are printed.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Directory of the JSON files.
    #[arg(long, default_value = results::DIRECTORY)]
    results: PathBuf,
}

/// Results that have tables, in the order of printing.
const NAMES: [&str; 7] = ["pipeline", "scale", "floods", "change", "end-to-end", "connections", "latency"];

/// Prints the tables or renews a document.
pub fn run(options: &Options) -> Result<()> {
    let Some(path) = &options.write else {
        for name in NAMES {
            if let Some(tables) = tables(&options.results, name)? {
                println!("## {name}\n\n{tables}");
            }
        }
        return Ok(());
    };
    let document = fs::read_to_string(path).to(|| format!("read {}", path.display()))?;
    let renewed = renewed(&document, |name| tables(&options.results, name))?;
    fs::write(path, renewed).to(|| format!("write {}", path.display()))
}

/// The tables of a result and where they come from; `None` if it was not measured.
fn tables(directory: &Path, name: &str) -> Result<Option<String>> {
    let tables = match name {
        "pipeline" => read_json::<Vec<pipeline::Row>>(directory, name)?.map(|rows| pipeline::markdown(&rows)),
        "scale" => read_json::<Vec<scale::Row>>(directory, name)?.map(|rows| scale::markdown(&rows)),
        "end-to-end" => read_json::<Vec<Point>>(directory, name)?.map(|points| by_size(&points).to_string()),
        "floods" => {
            read_json::<Vec<Point>>(directory, name)?.map(|points| chosen(&points, &FLOODS).to_string())
        }
        "change" => {
            read_json::<Vec<Point>>(directory, name)?.map(|points| chosen(&points, &CHANGE).to_string())
        }
        _ => read_json::<Vec<Point>>(directory, name)?.map(|points| plain(&points).to_string()),
    };
    let sources: Option<BTreeMap<String, String>> = read_json(directory, "sources")?;
    let source = sources.and_then(|mut sources| sources.remove(name));
    Ok(tables.map(|tables| match source {
        Some(source) => format!("{tables}\nMeasured on: {source}.\n"),
        None => tables,
    }))
}

/// One point of any result, its fields in the order of the file.
struct Point(Vec<(String, Value)>);

impl Point {
    fn cell_as(&self, name: &str, unit: Unit) -> String {
        let number = self.0.iter().find(|(field, _)| field == name).and_then(|(_, value)| value.as_f64());
        match (unit, number) {
            (Unit::Percent, Some(share)) => format!("{:.1} %", 100.0 * share),
            (Unit::Megabytes, Some(bytes)) => format!("{:.0}", bytes / 1e6),
            _ => self.cell(name),
        }
    }

    fn cell(&self, name: &str) -> String {
        match self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if number.as_f64().is_some_and(|n| n >= 1e4 && n.fract() == 0.0) => {
                grouped(number.as_f64().unwrap_or_default())
            }
            Some(Value::Null) | None => "–".to_owned(),
            Some(value) => value.to_string(),
        }
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Point;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a point with fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Point, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Point(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Columns of a table: what they are called and which field they show.
type Columns<const N: usize> = [(&'static str, &'static str, Unit); N];

/// How a field is shown.
#[derive(Clone, Copy)]
enum Unit {
    /// As it is.
    Plain,
    /// A share, in percent.
    Percent,
    /// Bytes, in megabytes.
    Megabytes,
}

const FLOODS: Columns<10> = [
    ("flood", "flood", Unit::Plain),
    ("confirmed flows", "confirmed_flows", Unit::Plain),
    ("moved", "moved", Unit::Plain),
    ("flood packets", "flood_packets", Unit::Plain),
    ("entered", "created", Unit::Plain),
    ("evicting another", "evicted", Unit::Plain),
    ("stateless", "full", Unit::Plain),
    ("ns per packet without it", "ns_per_packet_without", Unit::Plain),
    ("beside it", "ns_per_packet_beside", Unit::Plain),
    ("throughput kept", "throughput_kept", Unit::Percent),
];

const CHANGE: Columns<9> = [
    ("changed", "change", Unit::Plain),
    ("services looked at again", "services_renewed", Unit::Plain),
    ("parse, ms", "parse_ms", Unit::Plain),
    ("compile, ms", "compile_ms", Unit::Plain),
    ("seen after, µs", "seen_us", Unit::Plain),
    ("memory at most, MB", "peak_bytes", Unit::Megabytes),
    ("throughput lost in build and swap", "lost", Unit::Percent),
    ("in the 10 ms after it", "lost_after_swap", Unit::Percent),
    ("one-time cost, µs", "swap_cost_us", Unit::Plain),
];

/// A row for each point, some of its fields as columns.
fn chosen<const N: usize>(points: &[Point], columns: &Columns<N>) -> Table {
    let mut table = Table::new(columns.iter().map(|(title, ..)| (*title).to_owned()));
    for point in points {
        table.row(columns.iter().map(|&(_, field, unit)| point.cell_as(field, unit)));
    }
    table
}

/// A row for each point, a column for each of its fields.
fn plain(points: &[Point]) -> Table {
    let names: Vec<&String> =
        points.first().map(|point| point.0.iter().map(|(name, _)| name).collect()).unwrap_or_default();
    let mut table = Table::new(names.iter().map(|name| name.replace('_', " ")));
    for point in points {
        table.row(names.iter().map(|name| point.cell(name)));
    }
    table
}

/// A row for each subject, packets per second and their ratio to the floor for each size.
fn by_size(points: &[Point]) -> Table {
    let unique = |name: &str| {
        let mut cells: Vec<String> = Vec::new();
        for cell in points.iter().map(|point| point.cell(name)) {
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
        cells
    };
    let sizes = unique("frame_bytes");
    let header = sizes.iter().flat_map(|size| [format!("{size} bytes"), "to floor".to_owned()]);
    let mut table = Table::new(std::iter::once("packets/s".to_owned()).chain(header));
    for subject in unique("subject") {
        let of = |size: &String| {
            let same =
                |point: &&Point| point.cell("subject") == subject && point.cell("frame_bytes") == *size;
            let point = points.iter().find(same);
            ["packets_per_second", "ratio_to_floor"].map(|name| point.map_or(String::new(), |p| p.cell(name)))
        };
        table.row(std::iter::once(subject.clone()).chain(sizes.iter().flat_map(of)));
    }
    table
}

/// The document with what stands in its marked places replaced by `content`; a place without content stays as it is.
fn renewed(document: &str, content: impl Fn(&str) -> Result<Option<String>>) -> Result<String> {
    let mut renewed = String::with_capacity(document.len());
    let mut rest = document;
    while let Some((before, name, after)) = next_place(rest) {
        renewed += before;
        let end = format!("<!-- /{name} -->");
        let missing = || Error::Wrong(format!("`<!-- {name} -->` has no `{end}` behind it; add one"));
        let (old, behind) = after.split_once(&end).ok_or_else(missing)?;
        match content(name)? {
            Some(new) => renewed += &format!("\n\n{}\n\n", new.trim_end()),
            None => renewed += old,
        }
        renewed += &end;
        rest = behind;
    }
    Ok(renewed + rest)
}

/// Up to and with the next opening mark, its name, and what follows.
fn next_place(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let start = from + text[from..].find("<!-- ")? + "<!-- ".len();
        let end = start + text[start..].find(" -->")?;
        let name = &text[start..end];
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
            let behind = end + " -->".len();
            return Some((&text[..behind], name, &text[behind..]));
        }
        from = start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, expected: &str) {
        let content = |name: &str| Ok((name != "unknown").then(|| format!("[{name}]\n")));
        let once = renewed(document, content).unwrap();
        assert_eq!(once, expected);
        assert_eq!(renewed(&once, content).unwrap(), once, "renewing twice changes nothing");
    }

    #[test]
    fn marked_places_are_renewed_and_nothing_else() {
        check("no mark\n", "no mark\n");
        check("a\n<!-- x -->\nold\n<!-- /x -->\nb\n", "a\n<!-- x -->\n\n[x]\n\n<!-- /x -->\nb\n");
        check(
            "<!-- x --><!-- /x --><!-- y --><!-- /y -->",
            "<!-- x -->\n\n[x]\n\n<!-- /x --><!-- y -->\n\n[y]\n\n<!-- /y -->",
        );
        check("<!-- unknown -->\nold\n<!-- /unknown -->\n", "<!-- unknown -->\nold\n<!-- /unknown -->\n");
        check(
            "<!-- A remark. -->\n<!-- x -->\n<!-- /x -->",
            "<!-- A remark. -->\n<!-- x -->\n\n[x]\n\n<!-- /x -->",
        );
    }

    #[test]
    fn a_place_without_an_end_is_an_error() {
        let error = renewed("<!-- x -->\n", |_| Ok(None)).expect_err("no end").to_string();
        assert!(error.contains("<!-- /x -->"), "{error}");
    }

    #[test]
    fn any_list_of_points_is_a_table() {
        let points: Vec<Point> =
            serde_json::from_str(r#"[{"b_a":"x","c":1.5,"a":null},{"b_a":"y","c":20000}]"#).unwrap();
        let lines: Vec<String> = plain(&points).to_string().lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "| b a |      c |   a |",
                "|-----|-------:|----:|",
                "| x   |    1.5 |   – |",
                "| y   | 20,000 |   – |"
            ]
        );
    }

    #[test]
    fn subjects_stand_downwards_and_sizes_across() {
        let point = |subject, bytes, packets| {
            format!(
                r#"{{"subject":"{subject}","frame_bytes":{bytes},"packets_per_second":{packets},"ratio_to_floor":0.9}}"#
            )
        };
        let points = [point("a", 64, 1_000_000), point("a", 1500, 900_000), point("b", 64, 5)].join(",");
        let text = by_size(&serde_json::from_str::<Vec<Point>>(&format!("[{points}]")).unwrap()).to_string();
        assert!(text.contains("| a         | 1,000,000 |      0.9 |    900,000 |      0.9 |"), "{text}");
        assert!(text.contains("| b         |         5 |      0.9 |            |          |"), "{text}");
    }

    #[test]
    fn the_page_on_performance_has_a_place_for_every_result() {
        let page = include_str!("../../docs/performance.md");
        let asked = std::cell::RefCell::new(Vec::new());
        let note = |name: &str| {
            asked.borrow_mut().push(name.to_owned());
            Ok(None)
        };
        assert_eq!(renewed(page, note).unwrap(), page);
        assert_eq!(asked.into_inner(), NAMES);
    }

    #[test]
    fn what_was_not_measured_has_no_table() {
        let nowhere = Path::new("/nonexistent");
        for name in NAMES {
            assert!(tables(nowhere, name).unwrap().is_none(), "{name}");
        }
    }
}
