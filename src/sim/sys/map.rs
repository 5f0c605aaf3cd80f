//! The memory of a file.

use super::super::calls::Call;
use super::super::world::{step_with, with};
use super::ask;
use super::fork::Birth;
use super::shm::File;
use crate::error::Result;

/// A shared mapping of a file, unmapped when dropped; never there in a child.
pub(crate) struct Mapping {
    serial: u64,
    start: *mut u8,
    len: usize,
    birth: Birth,
}

// SAFETY: an address and numbers; whoever uses the memory is bound by its own promises.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a file.
    pub(crate) fn shared(file: &File, off: u64, len: usize, writable: bool) -> Result<Self> {
        let (serial, start) =
            ask(Call::Map, "mmap", format_args!("{file} {off:#x}+{len:#x}"), || {
                with(|world| {
                    let who = world.who();
                    let fd = file.check(&world.kernel, who)?;
                    world.kernel.map(who, fd, off, len as u64, writable)
                })
            })?;
        Ok(Mapping { serial, start, len, birth: Birth::now() })
    }

    /// Where it begins.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Touches every page.
    pub(crate) fn prefault(&self) -> Result<()> {
        ask(Call::Prefault, "madvise", self, || Ok(()))
    }

    /// Keeps every page in memory.
    pub(crate) fn lock_memory(&self) -> Result<()> {
        ask(Call::LockMemory, "mlock", self, || Ok(()))
    }

    /// Asks for huge pages.
    pub(crate) fn huge_pages(&self) -> Result<()> {
        ask(Call::HugePages, "madvise", self, || Ok(()))
    }
}

impl std::fmt::Display for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mapping {} ({:#x} bytes)", self.serial, self.len)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.birth.is_here() {
            step_with(Call::Unmap, || self.to_string());
            with(|world| {
                let process = world.who().process;
                world.kernel.unmap(process, self.serial);
            });
        }
    }
}
