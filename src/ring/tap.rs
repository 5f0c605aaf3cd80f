//! Reading without being the consumer: copy first, then ask whether the copy is whole.
//!
//! ```text
//! frame, word by word  ->  acquire fence  ->  reserve:  at most position + capacity?  whole
//!                                                     more?  a lap behind: discard, and jump
//! ```
//!
//! The commit word alone proves nothing here: a longer, newer message puts payload over it. The
//! producer raises `reserve` before it writes a frame (RESERVE), so a copy that caught any of the
//! new bytes sees the new reservation too. After a lap the cursor goes on at the oldest boundary
//! that is remembered (one per eighth of the ring), and the numbers tell exactly how many messages
//! were lost.
//!
//! A cursor never stores into the segment. The reader of an overwritten direction is a cursor too;
//! it stores its own position afterwards.

use super::{Kind, Place, Ring};
use crate::config::MessageId;
use crate::error::{Error, Result};
use crate::sync::Ordering;

/// Frames looked at in one call, so that a call ends whatever the peer writes.
const BUDGET: usize = 64;

/// A reading position that nobody waits for. A copy of it is a place to come back to, with all that was
/// counted until there: for whoever asks about the seal after it has read.
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    ring: Ring,
    place: Place,
    lost: u64,
    /// False until a boundary was found to begin at.
    is_placed: bool,
}

/// A message that was copied whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copied {
    pub len: usize,
    pub id: MessageId,
}

impl Cursor {
    /// A cursor at a known place.
    pub(crate) fn at(ring: Ring, place: Place) -> Self {
        Cursor { ring, place, lost: 0, is_placed: true }
    }

    /// A cursor at the oldest message that is still in the ring.
    pub(crate) fn at_oldest(ring: Ring) -> Self {
        // Relaxed: only chooses a mark; the marks are checked after they are read.
        let reserve = ring.lines().reserve.reserve.load(Ordering::Relaxed);
        // Without a mark it begins where everything is overwritten, and looks for one each time.
        let nowhere = reserve.wrapping_sub(ring.capacity).wrapping_sub(1);
        let mark = ring.oldest_mark(reserve);
        let place = mark.unwrap_or(Place { pos: nowhere, ..Place::default() });
        Cursor { ring, place, lost: 0, is_placed: mark.is_some() }
    }

    /// A cursor behind the newest message.
    pub(crate) fn at_newest(ring: Ring) -> Result<Self> {
        let mut cursor = Cursor::at_oldest(ring);
        if let Some(mark) = ring.newest_mark() {
            (cursor.place, cursor.is_placed) = (mark, true);
        }
        // One lap at most; the frames that come meanwhile are news.
        for _ in 0..ring.capacity {
            match cursor.find()? {
                Some((_, frames)) => cursor.pass(frames),
                None => break,
            }
        }
        cursor.lost = 0;
        Ok(cursor)
    }

    /// Where the cursor stands.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Messages passed over because they were overwritten.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Length and frames of the message at the cursor, if it is there.
    pub(crate) fn find(&mut self) -> Result<Option<(usize, u64)>> {
        for _ in 0..BUDGET {
            // pairs PUBLISH: the message is whole if its commit word says so and no lap happened.
            let word = self.ring.frames.at(self.place.pos).commit().load(Ordering::Acquire);
            let announced = self.ring.announced(self.place.pos);
            if self.is_lapped() {
                if !self.jump() {
                    return Ok(None);
                }
                continue;
            }
            let Some(len) = self.ring.committed(self.place.pos, word) else { return Ok(None) };
            let (kind, frames) = self.ring.examine(self.place.pos, len)?;
            match kind {
                Kind::Message { len } => return Ok(Some((len, frames))),
                Kind::Epoch => self.place.epoch = announced,
                Kind::Skip => {}
            }
            self.place.pos = self.place.pos.wrapping_add(frames);
        }
        Ok(None)
    }

    /// Copies the message at the cursor, and moves on.
    pub(crate) fn try_copy(&mut self, buffer: &mut [u8]) -> Result<Option<Copied>> {
        for _ in 0..BUDGET {
            let Some((len, frames)) = self.find()? else { return Ok(None) };
            let room = buffer.len();
            let Some(out) = buffer.get_mut(..len) else {
                return Err(Error::BufferTooSmall { len, buffer: room });
            };
            // SAFETY: the length was checked against the ring, and word by word it may race.
            unsafe { self.ring.frames.at(self.place.pos).race_out(out) };
            if self.is_lapped() {
                continue;
            }
            let id = MessageId { epoch: self.place.epoch, number: self.place.number };
            self.pass(frames);
            return Ok(Some(Copied { len, id }));
        }
        Ok(None)
    }

    /// Moves over a message.
    pub(crate) fn pass(&mut self, frames: u64) {
        self.place.pos = self.place.pos.wrapping_add(frames);
        self.place.number = self.place.number.wrapping_add(1);
        self.place.last_epoch = self.place.epoch;
    }

    /// Whether the frames at the cursor may have been written again since they were read (I6).
    fn is_lapped(&self) -> bool {
        !self.ring.is_whole(self.place.pos)
    }

    /// Goes to the oldest boundary that is left.
    fn jump(&mut self) -> bool {
        // Relaxed: as in `at_oldest`.
        let reserve = self.ring.lines().reserve.reserve.load(Ordering::Relaxed);
        let Some(mark) = self.ring.oldest_mark(reserve) else { return false };
        let missed = mark.number.wrapping_sub(self.place.number);
        // A reader that was killed between the stores of its place, behind a jump, left the number of
        // the message after: what it lost is counted already.
        if self.is_placed && (missed as i64) > 0 {
            self.lost = self.lost.wrapping_add(missed);
        }
        (self.place, self.is_placed) = (mark, true);
        true
    }
}
