//! The public handle, and the two halves that it can be split into.
//!
//! An [`Endpoint`] is a [`Writer`] and a [`Reader`] that share a seat on the bus. Each half may go
//! to a thread of its own; neither may be used by two threads at once, which the compiler holds:
//!
//! ```compile_fail
//! fn share<T: Sync>() {}
//! share::<eshm::Writer>();
//! ```
//! ```compile_fail
//! fn share<T: Sync>() {}
//! share::<eshm::Reader>();
//! ```
//! ```compile_fail
//! fn share<T: Sync>() {}
//! share::<eshm::Endpoint>();
//! ```
//! ```
//! fn send<T: Send>() {}
//! send::<eshm::Endpoint>();
//! send::<eshm::Writer>();
//! send::<eshm::Reader>();
//! ```
//!
//! Each call is a short path that touches only the ring, and a cold one for all that can happen
//! besides: a sleeper to wake, a segment to follow, a handle that was forked.

mod batch;
mod now;
mod peek;
mod reader;
mod typed;
mod waiter;
mod watch;
mod writer;

use std::sync::Arc;
use std::time::Duration;

pub use batch::Batch;
pub use now::Now;
pub use peek::{Messages, Peek, PeekMany};
pub use reader::Reader;
pub use typed::{TypedReader, TypedWriter};
pub use watch::Watch;
pub use writer::{Claim, Writer};

use crate::config::{Direction, Disconnect, Geometry, MessageId, Options, Role};
use crate::error::Result;
use crate::schema::Schema;
use crate::session::{self, Member};
use crate::stats::{Peer, Refusal, Stats};
use crate::{census, pulse};

/// A seat on the bus, shared by the halves; leaves when the last of them is dropped.
pub(crate) struct Lease {
    member: Arc<Member>,
}

impl Lease {
    fn leave(&self) -> Result<()> {
        if !self.member.is_home() {
            return Ok(());
        }
        pulse::leave(&self.member);
        self.member.leave()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // What goes wrong here has nobody left to tell; `Endpoint::leave` tells.
        let _ = self.leave();
    }
}

impl std::ops::Deref for Lease {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.member
    }
}

impl Options {
    /// Opens the bus: creates or attaches, adopts what a dead owner left, or fences a hung one if
    /// that was asked for.
    ///
    /// # Errors
    /// See [`crate::Error`]; among them `RoleTaken` with the owner's pid and state, `NotFound` for a
    /// slave without a master, `Geometry` when the segment is shaped otherwise, and `Schema` when its
    /// messages are others.
    pub fn open(&self) -> Result<Endpoint> {
        // First what can go wrong without the bus having changed.
        let promise = self.background.then(pulse::promise).transpose()?;
        let lease = Arc::new(Lease { member: session::open(self)? });
        if let Some(promise) = promise {
            promise.keep(&lease.member);
        }
        lease.prepare_memory();
        let halves = Writer::new(Arc::clone(&lease))
            .and_then(|writer| Ok(Endpoint { writer, reader: Reader::new(Arc::clone(&lease))? }));
        // What cannot be used is left as it was found: a condemned seat is not cleaned up.
        halves.inspect_err(|error| lease.condemn(error.clone()))
    }
}

/// One end of a bus.
pub struct Endpoint {
    writer: Writer,
    reader: Reader,
}

