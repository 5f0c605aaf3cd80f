//! The operations that are cut short, and the child that performs them.
//!
//! ```text
//! child                                       parent
//!   opens its role, first part of the scene
//!   --- ready --------------------------------> the peer reads and writes
//!   second part
//!   --- set ----------------------------------> the peer writes what is to be read
//!   --- start --------------------------------> takes it to instruction k, and there ...
//!   ONE operation; its answer goes to a page
//!   --- end
//!   a write and a read that come after it
//!   --- done
//! ```

use std::time::Duration;

use eshm::{Batch, Direction, Endpoint, Options, Overflow, Result, Role, Takeover, Wait};

use super::ledger::{Answer, Page, message, seq_of};
use super::trace::mark;

/// Numbers of the messages of one operation begin here; before, those of its preparation.
pub const ACT: u64 = 100;
/// Those written by the child after the operation.
pub const PROBE: u64 = 5000;
/// Those written by whoever goes on after it was cut short.
pub const AFTER: u64 = 1000;
/// In place of a number: the message was not whole.
pub const TORN: u64 = u64::MAX;

pub const SHORT: usize = 40;
pub const LONG: usize = 300;
/// Frames of each ring.
pub const FRAMES: u64 = 64;
/// More messages than a ring has frames.
const LAP: [usize; 80] = [SHORT; 80];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Write,
    WriteBackground,
    WriteLong,
    WriteSkip,
    WriteFirst,
    WriteGhost,
    WriteFull,
    WriteMany,
    WriteWakes,
    WriteWaits,
    Commit,
    CommitLong,
    Abort,
    Read,
    ReadBackground,
    ReadLong,
    ReadSkip,
    ReadEpoch,
    ReadMany,
    ReadWakes,
    Release,
    ReleaseMany,
    Park,
    ParkWoken,
    RaceWriteFirst,
    RaceWrite,
    RaceWriteReserved,
    RaceWriteLong,
    RaceWriteSkip,
    RaceWriteMany,
    RaceCommit,
    RaceRead,
    RaceReadLong,
    RaceReadLapped,
    RaceReadMany,
    RacePeek,
    RacePeekLapped,
    RaceValue,
    RaceLatest,
    RaceLatestLapped,
    Create,
    Attach,
    Adopt,
    Fence,
    MoveWrite,
    MoveRead,
    Leave,
    LeaveLast,
}

use Op::*;

/// The operations of the ring itself.
pub const RING: [Op; 24] = [
    Write,
    WriteBackground,
    WriteLong,
    WriteSkip,
    WriteFirst,
    WriteGhost,
    WriteFull,
    WriteMany,
    WriteWakes,
    WriteWaits,
    Commit,
    CommitLong,
    Abort,
    Read,
    ReadBackground,
    ReadLong,
    ReadSkip,
    ReadEpoch,
    ReadMany,
    ReadWakes,
    Release,
    ReleaseMany,
    Park,
    ParkWoken,
];

/// The operations of a ring whose oldest messages make room.
pub const RACES: [Op; 16] = [
    RaceWriteFirst,
    RaceWrite,
    RaceWriteReserved,
    RaceWriteLong,
    RaceWriteSkip,
    RaceWriteMany,
    RaceCommit,
    RaceRead,
    RaceReadLong,
    RaceReadLapped,
    RaceReadMany,
    RacePeek,
    RacePeekLapped,
    RaceValue,
    RaceLatest,
    RaceLatestLapped,
];

/// Those that make, take, replace and give up roles.
pub const LONG_PATHS: [Op; 8] =
    [Create, Attach, Adopt, Fence, MoveWrite, MoveRead, Leave, LeaveLast];

impl Op {
    pub fn is_long(self) -> bool {
        LONG_PATHS.contains(&self)
    }

    /// Whether both directions are overwritten.
    pub fn races(self) -> bool {
        RACES.contains(&self)
    }

    /// Frames of each ring.
    pub fn frames(self) -> u64 {
        // So that a batch is longer than a lap, and yet short.
        if matches!(self, RaceWriteMany | RaceLatestLapped) { 16 } else { FRAMES }
    }

