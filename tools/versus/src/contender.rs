//! What a peer must offer to be measured: a small interface that both sides implement.
//!
//! The loops of `play.rs` are compiled anew for every contender and every message size, so that a
//! call through these traits costs nothing. Each contender waits in its own best way; those that
//! poll do it through [`until`], so that nobody spins better than another.

use std::fmt::Display;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::message::Message;

/// A result whose error is a sentence for people.
pub type Result<T> = std::result::Result<T, String>;

/// What a contender is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// What the others are divided by: what the machine can do at best, and the textbook ring. Two
    /// processes, and always measured.
    Yardstick,
    /// Two processes.
    Processes,
    /// Two threads of one process: not the same task, shown for orientation.
    Threads,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// One message there and back, one at a time.
    RoundTrip,
    /// Messages in one direction as fast as they go.
    Stream,
}

/// How messages are handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// One call per message, copied in from private memory and out to private memory.
    Single,
    /// Several messages per call, copied in and out in the same way.
    Batch,
    /// Written where the reader will read it, and checked where it lies.
    InPlace,
}

/// A library, or a limit, that takes part.
pub trait Contender {
    /// Its name in the table.
    const NAME: &'static str;
    /// What it is.
    const KIND: Kind;
    /// The version measured and the settings it is given, for the foot of the table.
    const SETTINGS: &'static str;
    /// What it can do.
    const CAN: &'static [(Measure, Mode)];
    /// True when its figures do not depend on the size of the message; it is then played with eight
    /// bytes and shown beside every size.
    const SIZELESS: bool = false;
    /// The two ends for messages of `W` words.
    type Link<const W: usize>: Link<W>;

    /// Why it cannot do this size, if it cannot.
    fn refuses(_bytes: usize) -> Option<&'static str> {
        None
    }
}

/// One end of a two-way connection. Opening takes two steps, with a meeting of both sides after
/// each, so that nobody opens what is not there yet.
pub trait Link<const W: usize>: Sized {
    /// What the first step leaves for the second.
    type Half;

    /// First step: makes what this end owns.
    fn create(place: &Place) -> Result<Self::Half>;
    /// Second step: opens what the other end made.
    fn join(half: Self::Half, place: &Place) -> Result<Self>;

    /// Sends a copy of the message, waiting for room.
    fn send(&mut self, message: &Message<W>);
    /// Waits for the next message and copies it out.
    fn receive(&mut self, message: &mut Message<W>);

    /// Sends all the messages, in as few steps as the contender knows.
    fn send_batch(&mut self, _messages: &[Message<W>]) {
        unreachable!("no batches")
    }
    /// Waits for at least one message, copies out what one call brings, and hands it over in order.
    fn receive_batch(&mut self, _take: impl FnMut(&Message<W>)) {
        unreachable!("no batches")
    }
    /// Lets `fill` write a message where it will be read. `fill` writes every byte; it may be called
    /// again when there was no room.
    fn send_in_place(&mut self, _fill: impl FnMut(&mut MaybeUninit<Message<W>>)) {
        unreachable!("not in place")
    }
    /// Waits for the next message and shows it where it lies.
    fn receive_in_place<R>(&mut self, _take: impl FnMut(&Message<W>) -> R) -> R {
        unreachable!("not in place")
    }
}

/// How many messages a batch holds.
pub const BATCH: usize = 64;

/// Where a connection is opened, and by which side.
#[derive(Clone, Debug)]
pub struct Place {
    /// A new and empty directory in shared memory, removed by the conductor afterwards.
    pub directory: PathBuf,
    /// True for the side that pings and that sends the stream.
    pub near: bool,
    /// How many messages may wait in one direction; a power of two.
    pub slots: usize,
    /// The memory for messages of one direction.
    pub ring_bytes: usize,
}

impl Place {
    /// The file of the direction into which this side writes.
    pub fn outgoing(&self) -> PathBuf {
        self.file(self.near)
    }

    /// The file of the direction from which this side reads.
    pub fn incoming(&self) -> PathBuf {
        self.file(!self.near)
    }

    /// A name for whatever cannot lie in the directory: the conductor removes from `/dev/shm` all
    /// that begins with it.
    pub fn prefix(&self) -> String {
        let name = self.directory.file_name().unwrap_or_default();
        format!("{}_", name.to_string_lossy())
    }

    fn file(&self, of_near: bool) -> PathBuf {
        Path::join(&self.directory, if of_near { "there" } else { "back" })
    }
}

/// Says what was being done when an error came.
pub trait Why<T> {
    /// Turns the error into a sentence that begins with `doing`.
    fn why(self, doing: &str) -> Result<T>;
}

impl<T, E: Display> Why<T> for std::result::Result<T, E> {
    fn why(self, doing: &str) -> Result<T> {
        self.map_err(|error| format!("{doing}: {error}"))
    }
}

/// Polls until there is an answer: the same wait for all who poll.
#[inline(always)]
pub fn until<T>(mut poll: impl FnMut() -> Option<T>) -> T {
    let mut rests = Rests::default();
    loop {
        for _ in 0..POLLS_PER_REST {
            if let Some(answer) = poll() {
                return answer;
            }
            std::hint::spin_loop();
        }
        rests.rest();
    }
}

/// Some tens of microseconds: above any wait between two processes that both run, and short enough
/// when both have landed on one core.
const POLLS_PER_REST: u32 = 1 << 10;
/// After this long without an answer, the message is lost for good or the peer is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Rests {
    since: Option<Instant>,
}

impl Rests {
    /// Gives up the core for a moment, in case that the other side needs it (unpinned, or on a busy
    /// machine).
    #[cold]
    #[inline(never)]
    fn rest(&mut self) {
        let since = self.since.get_or_insert_with(Instant::now);
        assert!(since.elapsed() < PATIENCE, "nothing came and nothing went for {PATIENCE:?}");
        std::thread::yield_now();
    }
}
