//! The reading end: `find`, then copy or look at the message in place, then `consume`.
//!
//! ```text
//! find:      acquire-load the commit word of the frame at tail; is it of this lap?
//!            check the length in it                             -- control frames are digested here
//! consume:   store number, release-store tail                  -- the one point of consumption
//! settle:    after a look at the bell, publish the space every eighth of the ring
//! ```
//!
//! Killed before `consume`, the message is read again by the successor; killed after it, it is not.
//! In a direction that is overwritten the reader races the writer by design, and reads as a tap
//! does ([`Cursor`]): copy first, then ask whether the copy is whole.

use std::cell::Cell;

use super::{Cursor, Kind, Place, Ring};
use crate::config::MessageId;
use crate::error::{Error, Result};
use crate::sync::{FIRST_LINE, Frame, Ordering};

/// Control frames digested in one call; a correct writer needs no more, a hostile one gets no
/// endless loop.
const CONTROL_BUDGET: usize = 64;

/// The reading end of a ring; at most one exists, which the role's lock guarantees.
pub(crate) struct Consumer {
    ring: Ring,
    tail: u64,
    /// The number of the message at the tail.
    number: u64,
    epoch: u64,
    /// The position that the producer was told last.
    published: u64,
    eighth: u64,
    inline_len: usize,
    /// Overwritten before they could be read, since this reader began.
    lost: u64,
    /// The epoch of the message before the tail.
    last_epoch: u64,
    /// Length and frames of the last message of more than one frame.
    guess: Cell<(u64, u64)>,
}

/// A message that lies at the tail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub len: usize,
    frames: u64,
}

impl Found {
    /// A message that was copied out of the ring.
    pub(crate) fn copied(len: usize) -> Self {
        Found { len, frames: 0 }
    }
}

impl Consumer {
    /// Goes on where the last consumer stopped.
    pub(crate) fn resume(ring: Ring) -> Result<Self> {
        let tail = ring.find_tail();
        // A head that is being overwritten would run away from this look, and a reader that races
        // is nowhere too far behind.
        if !ring.overwrite {
            ring.check_distance(tail.pos, ring.find_head(None)?.pos)?;
        }
        // A predecessor that was killed between the two stores of its place has counted a message
        // that it did not consume. Whoever looks how much is unread must not believe that.
        // Relaxed: a figure.
        ring.lines().consumer.number.store(tail.number, Ordering::Relaxed);
        Ok(Consumer {
            ring,
            tail: tail.pos,
            number: tail.number,
            epoch: tail.epoch,
            // Unknown, and not to be told here: the segment may be sealed already (I7).
            published: tail.pos.wrapping_sub(ring.capacity),
            eighth: ring.eighth(),
            inline_len: ring.inline_len(),
            lost: 0,
            last_epoch: tail.last_epoch,
            guess: Cell::new((u64::MAX, 0)),
        })
    }

    /// The ring, for its bells and figures.
    #[inline(always)]
    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Whether messages may be overwritten, so that only copies can be trusted.
    pub(crate) fn is_racing(&self) -> bool {
        self.ring.overwrite
    }

    /// Where this reader stands.
    pub(crate) fn place(&self) -> Place {
        Place {
            pos: self.tail,
            number: self.number,
            epoch: self.epoch,
            last_epoch: self.last_epoch,
            bytes: 0,
        }
    }

    /// The message before the tail: the one read last, by this reader or an earlier one.
    pub(crate) fn last_id(&self) -> Option<MessageId> {
        (self.number > 0).then(|| self.before_tail())
    }

    /// The message before the tail, when there was one.
    pub(crate) fn before_tail(&self) -> MessageId {
        MessageId { epoch: self.last_epoch, number: self.number.wrapping_sub(1) }
    }

    /// The position of the message that is next.
    #[inline(always)]
    pub(crate) fn position(&self) -> u64 {
        self.tail
    }

    /// The message that is next.
    pub(crate) fn next_id(&self) -> MessageId {
        MessageId { epoch: self.epoch, number: self.number }
    }

