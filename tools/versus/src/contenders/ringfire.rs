//! ringfire 0.5.2: a broadcast ring of fixed slots in `/dev/shm`, here with one reader and lossless.
//!
//! Settings, and why:
//! - `LosslessBackpressure`, because the others lose nothing either. Its default overwrites.
//! - `max_readers(1)`: the writer scans the table of readers for the slowest; one row is the shortest.
//! - The reader attaches before the first push, so that the writer's first scan finds it.
//! - `push` and `try_recv` for copies: its own latency bench busy-polls `try_recv` in the same way.
//! - From 4 KiB on the reader takes one message with `recv_batch`, which writes into the caller's
//!   buffer; `try_recv` returns the message by value, a copy more.
//! - Built without its `tokio` feature: nothing here is async.
//!
//! In its own words, from a checkout of ringfire: `cargo bench --locked --bench ipc_compare` (round
//! trips, threads, 64 bytes), `cargo bench --locked --bench throughput` (operations).

use ringfire::{FlowControl, RingConsumer, RingConsumerBuilder, RingProducer, RingProducerBuilder};

use crate::contender::{BATCH, Contender, Kind, Link, Measure, Mode, Place, Result, Why, until};
use crate::contenders::SINGLE_AND_BATCH;
use crate::message::Message;

/// ringfire.
pub struct Ringfire;

impl Contender for Ringfire {
    const NAME: &'static str = "ringfire";
    const KIND: Kind = Kind::Processes;
    const SETTINGS: &'static str =
        "0.5.2, lossless, one registered reader, busy polling; batches by push_batch, recv_batch";
    const CAN: &'static [(Measure, Mode)] = SINGLE_AND_BATCH;
    type Link<const W: usize> = End<W>;
}

/// One side.
pub struct End<const W: usize> {
    out: RingProducer<Message<W>>,
    back: RingConsumer<Message<W>>,
    batch: Vec<Message<W>>,
}

/// From this size on a message by value costs more than the longer call.
const LARGE: usize = 4096;

impl<const W: usize> Link<W> for End<W> {
    type Half = RingProducer<Message<W>>;

    fn create(place: &Place) -> Result<Self::Half> {
        RingProducerBuilder::new(place.slots as u64)
            .flow_control(FlowControl::LosslessBackpressure)
            .max_readers(1)
            .build(place.outgoing())
            .why("create a ringfire producer")
    }

    fn join(out: Self::Half, place: &Place) -> Result<Self> {
        let back = RingConsumerBuilder::new().start_from_head().attach(place.incoming());
        let back = back.why("attach a ringfire consumer")?;
        Ok(End { out, back, batch: vec![[0; W]; BATCH] })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        until(|| self.out.try_push(message).ok());
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        if size_of::<Message<W>>() >= LARGE {
            let one = std::slice::from_mut(message);
            until(|| (self.back.recv_batch(one) == 1).then_some(()));
        } else {
            *message = until(|| self.back.try_recv());
        }
    }

    #[inline(always)]
    fn send_batch(&mut self, messages: &[Message<W>]) {
        self.out.push_batch(messages);
    }

    #[inline(always)]
    fn receive_batch(&mut self, take: impl FnMut(&Message<W>)) {
        let (back, batch) = (&mut self.back, &mut self.batch);
        let count = until(|| Some(back.recv_batch(batch)).filter(|count| *count > 0));
        self.batch[..count].iter().for_each(take);
    }
}
