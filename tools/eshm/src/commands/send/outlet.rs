//! The writing end: waits for room, says for whom it waits, and ends when it was told to.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use eshm::{Claim, Endpoint, Error, PeerState, RingStats, Role};

use crate::exit::{Failure, Outcome, TIMEOUT};
use crate::open;
use crate::output::progress::Progress;
use crate::output::units;
use crate::signals::{SLICE, Stop};

/// After that long a wait a person wants to know what is going on.
const SAY_AFTER: Duration = Duration::from_secs(1);

/// A bus to write into.
pub struct Outlet<'a> {
    bus: Endpoint,
    directory: PathBuf,
    stop: &'a Stop,
    timeout: Option<Duration>,
    progress: Progress,
    said: bool,
}

impl<'a> Outlet<'a> {
    /// Writes into `bus`, which is in `directory`; waits for room up to `timeout` for each message.
    pub fn new(
        bus: Endpoint,
        directory: PathBuf,
        stop: &'a Stop,
        timeout: Option<Duration>,
        progress: Progress,
    ) -> Outlet<'a> {
        Outlet { bus, directory, stop, timeout, progress, said: false }
    }

    /// The endpoint.
    pub fn bus(&self) -> &Endpoint {
        &self.bus
    }

    /// What ends this process.
    pub fn stop(&self) -> &'a Stop {
        self.stop
    }

    /// The longest message.
    pub fn max_message(&self) -> usize {
        self.bus.max_message()
    }

    /// Says something above the progress.
    pub fn say(&self, text: &str) {
        self.progress.say(text);
    }

    /// Work that a predecessor has done.
    pub fn start_at(&mut self, bytes: u64) {
        self.progress.start_at(bytes);
    }

    /// Messages and bytes written by this process.
    pub fn done(&self) -> (u64, u64) {
        (self.progress.messages(), self.progress.bytes())
    }

    /// Writes all of them, in order.
    pub fn put_all(&mut self, messages: &[Vec<u8>]) -> Outcome {
        let mut rest = messages;
        while !rest.is_empty() {
            let written = match self.bus.try_write_many(rest) {
                Ok(written) => written,
                Err(Error::Full) => {
                    self.put(&rest[0])?;
                    rest = &rest[1..];
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let bytes: usize = rest[..written].iter().map(Vec::len).sum();
            self.progress.add(written as u64, bytes as u64);
            rest = &rest[written..];
            self.stop.check()?;
        }
        Ok(())
    }

    /// Writes one, waiting for room.
    pub fn put(&mut self, message: &[u8]) -> Outcome {
        let started = Instant::now();
        loop {
            match self.bus.write_timeout(message, SLICE) {
                Ok(()) => break,
                Err(error) if error.is_wait() => self.still_waiting(started)?,
                Err(error) => return Err(error.into()),
            }
        }
        self.progress.add(1, message.len() as u64);
        Ok(())
    }

    /// Lets `fill` write one message of up to `len` bytes in place, waiting for room; it gives the
    /// length. With `None` nothing is written, and this is false.
    pub fn put_in_place(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut Claim<'_>) -> std::io::Result<Option<usize>>,
    ) -> Outcome<bool> {
        let started = Instant::now();
        loop {
            let error = match self.bus.claim_timeout(len, SLICE) {
                Ok(mut claim) => {
                    let Some(written) = fill(&mut claim)? else {
                        return Ok(false);
                    };
                    claim.commit_len(written)?;
                    self.progress.add(1, written as u64);
                    self.stop.check()?;
                    return Ok(true);
                }
                Err(error) => error,
            };
            if !error.is_wait() {
                return Err(error.into());
            }
            self.still_waiting(started)?;
        }
    }

    /// Waits until the other side has taken everything.
    pub fn wait_until_read(&mut self) -> Outcome {
        let mut started = Instant::now();
        let mut before = u64::MAX;
        loop {
            let backlog = self.ring().backlog;
            if backlog == 0 {
                return Ok(());
            }
            if backlog < before {
                before = backlog;
                started = Instant::now();
            }
            self.still_waiting(started)?;
            self.stop.sleep(Duration::from_millis(1))?;
        }
    }

    fn ring(&self) -> RingStats {
        let stats = self.bus.stats();
        match self.bus.role() {
            Role::Slave => stats.slave_to_master,
            _ => stats.master_to_slave,
        }
    }

    /// Ends the wait when a signal came or the time ran out; explains a long one, once.
    fn still_waiting(&mut self, started: Instant) -> Outcome {
        self.stop.check()?;
        let waited = started.elapsed();
        if self.timeout.is_some_and(|limit| waited >= limit) {
            return Err(self.gave_up(waited));
        }
        if waited >= SAY_AFTER && !self.said {
            self.said = true;
            let unread = units::plural(self.ring().backlog, "message");
            let who = open::other_side(&self.bus);
            let hint = match self.bus.peer().state {
                PeerState::Absent => {
                    let directory = self.directory.display();
                    format!("; the other side must see the same {directory}")
                }
                _ => String::new(),
            };
            self.say(&format!("waiting: {unread} unread, {who}{hint}"));
        }
        Ok(())
    }

    fn gave_up(&self, waited: Duration) -> Failure {
        let unread = units::plural(self.ring().backlog, "message");
        let seconds = waited.as_secs_f64();
        let text = format!(
            "nothing was read for {seconds:.1} s: {unread} unread, {}",
            open::other_side(&self.bus)
        );
        Failure::new(TIMEOUT, text)
            .remedy(format!("start the reader: eshm recv {}", self.bus.name()))
    }
}
