//! What a bus handle stands for: two halves, each a seat of its own, and what both show.

use std::ffi::c_int;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, TryLockError};
use std::time::Duration;

use eshm::{Claim, Direction, Endpoint, Error, Geometry, Now, Peek, Reader, Role, Watch, Writer};

use crate::fault::Fault;
use crate::seat::{Awaited, Quick, Seat, Value, Way, attend, quickly, still_quickly};
use crate::slab::{Found, Key, Reserved, Slab};
use crate::thread::{Kind, Record, Step};
use crate::turn::Denied;

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
}

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

impl Shown {
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
    /// How many lost messages the program was told of.
    pub lost_told: u64,
    /// The reader.
    pub reader: Pinned<Reader>,
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
        let shown = loop {
            match bus.shown.try_read() {
                Ok(shown) => break shown,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                // Being destroyed. Not waited for in the lock: its holder may be in the parent.
                Err(TryLockError::WouldBlock) if !self.key().is_open() => {
                    return Err(Fault::NoHandle);
                }
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
            Err(Denied::Nested) => {
                reserved.reopen();
                Err(Fault::Nested)
            }
            // A child of the process that opened it, and what it holds was in use at the fork. The
            // operating system takes it down with the child.
            Err(Denied::Forked | Denied::Busy) => {
                std::mem::forget(reserved);
                Ok(())
            }
        }
    }
}

impl Bus {
    fn fresh() -> Bus {
        Bus {
            writer: Seat::new(Kind::Writing),
            reader: Seat::new(Kind::Reading),
            shown: RwLock::new(None),
        }
    }

    fn leave(&self) -> Result<(), Denied> {
        let (writing, reading) = (self.writer.hold()?, self.reader.hold()?);
        let halves = (self.writer.empty(&writing), self.reader.empty(&reading));
        // In a child the lock may be held by a thread that exists in the parent only.
        match self.shown.try_write() {
            Ok(mut shown) => *shown = None,
            Err(_) if self.writer.is_inherited() => {}
            Err(_) => *self.shown.write().unwrap_or_else(PoisonError::into_inner) = None,
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

/// The way to the half that writes, for who may have stepped in by [`write_quickly`].
pub fn writer_from(
    inside: Option<&'static Record>,
    handle: *const ESHMHandle,
) -> Result<Way<'static, WriteEnd>, Fault> {
    let step = inside.map(Step::new);
    Ok(Open::find(handle)?.writer().from(step))
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

/// As [`writer_from`], to read.
pub fn reader_from(
    inside: Option<&'static Record>,
    handle: *const ESHMHandle,
) -> Result<Way<'static, ReadEnd>, Fault> {
    let step = inside.map(Step::new);
    Ok(Open::find(handle)?.reader().from(step))
}

/// Makes a handle for an endpoint.
pub fn publish(endpoint: Endpoint, stale_after: Duration) -> Result<*mut ESHMHandle, Fault> {
    let reserved: Reserved<Bus> = BUSES.reserve().ok_or(Fault::Param("too many open handles"))?;
    let bus = &reserved.slot.body;
    let (role, watch) = (endpoint.role(), endpoint.watch());
    let stats = watch.stats();
    let shown = Shown {
        watch,
        role,
        geometry: Direction::BOTH.map(|direction| endpoint.geometry(direction)),
        stale_after_ms: u32::try_from(stale_after.as_millis()).unwrap_or(u32::MAX),
        refused: endpoint.refused().iter().map(crate::types::wish_bit).sum(),
        beats_seen: [stats.master.beats, stats.slave.beats].map(AtomicU64::new),
    };
    *bus.shown.write().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    let (writer, reader) = endpoint.split();
    bus.writer.fill(reserved.handle(), WriteEnd { claim: None, writer: Pinned::new(writer) })?;
    bus.reader.fill(
        reserved.handle(),
        ReadEnd { peek: None, lost_told: 0, reader: Pinned::new(reader) },
    )?;
    Ok(std::ptr::without_provenance_mut(reserved.publish()))
}
