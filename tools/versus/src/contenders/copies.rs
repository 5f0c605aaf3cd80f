//! The limit of every stream of large messages: each block is copied into shared memory by one side
//! and out of it by the other. A flag per block on a line of its own; the least that can be done.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::contender::{Contender, Kind, Link, Measure, Mode, Place, Result, until};
use crate::message::Message;
use crate::shared::{InSharedMemory, Shared};

/// The raw two copies.
pub struct Copies;

impl Contender for Copies {
    const NAME: &'static str = "raw copies";
    const KIND: Kind = Kind::Yardstick;
    const SETTINGS: &'static str = "one copy in, one copy out, a flag per block on its own line";
    const CAN: &'static [(Measure, Mode)] =
        &[(Measure::RoundTrip, Mode::Single), (Measure::Stream, Mode::Single)];
    type Link<const W: usize> = End<W>;

    fn refuses(bytes: usize) -> Option<&'static str> {
        (bytes < 1024).then_some("copying is no limit for small messages; see the cache line")
    }
}

/// No header.
#[repr(C, align(64))]
pub struct Empty;

// SAFETY: nothing lies in it.
unsafe impl InSharedMemory for Empty {}

#[repr(C, align(64))]
struct Flag(AtomicU64);

/// A block and whose turn it is.
#[repr(C, align(64))]
pub struct Block<const W: usize> {
    /// 1 while the block is the reader's, 0 while it is the writer's.
    full: Flag,
    message: Message<W>,
}

type Ring<const W: usize> = Shared<Empty, Block<W>>;

/// One side.
pub struct End<const W: usize> {
    out: Ring<W>,
    back: Ring<W>,
    written: u64,
    read: u64,
}

/// The flag of a block, shared between the sides.
#[inline(always)]
fn flag<const W: usize>(ring: &Ring<W>, index: u64) -> &AtomicU64 {
    // SAFETY: the slot lies in the mapping as long as `ring` is borrowed, and is aligned.
    let full = unsafe { &raw const (*ring.slot(index)).full };
    // SAFETY: both sides reach the flag as an atomic only, and its zero is valid.
    unsafe { &(*full).0 }
}

impl<const W: usize> Link<W> for End<W> {
    type Half = Ring<W>;

    fn create(place: &Place) -> Result<Self::Half> {
        Shared::create(&place.outgoing(), place.slots)
    }

    fn join(out: Self::Half, place: &Place) -> Result<Self> {
        let back = Shared::open(&place.incoming(), place.slots)?;
        Ok(End { out, back, written: 0, read: 0 })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        let full = flag(&self.out, self.written);
        until(|| (full.load(Ordering::Acquire) == 0).then_some(()));
        let block = self.out.slot(self.written);
        // SAFETY: the flag was 0, seen with Acquire: the reader has left the block, which is ours
        // until the flag is 1 again. The message is private, so the two do not overlap.
        unsafe { (&raw mut (*block).message).copy_from_nonoverlapping(message, 1) };
        full.store(1, Ordering::Release);
        self.written += 1;
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        let full = flag(&self.back, self.read);
        until(|| (full.load(Ordering::Acquire) == 1).then_some(()));
        let block = self.back.slot(self.read);
        // SAFETY: the flag was 1, seen with Acquire: the writer has left the block, which is ours
        // until the flag is 0 again.
        unsafe { (&raw const (*block).message).copy_to_nonoverlapping(message, 1) };
        full.store(0, Ordering::Release);
        self.read += 1;
    }
}
