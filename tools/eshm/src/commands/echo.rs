//! `eshm echo`: sends every message back, for `eshm ping`.

use std::time::Duration;

use eshm::{Cleanup, Error, PeerState, Role};

use crate::exit::Outcome;
use crate::open::{Bus, CleanupArg};
use crate::output::units;
use crate::parse;
use crate::signals::{SLICE, Stop};

/// Options of `eshm echo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    bus: Bus,
    /// End when nothing came for that long
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// End when the other side has left
    #[arg(long)]
    once: bool,
    /// At the end, tell in JSON what was done
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// Echoes.
    pub fn run(self) -> Outcome {
        let stop = Stop::install()?;
        let mut options = self.bus.options(Role::Master)?;
        // Nobody wants an unread ping, unless it is said.
        options.cleanup(self.bus.cleanup.map_or(Cleanup::Always, CleanupArg::wish));
        let mut bus = self.bus.open(&options, self.timeout, &stop)?;
        eprintln!(
            "eshm: echo on {} as {}; the other side: eshm ping {}",
            self.bus.name,
            bus.role(),
            self.bus.name
        );
        let longest = eshm::Direction::BOTH.map(|direction| bus.geometry(direction).max_message());
        let mut buffer = vec![0; longest[0].max(longest[1])];
        let mut echoed = 0u64;
        let mut last = std::time::Instant::now();
        let outcome = loop {
            if let Err(ended) = stop.check() {
                break Err(ended);
            }
            match bus.read_timeout(&mut buffer, SLICE) {
                Ok(len) => {
                    send_back(&mut bus, &buffer[..len], &stop)?;
                    echoed += 1;
                    last = std::time::Instant::now();
                }
                Err(error) if error.is_wait() => {
                    let left = bus.peer().state == PeerState::Left;
                    if self.once && left && echoed > 0 {
                        break Ok(());
                    }
                    if self.timeout.is_some_and(|limit| last.elapsed() >= limit) {
                        break Err(Error::Timeout.into());
                    }
                }
                Err(error) => break Err(error.into()),
            }
        };
        drop(bus);
        eprintln!("eshm: echoed {}", units::plural(echoed, "message"));
        if self.json {
            println!("{}", serde_json::json!({ "name": self.bus.name, "messages": echoed }));
        }
        outcome
    }
}

fn send_back(bus: &mut eshm::Endpoint, message: &[u8], stop: &Stop) -> Outcome {
    loop {
        match bus.write_timeout(message, SLICE) {
            Ok(()) => return Ok(()),
            Err(error) if error.is_wait() => stop.check()?,
            Err(error) => return Err(error.into()),
        }
    }
}
