//! A process that streams both ways until it is killed, replaced, or told to stop.
//!
//! Messages are numbered without gaps, and a message's number is that of the bus itself: a successor
//! asks for the last committed one and goes on behind it. So a reader needs nothing but the next
//! number to see whether anything was lost, doubled, torn or reordered. What a worker was told and
//! what it handed out it notes in a page that survives it. Where messages are overwritten, each one is
//! the next but for those that were counted as lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eshm::{Batch, Disconnect, Endpoint, Error, Options, Overflow, Role, Takeover};
use nix::unistd::{ForkResult, Pid, fork};

use super::ledger::{HEAD_LEN, Page, message, mix, seq_of};

/// Messages of one batch.
pub const BATCH: usize = 8;
/// Frames of each ring.
pub const FRAMES: u64 = 256;

/// Places in a page.
#[derive(Debug, Clone, Copy)]
pub enum Note {
    /// It is open and streams.
    Ready,
    /// The number of its first message.
    FirstOut,
    /// Behind the last message that it was told is in the ring.
    NextOut,
    /// One more than the number of the first message it read, or counted as lost.
    FirstIn,
    /// Behind the last message that it handed out.
    NextIn,
    /// How it reads: see [`Reading`].
    Reading,
    /// It is to leave.
    Stop,
    /// What it takes: when it began, and now. See [`Load`].
    Load,
}

impl Note {
    pub fn of(self, page: &Page) -> &AtomicU64 {
        &page.counters[self as usize]
    }

    pub fn get(self, page: &Page) -> u64 {
        self.of(page).load(Ordering::SeqCst)
    }

    pub fn set(self, page: &Page, value: u64) {
        self.of(page).store(value, Ordering::SeqCst);
    }
}

/// How a worker reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// At most once: what it had in hand when it was killed is gone.
    Read,
    ReadMany,
    /// At least once.
    Release,
}

impl Reading {
    pub fn from(value: u64) -> Reading {
        [Reading::Read, Reading::ReadMany, Reading::Release][(value % 3) as usize]
    }

    /// How far behind the last one handed out the next one may be, if its reader was killed; and how
    /// far before.
    pub fn slack(self, races: bool) -> (u64, u64) {
        match self {
            // What is overwritten cannot be asked to stay: a peek consumes it.
            Reading::Release if races => (1, 0),
            Reading::Read => (1, 0),
            Reading::ReadMany => (BATCH as u64, 0),
            Reading::Release => (0, 1),
        }
    }
}

/// Options for streams.
pub fn options(name: &str, role: Role) -> Options {
    let mut options = Options::new(name);
    options.role(role).frames(FRAMES).frame_size(64).on_disconnect(Disconnect::Never);
    options.open_timeout(Duration::ZERO).write_timeout(Duration::from_secs(1));
    options
}

/// The same where the oldest messages make room, if `races`.
pub fn racing_options(name: &str, role: Role, races: bool) -> Options {
    let mut options = options(name, role);
    options.overflow(if races { Overflow::Overwrite } else { Overflow::Refuse });
    options
}

pub struct Worker {
    pub name: String,
    /// Whether both directions are overwritten.
    pub races: bool,
    pub role: Role,
    pub takeover: Takeover,
    pub seed: u64,
    pub page: &'static Page,
}

/// The length of a message: most take one frame, some take several.
pub fn len_of(seq: u64) -> usize {
    let dice = mix(seq);
    let spread = if dice.is_multiple_of(5) { 500 } else { 25 };
    HEAD_LEN + (dice >> 8) as usize % spread
}

