//! `eshm send`: lines, records or a file into a bus.
//!
//! A sender that is killed and started again goes on where its predecessor stopped, if its input
//! can be read again (a file): the segment tells how many messages were committed, the
//! [`journal`] which of them was the first of this input. What was read from a pipe and not yet
//! committed died with the process; nobody can bring that back.

mod file;
mod input;
mod journal;
mod outlet;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use eshm::{Cleanup, Endpoint, Error, Geometry, Options, Overflow, Role, Schema, SegmentState};
use serde_json::json;
use tracing::info;

use crate::commands::pace::Pace;
use crate::exit::{Failure, Outcome, USAGE};
use crate::open::{Bus, CleanupArg};
use crate::output::progress::Progress;
use crate::parse;
use crate::record::{Format, Source};
use crate::signals::Stop;
use input::Input;
use journal::Journal;
pub use journal::{PREFIX as JOURNAL_PREFIX, forget as forget_journals};
use outlet::Outlet;

/// Bytes of a file that travel in one message, unless said otherwise.
const BLOCK: u64 = 128 * 1024;
/// Messages handed over in one call.
const BATCH: usize = 256;

/// Options of `eshm send`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    seq 1000 | eshm send first              lines, until the reader has taken them all\n  \
    eshm send films --file film.mkv         a whole file; the other side: eshm recv films --file copy.mkv\n  \
    journalctl -f | eshm send log --role slave --timeout 10s")]
pub struct Args {
    #[command(flatten)]
    bus: Bus,
    /// How messages stand in the input
    #[arg(short, long, value_enum, default_value = "lines")]
    format: Format,
    /// Read from this file instead of stdin
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Send this file as a whole ("-" for stdin); the other side is `recv --file`
    #[arg(long, value_name = "PATH", conflicts_with_all = ["input", "format", "count"])]
    file: Option<PathBuf>,
    /// Bytes of the file in one message [default: 128K, or what the ring carries]
    #[arg(long, value_name = "BYTES", value_parser = parse::size, requires = "file")]
    block: Option<u64>,
    /// End after that many messages
    #[arg(short = 'n', long, value_name = "N", value_parser = parse::count)]
    count: Option<u64>,
    /// Messages per second, no more; of a file, blocks
    #[arg(long, value_name = "PER_S", value_parser = parse::count)]
    rate: Option<u64>,
    /// Give up when for that long there was no room, or at the end no reader
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// The same as --cleanup never: do not wait at the end until all is read, but leave it in the bus
    #[arg(long, conflicts_with = "cleanup")]
    keep: bool,
    /// What the messages are. A bus that is made carries it; one that carries something else, or
    /// nothing, is refused. Without it whatever the bus carries is right
    #[arg(long, value_name = "NAME:VERSION", value_parser = parse::schema)]
    schema: Option<Schema>,
    /// Do not go on where a killed sender of the same input stopped, but send all of it
    #[arg(long)]
    fresh: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    /// At the end, tell in JSON what was done
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// Sends.
    pub fn run(self) -> Outcome {
        let stop = Stop::install()?;
        let input = Input::open(self.file.as_deref().or(self.input.as_deref()), &stop)?;
        let started = Instant::now();
        let mut options = self.bus.options(Role::Master)?;
        if let Some(schema) = &self.schema {
            options.writes(schema.clone());
        }
        if self.keep {
            options.cleanup(Cleanup::Never);
        }
        let bus = self.open(&options, &stop)?;
        let progress = Progress::new("sent", input.size(), self.quiet);
        let mut outlet =
            Outlet::new(bus, self.bus.place.dir.clone(), &stop, self.timeout, progress);
        let resumed_at = self.send_all(input, &mut outlet)?;
        if !self.keeps() {
            outlet.wait_until_read()?;
        }
        self.summarise(&outlet, resumed_at, started.elapsed())
    }

