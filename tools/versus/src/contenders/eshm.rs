//! eshm, this project: a bus between two processes, lossless, safe against a kill at any instruction.
//!
//! Settings, and why:
//! - `try_write` and `try_read`, polled like everybody; `Wait::Spin`, so that no side ever sleeps.
//!   What sleeping costs is measured in the project's own benches.
//! - Frames of 64 bytes, the default, and as many as fill the ring that everybody gets.
//! - `prefault`, as the rings of the limits are present from the start too.
//! - The heartbeat, the locks and the background thread are on, as in any program.
//!
//! "Batches" are `try_write_many` and `try_read_many`, "in place" is claim and commit, peek and release.
//!
//! In its own words: `cargo bench --bench round_trip` and `cargo bench --bench stream`.

use std::mem::MaybeUninit;

use bytemuck::{TransparentWrapper, bytes_of, bytes_of_mut, from_bytes, from_bytes_mut};
use eshm::{Batch, Endpoint, Error, Options, Reader, Role, Wait, Writer};

use crate::contender::{BATCH, Contender, Kind, Link, Measure, Mode, Place, Result, Why, until};
use crate::contenders::EVERYTHING;
use crate::message::Message;

/// eshm.
pub struct Eshm;

impl Contender for Eshm {
    const NAME: &'static str = "eshm";
    const KIND: Kind = Kind::Processes;
    const SETTINGS: &'static str = "this tree, 64-byte frames, polling; batches by try_write_many, try_read_many; in place by claim, peek";
    const CAN: &'static [(Measure, Mode)] = EVERYTHING;
    type Link<const W: usize> = End;
}

/// One side.
pub struct End {
    out: Writer,
    back: Reader,
    batch: Batch,
}

const FRAME_BYTES: u32 = 64;

impl<const W: usize> Link<W> for End {
    type Half = Option<Endpoint>;

    fn create(place: &Place) -> Result<Self::Half> {
        place.near.then(|| open(place, Role::Master)).transpose()
    }

    fn join(half: Self::Half, place: &Place) -> Result<Self> {
        let endpoint = half.map_or_else(|| open(place, Role::Slave), Ok)?;
        let (out, back) = endpoint.split();
        Ok(End { out, back, batch: Batch::with_capacity(8 * W * BATCH, BATCH) })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        until(|| done(self.out.try_write(bytes_of(message))));
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        until(|| done(self.back.try_read(bytes_of_mut(message))));
    }

    #[inline(always)]
    fn send_batch(&mut self, messages: &[Message<W>]) {
        let mut left = Bytes::wrap_slice(messages);
        until(|| {
            let written = done(self.out.try_write_many(left))?;
            left = &left[written..];
            left.is_empty().then_some(())
        });
    }

    #[inline(always)]
    fn receive_batch(&mut self, mut take: impl FnMut(&Message<W>)) {
        until(|| done(self.back.try_read_many(&mut self.batch)));
        for (_, bytes) in self.batch.iter() {
            take(from_bytes(bytes));
        }
    }

    #[inline(always)]
    fn send_in_place(&mut self, mut fill: impl FnMut(&mut MaybeUninit<Message<W>>)) {
        until(|| {
            let mut claim = done(self.out.try_claim(8 * W))?;
            let place: *mut Message<W> = from_bytes_mut(&mut claim);
            // SAFETY: the pointer comes from a unique borrow of the claim, which lasts until the
            // commit below; `fill` leaves a whole message there, so the bytes stay initialised.
            fill(unsafe { &mut *place.cast() });
            done(claim.commit())
        });
    }

    #[inline(always)]
    fn receive_in_place<R>(&mut self, mut take: impl FnMut(&Message<W>) -> R) -> R {
        until(|| {
            let peek = done(self.back.try_peek())?;
            let taken = take(from_bytes(&peek));
            done(peek.release()).map(|()| taken)
        })
    }
}

/// A message as the bytes that `write_many` asks for.
#[repr(transparent)]
struct Bytes<const W: usize>(Message<W>);

// SAFETY: transparent over the one field of that very type.
unsafe impl<const W: usize> TransparentWrapper<Message<W>> for Bytes<W> {}

impl<const W: usize> AsRef<[u8]> for Bytes<W> {
    fn as_ref(&self) -> &[u8] {
        bytes_of(&self.0)
    }
}

fn open(place: &Place, role: Role) -> Result<Endpoint> {
    let mut options = Options::new("bus");
    options.directory(&place.directory).role(role).wait(Wait::Spin).prefault(true);
    options.frame_size(FRAME_BYTES).frames(place.ring_bytes as u64 / u64::from(FRAME_BYTES));
    options.open().why("open an eshm endpoint")
}

/// What was done, or nothing when it is not yet time.
#[inline(always)]
fn done<T>(tried: eshm::Result<T>) -> Option<T> {
    match tried {
        Ok(done) => Some(done),
        Err(Error::Full | Error::Empty) => None,
        Err(other) => panic!("eshm: {other}"),
    }
}