    /// Whether a tap listens to what the child writes.
    pub fn is_heard(self) -> bool {
        !self.is_long() && !self.has_threads() && !self.writes().is_empty()
    }

    /// The roles that can perform it.
    pub fn roles(self) -> &'static [Role] {
        if self == Create { &[Role::Master] } else { &[Role::Master, Role::Slave] }
    }

    /// Whether the operation is to open the bus.
    pub fn opens(self) -> bool {
        matches!(self, Create | Attach | Adopt | Fence)
    }

    /// The lengths of the messages that it writes.
    pub fn writes(self) -> &'static [usize] {
        match self {
            Write | WriteBackground | WriteFirst | WriteGhost | WriteFull | WriteWakes
            | WriteWaits | Commit | MoveWrite | RaceWriteFirst | RaceWrite | RaceWriteReserved
            | RaceCommit => &[SHORT],
            WriteLong | WriteSkip | CommitLong | RaceWriteLong | RaceWriteSkip => &[LONG],
            RaceWriteMany => {
                &[SHORT, LONG, 24, SHORT, 100, SHORT, SHORT, 24, SHORT, LONG, SHORT, 24, SHORT]
            }
            WriteMany => &[SHORT, LONG, 24, SHORT, 100, SHORT],
            _ => &[],
        }
    }

    /// The lengths of the messages that its peer writes, for it to read.
    pub fn reads(self) -> &'static [usize] {
        match self {
            Read | ReadBackground | ReadEpoch | ReadWakes | Release | ParkWoken | MoveRead
            | RaceRead | RacePeek => &[SHORT],
            ReadLong | ReadSkip | RaceReadLong => &[LONG],
            RaceLatest => &[SHORT, LONG, SHORT],
            RaceReadLapped | RaceReadMany | RacePeekLapped | RaceValue => &LAP,
            RaceLatestLapped => &LAP[..20],
            ReadMany | ReleaseMany => &[SHORT, LONG, 24, SHORT],
            _ => &[],
        }
    }

    /// Messages that the peer writes before those, read by the child before it begins.
    pub fn fillers(self) -> usize {
        if self == ReadSkip { 57 } else { 0 }
    }

    /// Whether a message that it is shown may be shown again.
    pub fn is_at_least_once(self) -> bool {
        matches!(self, Release | ReleaseMany | RacePeek | RacePeekLapped)
    }

    /// Messages that it consumes at most.
    pub fn takes(self) -> u64 {
        match self {
            RaceLatest | RaceLatestLapped => self.reads().len() as u64,
            RaceReadMany => 4,
            _ => self.reads().len().min(1) as u64,
        }
    }

    /// Whether breakpoints would be met by a second thread.
    pub fn has_threads(self) -> bool {
        matches!(self, WriteBackground | ReadBackground)
    }
}

/// One operation of one role on one bus.
#[derive(Clone)]
pub struct Scene {
    pub op: Op,
    pub role: Role,
    pub name: String,
    pub page: &'static Page,
    /// What `ESHM_FAILPOINTS` is to be during the operation.
    pub failpoints: Option<String>,
}

type Act = Box<dyn FnMut(&mut Option<Endpoint>) -> Result<u64>>;

impl Scene {
    /// Endpoints of a proof have one thread, and do nothing by the clock.
    pub fn options(&self, role: Role) -> Options {
        let mut options = Options::new(&self.name);
        options.role(role).background(false).frames(self.op.frames()).frame_size(64);
        let races = self.op.races();
        options.overflow(if races { Overflow::Overwrite } else { Overflow::Refuse });
        options.wait(Wait::Park);
        options.on_disconnect(eshm::Disconnect::Never).open_timeout(Duration::ZERO);
        options.write_timeout(Duration::from_secs(1));
        let beat = if self.op.is_long() { 5 } else { 1000 };
        options.beat_interval(Duration::from_millis(beat));
        options.stale_after(Duration::from_millis(beat * 4));
        // Unread messages are part of every scene; the last to leave removes the bus all the same.
        options.cleanup(eshm::Cleanup::Always);
        options
    }

