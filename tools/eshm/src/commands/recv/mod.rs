//! `eshm recv`: lines, records or a file out of a bus.
//!
//! Ends when the sender has left and all is read. A sender that died may come back, so its death
//! ends nothing. With `--ack` a message leaves the bus only after it was written to the output and
//! flushed: killed at any moment, this command loses nothing, and may write one message twice.

mod file;
mod inlet;
mod sink;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use eshm::{Role, Schema};
use tracing::info;

use crate::commands::pace::Pace;
use crate::exit::{Failure, Outcome};
use crate::open::Bus;
use crate::output::progress::Progress;
use crate::parse;
use crate::signals::Stop;
use inlet::Inlet;
use sink::Sink;
pub use sink::as_json;

/// How messages are to stand in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line each; escaped when the output is a terminal
    Lines,
    /// As lines, but ended by a zero byte
    Nul,
    /// Each with its length in front: 4 bytes, little-endian
    Records,
}

/// Options of `eshm recv`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    eshm recv first                         lines, until the sender has left\n  \
    eshm recv films --file copy.mkv         a whole file; the other side: eshm send films --file film.mkv\n  \
    eshm recv jobs --ack -o done.log --append    lose nothing, whoever is killed")]
pub struct Args {
    #[command(flatten)]
    bus: Bus,
    /// How messages are to stand in the output
    #[arg(short, long, value_enum, default_value = "lines")]
    format: Format,
    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Add to the file instead of starting it anew
    #[arg(long, requires = "output")]
    append: bool,
    /// Receive the whole file that `send --file` sends ("-" for stdout)
    #[arg(long, value_name = "PATH", conflicts_with_all = ["output", "format", "count", "json"])]
    file: Option<PathBuf>,
    /// Take a message off the bus only after it is written and flushed
    #[arg(long)]
    ack: bool,
    /// One JSON object per message, with its id
    #[arg(long)]
    pub json: bool,
    /// Let control characters through to a terminal
    #[arg(long)]
    raw: bool,
    /// End after that many messages
    #[arg(short = 'n', long, value_name = "N", value_parser = parse::count)]
    count: Option<u64>,
    /// Messages per second, no more
    #[arg(long, value_name = "PER_S", value_parser = parse::count)]
    rate: Option<u64>,
    /// Give up when for that long no message came
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// What the messages are to be. A bus that carries something else, or nothing, is refused; without
    /// it whatever the bus carries is right
    #[arg(long, value_name = "NAME:VERSION", value_parser = parse::schema)]
    schema: Option<Schema>,
    /// Go on when the sender has left, and wait for the next
    #[arg(long)]
    follow: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

impl Args {
    /// Receives.
    pub fn run(self) -> Outcome {
        let stop = Stop::install()?;
        let mut options = self.bus.options(Role::Slave)?;
        if let Some(schema) = &self.schema {
            options.reads(schema.clone());
        }
        // Looked at before the bus is opened: a wrong path must not cost a message.
        let file = self.file.as_deref().map(|path| file::Copy::open(path, &stop)).transpose()?;
        let sink = match file {
            None => Some(Sink::open(&self, &stop)?),
            Some(_) => None,
        };
        let bus = self.bus.open(&options, self.timeout, &stop)?;
        let on_screen = self.output.is_none() && self.file.is_none() && sink::stdout_is_terminal();
        let progress = Progress::new("received", None, self.quiet || on_screen);
        let mut inlet = Inlet::new(bus, &stop, self.timeout, self.follow, progress);
        let outcome = match (file, sink) {
            (Some(copy), _) => file::receive(copy, &mut inlet),
            (None, Some(sink)) => self.receive_messages(sink, &mut inlet),
            (None, None) => Ok(()),
        };
        let (messages, bytes) = inlet.done();
        info!("received {messages} messages, {bytes} bytes");
        inlet.warn_of_losses();
        let left = inlet.leave();
        outcome.and(left)
    }

    fn receive_messages(&self, mut sink: Sink, inlet: &mut Inlet<'_>) -> Outcome {
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut pace = self.rate.map(|rate| Pace::new(rate as f64));
        while left > 0 && inlet.wait()? {
            if let Some(pace) = &mut pace {
                pace.wait(inlet.stop())?;
            }
            if self.ack {
                inlet.take_acknowledged(|id, message| {
                    sink.put(id, message).and_then(|()| sink.flush())
                })?;
                left -= 1;
            } else {
                let most = if pace.is_some() { 1 } else { left };
                let mut taken = 0;
                let written = inlet.take(most, &mut taken, |id, message| sink.put(id, message));
                let written = written.and_then(|()| sink.flush());
                left -= taken;
                match &written {
                    Err(Failure::Signal(_)) => {
                        inlet.tell_of_unwritten(taken - sink.whole(), ", because nobody read");
                    }
                    Err(Failure::Told { .. }) => inlet.tell_of_unwritten(taken - sink.whole(), ""),
                    _ => {}
                }
                written?;
            }
        }
        Ok(())
    }
}
