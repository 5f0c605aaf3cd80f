//! shaq 4.0.0: a queue for one producer and one consumer in a shared file, with typed slots.
//!
//! Settings, and why:
//! - The `spsc` queue (it has others for several ends), in a file on `/dev/shm`.
//! - Single messages by `try_write` and `try_read`, its calls for one item, up to 1 KiB. Above that
//!   by a batch of one in place, as the first two move the message by value once more.
//! - Batches by `write_batch` and `try_reserve_read_batch`, as its own example does, but with
//!   batches of 64 like everybody (the example: 1,024).
//! - Polling; its sleeping reads put a futex behind the same queue.
//!
//! In its own words, from a checkout of shaq:
//! `cargo run --release --example enqueue_dequeue -- spsc` (threads, items of 512 bytes, batches).

use std::fs::OpenOptions;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;

use shaq::spsc::{Consumer, Producer, minimum_file_size};

use crate::contender::{BATCH, Contender, Kind, Link, Measure, Mode, Place, Result, Why, until};
use crate::contenders::EVERYTHING;
use crate::message::Message;

/// shaq.
pub struct Shaq;

impl Contender for Shaq {
    const NAME: &'static str = "shaq";
    const KIND: Kind = Kind::Processes;
    const SETTINGS: &'static str = "4.0.0, spsc queue in a shared file, polling; batches by write_batch, try_reserve_read_batch";
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
const ONE: NonZeroUsize = NonZeroUsize::MIN;
const MANY: NonZeroUsize = NonZeroUsize::new(BATCH).unwrap();

impl<const W: usize> Link<W> for End<W> {
    type Half = Producer<Message<W>>;

    fn create(place: &Place) -> Result<Self::Half> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).open(place.outgoing());
        let size = minimum_file_size::<Message<W>>(place.slots).next_multiple_of(4096);
        // SAFETY: this side alone makes the queue and is its only producer; the words of a message
        // mean the same in every process.
        unsafe { Producer::create(&file.why("create a file")?, size) }.why("create a shaq queue")
    }

    fn join(out: Self::Half, place: &Place) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(place.incoming());
        // SAFETY: the other side has made this queue for messages of the same type (both are told
        // the same size), and this is its only consumer.
        let back = unsafe { Consumer::join(&file.why("open a file")?) };
        let back = back.why("join a shaq queue")?;
        Ok(End { out, back, batch: Vec::with_capacity(BATCH) })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        if size_of::<Message<W>>() > LARGE {
            self.send_in_place(|place| {
                // SAFETY: the place is aligned, has room for one message and is not the message.
                unsafe { place.as_mut_ptr().copy_from_nonoverlapping(message, 1) }
            });
        } else {
            until(|| self.out.try_write(*message).ok());
        }
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        if size_of::<Message<W>>() > LARGE {
            self.receive_in_place(|found| *message = *found);
        } else {
            *message = until(|| self.back.try_read());
        }
    }

    #[inline(always)]
    fn send_batch(&mut self, messages: &[Message<W>]) {
        let mut left = messages;
        until(|| {
            let mut batch = self.out.write_batch();
            while let Some((next, rest)) = left.split_first()
                && batch.try_write(*next).is_ok()
            {
                left = rest;
            }
            left.is_empty().then_some(())
        });
    }

    #[inline(always)]
    fn receive_batch(&mut self, take: impl FnMut(&Message<W>)) {
        self.batch.clear();
        until(|| {
            let batch = self.back.try_reserve_read_batch(MANY)?;
            let (first, wrapped) = batch.as_slices();
            self.batch.extend_from_slice(first);
            self.batch.extend_from_slice(wrapped);
            Some(())
        });
        self.batch.iter().for_each(take);
    }

    #[inline(always)]
    fn send_in_place(&mut self, mut fill: impl FnMut(&mut MaybeUninit<Message<W>>)) {
        until(|| {
            let mut batch = self.out.write_batch();
            // SAFETY: `fill` writes the whole message before the batch is dropped.
            fill(unsafe { batch.try_as_mut() }?);
            Some(())
        });
    }

    #[inline(always)]
    fn receive_in_place<R>(&mut self, mut take: impl FnMut(&Message<W>) -> R) -> R {
        until(|| self.back.try_reserve_read_batch(ONE).map(|batch| take(&batch[0])))
    }
}
