//! A seat: a value that one thread at a time may use, and that may be taken away for good.
//!
//! Waiting calls hold their seat for a slice of time only. So a handle can be destroyed, and
//! another thread gets its turn, while one waits for a message that does not come.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use eshm::{Error, Now};

use crate::fault::Fault;
use crate::slab::Key;
use crate::thread::{self, Kind, Record, Step};
use crate::turn::{Denied, Held, Patience, Turn};

/// The longest that a call waits without looking whether its handle is still open.
pub const SLICE: Duration = Duration::from_millis(20);
/// How long a waiting thread stands back for others that want the same seat.
pub const COURTESY: Duration = Duration::from_micros(200);
/// The timeout that never runs out.
pub const FOREVER: u32 = u32::MAX;

/// A value and the turns at it.
#[repr(C)]
pub struct Seat<V> {
    value: UnsafeCell<Option<V>>,
    turn: Turn,
}

// SAFETY: the value is reached only through `Seated`, which is had by one thread at a time; it
// moves between threads, hence `Send`.
unsafe impl<V: Send> Sync for Seat<V> {}

/// What a seat can hold.
pub trait Value {
    /// Where the usual thread may find it next time without asking, if that is allowed as it is now.
    fn open_place(&mut self) -> Option<NonNull<()>> {
        None
    }
}

/// The value, for as long as this thread has its turn.
pub struct Seated<'a, V: Value> {
    value: &'a mut V,
    held: Held<'a>,
}

/// The way to a seat, with the key to it, and perhaps one foot inside.
pub struct Way<'a, V> {
    seat: &'a Seat<V>,
    key: Key,
    step: Option<Step>,
}

impl<V: Value> Seat<V> {
    /// An empty seat whose turn is of this kind.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Seat { value: UnsafeCell::new(None), turn: Turn::new(kind) }
    }

    /// Puts a value in. Only by who has the slot of this seat for itself.
    pub fn fill(&self, handle: usize, value: V) -> Result<(), Fault> {
        self.turn.renew(handle);
        // Held against a call on a stale handle of this slot, which looks at nothing but the turn.
        let _held = self
            .turn
            .enter(|| Patience::Endless)
            .map_err(|denied| explain(denied, Error::Timeout))?;
        // SAFETY: the turn is held.
        unsafe { *self.value.get() = Some(value) };
        Ok(())
    }

    /// Takes the turn, to empty the seat.
    pub fn hold(&self) -> Result<Held<'_>, Denied> {
        self.turn.enter(|| Patience::Endless)
    }

    /// As [`Seat::hold`], but not for longer than this.
    pub fn hold_within(&self, time: Duration) -> Result<Held<'_>, Denied> {
        self.turn.enter(|| Patience::Until(Instant::now() + time))
    }

    /// Takes the value out, and the ticket that leads to it.
    pub fn empty(&self, held: &mut Held<'_>) -> Option<V> {
        self.value(held).take()
    }

    /// The value, for who holds the turn. No ticket leads to it any more.
    pub fn value<'a>(&'a self, held: &'a mut Held<'_>) -> &'a mut Option<V> {
        assert!(held.is_of(&self.turn), "the turn of another seat");
        held.allow(|| None);
        // SAFETY: the turn is held, and borrowed for as long as the reference lives.
        unsafe { &mut *self.value.get() }
    }

    /// Whether this process is a child of the one that filled the seat.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.turn.is_inherited()
    }

    /// The way here.
    #[inline]
    pub fn by(&self, key: Key) -> Way<'_, V> {
        Way { seat: self, key, step: None }
    }
}

impl<'a, V: Value> Way<'a, V> {
    /// The same way for who may have stepped in.
    #[inline]
    #[must_use]
    pub fn from(self, step: Option<Step>) -> Self {
        Way { step, ..self }
    }

