//! `eshm tap`: shows what passes without taking it, and without either side noticing.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use eshm::{Direction, Error, Options, PeerState, Schema, Tap, TapMessage};
use regex::bytes::Regex;
use serde_json::json;

use crate::commands::recv::as_json;
use crate::exit::{Failure, Outcome, TIMEOUT, USAGE};
use crate::open::{self, Place};
use crate::output::style::{self, Paint};
use crate::output::{Out, escape, hexdump, units};
use crate::parse;
use crate::signals::Stop;

/// When nothing comes, the rings are looked at that often.
const PAUSE: Duration = Duration::from_millis(1);
/// And the segment that often, to see whether both sides are gone.
const LOOK: Duration = Duration::from_millis(100);

/// Which messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// Those that the master writes
    Master,
    /// Those that the slave writes
    Slave,
    /// All
    Both,
}

/// After so long without a message it is said what waits unread.
const TELL: Duration = Duration::from_secs(1);

/// How to show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line each, escaped
    Text,
    /// Rows of hexadecimal
    Hex,
    /// One JSON object a line
    Json,
}

/// Options of `eshm tap`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    eshm tap telemetry --from master --format hex\n  \
    eshm tap telemetry --match 'error|warn' -n 10\n  \
    eshm tap telemetry --json | jq .len")]
pub struct Args {
    /// The name of the bus
    name: String,
    /// Whose messages
    #[arg(long, value_enum, default_value = "both")]
    from: From,
    /// How to show them
    #[arg(short, long, value_enum, default_value = "text")]
    format: Format,
    /// The same as --format json
    #[arg(long)]
    pub json: bool,
    /// Begin with what is unread, not with what comes next
    #[arg(long)]
    unread: bool,
    /// What the messages are to be, of each side that is listened to; something else is refused
    #[arg(long, value_name = "NAME:VERSION", value_parser = parse::schema)]
    schema: Option<Schema>,
    /// Only messages that this regular expression matches
    #[arg(long = "match", value_name = "REGEX")]
    pattern: Option<String>,
    /// Only messages of at least that many bytes
    #[arg(long, value_name = "BYTES", value_parser = parse::size)]
    min_len: Option<u64>,
    /// Only messages of at most that many bytes
    #[arg(long, value_name = "BYTES", value_parser = parse::size)]
    max_len: Option<u64>,
    /// Only every N-th message
    #[arg(long, value_name = "N", value_parser = parse::count)]
    every: Option<u64>,
    /// Show only the first bytes of a message
    #[arg(long, value_name = "BYTES", value_parser = parse::size)]
    cut: Option<u64>,
    /// End after that many messages
    #[arg(short = 'n', long, value_name = "N", value_parser = parse::count)]
    count: Option<u64>,
    /// End, with exit code 4, when for that long nothing came that was to be shown
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// How long to wait for a master to make the segment: a time, 0 for not at all, or forever
    #[arg(long, value_name = "TIME", value_parser = parse::patience, default_value = "0")]
    open_timeout: Duration,
    #[command(flatten)]
    place: Place,
}

impl Args {
    /// Looks on until both sides are gone.
    pub fn run(self) -> Outcome {
        let stop = Stop::install()?;
        let filter = Filter::new(&self)?;
        let mut taps = self.open(&stop)?;
        let longest = taps.iter().map(|tap| tap.geometry().max_message()).max().unwrap_or(0);
        let mut buffer = vec![0; longest];
        let mut viewer = Viewer {
            out: Out::stdout(Some(&stop))?,
            format: if self.json { Format::Json } else { self.format },
            cut: self.cut,
            paint: style::stdout(),
            started: Instant::now(),
        };
        let (mut shown, mut last, mut looked) = (0, Instant::now(), Instant::now());
        let (mut over, mut seen, mut told) = (false, self.unread, false);
        while self.count.is_none_or(|count| shown < count) {
            stop.check()?;
            let mut quiet = true;
            for tap in &mut taps {
                let Some(message) = next(tap, &mut buffer)? else { continue };
                (quiet, seen) = (false, true);
                warn_of_gap(tap, &message);
                let payload = &buffer[..message.len];
                if filter.wants(&message, payload) && self.count.is_none_or(|count| shown < count) {
                    viewer.show(tap.direction(), &message, payload)?;
                    shown += 1;
                    last = Instant::now();
                }
            }
            if self.timeout.is_some_and(|limit| last.elapsed() >= limit) {
                viewer.out.flush()?;
                if !seen && !told {
                    self.tell_of_unread(&taps)?;
                }
                return Err(Failure::new(TIMEOUT, self.nothing_came()));
            }
            if quiet {
                viewer.out.flush()?;
                if looked.elapsed() >= LOOK {
                    looked = Instant::now();
                    let waited = viewer.started.elapsed() >= TELL;
                    if !seen && !told && (over || waited) {
                        told = true;
                        self.tell_of_unread(&taps)?;
                    }
                    // What was written before they left is seen in one more turn.
                    if std::mem::replace(&mut over, self.is_over()?) {
                        break;
                    }
                }
                stop.sleep(PAUSE)?;
            }
        }
        viewer.out.flush()?;
        Ok(())
    }