impl Worker {
    /// Starts it as a process of its own.
    pub fn start(self) -> Pid {
        // SAFETY: this process has one thread, so the child may do whatever it likes.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                // If the proof fails nobody else would end it.
                let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run()));
                let code = match done {
                    Ok(Ok(())) => 0,
                    Ok(Err(fault)) => {
                        self.page.write_text(&fault);
                        1
                    }
                    Err(_) => 101,
                };
                // SAFETY: leaves at once; nothing of the parent's is dropped here.
                unsafe { libc::_exit(code) }
            }
        }
    }

    fn run(&self) -> Result<(), String> {
        let mut options = racing_options(&self.name, self.role, self.races);
        options.takeover(self.takeover);
        let mut bus = insist(&options)?;
        let mut stream = Stream {
            page: self.page,
            dice: self.seed,
            next_out: bus.last_committed().map_or(0, |id| id.number + 1),
            next_in: None,
            came: Vec::new(),
            lost: 0,
            races: self.races,
            reading: Reading::from(self.seed),
            batch: Batch::with_capacity(BATCH * 600, BATCH),
        };
        Note::FirstOut.set(self.page, stream.next_out);
        Note::NextOut.set(self.page, stream.next_out);
        Note::Reading.set(self.page, self.seed % 3);
        Note::Ready.set(self.page, 1);
        let mut began = load();
        let mut turns = 0u64;
        while Note::Stop.get(self.page) == 0 {
            turns += 1;
            if turns == 1 << 16 {
                // Now every path has been taken once and every buffer is there.
                began = load();
            }
            if turns.is_multiple_of(4096) {
                Note::Load.set(self.page, (began << 32) | load());
            }
            match stream.turn(&mut bus) {
                Err(Fault::Fenced) => return is_out(&mut bus),
                Err(Fault::Other(fault)) => return Err(fault),
                Err(Fault::Wait) => {}
                Ok(true) => {}
                // Nothing to do: let the other side do something.
                Ok(false) => std::thread::yield_now(),
            }
        }
        bus.leave().map_err(|error| format!("leaving: {error}"))
    }
}

/// A fenced endpoint stays so, in both directions.
fn is_out(bus: &mut Endpoint) -> Result<(), String> {
    let fenced = |result: eshm::Result<()>| matches!(result, Err(Error::Fenced { .. }));
    let wrote = bus.try_write(&message(u64::MAX >> 1, HEAD_LEN, 0));
    let read = bus.try_read(&mut [0; 1024]).map(|_| ());
    if fenced(wrote.clone()) && fenced(read.clone()) {
        return Ok(());
    }
    Err(format!("fenced, and then told {wrote:?} and {read:?}"))
}

/// Memory in pages of 4 KiB, and descriptors: 16 bits each.
fn load() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let fds = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    (pages.min(0xffff) << 16) | fds.min(0xffff)
}

/// What a worker takes of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    pub kib: u64,
    pub descriptors: u64,
}

impl Load {
    /// When the worker began, and at its last look.
    pub fn of(page: &Page) -> [Load; 2] {
        let word = Note::Load.get(page);
        [word >> 32, word & 0xffff_ffff]
            .map(|word| Load { kib: (word >> 16) * 4, descriptors: word & 0xffff })
    }
}

/// Opens a bus whose last owner may just have died, or is about to.
pub fn insist(options: &Options) -> Result<Endpoint, String> {
    for _ in 0..2000 {
        match options.open() {
            Err(Error::RoleTaken { .. } | Error::NotFound { .. }) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.map_err(|error| format!("opening: {error}")),
        }
    }
    Err("opening: the role is never free".into())
}

enum Fault {
    /// Nothing to do now.
    Wait,
    Fenced,
    Other(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match error {
            Error::Fenced { .. } => Fault::Fenced,
            error if error.is_wait() => Fault::Wait,
            other => Fault::Other(format!("told: {other}")),
        }
    }
}

/// Both directions of one worker.
pub struct Stream {
    page: &'static Page,
    dice: u64,
    next_out: u64,
    /// Unknown until the first message came.
    next_in: Option<u64>,
    /// The numbers that one call brought.
    came: Vec<u64>,
    /// What the bus had counted as lost before.
    lost: u64,
    races: bool,
    reading: Reading,
    batch: Batch,
}