    /// Opens the bus; one that is made for a file gets a longer ring.
    fn open(&self, options: &Options, stop: &Stop) -> Outcome<Endpoint> {
        let has_shape = self.bus.frames.is_some() || self.bus.frame_size.is_some();
        if self.file.is_some() && !has_shape && self.is_to_be_made() {
            let long = Geometry { frame_size: 64, frames: 1 << 16, overflow: Overflow::Refuse };
            let mut shaped = options.clone();
            shaped.direction(self.bus.role_or(Role::Master).writes(), long);
            match self.bus.open(&shaped, self.timeout, stop) {
                // Somebody else has made it, or there is an empty one that this user cannot remove.
                Err(Failure::Told { code: USAGE, .. }) => {}
                opened => return opened,
            }
        }
        self.bus.open(options, self.timeout, stop)
    }

    /// Whether there is no bus of the name, or only the empty file of one.
    fn is_to_be_made(&self) -> bool {
        match eshm::inspect_in(&self.bus.place.dir, &self.bus.name) {
            Ok(found) => found.state == SegmentState::Retired,
            Err(error) => matches!(error, Error::NotFound { .. }),
        }
    }

    /// Whether the messages are to be left for whoever comes.
    fn keeps(&self) -> bool {
        self.keep || self.bus.cleanup == Some(CleanupArg::Never)
    }

    /// Sends the input; gives the number of messages that a predecessor had sent already.
    fn send_all(&self, input: Input<'_>, outlet: &mut Outlet<'_>) -> Outcome<u64> {
        let wanted = self.block.unwrap_or(BLOCK).max(1);
        let (journal, done) =
            Journal::find_or_start(&self.bus, &input, outlet.bus(), wanted, self.fresh)?;
        if done > 0 {
            outlet.say(&format!("going on after {done} messages that are sent already"));
        }
        if self.file.is_some() {
            let pace = self.rate.map(|rate| Pace::new(rate as f64));
            file::send(input, outlet, journal.block(), done, pace)?;
        } else {
            self.send_messages(input, outlet, done)?;
        }
        Ok(done)
    }

    fn send_messages(&self, input: Input<'_>, outlet: &mut Outlet<'_>, done: u64) -> Outcome {
        let mut source = Source::new(input, self.format, outlet.max_message());
        let mut pace = self.rate.map(|rate| Pace::new(rate as f64));
        let mut batch: Vec<Vec<u8>> = vec![Vec::new(); if pace.is_some() { 1 } else { BATCH }];
        for _ in 0..done {
            source.next(&mut batch[0])?;
        }
        let mut left = self.count.unwrap_or(u64::MAX).saturating_sub(done);
        while left > 0 {
            if let Some(pace) = &mut pace {
                pace.wait(outlet.stop())?;
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(batch.len());
            let filled = fill(&mut source, &mut batch[..most])?;
            outlet.put_all(&batch[..filled])?;
            left -= filled as u64;
            if filled == 0 {
                break;
            }
        }
        Ok(())
    }

    fn summarise(&self, outlet: &Outlet<'_>, resumed_at: u64, took: Duration) -> Outcome {
        let (messages, bytes) = outlet.done();
        info!("sent {messages} messages, {bytes} bytes in {took:?}");
        if self.json {
            println!(
                "{}",
                json!({ "name": self.bus.name, "messages": messages, "bytes": bytes,
                        "resumed_at": resumed_at, "seconds": took.as_secs_f64() })
            );
        }
        Ok(())
    }
}

/// Takes the next message, waiting for it, and what has come along with it.
fn fill<R: std::io::Read>(source: &mut Source<R>, batch: &mut [Vec<u8>]) -> Outcome<usize> {
    let mut filled = 0;
    while filled < batch.len() && (filled == 0 || source.has_more()) {
        if !source.next(&mut batch[filled])? {
            break;
        }
        filled += 1;
    }
    Ok(filled)
}
