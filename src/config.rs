//! What a bus is told when it is opened: plain values, no behaviour.
//!
//! [`Options`] is a builder in the manner of [`std::fs::OpenOptions`]. Whatever concerns the
//! geometry is a wish when the segment is created and a condition when it is already there.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::schema::Schema;

/// One of the two ends of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Creates the segment, or takes over the place of a master that is gone.
    Master,
    /// Attaches to a segment that a master made.
    Slave,
    /// Whichever is free: master if nobody is, else slave. Only a wish; an open endpoint is one of
    /// the other two.
    Auto,
}

impl Role {
    /// The other end.
    #[must_use]
    pub fn peer(self) -> Role {
        match self {
            Role::Master => Role::Slave,
            Role::Slave => Role::Master,
            Role::Auto => Role::Auto,
        }
    }

    /// The direction that this role writes.
    #[must_use]
    pub fn writes(self) -> Direction {
        match self {
            Role::Slave => Direction::SlaveToMaster,
            Role::Master | Role::Auto => Direction::MasterToSlave,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Master => "master",
            Role::Slave => "slave",
            Role::Auto => "auto",
        })
    }
}

/// One of the two rings of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Written by the master, read by the slave.
    MasterToSlave,
    /// Written by the slave, read by the master.
    SlaveToMaster,
}

impl Direction {
    /// Both directions, in the order of the segment.
    pub const BOTH: [Direction; 2] = [Direction::MasterToSlave, Direction::SlaveToMaster];

    /// The role that writes this direction.
    #[must_use]
    pub fn writer(self) -> Role {
        match self {
            Direction::MasterToSlave => Role::Master,
            Direction::SlaveToMaster => Role::Slave,
        }
    }

    /// The role that reads this direction.
    #[must_use]
    pub fn reader(self) -> Role {
        self.writer().peer()
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::MasterToSlave => "master->slave",
            Direction::SlaveToMaster => "slave->master",
        })
    }
}

/// What happens when a direction is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overflow {
    /// The writer is refused, or waits if it said so. Nothing is ever lost.
    #[default]
    Refuse,
    /// The oldest messages make room. The reader is told exactly how many it lost.
    Overwrite,
}

/// What to do when the role asked for is held by a living process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Takeover {
    /// Give an error that names the owner.
    #[default]
    Never,
    /// Fence the owner if its heartbeat stands still for longer than the threshold, else as
    /// [`Takeover::Never`].
    Hung,
    /// Fence the owner whatever its state.
    Always,
}

/// What `read` does when the peer is gone and nothing it sent is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Disconnect {
    /// Say so at once: [`crate::Error::PeerDead`].
    Immediately,
    /// Time out as if the peer were silent, until the reconnect limits are used up; then say so.
    OnTimeout,
    /// Time out for ever; a peer may come back.
    #[default]
    Never,
}

/// How a call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Wait {
    /// Burn the core: the lowest latency, for a thread that has a core of its own.
    Spin,
    /// Spin for a short while, then sleep in the kernel.
    #[default]
    Adaptive,
    /// Sleep in the kernel at once.
    Park,
}

/// When a bus is removed, if both sides have left cleanly. A side that was killed has not left: its
/// bus stays, and so do its messages. If the two sides wish differently the more careful one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cleanup {
    /// When nothing is unread in either direction. An overwritten direction counts as read.
    #[default]
    WhenRead,
    /// Whatever is unread.
    Always,
    /// Not at all.
    Never,
}

/// Which message: the how-many-th owner of the writing role sent it, and its number.
///
/// Numbers count the messages of one direction from 0, without gaps, and go on over restarts of
/// either side; epochs start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    /// The epoch of the writing role when the message was committed.
    pub epoch: u64,
    /// The number of the message in its direction.
    pub number: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.number)
    }
}

/// The shape of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Bytes per frame: 16, 32 or a multiple of 64. A message of up to `frame_size - 8` bytes takes one.
    pub frame_size: u32,
    /// Frames of the ring: a power of two.
    pub frames: u64,
    /// What happens when it is full.
    pub overflow: Overflow,
}

impl Default for Geometry {
    fn default() -> Self {
        Geometry { frame_size: 64, frames: 8192, overflow: Overflow::Refuse }
    }
}

/// Wishes for one direction; what is not asked for is taken as found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Asked {
    pub frame_size: Option<u32>,
    pub frames: Option<u64>,
    pub overflow: Option<Overflow>,
}

impl Asked {
    /// The geometry to create where nothing is there yet.
    pub(crate) fn or_default(self) -> Geometry {
        let default = Geometry::default();
        Geometry {
            frame_size: self.frame_size.unwrap_or(default.frame_size),
            frames: self.frames.unwrap_or(default.frames),
            overflow: self.overflow.unwrap_or(default.overflow),
        }
    }
}