impl Stream {
    /// Writes something and reads something. False if there was nothing to do.
    fn turn(&mut self, bus: &mut Endpoint) -> Result<bool, Fault> {
        self.dice = mix(self.dice);
        let wrote = wait_is_none(self.write(bus))?;
        let read = wait_is_none(self.read(bus))?;
        Ok(wrote.is_some() || read.is_some())
    }

    fn write(&mut self, bus: &mut Endpoint) -> Result<(), Fault> {
        let next = |seq| message(seq, len_of(seq), 0);
        let count = match self.dice % 4 {
            0 => {
                let messages: Vec<Vec<u8>> = (self.next_out..).take(BATCH).map(next).collect();
                bus.try_write_many(&messages)? as u64
            }
            1 => {
                let bytes = next(self.next_out);
                let mut claim = bus.try_claim(bytes.len())?;
                claim.copy_from_slice(&bytes);
                claim.commit()?;
                1
            }
            _ => {
                bus.try_write(&next(self.next_out))?;
                1
            }
        };
        self.next_out += count;
        Note::NextOut.set(self.page, self.next_out);
        Ok(())
    }

    fn read(&mut self, bus: &mut Endpoint) -> Result<(), Fault> {
        self.came.clear();
        match self.reading {
            Reading::Read => {
                let mut buffer = [0; 1024];
                let len = bus.try_read(&mut buffer)?;
                self.take(&buffer[..len])?;
                self.place(bus)?;
                self.hand();
            }
            Reading::ReadMany => {
                let mut batch = std::mem::replace(&mut self.batch, Batch::with_capacity(0, 0));
                let done = bus.try_read_many(&mut batch);
                let taken = batch.iter().try_for_each(|(_, bytes)| self.take(bytes));
                self.batch = batch;
                done?;
                taken?;
                self.place(bus)?;
                self.hand();
            }
            Reading::Release => {
                let peek = bus.try_peek()?;
                self.take(&peek)?;
                if self.races {
                    peek.release()?;
                    self.place(bus)?;
                    self.hand();
                    return Ok(());
                }
                // Handed out before it is released.
                let before = self.next_in;
                self.place_at(0)?;
                self.hand();
                if let Err(error) = peek.release() {
                    // It is shown again, by a successor.
                    if let Some(next) = before.or(self.next_in.map(|next| next - 1)) {
                        Note::NextIn.set(self.page, next);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Looks at a message: is it whole?
    fn take(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Some(seq) = seq_of(bytes) else { return Err(Fault::Other("a torn message".into())) };
        self.came.push(seq);
        Ok(())
    }

    /// Whether what came is what had to come next, but for what was lost since.
    fn place(&mut self, bus: &Endpoint) -> Result<(), Fault> {
        if self.came.is_empty() {
            return Ok(());
        }
        let lost = bus.lost() - std::mem::replace(&mut self.lost, bus.lost());
        self.place_at(lost)
    }

    fn place_at(&mut self, lost: u64) -> Result<(), Fault> {
        let is_ordered = self.came.windows(2).all(|pair| pair[0] < pair[1]);
        let Some(end) = self.came.last().map(|last| last + 1) else { return Ok(()) };
        let first = end.checked_sub(lost + self.came.len() as u64);
        let is_next = self.next_in.is_none_or(|next| Some(next) == first);
        let Some(first) = first.filter(|_| is_ordered && is_next) else {
            let (came, next) = (&self.came, self.next_in);
            return Err(Fault::Other(format!("{came:?} came after {next:?}, and {lost} lost")));
        };
        if self.next_in.is_none() {
            Note::FirstIn.set(self.page, first + 1);
        }
        self.next_in = Some(end);
        Ok(())
    }

    /// Notes what was handed out.
    fn hand(&self) {
        if let Some(next) = self.next_in {
            Note::NextIn.set(self.page, next);
        }
    }
}

fn wait_is_none(done: Result<(), Fault>) -> Result<Option<()>, Fault> {
    match done {
        Ok(()) => Ok(Some(())),
        Err(Fault::Wait) => Ok(None),
        Err(fault) => Err(fault),
    }
}
