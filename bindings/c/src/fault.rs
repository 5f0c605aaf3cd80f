//! What a call of the C interface fails with: the code it returns, the text that explains it.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::atomic::{Ordering, compiler_fence};

use eshm::Error;

use crate::guard::call;

/// All went well.
pub const SUCCESS: c_int = 0;
/// A parameter cannot be used.
pub const INVALID_PARAM: c_int = -1;
/// The segment cannot be made.
pub const SHM_CREATE: c_int = -2;
/// The segment cannot be used.
pub const SHM_ATTACH: c_int = -3;
/// The segment cannot be removed.
pub const SHM_DELETE: c_int = -5;
/// Called from a signal handler inside the same call.
pub const MUTEX_LOCK: c_int = -7;
/// No message is waiting.
pub const NO_DATA: c_int = -9;
/// The time allowed ran out.
pub const TIMEOUT: c_int = -10;
/// The peer is gone.
pub const MASTER_STALE: c_int = -11;
/// There is no room.
pub const BUFFER_FULL: c_int = -12;
/// The message is longer than its place.
pub const BUFFER_TOO_SMALL: c_int = -13;
/// The handle cannot be used in this process.
pub const NOT_INITIALIZED: c_int = -14;
/// Somebody else holds the role.
pub const ROLE_MISMATCH: c_int = -15;

/// The texts of `eshm_error_string`, from 0 downwards. Programs compare the first two.
const TEXTS: [&CStr; 16] = [
    c"Success",
    c"Invalid parameter",
    c"Shared memory cannot be created",
    c"Shared memory cannot be attached",
    c"Shared memory cannot be detached",
    c"Shared memory cannot be removed",
    c"Lock cannot be initialized",
    c"Lock cannot be taken",
    c"Lock cannot be released",
    c"No data available",
    c"Operation timed out",
    c"Peer is gone",
    c"Buffer is full",
    c"Buffer is too small",
    c"Handle is not initialized",
    c"Role is held by another process",
];

/// Why a call failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// What the Rust interface said.
    Eshm(Error),
    /// The same, with the code that fits the call better.
    As(c_int, Error),
    /// A parameter cannot be used.
    Param(&'static str),
    /// The handle is NULL, closed, or none at all.
    NoHandle,
    /// The same, for the one call that has a code of its own for it.
    NoHeart,
    /// The calling thread is inside a call on the same half already.
    Nested,
    /// This library has a bug.
    Panicked(String),
}

impl From<Error> for Fault {
    #[inline]
    fn from(error: Error) -> Self {
        Fault::Eshm(error)
    }
}

impl Fault {
    /// The code that the call returns.
    #[must_use]
    pub fn code(&self) -> c_int {
        match self {
            Fault::Eshm(error) => code_of(error),
            Fault::As(code, _) => *code,
            Fault::Param(_) | Fault::NoHandle => INVALID_PARAM,
            Fault::Nested => MUTEX_LOCK,
            Fault::NoHeart | Fault::Panicked(_) => NOT_INITIALIZED,
        }
    }
}

impl Fault {
    /// Whether it is made and dropped without memory.
    fn is_plain(&self) -> bool {
        match self {
            Fault::Eshm(error) | Fault::As(_, error) => matches!(
                error,
                Error::Full
                    | Error::Empty
                    | Error::Timeout
                    | Error::PeerDead { .. }
                    | Error::PeerHung { .. }
                    | Error::Fenced { .. }
                    | Error::Forked
                    | Error::Lost { .. }
                    | Error::TooLong { .. }
                    | Error::BufferTooSmall { .. }
                    | Error::WrongSize { .. }
            ),
            Fault::Param(_) | Fault::NoHandle | Fault::NoHeart | Fault::Nested => true,
            Fault::Panicked(_) => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Eshm(error) | Fault::As(_, error) => write!(f, "{error}"),
            Fault::Param(what) => f.write_str(what),
            Fault::NoHandle | Fault::NoHeart => {
                f.write_str("the handle is NULL, was destroyed, or is none of this library")
            }
            Fault::Nested => f.write_str("this thread is inside a call on the handle already"),
            Fault::Panicked(what) => write!(f, "bug in eshm, please report it: {what}"),
        }
    }
}

fn code_of(error: &Error) -> c_int {
    match error {
        Error::Full => BUFFER_FULL,
        Error::Empty => NO_DATA,
        Error::Timeout => TIMEOUT,
        Error::PeerDead { .. } | Error::PeerHung { .. } => MASTER_STALE,
        Error::Fenced { .. } | Error::RoleTaken { .. } => ROLE_MISMATCH,
        Error::Forked => NOT_INITIALIZED,
        Error::Name { .. } | Error::Config { .. } => INVALID_PARAM,
        Error::TooLong { .. } | Error::BufferTooSmall { .. } | Error::WrongSize { .. } => {
            BUFFER_TOO_SMALL
        }
        Error::Os { .. } => SHM_CREATE,
        // Lost, Geometry, Schema, NotFound, Access, Foreign, Layout, Corrupt: there is a segment, or should
        // be, and it cannot be used. So for whatever is added to the list.
        _ => SHM_ATTACH,
    }
}

/// The text of a code.
#[must_use]
pub fn text(code: c_int) -> &'static CStr {
    let known = code.checked_neg().and_then(|index| usize::try_from(index).ok());
    known.and_then(|index| TEXTS.get(index)).copied().unwrap_or(c"Unknown error")
}

