//! One direction: a lock-free ring of fixed frames, one producer, one consumer, any number of taps.
//!
//! ```text
//!                 tail                        head
//!                  v                           v
//!   | given back   | committed, unread         | free: one of these always stays free |
//!   +----+----+----+----+----+----+----+----+----+----+----+----+----+----+----+----+
//!   |    |    |    | 3  | 4  | 5 (three frames) | 8 |    |    |    |    |    |    |    |
//!   +----+----+----+----+----+----+----+----+----+----+----+----+----+----+----+----+
//!              the commit word of frame 4 holds lap and length once the message is whole
//! ```
//!
//! Positions count frames from the birth of the bus and never come back; a frame lies at its
//! position modulo the capacity. The frame itself is the signal: its commit word holds the lap and the
//! length of the message as soon as that is whole, so a small message crosses between two cores in
//! one cache line and nobody polls an index. Nothing else is stored per message: numbers are counted.
//!
//! # Invariants
//!
//! - **I1** The commit word of the frame at `head` is never of the lap of `head`: whatever lies there,
//!   payload of an earlier lap included, cannot be taken for a message ("ghost"). The word of the
//!   frame after a message is cleared before that message is committed, for one lap after any payload
//!   that could imitate one was written; and one frame stays free, so that there is one to clear. So
//!   a word that nobody looked at is a lap old, no more.
//! - **I2** A message is whole before its commit word says so (PUBLISH).
//! - **I3** The frames in `[tail, head)` belong to the consumer: the producer has read a position
//!   that the consumer stored after its last look (RECLAIM), and stays below it plus the capacity.
//! - **I4** The producer's place is that of its head, or lags behind by one reservation; the frames from
//!   there on tell the rest, and none of them is written again before the place is stored anew.
//!   There are some records of it, and a word says which one counts, so position and number of a place
//!   belong together whenever its writer was killed.
//! - **I5** The stored `tail` is the one point of consumption.
//! - **I6** Before a frame at position `p` is written, `reserve` is above `p` (RESERVE), and it never
//!   goes back, not from one producer to the next either; a copy of
//!   frame `q` made by somebody else than the consumer is whole if afterwards `reserve` is at most
//!   `q` plus the capacity. In a ring that is overwritten nothing is written any more into what is
//!   reserved after the seal, so what a sealer finds whole stays so.
//! - **I7** Space is published only for a tail that was stored before a look at the bell that found
//!   the segment unsealed, so no published space lies behind the cut.
//! - **I8** Every value loaded from the segment is loaded once, checked, and used from a local.
//! - **I9** A mark is replaced only when its frames are reserved again, so that whoever meets the old
//!   position with the new number does not believe it.
//!
//! # Edges
//!
//! | edge | released by | acquired by | carries |
//! |---|---|---|---|
//! | PUBLISH | producer: commit word | consumer, tap, successor: commit word | the message before it |
//! | RECLAIM | consumer: `tail`, `space` | producer: `space`, `tail` | the consumer's reads, before the frames are written again |
//! | RESERVE | producer: `reserve`, then a release fence | racing reader: an acquire fence, then `reserve` | that its copy may be torn |
//! | MARK | producer: a mark's position | tap, lapped reader: the same | the number and epoch there |
//! | PLACE | producer: `stored`, `reserve`; consumer: `tail` | whoever finds its place: the same | the place, and the commit words of the messages before it |
//! | DOORBELL | sleeper: bell, heavy barrier, look again | other side: position, light barrier, bell | that somebody sleeps |
//! | SEAL | sealer: bells, heavy barrier, scan | either side: position, light barrier, bell | that the segment is being replaced |
//!
//! What the ring must never do: know the operating system, allocate, panic over what is in shared
//! memory, or believe a value that it has not checked. Read next: `ring/producer.rs`.

#[cfg(all(any(test, fuzzing), not(loom)))]
mod arena;
mod consumer;
mod doorbell;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) mod fuzzing;
mod grid;
mod producer;
mod tap;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::ptr::NonNull;

pub(crate) use consumer::{Consumer, Found};
pub(crate) use doorbell::{Bell, FENCE, LOOK, SEALED, SLEEP};
pub(crate) use grid::Grid;
use grid::Kind;
pub(crate) use producer::Producer;
pub(crate) use tap::{Copied, Cursor};

