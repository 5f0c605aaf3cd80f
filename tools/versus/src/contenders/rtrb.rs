//! rtrb 0.4: a ring for two threads of one process. Not the same task (no names, no crashes, no other
//! process), shown because it is the fastest of its kind.
//!
//! Settings, and why: `push` and `pop` for single messages up to 1 KiB, chunks of one above, as the
//! first two move the message by value once more; `push_partial_slice` and `pop_partial_slice` for
//! batches; polling.
//!
//! In its own words, from a checkout of rtrb: `cargo bench` in its `performance-comparison` folder
//! (threads).

use std::mem::MaybeUninit;

use ::rtrb::{Consumer, Producer, RingBuffer};

use crate::contender::{BATCH, Contender, Kind, Link, Measure, Mode, Place, Result, until};
use crate::contenders::{EVERYTHING, exchange};
use crate::message::Message;

/// rtrb.
pub struct Rtrb;

impl Contender for Rtrb {
    const NAME: &'static str = "rtrb";
    const KIND: Kind = Kind::Threads;
    const SETTINGS: &'static str = "0.4, two threads of one process, polling; batches by slices";
    const CAN: &'static [(Measure, Mode)] = EVERYTHING;
    type Link<const W: usize> = End<W>;
}

/// One side.
pub struct End<const W: usize> {
    out: Producer<Message<W>>,
    back: Consumer<Message<W>>,
    batch: Vec<Message<W>>,
}

/// Above this a message by value costs more than the longer call.
const LARGE: usize = 1024;

impl<const W: usize> Link<W> for End<W> {
    type Half = Self;

    fn create(place: &Place) -> Result<Self::Half> {
        if !place.near {
            return exchange::take();
        }
        let (out, there) = RingBuffer::new(place.slots);
        let (from_there, back) = RingBuffer::new(place.slots);
        let batch = || vec![[0; W]; BATCH];
        exchange::leave(End { out: from_there, back: there, batch: batch() });
        Ok(End { out, back, batch: batch() })
    }

    fn join(half: Self::Half, _place: &Place) -> Result<Self> {
        Ok(half)
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        if size_of::<Message<W>>() > LARGE {
            self.send_in_place(|place| {
                // SAFETY: the place is aligned, has room for one message and is not the message.
                unsafe { place.as_mut_ptr().copy_from_nonoverlapping(message, 1) }
            });
        } else {
            until(|| self.out.push(*message).ok());
        }
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        if size_of::<Message<W>>() > LARGE {
            self.receive_in_place(|found| *message = *found);
        } else {
            *message = until(|| self.back.pop().ok());
        }
    }

    #[inline(always)]
    fn send_batch(&mut self, messages: &[Message<W>]) {
        let mut left = messages;
        until(|| {
            left = self.out.push_partial_slice(left).1;
            left.is_empty().then_some(())
        });
    }

    #[inline(always)]
    fn receive_batch(&mut self, take: impl FnMut(&Message<W>)) {
        let (back, batch) = (&mut self.back, &mut self.batch);
        let mut pop = || back.pop_partial_slice(batch).0.len();
        let count = until(|| Some(pop()).filter(|count| *count > 0));
        self.batch[..count].iter().for_each(take);
    }

    #[inline(always)]
    fn send_in_place(&mut self, mut fill: impl FnMut(&mut MaybeUninit<Message<W>>)) {
        until(|| {
            let mut chunk = self.out.write_chunk_uninit(1).ok()?;
            fill(&mut chunk.as_mut_slices().0[0]);
            // SAFETY: `fill` has written the one message of the chunk.
            unsafe { chunk.commit_all() };
            Some(())
        });
    }

    #[inline(always)]
    fn receive_in_place<R>(&mut self, mut take: impl FnMut(&Message<W>) -> R) -> R {
        until(|| {
            let chunk = self.back.read_chunk(1).ok()?;
            let taken = take(&chunk.as_slices().0[0]);
            chunk.commit_all();
            Some(taken)
        })
    }
}
