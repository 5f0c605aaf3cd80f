//! The demo's master: writes numbered messages at a steady rate, as telemetry does.
//!
//! Where its predecessor stopped it learns from the segment, so a number is neither left out nor
//! sent twice.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use eshm::{Cleanup, Endpoint, Error, Options, Role, Takeover};

use crate::children;
use crate::clock;
use crate::commands::pace::Pace;
use crate::exit::Outcome;
use crate::signals::{SLICE, Stop};

use super::event::Event;
use super::message;

/// Written in one go after a pause.
const BURST: u64 = 64;

/// What the master is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    name: String,
    #[arg(long)]
    rate: u64,
    /// Replace a master that hangs
    #[arg(long)]
    fence: bool,
}

impl Args {
    /// Writes until told to stop, or until another master takes its place.
    pub fn run(self) -> Outcome {
        let stop = Stop::install()?;
        let told_to_end = children::parent_let_go();
        let mut options = Options::new(&self.name);
        options.directory(&self.dir).role(Role::Master).cleanup(Cleanup::Always);
        options.takeover(if self.fence { Takeover::Hung } else { Takeover::Never });
        let mut bus = options.open()?;
        let mut next = bus.last_committed().map_or(0, |id| id.number + 1);
        Event::Opened { epoch: bus.epoch(), next, at_ns: clock::now_ns() }.tell();
        let mut pace = Pace::new(self.rate as f64);
        while !told_to_end.load(Ordering::Relaxed) {
            stop.check()?;
            match send_due(&mut bus, &mut pace, &mut next) {
                Ok(()) | Err(Error::Timeout | Error::Full) => {}
                Err(Error::Fenced { by_pid, .. }) => {
                    Event::Fenced { by_pid }.tell();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let total = bus.last_committed().map_or(0, |id| id.number + 1);
        bus.leave()?;
        Event::Sent { total }.tell();
        Ok(())
    }
}

fn send_due(bus: &mut Endpoint, pace: &mut Pace, next: &mut u64) -> eshm::Result<()> {
    let due = pace.due(BURST);
    for _ in 0..due {
        bus.write_timeout(&message::encode(*next, clock::now_ns()), SLICE)?;
        *next += 1;
    }
    if due == 0 {
        thread::sleep(Duration::from_micros(20));
    }
    Ok(())
}
