//! What a bus handle stands for: two halves, each a seat of its own, and what both show.

use std::ffi::c_int;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

use eshm::{Claim, Direction, Endpoint, Error, Geometry, Now, Peek, Reader, Role, Watch, Writer};

use crate::again::{Again, Outcome};
use crate::fault::Fault;
use crate::seat::{
    Awaited, COURTESY, Quick, SLICE, Seat, Value, Way, attend, explain, quickly, still_quickly,
};
use crate::slab::{Found, Key, Reserved, Slab};
use crate::thread::{Kind, Record};
use crate::turn::{Denied, Held};

/// What a program holds a pointer to; nothing is ever there.
#[repr(C)]
pub struct ESHMHandle {
    _nothing: [u8; 0],
}

/// All open buses of this process.
static BUSES: Slab<Bus> = Slab::new(1, Bus::fresh);

/// One open bus, or the place for one.
#[repr(C)]
pub struct Bus {
    /// The half that writes.
    writer: Seat<WriteEnd>,
    /// The half that reads.
    reader: Seat<ReadEnd>,
    shown: RwLock<Option<Shown>>,
    /// How many buses were opened here one after another. Changes with both turns held only.
    lives: AtomicU64,
}

/// How long what is shown is waited for. It is looked at and changed for an instant; but a signal
/// handler that interrupted that waits for itself.
const LOOKING: Duration = Duration::from_secs(2);

/// What is told without taking a turn at either half.
pub struct Shown {
    /// The state of both sides.
    pub watch: Watch,
    /// The role that was got.
    pub role: Role,
    /// The shapes of the directions; a segment keeps them for life.
    geometry: [Geometry; 2],
    /// The threshold that was asked for.
    pub stale_after_ms: u32,
    /// The wishes about memory that were refused, as bits.
    pub refused: u32,
    /// The beats of master and slave when this handle asked last.
    beats_seen: [AtomicU64; 2],
}

/// Whether [`LOOKING`] is over, which begins when this is asked first.
fn is_over(end: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    now > *end.get_or_insert(now + LOOKING)
}

impl Shown {
    fn of(endpoint: &Endpoint, stale_after_ms: u32) -> Shown {
        let watch = endpoint.watch();
        let stats = watch.stats();
        Shown {
            watch,
            role: endpoint.role(),
            geometry: Direction::BOTH.map(|direction| endpoint.geometry(direction)),
            stale_after_ms,
            refused: endpoint.refused().iter().map(crate::types::wish_bit).sum(),
            beats_seen: [stats.master.beats, stats.slave.beats].map(AtomicU64::new),
        }
    }

    /// The shape of one direction.
    #[must_use]
    pub fn geometry(&self, direction: Direction) -> Geometry {
        self.geometry[direction as usize]
    }

    /// How many beats there were since the last time, of master and slave.
    #[must_use]
    pub fn beats_since(&self, now: [u64; 2]) -> [u64; 2] {
        let since = |role: usize| {
            // Relaxed: a figure for people; every beat is counted for one of the callers.
            now[role].saturating_sub(self.beats_seen[role].swap(now[role], Ordering::Relaxed))
        };
        [since(0), since(1)]
    }
}

/// A value at a place of its own, which a claim or a peek can go on pointing to.
pub struct Pinned<T>(NonNull<T>);

// SAFETY: owns the value, like a box.
unsafe impl<T: Send> Send for Pinned<T> {}

impl<T> Pinned<T> {
    fn new(value: T) -> Self {
        Pinned(NonNull::from(Box::leak(Box::new(value))))
    }

    /// The value for as long as this object is there.
    ///
    /// # Safety
    ///
    /// Neither the reference nor what borrows from it may be used after `self` is dropped, nor
    /// `self` be used before they are gone.
    pub unsafe fn get_long(&mut self) -> &'static mut T {
        // SAFETY: the place is valid until `drop`; the caller keeps the references apart.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Deref for Pinned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: valid until `drop`, and borrowed like `self`.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Pinned<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: valid until `drop`, and borrowed like `self`.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: made by `Box::leak`, and nobody has it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The half that writes.
pub struct WriteEnd {
    /// The open claim. It borrows the writer, so it is declared, and dropped, before it; while it
    /// is there the writer is not touched.
    pub claim: Option<Claim<'static>>,
    /// The writer.
    pub writer: Pinned<Writer>,
}

// SAFETY: a claim is an exclusive borrow of the writer, which may move between threads, and a
// pointer into the mapping that the writer keeps.
unsafe impl Send for WriteEnd {}

impl Value for WriteEnd {
    #[inline(always)]
    fn open_place(&mut self) -> Option<NonNull<()>> {
        (self.claim.is_none() && self.writer.is_plain()).then_some(self.writer.0.cast())
    }
}

impl Awaited for WriteEnd {
    const NOTHING: Error = Error::Full;

