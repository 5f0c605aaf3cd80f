//! The reading half.

mod distance;
mod many;
mod shown;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::AnyBitPattern;

use self::distance::Distance;
use super::waiter::{Bed, Waiter};
use super::{Batch, Lease, Messages, Now, Peek};
use crate::config::{Direction, Geometry, MessageId, Wait};
use crate::error::{Error, Result};
use crate::ring::{Consumer, LOOK, SEALED, SLEEP};
use crate::segment::Segment;
use crate::session::{CutRing, Seat};
use crate::sync::Ordering;
use crate::sys::fork::Birth;
use crate::sys::{cores, futex};

/// The half of an endpoint that reads.
///
/// `read` copies and then advances: a message is handed out at most once. `peek` and `release` show
/// it in place and advance afterwards: at least once. Ids tell an application which ones it knows.
pub struct Reader {
    ring: Consumer,
    birth: Birth,
    /// Every call has more to do than to read: this handle is unusable, or beats by hand.
    is_special: bool,
    segment: Arc<Segment>,
    pub(super) lease: Arc<Lease>,
    /// A peeked message of a direction that is overwritten, where only copies can be trusted.
    scratch: Vec<u8>,
    /// The id of the message in `scratch`.
    scratch_id: Option<MessageId>,
    /// The bus moved since the last look.
    has_moved: bool,
    /// Looks that found nothing.
    empties: u32,
    /// Spins that ended in sleep, one after the other.
    fruitless: Cell<u32>,
    distance: Distance,
}

/// Segments that one call follows, one after the other; only somebody hostile replaces more.
const MOVES_MOST: usize = 64;
/// Looks before the clock is read: a microsecond or two.
const LINGERING: u32 = 64;
/// Looks that found nothing before the progress is told.
const EMPTIES_PER_NOTE: u32 = 16;
const REPLACED_TOO_OFTEN: &str = "it is replaced again and again";

impl Reader {
    pub(super) fn new(lease: Arc<Lease>) -> Result<Self> {
        let seat = lease.seat().ok_or(Error::Forked)?;
        Ok(Reader {
            ring: Consumer::resume(seat.segment.ring(lease.role.peer().writes()))?,
            birth: lease.birth(),
            is_special: !lease.options.background,
            segment: seat.segment,
            lease,
            scratch: Vec::new(),
            scratch_id: None,
            has_moved: false,
            empties: 0,
            fruitless: Cell::new(0),
            distance: Distance::default(),
        })
    }

    pub(super) fn shape(&self, direction: Direction) -> Geometry {
        self.segment.geometry(direction)
    }

    /// The id of the message read last, by this endpoint or an earlier owner of its role.
    #[must_use]
    pub fn last_id(&self) -> Option<MessageId> {
        self.ring.last_id()
    }

