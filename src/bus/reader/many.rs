//! Reading many messages in one call: the same as reading one by one, with the checks and stores of
//! all of them done once.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{MOVES_MOST, REPLACED_TOO_OFTEN, Reader};
use crate::bus::{Batch, PeekMany};
use crate::error::{Error, Result};
use crate::ring::{Place, SEALED};

impl Reader {
    /// Reads as many messages as are there and the batch has room for, and says how many; waits for
    /// the first one as long as the read timeout says. All of them are consumed at once, at the end:
    /// a kill before gives all of them to the successor.
    ///
    /// # Errors
    /// `BufferTooSmall` if the batch is too small for the next one; the others as for
    /// [`Reader::read`].
    pub fn read_many(&mut self, batch: &mut Batch) -> Result<usize> {
        self.read_many_timeout(batch, self.lease.options.read_timeout)
    }

    /// Reads the messages that are there; waits for the first one for at most `timeout`.
    ///
    /// # Errors
    /// As for [`Reader::read_many`].
    pub fn read_many_timeout(&mut self, batch: &mut Batch, timeout: Duration) -> Result<usize> {
        loop {
            match self.try_read_many(batch) {
                Err(Error::Empty) => self.await_message(timeout)?,
                done => return done,
            };
        }
    }

    /// Reads the messages that are there, or says `Empty` at once.
    ///
    /// # Errors
    /// As for [`Reader::read_many`], with `Empty` for `Timeout`.
    pub fn try_read_many(&mut self, batch: &mut Batch) -> Result<usize> {
        if self.ring.is_racing() {
            return self.race_many(batch);
        }
        self.fill(batch)?;
        self.told(batch)?;
        Ok(batch.len())
    }

    /// Copies the messages that are there into the batch and leaves them where they are, until
    /// [`PeekMany::release`] consumes them all: at least once, for many messages. Waits for the
    /// first one as long as the read timeout says.
    ///
    /// # Errors
    /// As for [`Reader::read_many`]; in a direction that is overwritten messages cannot be asked to
    /// stay, so there they are consumed here.
    pub fn peek_many<'a>(&'a mut self, batch: &'a mut Batch) -> Result<PeekMany<'a>> {
        self.peek_many_timeout(batch, self.lease.options.read_timeout)
    }

    /// Shows the messages that are there; waits for the first one for at most `timeout`.
    ///
    /// # Errors
    /// As for [`Reader::peek_many`].
    pub fn peek_many_timeout<'a>(
        &'a mut self,
        batch: &'a mut Batch,
        timeout: Duration,
    ) -> Result<PeekMany<'a>> {
        self.await_message(timeout)?;
        self.try_peek_many(batch)
    }

    /// Shows the messages that are there, or says `Empty` at once.
    ///
    /// # Errors
    /// As for [`Reader::peek_many`], with `Empty` for `Timeout`.
    pub fn try_peek_many<'a>(&'a mut self, batch: &'a mut Batch) -> Result<PeekMany<'a>> {
        if self.ring.is_racing() {
            self.race_many(batch)?;
            return Ok(PeekMany { start: None, batch, reader: self });
        }
        for _ in 0..MOVES_MOST {
            let start = self.fill(batch)?;
            let bell = self.ring.ring().room_bell();
            // pairs SEAL: as in `find_before_cut`.
            if bell.glance() == 0 || bell.look() & SEALED == 0 {
                return Ok(PeekMany { start: Some(start), batch, reader: self });
            }
            self.ring.rewind(start);
            self.attend()?;
            if let Some(trouble) = self.lease.trouble() {
                return Err(trouble);
            }
        }
        Err(Error::Lost { what: REPLACED_TOO_OFTEN, unread: 0 })
    }

    /// Copies waiting messages and passes them without telling anybody. Gives where they began.
    fn fill(&mut self, batch: &mut Batch) -> Result<Place> {
        batch.clear();
        if self.is_special | !self.birth.is_here() {
            self.enter()?;
        }
        let mut found = loop {
            match self.ring.find() {
                Ok(Some(found)) => break found,
                Ok(None) => {
                    self.rest()?;
                    self.nothing_here()?;
                }
                Err(error) => return self.stumble(error),
            }
        };
        let (start, first) = (self.ring.place(), self.ring.next_id());
        while let Some(room) = batch.room(found.len) {
            self.ring.copy(found, room)?;
            self.ring.pass(found);
            match batch.is_empty() {
                true => batch.push(first, found.len),
                // A new author ends what is found, so these follow one another.
                false => batch.push_next(found.len),
            }
            match self.ring.find_more() {
                Ok(Some(next)) => found = next,
                // What is wrong is found again, and told, when this is all read.
                Ok(None) | Err(_) => break,
            }
        }
        if batch.is_empty() {
            return Err(Error::BufferTooSmall { len: found.len, buffer: batch.capacity() });
        }
        Ok(start)
    }

    /// Consumes what was passed.
    pub(in crate::bus) fn told(&mut self, batch: &mut Batch) -> Result<()> {
        if !self.birth.is_here() {
            return Err(Error::Forked);
        }
        self.ring.store_place();
        if self.ring.ring().room_bell().glance() == 0 {
            self.ring.settle();
            return Ok(());
        }
        self.attend_many(batch)
    }

    /// Goes back to where `fill` began.
    pub(in crate::bus) fn untold(&mut self, start: Place) {
        self.ring.rewind(start);
    }

    /// The same in a direction that is overwritten, one message after the other.
    fn race_many(&mut self, batch: &mut Batch) -> Result<usize> {
        batch.clear();
        while let Some(room) = batch.all_room() {
            match self.try_read(room) {
                Ok(len) => batch.push(self.ring.before_tail(), len),
                Err(_) if !batch.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(batch.len())
    }
}