    /// Takes the seat for something that is done at once.
    pub fn take_briefly(mut self) -> Result<Seated<'a, V>, Fault> {
        self.take(|| Patience::Endless, || Error::Timeout)
    }

    /// Takes the seat, if the handle is still open then.
    #[inline(always)]
    fn take(
        &mut self,
        patience: impl FnOnce() -> Patience,
        busy: impl FnOnce() -> Error,
    ) -> Result<Seated<'a, V>, Fault> {
        let entered = match self.step.take() {
            Some(step) => self.seat.turn.enter_from(step, patience),
            None => self.seat.turn.enter(patience),
        };
        let held = match entered {
            Ok(held) => held,
            Err(denied) => return Err(explain(denied, busy())),
        };
        if !self.key.is_open() {
            return Err(Fault::NoHandle);
        }
        // SAFETY: the turn is held for as long as the reference lives.
        match unsafe { (*self.seat.value.get()).as_mut() } {
            Some(value) => Ok(Seated { value, held }),
            None => Err(Fault::NoHandle),
        }
    }
}

impl<V: Value> Drop for Seated<'_, V> {
    #[inline(always)]
    fn drop(&mut self) {
        self.held.allow(|| self.value.open_place());
    }
}

/// What a call fails with that did not get its turn.
#[cold]
pub fn explain(denied: Denied, busy: Error) -> Fault {
    match denied {
        Denied::Busy => Fault::Eshm(busy),
        Denied::Nested => Fault::Nested,
        Denied::Forked => Fault::Eshm(Error::Forked),
    }
}

impl<V: Value> Deref for Seated<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.value
    }
}

impl<V: Value> DerefMut for Seated<'_, V> {
    fn deref_mut(&mut self) -> &mut V {
        self.value
    }
}

/// So short a wait that it is only a few looks more, which is all that a busy peer needs.
const BRIEF: Duration = Duration::from_nanos(1);

/// What can be waited for.
pub trait Awaited: Value {
    /// What a call that does not wait gives when there is nothing: [`Error::Empty`] or
    /// [`Error::Full`].
    const NOTHING: Error;

    /// Whether a claim or a peek is open, so that there is nothing for anybody else.
    fn is_occupied(&self) -> bool;
}