use crate::config::Geometry;
use crate::error::{Error, Result};
use crate::layout::{MARKS, Mark, PLACES, ProducerLine, RingLines};
use crate::sync::{Frames, Ordering, fence};

/// In place of a length: the rest of the ring, up to its end, is skipped.
pub(crate) const SKIP: u32 = u32::MAX;
/// In place of a length: the messages from here on are of the epoch in the payload.
pub(crate) const EPOCH: u32 = u32::MAX - 1;

/// A commit word that no message has.
const NEVER: u64 = 0;

/// Walks before a head that runs away is given up; each needs a lap of writing during the walk. (A
/// model checker needs only to look at old values again, and would try all of them.)
const WALKS: usize = if crate::sync::REAL { 8 } else { 3 };

const RUNS_AWAY: Error = Error::Corrupt { what: "a head that is a lap behind what is reserved" };
const TOO_FAR: Error = Error::Corrupt { what: "positions further apart than the ring is long" };

/// One ring as a view over memory that somebody else keeps alive.
#[derive(Clone, Copy)]
pub(crate) struct Ring {
    lines: NonNull<RingLines>,
    frames: Frames,
    grid: Grid,
}

impl Deref for Ring {
    type Target = Grid;

    #[inline(always)]
    fn deref(&self) -> &Grid {
        &self.grid
    }
}

// SAFETY: the view is two addresses; the memory behind them holds atomics, and payload that the
// protocol gives to one side at a time.
unsafe impl Send for Ring {}

/// A position with all that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub pos: u64,
    /// The number of the next message there.
    pub number: u64,
    /// The epoch of that message, as far as the frames before it tell.
    pub epoch: u64,
    /// The epoch of the message before.
    pub last_epoch: u64,
    /// Payload bytes of all messages before; kept for producers only.
    pub bytes: u64,
}

impl Ring {
    /// # Safety
    /// `lines` must point to the cursor page of a ring of this geometry, and `frames` at its
    /// frames; both must stay mapped for as long as the view or a copy of it is used. For a tap a
    /// read-only mapping is enough.
    pub(crate) unsafe fn new(
        lines: NonNull<RingLines>,
        frames: Frames,
        geometry: Geometry,
    ) -> Self {
        Ring { lines, frames, grid: Grid::new(geometry) }
    }

    /// The cursor page.
    #[inline(always)]
    pub(crate) fn lines(&self) -> &RingLines {
        // SAFETY: `new` was promised that the page stays mapped; it holds only atomics.
        unsafe { self.lines.as_ref() }
    }

    /// The mark of the eighth that holds `pos`.
    fn mark(&self, pos: u64) -> &Mark {
        &self.lines().marks[(pos / self.eighth()) as usize % MARKS]
    }

    /// The epoch that the control frame at `pos` announces.
    fn announced(&self, pos: u64) -> u64 {
        let mut bytes = [0; 8];
        // SAFETY: one word of payload is in every frame; it is read as atomics, and the caller
        // believes it only after the checks that its kind of reading needs.
        unsafe { self.frames.at(pos).race_out(&mut bytes) };
        u64::from_le_bytes(bytes)
    }

    /// Where a new ring begins. Only while nobody else can see it, and all its frames are zero.
    pub(crate) fn format(&self, start: Place) {
        // Relaxed throughout: the segment is published with a name, which carries the order.
        let lines = self.lines();
        self.store_place(start);
        self.format_consumer(start);
        lines.space.space.store(start.pos, Ordering::Relaxed);
        lines.reserve.reserve.store(start.pos, Ordering::Relaxed);
        for mark in &lines.marks {
            // Of another eighth, or the start itself: zero would name a position of its own.
            mark.pos.store(start.pos, Ordering::Relaxed);
        }
        self.store_mark(start);
    }

    fn format_consumer(&self, tail: Place) {
        let line = &self.lines().consumer;
        // Relaxed: as in `format`.
        line.tail.store(tail.pos, Ordering::Relaxed);
        line.number.store(tail.number, Ordering::Relaxed);
        line.epoch.store(tail.epoch, Ordering::Relaxed);
        line.epoch_from.store(tail.number, Ordering::Relaxed);
        line.epoch_before.store(tail.last_epoch, Ordering::Relaxed);
    }