/// How to open a bus.
///
/// ```no_run
/// use eshm::{Options, Role};
/// let mut bus = Options::new("telemetry").role(Role::Master).frames(1 << 16).open()?;
/// bus.write(b"hello")?;
/// # Ok::<(), eshm::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) role: Role,
    pub(crate) takeover: Takeover,
    pub(crate) asked: [Asked; 2],
    /// What this side writes, and what it reads.
    pub(crate) says: [Option<Schema>; 2],
    pub(crate) beat_interval: Duration,
    pub(crate) stale_after: Duration,
    pub(crate) open_timeout: Duration,
    pub(crate) on_disconnect: Disconnect,
    pub(crate) reconnect_interval: Duration,
    pub(crate) reconnect_attempts: u32,
    pub(crate) reconnect_wait: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) wait: Wait,
    pub(crate) background: bool,
    pub(crate) cleanup: Cleanup,
    /// A yes or no of ESHM's own calls, in place of `cleanup`.
    pub(crate) classic_cleanup: Option<bool>,
    pub(crate) mode: Option<u32>,
    pub(crate) trusted: Vec<u32>,
    pub(crate) prefault: bool,
    pub(crate) lock_memory: bool,
    pub(crate) huge_pages: bool,
    pub(crate) guard_sigbus: bool,
}

