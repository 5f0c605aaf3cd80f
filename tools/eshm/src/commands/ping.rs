//! `eshm ping`: round trips to an `eshm echo`, as a histogram.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use eshm::{Cleanup, Endpoint, Error, Role};
use hdrhistogram::Histogram;
use serde_json::json;

use crate::commands::pace::Pace;
use crate::exit::{Failure, Outcome, PEER_GONE, SYSTEM, TIMEOUT, USAGE};
use crate::open::{Bus, CleanupArg};
use crate::output::percentiles::{self, Summary, TOLD};
use crate::output::style::{self, Paint};
use crate::output::units;
use crate::parse;
use crate::signals::{SLICE, Stop};

/// Options of `eshm ping`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "In another terminal, or a container that shares /dev/shm:\n  eshm echo test"
)]
pub struct Args {
    #[command(flatten)]
    bus: Bus,
    /// How many round trips
    #[arg(short = 'n', long, value_name = "N", value_parser = parse::count, default_value = "100k")]
    count: u64,
    /// Bytes of a message
    #[arg(short, long, value_name = "BYTES", value_parser = parse::size, default_value = "48")]
    size: u64,
    /// Round trips per second, no more
    #[arg(long, value_name = "PER_S", value_parser = parse::count)]
    rate: Option<u64>,
    /// Give up when an answer takes longer
    #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "5s")]
    timeout: Duration,
    /// Write the histogram to this file, in the text format of HdrHistogram
    #[arg(long, value_name = "PATH")]
    hgrm: Option<PathBuf>,
    /// The percentiles in JSON
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// Measures.
    pub fn run(self) -> Outcome {
        let stop = Stop::install()?;
        if self.size < 8 {
            return Err(Failure::new(
                USAGE,
                "--size: at least 8 bytes, for the number of the message",
            ));
        }
        let mut options = self.bus.options(Role::Slave)?;
        // Nobody wants an unread ping, unless it is said.
        options.cleanup(self.bus.cleanup.map_or(Cleanup::Always, CleanupArg::wish));
        let mut bus = self.bus.open(&options, Some(self.timeout), &stop)?;
        bus.wait_for_peer(self.timeout).map_err(|error| self.no_echo(error))?;
        let mut histogram = percentiles::histogram();
        let outcome = self.measure(&mut bus, &mut histogram, &stop);
        drop(bus);
        if !histogram.is_empty() {
            self.tell(&histogram)?;
        }
        outcome
    }

    fn measure(&self, bus: &mut Endpoint, histogram: &mut Histogram<u64>, stop: &Stop) -> Outcome {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX).min(bus.max_message());
        let mut message = vec![0; size];
        let mut answer = vec![0; bus.geometry(bus.role().peer().writes()).max_message()];
        let mut pace = self.rate.map(|rate| Pace::new(rate as f64));
        let warm_up = (self.count / 10).min(1000);
        for number in 0..self.count + warm_up {
            if let Some(pace) = &mut pace {
                pace.wait(stop)?;
            }
            stop.check()?;
            message[..8].copy_from_slice(&number.to_le_bytes());
            let started = Instant::now();
            bus.write_timeout(&message, self.timeout)?;
            let len = self.answer(bus, &mut answer, &message, started, stop)?;
            if number >= warm_up {
                histogram.saturating_record(crate::clock::ns(started.elapsed()).max(1));
            }
            if answer[..len] != message {
                return Err(Failure::new(
                    crate::exit::FAILED,
                    format!("answer {number} is not the message"),
                ));
            }
        }
        Ok(())
    }

    /// Waits for the answer to the message; answers to a killed predecessor are passed over.
    fn answer(
        &self,
        bus: &mut Endpoint,
        answer: &mut [u8],
        message: &[u8],
        started: Instant,
        stop: &Stop,
    ) -> Outcome<usize> {
        loop {
            match bus.read_timeout(answer, SLICE) {
                Ok(len) if len == message.len() && answer[..8] != message[..8] => {}
                Ok(len) => return Ok(len),
                Err(error) if error.is_wait() => {
                    stop.check()?;
                    if started.elapsed() >= self.timeout {
                        return Err(self.no_echo(error));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn no_echo(&self, error: Error) -> Failure {
        match error {
            error if error.is_wait() => Failure::new(
                TIMEOUT,
                format!("no answer for {}", units::nanos(crate::clock::ns(self.timeout))),
            ),
            error => Failure::new(PEER_GONE, error.to_string()),
        }
        .remedy(format!("in another terminal: eshm echo {}", self.bus.name))
    }

    fn tell(&self, histogram: &Histogram<u64>) -> Outcome {
        if let Some(path) = &self.hgrm {
            fs::write(path, percentiles::hgrm(histogram))
                .map_err(|error| Failure::new(SYSTEM, format!("{}: {error}", path.display())))?;
        }
        if self.json {
            let value = json!({ "name": self.bus.name, "size_bytes": self.size, "round_trip": Summary::of(histogram) });
            println!("{value}");
        } else {
            print!("{}", render(histogram, style::stdout()));
        }
        Ok(())
    }
}

/// Bars for each power of two, and the percentiles beneath.
pub fn render(histogram: &Histogram<u64>, paint: Paint) -> String {
    const WIDTH: u64 = 40;
    let mut text = String::new();
    let bands = percentiles::bands(histogram);
    let highest = bands.iter().map(|band| band.2).max().unwrap_or(1).max(1);
    for (low, _, count) in bands {
        let bar = "█".repeat(usize::try_from(count * WIDTH / highest).unwrap_or(0));
        let bar = if count > 0 && bar.is_empty() { "▏".to_string() } else { bar };
        let _ = writeln!(
            text,
            "  {:>8}  {} {}",
            units::nanos(low),
            paint.cyan(format!("{bar:<40}")),
            units::count(count)
        );
    }
    let _ = writeln!(text, "\n  {} round trips", units::count(histogram.len()));
    for (name, percentile) in TOLD {
        let value = histogram.value_at_percentile(percentile);
        let value = if percentile == 0.0 { histogram.min() } else { value };
        let _ = writeln!(
            text,
            "  {:>8}  {}",
            paint.dim(format!("{name:>8}")).trim_start(),
            units::nanos(value)
        );
    }
    text
}
