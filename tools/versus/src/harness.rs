//! The conductor: starts the two sides of each measurement, sees them through, cleans up after them,
//! and goes round and round, so that a noisy minute hits everybody.
//!
//! It never spins while the sides talk: the cores are theirs.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::contender::{Kind, Place, Result, Why};
use crate::figure::{Figure, Said};
use crate::plan::{Plan, slots};
use crate::play::Piece;
use crate::side::{Order, RESULT};
use crate::system;

const SHARED_MEMORY: &str = "/dev/shm";

/// Measures all that the plan asks for.
pub fn measure(plan: &Plan) -> Result<Vec<Figure>> {
    system::catch_interrupts();
    point_out_leftovers();
    let run = Run::new()?;
    let mut figures = table(plan);
    let all = plan.rounds * figures.len();
    let mut done = 0;
    for round in 1..=plan.rounds {
        for figure in &mut figures {
            progress(&format!("{:3} %  round {round}  {}", 100 * done / all, figure.label()));
            done += 1;
            if figure.trouble.is_some() {
                continue; // It cannot be measured, or failed in an earlier round.
            }
            match run.play(figure, plan) {
                _ if system::interrupted() => return Err("interrupted; cleaned up".into()),
                Ok(said) => figure.rounds.push(said),
                Err(why) => figure.trouble = Some(why),
            }
        }
    }
    progress("");
    Ok(figures)
}

/// Every place of the table, in its order; those that cannot be measured say why.
fn table(plan: &Plan) -> Vec<Figure> {
    let mut figures = Vec::new();
    for bytes in &plan.sizes {
        for entry in &plan.contenders {
            for (measure, mode) in entry.can {
                figures.push(Figure {
                    entry,
                    bytes: *bytes,
                    measure: *measure,
                    mode: *mode,
                    rounds: Vec::new(),
                    trouble: entry.refusal(*mode, *bytes).map(String::from),
                });
            }
        }
    }
    figures
}

/// Owns everything in shared memory that this run has made, whatever happens.
struct Run {
    name: String,
}

impl Run {
    fn new() -> Result<Run> {
        let run = Run { name: format!("versus_{}", std::process::id()) };
        run.clean();
        Ok(run)
    }

    fn play(&self, figure: &Figure, plan: &Plan) -> Result<Said> {
        let directory = Path::new(SHARED_MEMORY).join(&self.name);
        fs::create_dir(&directory).why("make a directory in /dev/shm")?;
        let order = order(figure, plan, directory);
        let said = match figure.entry.kind {
            Kind::Threads => one_process(&order),
            Kind::Yardstick | Kind::Processes => two_processes(&order),
        };
        self.clean();
        said
    }

    fn clean(&self) {
        for path in left_in_shared_memory(&self.name) {
            // What cannot be removed is pointed out by the next run.
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.clean();
    }
}

fn order(figure: &Figure, plan: &Plan, directory: PathBuf) -> Order {
    let bytes = if figure.entry.sizeless { 8 } else { figure.bytes };
    Order {
        contender: figure.entry.name,
        bytes,
        piece: Piece { measure: figure.measure, mode: figure.mode, length: plan.length },
        place: Place {
            directory,
            near: true,
            slots: slots(plan.ring_bytes, bytes),
            ring_bytes: plan.ring_bytes,
        },
        cores: plan.cores,
    }
}

/// Files of runs, this one's included when their name begins with `name` and ends or goes on with
/// an underscore.
fn left_in_shared_memory(name: &str) -> Vec<PathBuf> {
    let ours = |file: &str| {
        file.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    let entries = fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_str().is_some_and(ours)).map(|e| e.path()).collect()
}

/// A run that was killed with SIGKILL could not clean up. Another may be under way, so this one only
/// says what it sees.
fn point_out_leftovers() {
    for path in left_in_shared_memory("versus") {
        eprintln!("versus: {} is of another run; remove it if that is over", path.display());
    }
}

fn two_processes(order: &Order) -> Result<Said> {
    let mut far = order.clone();
    far.place.near = false;
    let (mut near, mut far) = (Side::start(order)?, Side::start(&far)?);
    // When one side fails, the other one mostly knows why.
    conduct([&mut near, &mut far]).ok_or_else(|| match (near.last_words(), far.last_words()) {
        (near, far) if near == far => near,
        (near, far) => format!("near side {near}; far side {far}"),
    })
}

fn one_process(order: &Order) -> Result<Said> {
    let mut both = Side::start(order)?;
    both.result().ok_or_else(|| both.last_words())
}

fn conduct(mut sides: [&mut Side; 2]) -> Option<Said> {
    for word in ["created", "ready", "done"] {
        for side in &mut sides {
            side.hear(word)?;
        }
        for side in &mut sides {
            side.go_on()?;
        }
    }
    let mut said = Said::new();
    for side in &mut sides {
        said.extend(side.result()?);
    }
    Some(said)
}

/// A side, as the conductor sees it: a process that speaks in lines.
struct Side {
    process: Child,
    lines: BufReader<ChildStdout>,
    /// It has said its result and leaves by itself, taking down what it had opened.
    finished: bool,
}

impl Side {
    fn start(order: &Order) -> Result<Side> {
        let program = std::env::current_exe().why("find this program")?;
        let mut process = Command::new(program)
            .args(order.args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .why("start a side")?;
        let lines = BufReader::new(process.stdout.take().ok_or("a side without output")?);
        Ok(Side { process, lines, finished: false })
    }

    /// Waits for a line that begins with this word; nothing when the side is no more.
    fn hear(&mut self, word: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) if line.starts_with(word) => return Some(line),
                Ok(_) => {} // A peer that talks.
            }
        }
    }

    fn go_on(&mut self) -> Option<()> {
        self.process.stdin.as_mut()?.write_all(b"go\n").ok()
    }

    fn result(&mut self) -> Option<Said> {
        let line = self.hear(RESULT)?;
        self.finished = true;
        let pairs = line.split_whitespace().skip(1).filter_map(|fact| fact.split_once('='));
        pairs.map(|(name, value)| Some((name.into(), value.parse().ok()?))).collect()
    }

    /// Ends the side, and gives what it had to say about it.
    fn last_words(&mut self) -> String {
        let _ = self.process.kill(); // It may have ended already, which is the better answer.
        let mut words = String::new();
        if let Some(mut errors) = self.process.stderr.take() {
            let _ = errors.read_to_string(&mut words); // No words are an answer too.
        }
        let status = self.process.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("({status}) {words}").trim_end().to_string()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.process.kill(); // It may have ended just now.
        }
        let _ = self.process.wait();
    }
}

fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
    }
}
