//! The reading end: waits for messages, notices when no more will come.

use std::time::{Duration, Instant};

use eshm::{Batch, Endpoint, Error, MessageId, Peek, PeerState};
use tracing::info;

use crate::exit::{Failure, Outcome, TIMEOUT};
use crate::open;
use crate::output::progress::Progress;
use crate::output::{pid, units};
use crate::signals::{SLICE, Stop};

/// Messages and bytes taken in one call.
const BATCH_MESSAGES: usize = 4096;
const BATCH_BYTES: usize = 1 << 20;

/// A bus to read from.
pub struct Inlet<'a> {
    bus: Endpoint,
    stop: &'a Stop,
    timeout: Option<Duration>,
    follow: bool,
    progress: Progress,
    batch: (usize, Batch),
    said_dead: bool,
    lost_told: u64,
}

impl<'a> Inlet<'a> {
    /// Reads from `bus`; gives up when nothing came for `timeout`.
    pub fn new(
        bus: Endpoint,
        stop: &'a Stop,
        timeout: Option<Duration>,
        follow: bool,
        progress: Progress,
    ) -> Inlet<'a> {
        let batch = (BATCH_MESSAGES, new_batch(&bus, BATCH_MESSAGES));
        Inlet { bus, stop, timeout, follow, progress, batch, said_dead: false, lost_told: 0 }
    }

    /// What ends this process.
    pub fn stop(&self) -> &'a Stop {
        self.stop
    }

    /// Messages and bytes read by this process.
    pub fn done(&self) -> (u64, u64) {
        (self.progress.messages(), self.progress.bytes())
    }

    /// The progress, to tell it how much there will be.
    pub fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// Waits for a message; false when the sender has left and none will come.
    pub fn wait(&mut self) -> Outcome<bool> {
        let started = Instant::now();
        loop {
            // Also where there is always a message.
            self.stop.check()?;
            // Asked before looking: a message written before it left is then sure to be seen.
            let left = self.sender_left();
            match self.bus.peek_timeout(if left { Duration::ZERO } else { SLICE }) {
                Ok(_) => return Ok(true),
                Err(error) if !error.is_wait() => return Err(error.into()),
                Err(_) if left && !self.follow => return Ok(false),
                Err(_) => {}
            }
            if left {
                self.stop.sleep(SLICE)?;
            }
            self.still_waiting(started)?;
        }
    }

    /// Takes up to `most` messages that are here now, and says how many they are.
    pub fn take(
        &mut self,
        most: u64,
        taken: &mut u64,
        mut each: impl FnMut(MessageId, &[u8]) -> Outcome,
    ) -> Outcome {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(BATCH_MESSAGES);
        if self.batch.0 != most {
            self.batch = (most, new_batch(&self.bus, most));
        }
        match self.bus.try_read_many(&mut self.batch.1) {
            Ok(_) => {}
            Err(Error::Empty) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        *taken = self.batch.1.len() as u64;
        for (id, message) in self.batch.1.iter() {
            each(id, message)?;
            self.progress.add(1, message.len() as u64);
        }
        self.warn_of_losses();
        Ok(())
    }

    /// Says how many messages were taken that are not in the output, and why.
    pub fn tell_of_unwritten(&self, messages: u64, why: &str) {
        if messages > 0 {
            let lost = units::plural(messages, "message");
            self.progress.say(&format!(
                "{lost} taken and not written{why}; with --ack they stay in the bus"
            ));
        }
    }

    /// Shows the next message in place, and takes it off the bus only when that went well.
    pub fn take_acknowledged(&mut self, each: impl FnOnce(MessageId, &[u8]) -> Outcome) -> Outcome {
        let message: Peek<'_> = match self.bus.try_peek() {
            Ok(message) => message,
            Err(error) if error.is_wait() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        each(message.id(), &message)?;
        let len = message.len() as u64;
        message.release()?;
        self.progress.add(1, len);
        Ok(())
    }

    /// Leaves; what is unread waits for the next receiver.
    pub fn leave(self) -> Outcome {
        let stats = self.bus.stats();
        let unread = stats.master_to_slave.backlog + stats.slave_to_master.backlog;
        let name = self.bus.name().to_string();
        self.bus.leave()?;
        if unread > 0 {
            info!("{} left in {name}", units::plural(unread, "unread message"));
        }
        Ok(())
    }

    /// Says how many messages were overwritten before they were read.
    pub fn warn_of_losses(&mut self) {
        let lost = self.bus.lost();
        if lost > self.lost_told {
            let missed = units::plural(lost - self.lost_told, "message");
            self.progress.say(&format!("{missed} overwritten before being read"));
            self.lost_told = lost;
        }
    }

    fn sender_left(&mut self) -> bool {
        let peer = self.bus.peer();
        if peer.state == PeerState::Dead && !self.said_dead {
            let role = self.bus.role().peer();
            self.progress
                .say(&format!("the {role} ({}) died; waiting for its successor", pid::of(&peer)));
        }
        self.said_dead = peer.state == PeerState::Dead;
        peer.state == PeerState::Left
    }

    fn still_waiting(&self, started: Instant) -> Outcome {
        match self.timeout {
            Some(limit) if started.elapsed() >= limit => Err(self.gave_up(started.elapsed())),
            _ => Ok(()),
        }
    }

    fn gave_up(&self, waited: Duration) -> Failure {
        let who = open::other_side(&self.bus);
        Failure::new(TIMEOUT, format!("no message for {:.1} s: {who}", waited.as_secs_f64()))
            .remedy(format!("start the sender: eshm send {}", self.bus.name()))
    }
}

/// A batch that the longest message fits into.
fn new_batch(bus: &Endpoint, messages: usize) -> Batch {
    let longest = bus.geometry(bus.role().peer().writes()).max_message();
    Batch::with_capacity(BATCH_BYTES.max(longest), messages)
}