impl Options {
    /// Options for the bus `name`, all at their defaults.
    ///
    /// A name has 1 to 200 characters of `A-Z a-z 0-9 . _ -`; a `/` is stored as `_` in the file
    /// name `/dev/shm/eshm_<name>`, but `a/b` and `a_b` never meet: the segment knows its name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Options {
            name: name.into(),
            directory: PathBuf::from("/dev/shm"),
            role: Role::Auto,
            takeover: Takeover::Never,
            asked: [Asked::default(); 2],
            says: [None, None],
            beat_interval: Duration::from_millis(1),
            stale_after: Duration::from_millis(100),
            open_timeout: Duration::MAX,
            on_disconnect: Disconnect::Never,
            reconnect_interval: Duration::from_millis(100),
            reconnect_attempts: 50,
            reconnect_wait: Duration::from_secs(5),
            read_timeout: Duration::from_secs(1),
            write_timeout: Duration::MAX,
            wait: Wait::Adaptive,
            background: true,
            cleanup: Cleanup::WhenRead,
            classic_cleanup: None,
            mode: None,
            trusted: Vec::new(),
            prefault: false,
            lock_memory: false,
            huge_pages: false,
            guard_sigbus: false,
        }
    }

    /// Which end to be. Default: [`Role::Auto`].
    pub fn role(&mut self, role: Role) -> &mut Self {
        self.role = role;
        self
    }

    /// What to do with a living or hung owner of the role. Default: [`Takeover::Never`].
    pub fn takeover(&mut self, takeover: Takeover) -> &mut Self {
        self.takeover = takeover;
        self
    }

    /// Bytes per frame, both directions: 16, 32 or a multiple of 64. Default when creating: 64.
    pub fn frame_size(&mut self, bytes: u32) -> &mut Self {
        self.asked.iter_mut().for_each(|ring| ring.frame_size = Some(bytes));
        self
    }

    /// Frames per ring, both directions: a power of two. Default when creating: 8192.
    pub fn frames(&mut self, frames: u64) -> &mut Self {
        self.asked.iter_mut().for_each(|ring| ring.frames = Some(frames));
        self
    }

    /// What happens when a ring is full, both directions. Default when creating:
    /// [`Overflow::Refuse`].
    pub fn overflow(&mut self, overflow: Overflow) -> &mut Self {
        self.asked.iter_mut().for_each(|ring| ring.overflow = Some(overflow));
        self
    }

    /// The whole shape of one direction.
    pub fn direction(&mut self, direction: Direction, geometry: Geometry) -> &mut Self {
        self.asked[direction as usize] = Asked {
            frame_size: Some(geometry.frame_size),
            frames: Some(geometry.frames),
            overflow: Some(geometry.overflow),
        };
        self
    }

    /// Wishes for one direction, of which each may be left open. For the C interface.
    #[doc(hidden)]
    pub fn ask(
        &mut self,
        direction: Direction,
        frame_size: Option<u32>,
        frames: Option<u64>,
        overflow: Option<Overflow>,
    ) -> &mut Self {
        self.asked[direction as usize] = Asked { frame_size, frames, overflow };
        self
    }

    /// What the messages are that this endpoint writes. A bus that is made carries it until it is
    /// removed; one that carries another schema in that direction, or none, is refused with
    /// [`crate::Error::Schema`]. Default: not said, and whatever the bus carries is right.
    pub fn writes(&mut self, schema: Schema) -> &mut Self {
        self.says[0] = Some(schema);
        self
    }

    /// What the messages are that this endpoint reads; as [`Options::writes`], for the other
    /// direction.
    pub fn reads(&mut self, schema: Schema) -> &mut Self {
        self.says[1] = Some(schema);
        self
    }

    /// What this endpoint says of each direction, in a role.
    pub(crate) fn schemas_as(&self, role: Role) -> [Option<&Schema>; 2] {
        let [writes, reads] = &self.says;
        match role {
            Role::Slave => [reads.as_ref(), writes.as_ref()],
            Role::Master | Role::Auto => [writes.as_ref(), reads.as_ref()],
        }
    }

    /// How often this endpoint shows that it is alive. Default: 1 ms.
    pub fn beat_interval(&mut self, interval: Duration) -> &mut Self {
        self.beat_interval = interval;
        self
    }

    /// How long the peer's heartbeat may stand still before it counts as hung. Default: 100 ms.
    pub fn stale_after(&mut self, threshold: Duration) -> &mut Self {
        self.stale_after = threshold;
        self
    }

    /// How long `open` waits, as a slave, for a master to make the bus; zero is not at all. Default:
    /// for ever, so that either side can be started first.
    pub fn open_timeout(&mut self, timeout: Duration) -> &mut Self {
        self.open_timeout = timeout;
        self
    }

    /// What reading does when the peer is gone. Default: [`Disconnect::Never`]: it goes on when a peer
    /// comes back.
    pub fn on_disconnect(&mut self, behaviour: Disconnect) -> &mut Self {
        self.on_disconnect = behaviour;
        self
    }

    /// How often a peer that is gone is looked for. Default: 100 ms.
    pub fn reconnect_interval(&mut self, interval: Duration) -> &mut Self {
        self.reconnect_interval = interval;
        self
    }

    /// How often it is looked for before reading gives up; 0 means for ever. Default: 50.
    pub fn reconnect_attempts(&mut self, attempts: u32) -> &mut Self {
        self.reconnect_attempts = attempts;
        self
    }

    /// How long it is looked for before reading gives up; zero means for ever. Default: 5 s.
    pub fn reconnect_wait(&mut self, wait: Duration) -> &mut Self {
        self.reconnect_wait = wait;
        self
    }

    /// How long `read` waits. Default: 1 s.
    pub fn read_timeout(&mut self, timeout: Duration) -> &mut Self {
        self.read_timeout = timeout;
        self
    }

    /// How long `write` waits for room. Default: for ever.
    pub fn write_timeout(&mut self, timeout: Duration) -> &mut Self {
        self.write_timeout = timeout;
        self
    }

    /// How calls wait. Default: [`Wait::Adaptive`].
    pub fn wait(&mut self, wait: Wait) -> &mut Self {
        self.wait = wait;
        self
    }

    /// Whether the background thread of this process beats for this endpoint and watches its peer.
    /// Without it every call does, and a process that makes no calls looks hung. Default: on.
    pub fn background(&mut self, on: bool) -> &mut Self {
        self.background = on;
        self
    }

    /// What this endpoint wishes for the bus when both sides have left. Default:
    /// [`Cleanup::WhenRead`].
    pub fn cleanup(&mut self, cleanup: Cleanup) -> &mut Self {
        self.cleanup = cleanup;
        self.classic_cleanup = None;
        self
    }

    /// The wish as ESHM's own calls know it: if both sides were opened by them, one yes is enough.
    #[doc(hidden)]
    pub fn classic_cleanup(&mut self, yes: bool) -> &mut Self {
        self.classic_cleanup = Some(yes);
        self
    }

    /// The permission bits of a bus that is created, whatever the umask (default: 0600, this user
    /// only), and the most that one found may have (default: what it has).
    ///
    /// Threat model: 0600 is level 1, where both sides are trusted not to be malicious. With group
    /// or other bits (level 2) the peer may stall or garble its own messages; then use the copying
    /// calls, not [`crate::Peek`], whose bytes such a peer could change while they are looked at.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = Some(mode);
        self
    }

    /// Trusts the files of another user too, by number. Without it only those of this user and of
    /// root are opened for writing: whoever owns a file may cut it short under whoever maps it.
    pub fn trust_user(&mut self, uid: u32) -> &mut Self {
        self.trusted.push(uid);
        self
    }

    /// Touch every page when opening, so that no call meets a page fault. Default: off.
    pub fn prefault(&mut self, on: bool) -> &mut Self {
        self.prefault = on;
        self
    }

    /// Lock the segment into memory. Default: off.
    pub fn lock_memory(&mut self, on: bool) -> &mut Self {
        self.lock_memory = on;
        self
    }

    /// Ask for huge pages. Default: off.
    pub fn huge_pages(&mut self, on: bool) -> &mut Self {
        self.huge_pages = on;
        self
    }

    /// Survive a peer that truncates the segment's file: instead of the signal SIGBUS the calls
    /// give [`crate::Error::Lost`]. Installs a handler for the whole process, which passes on every
    /// signal that is not about a segment. Default: off.
    pub fn guard_sigbus(&mut self, on: bool) -> &mut Self {
        self.guard_sigbus = on;
        self
    }

    /// The directory of the segment's file, which should be a tmpfs. One that is named relative to the
    /// current directory stays the same when that changes. Default: `/dev/shm`.
    pub fn directory(&mut self, directory: impl Into<PathBuf>) -> &mut Self {
        let directory = directory.into();
        self.directory = std::path::absolute(&directory).unwrap_or(directory);
        self
    }

    /// Where the segment's file is, or will be.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        segment_path(&self.directory, &self.name)
    }
}

/// The file of the segment `name` in `directory`.
pub(crate) fn segment_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("eshm_{}", name.replace('/', "_")))
}