    /// Says what waits in the bus, for whoever sees nothing because nobody writes.
    fn tell_of_unread(&self, taps: &[Tap]) -> Outcome {
        let stats = match eshm::inspect_in(&self.place.dir, &self.name) {
            Ok(snapshot) => snapshot.stats,
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let backlog = |tap: &Tap| match tap.direction() {
            Direction::MasterToSlave => stats.master_to_slave.backlog,
            Direction::SlaveToMaster => stats.slave_to_master.backlog,
        };
        let unread = taps.iter().map(backlog).sum();
        if unread > 0 {
            let unread = units::plural(unread, "message");
            eprintln!("eshm: nobody writes; to see what waits unread, {unread}: --unread");
        }
        Ok(())
    }

    fn nothing_came(&self) -> &'static str {
        let is_choosy = self.pattern.is_some() || self.min_len.is_some() || self.max_len.is_some();
        if is_choosy { "no message came that is to be shown" } else { "no message came" }
    }

    fn open(&self, stop: &Stop) -> Outcome<Vec<Tap>> {
        let directions: &[Direction] = match self.from {
            From::Master => &[Direction::MasterToSlave],
            From::Slave => &[Direction::SlaveToMaster],
            From::Both => &Direction::BOTH,
        };
        let mut options = Options::new(&self.name);
        options.directory(&self.place.dir);
        if let Some(schema) = &self.schema {
            options.reads(schema.clone());
        }
        let mut taps = Vec::new();
        for &direction in directions {
            let patience = Some(self.open_timeout);
            let mut tap = open::wait_open(
                || options.tap(direction),
                patience,
                stop,
                |patience| {
                    patience.tell(&self.name, &options.path());
                },
            )?;
            if self.unread {
                tap.from_oldest();
            }
            taps.push(tap);
        }
        Ok(taps)
    }

    /// Whether nobody is left who could send.
    fn is_over(&self) -> Outcome<bool> {
        let stats = match eshm::inspect_in(&self.place.dir, &self.name) {
            Ok(snapshot) => snapshot.stats,
            Err(Error::NotFound { .. }) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let gone = |state| matches!(state, PeerState::Left | PeerState::Absent);
        Ok(gone(stats.master.state) && gone(stats.slave.state))
    }
}

/// The next message, if one is there.
fn next(tap: &mut Tap, buffer: &mut [u8]) -> Outcome<Option<TapMessage>> {
    match tap.try_read(buffer) {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.is_wait() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn warn_of_gap(tap: &Tap, message: &TapMessage) {
    if message.lost > 0 {
        let passed = units::plural(message.lost, "message");
        eprintln!("eshm: {}: {passed} passed too fast to be seen", tap.direction());
    }
}

/// Which messages are to be shown.
struct Filter {
    pattern: Option<Regex>,
    min_len: u64,
    max_len: u64,
    every: u64,
}

impl Filter {
    fn new(args: &Args) -> Outcome<Filter> {
        let pattern = args.pattern.as_deref().map(Regex::new).transpose();
        let pattern = pattern.map_err(|error| Failure::new(USAGE, format!("--match: {error}")))?;
        Ok(Filter {
            pattern,
            min_len: args.min_len.unwrap_or(0),
            max_len: args.max_len.unwrap_or(u64::MAX),
            every: args.every.unwrap_or(1).max(1),
        })
    }

    fn wants(&self, message: &TapMessage, payload: &[u8]) -> bool {
        (self.min_len..=self.max_len).contains(&(payload.len() as u64))
            && message.id.number.is_multiple_of(self.every)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(payload))
    }
}

/// Shows messages.
struct Viewer {
    out: Out,
    format: Format,
    cut: Option<u64>,
    paint: Paint,
    started: Instant,
}

impl Viewer {
    fn show(&mut self, direction: Direction, message: &TapMessage, payload: &[u8]) -> Outcome {
        let most = self.cut.map_or(usize::MAX, |cut| usize::try_from(cut).unwrap_or(usize::MAX));
        let visible = &payload[..payload.len().min(most)];
        let cut = visible.len() < payload.len();
        if self.format == Format::Json {
            let mut value = as_json(message.id, visible);
            value["direction"] = direction.to_string().into();
            value["len"] = payload.len().into();
            value["lost"] = message.lost.into();
            value["cut"] = json!(cut);
            writeln!(self.out, "{value}")?;
            return Ok(());
        }
        let who = match direction {
            Direction::MasterToSlave => self.paint.cyan("m>s"),
            Direction::SlaveToMaster => self.paint.yellow("s>m"),
        };
        let seconds = self.started.elapsed().as_secs_f64();
        let head = self.paint.dim(format!(
            "{seconds:>9.6} {} {:>6}",
            message.id,
            units::bytes(payload.len() as u64)
        ));
        let more = if cut { "…" } else { "" };
        match self.format {
            Format::Hex => {
                write!(self.out, "{who} {head}{more}\n{}", hexdump::rows(visible, "    "))?
            }
            _ => writeln!(self.out, "{who} {head}  {}{more}", escape::bytes(visible))?,
        }
        Ok(())
    }
}
