//! Which thread is calling, told in one instruction, and what it says about itself.
//!
//! Every thread that was given a turn for itself (see [`crate::turn`]) has a [`Record`] for turns of
//! that kind: where it says which one it is using. Records are never freed, so that a reader of one needs no care; a
//! thread that ended leaves its own to the next thread whose control block lies at the same place.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

/// The kinds of turns; a thread is inside at most one of each by way of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// At a half that writes.
    Writing,
    /// At anything else.
    Reading,
}

/// What one thread says about itself. Written at every call, so on cache lines of its own.
#[repr(align(128))]
pub struct Record {
    /// Whose record this is, as [`current`] tells it.
    pub thread: usize,
    /// The process it was written in: a forked child inherits what the parent's threads said.
    process: AtomicU32,
    /// The turn that the thread is using; 0: none. Others wait on it (futex).
    pub inside: AtomicU32,
    kind: Kind,
    next: *const Record,
}

/// All records, newest first.
static RECORDS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

/// A number that no other living thread of this process has; never 0.
#[inline]
#[must_use]
pub fn current() -> usize {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let control_block: usize;
        // SAFETY: by the ABI of this platform the word at fs:0 is the address of the thread's
        // control block; reading it has no effect.
        unsafe {
            std::arch::asm!("mov {}, fs:0", out(reg) control_block,
                options(nostack, preserves_flags, readonly, pure));
        }
        control_block
    }
    #[cfg(all(target_arch = "aarch64", target_os = "linux"))]
    {
        let control_block: usize;
        // SAFETY: by the ABI of this platform tpidr_el0 holds the thread's pointer; reading it has
        // no effect.
        unsafe {
            std::arch::asm!("mrs {}, tpidr_el0", out(reg) control_block,
                options(nostack, preserves_flags, nomem, pure));
        }
        control_block
    }
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux")))]
    {
        thread_local!(static HERE: u8 = const { 0 });
        HERE.with(|here| ptr::from_ref(here).addr())
    }
}

/// The calling thread's record for turns of a kind, made if there is none.
#[must_use]
pub fn record(kind: Kind) -> &'static Record {
    let me = current();
    let process = std::process::id();
    let record = find(me, kind).unwrap_or_else(|| add(me, kind, process));
    if record.process.swap(process, Ordering::Relaxed) != process {
        // After a fork: whatever the parent's thread was inside of, this one is not.
        record.inside.store(0, Ordering::Relaxed);
    }
    record
}

fn find(thread: usize, kind: Kind) -> Option<&'static Record> {
    let mut next: *const Record = RECORDS.load(Ordering::Acquire);
    // SAFETY: records are published whole (acquire, pairs with `add`) and never freed.
    while let Some(record) = unsafe { next.as_ref() } {
        if record.thread == thread && record.kind == kind {
            return Some(record);
        }
        next = record.next;
    }
    None
}

fn add(thread: usize, kind: Kind, process: u32) -> &'static Record {
    let inside = AtomicU32::new(0);
    let process = AtomicU32::new(process);
    let record = Record { thread, inside, kind, process, next: ptr::null() };
    let record = Box::into_raw(Box::new(record));
    let mut head = RECORDS.load(Ordering::Relaxed);
    loop {
        // SAFETY: the record is ours alone until the exchange below publishes it.
        unsafe { (*record).next = head };
        // Release: pairs with `find`.
        match RECORDS.compare_exchange_weak(head, record, Ordering::Release, Ordering::Relaxed) {
            // SAFETY: published, and never freed or written to again but for its atomics.
            Ok(_) => return unsafe { &*record },
            Err(seen) => head = seen,
        }
    }
}

/// Makes every other running thread of this process pass a full barrier; false if the system does
/// not let us.
#[must_use]
pub fn barrier_everywhere() -> bool {
    membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
        || (register() && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED))
}

/// Whether [`barrier_everywhere`] works here, as found out once.
#[must_use]
pub fn has_barrier() -> bool {
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            let works = register() && barrier_everywhere();
            KNOWN.store(if works { 1 } else { 2 }, Ordering::Relaxed);
            works
        }
        known => known == 1,
    }
}

fn register() -> bool {
    membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: this system call touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_differ_and_keep_their_record() {
        let mine = record(Kind::Writing);
        assert_eq!(mine.thread, current());
        assert!(ptr::eq(mine, record(Kind::Writing)));
        assert!(!ptr::eq(mine, record(Kind::Reading)));
        let other = std::thread::spawn(current).join().expect("the thread ends");
        assert_ne!(other, current());
    }
}
