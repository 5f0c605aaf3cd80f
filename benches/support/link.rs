//! What is measured: one end of a two-way connection. The loops of `play.rs` are compiled anew for
//! every kind of it and every size of message, so that a call through the trait costs nothing.

use std::time::{Duration, Instant};

use eshm::{Batch, Error, Options, Reader, Role, Wait, Writer};

use super::message::{Message, fill};
use super::{Meeting, Order, Result, Why};

/// The sizes that the loops are compiled for.
pub const SIZES: [usize; 6] = [8, 48, 256, 1024, 4096, 65536];

/// Memory for the messages of one direction, the same for all that carry messages of this size. For
/// large ones it is more than a core's own cache: what has gone on to the shared cache is fetched
/// from there faster than from the other core.
pub const fn ring_bytes(message: usize) -> usize {
    if message < 1024 { 512 << 10 } else { 2 << 20 }
}

/// One end.
pub trait Link<const W: usize>: Sized {
    /// Opens the end that the order names. Both sides meet on the way, so that nobody opens what is
    /// not there yet.
    fn open(order: &Order, meeting: &mut Meeting) -> Result<Self>;

    /// Sends a copy of the message; waits for room.
    fn send(&mut self, message: &Message<W>);

    /// Waits for the next message and copies it out.
    fn receive(&mut self, message: &mut Message<W>);

    /// Sends them all in as few steps as there are.
    fn send_many(&mut self, _messages: &[Message<W>]) {
        unreachable!("no batches")
    }

    /// Waits for messages, copies out what one call brings, and hands it over in order.
    fn receive_many(&mut self, _take: impl FnMut(&[u64])) {
        unreachable!("no batches")
    }

    /// Makes message `number` where it will be read.
    fn send_in_place(&mut self, _number: u64) {
        unreachable!("not in place")
    }

    /// Waits for the next message and shows it where it lies.
    fn receive_in_place<R>(&mut self, _take: impl FnMut(&[u64]) -> R) -> R {
        unreachable!("not in place")
    }

    /// Messages that the other side has not taken yet.
    fn backlog(&self) -> u64 {
        unreachable!("no backlog")
    }
}

/// Polls until there is an answer, in the same way for all who poll.
#[inline(always)]
pub fn until<T>(mut poll: impl FnMut() -> Option<T>) -> T {
    // Some tens of microseconds: more than anything takes between two sides that both run.
    const POLLS: u32 = 1 << 10;
    let mut since = None;
    loop {
        for _ in 0..POLLS {
            if let Some(answer) = poll() {
                return answer;
            }
            std::hint::spin_loop();
        }
        rest(&mut since);
    }
}

/// Gives up the core for a moment: the other side may need it.
#[cold]
#[inline(never)]
fn rest(since: &mut Option<Instant>) {
    let since = since.get_or_insert_with(Instant::now);
    assert!(since.elapsed() < PATIENCE, "nothing came and nothing went for {PATIENCE:?}");
    std::thread::yield_now();
}

/// After this long the message is lost for good or the other side is stuck.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// An end of this library's bus. With `POLLS` it never waits inside a call, but tries again and
/// again; else its calls wait, as the order says.
pub struct Bus<const W: usize, const POLLS: bool> {
    out: Writer,
    back: Reader,
    batch: Batch,
}

/// Most messages in one call.
pub const BATCH: usize = 64;

/// The options that an order asks for.
pub fn options(order: &Order) -> Result<Options> {
    let frame = order.number("frame").unwrap_or(64);
    let bytes = order.number("bytes").unwrap_or(0) as usize;
    let ring = order.number("ring_bytes").unwrap_or(ring_bytes(bytes) as u64);
    let mut options = Options::new("bus");
    options
        .directory(order.text("folder"))
        .role(if order.is_near() { Role::Master } else { Role::Slave })
        .frame_size(frame as u32)
        .frames((ring / frame).next_power_of_two())
        // As the memory of the limits is there from the start too.
        .prefault(true)
        .read_timeout(PATIENCE)
        .write_timeout(PATIENCE)
        .wait(match order.text("wait") {
            "adaptive" => Wait::Adaptive,
            "park" => Wait::Park,
            _ => Wait::Spin,
        });
    Ok(options)
}