    #[inline]
    fn is_occupied(&self) -> bool {
        self.claim.is_some()
    }
}

/// The half that reads.
pub struct ReadEnd {
    /// The open peek; as the claim of [`WriteEnd`].
    pub peek: Option<Peek<'static>>,
    /// How many messages were lost, and how many of them the program was told of.
    pub losses: Losses,
    /// How to open the bus again when it is lost: of handles of ESHM 1.0 only.
    pub again: Option<Box<Again>>,
    /// The reader.
    pub reader: Pinned<Reader>,
}

/// Counts lost messages over all the readers that a handle has, one after another.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Losses {
    /// Of the readers before.
    before: u64,
    /// Of the present reader, when it was asked last.
    seen: u64,
    /// What the program was told of, of all.
    told: u64,
}

impl Losses {
    /// How many there were in all, where the present reader counts so many. A reader that counts less
    /// than before began anew.
    pub fn total(&mut self, counted: u64) -> u64 {
        if counted < self.seen {
            self.before = self.before.wrapping_add(self.seen);
        }
        self.seen = counted;
        self.before.wrapping_add(counted)
    }

    /// How many of them the program was not told of yet; it is told now.
    pub fn untold(&mut self, counted: u64) -> u64 {
        let total = self.total(counted);
        // The total never goes back.
        total.wrapping_sub(std::mem::replace(&mut self.told, total))
    }

    /// Another reader counts from here on, from 0.
    fn renew(&mut self, counted: u64) {
        self.before = self.total(counted);
        self.seen = 0;
    }
}

// SAFETY: as for `WriteEnd`.
unsafe impl Send for ReadEnd {}

impl Value for ReadEnd {
    #[inline(always)]
    fn open_place(&mut self) -> Option<NonNull<()>> {
        (self.peek.is_none() && self.reader.is_plain()).then_some(self.reader.0.cast())
    }
}

impl Awaited for ReadEnd {
    const NOTHING: Error = Error::Empty;

    #[inline]
    fn is_occupied(&self) -> bool {
        self.peek.is_some()
    }
}

/// An open handle.
pub struct Open {
    found: Found<Bus>,
}

impl Open {
    /// Looks a handle up.
    #[inline]
    pub fn find(handle: *const ESHMHandle) -> Result<Open, Fault> {
        match BUSES.find(handle.addr()) {
            Some(found) => Ok(Open { found }),
            None => Err(Fault::NoHandle),
        }
    }