    /// Messages lost by overwriting since this reader began.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether it is worth looking: something was committed at the tail.
    #[inline(always)]
    pub(crate) fn is_committed(&self) -> bool {
        // Relaxed: only a reason to look, `find` acquires.
        let word = self.ring.frames.at(self.tail).commit().load(Ordering::Relaxed);
        self.ring.committed(self.tail, word).is_some() || (self.ring.overwrite && self.is_lapped())
    }

    /// Whether the writer of an overwritten direction went past the tail.
    fn is_lapped(&self) -> bool {
        // Relaxed: only a reason to look; the cursor checks.
        let reserve = self.ring.lines().reserve.reserve.load(Ordering::Relaxed);
        reserve.wrapping_sub(self.tail) > self.ring.capacity
    }

    /// The message at the tail, if it is there and the next one, and no control frame.
    #[inline(always)]
    pub(crate) fn find_now(&self) -> Option<Found> {
        self.find_in(self.ring.frames.at(self.tail))
    }

    /// The same, when the frame at the tail is known.
    #[inline(always)]
    fn find_in(&self, frame: Frame<'_>) -> Option<Found> {
        let len = self.look_in(frame)?;
        let frames = if len <= self.inline_len as u64 { 1 } else { self.frames_of_long(len) };
        (frames > 0).then_some(Found { len: len as usize, frames })
    }

    /// The length of the message at the tail, if it is there; more than any if something else is.
    #[inline(always)]
    fn look_in(&self, frame: Frame<'_>) -> Option<u64> {
        let stamp = self.ring.stamp(self.tail);
        // pairs PUBLISH: the message is whole if its commit word says so (I2). Loaded once (I8).
        let len = frame.commit().load(Ordering::Acquire) ^ stamp;
        (len <= u64::from(u32::MAX)).then_some(len)
    }

    /// The frames of a longer message at the tail; none if there can be no such message. As many as
    /// that of the last one, if it is as long: the next frame's address does not wait for the length
    /// then.
    #[inline(always)]
    fn frames_of_long(&self, len: u64) -> u64 {
        let (guess, frames) = self.guess.get();
        if len == guess && frames <= self.ring.until_end(self.tail) {
            return frames;
        }
        self.frames_of_another(len)
    }

    #[inline(never)]
    fn frames_of_another(&self, len: u64) -> u64 {
        match self.ring.examine(self.tail, len as u32) {
            Ok((Kind::Message { .. }, frames)) => {
                self.guess.set((len, frames));
                frames
            }
            _ => 0,
        }
    }

    /// Copies and consumes the message at the tail, if it can be had now and there is room for it.
    #[inline(always)]
    pub(crate) fn take_now(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let all = self.ring.frames;
        let frame = all.at(self.tail);
        let found = self.find_in(frame)?;
        let out = buffer.get_mut(..found.len)?;
        // SAFETY: the message is committed, its length checked, and it is not released, so its
        // writer leaves it alone (I3).
        unsafe { frame.copy_out(out) };
        self.consume(found);
        Some(found.len)
    }

    /// The same for a message that fits the first line of a frame, without a call to anything.
    #[inline(always)]
    pub(crate) fn take_short(&mut self, buffer: &mut [u8]) -> Option<usize> {
        debug_assert!(!self.ring.overwrite);
        let all = self.ring.frames;
        let frame = all.at(self.tail);
        let len = self.look_in(frame)?;
        if len > FIRST_LINE.min(self.inline_len).min(buffer.len()) as u64 {
            return None;
        }
        let len = len as usize;
        // SAFETY: as in `take_now`; every frame has a first line.
        unsafe { frame.copy_out(&mut buffer[..len]) };
        self.consume(Found { len, frames: 1 });
        Some(len)
    }

    /// The message at the tail, if it is there.
    #[inline(always)]
    pub(crate) fn find(&mut self) -> Result<Option<Found>> {
        self.find_now().map_or_else(|| self.find_other(false), |found| Ok(Some(found)))
    }

    /// The message at the tail when messages before it were passed and not yet told of. Nothing is
    /// stored, so a kill gives all of them to the successor; therefore a new epoch, which must be
    /// stored with its frame, ends what can be read in one go.
    #[inline(always)]
    pub(crate) fn find_more(&mut self) -> Result<Option<Found>> {
        self.find_now().map_or_else(|| self.find_other(true), |found| Ok(Some(found)))
    }