/// What was done; nothing if it is not yet time.
#[inline(always)]
fn done<T>(tried: eshm::Result<T>) -> Option<T> {
    match tried {
        Ok(done) => Some(done),
        Err(Error::Full | Error::Empty) => None,
        Err(other) => panic!("{other}"),
    }
}

#[inline(always)]
fn sure<T>(tried: eshm::Result<T>) -> T {
    match tried {
        Ok(done) => done,
        Err(error) => panic!("{error}"),
    }
}

impl<const W: usize, const POLLS: bool> Link<W> for Bus<W, POLLS> {
    fn open(order: &Order, meeting: &mut Meeting) -> Result<Self> {
        let options = options(order)?;
        if !order.is_near() {
            meeting.meet()?;
        }
        let bus = options.open().why("open the bus")?;
        if order.is_near() {
            meeting.meet()?;
        }
        let (out, back) = bus.split();
        Ok(Bus { out, back, batch: Batch::with_capacity(8 * W * BATCH, BATCH) })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        match POLLS {
            true => until(|| done(self.out.try_write(message.bytes()))),
            false => sure(self.out.write(message.bytes())),
        }
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        let len = match POLLS {
            true => until(|| done(self.back.try_read(message.bytes_mut()))),
            false => sure(self.back.read(message.bytes_mut())),
        };
        assert!(len == 8 * W, "a message of {len} bytes");
    }

    #[inline(always)]
    fn send_many(&mut self, messages: &[Message<W>]) {
        let mut left = messages;
        if POLLS {
            return until(|| {
                left = &left[done(self.out.try_write_many(left))?..];
                left.is_empty().then_some(())
            });
        }
        while let Some(first) = left.first() {
            match done(self.out.try_write_many(left)) {
                Some(count) => left = &left[count..],
                // Only a call for one message waits for room.
                None => {
                    sure(self.out.write(first.bytes()));
                    left = &left[1..];
                }
            }
        }
    }

    #[inline(always)]
    fn receive_many(&mut self, mut take: impl FnMut(&[u64])) {
        if POLLS {
            until(|| done(self.back.try_read_many(&mut self.batch)));
        } else {
            while done(self.back.try_read_many(&mut self.batch)).is_none() {
                // Only a call for one message waits; not released, it stays where it is.
                let _ = sure(self.back.peek());
            }
        }
        for (_, bytes) in self.batch.iter() {
            take(bytemuck::cast_slice(bytes));
        }
    }

    #[inline(always)]
    fn send_in_place(&mut self, number: u64) {
        if POLLS {
            return until(|| {
                let mut claim = done(self.out.try_claim(8 * W))?;
                fill(bytemuck::cast_slice_mut(&mut claim), number);
                sure(claim.commit());
                Some(())
            });
        }
        let mut claim = sure(self.out.claim(8 * W));
        fill(bytemuck::cast_slice_mut(&mut claim), number);
        sure(claim.commit());
    }

    #[inline(always)]
    fn receive_in_place<R>(&mut self, mut take: impl FnMut(&[u64]) -> R) -> R {
        if POLLS {
            return until(|| {
                let peek = done(self.back.try_peek())?;
                let taken = take(bytemuck::cast_slice(&peek));
                sure(peek.release());
                Some(taken)
            });
        }
        let peek = sure(self.back.peek());
        let taken = take(bytemuck::cast_slice(&peek));
        sure(peek.release());
        taken
    }

    #[inline(always)]
    fn backlog(&self) -> u64 {
        self.out.backlog()
    }
}
