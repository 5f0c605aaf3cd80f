//! What a run prints for people, and what it writes for tools.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::contender::{Kind, Measure, Mode, Result, Why};
use crate::contenders::{self, Entry};
use crate::harness::{Figure, Said};
use crate::plan::Plan;
use crate::system::Machine;

const HEADINGS: [&str; 12] = [
    "",
    "p50 ns",
    "p90",
    "p99",
    "p99.9",
    "max",
    "x line",
    "x futex",
    "M msg/s",
    "GB/s",
    "x textbook",
    "x copies",
];

/// What a round trip says of its times, in tenths of nanoseconds.
const TIMES: [&str; 5] = ["p50", "p90", "p99", "p999", "max"];

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
        for limit in ["cache line", "two futexes"] {
            cells.push(cell(row.trip, |figure| self.over(figure, limit).map(three_digits)));
        }
        cells.push(cell(row.stream, |figure| figure.rate().map(|rate| three_digits(rate / 1e6))));
        let bytes = self.bytes as f64;
        let volume = |figure: &Figure| figure.rate().map(|rate| three_digits(rate * bytes / 1e9));
        cells.push(cell(row.stream, volume));
        for limit in ["textbook ring", "raw copies"] {
            cells.push(cell(row.stream, |figure| self.over(figure, limit).map(three_digits)));
        }
        cells
    }

    /// A figure divided by that of a limit: times of round trips, rates of streams.
    fn over(&self, figure: &Figure, limit: &str) -> Option<f64> {
        let same = |other: &&&Figure| {
            other.entry.name == limit
                && other.measure == figure.measure
                && other.mode == Mode::Single
        };
        let limit = self.figures.iter().find(same)?;
        Some(figure.headline()? / limit.headline()?)
    }

    /// What is missing and why, and what was lost.
    fn notes(&self) -> String {
        let mut notes = String::new();
        for figure in &self.figures {
            let name = label(figure.entry, figure.mode);
            let kind = match figure.measure {
                Measure::RoundTrip => "round trip",
                Measure::Stream => "stream",
            };
            if let Some(why) = &figure.trouble {
                let _ = match figure.rounds.len() {
                    0 => writeln!(notes, "  n/a  {name}, {kind}: {why}"),
                    some => writeln!(notes, "  only {some} rounds  {name}, {kind}: {why}"),
                };
            }
            if let Some(harm) = figure.harm() {
                let _ = writeln!(notes, "  LOST {name}, {kind}: {harm}");
            }
        }
        notes
    }
}

impl Figure {
    /// The median over the rounds of something that was said in each.
    fn median(&self, name: &str) -> Option<f64> {
        self.median_of(|said| said.get(name).map(|value| *value as f64))
    }

    /// The same for a time, which is said in tenths of nanoseconds.
    fn nanos(&self, name: &str) -> Option<f64> {
        self.median(name).map(|tenths| tenths / 10.0)
    }

    /// Messages per second.
    fn rate(&self) -> Option<f64> {
        self.median_of(|said| {
            Some(*said.get("messages")? as f64 * 1e9 / *said.get("nanos")? as f64)
        })
    }

    /// What is compared: the median round trip, or the rate.
    fn headline(&self) -> Option<f64> {
        match self.measure {
            Measure::RoundTrip => self.nanos("p50"),
            Measure::Stream => self.rate(),
        }
    }

