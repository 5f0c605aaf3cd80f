//! A message bus between two processes over one shared-memory segment.
#![allow(dead_code)]
mod bus;
mod census;
mod config;
mod error;
mod layout;
mod peer;
mod pulse;
mod ring;
mod segment;
mod session;
mod stats;
mod sync;
mod sys;
mod tap;

pub use bus::{Batch, Claim, Endpoint, Messages, Peek, PeekMany, Reader, Watch, Writer};
pub use census::{inspect, inspect_in, list, list_in, remove, remove_in};
pub use config::{
    Direction, Disconnect, Geometry, MessageId, Options, Overflow, Role, Takeover, Wait,
};
pub use error::{Error, Result};
pub use stats::{
    Entry, EntryKind, Peer, PeerState, Refusal, RingStats, SegmentState, Snapshot, Stats,
};
pub use tap::{Tap, TapMessage};
