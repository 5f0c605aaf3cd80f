//! A seat: a value that one thread at a time may use, and that may be taken away for good.
//!
//! Waiting calls hold their seat for a slice of time only. So a handle can be destroyed, and
//! another thread gets its turn, while one waits for a message that does not come.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use eshm::Error;

use crate::fault::Fault;
use crate::slab::Key;
use crate::thread::Kind;
use crate::turn::{Denied, Held, Patience, Turn};

/// The longest that a call waits without looking whether its handle is still open.
const SLICE: Duration = Duration::from_millis(20);
/// How long a waiting thread stands back for others that want the same seat.
const COURTESY: Duration = Duration::from_micros(200);
/// The timeout that never runs out.
const FOREVER: u32 = u32::MAX;

/// A value and the turns at it.
#[repr(C)]
pub struct Seat<V> {
    value: UnsafeCell<Option<V>>,
    turn: Turn,
}

// SAFETY: the value is reached only through `Seated`, which is had by one thread at a time; it
// moves between threads, hence `Send`.
unsafe impl<V: Send> Sync for Seat<V> {}

/// The value, for as long as this thread has its turn.
pub struct Seated<'a, V> {
    value: &'a mut V,
    held: Held<'a>,
}

impl<V> Seat<V> {
    /// An empty seat whose turn is of this kind.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Seat { value: UnsafeCell::new(None), turn: Turn::new(kind) }
    }

    /// Puts a value in. Only by who has the slot of this seat for itself.
    pub fn fill(&self, value: V) -> Result<(), Fault> {
        self.turn.renew();
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

    /// Takes the value out.
    pub fn empty(&self, held: &Held<'_>) -> Option<V> {
        assert!(held.is_of(&self.turn), "the turn of another seat");
        // SAFETY: the turn is held.
        unsafe { (*self.value.get()).take() }
    }

    /// Whether this process is a child of the one that filled the seat.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.turn.is_inherited()
    }

    /// Takes the seat for something that is done at once.
    pub fn take_briefly(&self, key: Key) -> Result<Seated<'_, V>, Fault> {
        self.take(key, || Patience::Endless, || Error::Timeout)
    }

    /// Takes the seat, if the handle is still open then.
    #[inline(always)]
    pub fn take(
        &self,
        key: Key,
        patience: impl FnOnce() -> Patience,
        busy: impl FnOnce() -> Error,
    ) -> Result<Seated<'_, V>, Fault> {
        let held = match self.turn.enter(patience) {
            Ok(held) => held,
            Err(denied) => return Err(explain(denied, busy())),
        };
        if !key.is_open() {
            return Err(Fault::NoHandle);
        }
        // SAFETY: the turn is held for as long as the reference lives.
        match unsafe { (*self.value.get()).as_mut() } {
            Some(value) => Ok(Seated { value, held }),
            None => Err(Fault::NoHandle),
        }
    }
}

#[cold]
fn explain(denied: Denied, busy: Error) -> Fault {
    match denied {
        Denied::Busy => Fault::Eshm(busy),
        Denied::Nested => Fault::Nested,
        Denied::Forked => Fault::Eshm(Error::Forked),
    }
}

impl<V> Deref for Seated<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.value
    }
}

impl<V> DerefMut for Seated<'_, V> {
    fn deref_mut(&mut self) -> &mut V {
        self.value
    }
}

/// So short a wait that it is only a few looks more, which is all that a busy peer needs.
const BRIEF: Duration = Duration::from_nanos(1);

/// What can be waited for.
pub trait Awaited {
    /// What a call that does not wait gives when there is nothing: [`Error::Empty`] or
    /// [`Error::Full`].
    const NOTHING: Error;

    /// Whether a claim or a peek is open, so that there is nothing for anybody else.
    fn is_occupied(&self) -> bool;
}

/// Makes one try, now.
#[inline(always)]
pub fn at_once<V: Awaited, T>(
    seat: &Seat<V>,
    key: Key,
    now: impl FnOnce(&mut V) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let seated = seat.take(key, || Patience::Short, || V::NOTHING)?;
    if seated.is_occupied() { Err(Fault::Eshm(V::NOTHING)) } else { now(seated.value) }
}

/// Makes a try `now`, and then, for as long as there is time and nothing there, tries that wait.
/// Both get what is `given`. They are two so that each is called in one place, and `now` becomes a
/// part of its caller.
#[inline(always)]
pub fn with_time<V: Awaited, G, T>(
    seat: &Seat<V>,
    key: Key,
    timeout_ms: u32,
    mut given: G,
    now: impl FnOnce(&mut V, &mut G) -> Result<T, Fault>,
    mut later: impl FnMut(&mut V, &mut G, Duration) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let is_now = timeout_ms == 0;
    let nothing = || if is_now { V::NOTHING } else { Error::Timeout };
    let seated = seat.take(key, || patience(timeout_ms), nothing)?;
    if seated.is_occupied() {
        if is_now {
            return Err(Fault::Eshm(V::NOTHING));
        }
    } else {
        match now(seated.value, &mut given) {
            Ok(done) => return Ok(done),
            Err(fault) if is_now || !is_nothing(&fault) => return Err(fault),
            Err(_) => {}
        }
    }
    wait_in_slices(seat, seated, key, timeout_ms, |value, wait| later(value, &mut given, wait))
}

#[inline(never)]
fn wait_in_slices<'a, V: Awaited, T>(
    seat: &'a Seat<V>,
    first: Seated<'a, V>,
    key: Key,
    timeout_ms: u32,
    mut later: impl FnMut(&mut V, Duration) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut seated = first;
    if !seated.is_occupied() {
        match later(seated.value, BRIEF) {
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
        seated = seat.take(key, || until(timeout_ms, end), || Error::Timeout)?;
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
