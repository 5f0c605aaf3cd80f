//! The table that a run prints for people. Tools read what `json.rs` writes.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::contender::{Kind, Measure, Mode, Result, Why};
use crate::contenders::{self, Entry};
use crate::figure::{Figure, TIMES};
use crate::plan::Plan;
use crate::system::Machine;

const HEADINGS: [&str; 13] = [
    "",
    "p50 ns",
    "p90",
    "p99",
    "p99.9",
    "max",
    "x line",
    "p99 x line",
    "x futex",
    "M msg/s",
    "GB/s",
    "x textbook",
    "x copies",
];

/// One line of the table: a contender in one mode at one size.
struct Row<'a> {
    entry: &'static Entry,
    mode: Mode,
    trip: Option<&'a Figure>,
    stream: Option<&'a Figure>,
}

/// The figures at one size, with the limits that they are divided by.
struct Block<'a> {
    bytes: usize,
    figures: Vec<&'a Figure>,
}

/// Prints the table.
pub fn print(plan: &Plan, machine: &Machine, figures: &[Figure]) -> Result<()> {
    match io::stdout().lock().write_all(table(plan, machine, figures).as_bytes()) {
        Err(closed) if closed.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.why("print the table"),
    }
}

/// Names everybody with their settings.
pub fn settings() -> String {
    let line = |entry: &Entry| format!("  {:14} {}\n", entry.name, entry.settings);
    contenders::ALL.iter().map(line).collect()
}

fn table(plan: &Plan, machine: &Machine, figures: &[Figure]) -> String {
    let mut text = format!(
        "eshm and its peers: {}; {}; {}\n{}; medians of {} rounds of {} ms, interleaved; {} KiB of \
         messages each way\nround trip in ns: one message there and back; stream: one direction; \
         every word of every message checked\nclock in steps of {} ns, evened out\n",
        machine.processor,
        machine.kernel,
        machine.date,
        placing(plan),
        plan.rounds,
        plan.length.as_millis(),
        plan.ring_bytes >> 10,
        machine.clock_step_ns,
    );
    if machine.load > BUSY {
        let _ = writeln!(
            text,
            "THE MACHINE WAS BUSY (load {:.1} at the start): do not trust these figures",
            machine.load
        );
    }
    for bytes in &plan.sizes {
        let at_size = figures.iter().filter(|figure| figure.bytes == *bytes).collect();
        text += &Block { bytes: *bytes, figures: at_size }.table();
    }
    text + "\nsettings\n" + &settings()
}

/// More tasks than this wanted the cores before the run began.
const BUSY: f64 = 0.5;

fn placing(plan: &Plan) -> String {
    match plan.cores {
        Some((near, far)) => format!("pinned to cores {near} and {far}"),
        None => "unpinned".to_string(),
    }
}

impl<'a> Block<'a> {
    fn table(&self) -> String {
        let mut lines = vec![HEADINGS.map(String::from).to_vec()];
        lines[0][0] = format!("{} bytes", self.bytes);
        lines.extend(self.rows().iter().map(|row| self.cells(row)));
        "\n".to_string() + &aligned(&lines) + &self.notes()
    }

