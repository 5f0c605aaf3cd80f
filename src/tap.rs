//! Listening in: reading a direction without being its consumer.
//!
//! A tap maps a slot read-only, so it cannot disturb anybody, and neither side knows of it; it holds
//! the readers' lock byte beside others, so that the slot is not used again under it. What it
//! tells is what a reader is told: nothing from behind a cut; and it follows the bus to its next
//! slot, or to a new file of the same name.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::config::{Direction, Geometry, MessageId, Options};
use crate::error::{Error, Result};
use crate::ring::{Copied, Cursor, Place};
use crate::schema::Schema;
use crate::segment::{self, BusFile, Segment};
use crate::session::{check_schema, cut_of};
use crate::sync::light_barrier;
use crate::sys::fork::Birth;
use crate::sys::{barrier, clock};

/// The pause between two looks of a tap that waits. It stores nothing, so nobody can wake it.
const PAUSE: Duration = Duration::from_micros(200);
/// How often a bus may be replaced between opening its file and looking into it.
const REPLACED_MOST: usize = 100;

/// A listener to one direction.
pub struct Tap {
    cursor: Cursor,
    segment: Segment,
    birth: Birth,
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
    /// Opens a tap. Only the name, the directory and [`Options::reads`] count: a tap that says what
    /// it reads hears nothing else.
    ///
    /// # Errors
    /// `NotFound`; `Schema`; or what is wrong with the file.
    pub fn tap(&self, direction: Direction) -> Result<Tap> {
        segment::check_name(&self.name)?;
        self.says.iter().flatten().try_for_each(Schema::check)?;
        barrier::register();
        let Some(segment) = map_current(self, direction)? else {
            return Err(Error::NotFound { path: self.path().display().to_string() });
        };
        let cursor = Cursor::at_newest(segment.ring(direction))?;
        let birth = Birth::now();
        Ok(Tap { cursor, segment, birth, direction, options: self.clone(), lost: 0 })
    }
}

/// Maps the slot that counts, read-only. `None` if there is no bus of this name.
fn map_current(options: &Options, direction: Direction) -> Result<Option<Segment>> {
    for _ in 0..REPLACED_MOST {
        let Some(bus) = BusFile::open_at(&options.path(), Some(options), false)? else {
            return Ok(None);
        };
        let turn = bus.turn();
        let Some(slot) = turn.slot() else { return Ok(None) };
        // The lock first, the look afterwards: a slot that is not used any more is not entered.
        if bus.try_lock_as_reader(slot)? && bus.turn() == turn {
            let mut segment = bus.map_slot(slot)?;
            segment.settle();
            if let Some(asked) = &options.says[1] {
                check_schema(direction, asked, segment.schema(direction)?)?;
            }
            return Ok(Some(segment));
        }
        clock::sleep(PAUSE);
    }
    Ok(None)
}

impl Tap {
    /// Listens to a direction of the bus `name`, from the next message on.
    ///
    /// # Errors
    /// As for [`Options::tap`].
    pub fn open(name: &str, direction: Direction) -> Result<Tap> {
        Options::new(name).tap(direction)
    }

    /// Goes back to the oldest message that is still in the ring, read or not. In a forked child
    /// nothing happens.
    pub fn from_oldest(&mut self) {
        if self.birth.is_here() {
            self.cursor = Cursor::at_oldest(self.segment.ring(self.direction));
        }
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
    /// `Empty`; `Schema`, when the bus was made anew with other messages than this tap says;
    /// `BufferTooSmall`, and the next call gives the same message if it is still there;
    /// `Corrupt`; `Forked`.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<TapMessage> {
        if !self.birth.is_here() {
            return Err(Error::Forked);
        }
        let before = self.cursor;
        let copied = self.cursor.try_copy(buffer);
        // pairs SEAL: behind the sealer's barrier, a copy that holds anything from behind the cut is
        // followed by a look that finds the seal.
        light_barrier();
        if self.segment.is_sealed() && !self.is_inside(&copied) {
            self.cursor = before;
            return self.follow();
        }
        let lost = self.cursor.lost().wrapping_sub(before.lost());
        self.lost = self.lost.wrapping_add(lost);
        match copied? {
            Some(copied) => Ok(TapMessage { id: copied.id, len: copied.len, lost }),
            None => self.follow(),
        }
    }

    /// Whether a message of a sealed slot lies before the cut. Without a message, or as long as the
    /// cut is not known, it does not.
    fn is_inside(&self, copied: &Result<Option<Copied>>) -> bool {
        let cut = cut_of(&self.segment).map(|cut| cut[self.direction as usize].head.pos);
        let end = self.cursor.place().pos;
        let is_before_cut = cut.is_some_and(|cut| end.wrapping_sub(cut) as i64 <= 0);
        is_before_cut && matches!(copied, Ok(Some(_)) | Err(Error::BufferTooSmall { .. }))
    }

    /// Copies the next message; waits for it for at most `timeout`.
    ///
    /// # Errors
    /// As for [`Tap::try_read`], with `Timeout` for `Empty`.
    pub fn read_timeout(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<TapMessage> {
        let deadline = clock::Instant::now().checked_add(timeout);
        loop {
            match self.try_read(buffer) {
                Err(Error::Empty) => {}
                done => return done,
            }
            if deadline.is_some_and(|deadline| clock::Instant::now() >= deadline) {
                return Err(Error::Timeout);
            }
            clock::sleep(PAUSE);
        }
    }

    /// Whether it stands where the bus is now, for the simulation's own questions.
    #[cfg(eshm_sim)]
    pub(crate) fn is_current(&self) -> bool {
        self.segment.is_current()
    }

    /// Where it goes on in the next slot. A tap that began at the newest message of a sealed slot may
    /// stand behind what a fenced writer wrote there; that never was, and other messages are in its
    /// place now.
    fn place_inside(&self) -> Place {
        let place = self.cursor.place();
        match cut_of(&self.segment).map(|cut| cut[self.direction as usize].head) {
            Some(head) if place.pos.wrapping_sub(head.pos) as i64 > 0 => head,
            _ => place,
        }
    }

    /// Nothing came: goes to where the bus is now, if it has moved.
    fn follow(&mut self) -> Result<TapMessage> {
        if self.segment.is_current() {
            return Err(Error::Empty);
        }
        let next = match map_current(&self.options, self.direction) {
            // A bus made anew, with other messages.
            Err(error @ Error::Schema { .. }) => return Err(error),
            next => next,
        };
        if let Ok(Some(next)) = next {
            let ring = next.ring(self.direction);
            let place = self.place_inside();
            // One that has not found a message yet is nowhere.
            let is_placed = place.epoch != 0;
            self.cursor = if is_placed && next.lineage() == self.segment.lineage() {
                Cursor::at(ring, place)
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
