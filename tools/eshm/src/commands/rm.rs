//! `eshm rm`: removes segments by name; one that somebody holds only with `--force`.

use std::path::Path;

use eshm::{Error, Options};
use serde_json::json;

use crate::commands::removal::{self, Done};
use crate::commands::send;
use crate::exit::{Failure, HELD, NOT_FOUND, Outcome, UNUSABLE};
use crate::open::Place;
use crate::output::{escape, units};
use crate::parse;

/// Options of `eshm rm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The names of the buses
    #[arg(required = true)]
    names: Vec<String>,
    /// Even while a process holds it: its messages are lost, and its next call tells it so
    #[arg(long)]
    force: bool,
    /// Remove a bus of this user too, by name or number; else only one's own and root's. Root may
    /// remove any
    #[arg(long, value_name = "USER", value_parser = parse::user)]
    trust: Vec<u32>,
    /// As JSON: one object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    place: Place,
}

impl Args {
    /// Removes; goes on after a failure, and gives the first one in the end.
    pub fn run(self) -> Outcome {
        let mut first = Ok(());
        for name in &self.names {
            let shown = escape::bytes(name.as_bytes());
            let unread = self.unread(name);
            let path = self.path(name);
            let done = removal::remove(&self.place.dir, &path, name, self.force, &self.trust);
            if matches!(done, Done::Removed | Done::Emptied) {
                send::forget_journals(&self.place.dir, name);
            }
            if self.json {
                let why = why(&done, &self.place.dir);
                let (removed, emptied) = (done == Done::Removed, done == Done::Emptied);
                let lost = if removed || emptied { unread } else { 0 };
                println!(
                    "{}",
                    json!({ "name": name, "removed": removed, "emptied": emptied, "unread": lost, "why": why })
                );
            } else if done == Done::Removed {
                let with = match unread {
                    0 => String::new(),
                    unread => format!(", with {}", units::plural(unread, "unread message")),
                };
                eprintln!("removed {shown}{with}");
            }
            if let Some(failure) = self.failure(done) {
                first = first.and(Err(failure.about(shown)));
            }
        }
        first
    }

    /// Messages that go with it, as far as can be seen.
    fn unread(&self, name: &str) -> u64 {
        eshm::inspect_in(&self.place.dir, name).map_or(0, |now| now.unread.iter().sum())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        Options::new(name).directory(&self.place.dir).path()
    }

    /// What is to be told as a failure.
    fn failure(&self, done: Done) -> Option<Failure> {
        let text = why(&done, &self.place.dir)?;
        Some(match done {
            Done::Kept(Error::NotFound { .. }) => {
                Failure::new(NOT_FOUND, text).remedy(self.place.command("ls"))
            }
            Done::Kept(error) => match Failure::from(error) {
                held @ Failure::Told { code: HELD, .. } => held
                    .remedy("end that process first, or --force to take the segment away from it"),
                told => told,
            },
            Done::Revived => Failure::new(HELD, text).remedy("eshm ls shows by whom"),
            _ => Failure::new(UNUSABLE, text).remedy("as the owner of the directory: rm that file"),
        })
    }
}

/// Why a bus is not gone; `None` if it is.
pub fn why(done: &Done, directory: &Path) -> Option<String> {
    match done {
        Done::Removed => None,
        Done::Emptied => Some(format!(
            "emptied, its messages are gone; the empty file stays, because this user may not remove files in {}",
            directory.display()
        )),
        Done::Revived => Some("not removed: somebody took it up in the same moment".to_string()),
        Done::Kept(Error::NotFound { .. }) => {
            Some(format!("there is no such bus in {}", directory.display()))
        }
        Done::Kept(error) => Some(error.to_string()),
    }
}
