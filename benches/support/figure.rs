//! Rounds and what is made of them: medians, ratios, a table for people, a file for tools.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::stage::{self, Folder};
use super::system::{Machine, interrupted};
use super::{Facts, Flags, Order, Result, Why};

/// One thing that is measured again in every round.
pub struct Case {
    labels: BTreeMap<&'static str, String>,
    orders: Vec<Order>,
    /// What all sides said together.
    rounds: Vec<Option<Facts>>,
    trouble: Option<String>,
}

impl Case {
    /// A case that is known by its labels.
    pub fn new(labels: &[(&'static str, &dyn Display)], orders: Vec<Order>) -> Case {
        let labels = labels.iter().map(|(name, value)| (*name, value.to_string())).collect();
        Case { labels, orders, rounds: Vec::new(), trouble: None }
    }

    /// A case of two sides; the second order is that of the first, far.
    pub fn of_two(labels: &[(&'static str, &dyn Display)], order: Order, cores: Cores) -> Case {
        let near = cores.place(order.clone().with("near", 1), 0);
        let far = cores.place(order.with("near", 0), 1);
        Case::new(labels, vec![near, far])
    }

    /// The same, with one more process.
    #[must_use]
    pub fn and(mut self, order: Order) -> Case {
        self.orders.push(order);
        self
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Whether it has all these labels.
    pub fn is(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == *value)
    }

    /// The median over the rounds of a fact.
    pub fn median(&self, name: &str) -> Option<f64> {
        median(self.rounds.iter().filter_map(|round| round.as_ref()?.get(name).copied()).collect())
    }

    /// A fact divided by the same one of another case, round by round: the machine may change
    /// between two rounds.
    pub fn over(&self, other: &Case, name: &str) -> Option<f64> {
        let quotient = |(this, other): (&Option<Facts>, &Option<Facts>)| {
            Some(this.as_ref()?.get(name)? / other.as_ref()?.get(name)?)
        };
        median(self.rounds.iter().zip(&other.rounds).filter_map(quotient).collect())
    }

    fn name(&self) -> String {
        self.labels.values().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    fn json(&self) -> Value {
        let mut value = json!({ "rounds": self.rounds, "trouble": self.trouble });
        for (name, label) in &self.labels {
            value[*name] = json!(label);
        }
        value
    }
}

/// The middle value; nothing of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[count / 2]),
        count => Some((values[count / 2 - 1] + values[count / 2]) / 2.0),
    }
}

/// Where the sides of a case run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// Each on a core of its own.
    Pinned(usize, usize),
    /// Both on this one.
    One(usize),
    /// Wherever the kernel likes.
    Free,
}

impl Cores {
    fn place(self, order: Order, side: usize) -> Order {
        match self {
            Cores::Pinned(near, far) => order.with("core", [near, far][side]),
            Cores::One(core) => order.with("core", core),
            Cores::Free => order,
        }
    }
}

impl Display for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Cores::Pinned(..) => "pinned",
            Cores::One(_) => "one core",
            Cores::Free => "unpinned",
        })
    }
}

/// The first two cores that there are, or that `--cores` names.
pub fn two_cores(flags: &Flags) -> Result<Cores> {
    let usable = super::system::cores();
    let cores = flags.list("cores", &usable, &usable)?;
    match cores[..] {
        [near, far, ..] => Ok(Cores::Pinned(near, far)),
        [only] => {
            eprintln!("only core {only} is there: both sides share it");
            Ok(Cores::Pinned(only, only))
        }
        [] => Err("--cores names no core".into()),
    }
}

/// A whole bench, while it is measured and when it is printed.
pub struct Run {
    name: &'static str,
    command: String,
    machine: Machine,
    rounds: usize,
    /// How the figures came to be, for the head of the table.
    method: String,
    pub cases: Vec<Case>,
    text: String,
    targets: Vec<Value>,
    extra: BTreeMap<&'static str, Value>,
}

impl Run {
    /// Measures all cases, in rounds of one each, so that a noisy minute hits them all.
    pub fn measure(
        name: &'static str,
        flags: &Flags,
        rounds: usize,
        cases: Vec<Case>,
    ) -> Result<Run> {
        let mut run = Run::without_rounds(name, flags, "");
        (run.rounds, run.cases) = (rounds, cases);
        run.method = format!("medians of {rounds} rounds, interleaved; ratios round by round");
        let folder = Folder::new()?;
        let all = rounds * run.cases.len();
        for round in 0..rounds {
            for at in 0..run.cases.len() {
                let done = 100 * (round * run.cases.len() + at) / all;
                let case = &mut run.cases[at];
                progress(&format!("{done:3} %  round {}  {}", round + 1, case.name()));
                case.measure(&folder);
                if interrupted() {
                    return Err("interrupted; cleaned up".into());
                }
            }
        }
        progress("");
        Ok(run)
    }

    /// For a bench that has its own way of measuring.
    pub fn without_rounds(name: &'static str, flags: &Flags, method: &str) -> Run {
        let (machine, text) = (Machine::here(), String::new());
        let (command, method) = (flags.command(name), method.to_string());
        let (cases, targets, extra) = (Vec::new(), Vec::new(), BTreeMap::new());
        Run { name, command, machine, rounds: 1, method, cases, text, targets, extra }
    }

