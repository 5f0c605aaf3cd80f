//! Messages shown where they lie, before they are consumed.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Peek, Reader, Waiter};
use crate::config::MessageId;
use crate::error::{Error, Result};
use crate::ring::{Found, SEALED};

impl Reader {
    /// The length of the next message, which stays.
    ///
    /// # Errors
    /// `Empty`, or as for [`Reader::read`].
    pub fn next_len(&mut self) -> Result<usize> {
        if self.is_special | !self.birth.is_here() {
            self.enter()?;
        }
        let found = if self.scratch_id.is_some() {
            Some(self.scratch.len())
        } else {
            self.find_before_cut()?.map(|found| found.len)
        };
        if let Some(len) = found {
            return Ok(len);
        }
        self.rest()?;
        self.nothing_here()?;
        self.next_len()
    }

    /// Shows the next message in place; waits as long as the read timeout says.
    ///
    /// # Errors
    /// As for [`Reader::read`].
    #[inline(always)]
    pub fn peek(&mut self) -> Result<Peek<'_>> {
        self.peek_timeout(self.lease.options.read_timeout)
    }

    /// Shows the next message in place, or says `Empty` at once.
    ///
    /// # Errors
    /// As for [`Reader::try_read`].
    #[inline(always)]
    pub fn try_peek(&mut self) -> Result<Peek<'_>> {
        match self.show_now() {
            Some((start, found)) => Ok(Peek { start, found, reader: self }),
            None if self.is_idle() => {
                if self.keep_distance()
                    && let Some((start, found)) = self.show_now()
                {
                    return Ok(Peek { start, found, reader: self });
                }
                Err(Error::Empty)
            }
            None => self.try_peek_any(),
        }
    }

    #[inline(never)]
    fn try_peek_any(&mut self) -> Result<Peek<'_>> {
        loop {
            if let Some((start, found)) = self.show()? {
                return Ok(Peek { start, found, reader: self });
            }
            self.rest()?;
            self.nothing_here()?;
        }
    }

    /// Shows the next message in place; waits for it for at most `timeout`.
    ///
    /// # Errors
    /// As for [`Reader::read`].
    #[inline(always)]
    pub fn peek_timeout(&mut self, timeout: Duration) -> Result<Peek<'_>> {
        match self.show_now() {
            Some((start, found)) => Ok(Peek { start, found, reader: self }),
            None => self.peek_waiting(timeout),
        }
    }

    #[inline(never)]
    fn peek_waiting(&mut self, timeout: Duration) -> Result<Peek<'_>> {
        if let Some((start, found)) = self.linger(timeout, Self::show_now) {
            return Ok(Peek { start, found, reader: self });
        }
        loop {
            if let Some((start, found)) = self.show()? {
                return Ok(Peek { start, found, reader: self });
            }
            self.await_message(timeout)?;
        }
    }

    /// Where the next message lies, if it is there and nobody wants anything.
    #[inline(always)]
    fn show_now(&mut self) -> Option<(*const u8, Found)> {
        if !self.is_plain() {
            return None;
        }
        let found = self.ring.find_now()?;
        // As in `find_before_cut`.
        (self.ring.ring().room_bell().glance() == 0).then(|| (self.ring.payload(), found))
    }

    /// Where the next message lies, if it is there.
    #[inline(always)]
    fn show(&mut self) -> Result<Option<(*const u8, Found)>> {
        if self.is_special | !self.birth.is_here() {
            self.enter()?;
        }
        if self.ring.is_racing() {
            return self.show_copy();
        }
        let found = self.find_before_cut()?;
        Ok(found.map(|found| (self.ring.payload(), found)))
    }

    /// The next message, for those who see it before it is consumed. What a fenced writer commits
    /// behind the cut must not be seen either; a commit that was there before a look at the bell that
    /// found the segment unsealed is inside.
    #[inline(always)]
    fn find_before_cut(&mut self) -> Result<Option<Found>> {
        let found = if self.ring.is_racing() {
            self.ring.race_len().map(|len| len.map(Found::copied))
        } else {
            self.ring.find()
        };
        match found {
            Ok(Some(found)) if self.ring.ring().room_bell().glance() == 0 => Ok(Some(found)),
            Ok(Some(found)) => self.doubt(found),
            Ok(None) => Ok(None),
            Err(error) => self.stumble(error),
        }
    }

    /// Somebody rang after a message was found. None if it must be looked for where the bus is now.
    #[cold]
    #[inline(never)]
    fn doubt(&mut self, found: Found) -> Result<Option<Found>> {
        // pairs SEAL: the message was found before.
        if self.ring.ring().room_bell().look() & SEALED == 0 {
            return Ok(Some(found));
        }
        self.attend()?;
        self.lease.trouble().map_or(Ok(None), Err)
    }

    /// Waits until a message is there.
    pub(super) fn await_message(&mut self, timeout: Duration) -> Result<usize> {
        match self.next_len() {
            Err(Error::Empty) => {}
            done => return done,
        }
        let mut waiter = Waiter::new(self.lease.options.wait, timeout);
        loop {
            self.wait_for_message(&mut waiter)?;
            match self.next_len() {
                Err(Error::Empty) => {}
                done => return done,
            }
        }
    }

    /// In a direction that is overwritten, a peek holds a copy that was taken when it was whole;
    /// released or not, the message cannot be asked to stay in the ring, so it stays here. Like one
    /// that is read, it must lie before the cut.
    #[cold]
    fn show_copy(&mut self) -> Result<Option<(*const u8, Found)>> {
        while self.scratch_id.is_none() {
            let len = match self.ring.race_len() {
                Ok(Some(len)) => len,
                Ok(None) => return Ok(None),
                Err(error) => return self.stumble(error),
            };
            let mut scratch = std::mem::take(&mut self.scratch);
            scratch.resize(len, 0);
            let copied = self.ring.race(&mut scratch);
            self.scratch = scratch;
            match copied {
                Ok(Some(len)) => {
                    self.scratch.truncate(len);
                    let id = self.ring.last_id();
                    match self.hand_out(len) {
                        Ok(_) => self.scratch_id = id,
                        // From behind the cut: once more, where the bus is now.
                        Err(Error::Empty) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(None) => return Ok(None),
                // Overwritten by a longer one meanwhile.
                Err(Error::BufferTooSmall { .. }) => {}
                Err(error) => return self.stumble(error),
            }
        }
        Ok(Some((self.scratch.as_ptr(), Found::copied(self.scratch.len()))))
    }

    /// Drops a copy that nobody released, if there is something newer, or was and is passed: then the
    /// copy was passed over too.
    pub(super) fn pass_shown(&mut self, has_passed: bool) -> Result<u64> {
        if self.scratch_id.is_none() || !has_passed && self.find_before_cut()?.is_none() {
            return Ok(0);
        }
        self.scratch_id = None;
        Ok(1)
    }

    /// Which message `show` has shown.
    pub(in crate::bus) fn shown_id(&self) -> MessageId {
        self.scratch_id.unwrap_or_else(|| self.ring.next_id())
    }

    #[inline(always)]
    pub(in crate::bus) fn release(&mut self, found: Found) -> Result<()> {
        if !self.birth.is_here() {
            return Err(Error::Forked);
        }
        if self.ring.is_racing() {
            self.scratch_id = None;
            return Ok(());
        }
        self.ring.consume(found);
        if self.ring.ring().room_bell().glance() == 0 {
            self.ring.settle();
            return Ok(());
        }
        self.attend().map(|_| ())
    }
}
