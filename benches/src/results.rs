//! Where results go: `NAME.json` and `NAME.svg` of one directory.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use shunt_tests::error::{Result, While};

use crate::chart::Chart;

/// Writes a list of points as JSON, one point a line, so that two runs are easily compared.
pub fn write_json<P: Serialize>(directory: &Path, name: &str, points: &[P]) -> Result<()> {
    let line = |point: &P| serde_json::to_string(point).map_err(io::Error::from);
    let lines: io::Result<Vec<String>> = points.iter().map(line).collect();
    let lines = lines.to(|| format!("write {name}.json"))?;
    write(directory, &format!("{name}.json"), &format!("[\n  {}\n]\n", lines.join(",\n  ")))
}

/// Writes a chart as SVG.
pub fn write_chart(directory: &Path, name: &str, chart: &Chart) -> Result<()> {
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
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        let read: Vec<(u8, String)> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, [(1, "a".to_owned()), (2, "b".to_owned())]);
    }

    #[test]
    fn check_rounded() {
        assert_eq!(rounded(0.87654, 3), 0.877);
        assert_eq!(rounded(812_345.6, 0), 812_346.0);
    }
}
