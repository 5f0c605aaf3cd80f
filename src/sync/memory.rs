//! Frames as bytes in memory that another process maps too.
//!
//! ```text
//!  byte 0        8     12       16                              frame_size
//!       +--------+-----+--------+-------------------------------+
//!       | commit | len | number | payload ...                   |
//!       +--------+-----+--------+-------------------------------+
//! ```
//!
//! A message of several frames runs on over the headers of the frames behind its first one. This
//! file only computes addresses and moves bytes; which frame may be touched by whom, and when, is
//! the ring's business. No reference to payload bytes is ever made here, only pointers.

use super::{AtomicU64, Ordering};

/// Bytes of a frame before its payload.
const HEADER: usize = 16;

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
    /// power of two and `size` a multiple of 64.
    pub(crate) unsafe fn new(base: *mut u8, frames: u64, size: usize) -> Self {
        Frames { base, mask: frames - 1, size }
    }

    /// The frame at `pos`.
    #[inline(always)]
    fn at(&self, pos: u64) -> *mut u8 {
        let index = (pos & self.mask) as usize;
        // SAFETY: `index` is below the number of frames, so the result is inside what `new` was
        // promised.
        unsafe { self.base.add(index * self.size) }
    }

    /// The commit word of the frame at `pos`.
    #[inline(always)]
    pub(crate) fn commit(&self, pos: u64) -> &AtomicU64 {
        // SAFETY: the first 8 bytes of a frame are inside the mapping and aligned, and are only
        // ever accessed as an atomic while they can be a commit word; as payload of an earlier
        // frame they belong to a writer that the protocol excludes.
        unsafe { AtomicU64::from_ptr(self.at(pos).cast()) }
    }

    /// Length (low half) and message number (high half) of the frame at `pos`.
    #[inline(always)]
    pub(crate) fn meta(&self, pos: u64) -> &AtomicU64 {
        // SAFETY: as for `commit`, for the second 8 bytes of the frame.
        unsafe { AtomicU64::from_ptr(self.at(pos).add(8).cast()) }
    }

    /// Where the payload of the message at `pos` begins.
    #[inline(always)]
    pub(crate) fn payload(&self, pos: u64) -> *mut u8 {
        // SAFETY: a frame has at least 64 bytes, so its payload begins inside it.
        unsafe { self.at(pos).add(HEADER) }
    }

    /// Copies `bytes` into the message at `pos`.
    ///
    /// # Safety
    /// The caller must own the frames from `pos` for writing: they must be contiguous, hold
    /// `bytes.len() + 16` bytes, and no one may read them before they are committed.
    #[inline(always)]
    pub(crate) unsafe fn copy_in(&self, pos: u64, bytes: &[u8]) {
        let to = self.payload(pos);
        // SAFETY: the caller owns the frames and they are long enough; `bytes` is private memory,
        // so the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Copies the message at `pos` out, `out.len()` bytes of it.
    ///
    /// # Safety
    /// The message must be committed and not yet released, and its frames contiguous and at least
    /// `out.len() + 16` bytes, so that its writer does not touch them.
    #[inline(always)]
    pub(crate) unsafe fn copy_out(&self, pos: u64, out: &mut [u8]) {
        let from = self.payload(pos);
        // SAFETY: the caller says that the bytes are there and that nobody writes them; `out` is
        // private memory.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) }
    }

    /// Copies `bytes` into the message at `pos` while others may be reading: word by word, each an
    /// atomic store, so that a reader that loses the race holds garbage but no undefined value.
    ///
    /// # Safety
    /// As for [`Frames::copy_in`], except that others may read the frames with
    /// [`Frames::race_out`].
    pub(crate) unsafe fn race_in(&self, pos: u64, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        let mut index = 0;
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            // Relaxed: the reservation before and the commit word after carry the order.
            self.word(pos, index).store(u64::from_le_bytes(word), Ordering::Relaxed);
            index += 1;
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            // Relaxed: as above. The frame is a multiple of 64 bytes, so the whole word is in it.
            self.word(pos, index).store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    /// Copies the message at `pos` out while it may be overwritten; the caller must check
    /// afterwards that it was not.
    ///
    /// # Safety
    /// The frames must be contiguous and hold `out.len() + 16` bytes.
    pub(crate) unsafe fn race_out(&self, pos: u64, out: &mut [u8]) {
        for (index, chunk) in out.chunks_mut(8).enumerate() {
            // Relaxed: the caller fences and looks at the reservation before it believes a byte.
            let word = self.word(pos, index).load(Ordering::Relaxed).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Word `index` of the payload of the message at `pos`.
    fn word(&self, pos: u64, index: usize) -> &AtomicU64 {
        // SAFETY: both callers stay within the frames of the message, which their own callers
        // promise to be inside the ring; 16 bytes into a frame, words are aligned.
        unsafe { AtomicU64::from_ptr(self.payload(pos).cast::<u64>().add(index)) }
    }

    /// Copies the whole frame at `pos` from another ring of the same shape, commit word last.
    pub(crate) fn adopt_frame(&self, from: &Frames, pos: u64) {
        for index in (0..self.size / 8).rev() {
            // SAFETY: `index` is below the number of words of a frame, in both rings.
            let (source, target) = unsafe {
                let source = AtomicU64::from_ptr(from.at(pos).cast::<u64>().add(index));
                (source, AtomicU64::from_ptr(self.at(pos).cast::<u64>().add(index)))
            };
            // Relaxed: the new ring is private until its segment is published.
            target.store(source.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}
