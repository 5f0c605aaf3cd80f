//! Messages looked at before they are consumed: at least once.
//!
//! What is dropped without being released stays unread.

use std::ops::Deref;

use super::{Batch, Reader};
use crate::config::MessageId;
use crate::error::{Error, Result};
use crate::ring::{Found, Place};

/// A message shown in place. Dropped, it stays unread; [`Peek::release`] consumes it.
///
/// Threat model: the bytes lie in shared memory. A peer that keeps the protocol does not touch them
/// before the release (level 1); against one that is not trusted (level 2) use the calls that copy.
pub struct Peek<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) start: *const u8,
    pub(super) found: Found,
}

impl Peek<'_> {
    /// Which message it is.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.reader.shown_id()
    }

    /// Consumes it.
    ///
    /// # Errors
    /// What makes the endpoint unusable. With `Fenced` the successor delivers the message again.
    #[inline]
    pub fn release(self) -> Result<()> {
        self.reader.release(self.found)
    }
}

impl Deref for Peek<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the message is committed, its length was checked, and its writer leaves it alone
        // until it is released, which takes the borrow away; the segment stays mapped, since the
        // reader is borrowed. A scratch copy is private memory.
        unsafe { std::slice::from_raw_parts(self.start, self.found.len) }
    }
}

/// Messages copied but not consumed. Dropped, they stay unread; [`PeekMany::release`] consumes them.
pub struct PeekMany<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) batch: &'a mut Batch,
    /// Where they begin; `None` if they are consumed already, or released.
    pub(super) start: Option<Place>,
}

impl PeekMany<'_> {
    /// The messages in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (MessageId, &[u8])> {
        self.batch.iter()
    }

    /// Consumes them all.
    ///
    /// # Errors
    /// As for [`Peek::release`].
    pub fn release(mut self) -> Result<()> {
        match self.start.take() {
            Some(_) => self.reader.told(self.batch),
            None => Ok(()),
        }
    }
}

impl Drop for PeekMany<'_> {
    fn drop(&mut self) {
        if let Some(start) = self.start.take() {
            self.reader.untold(start);
        }
    }
}

/// Iterator over messages as owned bytes; see [`Reader::messages`].
pub struct Messages<'a> {
    pub(super) reader: &'a mut Reader,
}

impl Iterator for Messages<'_> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.peek() {
            Ok(peek) => {
                let bytes = peek.to_vec();
                Some(peek.release().map(|()| bytes))
            }
            Err(Error::Timeout) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