/// The last failure of a thread. Kept as it came: a busy loop on a full ring formats nothing.
///
/// A signal handler may fail in the middle of a call that fails. So what needs memory has a place
/// apart ([`OTHER`]), which failures that need none leave alone, and nothing is allocated or freed in
/// their course; and who finds the places in use keeps out of them.
struct Last {
    in_use: Cell<bool>,
    /// Whether it is `plain`, and not in the other place.
    is_plain: Cell<bool>,
    /// Needs no drop: or else the first failure of a thread would ask for memory to be told of its end.
    plain: Cell<Option<ManuallyDrop<Fault>>>,
}

impl Last {
    const fn new() -> Last {
        Last { in_use: Cell::new(false), is_plain: Cell::new(true), plain: Cell::new(None) }
    }

    /// Does something with the places, unless this thread is at it already.
    fn with<T>(&self, body: impl FnOnce(&Last) -> T) -> Option<T> {
        if self.in_use.replace(true) {
            return None;
        }
        // For signal handlers of this thread, which is all that can come in between.
        compiler_fence(Ordering::SeqCst);
        let done = body(self);
        compiler_fence(Ordering::SeqCst);
        self.in_use.set(false);
        Some(done)
    }

    fn keep(&self, fault: Fault) {
        let is_plain = fault.is_plain();
        if is_plain {
            self.plain.set(Some(ManuallyDrop::new(fault)));
        } else {
            // A thread that is ending has no place for it any more; then only the code remains.
            let _ = OTHER.try_with(|other| other.set(Some(fault)));
        }
        self.is_plain.set(is_plain);
    }

    fn look<T>(&self, look: impl FnOnce(Option<&Fault>) -> T) -> T {
        if self.is_plain.get() {
            let fault = self.plain.take();
            let seen = look(fault.as_deref());
            self.plain.set(fault);
            return seen;
        }
        let fault = OTHER.try_with(Cell::take).unwrap_or_default();
        let seen = look(fault.as_ref());
        let _ = OTHER.try_with(|other| other.set(fault));
        seen
    }
}

thread_local! {
    static LAST: Last = const { Last::new() };
    static OTHER: Cell<Option<Fault>> = const { Cell::new(None) };
    /// Its text, once somebody asked.
    static TEXT: RefCell<CString> = RefCell::new(CString::default());
}

/// Keeps a failure for `eshm_last_error`; returns its code.
#[cold]
pub fn remember(fault: Fault) -> c_int {
    let code = fault.code();
    LAST.with(|last| {
        let mut fault = Some(fault);
        last.with(|last| fault.take().map(|fault| last.keep(fault)));
        // In a handler that has no place for it: freeing memory is not for it either.
        std::mem::forget(fault);
    });
    code
}

/// The code of the last failure.
#[must_use]
pub fn last_code() -> c_int {
    with_last(|fault| fault.map_or(SUCCESS, Fault::code))
}

fn with_last<T>(look: impl FnOnce(Option<&Fault>) -> T) -> T {
    LAST.with(|last| {
        let mut look = Some(look);
        let seen = last.with(|last| look.take().map(|look| last.look(look)));
        match (seen.flatten(), look) {
            (Some(seen), _) => seen,
            (None, Some(look)) => look(None),
            (None, None) => unreachable!("it looked, and so saw something"),
        }
    })
}

fn last_text() -> *const c_char {
    let text = with_last(|fault| fault.map(Fault::to_string).unwrap_or_default());
    // A name may be given with any bytes, but none of ours prints a NUL: names are escaped.
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    TEXT.with(|kept| {
        *kept.borrow_mut() = text;
        kept.borrow().as_ptr()
    })
}

/// `eshm_error_string`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_error_string(error_code: c_int) -> *const c_char {
    call(|| Ok(text(error_code).as_ptr()))
}

/// `eshm_last_error`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_last_error() -> *const c_char {
    call(|| Ok(last_text()))
}

/// `eshm_last_error_code`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_last_error_code() -> c_int {
    call(|| Ok(last_code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_that_programs_compare() {
        assert_eq!(text(SUCCESS), c"Success");
        assert_eq!(text(INVALID_PARAM), c"Invalid parameter");
        assert_eq!(text(ROLE_MISMATCH), c"Role is held by another process");
        for unknown in [1, -16, c_int::MIN, c_int::MAX] {
            assert_eq!(text(unknown), c"Unknown error");
        }
    }

    #[test]
    fn a_failure_in_the_middle_of_another_leaves_it_whole() {
        let name = Error::NotFound { path: "somewhere".into() };
        remember(Fault::Eshm(name.clone()));
        with_last(|fault| {
            // As a signal handler would.
            assert_eq!(remember(Fault::Nested), MUTEX_LOCK);
            assert_eq!(remember(Fault::Eshm(name.clone())), SHM_ATTACH);
            assert_eq!(last_code(), SUCCESS);
            assert_eq!(fault, Some(&Fault::Eshm(name.clone())));
        });
        assert_eq!(last_code(), SHM_ATTACH);
        remember(Fault::Nested);
        assert_eq!(last_code(), MUTEX_LOCK);
    }

    #[test]
    fn each_thread_has_its_own_last_failure() {
        remember(Fault::Eshm(Error::Full));
        let other = std::thread::spawn(last_code).join().expect("the thread ends");
        assert_eq!((last_code(), other), (BUFFER_FULL, SUCCESS));
    }
}
