//! The bytes of files, and who has mapped them.
//!
//! Each regular file has a buffer that never moves, at the same address for every simulated process:
//! so all stores are visible at once, and an address alone tells which file and where in it. Buffers
//! are used again by the next schedule, so they are cleared at the end.

use std::cell::Cell;

use super::{Answer, Inode, Kernel, Map, Node, ProcessId, Who};

pub(in crate::sim) const PAGE: u64 = 4096;
/// The longest file.
pub(super) const BUFFER: usize = 4 << 20;
const WORDS: usize = BUFFER / PAGE as usize / 64;
/// The most files of a schedule.
const BUFFERS: usize = 256;

/// Which pages a file has.
#[derive(Default, Clone)]
pub(in crate::sim) struct Pages([u64; WORDS]);

impl Pages {
    pub fn has(&self, page: u64) -> bool {
        self.0.get(page as usize / 64).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    pub fn set(&mut self, page: u64) {
        self.0[page as usize / 64] |= 1 << (page % 64);
    }

    pub fn unset(&mut self, page: u64) {
        self.0[page as usize / 64] &= !(1 << (page % 64));
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

thread_local! {
    /// Where the buffers of this thread begin; 0 before there are any.
    static BASE: Cell<usize> = const { Cell::new(0) };
}

/// Makes the buffers of this thread, outside of any schedule.
pub(in crate::sim) fn prepare() {
    if BASE.get() != 0 {
        return;
    }
    // Aligned to no more than all memory is, or the system would write zeros itself.
    let layout = std::alloc::Layout::from_size_align(BUFFER * (BUFFERS + 1), 16);
    let layout = layout.expect("a layout");
    // SAFETY: the layout is not empty. Zeroed, so that the pages come when they are used.
    let base = unsafe { std::alloc::alloc_zeroed(layout) };
    assert!(!base.is_null(), "no address space for files");
    BASE.set(base.expose_provenance().next_multiple_of(BUFFER));
}

/// The buffer and the place in it, if the address is in one.
#[inline]
pub(in crate::sim) fn place_of(address: usize) -> Option<(usize, u64)> {
    let at = address.wrapping_sub(BASE.get());
    // No schedule yet: then every address is beyond.
    (at < BUFFER * BUFFERS && BASE.get() != 0).then_some((at / BUFFER, (at % BUFFER) as u64))
}

/// Where a place in a buffer is.
fn address_of(buffer: usize, off: u64) -> *mut u8 {
    assert!(buffer < BUFFERS, "more files in one schedule than there is room for");
    std::ptr::with_exposed_provenance_mut(BASE.get() + buffer * BUFFER + off as usize)
}

/// Zeros a range of the bytes, as far as there are any.
pub(super) fn clear(inode: &Inode, off: u64, end: u64) {
    let end = end.min(BUFFER as u64);
    if let (Some(buffer), Some(len)) = (inode.buffer, end.checked_sub(off)) {
        // SAFETY: inside the buffer, of which there are no references, only pointers.
        unsafe { address_of(buffer, off).write_bytes(0, len as usize) };
    }
}

/// Bytes of a file, as many of them as it has.
pub(super) fn copy_out(inode: &Inode, off: u64, len: usize) -> Vec<u8> {
    let end = off.saturating_add(len as u64).min(inode.size);
    let mut bytes = vec![0; end.saturating_sub(off) as usize];
    let stored = end.min(BUFFER as u64).saturating_sub(off) as usize;
    if let Some(buffer) = inode.buffer.filter(|_| stored > 0) {
        // SAFETY: as above; `bytes` is private memory and long enough.
        unsafe { address_of(buffer, off).copy_to_nonoverlapping(bytes.as_mut_ptr(), stored) };
    }
    bytes
}

/// An access to a word in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum Access {
    Load,
    Store,
}

/// What comes of an access that cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum Fault {
    /// The page is beyond the end of the file, or there is no memory for it.
    Bus,
    /// The same under a guard, which puts zeros in its place.
    Guarded,
    /// The process has not mapped the place, or not for writing.
    Unmapped,
}

impl Kernel {
    pub fn map(
        &mut self,
        who: Who,
        fd: i32,
        off: u64,
        len: u64,
        is_writable: bool,
    ) -> Answer<(u64, *mut u8)> {
        let desc = self.desc(who, fd)?;
        let ino = self.descriptions[desc].ino;
        if is_writable && !self.descriptions[desc].is_writable {
            return Err(libc::EACCES);
        }
        if !matches!(self.inodes[ino].node, Node::Regular) {
            return Err(libc::ENODEV);
        }
        if len == 0 || !off.is_multiple_of(PAGE) {
            return Err(libc::EINVAL);
        }
        if off.checked_add(len).is_none_or(|end| end > BUFFER as u64) {
            return Err(libc::ENOMEM);
        }
        self.descriptions[desc].refs += 1;
        self.serial += 1;
        let serial = self.serial;
        let len = len.next_multiple_of(PAGE);
        let map = Map { serial, desc, ino, off, len, is_writable, guard: None };
        self.processes[who.process].maps.push(map);
        let buffer = self.inodes[ino].buffer.expect("a regular file has one");
        Ok((serial, address_of(buffer, off)))
    }