    fn store_mark(&self, place: Place) {
        let mark = self.mark(place.pos);
        // Relaxed: the release of the position carries them. The one that they replace is a lap
        // older, and `reserve` shows that it does not count any more.
        mark.number.store(place.number, Ordering::Relaxed);
        mark.epoch.store(place.epoch, Ordering::Relaxed);
        // pairs MARK: whoever sees this position sees its number and epoch, or newer ones.
        mark.pos.store(place.pos, Ordering::Release);
    }

    /// Stores the producer's place: into the record that counted longest ago, which then counts (I4).
    fn store_place(&self, place: Place) {
        let line = &self.lines().producer;
        // Relaxed: only producers store it, and the lock lies between two of them.
        let stored = line.stored.load(Ordering::Relaxed).wrapping_add(1);
        // pairs PLACE: whoever reads a word that is written from here on sees the records that
        // counted since.
        fence(Ordering::Release);
        let words = &line.places[stored as usize % PLACES];
        // Relaxed, all five: between the fence and the release.
        words.pos.store(place.pos, Ordering::Relaxed);
        words.number.store(place.number, Ordering::Relaxed);
        words.bytes.store(place.bytes, Ordering::Relaxed);
        words.epoch.store(place.epoch, Ordering::Relaxed);
        words.last_epoch.store(place.last_epoch, Ordering::Relaxed);
        // pairs PLACE: the record is whole, and behind the commits that it counts.
        line.stored.store(stored, Ordering::Release);
    }

    /// The producer's place as it was stored last.
    pub(crate) fn stored_place(&self) -> Result<Place> {
        self.lines().producer.place()
    }

    /// Where the producer stands: its stored place, and on over every commit since (I4). `end` bounds
    /// the walk when the head is already known.
    pub(crate) fn find_head(&self, end: Option<u64>) -> Result<Place> {
        for _ in 0..WALKS {
            let place = self.stored_place()?;
            let found = self.walk(place, end);
            // A producer that goes on meanwhile may come round to where the walk began. It has
            // stored its place anew before that.
            if self.is_whole(place.pos) {
                return found;
            }
            // pairs PLACE: the place that was stored before the reservation just seen is found next.
            fence(Ordering::Acquire);
        }
        Err(RUNS_AWAY)
    }

    /// Follows the committed frames from `place` on, at most one lap.
    fn walk(&self, mut place: Place, end: Option<u64>) -> Result<Place> {
        let start = place.pos;
        while place.pos.wrapping_sub(start) < self.capacity && Some(place.pos) != end {
            if !self.step(&mut place)? {
                break;
            }
        }
        Ok(place)
    }

    /// Goes over what is committed at `place`; false if nothing is.
    fn step(&self, place: &mut Place) -> Result<bool> {
        // pairs PUBLISH: what is before the commit is there.
        let word = self.frames.at(place.pos).commit().load(Ordering::Acquire);
        self.grid.step(place, word, |pos| self.announced(pos))
    }

    /// Where the consumer stands.
    pub(crate) fn find_tail(&self) -> Place {
        let line = &self.lines().consumer;
        // pairs PLACE: acquire, the commit words of the messages before the tail are there. The rest:
        // relaxed, behind it.
        let pos = line.tail.load(Ordering::Acquire);
        let epoch = line.epoch.load(Ordering::Relaxed);
        // The number is stored before the tail, so that of a reader that was killed in between is too
        // high. Where the messages from here on can be counted, they tell.
        let number = self.number_at(pos).unwrap_or_else(|| line.number.load(Ordering::Relaxed));
        let is_of_epoch = number.wrapping_sub(line.epoch_from.load(Ordering::Relaxed)) as i64 > 0;
        let last_epoch =
            if is_of_epoch { epoch } else { line.epoch_before.load(Ordering::Relaxed) };
        Place { pos, number, epoch, last_epoch, bytes: 0 }
    }

