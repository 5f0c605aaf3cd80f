//! The writing end: `try_write`, or `claim` and then `commit` or `abort`.
//!
//! ```text
//! write(message):
//!     if head + frames + 1 > limit:  make room        -- rare, and the only look at the consumer;
//!                                                        stores the place, for a successor
//!     copy the message behind the frame's header
//!     if payload of an earlier lap can lie ahead:  clear the next frame's commit word
//!     release-store the commit word, with the length in it            -- the message exists
//! ```
//!
//! A kill between any two machine instructions leaves a prefix of this. Before the commit word
//! nothing happened; after it the message is there, and a successor walks on over it.
//!
//! Ghosts: payload of a message of several frames lies where later headers will stand, and could
//! read as a commit word. `dirty_until` is the position up to which that is possible: one lap from
//! the end of the last long *claim* (not commit: an aborted claim may have been filled in). A
//! producer that resumes does not know what its predecessor claimed, and assumes the worst for one
//! lap. A skip leaves frames unwritten for a lap, but only ever comes with a long claim.

use std::sync::atomic::Ordering;

use super::{EPOCH, NEVER, Place, Ring, SKIP};
use crate::config::MessageId;
use crate::error::{Error, Result};
use crate::sync::{FIRST_LINE, Frame, fence};

/// The writing end of a ring; at most one exists, which the role's lock guarantees.
pub(crate) struct Producer {
    ring: Ring,
    head: u64,
    /// Frames below may be written: they are free, and reserved (I3, I6).
    limit: u64,
    /// The consumer's position when it was last looked at.
    space_seen: u64,
    dirty_until: u64,
    /// The number of the next message.
    number: u64,
    bytes: u64,
    epoch: u64,
    /// The epoch that was announced last.
    announced: u64,
    /// The number from which on messages are of that epoch, and the epoch of the message before.
    announced_from: u64,
    epoch_before: u64,
    /// The eighth that was marked last; the complement of the head's, if that must be marked.
    marked: u64,
    eighth_shift: u32,
    inline_len: usize,
}

impl Producer {
    /// Goes on where the last producer stopped, as an owner of the given epoch.
    pub(crate) fn resume(ring: Ring, epoch: u64) -> Result<Self> {
        let head = ring.find_head(None)?;
        let tail = ring.find_tail();
        ring.check_distance(tail.pos, head.pos)?;
        ring.store_place(head);
        let eighth = head.pos >> ring.eighth().trailing_zeros();
        // What a predecessor remembered there stays (I9).
        let is_marked = ring.whole_mark(head.pos).is_some();
        Ok(Producer {
            ring,
            head: head.pos,
            // Nothing is reserved yet, so that the first write makes room, and says who writes.
            limit: head.pos,
            space_seen: tail.pos,
            dirty_until: head.pos.wrapping_add(ring.capacity),
            number: head.number,
            bytes: head.bytes,
            epoch,
            announced: head.epoch,
            // As if the announcement were the last thing that happened.
            announced_from: head.number,
            epoch_before: head.last_epoch,
            marked: if is_marked { eighth } else { !eighth },
            eighth_shift: ring.eighth().trailing_zeros(),
            inline_len: ring.inline_len(),
        })
    }

    /// The ring, for its bells and figures.
    #[inline(always)]
    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The position of the next frame.
    #[inline(always)]
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// The number of the next message.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Messages that the reader has not read yet.
    pub(crate) fn backlog(&self) -> u64 {
        // Relaxed: a figure.
        let read = self.ring.lines().consumer.number.load(Ordering::Relaxed);
        let waiting = self.number.wrapping_sub(read);
        if waiting > u64::MAX / 2 { 0 } else { waiting }
    }

    /// Notes for people how full the ring is: there is no room in it.
    pub(crate) fn note_full(&self) {
        self.ring.note_high_water(self.head);
    }

