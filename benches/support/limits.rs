//! What the machine can do at best, and what a good programmer writes in an afternoon: the figures
//! that all others are divided by. The same clock, messages, copies and way of polling.
//!
//! - [`Line`]: one word in one cache line, stored by each side in turn. No message can cross faster
//!   than the line that carries it. No payload.
//! - [`Futexes`]: two futexes, each slept on whenever its side waits. No payload but the number.
//! - [`Textbook`]: head and tail on lines of their own, each side with a private copy of the other's
//!   index that it renews only when the ring seems full or empty; bare slots close together.
//! - [`Copies`]: each message is copied into shared memory by one side and out of it by the other,
//!   with a flag per block on a line of its own. The least that can be done with large blocks.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::link::{Link, PATIENCE, ring_bytes, until};
use super::message::{Message, fill};
use super::{Meeting, Order, Result, Why};

/// Processors fetch lines in pairs: what is to lie apart lies this far apart.
const APART: usize = 128;

/// A shared file in memory, all zeros at first. What lies where, each limit says.
struct Shared(MmapRaw);

impl Shared {
    fn open(order: &Order, meeting: &mut Meeting, bytes: usize) -> Result<Shared> {
        let path = Path::new(order.text("folder")).join("limit");
        let mut how = OpenOptions::new();
        how.read(true).write(true).create_new(order.is_near());
        if !order.is_near() {
            meeting.meet()?;
        }
        let file = how.open(path).why("open a shared file")?;
        if order.is_near() {
            file.set_len(bytes as u64).why("size a shared file")?;
        }
        let map = MmapOptions::new().len(bytes).populate().map_raw(&file);
        let map = map.why("map a shared file")?;
        if order.is_near() {
            meeting.meet()?;
        }
        Ok(Shared(map))
    }

    #[inline(always)]
    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < self.0.len());
        self.0.as_mut_ptr().wrapping_add(offset)
    }

    /// The word at an offset that is a multiple of 8.
    #[inline(always)]
    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: aligned, inside the mapping, which lives as long as `self`, and reached as an
        // atomic by both sides.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }

    /// The futex word at an offset that is a multiple of 8.
    #[inline(always)]
    fn half_word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as above; no limit uses the same place as a whole word.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()) }
    }
}

/// The bare cache line: the number in the upper bits, in the lowest whose word it is.
pub struct Line {
    memory: Shared,
    mine: u64,
}

impl<const W: usize> Link<W> for Line {
    fn open(order: &Order, meeting: &mut Meeting) -> Result<Self> {
        let memory = Shared::open(order, meeting, APART)?;
        let mine = u64::from(order.is_near());
        Ok(Line { memory, mine })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        // One more than the number, so that zero is nobody's word.
        let word = (message.0[0] + 1) << 1 | self.mine;
        // Release, as any real message needs; it costs nothing on x86.
        self.memory.word(0).store(word, Ordering::Release);
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        let (word, mine) = (self.memory.word(0), self.mine);
        let is_theirs = |word: &u64| *word != 0 && *word & 1 != mine;
        let word = until(|| Some(word.load(Ordering::Acquire)).filter(is_theirs));
        fill(&mut message.0, (word >> 1) - 1);
    }
}

/// Two bare futexes, with the number beside the word.
pub struct Futexes {
    memory: Shared,
    out: usize,
    back: usize,
    seen: u32,
}

impl<const W: usize> Link<W> for Futexes {
    fn open(order: &Order, meeting: &mut Meeting) -> Result<Self> {
        let memory = Shared::open(order, meeting, 2 * APART)?;
        let (out, back) = if order.is_near() { (0, APART) } else { (APART, 0) };
        Ok(Futexes { memory, out, back, seen: 0 })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        self.memory.word(self.out + 8).store(message.0[0], Ordering::Relaxed);
        let futex = self.memory.half_word(self.out);
        futex.fetch_add(1, Ordering::Release);
        // SAFETY: the word is mapped as long as `self`; waking touches no memory.
        unsafe { libc::syscall(libc::SYS_futex, futex.as_ptr(), libc::FUTEX_WAKE, 1) };
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        let futex = self.memory.half_word(self.back);
        let rung = loop {
            match futex.load(Ordering::Acquire) {
                value if value == self.seen => sleep(futex, value),
                value => break value,
            }
        };
        self.seen = rung;
        fill(&mut message.0, self.memory.word(self.back + 8).load(Ordering::Relaxed));
    }
}

/// Sleeps while the word is `seen`.
fn sleep(futex: &AtomicU32, seen: u32) {
    let patience = libc::timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    // SAFETY: the word is mapped while it is borrowed, and `patience` outlives the call.
    let slept = unsafe {
        libc::syscall(libc::SYS_futex, futex.as_ptr(), libc::FUTEX_WAIT, seen, &raw const patience)
    };
    let is_late = slept != 0
        && std::io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT)
        && futex.load(Ordering::Relaxed) == seen;
    assert!(!is_late, "nobody woke this side for {PATIENCE:?}");
}