    /// The one case that has all these labels.
    pub fn case(&self, labels: &[(&str, &str)]) -> Option<&Case> {
        self.cases.iter().find(|case| case.is(labels))
    }

    /// Keeps something for the tools.
    pub fn keep(&mut self, name: &'static str, value: Value) {
        self.extra.insert(name, value);
    }

    /// Keeps one figure for the tools, if it was measured.
    pub fn keep_figure(&mut self, name: &str, value: Option<f64>) {
        self.keep_value(name, json!(value));
    }

    /// Keeps something among the figures.
    pub fn keep_value(&mut self, name: &str, value: Value) {
        self.extra.entry("figures").or_insert_with(|| json!({}))[name] = value;
    }

    /// Adds a table under a title.
    pub fn table(&mut self, title: &str, lines: &[Vec<String>]) {
        let _ = write!(self.text, "\n{title}\n$ {}\n{}", self.command, aligned(lines));
    }

    /// Adds a line of text.
    pub fn note(&mut self, line: &str) {
        let _ = writeln!(self.text, "{line}");
    }

    /// Adds what was aimed at, beside what came out.
    pub fn targets(&mut self, targets: &[Target]) {
        let mut lines = vec![row(["", "target", "measured"])];
        for target in targets {
            let measured = target.measured.map_or("not measured".to_string(), |value| {
                format!("{}{}", digits(value), target.unit)
            });
            lines.push(vec![target.what.to_string(), target.aim.to_string(), measured.clone()]);
            self.targets.push(json!({
                "what": target.what, "target": target.aim, "measured": target.measured,
            }));
        }
        self.table("targets", &lines);
    }

    /// Prints it all, and writes the file for tools.
    pub fn finish(mut self) -> Result<()> {
        self.point_out_troubles();
        let head = format!("\n{}\n{}\n", self.machine.line(), self.method);
        let path = self.file();
        let foot = format!("\nwritten to {}\n", path.display());
        let mut value = json!({
            "bench": self.name, "command": self.command, "machine": self.machine.json(),
            "rounds": self.rounds, "targets": self.targets,
            "cases": self.cases.iter().map(Case::json).collect::<Vec<_>>(),
        });
        for (name, extra) in self.extra {
            value[name] = extra;
        }
        fs::create_dir_all(path.parent().unwrap_or(&path)).why("make the folder of figures")?;
        fs::write(&path, format!("{value:#}\n")).why("write the figures")?;
        match std::io::stdout().lock().write_all((head + &self.text + &foot).as_bytes()) {
            Err(closed) if closed.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.why("print the table"),
        }
    }

    fn file(&self) -> PathBuf {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("."));
        target.join("bench").join(format!("{}.json", self.name))
    }

    fn point_out_troubles(&mut self) {
        let mut troubles: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for case in &self.cases {
            if let Some(why) = &case.trouble {
                let failed = format!("failed in round {}: {why}", case.rounds.len());
                troubles.entry(failed).or_default().push(case.name());
            }
        }
        for (why, names) in troubles {
            self.note(&format!("{why}\n    {}", names.join("; ")));
        }
    }
}

impl Case {
    fn measure(&mut self, folder: &Folder) {
        if self.trouble.is_some() {
            return; // It failed in an earlier round.
        }
        let orders: Vec<Order> = self
            .orders
            .iter()
            .map(|order| order.clone().with("folder", folder.path().display()))
            .collect();
        match stage::play(&orders) {
            Ok(facts) => self.rounds.push(Some(facts.into_iter().flatten().collect())),
            Err(why) => {
                self.rounds.push(None);
                self.trouble = Some(why);
            }
        }
        folder.empty();
    }
}

/// Something that was aimed at.
pub struct Target {
    pub what: &'static str,
    pub aim: &'static str,
    pub measured: Option<f64>,
    pub unit: &'static str,
}

/// A target that is a ratio.
pub fn target(what: &'static str, aim: &'static str, measured: Option<f64>) -> Target {
    Target { what, aim, measured, unit: "" }
}

/// A line of a table.
pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

/// Three digits, or all of a larger number; nothing for nothing.
pub fn cell(value: Option<f64>) -> String {
    value.map_or(String::new(), digits)
}

/// Three digits, or all of a larger number.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => grouped(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn grouped(value: f64) -> String {
    let plain = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && digit != '-' && (plain.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Times of which there were not enough for a histogram, in any unit.
#[derive(Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Takes in one more.
    pub fn record(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The value that `share` of all do not exceed; nothing of nothing.
    pub fn at(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// p50, p99, max and how many.
    pub fn cells(&self) -> Vec<String> {
        let mut cells: Vec<String> = [0.5, 0.99, 1.0].iter().map(|at| cell(self.at(*at))).collect();
        cells.push(self.0.len().to_string());
        cells
    }

    /// For tools.
    pub fn json(&self) -> Value {
        json!({
            "p50": self.at(0.5), "p90": self.at(0.9), "p99": self.at(0.99), "max": self.at(1.0),
            "count": self.0.len(),
        })
    }
}

/// Columns as wide as their widest cell: the first to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|c| c.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let first = line.first().map_or("", String::as_str);
        let mut row = format!("{first:0$}", widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(row, "  {cell:>width$}");
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

/// Shows on a terminal how far it has come.
pub fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
    }
}