    /// The last message committed in this direction, by this producer or an earlier one.
    pub(crate) fn last_committed(&self) -> Option<MessageId> {
        let number = self.number.checked_sub(1)?;
        Some(MessageId { epoch: self.last_epoch(), number })
    }

    fn last_epoch(&self) -> u64 {
        if self.number == self.announced_from { self.epoch_before } else { self.announced }
    }

    /// Tells whoever looks where this producer stands.
    pub(crate) fn store_place(&self) {
        self.ring.store_place(Place {
            pos: self.head,
            number: self.number,
            epoch: self.announced,
            last_epoch: self.last_epoch(),
            bytes: self.bytes,
        });
    }

    /// Writes a message that fits the first line of a frame and for which there is room, without a
    /// call to anything. Only in a ring that is not overwritten.
    #[inline(always)]
    pub(crate) fn write_short(&mut self, message: &[u8]) -> bool {
        debug_assert!(!self.ring.overwrite);
        let is_clean = !self.is_dirty(self.head.wrapping_add(1));
        if message.len() > FIRST_LINE.min(self.inline_len) || !self.has_room(1) || !is_clean {
            return false;
        }
        let all = self.ring.frames;
        let frame = all.at(self.head);
        // SAFETY: the frame at the head is free and reserved, and has a first line; nobody reads it
        // (I3).
        unsafe { frame.copy_in(message) };
        self.commit_in(frame, message.len() as u32, 1);
        self.count(message.len());
        true
    }

    /// Writes a message for which there is room. False if there is more to do before; nothing was
    /// written then.
    #[inline(always)]
    pub(crate) fn write_now(&mut self, message: &[u8]) -> bool {
        let frames = self.ready_frames(message.len());
        if frames == 0 {
            return false;
        }
        let all = self.ring.frames;
        let frame = all.at(self.head);
        // SAFETY: the frames from the head on are free, reserved and long enough; nobody reads them
        // (I3).
        unsafe { frame.copy_in(message) };
        self.finish_in(frame, frames, message.len());
        true
    }

    /// The frames for a message of `len` bytes, if they are ready to be written; else none.
    #[inline(always)]
    fn ready_frames(&mut self, len: usize) -> u64 {
        if self.ring.overwrite {
            return 0;
        }
        // One frame, which is reserved, with one behind it: nothing else is to be done.
        if len <= self.inline_len && self.has_room(1) {
            return 1;
        }
        self.ready_frames_of_long(len)
    }

    #[inline(never)]
    fn ready_frames_of_long(&mut self, len: usize) -> u64 {
        if len > self.ring.max_len || self.announced != self.epoch {
            return 0;
        }
        let frames = self.ring.frames_for(len);
        if frames > self.ring.until_end(self.head) || !self.has_room(frames) {
            return 0;
        }
        self.begin(frames);
        frames
    }

    /// Writes one message, or says [`Error::Full`] and has written nothing.
    #[inline(always)]
    pub(crate) fn try_write(&mut self, message: &[u8]) -> Result<()> {
        let frames = self.put(message)?;
        self.finish(frames, message.len());
        Ok(())
    }

    /// Writes as many of the messages as there is room for, and says how many.
    pub(crate) fn write_many<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<usize> {
        for (count, message) in messages.iter().enumerate() {
            let message = message.as_ref();
            if self.write_now(message) {
                continue;
            }
            match self.put(message) {
                Ok(frames) => self.finish(frames, message.len()),
                Err(_) if count > 0 => return Ok(count),
                Err(error) => return Err(error),
            }
        }
        Ok(messages.len())
    }

    /// The place of a message for which there is room.
    #[inline(always)]
    pub(crate) fn claim_now(&mut self, len: usize) -> Option<*mut u8> {
        (self.ready_frames(len) > 0).then(|| self.ring.frames.at(self.head).payload())
    }

