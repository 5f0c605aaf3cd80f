//! Columns that line up, whatever stands in them.

use std::fmt::Write;

use super::style::Paint;

/// Which side of a column its text keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A cell: its text, and the colour of it.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    painted: String,
}

impl Cell {
    /// Text in the terminal's own colour.
    pub fn plain(text: impl Into<String>) -> Cell {
        let text = text.into();
        Cell { painted: text.clone(), text }
    }

    /// Text and how it looks; the width is that of the text.
    pub fn painted(text: impl Into<String>, paint: impl Fn(&str) -> String) -> Cell {
        let text = text.into();
        Cell { painted: paint(&text), text }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Rows under a heading.
#[derive(Debug)]
pub struct Table {
    head: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(head: &[(&'static str, Align)]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The whole table, with a heading in capitals and two spaces between columns.
    pub fn render(&self, paint: Paint) -> String {
        let widths = self.widths();
        let mut text = String::new();
        let head = self
            .head
            .iter()
            .map(|(name, _)| Cell::painted(name.to_uppercase(), |name| paint.bold(name)));
        self.line(&mut text, &head.collect::<Vec<_>>(), &widths);
        for row in &self.rows {
            self.line(&mut text, row, &widths);
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let of_column = |index: usize, name: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(index)).map(Cell::width);
            cells.max().unwrap_or(0).max(name.chars().count())
        };
        self.head.iter().enumerate().map(|(index, (name, _))| of_column(index, name)).collect()
    }

    fn line(&self, text: &mut String, cells: &[Cell], widths: &[usize]) {
        for (index, cell) in cells.iter().enumerate() {
            let gap = " ".repeat(widths[index] - cell.width());
            let last = index + 1 == cells.len();
            let _ = match self.head[index].1 {
                Align::Right => write!(text, "{gap}{}", cell.painted),
                Align::Left if last => write!(text, "{}", cell.painted),
                Align::Left => write!(text, "{}{gap}", cell.painted),
            };
            text.push_str("  ");
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_spaces() {
        let mut table =
            Table::new(&[("name", Align::Left), ("size", Align::Right), ("why", Align::Left)]);
        table.row(vec![Cell::plain("a"), Cell::plain("1.0 MiB"), Cell::plain("x")]);
        table.row(vec![Cell::plain("telemetry"), Cell::plain("9 B"), Cell::plain("")]);
        assert_eq!(
            table.render(Paint::OFF),
            "NAME          SIZE  WHY\na          1.0 MiB  x\ntelemetry      9 B\n"
        );
    }
}