    /// Messages that were overwritten before this endpoint came to them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ring.lost()
    }

    /// Messages that wait to be read. A walk over what was written since the writer's last reservation,
    /// an eighth of the ring at most: not for every message.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        if self.birth.is_here() { self.ring.ring().backlog() } else { 0 }
    }

    // --- copies -------------------------------------------------------------------------------

    /// Reads a message into `buffer` and gives its length; waits as long as the read timeout says.
    ///
    /// # Errors
    /// `Timeout`; `BufferTooSmall`, and the message stays; `PeerDead` or `PeerHung` when nothing is
    /// unread and the disconnect policy says so; or what makes the endpoint unusable.
    #[inline(always)]
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self.read_now(buffer) {
            Some(len) if self.is_left_alone() => Ok(len),
            Some(len) => self.read_rung(len, buffer, self.lease.options.read_timeout),
            None => self.read_waiting(buffer, self.lease.options.read_timeout),
        }
    }

    /// Reads a message, or says `Empty` at once.
    ///
    /// # Errors
    /// As for [`Reader::read`], with `Empty` for `Timeout`.
    #[inline(always)]
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self.read_now(buffer) {
            Some(len) if self.is_left_alone() => Ok(len),
            Some(len) => self.read_rung(len, buffer, Duration::ZERO),
            None if self.is_idle() => self.try_read_later(buffer),
            None => self.try_read_any(buffer),
        }
    }

    /// Waits for a moment if that pays. True if it is worth looking again then.
    #[inline(always)]
    pub(super) fn keep_distance(&mut self) -> bool {
        self.distance.keep(self.ring.position())
    }

    /// Nothing was there. A moment later, if it pays to keep a distance, there may be.
    #[inline(always)]
    fn try_read_later(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.keep_distance()
            && let Some(len) = self.read_now(buffer)
        {
            return match self.is_left_alone() {
                true => Ok(len),
                false => self.read_rung(len, buffer, Duration::ZERO),
            };
        }
        Err(Error::Empty)
    }

    /// Reads a message; waits for it for at most `timeout`.
    ///
    /// # Errors
    /// As for [`Reader::read`].
    #[inline(always)]
    pub fn read_timeout(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<usize> {
        match self.read_now(buffer) {
            Some(len) if self.is_left_alone() => Ok(len),
            Some(len) => self.read_rung(len, buffer, timeout),
            None => self.read_waiting(buffer, timeout),
        }
    }

    /// Reads a message as a value.
    ///
    /// # Errors
    /// `WrongSize` if the message has another length than the type, and it stays; the others as for
    /// [`Reader::read`].
    pub fn read_value<T: AnyBitPattern>(&mut self) -> Result<T> {
        loop {
            match self.try_read_value() {
                Err(Error::Empty) => self.await_message(self.lease.options.read_timeout)?,
                done => return done,
            };
        }
    }

    /// Reads a message as a value, or says `Empty` at once.
    ///
    /// # Errors
    /// As for [`Reader::read_value`], with `Empty` for `Timeout`.
    pub fn try_read_value<T: AnyBitPattern>(&mut self) -> Result<T> {
        let mut value = T::zeroed();
        // SAFETY: `T` may hold any bytes, so filling it byte by byte keeps it valid; it is borrowed
        // here alone. Padding is written over, never read.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut((&raw mut value).cast::<u8>(), size_of::<T>())
        };
        self.try_read_exact(bytes)?;
        Ok(value)
    }

    /// Reads a message that is as long as the buffer, or says `Empty` at once. For values of other
    /// languages.
    ///
    /// # Errors
    /// As for [`Reader::try_read_value`].
    #[doc(hidden)]
    pub fn try_read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        let expected = bytes.len();
        // What may be overwritten is held, so that the message whose length was seen is the one read.
        let len = if self.ring.is_racing() { self.try_peek()?.len() } else { self.next_len()? };
        if len != expected {
            return Err(Error::WrongSize { len, expected });
        }
        // It was consumed when it was shown; whoever was fenced since would be refused it now.
        if self.scratch_id.take().is_some() {
            bytes.copy_from_slice(&self.scratch);
            return Ok(());
        }
        match self.try_read(bytes)? {
            len if len == expected => Ok(()),
            // The bus was made anew meanwhile, and another message was next.
            len => Err(Error::WrongSize { len, expected }),
        }
    }

    /// The hot path: a message is there, and is to be handed out. Everything else takes the long way.
    #[inline(always)]
    fn read_now(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.is_plain() { self.ring.take_now(buffer) } else { None }
    }

    /// Hands out what was just consumed, unless somebody rang.
    #[inline(always)]
    fn hand_out(&mut self, len: usize) -> Result<usize> {
        if self.is_left_alone() { Ok(len) } else { self.attend_read(len) }
    }

    /// Whether nobody rang; what was just consumed is settled then.
    #[inline(always)]
    fn is_left_alone(&mut self) -> bool {
        let is_left_alone = self.ring.ring().room_bell().glance() == 0;
        if is_left_alone {
            self.ring.settle();
        }
        is_left_alone
    }

    /// Whether a call has nothing to do but to read, from a ring that is not overwritten.
    #[doc(hidden)]
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        !(self.is_special | !self.birth.is_here() | self.ring.is_racing())
    }

    /// [`Reader::try_read`] for a short message that is there, and nothing else.
    ///
    /// # Safety
    /// [`Reader::is_plain`] was true after the last other call, in this very process.
    #[doc(hidden)]
    #[inline(always)]
    pub unsafe fn read_short(&mut self, buffer: &mut [u8]) -> Now<usize> {
        debug_assert!(self.is_plain());
        let taken = self.ring.take_short(buffer);
        self.taken(taken)
    }

    /// The same for a message of any length.
    ///
    /// # Safety
    /// As for [`Reader::read_short`].
    #[doc(hidden)]
    #[inline(always)]
    pub unsafe fn read_plain(&mut self, buffer: &mut [u8]) -> Now<usize> {
        debug_assert!(self.is_plain());
        let taken = self.ring.take_now(buffer);
        self.taken(taken)
    }

    #[inline(always)]
    fn taken(&mut self, taken: Option<usize>) -> Now<usize> {
        match taken {
            Some(len) if self.is_left_alone() => Now::Done(len),
            Some(len) => Now::Rung(len),
            None => Now::Not,
        }
    }

    /// Whether there is nothing to read and nothing else to do, as in most calls of a busy loop. The
    /// writer is told of all the room then, as in `rest`.
    #[inline(always)]
    fn is_idle(&mut self) -> bool {
        let is_idle = self.is_plain()
            && !self.ring.is_committed()
            && self.ring.ring().room_bell().glance() == 0
            && !self.has_moved
            && !self.lease.misses_peer();
        if is_idle {
            self.ring.publish();
            self.note_empty();
        }
        is_idle
    }

    #[inline(never)]
    fn try_read_any(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.read_once(buffer) {
                Err(Error::Empty) => self.nothing_here()?,
                done => return done,
            }
        }
    }

    /// Looks for a moment, without a clock: the answer of a busy peer comes sooner than a clock could
    /// be read.
    #[inline(always)]
    fn linger<T>(
        &mut self,
        timeout: Duration,
        mut take: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        if self.lease.options.wait == Wait::Park || timeout.is_zero() || cores::online() == 1 {
            return None;
        }
        for _ in 0..LINGERING {
            if !self.is_idle() {
                break;
            }
            if !self.keep_distance() {
                std::hint::spin_loop();
            }
            let taken = take(self);
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    /// Reads a message of any kind that is there.
    #[inline(always)]
    fn read_once(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.is_special | !self.birth.is_here() {
            self.enter()?;
        }
        if self.ring.is_racing() {
            return self.race_once(buffer);
        }
        let found = match self.ring.find() {
            Ok(Some(found)) => found,
            Ok(None) => return self.rest().and(Err(Error::Empty)),
            Err(error) => return self.stumble(error),
        };
        self.ring.copy(found, buffer)?;
        self.ring.consume(found);
        self.hand_out(found.len)
    }

    /// Somebody rang after a message was read. If that has to be taken back, the next one is looked
    /// for as if it had never been there.
    #[cold]
    #[inline(never)]
    fn read_rung(&mut self, len: usize, buffer: &mut [u8], timeout: Duration) -> Result<usize> {
        match self.attend_read(len) {
            Err(Error::Empty) if timeout.is_zero() => self.try_read_any(buffer),
            Err(Error::Empty) => self.read_waiting(buffer, timeout),
            done => done,
        }
    }

    /// Somebody rang after a message was read.
    #[doc(hidden)]
    #[cold]
    #[inline(never)]
    pub fn attend_read(&mut self, len: usize) -> Result<usize> {
        if self.attend()? { Ok(len) } else { Err(Error::Empty) }
    }

    /// The same in a direction that is overwritten. A copy that was shown, and is read now, is this
    /// reader's own: its place was stored before the look at the bell that let it be shown, so every
    /// later cut counts it as read, and whoever replaces this reader goes on behind it.
    #[cold]
    #[inline(never)]
    fn race_once(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.scratch_id.is_some() {
            let (len, room) = (self.scratch.len(), buffer.len());
            let out = buffer.get_mut(..len).ok_or(Error::BufferTooSmall { len, buffer: room })?;
            out.copy_from_slice(&self.scratch);
            self.scratch_id = None;
            return Ok(len);
        }
        let before = self.ring.tally();
        let len = match self.ring.race(buffer) {
            Ok(Some(len)) => len,
            Ok(None) => return self.rest().and(Err(Error::Empty)),
            Err(error) => return self.stumble(error),
        };
        self.hand_out(len).inspect_err(|_| self.ring.recount(before))
    }

    #[inline(never)]
    fn read_waiting(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<usize> {
        if let Some(len) = self.linger(timeout, |reader| reader.read_now(buffer)) {
            match self.hand_out(len) {
                Err(Error::Empty) => {}
                done => return done,
            }
        }
        let mut waiter = Waiter::new(self.lease.options.wait, timeout);
        loop {
            match self.read_once(buffer) {
                Err(Error::Empty) => self.wait_for_message(&mut waiter)?,
                done => return done,
            }
        }
    }

    // --- many messages ------------------------------------------------------------------------

    /// The messages as owned bytes, until none comes within the read timeout.
    pub fn messages(&mut self) -> Messages<'_> {
        Messages { reader: self }
    }

    /// Goes to the newest message, which is read next, and says how many were passed over.
    ///
    /// # Errors
    /// What makes the endpoint unusable; or `Os`, when the bus has moved and the system refuses to
    /// follow it for now: then nothing was passed over, and it can be tried again.
    pub fn skip_to_latest(&mut self) -> Result<u64> {
        if self.is_special | !self.birth.is_here() {
            self.enter()?;
        }
        let first = self.ring.place().number;
        for _ in 0..MOVES_MOST {
            let has_looked = match self.ring.skip_to_latest() {
                Ok(passed) => passed.is_some(),
                Err(error) => return self.stumble(error),
            };
            let before = Arc::clone(&self.segment);
            let _ = self.is_left_alone() || self.attend()?;
            if !Arc::ptr_eq(&before, &self.segment) {
                // The bus has moved, and what is newest there may be something else.
                continue;
            }
            if !has_looked {
                // Sealed, and moving over was refused: which message is the newest is not known here.
                self.follow(self.lease.seat_after(&self.segment)?)?;
                continue;
            }
            // What lay behind a cut was not passed over.
            let passed = self.ring.place().number.wrapping_sub(first);
            let passed = if passed > u64::MAX / 2 { 0 } else { passed };
            return Ok(passed + self.pass_shown(passed > 0)?);
        }
        Err(Error::Lost { what: REPLACED_TOO_OFTEN, unread: 0 })
    }

    // --- the cold side ------------------------------------------------------------------------

    /// What is to be done before a call that is not an ordinary one.
    #[cold]
    fn enter(&mut self) -> Result<()> {
        if !self.birth.is_here() {
            return Err(Error::Forked);
        }
        if let Some(trouble) = self.lease.trouble() {
            return Err(trouble);
        }
        let is_by_hand = !self.lease.options.background;
        self.is_special = is_by_hand || self.lease.is_nameless();
        if is_by_hand {
            self.lease.beat();
            self.lease.observe_if_due();
        }
        Ok(())
    }

    /// Waits for a message. `Ok` is only a reason to look.
    fn wait_for_message(&mut self, waiter: &mut Waiter) -> Result<()> {
        let changes = self.lease.peer_changes();
        if let Some(gone) = self.lease.disconnected() {
            // The peer was found gone after its last message: one more look tells if it is read.
            return match self.is_anything_there() {
                true => Ok(()),
                false => Err(gone),
            };
        }
        let ring = *self.ring.ring();
        let bed = Bed {
            bell: ring.data_bell(),
            attention: ring.room_bell(),
            segment: &self.segment,
            peer: self.lease.role.peer(),
            parks: &ring.lines().consumer_stats.parks,
            fruitless: &self.fruitless,
        };
        let consumer = &self.ring;
        let lease = &self.lease;
        let is_news = |_| consumer.is_committed() || lease.peer_changes() != changes;
        if waiter.wait(lease, &bed, is_news) {
            return Ok(());
        }
        self.lease.note_progress(&self.segment);
        Err(Error::Timeout)
    }

    fn is_anything_there(&self) -> bool {
        self.ring.is_committed()
    }

    /// Nothing is there: tells the writer of all the room, and looks whether the bus has moved.
    #[cold]
    fn rest(&mut self) -> Result<()> {
        if self.ring.ring().room_bell().glance() == 0 {
            self.ring.publish();
            self.note_empty();
            return Ok(());
        }
        self.attend()?;
        // Nothing was handed out, so what is wrong can be told at once.
        self.lease.trouble().map_or(Ok(()), Err)
    }

    /// A look that found nothing is progress too; told now and then, since it may be a busy loop.
    #[inline(always)]
    fn note_empty(&mut self) {
        self.empties = self.empties.wrapping_add(1);
        if self.empties.is_multiple_of(EMPTIES_PER_NOTE) {
            self.lease.note_progress(&self.segment);
        }
    }

    /// `Ok` if it is worth looking again at once, because the bus has moved. Else `Empty`, unless the
    /// peer is gone and the policy wants that said.
    #[cold]
    fn nothing_here(&mut self) -> Result<()> {
        if std::mem::take(&mut self.has_moved) {
            return Ok(());
        }
        match self.lease.disconnected() {
            Some(gone) if !self.is_anything_there() => Err(gone),
            _ => Err(Error::Empty),
        }
    }

    #[cold]
    fn stumble<T>(&mut self, error: Error) -> Result<T> {
        if let Error::Corrupt { .. } = error {
            self.is_special = true;
            self.lease.condemn(error.clone());
        }
        Err(error)
    }

    /// Somebody rang. True if what was read last may be handed out.
    #[cold]
    #[inline(never)]
    fn attend(&mut self) -> Result<bool> {
        let mut is_inside = true;
        // Where it goes to may be sealed in its turn before this reader has told where it stands:
        // then a successor knows nothing of what was read here.
        for _ in 0..MOVES_MOST {
            if self.answer() & SEALED == 0 {
                self.ring.publish();
                return Ok(is_inside);
            }
            let cut = self.cut()?;
            is_inside &= self.stay_before(&cut);
            if let Err(error) =
                self.lease.seat_after(&self.segment).and_then(|seat| self.follow(seat))
            {
                self.is_special = true;
                self.lease.note(&error);
                // What the cut counts as read was read by this reader, and by nobody else; the rest
                // is unread as long as it is not known who goes on reading.
                let is_mine = self.ring.place().pos.wrapping_sub(cut.tail.pos) as i64 <= 0;
                if !is_mine {
                    self.ring.rewind(cut.tail);
                }
                return if is_inside && is_mine { Ok(true) } else { Err(error) };
            }
        }
        let error = Error::Lost { what: REPLACED_TOO_OFTEN, unread: 0 };
        self.is_special = true;
        self.lease.condemn(error.clone());
        Err(error)
    }

    #[cold]
    fn attend_many(&mut self, batch: &mut Batch) -> Result<()> {
        let first = self.ring.place().number.wrapping_sub(batch.len() as u64);
        match self.attend() {
            // All of it, or a part that ends at the cut.
            Ok(_) => {
                let read = self.ring.place().number.wrapping_sub(first) as usize;
                batch.truncate(read.min(batch.len()));
                if batch.is_empty() { Err(Error::Empty) } else { Ok(()) }
            }
            Err(error) => {
                batch.clear();
                Err(error)
            }
        }
    }

    /// Does what the bell asks for, and says what it said.
    fn answer(&mut self) -> u32 {
        let ring = *self.ring.ring();
        let bell = ring.room_bell();
        let rung = bell.look();
        if rung & SEALED != 0 {
            return rung;
        }
        if rung & SLEEP != 0 {
            self.ring.publish();
            if bell.take_sleep() {
                futex::wake(bell.0, i32::MAX);
                let wakes = &ring.lines().consumer_stats.wakes;
                // Relaxed: a figure of this side alone.
                wakes.store(wakes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            }
        }
        if rung & LOOK != 0 && bell.clear(LOOK) {
            // What is wrong is told by the next call; or the seat has moved.
            self.is_special = true;
        }
        rung
    }

    fn cut(&self) -> Result<CutRing> {
        self.lease.cut(&self.segment, self.lease.role.peer().writes())
    }

    /// Takes back what was read from behind the cut. True if there was nothing to take back.
    fn stay_before(&mut self, cut: &CutRing) -> bool {
        let is_inside = self.ring.place().pos.wrapping_sub(cut.head.pos) as i64 <= 0;
        if !is_inside {
            self.ring.rewind(cut.head);
        }
        is_inside
    }

    /// Goes where the seat is, and stands there where it stood here.
    fn follow(&mut self, seat: Seat) -> Result<()> {
        if Arc::ptr_eq(&seat.segment, &self.segment) {
            return Ok(());
        }
        let mut ring = Consumer::resume(seat.segment.ring(self.lease.role.peer().writes()))?;
        ring.carry_on(&self.ring);
        (self.ring, self.segment) = (ring, seat.segment);
        self.has_moved = true;
        Ok(())
    }
}