    /// Makes room for a message of `len` bytes and gives its place in the ring. Until
    /// [`Producer::commit`], nothing has happened; claiming again or writing aborts it.
    #[inline(always)]
    pub(crate) fn claim(&mut self, len: usize) -> Result<*mut u8> {
        if len > self.inline_len || !self.has_room(1) {
            self.make_ready(len)?;
        }
        Ok(self.ring.frames.at(self.head).payload())
    }

    /// Commits the first `len` bytes of what was claimed last.
    ///
    /// # Safety
    /// The last call must have been a claim of at least `len` bytes.
    #[inline(always)]
    pub(crate) unsafe fn commit(&mut self, len: usize) {
        let frames = if len <= self.inline_len { 1 } else { self.ring.frames_for(len) };
        self.finish(frames, len);
    }

    /// Whether readers may race, so that nothing can be written in place.
    pub(crate) fn is_racing(&self) -> bool {
        self.ring.overwrite
    }

    /// Whether it is worth trying to write a message of `len` bytes again. `is_exact` looks at the
    /// consumer's own line too, which slows the consumer down if it is done all the time.
    pub(crate) fn may_have_room(&mut self, len: usize, is_exact: bool) -> bool {
        let frames = self.ring.frames_for(len.min(self.ring.max_len));
        let until_end = self.ring.until_end(self.head);
        let skipped = if frames > until_end { until_end } else { 0 };
        // The announcement goes first, on its own: with the message it could be more than a ring.
        let needed = if self.announced == self.epoch { frames + skipped } else { 1 };
        // An error is worth it too: the try reports it.
        !matches!(self.free_until(needed, is_exact), Err(Error::Full))
    }

    /// Copies the message into the free frames at the head, and says how many it takes.
    #[inline(always)]
    fn put(&mut self, message: &[u8]) -> Result<u64> {
        // One frame, which is reserved, with one behind it: nothing else is to be done.
        let frames = if message.len() <= self.inline_len && self.has_room(1) {
            1
        } else {
            self.make_ready(message.len())?
        };
        if self.ring.overwrite {
            self.mark();
            // SAFETY: the frames from the head on are free, reserved and long enough.
            unsafe { self.ring.frames.at(self.head).race_in(message) };
        } else {
            // SAFETY: as above, and in a ring that is not overwritten nobody reads them (I3).
            unsafe { self.ring.frames.at(self.head).copy_in(message) };
        }
        Ok(frames)
    }

    /// Commits a message that lies in the frames at the head.
    #[inline(always)]
    fn finish(&mut self, frames: u64, len: usize) {
        let all = self.ring.frames;
        self.finish_in(all.at(self.head), frames, len);
    }

    /// The same, when the frame at the head is known.
    #[inline(always)]
    fn finish_in(&mut self, frame: Frame<'_>, frames: u64, len: usize) {
        self.publish_in(frame, len as u32, frames);
        self.count(len);
    }

    /// Counts a message that was committed.
    #[inline(always)]
    fn count(&mut self, len: usize) {
        self.number = self.number.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(len as u64);
    }

    /// Release-stores the commit word of the frame at the head, and moves on.
    fn publish(&mut self, len: u32, frames: u64) {
        let all = self.ring.frames;
        self.publish_in(all.at(self.head), len, frames);
    }

    /// The same, when the frame at the head is known.
    #[inline(always)]
    fn publish_in(&mut self, frame: Frame<'_>, len: u32, frames: u64) {
        let next = self.head.wrapping_add(frames);
        if self.is_dirty(next) {
            self.clear(next, frames);
        }
        self.commit_in(frame, len, frames);
    }

    /// Clears what could be taken for a commit word at `next`, behind a message of so many frames (I1).
    #[inline(always)]
    fn clear(&self, next: u64, frames: u64) {
        let ghost = self.ring.frames.at(next).commit();
        // Behind a single frame it is looked at first: taking the line from a reader that has just
        // passed it would delay the commit. Behind a long message looking would take as long.
        // Relaxed: nobody else writes there, the release of the commit keeps the store before it, and
        // whoever looks at that frame has seen the commit first.
        if frames > 1 || self.ring.committed(next, ghost.load(Ordering::Relaxed)).is_some() {
            ghost.store(NEVER, Ordering::Relaxed);
        }
    }

