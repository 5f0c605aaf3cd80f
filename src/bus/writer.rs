//! The writing half.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bytemuck::NoUninit;

use super::waiter::{Bed, Waiter};
use super::{Lease, Now};
use crate::config::{Direction, Geometry, MessageId};
use crate::error::{Error, Result};
use crate::ring::{LOOK, Place, Producer, SEALED, SLEEP};
use crate::segment::Segment;
use crate::session::Seat;
use crate::sync::Ordering;
use crate::sys::fork::Birth;
use crate::sys::futex;

/// The half of an endpoint that writes.
///
/// `Ok` from a write means: the message is in the ring, and will be delivered exactly once, even if
/// this process dies the next instant.
pub struct Writer {
    ring: Producer,
    birth: Birth,
    /// Every call has more to do than to write: this handle is unusable, or beats by hand.
    is_special: bool,
    segment: Arc<Segment>,
    pub(super) lease: Arc<Lease>,
    /// Where a claim lies in a direction that is overwritten, where readers race.
    scratch: Vec<u8>,
    /// Spins that ended in sleep, one after the other.
    fruitless: Cell<u32>,
}

impl Writer {
    pub(super) fn new(lease: Arc<Lease>) -> Result<Self> {
        let seat = lease.seat().ok_or(Error::Forked)?;
        Ok(Writer {
            ring: Producer::resume(seat.segment.ring(lease.role.writes()), seat.epoch)?,
            birth: lease.birth(),
            is_special: !lease.options.background,
            segment: seat.segment,
            lease,
            scratch: Vec::new(),
            fruitless: Cell::new(0),
        })
    }

    pub(super) fn shape(&self, direction: Direction) -> Geometry {
        self.segment.geometry(direction)
    }