    /// The number of the message at a boundary, by counting those between it and the producer's place.
    fn number_at(&self, pos: u64) -> Option<u64> {
        for _ in 0..WALKS {
            let place = self.stored_place().ok()?;
            let is_behind = producer::is_before(place.pos, pos);
            let (from, end) = if is_behind { (place.pos, pos) } else { (pos, place.pos) };
            let walked = self.walk(Place { pos: from, ..Place::default() }, Some(end));
            if self.is_whole(from) {
                let count = walked.ok().filter(|walked| walked.pos == end)?.number;
                return Some(match is_behind {
                    true => place.number.wrapping_add(count),
                    false => place.number.wrapping_sub(count),
                });
            }
            // pairs PLACE: as in `find_head`.
            fence(Ordering::Acquire);
        }
        None
    }

    /// Messages that wait. Walks over what was written since the last reservation.
    pub(crate) fn backlog(&self) -> u64 {
        // Relaxed: a figure. The reader's first, so that it is not ahead of the writer's.
        let read = self.lines().consumer.number.load(Ordering::Relaxed);
        let Ok(head) = self.find_head(None) else { return 0 };
        let waiting = head.number.wrapping_sub(read);
        if waiting > u64::MAX / 2 { 0 } else { waiting }
    }

    /// Notes how many frames are in use, if that is more than ever. For the writing side.
    pub(crate) fn note_high_water(&self, head: u64) {
        let lines = self.lines();
        // Relaxed: a figure, put together from two moments.
        let used = head.wrapping_sub(lines.consumer.tail.load(Ordering::Relaxed));
        let used = if used > u64::MAX / 2 { 0 } else { used.min(self.capacity) };
        if used > lines.producer_stats.high_water.load(Ordering::Relaxed) {
            lines.producer_stats.high_water.store(used, Ordering::Relaxed);
        }
    }

    /// Checks that two positions can belong to one ring.
    pub(crate) fn check_distance(&self, tail: u64, head: u64) -> Result<()> {
        if !self.overwrite && head.wrapping_sub(tail) > self.capacity {
            return Err(TOO_FAR);
        }
        Ok(())
    }

    /// Builds this ring, still private, from what is unread between two places of `old`, which the
    /// caller has sealed. The writer of `old` may not know of it yet, and go on: into frames that it
    /// had reserved before, and which are left out here (I6).
    pub(crate) fn rebuild(&self, old: &Ring, tail: Place, head: Place) -> Result<()> {
        let start = old.oldest_whole(tail, head)?;
        self.format(start);
        self.store_place(head);
        // An overwriting reader that was behind stays behind, so that it counts what it lost itself.
        self.format_consumer(tail);
        // Whoever stands before the start finds itself lapped, and goes there.
        let reserve = start.pos.wrapping_add(self.capacity);
        // Relaxed: still private, as in `format`.
        self.lines().reserve.reserve.store(reserve, Ordering::Relaxed);
        let mut pos = start.pos;
        while pos != head.pos {
            self.frames.adopt_frame(&old.frames, pos);
            pos = pos.wrapping_add(1);
        }
        self.mark_all(start, head, reserve);
        self.rebuild_stats(old);
        Ok(())
    }

    /// Remembers the first boundary of each eighth, as whoever wrote the messages did in the old
    /// ring. What is no chain of messages has an end; its reader will say what is wrong with it.
    fn mark_all(&self, start: Place, head: Place, reserve: u64) {
        let (mut place, mut marked) = (start, start.pos / self.eighth());
        while producer::is_before(place.pos, head.pos) {
            let eighth = place.pos / self.eighth();
            // The last one may share its mark with the first one, which counts (I9).
            let is_last =
                producer::is_before(reserve, eighth.wrapping_add(1).wrapping_mul(self.eighth()));
            if eighth != marked && !is_last {
                marked = eighth;
                self.store_mark(place);
            }
            if !matches!(self.step(&mut place), Ok(true)) {
                return;
            }
        }
    }

    /// Where the unread begins: at the tail, or where an overwriting producer has left something.
    fn oldest_whole(&self, tail: Place, head: Place) -> Result<Place> {
        // pairs SEAL: relaxed, behind the sealer's barrier: what is reserved later is not written.
        let reserve = self.lines().reserve.reserve.load(Ordering::Relaxed);
        let is_near = |place: &Place| head.pos.wrapping_sub(place.pos) <= self.capacity;
        if self.overwrite && reserve.wrapping_sub(tail.pos) > self.capacity {
            return Ok(self.oldest_mark(reserve).filter(is_near).unwrap_or(head));
        }
        if is_near(&tail) { Ok(tail) } else { Err(TOO_FAR) }
    }

