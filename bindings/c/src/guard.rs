//! The one gate between C and this library: nothing unwinds through it.
//!
//! Every exported function has a body that returns a [`Fault`] or a good value. [`call`] turns a
//! fault, and a panic, which is a bug of this library, into the value that the function's return
//! type has for failure, and remembers the text for `eshm_last_error`.

use std::any::Any;
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::fault::{self, Fault};

/// A return type of the interface.
pub trait Answer {
    /// What a function of this type returns when it fails with this code.
    fn failed(code: c_int) -> Self;
}

impl Answer for c_int {
    fn failed(code: c_int) -> Self {
        code
    }
}

impl Answer for isize {
    fn failed(code: c_int) -> Self {
        code as isize
    }
}

impl Answer for usize {
    fn failed(_: c_int) -> Self {
        0
    }
}

impl Answer for u32 {
    fn failed(_: c_int) -> Self {
        0
    }
}

impl<T> Answer for *mut T {
    fn failed(_: c_int) -> Self {
        std::ptr::null_mut()
    }
}

impl Answer for *const c_char {
    fn failed(code: c_int) -> Self {
        fault::text(code).as_ptr()
    }
}

/// Runs the body of an exported function.
#[inline]
pub fn call<T: Answer>(body: impl FnOnce() -> Result<T, Fault>) -> T {
    // Unwind safety: a half that a panic left behind is dropped or used again through checked
    // Rust code only; no invariant of this crate is broken across a call of eshm.
    // The fault becomes a code inside the gate, so that only this small value passes through memory.
    let answer = || body().unwrap_or_else(|fault| T::failed(fault::remember(fault)));
    catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|panic| T::failed(panicked(panic)))
}

/// As [`call`], for functions that return 0 when all went well.
#[inline]
pub fn status(body: impl FnOnce() -> Result<(), Fault>) -> c_int {
    call(|| body().map(|()| 0))
}

#[cold]
fn panicked(panic: Box<dyn Any + Send>) -> c_int {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_string(),
        (_, Some(text)) => text.clone(),
        _ => "of an unknown kind".to_string(),
    };
    // What a panic carries may itself panic when dropped; a leak in a case that must not happen is
    // the lesser evil.
    std::mem::forget(panic);
    fault::remember(Fault::Panicked(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_value_of_the_type() {
        std::panic::set_hook(Box::new(|_| {}));
        let code = status(|| panic!("on purpose"));
        let pointer: *mut u8 = call(|| panic!("on purpose, {}", 2));
        let size: usize = call(|| panic!("on purpose"));
        let _ = std::panic::take_hook();
        assert_eq!(code, fault::NOT_INITIALIZED);
        assert!(pointer.is_null());
        assert_eq!(size, 0);
        assert_eq!(fault::last_code(), fault::NOT_INITIALIZED);
    }
}