    fn rows(&self) -> Vec<Row<'a>> {
        let mut rows: Vec<Row<'a>> = Vec::new();
        for figure in self.figures.iter().copied() {
            let same = |row: &Row| row.entry.name == figure.entry.name && row.mode == figure.mode;
            let at = rows.iter().position(same).unwrap_or_else(|| {
                rows.push(Row { entry: figure.entry, mode: figure.mode, trip: None, stream: None });
                rows.len() - 1
            });
            match figure.measure {
                Measure::RoundTrip => rows[at].trip = Some(figure),
                Measure::Stream => rows[at].stream = Some(figure),
            }
        }
        rows
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let mut cells = vec![label(row.entry, row.mode)];
        for name in TIMES {
            cells.push(cell(row.trip, |figure| figure.nanos(name).map(grouped)));
        }
        for (limit, name) in [("cache line", "p50"), ("cache line", "p99"), ("two futexes", "p50")]
        {
            let ratio = |figure: &Figure| figure.nanos_over(self.limit(figure, limit)?, name);
            cells.push(cell(row.trip, |figure| ratio(figure).map(three_digits)));
        }
        cells.push(cell(row.stream, |figure| figure.rate().map(|rate| three_digits(rate / 1e6))));
        let bytes = self.bytes as f64;
        let volume = |figure: &Figure| figure.rate().map(|rate| three_digits(rate * bytes / 1e9));
        cells.push(cell(row.stream, volume));
        for limit in ["textbook ring", "raw copies"] {
            let ratio = |figure: &Figure| figure.rate_over(self.limit(figure, limit)?);
            cells.push(cell(row.stream, |figure| ratio(figure).map(three_digits)));
        }
        cells
    }

    /// What a figure is divided by: the same measure of a yardstick at the same size.
    fn limit(&self, figure: &Figure, name: &str) -> Option<&'a Figure> {
        let same = |other: &&&Figure| {
            other.entry.name == name
                && other.measure == figure.measure
                && other.mode == Mode::Single
        };
        self.figures.iter().find(same).copied()
    }

    /// What is missing and why, and what was lost.
    fn notes(&self) -> String {
        let mut missing: Vec<(String, Vec<String>)> = Vec::new();
        let mut notes = String::new();
        for figure in &self.figures {
            let name = format!("{} ({})", label(figure.entry, figure.mode), name(figure.measure));
            if let Some((least, most)) = figure.drift().filter(|_| figure.entry.sizeless) {
                let _ = writeln!(
                    notes,
                    "  {name}: {} to {} ns over the rounds, so the machine changed meanwhile; \
                     trust only the ratios",
                    grouped(least),
                    grouped(most)
                );
            }
            if let Some(harm) = figure.harm() {
                let _ = writeln!(notes, "  LOST {name}: {harm}");
            }
            let Some(why) = &figure.trouble else { continue };
            let why = match figure.rounds.len() {
                0 => format!("n/a: {why}"),
                some => format!("failed in round {}: {why}", some + 1),
            };
            match missing.iter_mut().find(|(known, _)| *known == why) {
                Some((_, names)) => names.push(name),
                None => missing.push((why, vec![name])),
            }
        }
        for (why, names) in missing {
            let _ = writeln!(notes, "  {why}\n       {}", names.join("; "));
        }
        notes
    }
}

fn name(measure: Measure) -> &'static str {
    match measure {
        Measure::RoundTrip => "round trip",
        Measure::Stream => "stream",
    }
}

fn label(entry: &Entry, mode: Mode) -> String {
    let threads = if entry.kind == Kind::Threads { " (threads)" } else { "" };
    let mode = match mode {
        Mode::Single => "",
        Mode::Batch => ", batches",
        Mode::InPlace => ", in place",
    };
    format!("{}{threads}{mode}", entry.name)
}

/// Nothing where it was not to be measured, "n/a" where it could not be, else the value.
fn cell(figure: Option<&Figure>, value: impl Fn(&Figure) -> Option<String>) -> String {
    match figure {
        None => String::new(),
        Some(figure) if figure.rounds.is_empty() => "n/a".to_string(),
        Some(figure) => value(figure).unwrap_or_default(),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn three_digits(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Columns as wide as their widest cell: the first to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = format!("{:1$}", line[0], widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(row, "  {cell:>width$}");
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([12.0, 1234.0, 1234567.0].map(grouped), ["12", "1,234", "1,234,567"]);
        assert_eq!(
            [0.0123, 1.234, 12.34, 123.4].map(three_digits),
            ["0.012", "1.23", "12.3", "123"]
        );
    }

    #[test]
    fn columns_line_up() {
        let lines = [["a", "1"], ["bcd", "20"]].map(|line| line.map(String::from).to_vec());
        assert_eq!(aligned(&lines), "a     1\nbcd  20\n");
    }
}