    /// Nothing, a control frame and what is behind it, or nonsense.
    #[cold]
    #[inline(never)]
    fn find_other(&mut self, has_untold: bool) -> Result<Option<Found>> {
        for _ in 0..CONTROL_BUDGET {
            let frame = self.ring.frames.at(self.tail);
            // pairs PUBLISH: as in `look_in`.
            let word = frame.commit().load(Ordering::Acquire);
            let Some(len) = self.ring.committed(self.tail, word) else { return Ok(None) };
            let (kind, frames) = self.ring.examine(self.tail, len)?;
            match kind {
                Kind::Message { len } => return Ok(Some(Found { len, frames })),
                Kind::Epoch if has_untold => return Ok(None),
                Kind::Epoch => self.enter_epoch(self.ring.announced(self.tail))?,
                Kind::Skip => {}
            }
            self.tail = self.tail.wrapping_add(frames);
            if !has_untold {
                self.store_place();
            }
        }
        Ok(None)
    }

    fn enter_epoch(&mut self, epoch: u64) -> Result<()> {
        // The same one again: a predecessor was killed between this store and that of the tail.
        if epoch < self.epoch {
            return Err(Error::Corrupt { what: "an epoch that goes back" });
        }
        self.epoch = epoch;
        // Stored before the tail moves over its frame; killed between, it is digested again.
        self.store_epoch();
        Ok(())
    }

    /// Tells a successor the epochs of the messages on both sides of this place.
    fn store_epoch(&self) {
        let line = &self.ring.lines().consumer;
        // Relaxed, all three: the release of the tail carries them. In this order they tell the truth
        // after each.
        line.epoch_before.store(self.last_epoch, Ordering::Relaxed);
        line.epoch_from.store(self.number, Ordering::Relaxed);
        line.epoch.store(self.epoch, Ordering::Relaxed);
    }

    /// Where the message at the tail lies.
    #[inline(always)]
    pub(crate) fn payload(&self) -> *const u8 {
        self.ring.frames.at(self.tail).payload()
    }

    /// Copies the message that was found at the tail.
    #[inline(always)]
    pub(crate) fn copy(&self, found: Found, buffer: &mut [u8]) -> Result<()> {
        let Some(out) = buffer.get_mut(..found.len) else {
            return Err(Error::BufferTooSmall { len: found.len, buffer: buffer.len() });
        };
        // SAFETY: the message was found committed, its length checked, and it is not released, so
        // its writer leaves it alone (I3).
        unsafe { self.ring.frames.at(self.tail).copy_out(out) };
        Ok(())
    }

    /// Consumes the message that was found at the tail.
    #[inline(always)]
    pub(crate) fn consume(&mut self, found: Found) {
        self.pass(found);
        self.store_place();
    }

    /// Moves over a message without telling anybody yet.
    #[inline(always)]
    pub(crate) fn pass(&mut self, found: Found) {
        self.last_epoch = self.epoch;
        self.tail = self.tail.wrapping_add(found.frames);
        self.number = self.number.wrapping_add(1);
    }

    /// Tells the producer and a successor how far this reader has read (I5).
    #[inline(always)]
    pub(crate) fn store_place(&self) {
        let line = &self.ring.lines().consumer;
        // pairs PLACE: the number comes first, and behind the commits that it counts.
        line.number.store(self.number, Ordering::Release);
        // pairs RECLAIM, PLACE: the copy is done before the frames can be written again.
        line.tail.store(self.tail, Ordering::Release);
    }

    /// Tells the producer of the space if much has been read since. Only after a look at the bell
    /// that found the segment unsealed (I7).
    #[inline(always)]
    pub(crate) fn settle(&mut self) {
        if self.tail.wrapping_sub(self.published) >= self.eighth {
            self.publish_all();
        }
    }