/// What both halves and the whole tell of the bus.
macro_rules! tells_of_the_bus {
    ($handle:ty, $lease:ident $(. $path:ident)*) => {
        impl $handle {
            /// The name of the bus.
            #[must_use]
            pub fn name(&self) -> &str {
                &self.$lease$(.$path)*.options.name
            }

            /// Master or slave.
            #[must_use]
            pub fn role(&self) -> Role {
                self.$lease$(.$path)*.role
            }

            /// How many owners the role has had, this one included.
            #[must_use]
            pub fn epoch(&self) -> u64 {
                if self.$lease$(.$path)*.is_home() { self.$lease$(.$path)*.epoch() } else { 0 }
            }

            /// The shape of one direction.
            #[must_use]
            pub fn geometry(&self, direction: Direction) -> Geometry {
                self.shape(direction)
            }

            /// What the messages of a direction are, if whoever made the bus said it.
            ///
            /// # Errors
            /// `Corrupt`, if what is there is no schema; `Forked`.
            pub fn schema(&self, direction: Direction) -> Result<Option<Schema>> {
                typed::schema(&self.$lease$(.$path)*, direction)
            }

            /// The peer, as known now. In a forked child: nobody.
            #[must_use]
            pub fn peer(&self) -> Peer {
                self.$lease$(.$path)*.peer()
            }

            /// Waits until the peer is alive.
            ///
            /// # Errors
            /// `Timeout`, or what is wrong with this endpoint.
            pub fn wait_for_peer(&self, timeout: Duration) -> Result<Peer> {
                self.$lease$(.$path)*.wait_for_peer(timeout)
            }

            /// A snapshot of all figures. In a forked child: zeros.
            #[must_use]
            pub fn stats(&self) -> Stats {
                census::stats_of(&self.$lease$(.$path)*)
            }

            /// A view of the bus for other threads: it tells, and cannot write or read.
            #[must_use]
            pub fn watch(&self) -> Watch {
                Watch::new(Arc::clone(&self.$lease$(.$path)*.member))
            }

            /// One heartbeat by hand, for endpoints without the background thread.
            pub fn beat(&self) {
                if self.$lease$(.$path)*.is_home() {
                    self.$lease$(.$path)*.beat();
                    self.$lease$(.$path)*.observe_if_due();
                }
            }

            /// Changes what reading does when the peer is gone.
            pub fn set_on_disconnect(&self, behaviour: Disconnect) {
                self.$lease$(.$path)*.set_on_disconnect(behaviour);
            }
        }

        impl std::fmt::Debug for $handle {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($handle))
                    .field("name", &self.name())
                    .field("role", &self.role())
                    .finish_non_exhaustive()
            }
        }
    };
}

tells_of_the_bus!(Endpoint, writer.lease);
tells_of_the_bus!(Writer, lease);
tells_of_the_bus!(Reader, lease);

impl Endpoint {
    /// Two halves for two threads. The bus is left when both are dropped.
    #[must_use]
    pub fn split(self) -> (Writer, Reader) {
        (self.writer, self.reader)
    }

    /// The writing half.
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// The reading half.
    pub fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }

    /// Both halves.
    pub fn halves(&mut self) -> (&mut Writer, &mut Reader) {
        (&mut self.writer, &mut self.reader)
    }

    /// Leaves the bus. Dropping does the same and keeps what went wrong to itself.
    ///
    /// # Errors
    /// What the system said when the lock was freed or the name removed; or what made the endpoint
    /// unusable before, so that there was nothing left to leave.
    pub fn leave(self) -> Result<()> {
        let lease = Arc::clone(&self.writer.lease);
        // The halves let go of the memory first.
        drop(self);
        lease.leave()
    }

    /// Requests about memory that the system refused; the bus works without them.
    #[must_use]
    pub fn refused(&self) -> Vec<Refusal> {
        self.writer.lease.refused()
    }

    fn shape(&self, direction: Direction) -> Geometry {
        self.writer.shape(direction)
    }

    /// What the two halves share, for the simulation's own questions.
    #[cfg(eshm_sim)]
    pub(crate) fn member(&self) -> &Member {
        &self.writer.lease
    }
}