    /// The whole life of the child.
    pub fn play(&self) {
        let mut options = self.options(self.role);
        if self.op.has_threads() {
            options.background(true).beat_interval(Duration::from_millis(1));
        }
        if self.op == Fence {
            options.takeover(Takeover::Always);
        }
        let mut endpoint;
        if self.op.opens() {
            for _ in ["ready", "set"] {
                mark();
            }
            self.arm();
            mark();
            let opened = options.open();
            let answer = match &opened {
                Ok(_) => Ok(0),
                Err(error) => Err(error.clone()),
            };
            self.page.tell(Answer::Act, &answer);
            mark();
            endpoint = opened.ok();
        } else {
            endpoint = Some(options.open().expect("the child's role is free"));
            self.prepare(endpoint.as_mut().expect("just opened"));
            let mut act = self.act();
            self.arm();
            mark();
            let answer = act(&mut endpoint);
            self.page.tell(Answer::Act, &answer);
            mark();
        }
        self.disarm();
        self.probe(endpoint);
        mark();
    }

    fn arm(&self) {
        if let Some(wishes) = &self.failpoints {
            // SAFETY: the child has one thread.
            unsafe { std::env::set_var("ESHM_FAILPOINTS", wishes) };
        }
    }

    fn disarm(&self) {
        if self.failpoints.is_some() {
            // SAFETY: as above.
            unsafe { std::env::remove_var("ESHM_FAILPOINTS") };
        }
    }

    /// Brings both rings into the state that the operation begins with.
    fn prepare(&self, endpoint: &mut Endpoint) {
        let mut seq = 3;
        let mut write = |endpoint: &mut Endpoint, ghost, len| {
            endpoint.try_write(&message(seq, len, ghost)).map(|()| {
                seq += 1;
                self.page.counters[0].store(seq, std::sync::atomic::Ordering::SeqCst);
            })
        };
        self.read_some(endpoint, 2);
        match self.op {
            WriteSkip => (0..56).for_each(|_| write(endpoint, 0, SHORT).unwrap()),
            WriteGhost => {
                // Its filling imitates the commit words of one lap later.
                write(endpoint, 4 + FRAMES + 2, LONG).unwrap();
                (0..55).for_each(|_| write(endpoint, 0, SHORT).unwrap());
            }
            WriteFirst | RaceWriteFirst => {}
            _ => (0..2).for_each(|_| write(endpoint, 0, SHORT).unwrap()),
        }
        mark();
        self.read_some(endpoint, 1 + self.op.fillers());
        match self.op {
            WriteGhost => (0..4).for_each(|_| write(endpoint, 0, SHORT).unwrap()),
            // Nobody reads these. The next one needs a reservation; or has one.
            RaceWrite | RaceWriteLong => (0..80).for_each(|_| write(endpoint, 0, SHORT).unwrap()),
            RaceWriteReserved | RaceCommit => {
                (0..77).for_each(|_| write(endpoint, 0, SHORT).unwrap());
            }
            // Two frames before the end of the ring.
            RaceWriteSkip => (0..55).for_each(|_| write(endpoint, 0, SHORT).unwrap()),
            WriteFull | WriteWaits => while write(endpoint, 0, SHORT).is_ok() {},
            _ => {}
        }
        mark();
    }

    fn read_some(&self, endpoint: &mut Endpoint, count: usize) {
        let mut buffer = [0; 1024];
        for _ in 0..count {
            let len = endpoint.try_read(&mut buffer).expect("a message of the preparation");
            self.page.hand(seq_of(&buffer[..len]).unwrap_or(TORN));
        }
    }

