//! The hot path alone, for a binding whose calls do not become a part of their callers: whatever else
//! is to be done can follow as a call at the very end. It looks at nothing that cannot have changed
//! since the last call; `is_plain` tells that beforehand. For a short message it calls nothing either,
//! so that it hardly needs a stack.

/// What came of [`Reader::read_short`](super::Reader::read_short) or
/// [`Writer::write_short`](super::Writer::write_short).
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now<T> {
    /// It is done.
    Done(T),
    /// It is done, and somebody rang: `attend_read` or `attend_write` says whether it counts.
    Rung(T),
    /// Nothing was done; the ordinary call does it, or says why not.
    Not,
}

impl<T> Now<T> {
    /// The same outcome with another value.
    #[inline(always)]
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Now<U> {
        match self {
            Now::Done(value) => Now::Done(make(value)),
            Now::Rung(value) => Now::Rung(make(value)),
            Now::Not => Now::Not,
        }
    }
}