    /// Unmaps it, if the process has it.
    pub fn unmap(&mut self, process: ProcessId, serial: u64) {
        let maps = &mut self.processes[process].maps;
        if let Some(index) = maps.iter().position(|map| map.serial == serial) {
            let map = maps.swap_remove(index);
            self.release(map.desc);
        }
    }

    /// The mapping of the process that this address is in.
    pub fn map_at(&mut self, process: ProcessId, buffer: usize, off: u64) -> Option<&mut Map> {
        let inodes = &self.inodes;
        self.processes[process].maps.iter_mut().find(|map| {
            inodes[map.ino].buffer == Some(buffer) && off.wrapping_sub(map.off) < map.len
        })
    }

    /// Whether a process may make this access. What it touches for the first time becomes its file's.
    pub fn access(
        &mut self,
        process: ProcessId,
        (buffer, off): (usize, u64),
        access: Access,
    ) -> Result<(), Fault> {
        let is_library = !self.processes[process].is_foreign;
        let mut found = None;
        for map in &self.processes[process].maps {
            let is_there = self.inodes[map.ino].buffer == Some(buffer)
                && off.wrapping_sub(map.off) < map.len
                && (map.is_writable || access == Access::Load);
            if is_there {
                found = Some(*map);
                break;
            }
        }
        let Some(map) = found else { return Err(Fault::Unmapped) };
        if self.inodes[map.ino].is_foreign && is_library && access == Access::Store {
            self.accuse(|| format!("the library writes to a foreign file, at {off:#x}"));
        }
        let (page, inode) = (off / PAGE, &mut self.inodes[map.ino]);
        let is_inside = off < inode.size.next_multiple_of(PAGE);
        if is_inside && inode.pages.has(page) {
            return Ok(());
        }
        if is_inside && self.free_pages > 0 {
            inode.pages.set(page);
            self.free_pages -= 1;
            return Ok(());
        }
        if map.guard.is_none() {
            return Err(Fault::Bus);
        }
        if let Some(map) = self.map_at(process, buffer, off) {
            map.guard = Some(true);
        }
        Err(Fault::Guarded)
    }

    /// Zeros all that this schedule has written, for the next one.
    pub fn clear_buffers(&self) {
        for inode in self.inodes.iter().filter(|inode| inode.buffer.is_some()) {
            clear(inode, 0, self.extent(inode));
        }
    }

    /// How far a file was ever written.
    fn extent(&self, inode: &Inode) -> u64 {
        inode.extent.max(inode.size).min(BUFFER as u64)
    }
}
