//! Listening in: reading a direction without being its consumer.
//!
//! A tap maps the segment read-only, so it cannot disturb anybody; neither side knows of it. It
//! follows the bus when its segment is replaced.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::config::{Direction, Geometry, MessageId, Options};
use crate::error::{Error, Result};
use crate::ring::Cursor;
use crate::segment::{self, Segment};
use crate::sync::Ordering;

/// The pause between two looks of a tap that waits. It stores nothing, so nobody can wake it.
const PAUSE: Duration = Duration::from_micros(200);

/// A listener to one direction.
pub struct Tap {
    cursor: Cursor,
    segment: Segment,
    direction: Direction,
    options: Options,
    lost: u64,
}

/// What a tap heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TapMessage {
    /// Which message it is.
    pub id: MessageId,
    /// Its length.
    pub len: usize,
    /// Messages missed just before it, because the tap was too slow.
    pub lost: u64,
}

impl Options {
    /// Opens a tap. Only the name and the directory count.
    ///
    /// # Errors
    /// `NotFound`, or what is wrong with the file.
    pub fn tap(&self, direction: Direction) -> Result<Tap> {
        segment::check_name(&self.name)?;
        let Some(segment) = segment::attach_for(self, false)? else {
            return Err(Error::NotFound { path: self.path().display().to_string() });
        };
        let cursor = Cursor::at_newest(segment.ring(direction))?;
        Ok(Tap { cursor, segment, direction, options: self.clone(), lost: 0 })
    }
}

impl Tap {
    /// Listens to a direction of the bus `name`, from the next message on.
    ///
    /// # Errors
    /// As for [`Options::tap`].
    pub fn open(name: &str, direction: Direction) -> Result<Tap> {
        Options::new(name).tap(direction)
    }

    /// Goes back to the oldest message that is still in the ring, read or not.
    pub fn from_oldest(&mut self) {
        self.cursor = Cursor::at_oldest(self.segment.ring(self.direction));
    }

    /// The name of the bus.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The direction that it listens to.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The shape of the direction.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.segment.geometry(self.direction)
    }

    /// Messages missed so far because this tap was too slow.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Copies the next message, or says `Empty`.
    ///
    /// # Errors
    /// `Empty`; `BufferTooSmall`, and the next call gives the same message if it is still there;
    /// `Corrupt`; `Forked`.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<TapMessage> {
        if !self.segment.is_home() {
            return Err(Error::Forked);
        }
        let before = self.cursor.lost();
        let copied = self.cursor.try_copy(buffer);
        let lost = self.cursor.lost().wrapping_sub(before);
        self.lost = self.lost.wrapping_add(lost);
        match copied? {
            Some(copied) => Ok(TapMessage { id: copied.id, len: copied.len, lost }),
            None => self.follow(),
        }
    }

    /// Copies the next message; waits for it for at most `timeout`.
    ///
    /// # Errors
    /// As for [`Tap::try_read`], with `Timeout` for `Empty`.
    pub fn read_timeout(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<TapMessage> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match self.try_read(buffer) {
                Err(Error::Empty) => {}
                done => return done,
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Error::Timeout);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Nothing came: goes to the segment that replaced this one, if one did.
    fn follow(&mut self) -> Result<TapMessage> {
        // Acquire: behind the successor's token lies a whole segment.
        if self.segment.header().fate.successor.load(Ordering::Acquire) != 0
            && let Ok(Some(next)) = segment::attach_for(&self.options, false)
            && next.id != self.segment.id
        {
            let ring = next.ring(self.direction);
            self.cursor = if next.lineage == self.segment.lineage {
                Cursor::at(ring, self.cursor.place())
            } else {
                Cursor::at_oldest(ring)
            };
            self.segment = next;
        }
        Err(Error::Empty)
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap")
            .field("name", &self.options.name)
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}
