//! A message, and the book that a receiver keeps of what came.
//!
//! Every word of a message follows from its number, and every word of every message is checked. So
//! nothing that is stale, torn, doubled, lost or out of order can pass, and making and checking it
//! is the same work for everything that is measured.

use super::{Result, system};

/// A message of `8 * W` bytes; its first word is its number.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Message<const W: usize>(pub [u64; W]);

/// Numbers from here on are no part of the sequence.
const MARKS: u64 = u64::MAX >> 2;
/// The number of the message at which the clock of a stream starts.
pub const START: u64 = MARKS + 1;
/// The number of the message after which nothing comes.
pub const END: u64 = MARKS + 2;

/// What a word is more than the word before it: odd and wild, so that no word of one message is
/// at the same place in another.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// From this many words on the wide registers are worth a call. They keep this work small beside
/// the copies that are measured.
const LONG: usize = 128;

impl<const W: usize> Message<W> {
    /// Message `number`.
    pub fn new(number: u64) -> Self {
        let mut message = Message([0; W]);
        fill(&mut message.0, number);
        message
    }

    /// Its bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    /// Its bytes, to be filled from elsewhere.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

impl<const W: usize> AsRef<[u8]> for Message<W> {
    #[inline(always)]
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// Makes message `number`.
#[inline(always)]
pub fn fill(words: &mut [u64], number: u64) {
    #[cfg(target_arch = "x86_64")]
    if words.len() >= LONG && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { fill_wide(words, number) };
    }
    fill_plain(words, number);
}

/// Whether this is message `number`, whole.
#[inline(always)]
pub fn is(words: &[u64], number: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    if words.len() >= LONG && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { is_wide(words, number) };
    }
    is_plain(words, number)
}

#[inline(always)]
fn fill_plain(words: &mut [u64], number: u64) {
    let mut word = number;
    for place in words {
        *place = word;
        word = word.wrapping_add(STEP);
    }
}

#[inline(always)]
fn is_plain(words: &[u64], number: u64) -> bool {
    // Without an early end, which the compiler could not make wide.
    let mut word = number;
    let mut difference = 0;
    for place in words {
        difference |= *place ^ word;
        word = word.wrapping_add(STEP);
    }
    difference == 0
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_wide(words: &mut [u64], number: u64) {
    fill_plain(words, number);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn is_wide(words: &[u64], number: u64) -> bool {
    is_plain(words, number)
}

/// What the receiver of a stream has seen. Numbers begin at 0.
#[derive(Default, Debug)]
pub struct Book {
    next: u64,
    start: (u64, u64),
    end: (u64, u64),
}

impl Book {
    /// Enters a message; false when it was the last.
    ///
    /// # Panics
    /// When it is not the message that was to come: then no figure is worth anything.
    #[inline(always)]
    pub fn enter(&mut self, words: &[u64]) -> bool {
        if is(words, self.next) {
            self.next += 1;
            return true;
        }
        self.enter_mark(words)
    }

    #[cold]
    #[inline(never)]
    fn enter_mark(&mut self, words: &[u64]) -> bool {
        let number = words[0];
        assert!(is(words, number), "message {} came damaged", self.next);
        let now = (self.next, system::now_ns());
        match number {
            START => self.start = now,
            END => self.end = now,
            other => panic!("message {other} came instead of message {}", self.next),
        }
        number != END
    }

    /// Messages between the two marks, and the time between them. The clock is the receiver's: what
    /// is counted has arrived and was checked.
    pub fn pace(&self) -> Result<(u64, u64)> {
        let (messages, nanos) =
            (self.end.0.wrapping_sub(self.start.0), self.end.1.saturating_sub(self.start.1));
        match self.start.1 == 0 || nanos == 0 {
            true => Err("the marks of the stream never came".into()),
            false => Ok((messages, nanos)),
        }
    }
}
