//! Tables on the terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

/// Prints a table whose first column is text and whose others are numbers.
pub fn print(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied()).add_rows(rows);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!("{table}\n");
}