    /// The longest message that this direction carries.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.shape(self.lease.role.writes()).max_message()
    }

    /// The last message committed in this direction, by this endpoint or an earlier owner of its
    /// role. After a restart it tells what need not be sent again.
    #[must_use]
    pub fn last_committed(&self) -> Option<MessageId> {
        self.ring.last_committed()
    }

    /// Messages that the reader has not read yet. A look at its line: not for every message.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        if self.birth.is_here() { self.ring.backlog() } else { 0 }
    }

    // --- one message --------------------------------------------------------------------------

    /// Writes a message; waits for room as long as the write timeout says.
    ///
    /// # Errors
    /// `Timeout` if there was no room, `TooLong`, or what makes the endpoint unusable.
    #[inline(always)]
    pub fn write(&mut self, message: &[u8]) -> Result<()> {
        match self.write_now(message) {
            true => self.look_up(message),
            false => self.write_waiting(message, self.lease.options.write_timeout),
        }
    }

    /// Writes a message, or says `Full` at once.
    ///
    /// # Errors
    /// `Full`, `TooLong`, or what makes the endpoint unusable.
    #[inline(always)]
    pub fn try_write(&mut self, message: &[u8]) -> Result<()> {
        match self.write_now(message) {
            true => self.look_up(message),
            false => self.try_write_any(message),
        }
    }

    /// Writes a message; waits for room for at most `timeout`.
    ///
    /// # Errors
    /// As for [`Writer::write`].
    #[inline(always)]
    pub fn write_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<()> {
        match self.write_now(message) {
            true => self.look_up(message),
            false => self.write_waiting(message, timeout),
        }
    }

    /// Writes the bytes of a value.
    ///
    /// # Errors
    /// As for [`Writer::write`].
    #[inline]
    pub fn write_value<T: NoUninit>(&mut self, value: &T) -> Result<()> {
        self.write(bytemuck::bytes_of(value))
    }

    /// Writes the bytes of a value, or says `Full` at once.
    ///
    /// # Errors
    /// As for [`Writer::try_write`].
    #[inline]
    pub fn try_write_value<T: NoUninit>(&mut self, value: &T) -> Result<()> {
        self.try_write(bytemuck::bytes_of(value))
    }

    /// The hot path: there is room. Everything else takes the long way.
    #[inline(always)]
    fn write_now(&mut self, message: &[u8]) -> bool {
        !(self.is_special | !self.birth.is_here()) && self.ring.write_now(message)
    }

    /// The message was just written: does anybody want anything?
    #[inline(always)]
    fn look_up(&mut self, message: &[u8]) -> Result<()> {
        if self.is_left_alone() { Ok(()) } else { self.attend_write(message) }
    }

    #[inline(always)]
    fn is_left_alone(&self) -> bool {
        self.ring.ring().data_bell().glance() == 0
    }

    /// Whether a call has nothing to do but to write, into a ring that is not overwritten.
    #[doc(hidden)]
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        !(self.is_special | !self.birth.is_here() | self.ring.is_racing())
    }

    /// [`Writer::try_write`] for a short message that there is room for, and nothing else.
    ///
    /// # Safety
    /// [`Writer::is_plain`] was true after the last other call, in this very process.
    #[doc(hidden)]
    #[inline(always)]
    pub unsafe fn write_short(&mut self, message: &[u8]) -> Now<()> {
        debug_assert!(self.is_plain());
        let is_written = self.ring.write_short(message);
        self.written(is_written)
    }

    /// The same for a message of any length.
    ///
    /// # Safety
    /// As for [`Writer::write_short`].
    #[doc(hidden)]
    #[inline(always)]
    pub unsafe fn write_plain(&mut self, message: &[u8]) -> Now<()> {
        debug_assert!(self.is_plain());
        let is_written = self.ring.write_now(message);
        self.written(is_written)
    }

    #[inline(always)]
    fn written(&self, is_written: bool) -> Now<()> {
        match is_written {
            true if self.is_left_alone() => Now::Done(()),
            true => Now::Rung(()),
            false => Now::Not,
        }
    }

    #[inline(never)]
    fn try_write_any(&mut self, message: &[u8]) -> Result<()> {
        match self.try_once(message) {
            Err(Error::Full) => self.refuse(),
            done => done,
        }
    }

    /// Writes a message of any kind, if there is room.
    #[inline(always)]
    fn try_once(&mut self, message: &[u8]) -> Result<()> {
        if self.is_special | !self.birth.is_here() {
            self.enter()?;
        }
        match self.ring.try_write(message) {
            Ok(()) => self.look_up(message),
            Err(error) => self.stumble(error).and_then(|()| self.try_once(message)),
        }
    }

    #[inline(never)]
    fn write_waiting(&mut self, message: &[u8], timeout: Duration) -> Result<()> {
        let mut waiter = Waiter::new(self.lease.options.wait, timeout);
        loop {
            match self.try_once(message) {
                Err(Error::Full) => {}
                done => return done,
            }
            if waiter.is_fresh() {
                self.count_full();
            }
            if !self.wait_for_room(&mut waiter, message.len()) {
                return Err(Error::Timeout);
            }
        }
    }

    /// Waits until there may be room. False when the time is up.
    fn wait_for_room(&mut self, waiter: &mut Waiter, len: usize) -> bool {
        let ring = *self.ring.ring();
        let bed = Bed {
            bell: ring.room_bell(),
            attention: ring.data_bell(),
            segment: &self.segment,
            peer: self.lease.role.peer(),
            parks: &ring.lines().producer_stats.parks,
            fruitless: &self.fruitless,
        };
        let producer = &mut self.ring;
        // An error is found again, and reported, by the write that follows.
        waiter.wait(&self.lease, &bed, |is_exact| producer.may_have_room(len, is_exact))
    }

    // --- many messages ------------------------------------------------------------------------

    /// Writes the messages in order; waits for room as long as the write timeout says. Says how many
    /// it wrote: all, unless that time was up or one of them was refused.
    ///
    /// # Errors
    /// Those of [`Writer::write`], if they came before anything was written.
    pub fn write_many<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<usize> {
        self.write_many_timeout(messages, self.lease.options.write_timeout)
    }

    /// Writes the messages in order; waits for room for at most `timeout`, all in all.
    ///
    /// # Errors
    /// As for [`Writer::write_many`].
    pub fn write_many_timeout<M: AsRef<[u8]>>(
        &mut self,
        messages: &[M],
        timeout: Duration,
    ) -> Result<usize> {
        let mut waiter = None;
        let mut written = 0;
        loop {
            match self.try_many_once(&messages[written..]) {
                Ok(count) => written += count,
                Err(Error::Full) => {
                    self.count_full();
                    let len = messages[written].as_ref().len();
                    let wait = self.lease.options.wait;
                    let waiter = waiter.get_or_insert_with(|| Waiter::new(wait, timeout));
                    if !self.wait_for_room(waiter, len) {
                        return if written > 0 { Ok(written) } else { Err(Error::Timeout) };
                    }
                }
                Err(error) => return if written > 0 { Ok(written) } else { Err(error) },
            }
            if written == messages.len() {
                return Ok(written);
            }
        }
    }

    /// Writes as many of the messages as there is room for now, in order, and says how many.
    ///
    /// # Errors
    /// `Full` if not even the first one fits now; the others as for [`Writer::write`], if they are
    /// about the first one.
    pub fn try_write_many<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<usize> {
        match self.try_many_once(messages) {
            Err(Error::Full) => self.refuse(),
            done => done,
        }
    }

    fn try_many_once<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<usize> {
        if self.is_special | !self.birth.is_here() {
            self.enter()?;
        }
        match self.ring.write_many(messages) {
            Ok(count) if self.is_left_alone() => Ok(count),
            Ok(count) => self.attend_many(&messages[..count]),
            Err(error) => self.stumble(error).and_then(|()| self.try_many_once(messages)),
        }
    }

    // --- in place -----------------------------------------------------------------------------

    /// Room for a message of `len` bytes, to be filled in place; waits as long as the write timeout
    /// says. Its bytes are whatever was there before.
    ///
    /// # Errors
    /// As for [`Writer::write`].
    #[inline(always)]
    pub fn claim(&mut self, len: usize) -> Result<Claim<'_>> {
        self.claim_timeout(len, self.lease.options.write_timeout)
    }

    /// Room for a message of `len` bytes, or `Full` at once.
    ///
    /// # Errors
    /// As for [`Writer::try_write`].
    #[inline(always)]
    pub fn try_claim(&mut self, len: usize) -> Result<Claim<'_>> {
        let start = match self.claim_now(len) {
            Some(start) => start,
            None => match self.claim_once(len) {
                Err(Error::Full) => return self.refuse(),
                done => done?,
            },
        };
        Ok(Claim { start, len, writer: self })
    }

    /// Room for a message of `len` bytes; waits for it for at most `timeout`.
    ///
    /// # Errors
    /// As for [`Writer::write`].
    #[inline(always)]
    pub fn claim_timeout(&mut self, len: usize, timeout: Duration) -> Result<Claim<'_>> {
        let start = match self.claim_now(len) {
            Some(start) => start,
            None => self.claim_waiting(len, timeout)?,
        };
        Ok(Claim { start, len, writer: self })
    }

    /// The hot path, as for writing.
    #[inline(always)]
    fn claim_now(&mut self, len: usize) -> Option<*mut u8> {
        if self.is_special | !self.birth.is_here() {
            return None;
        }
        self.ring.claim_now(len)
    }

    #[inline(never)]
    fn claim_waiting(&mut self, len: usize, timeout: Duration) -> Result<*mut u8> {
        let mut waiter = Waiter::new(self.lease.options.wait, timeout);
        loop {
            match self.claim_once(len) {
                Err(Error::Full) => {}
                done => return done,
            }
            if waiter.is_fresh() {
                self.count_full();
            }
            if !self.wait_for_room(&mut waiter, len) {
                return Err(Error::Timeout);
            }
        }
    }

    #[inline(never)]
    fn claim_once(&mut self, len: usize) -> Result<*mut u8> {
        if self.is_special | !self.birth.is_here() {
            self.enter()?;
        }
        match self.ring.claim(len) {
            Ok(_) if self.ring.is_racing() => {
                self.scratch.resize(len, 0);
                Ok(self.scratch.as_mut_ptr())
            }
            Ok(start) => Ok(start),
            Err(error) => self.stumble(error).and_then(|()| self.claim_once(len)),
        }
    }

    #[inline(always)]
    fn commit(&mut self, start: *const u8, len: usize) -> Result<()> {
        if !self.birth.is_here() {
            return Err(Error::Forked);
        }
        if self.ring.is_racing() {
            return self.commit_copy(len);
        }
        // SAFETY: only a `Claim` commits, whose room was claimed last, since it borrows the writer.
        unsafe { self.ring.commit(len) };
        if self.is_left_alone() { Ok(()) } else { self.attend_claim(start, len) }
    }

    /// In a direction that is overwritten a claim is private memory, written when it is committed.
    #[cold]
    fn commit_copy(&mut self, len: usize) -> Result<()> {
        let scratch = std::mem::take(&mut self.scratch);
        let done = self.write(&scratch[..len]);
        self.scratch = scratch;
        done
    }

    #[cold]
    fn attend_claim(&mut self, start: *const u8, len: usize) -> Result<()> {
        // SAFETY: the message lies where it was claimed, in the old segment if it must be sent again
        // in a new one: that stays mapped while `segment` is held. Nobody writes there but us.
        let copy = unsafe { std::slice::from_raw_parts(start, len) }.to_vec();
        match self.attend_write(&copy) {
            Err(Error::Full) => self.write(&copy),
            done => done,
        }
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
        if let Some(lost) = self.lease.orphaned() {
            return Err(lost);
        }
        if is_by_hand {
            self.lease.beat();
            self.lease.observe_if_due();
        }
        Ok(())
    }

    /// A full ring may be so because the segment was replaced; anything else is passed on. `Ok` if it is
    /// worth another try at once: one that is overwritten is full for no other reason.
    #[cold]
    fn stumble(&mut self, error: Error) -> Result<()> {
        if let Error::Corrupt { .. } = error {
            self.is_special = true;
            self.lease.condemn(error.clone());
        }
        if error == Error::Full {
            self.lease.note_progress(&self.segment);
            // A skip or an announcement may be there, for which the reader is to be woken.
            if self.ring.ring().data_bell().glance() != 0 {
                let rung = self.answer();
                if let Some(trouble) = self.lease.trouble() {
                    return Err(trouble);
                }
                if rung & SEALED != 0 {
                    let old = Arc::clone(&self.segment);
                    self.follow(self.lease.seat_after(&self.segment)?)?;
                    if self.ring.is_racing() && !Arc::ptr_eq(&old, &self.segment) {
                        return Ok(());
                    }
                }
            }
        }
        Err(error)
    }

    #[cold]
    fn refuse<T>(&self) -> Result<T> {
        self.count_full();
        Err(Error::Full)
    }

    fn count_full(&self) {
        let stats = &self.ring.ring().lines().producer_stats;
        // Relaxed: figures of this side alone.
        stats
            .times_full
            .store(stats.times_full.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.ring.note_full();
    }

    /// Somebody rang while a message was written.
    #[doc(hidden)]
    #[cold]
    #[inline(never)]
    pub fn attend_write(&mut self, message: &[u8]) -> Result<()> {
        let end = self.ring.head();
        if self.answer() & SEALED == 0 {
            return Ok(());
        }
        if end.wrapping_sub(self.cut()?.pos) as i64 <= 0 {
            self.cross_over();
            return Ok(());
        }
        // Behind the cut the message was never written: once more, where it counts.
        self.follow(self.lease.seat_after(&self.segment)?)?;
        self.try_once(message)
    }

    /// The same for messages that were all written just now.
    #[cold]
    fn attend_many<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<usize> {
        let first = self.ring.number().wrapping_sub(messages.len() as u64);
        if self.answer() & SEALED == 0 {
            return Ok(messages.len());
        }
        // Counted by number: of a batch longer than a lap the first ones are overwritten already.
        let inside = self.cut()?.number.wrapping_sub(first);
        if (1..=i64::MAX as u64).contains(&inside) {
            self.cross_over();
            return Ok(messages.len().min(inside as usize));
        }
        self.follow(self.lease.seat_after(&self.segment)?)?;
        self.try_many_once(messages)
    }

    /// Does what the bell asks for, and says what it said.
    fn answer(&mut self) -> u32 {
        let ring = *self.ring.ring();
        let bell = ring.data_bell();
        let rung = bell.look();
        if rung & SLEEP != 0 && bell.take_sleep() {
            futex::wake(bell.0, i32::MAX);
            let wakes = &ring.lines().producer_stats.wakes;
            // Relaxed: a figure of this side alone.
            wakes.store(wakes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
        if rung & LOOK != 0 && bell.clear(LOOK) {
            self.is_special = true;
            if rung & SEALED == 0 {
                // What is wrong is told by the next call; this one has done its work.
                self.cross_over();
            }
        }
        rung
    }

    /// Goes where the seat is. What is in the way is told by the next call.
    fn cross_over(&mut self) {
        match self.lease.seat_after(&self.segment).and_then(|seat| self.follow(seat)) {
            Ok(()) => {}
            Err(error) => {
                self.lease.note(&error);
                self.is_special = true;
            }
        }
    }

    fn follow(&mut self, seat: Seat) -> Result<()> {
        if !Arc::ptr_eq(&seat.segment, &self.segment) {
            self.ring = Producer::resume(seat.segment.ring(self.lease.role.writes()), seat.epoch)?;
            self.segment = seat.segment;
        }
        Ok(())
    }

    /// Where this direction was cut.
    fn cut(&self) -> Result<Place> {
        Ok(self.lease.cut(&self.segment, self.lease.role.writes())?.head)
    }
}

/// Room in the ring, to be filled in place and committed; dropped, it was never there.
pub struct Claim<'a> {
    writer: &'a mut Writer,
    start: *mut u8,
    len: usize,
}

impl Claim<'_> {
    /// Makes the message of it.
    ///
    /// # Errors
    /// What makes the endpoint unusable; the message is not sent then.
    #[inline]
    pub fn commit(self) -> Result<()> {
        self.writer.commit(self.start, self.len)
    }

    /// Gives the room back, as dropping does: it was never there.
    pub fn abort(self) {}

    /// Makes a message of its first `len` bytes.
    ///
    /// # Errors
    /// `TooLong` if it has fewer; else as for [`Claim::commit`].
    #[inline]
    pub fn commit_len(self, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Error::TooLong { len, max: self.len });
        }
        self.writer.commit(self.start, len)
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` on were claimed; until the commit nobody else reads or
        // writes them (a tap does not believe frames that are not committed). They hold whatever
        // was there, which is initialised memory.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl DerefMut for Claim<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and the claim is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}
