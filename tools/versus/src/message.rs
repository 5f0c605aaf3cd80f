//! A message, and the book that the receiving side keeps of what came.
//!
//! A message is `W` words, so that peers with typed slots and peers with byte slices get the same
//! thing. Every word is made from the message's number, and every word of every message is checked:
//! a message that is stale, torn, doubled, out of order or from another place cannot pass.

use std::mem::MaybeUninit;

use crate::system::now_ns;

/// A message of `8 * W` bytes. The first word is its number.
pub type Message<const W: usize> = [u64; W];

/// The number of the message that ends the warm-up; it is not part of the sequence.
pub const START: u64 = END - 1;
/// The number of the message after which nothing comes.
pub const END: u64 = u64::MAX >> 2;
/// The number of the first message.
pub const FIRST: u64 = 1;

/// Odd, so that word `i` of message `n` is word `j` of no near message.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Makes message `number`.
#[inline(always)]
pub fn fill<const W: usize>(message: &mut Message<W>, number: u64) {
    fill_at(message.as_mut_ptr(), W, number);
}

/// Makes message `number` where nothing is yet.
#[inline(always)]
pub fn fill_new<const W: usize>(place: &mut MaybeUninit<Message<W>>, number: u64) {
    fill_at(place.as_mut_ptr().cast(), W, number);
}

/// Whether this is message `number`, whole.
#[inline(always)]
pub fn is<const W: usize>(message: &Message<W>, number: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    if W >= LONG && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function was compiled for.
        return unsafe { is_wide(message, number) };
    }
    is_plain(message, number)
}

/// Long messages are made and checked with wide registers, where there are some, so that this is
/// little beside the copies that are measured. A short one is made in line, faster than by a call.
const LONG: usize = 128;

#[inline(always)]
fn fill_at(words: *mut u64, count: usize, number: u64) {
    #[cfg(target_arch = "x86_64")]
    if count >= LONG && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function was compiled for; the rest as below.
        return unsafe { fill_wide(words, count, number) };
    }
    // SAFETY: both callers give a whole message, theirs alone to write.
    unsafe { fill_plain(words, count, number) }
}

/// # Safety
///
/// There are `count` words at `words`, and nobody else touches them.
#[inline(always)]
unsafe fn fill_plain(words: *mut u64, count: usize, number: u64) {
    let mut word = number;
    for index in 0..count {
        // SAFETY: promised by the caller. Writing asks nothing of what was there before.
        unsafe { words.add(index).write(word) };
        word = word.wrapping_add(STEP);
    }
}

#[inline(always)]
fn is_plain(message: &[u64], number: u64) -> bool {
    // No early exit: a loop without branches is one that the compiler makes wide.
    let mut word = number;
    let mut difference = 0;
    for place in message {
        difference |= *place ^ word;
        word = word.wrapping_add(STEP);
    }
    difference == 0
}

/// # Safety
///
/// As [`fill_plain`], on a processor with AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn fill_wide(words: *mut u64, count: usize, number: u64) {
    // SAFETY: promised by the caller.
    unsafe { fill_plain(words, count, number) }
}

/// [`is_plain`], on a processor with AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn is_wide(message: &[u64], number: u64) -> bool {
    is_plain(message, number)
}

/// What the receiving side of a stream has seen.
#[derive(Default, Debug)]
pub struct Book {
    next: u64,
    /// Messages that came as they should, and when the first and the last of them were taken.
    timed: u64,
    start_ns: u64,
    end_ns: u64,
    /// Numbers passed over.
    pub lost: u64,
    /// Messages whose words do not belong together.
    pub corrupt: u64,
    /// Messages that had come before, or were already given up as lost.
    pub disordered: u64,
}

impl Book {
    /// An empty book.
    pub fn new() -> Self {
        Book { next: FIRST, ..Book::default() }
    }

    /// Enters a message; false when it was the last.
    #[inline(always)]
    pub fn enter<const W: usize>(&mut self, message: &Message<W>) -> bool {
        if is(message, self.next) {
            self.next += 1;
            return true;
        }
        self.enter_odd(message[0], is(message, message[0]))
    }

    #[cold]
    #[inline(never)]
    fn enter_odd(&mut self, number: u64, whole: bool) -> bool {
        match number {
            _ if !whole => {
                self.corrupt += 1;
                self.next += 1;
            }
            START => {
                self.start_ns = now_ns();
                self.timed = self.good();
            }
            END => {
                self.end_ns = now_ns();
                self.timed = self.good() - self.timed;
                return false;
            }
            _ if number > self.next => {
                self.lost += number - self.next;
                self.next = number + 1;
            }
            _ => self.disordered += 1,
        }
        true
    }

    /// Messages that came as they should.
    pub fn good(&self) -> u64 {
        self.next - FIRST - self.lost - self.corrupt
    }

    /// Messages between the two marks, and the time between them. The clock is the receiver's: what
    /// is counted has arrived and has been checked.
    pub fn pace(&self) -> Result<(u64, u64), String> {
        if self.start_ns == 0 || self.end_ns <= self.start_ns {
            return Err(format!("the start mark never came ({self:?})"));
        }
        Ok((self.timed, self.end_ns - self.start_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made<const W: usize>(number: u64) -> Message<W> {
        let mut message = [0; W];
        fill(&mut message, number);
        message
    }

    #[test]
    fn all_ways_of_making_a_message_agree() {
        let mut place = MaybeUninit::uninit();
        fill_new(&mut place, 11);
        // SAFETY: written just above.
        let long: Message<512> = unsafe { place.assume_init() };
        assert_eq!(long, made::<512>(11));
        assert_eq!(long[..32], made::<32>(11));
        assert!(is(&long, 11) && is_plain(&long, 11) && !is(&long, 12));
    }

    #[test]
    fn every_word_counts() {
        for at in 0..6 {
            let mut message = made::<6>(7);
            assert!(is(&message, 7));
            message[at] ^= 1 << 40;
            assert!(!is(&message, 7), "word {at}");
        }
        assert!(!is(&made::<6>(8), 7));
    }

    #[test]
    fn loss_damage_and_disorder_are_counted_apart() {
        let mut book = Book::new();
        let mut torn = made::<6>(5);
        torn[3] = 0;
        assert!(book.enter(&made::<6>(1)));
        assert!(book.enter(&made::<6>(START)));
        assert!(book.enter(&made::<6>(4)));
        assert!(book.enter(&torn));
        assert!(book.enter(&made::<6>(4)));
        assert!(book.enter(&made::<6>(6)));
        assert!(!book.enter(&made::<6>(END)));
        assert_eq!((book.lost, book.corrupt, book.disordered, book.good()), (2, 1, 1, 3));
        assert_eq!(book.timed, 2);
    }
}
