//! Where results go: `NAME.json` and `NAME.svg` of one directory, and in `sources.json` where each comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shunt_tests::error::{Result, While};

/// Where results go if not said otherwise.
pub const DIRECTORY: &str = "benches/results";

/// Writes a list of points as JSON, one point a line, so that two runs are easily compared.
pub fn write_json<P: Serialize>(directory: &Path, name: &str, points: &[P]) -> Result<()> {
    let line = |point: &P| serde_json::to_string(point).map_err(io::Error::from);
    let lines: io::Result<Vec<String>> = points.iter().map(line).collect();
    let lines = lines.to(|| format!("write {name}.json"))?;
    write(directory, &format!("{name}.json"), &format!("[\n  {}\n]\n", lines.join(",\n  ")))
}

/// What is written in `NAME.json`; `None` if there is no such file.
pub fn read_json<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>> {
    let path = directory.join(format!("{name}.json"));
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.to(|| format!("read {}", path.display()))?,
    };
    let parsed = serde_json::from_str(&text).map_err(io::Error::from);
    parsed.map(Some).to(|| format!("understand {}", path.display()))
}

/// Notes where the results of this name come from: machine, commit and method.
pub fn write_source(directory: &Path, name: &str, source: &str) -> Result<()> {
    let mut sources: BTreeMap<String, String> = read_json(directory, "sources")?.unwrap_or_default();
    sources.insert(name.to_owned(), source.to_owned());
    let text = serde_json::to_string_pretty(&sources).map_err(io::Error::from);
    write(directory, "sources.json", &(text.to(|| "write sources.json".to_owned())? + "\n"))
}

/// Writes a chart as SVG.
pub fn write_chart(directory: &Path, name: &str, chart: &impl fmt::Display) -> Result<()> {
    write(directory, &format!("{name}.svg"), &chart.to_string())
}

fn write(directory: &Path, name: &str, content: &str) -> Result<()> {
    let path = directory.join(name);
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(&path, content));
    written.to(|| format!("write {}", path.display()))
}

/// To so many decimals: more would only pretend.
pub fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_come_back_as_they_were_written() {
        let directory = std::env::temp_dir().join(format!("shunt-benches-{}", std::process::id()));
        write_json(&directory, "points", &[(1, "a"), (2, "b")]).unwrap();
        let text = fs::read_to_string(directory.join("points.json")).unwrap();
        let read = read_json::<Vec<(u8, String)>>(&directory, "points").unwrap();
        let none = read_json::<Vec<u8>>(&directory, "nothing").unwrap();
        ["1", "2"].iter().for_each(|source| write_source(&directory, "a", source).unwrap());
        let sources = read_json(&directory, "sources").unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert_eq!(read, Some(vec![(1, "a".to_owned()), (2, "b".to_owned())]));
        assert_eq!(none, None);
        assert_eq!(sources, Some(BTreeMap::from([("a".to_owned(), "2".to_owned())])));
    }

    #[test]
    fn check_rounded() {
        assert_eq!(rounded(0.87654, 3), 0.877);
        assert_eq!(rounded(812_345.6, 0), 812_346.0);
    }
}
