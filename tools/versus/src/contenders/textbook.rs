//! The ring of the textbooks, well made: two shared indices on lines of their own, and on each side a
//! private copy of the other's index that is looked up again only when the ring seems full or empty.
//! The slots are the bare messages, close together.
//!
//! It is what a good programmer writes in an afternoon, so it is the mark that a library must pass.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::contender::{Contender, Kind, Link, Measure, Mode, Place, Result, until};
use crate::contenders::SINGLE;
use crate::message::Message;
use crate::shared::{InSharedMemory, Shared};

/// The textbook ring.
pub struct Textbook;

impl Contender for Textbook {
    const NAME: &'static str = "textbook ring";
    const KIND: Kind = Kind::Yardstick;
    const SETTINGS: &'static str =
        "cached indices, padded to 128 bytes, bare slots; no crash safety";
    const CAN: &'static [(Measure, Mode)] = SINGLE;
    type Link<const W: usize> = End<W>;
}

/// Two lines, as processors fetch lines in pairs.
#[repr(C, align(128))]
struct Padded(AtomicU64);

/// The shared indices.
#[repr(C)]
pub struct Indices {
    /// How many messages were written; stored by the writer.
    head: Padded,
    /// How many messages were read; stored by the reader.
    tail: Padded,
}

// SAFETY: atomics, whose zeroes are valid.
unsafe impl InSharedMemory for Indices {}

type Ring<const W: usize> = Shared<Indices, Message<W>>;

/// One side.
pub struct End<const W: usize> {
    out: Ring<W>,
    head: u64,
    tail_seen: u64,
    back: Ring<W>,
    tail: u64,
    head_seen: u64,
}

impl<const W: usize> Link<W> for End<W> {
    type Half = Ring<W>;

    fn create(place: &Place) -> Result<Self::Half> {
        Shared::create(&place.outgoing(), place.slots)
    }

    fn join(out: Self::Half, place: &Place) -> Result<Self> {
        let back = Shared::open(&place.incoming(), place.slots)?;
        Ok(End { out, head: 0, tail_seen: 0, back, tail: 0, head_seen: 0 })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        let (indices, slots, head) = (self.out.header(), self.out.slots(), self.head);
        if head - self.tail_seen == slots {
            let moved = |tail: &u64| head - *tail < slots;
            self.tail_seen = until(|| Some(indices.tail.0.load(Ordering::Acquire)).filter(moved));
        }
        // SAFETY: fewer than `slots` messages are unread, so the reader is not in this slot: it
        // stored its index (Release, seen with Acquire) after it had left.
        unsafe { self.out.slot(head).copy_from_nonoverlapping(message, 1) };
        self.head = head + 1;
        indices.head.0.store(self.head, Ordering::Release);
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        let (indices, tail) = (self.back.header(), self.tail);
        if tail == self.head_seen {
            let moved = |head: &u64| *head != tail;
            self.head_seen = until(|| Some(indices.head.0.load(Ordering::Acquire)).filter(moved));
        }
        // SAFETY: the writer's index (stored with Release, seen with Acquire) has passed this slot,
        // and the writer does not come back before our index has passed it too.
        unsafe { self.back.slot(tail).copy_to_nonoverlapping(message, 1) };
        self.tail = tail + 1;
        indices.tail.0.store(self.tail, Ordering::Release);
    }
}
