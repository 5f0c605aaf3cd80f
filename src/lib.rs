//! A message bus between two processes on one machine, over one shared-memory segment.
//!
//! ```text
//!            /dev/shm/eshm_<name>
//!   +--------+------------------------------+------------------------------+
//!   | header | ring: master -> slave        | ring: slave -> master        |
//!   +--------+------------------------------+------------------------------+
//!      who       master writes, slave reads     slave writes, master reads
//!
//!   [ master process ] ==== frames of 64 bytes, lock-free ====> [ slave process ]
//!                      <=======================================
//! ```
//!
//! One process is the master, the other the slave; whichever comes first may be either. What one
//! writes the other reads, in order, once, whole, whichever of them is killed at whichever
//! instruction; and what was unread is still there when one comes back.
//!
//! ```
//! use eshm::{Options, Role};
//!
//! # let name = format!("doc-front-{}", std::process::id());
//! let mut master = Options::new(&name).role(Role::Master).open()?;
//! let mut slave = Options::new(&name).role(Role::Slave).open()?; // in another process, usually
//!
//! master.write(b"tick")?;
//! let mut buffer = [0; 64];
//! let len = slave.read(&mut buffer)?;
//! assert_eq!(&buffer[..len], b"tick");
//! # Ok::<(), eshm::Error>(())
//! ```
//!
//! # What is promised
//!
//! - `Ok` from a write means: in the ring. Nothing committed is lost, doubled, torn or reordered.
//! - [`Reader::read`] hands a message out at most once, [`Reader::peek`] and [`Peek::release`] at
//!   least once; every message has a [`MessageId`].
//! - A role has one owner. A dead one is adopted in place; a hung one is fenced, and not a byte that
//!   it writes later is delivered ([`Takeover`]).
//! - Death is noticed within milliseconds, because the kernel tells it; a hang after a threshold.
//! - A full ring refuses, waits, or overwrites the oldest with an exact count ([`Overflow`]).
//! - A bus can say what its messages are, and refuses whoever says otherwise ([`Schema`]).
//! - A broken segment gives an [`Error`], never a crash.
//!
//! # What is not
//!
//! It is for two processes, not for many, on one machine, and not between users who do not trust
//! each other. Messages do not survive a reboot. Only Linux.
//!
//! # Reading order
//!
//! `layout.rs` (what lies where), `ring.rs` and below (how a message crosses), `session.rs` and
//! below (who holds a role), `bus.rs` (the calls), `pulse.rs` (the one background thread), `sys.rs`
//! (all that talks to Linux).

// The model checker's build is the ring and what it stands on; the rest knows only real atomics.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

#[cfg(not(loom))]
mod bus;
#[cfg(not(loom))]
mod census;
mod config;
mod error;
mod layout;
#[cfg(not(loom))]
mod peer;
#[cfg(not(loom))]
mod pulse;
mod ring;
mod schema;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod session;
#[cfg(eshm_sim)]
#[doc(hidden)]
pub mod sim;
#[cfg(not(loom))]
mod stats;
mod sync;
#[cfg(eshm_sim)]
use sim::sys;
#[cfg(not(any(loom, eshm_sim)))]
mod sys;
#[cfg(not(loom))]
mod tap;

#[cfg(not(loom))]
#[doc(hidden)]
pub use bus::Now;
#[cfg(not(loom))]
pub use bus::{
    Batch, Claim, Endpoint, Messages, Peek, PeekMany, Reader, TypedReader, TypedWriter, Watch,
    Writer,
};
#[cfg(not(loom))]
pub use census::{inspect, inspect_in, list, list_in, remove, remove_in, remove_read_in};
pub use config::{
    Cleanup, Direction, Disconnect, Geometry, MessageId, Options, Overflow, Role, Takeover, Wait,
};
pub use error::{Error, Result};
#[cfg(feature = "derive")]
pub use eshm_derive::Message;
#[doc(hidden)]
pub use schema::layout_of;
pub use schema::{Described, Message, Schema};
#[cfg(not(loom))]
pub use stats::{
    Entry, EntryKind, Peer, PeerState, Refusal, RingStats, SegmentState, Snapshot, Stats,
};
#[cfg(not(loom))]
pub use tap::{Tap, TapMessage};

/// What the fuzz targets drive.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::ring::fuzzing::{consumer, producer, tap};
}
