//! ipc_ring 0.2.1: a ring of bytes in a mapped file, for one writer and one reader.
//!
//! Settings, and why:
//! - `try_push` and `try_pop`, polled: its blocking calls add a futex wait, while the wakes (one
//!   system call in each push and each pop) are made in any case.
//! - The file on `/dev/shm`; its README suggests 64 MiB, which falls out of every cache, so it gets
//!   the same ring as everybody.
//!
//! In its own words: `cargo run --release --bin ipc_bench -- --ring /dev/shm/bench --cap 67108864`.

use ::ipc_ring::{IpcError, RingReader, RingWriter};
use bytemuck::{bytes_of, bytes_of_mut};

use crate::contender::{Contender, Kind, Link, Measure, Mode, Place, Result, Why, until};
use crate::contenders::SINGLE;
use crate::message::Message;

/// ipc_ring.
pub struct IpcRing;

impl Contender for IpcRing {
    const NAME: &'static str = "ipc_ring";
    const KIND: Kind = Kind::Processes;
    const SETTINGS: &'static str = "0.2.1, try_push and try_pop, polling";
    const CAN: &'static [(Measure, Mode)] = SINGLE;
    type Link<const W: usize> = End;
}

/// One side.
pub struct End {
    out: RingWriter,
    back: RingReader,
    /// What `try_pop` fills; it wants a `Vec`.
    popped: Vec<u8>,
}

impl<const W: usize> Link<W> for End {
    type Half = RingWriter;

    fn create(place: &Place) -> Result<Self::Half> {
        RingWriter::create(place.outgoing(), place.ring_bytes).why("create an ipc_ring")
    }

    fn join(out: Self::Half, place: &Place) -> Result<Self> {
        let back = RingReader::open(place.incoming()).why("open an ipc_ring")?;
        Ok(End { out, back, popped: Vec::with_capacity(8 * W) })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        until(|| match self.out.try_push(bytes_of(message)) {
            Ok(()) => Some(()),
            Err(IpcError::Full) => None,
            Err(other) => panic!("ipc_ring: {other}"),
        });
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        let (back, popped) = (&mut self.back, &mut self.popped);
        until(|| back.try_pop(popped).expect("ipc_ring: pop"));
        bytes_of_mut(message).copy_from_slice(&self.popped);
    }
}