/// The calls of the halves, on the whole.
macro_rules! forward {
    ($half:ident: $type:ident { $($(#[$attr:meta])* fn $name:ident$(<$generic:ident: $bound:path>)?(&mut self $(, $arg:ident: $arg_type:ty)*) -> $result:ty;)* }) => {
        impl Endpoint {
            $(
                #[doc = concat!("See [`", stringify!($type), "::", stringify!($name), "`].")]
                ///
                /// # Errors
                /// As there.
                #[inline]
                pub fn $name$(<$generic: $bound>)?(&mut self $(, $arg: $arg_type)*) -> $result {
                    self.$half.$name($($arg),*)
                }
            )*
        }
    };
}

forward!(writer: Writer {
    fn write(&mut self, message: &[u8]) -> Result<()>;
    fn try_write(&mut self, message: &[u8]) -> Result<()>;
    fn write_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<()>;
    fn write_value<T: bytemuck::NoUninit>(&mut self, value: &T) -> Result<()>;
    fn try_write_value<T: bytemuck::NoUninit>(&mut self, value: &T) -> Result<()>;
    fn claim(&mut self, len: usize) -> Result<Claim<'_>>;
    fn try_claim(&mut self, len: usize) -> Result<Claim<'_>>;
    fn claim_timeout(&mut self, len: usize, timeout: Duration) -> Result<Claim<'_>>;
});

forward!(reader: Reader {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;
    fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize>;
    fn read_timeout(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<usize>;
    fn read_many(&mut self, batch: &mut Batch) -> Result<usize>;
    fn try_read_many(&mut self, batch: &mut Batch) -> Result<usize>;
    fn read_many_timeout(&mut self, batch: &mut Batch, timeout: Duration) -> Result<usize>;
    fn read_value<T: bytemuck::AnyBitPattern>(&mut self) -> Result<T>;
    fn try_read_value<T: bytemuck::AnyBitPattern>(&mut self) -> Result<T>;
    fn peek(&mut self) -> Result<Peek<'_>>;
    fn try_peek(&mut self) -> Result<Peek<'_>>;
    fn peek_timeout(&mut self, timeout: Duration) -> Result<Peek<'_>>;
    fn next_len(&mut self) -> Result<usize>;
    fn skip_to_latest(&mut self) -> Result<u64>;
});

impl Endpoint {
    /// See [`Writer::write_many`].
    ///
    /// # Errors
    /// As there.
    pub fn write_many<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<usize> {
        self.writer.write_many(messages)
    }

    /// See [`Writer::try_write_many`].
    ///
    /// # Errors
    /// As there.
    pub fn try_write_many<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<usize> {
        self.writer.try_write_many(messages)
    }

    /// See [`Writer::write_many_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn write_many_timeout<M: AsRef<[u8]>>(
        &mut self,
        messages: &[M],
        timeout: Duration,
    ) -> Result<usize> {
        self.writer.write_many_timeout(messages, timeout)
    }

    /// See [`Writer::last_committed`].
    #[must_use]
    pub fn last_committed(&self) -> Option<MessageId> {
        self.writer.last_committed()
    }

    /// See [`Writer::max_message`].
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.writer.max_message()
    }

    /// See [`Reader::peek_many`].
    ///
    /// # Errors
    /// As there.
    pub fn peek_many<'a>(&'a mut self, batch: &'a mut Batch) -> Result<PeekMany<'a>> {
        self.reader.peek_many(batch)
    }

    /// See [`Reader::try_peek_many`].
    ///
    /// # Errors
    /// As there.
    pub fn try_peek_many<'a>(&'a mut self, batch: &'a mut Batch) -> Result<PeekMany<'a>> {
        self.reader.try_peek_many(batch)
    }

    /// See [`Reader::peek_many_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn peek_many_timeout<'a>(
        &'a mut self,
        batch: &'a mut Batch,
        timeout: Duration,
    ) -> Result<PeekMany<'a>> {
        self.reader.peek_many_timeout(batch, timeout)
    }

    /// See [`Reader::messages`].
    pub fn messages(&mut self) -> Messages<'_> {
        self.reader.messages()
    }

    /// See [`Reader::last_id`].
    #[must_use]
    pub fn last_id(&self) -> Option<MessageId> {
        self.reader.last_id()
    }

    /// See [`Reader::lost`].
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.reader.lost()
    }
}
