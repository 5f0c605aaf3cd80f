//! The demo's slave: reads everything, checks every byte, and says what it saw.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use eshm::{Cleanup, Disconnect, Endpoint, Error, Options, PeerState, Role};
use hdrhistogram::Histogram;

use crate::children;
use crate::clock;
use crate::exit::Outcome;
use crate::open;
use crate::output::percentiles;
use crate::signals::Stop;

use super::event::{Event, Tick};
use super::message;

/// The longest wait for one message.
const WAIT: Duration = Duration::from_millis(1);
/// The slave reports that often.
const TICK_NS: u64 = 100_000_000;

/// What the slave is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    name: String,
}

impl Args {
    /// Reads until told to stop, and then what is left.
    pub fn run(self) -> Outcome {
        let stop = Stop::install()?;
        let told_to_end = children::parent_let_go();
        let mut options = Options::new(&self.name);
        options.directory(&self.dir).role(Role::Slave);
        options
            .on_disconnect(Disconnect::Immediately)
            .open_timeout(Duration::ZERO)
            .cleanup(Cleanup::Always);
        let mut bus =
            open::wait_open(|| options.open(), Some(Duration::from_secs(10)), &stop, |_| ())?;
        let mut count = Count::new();
        let mut buffer = [0; 256];
        loop {
            stop.check()?;
            let ending = told_to_end.load(Ordering::Relaxed);
            match bus.read_timeout(&mut buffer, WAIT) {
                Ok(len) => count.message(&bus, &buffer[..len]),
                Err(error) if error.is_wait() => {
                    count.silence(bus.peer().state);
                    if ending {
                        break;
                    }
                }
                Err(Error::PeerDead { .. } | Error::PeerHung { .. }) => {
                    count.silence(bus.peer().state);
                    if ending {
                        break;
                    }
                    thread::sleep(Duration::from_micros(200));
                }
                Err(error) => return Err(error.into()),
            }
            count.tick_if_due(&bus);
        }
        let totals = count.totals(&bus);
        bus.leave()?;
        Event::Received(totals).tell();
        Ok(())
    }
}

/// Everything that the slave counts.
struct Count {
    expected: u64,
    seen: Tick,
    epoch: u64,
    /// The trouble that was told last: true for a hang, false for a death.
    told: Option<bool>,
    next_tick_ns: u64,
    recent: Histogram<u64>,
    all: Histogram<u64>,
}

impl Count {
    fn new() -> Count {
        Count {
            expected: 0,
            seen: Tick::default(),
            epoch: 0,
            told: None,
            next_tick_ns: 0,
            recent: percentiles::histogram(),
            all: percentiles::histogram(),
        }
    }

    fn message(&mut self, bus: &Endpoint, bytes: &[u8]) {
        let now = clock::now_ns();
        self.seen.at_ns = now;
        let id = bus.last_id();
        match message::decode(bytes) {
            Some((number, sent_ns)) if id.is_none_or(|id| id.number == number) => {
                self.in_order(number);
                self.recent.saturating_record(now.saturating_sub(sent_ns).max(1));
            }
            _ => self.seen.torn += 1,
        }
        let epoch = id.map_or(self.epoch, |id| id.epoch);
        if epoch != self.epoch {
            self.epoch = epoch;
            Event::Resumed { epoch, at_ns: now }.tell();
        }
        self.told = None;
    }

    fn in_order(&mut self, number: u64) {
        if number < self.expected {
            self.seen.doubled += 1;
        } else {
            self.seen.lost += number - self.expected;
            self.expected = number + 1;
        }
        self.seen.received += 1;
    }

    /// No message came: is there still somebody who could send one? Each change is told once.
    fn silence(&mut self, master: PeerState) {
        let trouble = match master {
            PeerState::Hung(_) => Some(true),
            PeerState::Dead => Some(false),
            _ => None,
        };
        if let Some(hung) = trouble.filter(|_| self.told != trouble) {
            Event::Noticed { hung, at_ns: clock::now_ns() }.tell();
        }
        self.told = trouble;
    }

    fn tick_if_due(&mut self, bus: &Endpoint) {
        let now = clock::now_ns();
        if now >= self.next_tick_ns {
            self.next_tick_ns = now + TICK_NS;
            let tick = tick(self.seen, &self.recent, bus);
            Event::Tick(Tick { at_ns: now, ..tick }).tell();
            let _ = self.all.add(&self.recent);
            self.recent.reset();
        }
    }

    fn totals(mut self, bus: &Endpoint) -> Tick {
        let _ = self.all.add(&self.recent);
        tick(self.seen, &self.all, bus)
    }
}

/// The counts, with latencies and what the bus says.
fn tick(seen: Tick, latencies: &Histogram<u64>, bus: &Endpoint) -> Tick {
    let stats = bus.stats();
    let latency = percentiles::Summary::of(latencies);
    Tick {
        backlog: stats.master_to_slave.backlog,
        master_beats: stats.master.beats,
        slave_beats: stats.slave.beats,
        p50_ns: latency.p50_ns,
        p99_ns: latency.p99_ns,
        p999_ns: latency.p999_ns,
        max_ns: latency.max_ns,
        ..seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_repetitions_are_counted_apart() {
        let mut count = Count::new();
        for number in [0, 1, 1, 4, 5] {
            count.in_order(number);
        }
        assert_eq!((count.seen.received, count.seen.lost, count.seen.doubled), (5, 2, 1));
    }
}
