//! `eshm rm`: removes segments by name; one that somebody holds only with `--force`.

use serde_json::json;

use crate::exit::{Failure, HELD, Outcome};
use crate::open::Place;
use crate::output::escape;

/// Options of `eshm rm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The names of the buses
    #[arg(required = true)]
    names: Vec<String>,
    /// Even while a process holds it: its messages are lost, and it makes the segment anew
    #[arg(long)]
    force: bool,
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
            let removed = eshm::remove_in(&self.place.dir, name, self.force);
            if self.json {
                let why = removed.as_ref().err().map(ToString::to_string);
                println!("{}", json!({ "name": name, "removed": why.is_none(), "why": why }));
            } else if removed.is_ok() {
                eprintln!("removed {shown}");
            }
            if let Err(error) = removed {
                let failure = match Failure::from(error) {
                    held @ Failure::Told { code: HELD, .. } => held.remedy(
                        "end that process first, or --force to take the segment away from it",
                    ),
                    other => other,
                };
                first = first.and(Err(failure.about(shown)));
            }
        }
        first
    }
}