/// How many messages of this size the memory of one direction holds: whole lines each, a power of
/// two of them.
const fn slots(bytes: usize) -> usize {
    let fit = ring_bytes(bytes) / bytes.next_multiple_of(64);
    if fit < 4 { 4 } else { fit.next_power_of_two() }
}

/// The textbook ring. Each direction: head, tail, then the slots.
pub struct Textbook<const W: usize> {
    memory: Shared,
    out: usize,
    head: u64,
    tail_seen: u64,
    back: usize,
    tail: u64,
    head_seen: u64,
}

impl<const W: usize> Textbook<W> {
    const TAIL: usize = APART;
    const SLOTS: usize = 2 * APART;

    #[inline(always)]
    fn slot(&self, ring: usize, index: u64) -> *mut Message<W> {
        let index = index as usize & (slots(8 * W) - 1);
        self.memory.at(ring + Self::SLOTS + index * 8 * W).cast()
    }
}

impl<const W: usize> Link<W> for Textbook<W> {
    fn open(order: &Order, meeting: &mut Meeting) -> Result<Self> {
        let ring = (Self::SLOTS + slots(8 * W) * 8 * W).next_multiple_of(4096);
        let memory = Shared::open(order, meeting, 2 * ring)?;
        let (out, back) = if order.is_near() { (0, ring) } else { (ring, 0) };
        Ok(Textbook { memory, out, head: 0, tail_seen: 0, back, tail: 0, head_seen: 0 })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        let (head, slots) = (self.head, slots(8 * W) as u64);
        if head - self.tail_seen == slots {
            let tail = self.memory.word(self.out + Self::TAIL);
            let moved = |tail: &u64| head - *tail < slots;
            self.tail_seen = until(|| Some(tail.load(Ordering::Acquire)).filter(moved));
        }
        // SAFETY: inside the mapping and aligned. Fewer than `slots` messages are unread, so the
        // reader has left this slot: it stored its index (Release, seen with Acquire) afterwards.
        unsafe { self.slot(self.out, head).copy_from_nonoverlapping(message, 1) };
        self.head = head + 1;
        self.memory.word(self.out).store(self.head, Ordering::Release);
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        let tail = self.tail;
        if tail == self.head_seen {
            let head = self.memory.word(self.back);
            let moved = |head: &u64| *head != tail;
            self.head_seen = until(|| Some(head.load(Ordering::Acquire)).filter(moved));
        }
        // SAFETY: inside the mapping and aligned. The writer's index (Release, seen with Acquire)
        // is past this slot, and it does not come back before our index is past it too.
        unsafe { self.slot(self.back, tail).copy_to_nonoverlapping(message, 1) };
        self.tail = tail + 1;
        self.memory.word(self.back + Self::TAIL).store(self.tail, Ordering::Release);
    }
}

/// The raw two copies. Each direction: blocks, each a flag on its line and then the message.
pub struct Copies<const W: usize> {
    memory: Shared,
    out: usize,
    written: u64,
    back: usize,
    read: u64,
}

impl<const W: usize> Copies<W> {
    const FLAG: usize = 64;
    const BLOCK: usize = Self::FLAG + (8 * W).next_multiple_of(64);

    #[inline(always)]
    fn block(ring: usize, index: u64) -> usize {
        ring + (index as usize & (slots(8 * W) - 1)) * Self::BLOCK
    }
}

impl<const W: usize> Link<W> for Copies<W> {
    fn open(order: &Order, meeting: &mut Meeting) -> Result<Self> {
        let ring = (slots(8 * W) * Self::BLOCK).next_multiple_of(4096);
        let memory = Shared::open(order, meeting, 2 * ring)?;
        let (out, back) = if order.is_near() { (0, ring) } else { (ring, 0) };
        Ok(Copies { memory, out, written: 0, back, read: 0 })
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        let block = Self::block(self.out, self.written);
        let flag = self.memory.word(block);
        until(|| (flag.load(Ordering::Acquire) == 0).then_some(()));
        let place = self.memory.at(block + Self::FLAG).cast::<Message<W>>();
        // SAFETY: inside the mapping and aligned; the flag (Acquire) says that the reader has left
        // the block, which is ours until it says otherwise.
        unsafe { place.copy_from_nonoverlapping(message, 1) };
        flag.store(1, Ordering::Release);
        self.written += 1;
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        let block = Self::block(self.back, self.read);
        let flag = self.memory.word(block);
        until(|| (flag.load(Ordering::Acquire) == 1).then_some(()));
        let place = self.memory.at(block + Self::FLAG).cast::<Message<W>>();
        // SAFETY: as above, with the sides exchanged.
        unsafe { place.copy_to_nonoverlapping(message, 1) };
        flag.store(0, Ordering::Release);
        self.read += 1;
    }
}
