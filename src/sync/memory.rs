//! Frames as bytes in memory that another process maps too.
//!
//! ```text
//!  byte 0        8                                             frame_size
//!       +--------+----------------------------------------------+
//!       | commit | payload ...                                  |
//!       +--------+----------------------------------------------+
//! ```
//!
//! A message of several frames runs on over the headers of the frames behind its first one. This
//! file only computes addresses and moves bytes; which frame may be touched by whom, and when, is
//! the ring's business. No reference to payload bytes is ever made here, only pointers.

use std::marker::PhantomData;
// Not the simulation's: what happens within the ring is not among its steps.
use std::sync::atomic::AtomicU64;

use super::{FIRST_LINE, Ordering};

/// Bytes of a frame before its payload.
const HEADER: usize = 64 - FIRST_LINE;

/// The frames of one ring, by absolute position.
#[derive(Clone, Copy)]
pub(crate) struct Frames {
    base: *mut u8,
    mask: u64,
    size: usize,
}

// SAFETY: a `Frames` is an address and two numbers; whoever uses it on another thread is bound by
// the same promises, which `new` makes for the memory and the ring for every access.
unsafe impl Send for Frames {}

impl Frames {
    /// # Safety
    /// `base` must be 64-byte aligned and valid for reads (for writes too, if the ring writes) of
    /// `frames * size` bytes for as long as any copy of the result is used; `frames` must be a
    /// power of two and `size` a multiple of 16.
    pub(crate) unsafe fn new(base: *mut u8, frames: u64, size: usize) -> Self {
        Frames { base, mask: frames - 1, size }
    }

    /// The frame at `pos`.
    #[inline(always)]
    pub(crate) fn at(&self, pos: u64) -> Frame<'_> {
        let index = (pos & self.mask) as usize;
        // SAFETY: `index` is below the number of frames, so the result is inside what `new` was
        // promised.
        Frame(unsafe { self.base.add(index * self.size) }, PhantomData)
    }

    /// Copies the whole frame at `pos` from another ring of the same shape, commit word last.
    pub(crate) fn adopt_frame(&self, from: &Frames, pos: u64) {
        for index in (0..self.size / 8).rev() {
            // SAFETY: `index` is below the number of words of a frame, in both rings.
            let (source, target) = unsafe {
                let source = AtomicU64::from_ptr(from.at(pos).0.cast::<u64>().add(index));
                (source, AtomicU64::from_ptr(self.at(pos).0.cast::<u64>().add(index)))
            };
            // Relaxed: the new ring is private until its segment is published.
            target.store(source.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// One frame, and those behind it if its message runs on.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a>(*mut u8, PhantomData<&'a Frames>);

impl<'a> Frame<'a> {
    /// The commit word.
    #[inline(always)]
    pub(crate) fn commit(self) -> &'a AtomicU64 {
        // SAFETY: the first 8 bytes of a frame are inside the mapping and aligned, and are only
        // ever accessed as an atomic while they can be a commit word; as payload of an earlier
        // frame they belong to a writer that the protocol excludes.
        unsafe { AtomicU64::from_ptr(self.0.cast()) }
    }

    /// Where the payload of the message begins.
    #[inline(always)]
    pub(crate) fn payload(self) -> *mut u8 {
        // SAFETY: a frame has at least 16 bytes, so its payload begins inside it.
        unsafe { self.0.add(HEADER) }
    }

    /// Copies `bytes` into the message.
    ///
    /// # Safety
    /// The caller must own the frames from here on for writing: they must be contiguous, hold
    /// `bytes.len() + 8` bytes, and no one may read them before they are committed.
    #[inline(always)]
    pub(crate) unsafe fn copy_in(self, bytes: &[u8]) {
        let first = bytes.len().min(FIRST_LINE);
        let (from, to) = (bytes.as_ptr(), self.payload());
        // SAFETY: the caller owns the frames and they are long enough; `bytes` is private memory,
        // so the two do not overlap.
        unsafe {
            if bytes.len() > FIRST_LINE {
                let (from, to) = (from.add(FIRST_LINE), to.add(FIRST_LINE));
                std::ptr::copy_nonoverlapping(from, to, bytes.len() - FIRST_LINE);
            }
            copy(from, to, first);
        }
    }

    /// Copies the message out, `out.len()` bytes of it.
    ///
    /// # Safety
    /// The message must be committed and not yet released, and its frames contiguous and at least
    /// `out.len() + 8` bytes, so that its writer does not touch them.
    #[inline(always)]
    pub(crate) unsafe fn copy_out(self, out: &mut [u8]) {
        // SAFETY: the caller says that the bytes are there and that nobody writes them; `out` is
        // private memory.
        unsafe { copy(self.payload(), out.as_mut_ptr(), out.len()) }
    }

    /// Copies `bytes` into the message while others may be reading: word by word, each an atomic
    /// store, so that a reader that loses the race holds garbage but no undefined value.
    ///
    /// # Safety
    /// As for [`Frame::copy_in`], except that others may read the frames with [`Frame::race_out`].
    pub(crate) unsafe fn race_in(self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        let mut index = 0;
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            // Relaxed: the reservation before and the commit word after carry the order.
            self.word(index).store(u64::from_le_bytes(word), Ordering::Relaxed);
            index += 1;
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            // Relaxed: as above. The frame is a multiple of 16 bytes, so the whole word is in it.
            self.word(index).store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    /// Copies the message out while it may be overwritten; the caller must check afterwards that it
    /// was not.
    ///
    /// # Safety
    /// The frames must be contiguous and hold `out.len() + 8` bytes.
    pub(crate) unsafe fn race_out(self, out: &mut [u8]) {
        for (index, chunk) in out.chunks_mut(8).enumerate() {
            // Relaxed: the caller fences and looks at the reservation before it believes a byte.
            let word = self.word(index).load(Ordering::Relaxed).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Word `index` of the payload.
    fn word(self, index: usize) -> &'a AtomicU64 {
        // SAFETY: both callers stay within the frames of the message, which their own callers
        // promise to be inside the ring; 8 bytes into a frame, words are aligned.
        unsafe { AtomicU64::from_ptr(self.payload().cast::<u64>().add(index)) }
    }
}

/// Copies like `memcpy`, without a call for what fits a small frame: there the call is a quarter of
/// all that a read or write costs.
///
/// # Safety
/// As for `copy_nonoverlapping`.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    /// Two pieces of `N` bytes that may overlap: the first and the last of `len`.
    #[inline(always)]
    unsafe fn ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: the caller copies at least `N` bytes, to another memory than they come from.
        unsafe {
            std::ptr::copy_nonoverlapping(from, to, N);
            std::ptr::copy_nonoverlapping(from.add(len - N), to.add(len - N), N);
        }
    }
    // SAFETY: each arm stays within `len`.
    unsafe {
        if len > 64 {
            std::ptr::copy_nonoverlapping(from, to, len);
        } else if len > 48 {
            ends::<16>(from, to, 32);
            ends::<16>(from.add(len - 32), to.add(len - 32), 32);
        } else if len > 32 {
            ends::<16>(from, to, 32);
            std::ptr::copy_nonoverlapping(from.add(len - 16), to.add(len - 16), 16);
        } else if len >= 16 {
            ends::<16>(from, to, len);
        } else if len >= 8 {
            ends::<8>(from, to, len);
        } else if len >= 4 {
            ends::<4>(from, to, len);
        } else if len >= 2 {
            ends::<2>(from, to, len);
        } else if len == 1 {
            *to = *from;
        }
    }
}