    /// The way to the half that writes.
    #[inline]
    pub fn writer(&self) -> Way<'static, WriteEnd> {
        self.found.slot.body.writer.by(self.key())
    }

    /// The way to the half that reads.
    #[inline]
    pub fn reader(&self) -> Way<'static, ReadEnd> {
        self.found.slot.body.reader.by(self.key())
    }

    /// Tells whether the handle is still open.
    #[inline]
    #[must_use]
    fn key(&self) -> Key {
        self.found.key()
    }

    /// Looks at what the handle shows.
    pub fn with_shown<T>(&self, look: impl FnOnce(&Shown) -> T) -> Result<T, Fault> {
        let bus = &self.found.slot.body;
        if bus.writer.is_inherited() {
            return Err(Fault::Eshm(Error::Forked));
        }
        let mut end = None;
        let shown = loop {
            match bus.shown.try_read() {
                Ok(shown) => break shown,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                // Being destroyed. Not waited for in the lock: its holder may be in the parent.
                Err(TryLockError::WouldBlock) if !self.key().is_open() => {
                    return Err(Fault::NoHandle);
                }
                // Being changed, which is over at once unless this is a handler that interrupted it.
                Err(TryLockError::WouldBlock) if is_over(&mut end) => return Err(Fault::Nested),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        };
        match shown.as_ref() {
            Some(shown) if self.key().is_open() => Ok(look(shown)),
            _ => Err(Fault::NoHandle),
        }
    }

    /// Closes the handle, after the calls that other threads are in have ended.
    pub fn close(self) -> Result<(), Fault> {
        let reserved = self.found.close().ok_or(Fault::NoHandle)?;
        let bus = &reserved.slot.body;
        // From here on calls find the handle closed; those that wait see it within a slice.
        match bus.leave() {
            Ok(()) => Ok(()),
            // From a signal handler inside a call of this thread: that call still needs it.
            Err(Denied::Nested | Denied::Busy) => {
                reserved.reopen();
                Err(Fault::Nested)
            }
            // A child of the process that opened it, and what it holds was in use at the fork. The
            // operating system takes it down with the child.
            Err(Denied::Forked) => {
                std::mem::forget(reserved);
                Ok(())
            }
        }
    }

    /// Which of the buses that the handle has one after another it has now.
    #[inline]
    #[must_use]
    pub fn life(&self) -> u64 {
        // Acquire: pairs with `open_again`; who sees the number sees the ends.
        self.found.slot.body.lives.load(Ordering::Acquire)
    }

    /// After a call was told that the bus it had in this life is lost: opens it again if the handle is
    /// one for which that is done, and if it is time. If not, what the call was told stays.
    pub fn open_again(&self, life: u64, fault: Fault) -> Result<Outcome, Fault> {
        let bus = &self.found.slot.body;
        let busy = |denied| explain(denied, Error::Timeout);
        let (mut writing, mut reading) = bus.hold_both().map_err(busy)?;
        if !self.key().is_open() {
            return Err(Fault::NoHandle);
        }
        if bus.lives.load(Ordering::Relaxed) != life {
            return Ok(Outcome::Opened);
        }
        let (writer, reader) = (bus.writer.value(&mut writing), bus.reader.value(&mut reading));
        let (Some(writer), Some(reader)) = (writer, reader) else { return Err(Fault::NoHandle) };
        let Some(again) = reader.again.as_mut() else { return Err(fault) };
        let now = Instant::now();
        // What an open claim or peek points to must stay where it is.
        if writer.claim.is_some() || reader.peek.is_some() {
            return Ok(Outcome::NotYet(now + SLICE));
        }
        let Some(endpoint) = again.look(now)? else { return Ok(again.outcome(now)) };
        let Some(mut shown) = bus.shown_to_change() else {
            return Ok(Outcome::NotYet(now + SLICE));
        };
        reader.losses.renew(reader.reader.lost());
        let stale_after_ms = shown.as_ref().map_or(0, |shown| shown.stale_after_ms);
        *shown = Some(Shown::of(&endpoint, stale_after_ms));
        let (new_writer, new_reader) = endpoint.split();
        let old = (
            std::mem::replace(&mut writer.writer, Pinned::new(new_writer)),
            std::mem::replace(&mut reader.reader, Pinned::new(new_reader)),
        );
        bus.lives.store(life + 1, Ordering::Release);
        drop(shown);
        drop(old);
        Ok(Outcome::Opened)
    }
}

impl Bus {
    fn fresh() -> Bus {
        Bus {
            writer: Seat::new(Kind::Writing),
            reader: Seat::new(Kind::Reading),
            shown: RwLock::new(None),
            lives: AtomicU64::new(0),
        }
    }

    /// Takes both turns. Nobody waits for the one with the other in hand: a signal handler that
    /// interrupted a call on the other half may be waiting for the one.
    fn hold_both(&self) -> Result<(Held<'_>, Held<'_>), Denied> {
        loop {
            let writing = self.writer.hold()?;
            match self.reader.hold_within(SLICE) {
                Ok(reading) => return Ok((writing, reading)),
                Err(Denied::Busy) => {}
                Err(denied) => return Err(denied),
            }
            drop(writing);
            std::thread::sleep(COURTESY);
        }
    }

    /// What is shown, to be changed; `None` if somebody looks at it all the time.
    fn shown_to_change(&self) -> Option<RwLockWriteGuard<'_, Option<Shown>>> {
        let mut end = None;
        loop {
            match self.shown.try_write() {
                Ok(shown) => return Some(shown),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            if is_over(&mut end) {
                return None;
            }
            std::thread::yield_now();
        }
    }

    fn leave(&self) -> Result<(), Denied> {
        let (mut writing, mut reading) = self.hold_both()?;
        let shown = match self.writer.is_inherited() {
            // In a child the lock may be held by a thread that exists in the parent only.
            true => self.shown.try_write().ok(),
            false => Some(self.shown_to_change().ok_or(Denied::Busy)?),
        };
        let halves = (self.writer.empty(&mut writing), self.reader.empty(&mut reading));
        if let Some(mut shown) = shown {
            *shown = None;
        }
        drop(halves);
        Ok(())
    }
}