    /// Whether payload of an earlier lap can lie where the header of this position will stand.
    #[inline(always)]
    fn is_dirty(&self, pos: u64) -> bool {
        is_before(pos, self.dirty_until)
    }

    /// The same, where nothing is to be cleared.
    #[inline(always)]
    fn commit_in(&mut self, frame: Frame<'_>, len: u32, frames: u64) {
        let word = self.ring.stamp(self.head) | u64::from(len);
        // pairs PUBLISH: the message is whole before its commit word says so (I2).
        frame.commit().store(word, Ordering::Release);
        self.head = self.head.wrapping_add(frames);
    }

    #[inline(always)]
    fn has_room(&self, frames: u64) -> bool {
        // One frame behind the message stays free, so that there is one to clear (I1).
        self.limit.wrapping_sub(self.head) > frames
    }

    /// Makes the frames for a message of `len` bytes writable: announces a new epoch, skips to the
    /// start of the ring if the message would run over its end, and reserves.
    #[cold]
    #[inline(never)]
    fn make_ready(&mut self, len: usize) -> Result<u64> {
        if len > self.ring.max_len {
            return Err(Error::TooLong { len, max: self.ring.max_len });
        }
        if self.announced != self.epoch {
            self.reserve(1)?;
            self.announce();
        }
        let frames = self.ring.frames_for(len);
        let until_end = self.ring.until_end(self.head);
        let skipped = if frames > until_end { until_end } else { 0 };
        self.reserve(skipped + frames)?;
        if skipped > 0 {
            self.publish(SKIP, skipped);
        }
        self.begin(frames);
        Ok(frames)
    }

    /// Takes note of a message that will be written into these frames, which are reserved.
    #[inline(always)]
    fn begin(&mut self, frames: u64) {
        if frames > 1 {
            let end = self.head.wrapping_add(frames);
            self.dirty_until = end.wrapping_add(self.ring.capacity);
        }
        // Behind a skip, or where nothing is left of what was marked before.
        self.mark();
    }

    /// Tells the reader that the messages from here on have another author.
    fn announce(&mut self) {
        // SAFETY: one frame is reserved and has room for a word.
        unsafe { self.ring.frames.at(self.head).race_in(&self.epoch.to_le_bytes()) };
        self.publish(EPOCH, 1);
        self.epoch_before = self.last_epoch();
        (self.announced, self.announced_from) = (self.epoch, self.number);
    }

    /// Raises the limit so that `frames` and one more fit, or says that the ring is full. So is one
    /// that is overwritten, when it is sealed: its writer uses up what it had reserved before, and no
    /// more (I6). It looks twice. What it finds unsealed here, the sealer's scan finds written up to
    /// here; so the cut lies no further back than the reservation that follows is long.
    fn reserve(&mut self, frames: u64) -> Result<()> {
        if self.has_room(frames) {
            return Ok(());
        }
        self.check_seal()?;
        let end = self.free_until(frames, true)?;
        let eighth = self.ring.eighth();
        let needed = self.head.wrapping_add(frames + 1);
        let rounded = needed.wrapping_add(eighth - 1) & !(eighth - 1);
        let limit = if is_before(end, rounded) { end } else { rounded };
        let had = std::mem::replace(&mut self.limit, limit);
        // The stored place lags. It must never lag behind what is written again: from there a
        // successor could not walk (I4). The fence keeps this before any such write.
        self.store_place();
        // A predecessor may have written further than this, in a message that it never committed.
        let line = &self.ring.lines().reserve;
        // Relaxed: only producers store it, and the lock lies between two of them.
        let before = line.reserve.load(Ordering::Relaxed);
        let stays = before.wrapping_sub(self.head) <= self.ring.capacity;
        let reserve = if stays && is_before(self.limit, before) { before } else { self.limit };
        // pairs PLACE: whoever sees the reservation finds the place too.
        line.reserve.store(reserve, Ordering::Release);
        // pairs RESERVE: whoever reads a word written from here on sees the reservation.
        fence(Ordering::Release);
        // What is found unsealed here, the sealer's scan finds reserved; else nothing is written.
        self.check_seal().inspect_err(|_| self.limit = had)?;
        // Relaxed: only producers store it. A long claim overwrites the mark of its own eighth too,
        // and then there must be another one.
        let mark = self.ring.mark(self.head).pos.load(Ordering::Relaxed);
        if reserve.wrapping_sub(mark) > self.ring.capacity {
            self.marked = !(self.head >> self.eighth_shift);
        }
        self.mark();
        Ok(())
    }

