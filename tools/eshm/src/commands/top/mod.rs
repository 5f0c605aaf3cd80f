//! `eshm top`: all buses of this machine, live.
//!
//! [`model`] knows what there is, from snapshots and the time; [`draw`] puts it on a screen.
//! Neither knows the other's surroundings, so both are tested without a terminal.

mod draw;
mod model;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use eshm::{EntryKind, Snapshot};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::exit::{Failure, Outcome, USAGE};
use crate::open::Place;
use crate::output::style;
use crate::parse;
use crate::signals::Stop;

use model::{Action, Model};

/// All buses are looked at that often, at most; the screen is drawn less often.
const SAMPLE: Duration = Duration::from_millis(20);

/// Options of `eshm top`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The column \"wait\" estimates how long a message lies in the ring: what is unread, divided by \
    the rate (Little's law), sampled fifty times a second."
)]
pub struct Args {
    /// How often the screen changes
    #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "250ms")]
    every: Duration,
    /// Begin with the detail of this bus
    name: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Gives the terminal back, however the command ends.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

impl Args {
    /// Looks on until told to stop.
    pub fn run(self) -> Outcome {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(Failure::new(USAGE, "top needs a terminal")
                .remedy("for scripts: eshm ls --json, eshm stat --watch"));
        }
        let stop = Stop::install()?;
        // Before the screen is taken: a wrong directory is told in the shell.
        let first = buses(&self.place.dir)?;
        let samples = sampler(self.place.dir.clone());
        let mut model = Model::new(self.name.clone());
        let started = Instant::now();
        model.take(started.elapsed(), first);
        let mut screen = Screen(ratatui::try_init()?);
        let theme = draw::Theme::new(style::wanted());
        let mut drawn = None::<Instant>;
        loop {
            stop.check()?;
            for (at, buses) in samples.try_iter() {
                model.take(at.saturating_duration_since(started), buses?);
            }
            if drawn.is_none_or(|at| at.elapsed() >= self.every) {
                screen.0.draw(|frame| draw::draw(frame, &model, theme))?;
                drawn = Some(Instant::now());
            }
            if event::poll(SAMPLE)? {
                drawn = None;
                match event::read()? {
                    Event::Key(key)
                        if key.kind == KeyEventKind::Press && model.key(key) == Action::Quit =>
                    {
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A look at all buses, and when it was taken.
type Sample = (Instant, Outcome<Vec<Snapshot>>);

/// Looks at all buses again and again, on a thread of its own: to tell a hung process from a living
/// one takes a while, and keys must not wait for that. Ends when nobody listens.
fn sampler(directory: PathBuf) -> Receiver<Sample> {
    let (sender, samples) = mpsc::channel();
    thread::spawn(move || {
        while sender.send((Instant::now(), buses(&directory))).is_ok() {
            thread::sleep(SAMPLE);
        }
    });
    samples
}

/// The buses there are, by name.
fn buses(directory: &Path) -> Outcome<Vec<Snapshot>> {
    let entries = eshm::list_in(directory)?.into_iter();
    let buses = entries.filter_map(|entry| match entry.kind {
        EntryKind::Bus(snapshot) => Some(*snapshot),
        _ => None,
    });
    let mut buses: Vec<Snapshot> = buses.collect();
    buses.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(buses)
}
