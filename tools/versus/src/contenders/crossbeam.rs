//! crossbeam-queue's `ArrayQueue`: a queue for many threads of one process, each slot with a stamp.
//! Not the same task (no names, no crashes, no other process), shown for orientation.
//!
//! Settings, and why: there are none; `push` and `pop`, polling.
//!
//! In its own words, from a checkout of crossbeam: `crossbeam-channel/benchmarks/run.sh` (threads;
//! `bounded_spsc` of `array-queue.rs`).

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::contender::{Contender, Kind, Link, Measure, Mode, Place, Result, until};
use crate::contenders::{SINGLE, exchange};
use crate::message::Message;

/// crossbeam-queue.
pub struct Crossbeam;

impl Contender for Crossbeam {
    const NAME: &'static str = "crossbeam";
    const KIND: Kind = Kind::Threads;
    const SETTINGS: &'static str =
        "crossbeam-queue 0.3 ArrayQueue, two threads of one process, polling";
    const CAN: &'static [(Measure, Mode)] = SINGLE;
    type Link<const W: usize> = End<W>;
}

/// One side.
pub struct End<const W: usize> {
    out: Arc<ArrayQueue<Message<W>>>,
    back: Arc<ArrayQueue<Message<W>>>,
}

impl<const W: usize> Link<W> for End<W> {
    type Half = Self;

    fn create(place: &Place) -> Result<Self::Half> {
        if !place.near {
            return exchange::take();
        }
        let out = Arc::new(ArrayQueue::new(place.slots));
        let back = Arc::new(ArrayQueue::new(place.slots));
        exchange::leave(End { out: Arc::clone(&back), back: Arc::clone(&out) });
        Ok(End { out, back })
    }

    fn join(half: Self::Half, _place: &Place) -> Result<Self> {
        Ok(half)
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        until(|| self.out.push(*message).ok());
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        *message = until(|| self.back.pop());
    }
}
