//! Sides: processes of this same program, started with an order and led through it in step.
//!
//! A side speaks in lines over its standard output. It says `meet` and waits to be told to go on,
//! as often as its part has steps, and in the end `result name=value …`.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Result, Why, system};

/// The first argument of a side.
pub const SIDE: &str = "--side";

/// What a side has to say at the end.
pub type Facts = BTreeMap<String, f64>;

/// What a side is told on its command line.
#[derive(Clone, Default)]
pub struct Order(BTreeMap<String, String>);

impl Order {
    /// The same, with one thing more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> Self {
        self.0.insert(name.into(), value.to_string());
        self
    }

    /// What it says about this; nothing if it says nothing.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The number that it says.
    pub fn number(&self, name: &str) -> Result<u64> {
        self.text(name).parse().why(&format!("the order's {name}"))
    }

    /// Whether this side makes what the other one opens.
    pub fn is_near(&self) -> bool {
        self.text("near") == "1"
    }

    fn args(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}"))
    }

    fn parse(args: &[String]) -> Self {
        let pairs = args.iter().filter_map(|arg| arg.split_once('='));
        Order(pairs.map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// How long a side may live when its order does not say.
const LIFE_S: u32 = 60;

/// The whole life of a side.
pub fn live(args: &[String], play: fn(&Order, &mut Meeting) -> Result<Facts>) -> Result<()> {
    let order = Order::parse(args);
    // For the foot of the table: what happened, without the way there.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{}", panic.payload_as_str().unwrap_or("panicked"));
    }));
    let life = order.number("life_s").map_or(LIFE_S, |seconds| seconds as u32);
    system::live_no_longer_than(life)?;
    if let Ok(core) = order.number("core") {
        system::pin(core as usize)?;
    }
    let facts = play(&order, &mut Meeting)?;
    let mut line = "result".to_string();
    for (name, value) in &facts {
        let _ = write!(line, " {name}={value}");
    }
    say(&line)
}

/// The steps of a side.
pub struct Meeting;

impl Meeting {
    /// Waits until all sides have come this far.
    pub fn meet(&mut self) -> Result<()> {
        say("meet")?;
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line).why("listen to the conductor")? {
            0 => Err("the conductor is gone".to_string()),
            _ => Ok(()),
        }
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).why("speak to the conductor")
}

/// A side, as the conductor sees it.
pub struct Side {
    process: Child,
    input: ChildStdin,
    lines: BufReader<ChildStdout>,
    /// It has said its result, and leaves by itself.
    is_done: bool,
}

/// What a side says.
enum Line {
    Meet,
    Result(Facts),
}

impl Side {
    /// Starts a process with an order.
    pub fn start(order: &Order) -> Result<Side> {
        let program = std::env::current_exe().why("find this program")?;
        let mut process = Command::new(program)
            .arg(SIDE)
            .args(order.args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .why("start a side")?;
        let input = process.stdin.take().ok_or("a side without input")?;
        let lines = BufReader::new(process.stdout.take().ok_or("a side without output")?);
        Ok(Side { process, input, lines, is_done: false })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the next meeting.
    pub fn hear_meet(&mut self) -> Result<()> {
        match self.hear()? {
            Line::Meet => Ok(()),
            Line::Result(_) => Err("a side ended before its time".into()),
        }
    }

    /// Waits for the result.
    pub fn hear_result(&mut self) -> Result<Facts> {
        match self.hear()? {
            Line::Result(facts) => Ok(facts),
            Line::Meet => Err("a side met once too often".into()),
        }
    }

    /// Tells it to go on.
    pub fn go_on(&mut self) -> Result<()> {
        self.input.write_all(b"go\n").why("tell a side to go on")
    }

    /// Kills it; the caller reaps it by dropping it.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().why("kill a side")
    }

    fn hear(&mut self) -> Result<Line> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(read) if read > 0 => {}
            _ => return Err(self.last_words()),
        }
        let mut words = line.split_whitespace();
        match words.next() {
            Some("meet") => Ok(Line::Meet),
            Some("result") => {
                self.is_done = true;
                let pair = |word: &str| {
                    let (name, value) = word.split_once('=')?;
                    Some((name.to_string(), value.parse().ok()?))
                };
                Ok(Line::Result(words.filter_map(pair).collect()))
            }
            _ => Err(format!("a side said {line:?}")),
        }
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
        if !self.is_done {
            let _ = self.process.kill(); // It may have ended just now.
        }
        let _ = self.process.wait();
    }
}

/// Plays one piece: starts a side for each order, leads them from meeting to meeting, and gives
/// what they had to say, in the same order.
pub fn play(orders: &[Order]) -> Result<Vec<Facts>> {
    let mut sides = orders.iter().map(Side::start).collect::<Result<Vec<_>>>()?;
    loop {
        let mut results = Vec::new();
        let mut troubles = Vec::new();
        for side in &mut sides {
            match side.hear() {
                Ok(Line::Result(facts)) => results.push(facts),
                Ok(Line::Meet) => {}
                // When one side fails, another one mostly knows why.
                Err(why) => troubles.push(why),
            }
        }
        if system::interrupted() {
            return Err("interrupted".into());
        }
        if !troubles.is_empty() {
            troubles.dedup();
            return Err(troubles.join("; "));
        }
        match results.len() {
            0 => sides.iter_mut().try_for_each(Side::go_on)?,
            count if count == sides.len() => return Ok(results),
            _ => return Err("the sides are out of step".into()),
        }
    }
}

/// A directory in shared memory for all that a run makes; gone when the run is over, whatever
/// happened in it.
pub struct Folder(PathBuf);

const SHARED_MEMORY: &str = "/dev/shm";
const PREFIX: &str = "eshm-bench-";

impl Folder {
    /// Makes it, and points out what runs that were killed have left.
    pub fn new() -> Result<Folder> {
        for entry in fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            // A run that goes on cleans up after itself.
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                eprintln!("{} is of a run that was killed; remove it", entry.path().display());
            }
        }
        let path = Path::new(SHARED_MEMORY).join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).why("make a directory in shared memory")?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Removes what is in it.
    pub fn empty(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path()); // The next run points out what stays.
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // As above.
    }
}
