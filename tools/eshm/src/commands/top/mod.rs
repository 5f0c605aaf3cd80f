//! `eshm top`: all buses of this machine, live.
//!
//! [`model`] knows what there is, from snapshots and the time; [`draw`] puts it on a screen.
//! Neither knows the other's surroundings, so both are tested without a terminal.

mod draw;
mod model;

use std::io::{self, IsTerminal};
use std::path::Path;
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

/// Each bus is looked at that often; the screen is drawn less often.
const SAMPLE: Duration = Duration::from_millis(20);
/// New buses are looked for that often.
const LIST: Duration = Duration::from_millis(500);

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
        let mut names = names(&self.place.dir)?;
        let mut model = Model::new(self.name.clone());
        let mut screen = Screen(ratatui::try_init()?);
        let theme = draw::Theme::new(style::wanted());
        let started = Instant::now();
        let (mut listed, mut drawn) = (Instant::now(), None::<Instant>);
        loop {
            stop.check()?;
            if listed.elapsed() >= LIST {
                names = self::names(&self.place.dir)?;
                listed = Instant::now();
            }
            model.take(started.elapsed(), samples(&self.place.dir, &names));
            if drawn.is_none_or(|at: Instant| at.elapsed() >= self.every) {
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

/// The buses there are.
fn names(directory: &Path) -> Outcome<Vec<String>> {
    let entries = eshm::list_in(directory)?;
    let buses = entries.into_iter().filter(|entry| matches!(entry.kind, EntryKind::Bus(_)));
    let mut names: Vec<String> = buses.map(|entry| entry.name).collect();
    names.sort();
    Ok(names)
}

/// A look at each; one that has gone meanwhile is left out.
fn samples(directory: &Path, names: &[String]) -> Vec<Snapshot> {
    names.iter().filter_map(|name| eshm::inspect_in(directory, name).ok()).collect()
}
