//! A ring in ordinary memory, for tests and fuzzing: readable and writable word by word, so that a
//! kill can be replayed from a copy of it and a liar can write whatever it likes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::{Place, Ring};
use crate::config::{Geometry, Overflow};
use crate::layout::RingLines;
use crate::sync::{AtomicU64, Frames, Ordering};

/// Words of the cursor page.
pub(crate) const LINES: usize = 512;
/// Words before and behind the ring that nobody may write. The address sanitizer brings its own,
/// which notice reads too.
const GUARD: usize = if cfg!(fuzzing) { 0 } else { 512 };
const CANARY: u64 = 0xC0FF_EE00_DEAD_BEEF;

/// Memory for one ring: cursor page, then frames.
pub(crate) struct Arena {
    memory: NonNull<u64>,
    words: usize,
    geometry: Geometry,
}

// SAFETY: the memory is only touched as atomics, or as the ring's protocol allows.
unsafe impl Sync for Arena {}

impl Arena {
    /// A fresh ring that begins at `start`.
    pub(crate) fn new(frame_size: u32, frames: u64, overflow: Overflow, start: Place) -> Self {
        let arena = Arena::blank(Geometry { frame_size, frames, overflow });
        arena.ring().format(start);
        arena
    }

    /// Memory of zeros for a ring of this shape.
    pub(crate) fn blank(geometry: Geometry) -> Self {
        let words = LINES + geometry.frames as usize * geometry.frame_size as usize / 8;
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc_zeroed(Self::layout(words)) }.cast();
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(Self::layout(words)) };
        let arena = Arena { memory, words, geometry };
        for index in (0..GUARD).chain(GUARD + words..words + 2 * GUARD) {
            arena.raw(index).store(CANARY, Ordering::Relaxed);
        }
        arena
    }

    fn layout(words: usize) -> Layout {
        Layout::from_size_align((words + 2 * GUARD) * 8, 4096).expect("a few megabytes at most")
    }

    fn raw(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words + 2 * GUARD);
        // SAFETY: inside the allocation, aligned, and everybody uses atomics.
        unsafe { AtomicU64::from_ptr(self.memory.as_ptr().add(index)) }
    }

    pub(crate) fn ring(&self) -> Ring {
        let base = self.memory.as_ptr().wrapping_add(GUARD).cast::<u8>();
        let lines = NonNull::new(base.cast::<RingLines>()).expect("inside an allocation");
        let (frames, size) = (self.geometry.frames, self.geometry.frame_size as usize);
        // SAFETY: the memory holds a page of cursors and all frames, and the tests keep it longer
        // than the ends that they make.
        unsafe {
            Ring::new(lines, Frames::new(base.wrapping_add(LINES * 8), frames, size), self.geometry)
        }
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Words of the ring, cursor page included.
    pub(crate) fn len(&self) -> usize {
        self.words
    }

    /// One word of the ring, first the cursor page's.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words);
        self.raw(GUARD + index)
    }

    /// The words of the frame at `pos`.
    pub(crate) fn frame(&self, pos: u64) -> std::ops::Range<usize> {
        let size = self.geometry.frame_size as usize / 8;
        let start = LINES + (pos & (self.geometry.frames - 1)) as usize * size;
        start..start + size
    }

    /// Whether all of these bytes are in frames.
    pub(crate) fn has(&self, at: *const u8, len: usize) -> bool {
        let frames = self.memory.as_ptr().wrapping_add(GUARD + LINES).addr();
        let end = frames + (self.words - LINES) * 8;
        (frames..=end).contains(&at.addr()) && len <= end - at.addr()
    }

    /// All of the ring as it is now.
    pub(crate) fn snapshot(&self) -> Vec<u64> {
        (0..self.words).map(|index| self.word(index).load(Ordering::Relaxed)).collect()
    }

    /// Puts the ring back to what it was.
    pub(crate) fn restore(&self, snapshot: &[u64]) {
        for (index, word) in snapshot.iter().enumerate() {
            self.word(index).store(*word, Ordering::Relaxed);
        }
    }

    /// Panics if anybody wrote outside the ring.
    pub(crate) fn check_guards(&self) {
        for index in (0..GUARD).chain(GUARD + self.words..self.words + 2 * GUARD) {
            assert_eq!(self.raw(index).load(Ordering::Relaxed), CANARY, "written outside the ring");
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with the same layout.
        unsafe { dealloc(self.memory.as_ptr().cast(), Self::layout(self.words)) }
    }
}

/// Numbers that are the same in every run (splitmix64).
#[derive(Clone)]
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// How often random tests repeat themselves with other dice: once, or as `ESHM_ROUNDS` says.
#[cfg(test)]
pub(crate) fn rounds() -> std::ops::Range<u64> {
    0..std::env::var("ESHM_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number"))
}
