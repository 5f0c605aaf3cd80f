//! So many a second, no more: moments that lie evenly, however long each piece of work took.

use std::thread;
use std::time::{Duration, Instant};

use crate::exit::Outcome;
use crate::signals::Stop;

/// Says when the next one is due.
#[derive(Debug)]
pub struct Pace {
    every: Duration,
    next: Instant,
}

impl Pace {
    /// `per_s` a second, starting now.
    pub fn new(per_s: f64) -> Pace {
        Pace { every: Duration::from_secs_f64(1.0 / per_s.max(1e-6)), next: Instant::now() }
    }

    /// Waits until the next one is due; a signal ends the wait.
    pub fn wait(&mut self, stop: &Stop) -> Outcome {
        loop {
            let ahead = self.next.saturating_duration_since(Instant::now());
            if ahead.is_zero() {
                break;
            }
            if ahead > Duration::from_millis(2) {
                stop.sleep(ahead - Duration::from_millis(1))?;
            } else {
                thread::sleep(ahead);
            }
        }
        self.next += self.every;
        stop.check()
    }

    /// How many are due at this moment, at most `most`; they count as done.
    pub fn due(&mut self, most: u64) -> u64 {
        let now = Instant::now();
        let mut due = 0;
        while due < most && self.next <= now {
            self.next += self.every;
            due += 1;
        }
        due
    }
}
