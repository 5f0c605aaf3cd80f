//! What a bus tells about itself: plain values.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::config::Geometry;
use crate::error::Error;
use crate::schema::Schema;

/// What is known of the holder of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeerState {
    /// Nobody ever held the role.
    #[default]
    Absent,
    /// It holds its lock and its heart beats.
    Alive,
    /// It holds its lock, but its heart stood still for this long, in time that this process saw.
    Hung(Duration),
    /// The kernel freed its lock without it having left.
    Dead,
    /// It left cleanly.
    Left,
}

impl PeerState {
    /// One word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PeerState::Absent => "absent",
            PeerState::Alive => "alive",
            PeerState::Hung(_) => "hung",
            PeerState::Dead => "dead",
            PeerState::Left => "left",
        }
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The holder of a role. Process ids are for people: nothing is decided from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Peer {
    /// What is known of it.
    pub state: PeerState,
    /// Its process, as its own namespace numbers it; 0 if there never was one.
    pub pid: u32,
    /// Whether that number is of another PID namespace (a container) than that of whoever looks, so
    /// that here it means another process, or none.
    pub is_foreign: bool,
    /// How many owners the role has had.
    pub epoch: u64,
    /// Its heartbeats so far.
    pub beats: u64,
    /// Calls and messages of its application. Beats without progress: the process lives, its
    /// application makes no calls.
    pub progress: u64,
}

/// Figures of one direction. Taken while both sides run, so they fit together only roughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RingStats {
    /// Messages written since the bus was made.
    pub written: u64,
    /// Messages read since the bus was made.
    pub read: u64,
    /// Payload bytes written. A kill may leave the last message uncounted.
    pub bytes: u64,
    /// Messages that wait.
    pub backlog: u64,
    /// Frames in use.
    pub backlog_frames: u64,
    /// Frames of the ring.
    pub frames: u64,
    /// The most frames that were seen in use; exact whenever the ring was found full. In between it is looked
    /// at every few heartbeats, and may lag by what the writer reserved last, an eighth of the ring.
    pub high_water: u64,
    /// How often a write was refused or had to wait because the ring was full.
    pub times_full: u64,
    /// Messages overwritten before the reader came to them.
    pub lost: u64,
    /// How often the reader went to sleep.
    pub reader_parks: u64,
    /// How often the writer woke it.
    pub reader_wakes: u64,
    /// How often the writer went to sleep for room.
    pub writer_parks: u64,
    /// How often the reader woke it.
    pub writer_wakes: u64,
}

/// A snapshot of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// The master.
    pub master: Peer,
    /// The slave.
    pub slave: Peer,
    /// What the master writes.
    pub master_to_slave: RingStats,
    /// What the slave writes.
    pub slave_to_master: RingStats,
}

/// A request about memory that the system refused. The bus works without it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The option: `prefault`, `lock_memory` or `huge_pages`.
    pub what: &'static str,
    /// What the system said.
    pub why: String,
}

/// How far the life of a segment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// In use, or waiting to be.
    Live,
    /// About to be replaced by a new one.
    Sealed,
    /// About to be removed.
    Retired,
}

/// All that can be seen of a segment from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The full name, as it was given.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The memory that it takes, in bytes.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// When the bus was made.
    pub created: SystemTime,
    /// How often it was replaced or begun anew.
    pub generation: u64,
    /// How far its life has come.
    pub state: SegmentState,
    /// Messages that nobody has read, from the master and from the slave. What may be overwritten
    /// counts as read.
    pub unread: [u64; 2],
    /// The shape of what the master writes.
    pub master_to_slave: Geometry,
    /// The shape of what the slave writes.
    pub slave_to_master: Geometry,
    /// What the messages are, from the master and from the slave, if the bus says it.
    pub schemas: [Option<Schema>; 2],
    /// The creator's beat interval.
    pub beat_interval: Duration,
    /// The creator's stale threshold.
    pub stale_after: Duration,
    /// Roles and directions.
    pub stats: Stats,
}

/// What lies under a name in the directory of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A bus of this library.
    Bus(Box<Snapshot>),
    /// A file that an operation of this library left behind when it was killed; `remove` takes it
    /// away.
    Leftover(String),
    /// Something else, or of another version: why it is not a bus.
    Foreign(String),
    /// It could not be looked at.
    Unreadable(Error),
}

/// One file of the directory of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name, as far as the file name tells it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
}
