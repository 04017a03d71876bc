//! How answers are printed: plain tables for people, JSON of the API's own types for programs.
//!
//! Commands build a whole text and print it once, so a reader that closes the pipe ends the program
//! quietly instead of by a panic.

use std::io::{self, Write};
use std::time::Duration;

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table};
use serde::Serialize;

/// Columns of a terminal that says anything of its size.
const NARROWEST: u16 = 20;

/// How to print what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Writes to standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a value as indented JSON.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(print(&text)?)
}

/// Whether a column's cells stand left or right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table without borders, two spaces between columns.
pub struct Columns {
    table: Table,
}

impl Columns {
    /// An empty table with these titles.
    pub fn new(titles: &[(&str, Align)]) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(titles.iter().map(|(title, _)| Cell::new(title)));
        for (column, (_, align)) in table.column_iter_mut().zip(titles) {
            column.set_padding((0, 2));
            if *align == Align::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table }
    }

    /// On a terminal, wraps the last column to the width that the others leave.
    pub fn wrap_last(&mut self) {
        // A serial console does not know its size.
        if self.table.width().is_some_and(|width| width < NARROWEST) {
            return;
        }
        self.table.set_content_arrangement(ContentArrangement::Dynamic);
        let others = self.table.column_count().saturating_sub(1);
        for column in self.table.column_iter_mut().take(others) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }

    /// Appends a row with as many cells as there are titles.
    pub fn row(&mut self, cells: Vec<String>) {
        self.table.add_row(cells);
    }

    /// The text, one line per row.
    pub fn text(&self) -> String {
        let mut text = self.table.trim_fmt();
        text.push('\n');
        text
    }
}

/// Seconds as people write them, the two largest units: `2days 3h`.
pub fn duration(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let units: Vec<&str> = text.split(' ').take(2).collect();
    units.join(" ")
}

/// `1 service`, `2 services`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_shows_its_two_largest_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (182, "3m 2s"), (93_784, "1day 2h"), (7_200, "2h"), (86_401, "1day 1s")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn columns_are_aligned_and_end_without_blanks() {
        let mut columns =
            Columns::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("NOTE", Align::Left)]);
        columns.row(vec!["a".into(), "1".into(), "x".into()]);
        columns.row(vec!["longer".into(), "1000".into(), String::new()]);
        assert_eq!(columns.text(), "NAME    SIZE  NOTE\na          1  x\nlonger  1000\n");
    }
}