    /// The operation, with all that it needs.
    fn act(&self) -> Act {
        let page = self.page;
        let mut messages: Vec<Vec<u8>> = Vec::new();
        for (index, &len) in self.op.writes().iter().enumerate() {
            messages.push(message(ACT + index as u64, len, 0));
        }
        let mut buffer = vec![0; 1024];
        let mut batch = Batch::with_capacity(4096, 4);
        let seq = |bytes: &[u8]| seq_of(bytes).unwrap_or(TORN);
        let second = Duration::from_secs(2);
        match self.op {
            WriteWaits => {
                Box::new(move |bus| bus_of(bus).write_timeout(&messages[0], second).map(|()| 1))
            }
            WriteMany | RaceWriteMany => {
                Box::new(move |bus| bus_of(bus).try_write_many(&messages).map(|n| n as u64))
            }
            Commit | CommitLong | RaceCommit => Box::new(move |bus| {
                let mut claim = bus_of(bus).try_claim(messages[0].len())?;
                claim.copy_from_slice(&messages[0]);
                claim.commit().map(|()| 1)
            }),
            Abort => Box::new(move |bus| {
                let mut claim = bus_of(bus).try_claim(LONG)?;
                // Whatever was filled in must never be taken for a commit word.
                for (index, word) in claim.chunks_mut(8).enumerate() {
                    word.copy_from_slice(&(index as u64).to_le_bytes()[..word.len()]);
                }
                claim.abort();
                Ok(0)
            }),
            Park => Box::new(move |bus| {
                bus_of(bus).read_timeout(&mut buffer, Duration::from_millis(2)).map(|_| 1)
            }),
            Read | ReadBackground | ReadLong | ReadSkip | ReadEpoch | ReadWakes | ParkWoken
            | MoveRead | RaceRead | RaceReadLong | RaceReadLapped => Box::new(move |bus| {
                let len = bus_of(bus).read_timeout(&mut buffer, second)?;
                page.hand(seq(&buffer[..len]));
                Ok(1)
            }),
            ReadMany | RaceReadMany => Box::new(move |bus| {
                let count = bus_of(bus).try_read_many(&mut batch)?;
                batch.iter().for_each(|(_, bytes)| page.hand(seq(bytes)));
                Ok(count as u64)
            }),
            Release | RacePeek | RacePeekLapped => Box::new(move |bus| {
                let peek = bus_of(bus).peek()?;
                page.show(seq(&peek));
                peek.release().map(|()| 1)
            }),
            RaceValue => Box::new(move |bus| {
                let value: [u64; SHORT / 8] = bus_of(bus).try_read_value()?;
                page.hand(seq(bytemuck::bytes_of(&value)));
                Ok(1)
            }),
            RaceLatest | RaceLatestLapped => Box::new(move |bus| bus_of(bus).skip_to_latest()),
            ReleaseMany => Box::new(move |bus| {
                let peek = bus_of(bus).try_peek_many(&mut batch)?;
                peek.iter().for_each(|(_, bytes)| page.show(seq(bytes)));
                let count = peek.iter().len();
                peek.release()?;
                // A part of it, if the segment was cut meanwhile.
                Ok(batch.len().min(count) as u64)
            }),
            Leave | LeaveLast => Box::new(move |bus| bus.take().expect("open").leave().map(|()| 0)),
            _ => Box::new(move |bus| bus_of(bus).try_write(&messages[0]).map(|()| 1)),
        }
    }

    /// What the child does when it was let go on.
    fn probe(&self, endpoint: Option<Endpoint>) {
        let Some(mut endpoint) = endpoint else { return };
        let written = endpoint.try_write(&message(PROBE, SHORT, 0));
        self.page.tell(Answer::Write, &written.map(|()| 1));
        let mut buffer = [0; 1024];
        let read = endpoint.try_read(&mut buffer);
        if let Ok(len) = read {
            self.page.hand(seq_of(&buffer[..len]).unwrap_or(TORN));
        }
        self.page.tell(Answer::Read, &read.map(|_| 1));
        self.page.tell(Answer::Leave, &endpoint.leave().map(|()| 0));
    }
}

/// What this role writes.
pub fn direction_of(role: Role) -> Direction {
    if role == Role::Master { Direction::MasterToSlave } else { Direction::SlaveToMaster }
}

fn bus_of(bus: &mut Option<Endpoint>) -> &mut Endpoint {
    bus.as_mut().expect("open")
}
