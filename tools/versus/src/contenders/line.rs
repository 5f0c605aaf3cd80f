//! The limit of every round trip: one cache line, written by each side in turn, and nothing else.
//!
//! A message cannot cross faster than the line that carries it. The number of the message rides in
//! the upper bits of the one word; the lowest bit says whose turn it was.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::contender::{Contender, Kind, Link, Measure, Mode, Place, Result, until};
use crate::message::{Message, fill};
use crate::shared::{InSharedMemory, Shared};

/// The bare cache line.
pub struct Line;

impl Contender for Line {
    const NAME: &'static str = "cache line";
    const KIND: Kind = Kind::Yardstick;
    const SETTINGS: &'static str = "one word in one line, bounced between the cores; no payload";
    const CAN: &'static [(Measure, Mode)] = &[(Measure::RoundTrip, Mode::Single)];
    const SIZELESS: bool = true;
    type Link<const W: usize> = End;
}

/// The line.
#[repr(C, align(128))]
pub struct Word(AtomicU64);

// SAFETY: an atomic, whose zero is valid.
unsafe impl InSharedMemory for Word {}

/// One side.
pub struct End {
    word: Shared<Word, u64>,
    mine: u64,
    seen: u64,
}

impl<const W: usize> Link<W> for End {
    type Half = Option<Shared<Word, u64>>;

    fn create(place: &Place) -> Result<Self::Half> {
        place.near.then(|| Shared::create(&place.outgoing(), 0)).transpose()
    }

    fn join(half: Self::Half, place: &Place) -> Result<Self> {
        let word = half.map_or_else(|| Shared::open(&place.incoming(), 0), Ok)?;
        Ok(End { word, mine: u64::from(!place.near), seen: 0 })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        self.seen = message[0] << 1 | self.mine;
        // Release, as any real message would need; it costs nothing on x86.
        self.word.header().0.store(self.seen, Ordering::Release);
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        let (word, seen) = (&self.word.header().0, self.seen);
        let found = until(|| Some(word.load(Ordering::Acquire)).filter(|found| *found != seen));
        self.seen = found;
        fill(message, found >> 1);
    }
}