    /// Tells the producer of all the space. Same condition.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        if self.published != self.tail {
            self.publish_all();
        }
    }

    #[inline(always)]
    fn publish_all(&mut self) {
        self.published = self.tail;
        // pairs RECLAIM: the copies are done before the frames can be written again.
        self.ring.lines().space.space.store(self.tail, Ordering::Release);
    }

    /// How far this reader came, and what it lost on the way.
    pub(crate) fn tally(&self) -> (u64, u64) {
        (self.number, self.lost)
    }

    /// Counts anew what was lost since, when what was found was taken back and nothing handed out: only
    /// what this reader passed over, which a jump to behind a cut has counted too high.
    pub(crate) fn recount(&mut self, (number, lost): (u64, u64)) {
        let passed = self.number.wrapping_sub(number);
        let lost = lost.wrapping_add(if passed > u64::MAX / 2 { 0 } else { passed });
        let excess = self.lost.wrapping_sub(lost);
        if excess > 0 {
            self.lost = lost;
            let total = &self.ring.lines().consumer.lost;
            // Relaxed: as in `follow`.
            total.store(total.load(Ordering::Relaxed).wrapping_sub(excess), Ordering::Relaxed);
        }
    }

    /// Stands somewhere else: takes back what was passed and not told of, or read from behind a cut.
    pub(crate) fn rewind(&mut self, place: Place) {
        (self.tail, self.number, self.epoch) = (place.pos, place.number, place.epoch);
        self.last_epoch = place.last_epoch;
    }

    /// Stands where a reader of the same epoch stood on the segment that this one replaces. The space
    /// is not published before the caller has looked at the bell here too (I7).
    pub(crate) fn carry_on(&mut self, from: &Consumer) {
        self.rewind(from.place());
        self.lost = from.lost;
        let (line, old) = (&self.ring.lines().consumer, &from.ring.lines().consumer);
        self.store_epoch();
        // Relaxed: this reader alone counts, here and there.
        line.lost.store(old.lost.load(Ordering::Relaxed), Ordering::Relaxed);
        self.store_place();
    }

    /// Copies the next message while it may be overwritten, and consumes it.
    pub(crate) fn race(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let mut cursor = Cursor::at(self.ring, self.place());
        let copied = cursor.try_copy(buffer);
        self.follow(&cursor);
        Ok(copied?.map(|copied| copied.len))
    }

    /// The length of the next message while it may be overwritten.
    pub(crate) fn race_len(&mut self) -> Result<Option<usize>> {
        let mut cursor = Cursor::at(self.ring, self.place());
        let found = cursor.find();
        self.follow(&cursor);
        Ok(found?.map(|(len, _)| len))
    }

    /// Stands where the cursor went: over what it copied, and over what was lost.
    fn follow(&mut self, cursor: &Cursor) {
        let (place, lost) = (cursor.place(), cursor.lost());
        if place == self.place() {
            return;
        }
        self.rewind(place);
        self.store_epoch();
        let line = &self.ring.lines().consumer;
        // Relaxed: this side is the only writer, the release of the tail carries it.
        if lost > 0 {
            self.lost = self.lost.wrapping_add(lost);
            let total = line.lost.load(Ordering::Relaxed).wrapping_add(lost);
            line.lost.store(total, Ordering::Relaxed);
        }
        self.store_place();
    }

    /// Goes to the newest message, and says how many were passed over. Looks ahead without storing
    /// anything: behind the newest message may lie control frames, and a tail once stored behind
    /// them would give the message away. Goes nowhere once the segment is sealed, and says `None`: the
    /// newest message may lie behind the cut, and the newest before it must not be passed over for that
    /// one.
    pub(crate) fn skip_to_latest(&mut self) -> Result<Option<u64>> {
        let start = self.number;
        let mut cursor = Cursor::at(self.ring, self.place());
        let mut newest = None;
        // One lap at most: whoever writes as fast as this looks cannot hold it here.
        for _ in 0..self.ring.capacity {
            let Some((_, frames)) = cursor.find()? else { break };
            newest = Some(cursor);
            cursor.pass(frames);
        }
        // pairs SEAL: what was found before lies before the cut, if this finds no seal.
        if self.ring.room_bell().is_sealed() {
            return Ok(None);
        }
        match newest {
            Some(newest) => self.follow(&newest),
            // Everything was overwritten, and by nothing that is whole yet: that much is known.
            None if self.ring.overwrite => self.follow(&cursor),
            None => {}
        }
        Ok(Some(self.number.wrapping_sub(start)))
    }
}
