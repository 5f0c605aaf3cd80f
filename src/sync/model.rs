//! Frames as cells that a model checker watches.
//!
//! Commit words are atomics, as in memory. Payload exists twice. What the protocol gives
//! to one side at a time ([`Frame::copy_in`], [`Frame::copy_out`]) lies in cells, so that an
//! access without an edge between it and the last one is a race and fails the test. What is raced
//! for on purpose ([`Frame::race_in`], [`Frame::race_out`]) lies in relaxed atomics. So a tap can
//! be modelled on an overwritten ring only: on the other kind it reads what was copied in plainly.
//!
//! A message of several frames runs on over the headers of the frames behind its first one, as it
//! does in memory, so that ghosts exist in the model too.

use std::cell::Cell;

use loom::cell::UnsafeCell;
pub(crate) use loom::{model::Builder, thread};

use super::{AtomicU64, Ordering};

thread_local!(static LIGHT_IS_FULL: Cell<bool> = const { Cell::new(false) });

/// The busy half of the asymmetric barrier. The rare half makes it a full fence wherever it strikes,
/// and that may be nowhere: so it is all or nothing here.
pub(crate) fn light_barrier() {
    if LIGHT_IS_FULL.get() {
        super::fence(Ordering::SeqCst);
    }
}

/// Whether the tests that follow on this thread have somebody run the heavy barrier.
pub(crate) fn set_heavy_barrier(is_run: bool) {
    LIGHT_IS_FULL.set(is_run);
}

/// Words of a frame: commit, payload.
const WORDS: usize = 8;
const HEADER: usize = 1;

/// What [`Frames`] looks at.
pub(crate) struct Store {
    slots: Vec<Slot>,
}

struct Slot {
    commit: AtomicU64,
    plain: UnsafeCell<[u64; WORDS - HEADER]>,
    /// Only as many as the test's messages need: each costs the checker time.
    raced: Vec<AtomicU64>,
}

impl Store {
    /// Frames whose messages are raced for with at most `raced` words.
    pub(crate) fn new(frames: u64, raced: usize) -> Self {
        let slot = |_| Slot {
            commit: AtomicU64::new(0),
            plain: UnsafeCell::new([0; WORDS - HEADER]),
            raced: (0..raced).map(|_| AtomicU64::new(0)).collect(),
        };
        Store { slots: (0..frames).map(slot).collect() }
    }
}

/// The frames of one ring, by absolute position; always of 64 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Frames {
    store: *const Store,
}

// SAFETY: an address; the cells behind it notice whoever breaks the protocol.
unsafe impl Send for Frames {}

impl Frames {
    /// # Safety
    /// The store must live for as long as any copy of the result is used.
    pub(crate) unsafe fn new(store: *const Store) -> Self {
        Frames { store }
    }

    fn slot(&self, pos: u64) -> &Slot {
        // SAFETY: `new` was promised that the store lives.
        let slots = unsafe { &(*self.store).slots };
        &slots[(pos & (slots.len() as u64 - 1)) as usize]
    }

    /// The frame at `pos`.
    pub(crate) fn at(&self, pos: u64) -> Frame<'_> {
        Frame { frames: self, pos }
    }

    /// Reads what the sealer copies while a hung writer may go on; races are noticed.
    pub(crate) fn adopt_frame(&self, from: &Frames, pos: u64) {
        let (to, from) = (self.slot(pos), from.slot(pos));
        // SAFETY: as in `copy_in`.
        let words = from.plain.with(|words| unsafe { *words });
        to.plain.with_mut(|to| unsafe { *to = words });
        for (to, from) in to.raced.iter().zip(&from.raced) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        to.commit.store(from.commit.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// One frame, and those behind it if its message runs on.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    frames: &'a Frames,
    pos: u64,
}

impl<'a> Frame<'a> {
    fn slot(self) -> &'a Slot {
        self.frames.slot(self.pos)
    }

    pub(crate) fn commit(self) -> &'a AtomicU64 {
        &self.slot().commit
    }

    pub(crate) fn payload(self) -> *mut u8 {
        self.slot().plain.with_mut(|words| words.cast())
    }

    /// Where word `index` of the message lies: the frame, and the word in it.
    fn word(self, index: usize) -> (&'a Slot, usize) {
        let index = index + HEADER;
        (self.frames.slot(self.pos.wrapping_add((index / WORDS) as u64)), index % WORDS)
    }

    /// # Safety
    /// As for the frames in memory; here a broken promise is noticed.
    pub(crate) unsafe fn copy_in(self, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let value = u64::from_le_bytes(word);
            match self.word(index) {
                // Relaxed: in memory these are plain bytes that happen to lie in a later header.
                (slot, 0) => slot.commit.store(value, Ordering::Relaxed),
                // SAFETY: the checker stops at any access that races with this one.
                (slot, word) => {
                    slot.plain.with_mut(|words| unsafe { (*words)[word - HEADER] = value })
                }
            }
        }
    }

    /// # Safety
    /// As for [`Frame::copy_in`].
    pub(crate) unsafe fn copy_out(self, out: &mut [u8]) {
        for (index, chunk) in out.chunks_mut(8).enumerate() {
            let value = match self.word(index) {
                (slot, 0) => slot.commit.load(Ordering::Relaxed),
                // SAFETY: as in `copy_in`.
                (slot, word) => slot.plain.with(|words| unsafe { (*words)[word - HEADER] }),
            };
            chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
        }
    }

    /// # Safety
    /// None here; the signature is that of the frames in memory.
    pub(crate) unsafe fn race_in(self, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let value = u64::from_le_bytes(word);
            match self.word(index) {
                (slot, 0) => slot.commit.store(value, Ordering::Relaxed),
                (slot, word) => slot.raced[word - HEADER].store(value, Ordering::Relaxed),
            }
        }
    }

    /// # Safety
    /// As for [`Frame::race_in`].
    pub(crate) unsafe fn race_out(self, out: &mut [u8]) {
        for (index, chunk) in out.chunks_mut(8).enumerate() {
            let value = match self.word(index) {
                (slot, 0) => slot.commit.load(Ordering::Relaxed),
                // A ring whose messages are not raced for has no such words: nothing to believe.
                (slot, word) => {
                    slot.raced.get(word - HEADER).map_or(0, |word| word.load(Ordering::Relaxed))
                }
            };
            chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
        }
    }
}