    /// Whether more may be overwritten.
    fn check_seal(&self) -> Result<()> {
        // pairs SEAL: the glance's barrier keeps the look at the bell behind what was stored.
        if self.ring.overwrite && self.ring.data_bell().is_sealed() {
            return Err(Error::Full);
        }
        Ok(())
    }

    /// Up to where frames are free, if `frames` and one more are.
    fn free_until(&mut self, frames: u64, is_exact: bool) -> Result<u64> {
        let capacity = self.ring.capacity;
        if self.ring.overwrite {
            return Ok(self.head.wrapping_add(capacity));
        }
        let fits = |seen: u64| seen.wrapping_add(capacity).wrapping_sub(self.head) > frames;
        if !fits(self.space_seen) {
            // pairs RECLAIM: the consumer's reads are done before these frames are written.
            let space = self.ring.lines().space.space.load(Ordering::Acquire);
            self.space_seen = self.checked_tail(space)?;
        }
        if is_exact && !fits(self.space_seen) {
            // Published space lags by up to an eighth; before a refusal the exact tail counts. It
            // is believed only if the segment is not sealed after it was loaded: a tail that the
            // sealer has not seen is behind the cut (I7).
            // pairs RECLAIM: as above.
            let tail = self.ring.lines().consumer.tail.load(Ordering::Acquire);
            // pairs SEAL: the glance's barrier keeps the look at the bell behind the tail.
            if !self.ring.data_bell().is_sealed() {
                self.space_seen = self.checked_tail(tail)?;
            }
        }
        if !fits(self.space_seen) {
            return Err(Error::Full);
        }
        Ok(self.space_seen.wrapping_add(capacity))
    }

    /// A position of the consumer, if it can be one: between the last one seen and the head.
    fn checked_tail(&self, tail: u64) -> Result<u64> {
        let read = tail.wrapping_sub(self.space_seen);
        if read <= self.head.wrapping_sub(self.space_seen) {
            return Ok(tail);
        }
        // The published space may lag behind the exact tail seen before: by an eighth, and by what
        // was read in one go since. Less than two laps, then; the rest is for whatever else there
        // may be, since what lies behind does no harm.
        if self.space_seen.wrapping_sub(tail) <= self.ring.capacity.saturating_mul(4) {
            return Ok(self.space_seen);
        }
        Err(Error::Corrupt { what: "the reader's position is not inside the ring" })
    }

    /// Remembers the head as a boundary, once per eighth. The mark that it replaces is a lap older,
    /// and must not count any more before it is touched: all of its eighth must be reserved.
    #[inline(always)]
    fn mark(&mut self) {
        let eighth = self.head >> self.eighth_shift;
        let end = eighth.wrapping_add(1) << self.eighth_shift;
        if eighth != self.marked && !is_before(self.limit, end) {
            self.marked = eighth;
            self.ring.store_mark(Place {
                pos: self.head,
                number: self.number,
                epoch: self.announced,
                ..Place::default()
            });
        }
    }
}

/// Whether `a` lies before `b`, on a circle of positions.
#[inline(always)]
pub(super) fn is_before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}