    fn rebuild_stats(&self, old: &Ring) {
        let (new, old) = (self.lines(), old.lines());
        let words = |lines: &RingLines| -> [*const crate::sync::AtomicU64; 7] {
            [
                &lines.producer_stats.times_full,
                &lines.producer_stats.parks,
                &lines.producer_stats.wakes,
                &lines.producer_stats.high_water,
                &lines.consumer_stats.parks,
                &lines.consumer_stats.wakes,
                &lines.consumer.lost,
            ]
        };
        for (to, from) in words(new).into_iter().zip(words(old)) {
            // SAFETY: both arrays hold references into the two pages, alive as long as the rings.
            let (to, from) = unsafe { (&*to, &*from) };
            // Relaxed: figures for people.
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// The oldest remembered boundary whose frames were not overwritten up to `reserve`.
    fn oldest_mark(&self, reserve: u64) -> Option<Place> {
        let oldest = reserve.wrapping_sub(self.capacity);
        (0..=MARKS as u64)
            .find_map(|step| self.whole_mark(oldest.wrapping_add(step * self.eighth())))
    }

    /// The newest remembered boundary.
    fn newest_mark(&self) -> Option<Place> {
        // Relaxed: only chooses where to look; every mark is checked after it is read.
        let reserve = self.lines().reserve.reserve.load(Ordering::Relaxed);
        (0..=MARKS as u64)
            .find_map(|step| self.whole_mark(reserve.wrapping_sub(step * self.eighth())))
    }

    /// Whether the frame at `pos` was not written again before it was read (I6).
    #[inline(always)]
    fn is_whole(&self, pos: u64) -> bool {
        // pairs RESERVE: everything read before is older than the reservation read now.
        fence(Ordering::Acquire);
        let reserve = self.lines().reserve.reserve.load(Ordering::Relaxed);
        reserve.wrapping_sub(pos) <= self.capacity
    }

    /// The boundary remembered for the eighth around a position, if it still counts.
    fn whole_mark(&self, around: u64) -> Option<Place> {
        let mark = self.mark(around);
        // pairs MARK: acquire, number and epoch are those of this position or newer; newer ones are
        // of an eighth that was reserved again, and then it is not whole. Hence relaxed.
        let pos = mark.pos.load(Ordering::Acquire);
        let number = mark.number.load(Ordering::Relaxed);
        let epoch = mark.epoch.load(Ordering::Relaxed);
        // The epoch of the message before is not remembered; the same, in all but rare cases.
        let place = Place { pos, number, epoch, last_epoch: epoch, bytes: 0 };
        let is_of_eighth = place.pos / self.eighth() == around / self.eighth();
        (self.is_whole(place.pos) && is_of_eighth).then_some(place)
    }
}

impl ProducerLine {
    /// The place that was stored last. A writer that goes on may store others meanwhile.
    pub(crate) fn place(&self) -> Result<Place> {
        for _ in 0..WALKS {
            // pairs PLACE: acquire, the record is whole, and the commits that it counts are there.
            let stored = self.stored.load(Ordering::Acquire);
            let words = &self.places[stored as usize % PLACES];
            // Relaxed: behind the acquire; whether they belong together is asked afterwards.
            let place = Place {
                pos: words.pos.load(Ordering::Relaxed),
                number: words.number.load(Ordering::Relaxed),
                bytes: words.bytes.load(Ordering::Relaxed),
                epoch: words.epoch.load(Ordering::Relaxed),
                last_epoch: words.last_epoch.load(Ordering::Relaxed),
            };
            // pairs PLACE: a record is written again only after all the others counted.
            fence(Ordering::Acquire);
            let since = self.stored.load(Ordering::Relaxed).wrapping_sub(stored);
            if since < PLACES as u64 - 1 {
                return Ok(place);
            }
        }
        Err(RUNS_AWAY)
    }
}
