//! A shared file in memory: one header and an array of slots. The ground under the limits and the
//! textbook ring; the peers bring their own.

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;

use crate::contender::{Result, Why};

/// Types that may lie in memory which another process writes: atomics, or bytes reached only through
/// raw pointers.
///
/// # Safety
///
/// All zeroes must be a valid value, and every field that is reached through `&Self` must be atomic.
pub unsafe trait InSharedMemory {}

/// A mapping of a header `H` followed by slots `S`.
pub struct Shared<H, S> {
    base: NonNull<u8>,
    bytes: usize,
    slots: usize,
    kind: PhantomData<(H, S)>,
}

impl<H: InSharedMemory, S> Shared<H, S> {
    const FIRST_SLOT: usize = size_of::<H>().next_multiple_of(128);
    const ALIGNED: () = assert!(align_of::<H>() <= 4096 && align_of::<S>() <= 128);

    /// Makes the file, all zero, with every page present.
    pub fn create(path: &Path, slots: usize) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = file.why("create a shared file")?;
        file.set_len(Self::bytes(slots) as u64).why("size a shared file")?;
        Self::map(&file, slots)
    }

    /// Maps the file that the other side made.
    pub fn open(path: &Path, slots: usize) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.why("open a shared file")?;
        let length = file.metadata().why("look at a shared file")?.len();
        if length != Self::bytes(slots) as u64 {
            return Err(format!("the shared file has {length} bytes, not {}", Self::bytes(slots)));
        }
        Self::map(&file, slots)
    }

    fn bytes(slots: usize) -> usize {
        Self::FIRST_SLOT + slots * size_of::<S>()
    }

    fn map(file: &File, slots: usize) -> Result<Self> {
        let () = Self::ALIGNED;
        let bytes = Self::bytes(slots);
        // SAFETY: a new mapping at an address that the kernel chooses takes nothing from anybody.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(format!("map a shared file: {}", io::Error::last_os_error()));
        }
        let base = NonNull::new(base.cast()).ok_or("mapped at address 0")?;
        Ok(Shared { base, bytes, slots, kind: PhantomData })
    }

    /// The header.
    #[inline(always)]
    pub fn header(&self) -> &H {
        // SAFETY: the mapping begins with an `H` at a page boundary, zeroed when it was made, and
        // lives as long as `self`; what `H` promises allows the other side's stores.
        unsafe { self.base.cast::<H>().as_ref() }
    }

    /// Slot `index`, taken around the ring. The protocol above decides who may touch it.
    #[inline(always)]
    pub fn slot(&self, index: u64) -> *mut S {
        let index = index as usize & (self.slots - 1);
        // SAFETY: the masked index is below the number of slots, all of which lie in the mapping.
        unsafe { self.base.as_ptr().add(Self::FIRST_SLOT).cast::<S>().add(index) }
    }

    /// How many slots there are.
    #[inline(always)]
    pub fn slots(&self) -> u64 {
        self.slots as u64
    }
}

impl<H, S> Drop for Shared<H, S> {
    fn drop(&mut self) {
        // SAFETY: this very mapping, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