/// Makes a try to write, if the thread has a ticket.
#[inline(always)]
pub fn write_quickly(
    handle: *const ESHMHandle,
    now: impl FnOnce(&mut Writer) -> Now<c_int>,
) -> Quick {
    // SAFETY: a bus has tickets for its `Writer` when writing.
    unsafe { quickly(Kind::Writing, handle.addr(), now) }
}

/// Makes another try to write, for who stepped in by [`write_quickly`].
///
/// # Safety
///
/// The thread did so for this handle, by this record, and did not step out.
#[inline(always)]
pub unsafe fn still_write(
    inside: Option<&'static Record>,
    handle: *const ESHMHandle,
    now: impl FnOnce(&mut Writer) -> Now<c_int>,
) -> Quick {
    // SAFETY: as the caller promises.
    unsafe { still_quickly(inside, handle.addr(), now) }
}

/// Does what somebody rang for after a quick try to write.
///
/// # Safety
///
/// The try was for this handle, and said so with this record.
pub unsafe fn attend_write<A>(
    record: &'static Record,
    handle: *const ESHMHandle,
    now: impl FnOnce(&mut Writer) -> A,
) -> A {
    // SAFETY: as the caller promises.
    unsafe { attend(record, handle.addr(), now) }
}

/// As [`write_quickly`], to read.
#[inline(always)]
pub fn read_quickly(
    handle: *const ESHMHandle,
    now: impl FnOnce(&mut Reader) -> Now<c_int>,
) -> Quick {
    // SAFETY: a bus has tickets for its `Reader` when reading.
    unsafe { quickly(Kind::Reading, handle.addr(), now) }
}

/// As [`still_write`], to read.
///
/// # Safety
///
/// As there.
#[inline(always)]
pub unsafe fn still_read(
    inside: Option<&'static Record>,
    handle: *const ESHMHandle,
    now: impl FnOnce(&mut Reader) -> Now<c_int>,
) -> Quick {
    // SAFETY: as the caller promises.
    unsafe { still_quickly(inside, handle.addr(), now) }
}

/// As [`attend_write`], to read.
///
/// # Safety
///
/// As there.
pub unsafe fn attend_read<A>(
    record: &'static Record,
    handle: *const ESHMHandle,
    now: impl FnOnce(&mut Reader) -> A,
) -> A {
    // SAFETY: as the caller promises.
    unsafe { attend(record, handle.addr(), now) }
}

/// Makes a handle for an endpoint, which may be one that opens its bus again.
pub fn publish(
    endpoint: Endpoint,
    stale_after: Duration,
    again: Option<Again>,
) -> Result<*mut ESHMHandle, Fault> {
    let reserved: Reserved<Bus> = BUSES.reserve().ok_or(Fault::Param("too many open handles"))?;
    let bus = &reserved.slot.body;
    let stale_after_ms = u32::try_from(stale_after.as_millis()).unwrap_or(u32::MAX);
    let shown = Shown::of(&endpoint, stale_after_ms);
    *bus.shown.write().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    let (writer, reader) = endpoint.split();
    bus.writer.fill(reserved.handle(), WriteEnd { claim: None, writer: Pinned::new(writer) })?;
    bus.reader.fill(
        reserved.handle(),
        ReadEnd {
            peek: None,
            losses: Losses::default(),
            again: again.map(Box::new),
            reader: Pinned::new(reader),
        },
    )?;
    Ok(std::ptr::without_provenance_mut(reserved.publish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_told_once_and_exactly() {
        let mut losses = Losses::default();
        assert_eq!([3, 3, 10].map(|counted| losses.untold(counted)), [3, 0, 7]);
        // A bus made anew counts from 0, perhaps before anybody asked.
        assert_eq!([0, 2, 2].map(|counted| losses.untold(counted)), [0, 2, 0]);
        assert_eq!(losses.total(2), 12);
        assert_eq!((losses.untold(1), losses.total(1)), (1, 13));
    }

    #[test]
    fn another_reader_goes_on_counting() {
        let mut losses = Losses::default();
        assert_eq!(losses.untold(4), 4);
        losses.renew(6);
        // More than before, so that it does not show in the number.
        assert_eq!((losses.untold(9), losses.total(9)), (11, 15));
        losses.renew(9);
        assert_eq!((losses.untold(0), losses.total(0)), (0, 15));
    }
}
