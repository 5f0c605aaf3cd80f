//! The limit of every round trip between sleepers: two futexes, each side always asleep while it
//! waits. No payload; the number of the message rides in the futex word.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::contender::{Contender, Kind, Link, Measure, Mode, Place, Result};
use crate::message::{END, Message, fill};
use crate::shared::{InSharedMemory, Shared};

/// The two bare futexes.
pub struct Futex;

impl Contender for Futex {
    const NAME: &'static str = "two futexes";
    const KIND: Kind = Kind::Yardstick;
    const SETTINGS: &'static str = "shared futexes, always slept on; no payload";
    const CAN: &'static [(Measure, Mode)] = &[(Measure::RoundTrip, Mode::Single)];
    const SIZELESS: bool = true;
    type Link<const W: usize> = End;
}

/// A futex on lines of its own.
#[repr(C, align(128))]
pub struct Word(AtomicU32);

// SAFETY: an atomic, whose zero is valid.
unsafe impl InSharedMemory for Word {}

/// One side.
pub struct End {
    out: Shared<Word, u64>,
    back: Shared<Word, u64>,
    seen: u32,
}

/// What stands for the message that ends everything; numbers of this measurement stay far below.
const LAST: u32 = u32::MAX;

impl<const W: usize> Link<W> for End {
    type Half = Shared<Word, u64>;

    fn create(place: &Place) -> Result<Self::Half> {
        Shared::create(&place.outgoing(), 0)
    }

    fn join(out: Self::Half, place: &Place) -> Result<Self> {
        Ok(End { out, back: Shared::open(&place.incoming(), 0)?, seen: 0 })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        let word = &self.out.header().0;
        word.store(message[0].min(u64::from(LAST)) as u32, Ordering::Release);
        // SAFETY: the word is mapped as long as `self`; waking takes no other memory.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        let word = &self.back.header().0;
        while word.load(Ordering::Acquire) == self.seen {
            sleep(word, self.seen);
        }
        self.seen = word.load(Ordering::Acquire);
        fill(message, if self.seen == LAST { END } else { u64::from(self.seen) });
    }
}

/// Sleeps while the word is `seen`; panics when nobody came for long.
fn sleep(word: &AtomicU32, seen: u32) {
    let patience = libc::timespec { tv_sec: 5, tv_nsec: 0 };
    // SAFETY: the word is mapped while it is borrowed, and `patience` outlives the call.
    let slept = unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, &raw const patience)
    };
    let timed_out = slept != 0
        && std::io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT)
        && word.load(Ordering::Relaxed) == seen;
    assert!(!timed_out, "nobody woke this side for 5 s");
}