    fn median_of(&self, value: impl Fn(&Said) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.rounds.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => None,
            count if count % 2 == 1 => Some(values[count / 2]),
            count => Some((values[count / 2 - 1] + values[count / 2]) / 2.0),
        }
    }

    fn total(&self, name: &str) -> u64 {
        self.rounds.iter().filter_map(|said| said.get(name)).sum()
    }

    /// Messages that did not arrive as they were sent, over all rounds.
    fn harm(&self) -> Option<String> {
        let (lost, disordered) = (self.total("lost"), self.total("disordered"));
        let corrupt = self.total("corrupt") + self.total("corrupt_there");
        let (sent, received) = (self.total("sent"), self.total("received"));
        let missing = match self.measure {
            Measure::Stream => lost + sent.saturating_sub(received + lost + corrupt),
            Measure::RoundTrip => 0,
        };
        (missing + corrupt + disordered > 0).then(|| {
            format!("{missing} of {sent} lost, {corrupt} corrupt, {disordered} out of order")
        })
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

/// Writes every figure of every round, for tools.
pub fn write_json(path: &Path, plan: &Plan, machine: &Machine, figures: &[Figure]) -> Result<()> {
    let cores = plan.cores.map_or("null".into(), |(near, far)| format!("[{near}, {far}]"));
    let figures: Vec<String> = figures.iter().map(json_figure).collect();
    let text = format!(
        "{{\"machine\": {}, \"kernel\": {}, \"date\": {}, \"load\": {:.2}, \"cores\": {cores}, \
         \"clock_step_ns\": {}, \"rounds\": {}, \"millis\": {}, \"ring_bytes\": {}, \"figures\": [\n{}\n]}}\n",
        quoted(&machine.processor),
        quoted(&machine.kernel),
        quoted(&machine.date),
        machine.load,
        machine.clock_step_ns,
        plan.rounds,
        plan.length.as_millis(),
        plan.ring_bytes,
        figures.join(",\n")
    );
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).why("make the folder of the figures")?;
    }
    fs::write(path, text).why("write the figures")
}

fn json_figure(figure: &Figure) -> String {
    let number = |value: Option<f64>| value.map_or("null".to_string(), |v| format!("{v:.1}"));
    let median = match figure.measure {
        Measure::RoundTrip => {
            TIMES.map(|name| format!("\"{name}_ns\": {}", number(figure.nanos(name)))).join(", ")
        }
        Measure::Stream => format!("\"messages_per_s\": {}", number(figure.rate())),
    };
    let rounds: Vec<String> = figure.rounds.iter().map(json_round).collect();
    format!(
        " {{\"contender\": {}, \"kind\": \"{:?}\", \"bytes\": {}, \"measure\": \"{:?}\", \
         \"mode\": \"{:?}\", \"median\": {{{median}}}, \"trouble\": {}, \"rounds\": [{}]}}",
        quoted(figure.entry.name),
        figure.entry.kind,
        figure.bytes,
        figure.measure,
        figure.mode,
        figure.trouble.as_deref().map_or("null".to_string(), quoted),
        rounds.join(", ")
    )
}

fn json_round(said: &Said) -> String {
    let fact = |(name, value): (&String, &u64)| match TIMES.contains(&name.as_str()) {
        true => format!("\"{name}_ns\": {:.1}", *value as f64 / 10.0),
        false => format!("\"{name}\": {value}"),
    };
    let mut facts: Vec<_> = said.iter().map(fact).collect();
    facts.sort();
    format!("{{{}}}", facts.join(", "))
}

fn quoted(text: &str) -> String {
    let escape = |letter: char| match letter {
        '"' | '\\' => format!("\\{letter}"),
        letter if letter.is_control() => " ".to_string(),
        letter => letter.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_text_is_quoted() {
        assert_eq!([12.0, 1234.0, 1234567.0].map(grouped), ["12", "1,234", "1,234,567"]);
        assert_eq!(quoted("a \"b\"\n"), "\"a \\\"b\\\" \"");
    }

    #[test]
    fn a_message_lost_before_the_end_is_not_lost_in_silence() {
        let said = [("sent", 10), ("received", 8), ("lost", 1)];
        let figure = Figure {
            entry: &contenders::ALL[0],
            bytes: 8,
            measure: Measure::Stream,
            mode: Mode::Single,
            rounds: vec![said.map(|(name, value)| (name.to_string(), value)).into()],
            trouble: None,
        };
        assert_eq!(figure.harm().unwrap(), "2 of 10 lost, 0 corrupt, 0 out of order");
    }
}