/// What came of a quick try.
pub enum Quick {
    /// It is done, with this answer.
    Done(c_int),
    /// It is done, and somebody rang; still inside.
    Rung(&'static Record),
    /// Nothing was done; perhaps still inside.
    Not(Option<&'static Record>),
}

/// Makes a try, if the thread steps in with a ticket.
///
/// # Safety
///
/// What handles of this kind have tickets for ([`Value::open_place`]) must be a `T`.
#[inline(always)]
pub unsafe fn quickly<T>(
    kind: Kind,
    handle: usize,
    now: impl FnOnce(&mut T) -> Now<c_int>,
) -> Quick {
    // SAFETY: as the caller promises.
    unsafe { still_quickly(thread::step_in(kind, handle), handle, now) }
}

/// Makes another try, if the thread is still inside with its ticket.
///
/// # Safety
///
/// As for [`quickly`], by which the thread stepped in.
#[inline(always)]
pub unsafe fn still_quickly<T>(
    inside: Option<&'static Record>,
    handle: usize,
    now: impl FnOnce(&mut T) -> Now<c_int>,
) -> Quick {
    let Some(record) = inside.filter(|record| record.has_ticket(handle)) else {
        return Quick::Not(inside);
    };
    // SAFETY: it is what the caller says. Until the thread steps out, nobody else uses it or takes it
    // away: who withdraws the ticket waits for that.
    let value = unsafe { &mut *record.place().cast::<T>() };
    match now(value) {
        Now::Done(code) => Quick::Done(record.step_out(handle, code)),
        Now::Rung(_) => Quick::Rung(record),
        Now::Not => Quick::Not(inside),
    }
}

/// Does what is left to do after a quick try, when somebody rang. Nobody came in between, whoever
/// wants the turn or the handle meanwhile.
///
/// # Safety
///
/// As for [`quickly`], which said [`Quick::Rung`].
pub unsafe fn attend<T, A>(
    record: &'static Record,
    handle: usize,
    attend: impl FnOnce(&mut T) -> A,
) -> A {
    let _step = Step::new(record);
    // SAFETY: as in `still_quickly`: the thread is still inside.
    let value = unsafe { &mut *record.place().cast::<T>() };
    // What it finds may change the value so that another call must look at it.
    record.withdraw(handle);
    attend(value)
}

/// Makes one try, now.
#[inline(always)]
pub fn at_once<V: Awaited, T>(
    mut way: Way<'_, V>,
    now: impl FnOnce(&mut V) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut seated = way.take(|| Patience::Short, || V::NOTHING)?;
    if seated.is_occupied() { Err(Fault::Eshm(V::NOTHING)) } else { now(&mut seated) }
}

/// Makes a try `now`, and then, for as long as there is time and nothing there, tries that wait.
/// Both get what is `given`. They are two so that each is called in one place, and `now` becomes a
/// part of its caller.
#[inline(always)]
pub fn with_time<V: Awaited, G, T>(
    mut way: Way<'_, V>,
    timeout_ms: u32,
    mut given: G,
    now: impl FnOnce(&mut V, &mut G) -> Result<T, Fault>,
    mut later: impl FnMut(&mut V, &mut G, Duration) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let is_now = timeout_ms == 0;
    let nothing = || if is_now { V::NOTHING } else { Error::Timeout };
    let mut seated = way.take(|| patience(timeout_ms), nothing)?;
    if seated.is_occupied() {
        if is_now {
            return Err(Fault::Eshm(V::NOTHING));
        }
    } else {
        match now(&mut seated, &mut given) {
            Ok(done) => return Ok(done),
            Err(fault) if is_now || !is_nothing(&fault) => return Err(fault),
            Err(_) => {}
        }
    }
    wait_in_slices(way, seated, timeout_ms, |value, wait| later(value, &mut given, wait))
}

#[inline(never)]
fn wait_in_slices<'a, V: Awaited, T>(
    mut way: Way<'a, V>,
    first: Seated<'a, V>,
    timeout_ms: u32,
    mut later: impl FnMut(&mut V, Duration) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut seated = first;
    if !seated.is_occupied() {
        match later(&mut seated, BRIEF) {
            Err(fault) if is_nothing(&fault) => {}
            done => return done,
        }
    }
    // The clock is read after the first slice only: whoever is answered at once never needs it.
    let mut end = None;
    let mut slice = SLICE.min(limit(timeout_ms));
    loop {
        let occupied = seated.is_occupied();
        if !occupied {
            let Seated { value, held } = &mut seated;
            match held.patiently(|| later(value, slice)) {
                Err(fault) if is_nothing(&fault) => {}
                done => return done,
            }
        }
        let stand_back = occupied || seated.held.is_wanted();
        drop(seated);
        let end = *end.get_or_insert_with(|| {
            let waited = if occupied { Duration::ZERO } else { slice };
            Instant::now() + (limit(timeout_ms) - waited)
        });
        if stand_back {
            std::thread::sleep(COURTESY);
        }
        slice = SLICE.min(end.saturating_duration_since(Instant::now()));
        if slice.is_zero() && timeout_ms != FOREVER {
            return Err(Fault::Eshm(Error::Timeout));
        }
        seated = way.take(|| until(timeout_ms, end), || Error::Timeout)?;
    }
}

fn is_nothing(fault: &Fault) -> bool {
    matches!(fault, Fault::Eshm(Error::Empty | Error::Full | Error::Timeout))
}

fn limit(timeout_ms: u32) -> Duration {
    Duration::from_millis(timeout_ms.into())
}

fn patience(timeout_ms: u32) -> Patience {
    match timeout_ms {
        0 => Patience::Short,
        _ => until(timeout_ms, Instant::now() + limit(timeout_ms)),
    }
}

fn until(timeout_ms: u32, end: Instant) -> Patience {
    if timeout_ms == FOREVER { Patience::Endless } else { Patience::Until(end) }
}
