//! Which thread is calling, told in one instruction, and what it says about itself.
//!
//! Every thread that was given a turn for itself (see [`crate::turn`]) has some [`Record`]s for turns
//! of that kind: where it says which one it is using, and which it may use without asking. Records
//! are never freed, so that a reader of one needs no care; a thread that ended leaves its own to the
//! next thread whose control block lies at the same place.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering, compiler_fence, fence,
};
use std::time::{Duration, Instant};

use crate::slab::SLOT_SHIFT;

/// The kinds of turns. A handle means one turn of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// At the half of a bus that writes.
    Writing,
    /// At anything else.
    Reading,
}

/// What one thread says about some of the turns of a kind: those of handles whose slots have the same
/// number, modulo [`EACH`].
#[repr(C, align(64))]
pub struct Record {
    /// The handle whose turn this thread has for itself, and may enter without asking; or
    /// [`none_for`] it.
    ticket: AtomicUsize,
    /// What that handle leads to.
    place: AtomicPtr<()>,
    /// The turn that the thread is using, by the low half of its handle, or [`OUTSIDE`]. Others wait
    /// on it (futex).
    pub inside: AtomicU32,
    /// Whose record this is, as [`current`] tells it.
    pub thread: usize,
}

/// Inside of nothing. No handle looks like this, nor memory that was wiped.
pub const OUTSIDE: u32 = 1;

/// No ticket: what is looked for elsewhere.
const fn none_for(handle: usize) -> usize {
    handle ^ (1 << SLOT_SHIFT)
}

/// How many buses a thread can have tickets for. A power of two.
const EACH: usize = 8;

/// All that one thread says. Written at every call, so in memory of its own.
#[repr(C)]
struct Records {
    each: [[Record; EACH]; 2],
    /// The kernel wipes them in a forked child, so that no ticket is valid there.
    are_wiped: bool,
    /// The process it was written in: a forked child inherits what is not wiped.
    process: AtomicU32,
    next: *const Records,
}

/// All records, newest first.
static RECORDS: AtomicPtr<Records> = AtomicPtr::new(ptr::null_mut());

impl Record {
    /// Whether the thread has the ticket for this handle. Asked after stepping in.
    #[inline(always)]
    pub fn has_ticket(&self, handle: usize) -> bool {
        // Light side, pairs with `Turn::revoke`: said that I am inside, or out, then look.
        compiler_fence(Ordering::SeqCst);
        self.ticket.load(Ordering::Relaxed) == handle
    }

    /// What the ticket leads to.
    #[inline(always)]
    pub fn place(&self) -> *mut () {
        self.place.load(Ordering::Relaxed)
    }

    /// Steps out, of a turn that was entered with a ticket, and passes the answer on.
    #[inline(always)]
    pub fn step_out<A>(&'static self, handle: usize, answer: A) -> A {
        // Release: what was done inside is seen by who waits for this (`Turn::outlast`).
        self.inside.store(OUTSIDE, Ordering::Release);
        if self.has_ticket(handle) { answer } else { self.wake_with(answer) }
    }

    #[cold]
    #[inline(never)]
    fn wake_with<A>(&self, answer: A) -> A {
        wake_all(&self.inside);
        answer
    }

    /// Gives the thread a ticket. Only by itself, while it is inside.
    #[inline(always)]
    pub fn issue(&self, handle: usize, place: *mut ()) {
        if self.ticket.load(Ordering::Relaxed) != handle && self.can_have_tickets() {
            // Relaxed: for this thread alone; a signal handler in between finds it inside.
            self.place.store(place, Ordering::Relaxed);
            self.ticket.store(handle, Ordering::Relaxed);
        }
    }

    /// Whether the thread finds its tickets, and a child of this process does not.
    #[cold]
    fn can_have_tickets(&self) -> bool {
        if here::get().is_null() {
            // The records of a thread that ended, taken over.
            find(self.thread).into_iter().for_each(here::set);
        }
        // SAFETY: as in `step_in`.
        unsafe { here::get().as_ref() }.is_some_and(|records| records.are_wiped)
    }

    /// Takes the ticket for this handle back.
    #[inline(always)]
    pub fn withdraw(&self, handle: usize) {
        // Relaxed: barriers order it where that matters. Looked at first, since it is seldom there.
        if self.ticket.load(Ordering::Relaxed) == handle {
            let (old, new, order) = (handle, none_for(handle), Ordering::Relaxed);
            let _ = self.ticket.compare_exchange(old, new, order, order);
        }
    }
}

/// One foot inside, by a record; steps out when dropped.
pub struct Step(&'static Record);

impl Step {
    /// For who stepped in by this record.
    #[inline]
    #[must_use]
    pub fn new(record: &'static Record) -> Step {
        Step(record)
    }

    /// Stays inside.
    #[inline]
    #[must_use]
    pub fn stay(self) -> &'static Record {
        ManuallyDrop::new(self).0
    }
}

impl Drop for Step {
    #[cold]
    fn drop(&mut self) {
        // Release: as in `Record::step_out`. Woken anyway: somebody may wait.
        self.0.inside.store(OUTSIDE, Ordering::Release);
        wake_all(&self.0.inside);
    }
}

impl Records {
    #[inline(always)]
    fn of(&self, kind: Kind, handle: usize) -> &Record {
        &self.each[kind as usize][(handle >> SLOT_SHIFT) % EACH]
    }
}

/// Steps into the turn of this handle, if the calling thread has a ticket for it and is outside. The
/// ticket may have been withdrawn just now: [`Record::has_ticket`] tells.
#[inline(always)]
#[must_use]
pub fn step_in(kind: Kind, handle: usize) -> Option<&'static Record> {
    // SAFETY: what is there was put there by `record`, and is never freed.
    let record = unsafe { here::get().as_ref()? }.of(kind, handle);
    // Relaxed: of this thread's own making, or withdrawn, which is looked at again.
    let may_enter = record.ticket.load(Ordering::Relaxed) == handle
        && record.inside.load(Ordering::Relaxed) == OUTSIDE;
    if may_enter {
        record.inside.store(handle as u32, Ordering::Relaxed);
    }
    may_enter.then_some(record)
}

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
        // Aligned, so that the lowest bit is free.
        thread_local!(static HERE: u64 = const { 0 });
        HERE.with(|here| ptr::from_ref(here).addr())
    }
}

/// The calling thread's record for the turn of a handle, made if there is none; `None` if there is no
/// memory for it.
#[must_use]
pub fn record(kind: Kind, handle: usize) -> Option<&'static Record> {
    let me = current();
    let process = std::process::id();
    let records = find(me).or_else(|| add(me, process))?;
    if records.process.swap(process, Ordering::Relaxed) != process {
        // After a fork: whatever the parent's thread was inside of, this one is not.
        let each = records.each.iter().flatten();
        each.for_each(|record| record.inside.store(OUTSIDE, Ordering::Relaxed));
    }
    here::set(records);
    Some(records.of(kind, handle))
}

/// The calling thread's record for the turn of a handle, if it has one. Makes nothing, and so may be
/// called from a signal handler.
#[must_use]
pub fn known(kind: Kind, handle: usize) -> Option<&'static Record> {
    find(current()).map(|records| records.of(kind, handle))
}

fn find(thread: usize) -> Option<&'static Records> {
    let mut next: *const Records = RECORDS.load(Ordering::Acquire);
    // SAFETY: records are published whole (acquire, pairs with `add`) and never freed.
    while let Some(records) = unsafe { next.as_ref() } {
        if records.each[0][0].thread == thread {
            return Some(records);
        }
        next = records.next;
    }
    None
}

fn add(thread: usize, process: u32) -> Option<&'static Records> {
    let (place, are_wiped) = map(size_of::<Records>())?;
    let record = |index| Record {
        ticket: AtomicUsize::new(none_for(index << SLOT_SHIFT)),
        place: AtomicPtr::new(ptr::null_mut()),
        inside: AtomicU32::new(OUTSIDE),
        thread,
    };
    let each = std::array::from_fn(|_| std::array::from_fn(record));
    let mut head = RECORDS.load(Ordering::Relaxed);
    let records = place.cast::<Records>().as_ptr();
    let process = AtomicU32::new(process);
    // SAFETY: fresh memory, of whole pages, long enough.
    unsafe { records.write(Records { each, are_wiped, process, next: head }) };
    loop {
        // Release: pairs with `find`.
        match RECORDS.compare_exchange_weak(head, records, Ordering::Release, Ordering::Relaxed) {
            // SAFETY: published, and never freed or written to again but for its atomics.
            Ok(_) => return Some(unsafe { &*records }),
            Err(seen) => head = seen,
        }
        // SAFETY: the records are ours alone until the exchange publishes them.
        unsafe { (*records).next = head };
    }
}

/// Memory that a forked child finds wiped, if the kernel can do that.
fn map(len: usize) -> Option<(NonNull<c_void>, bool)> {
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory; nothing that exists is touched.
    let memory = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the memory was mapped just now, and nothing is there yet.
    let is_wiped = unsafe { libc::madvise(memory, len, libc::MADV_WIPEONFORK) == 0 };
    NonNull::new(memory).map(|memory| (memory, is_wiped))
}

/// Where the calling thread finds its records.
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod here {
    use std::arch::{asm, global_asm};

    use super::Records;

    // A `thread_local!` of a shared library costs a call into the loader, more than all else before a
    // message is touched. This is a word in the block that every thread has from its start (the
    // initial-exec model), of which the loader keeps some for libraries that are loaded later.
    global_asm!(
        ".pushsection .tbss.eshm_here, \"awT\", @nobits",
        ".hidden eshm_here",
        ".globl eshm_here",
        ".type eshm_here, @object",
        ".p2align 3",
        "eshm_here:",
        ".zero 8",
        ".size eshm_here, 8",
        ".popsection",
    );

    #[inline(always)]
    pub fn get() -> *const Records {
        let records: *const Records;
        // SAFETY: reads a word of the thread's own block, at the offset that the loader wrote down.
        unsafe {
            asm!("mov {0}, qword ptr [rip + eshm_here@gottpoff]",
                "mov {0}, qword ptr fs:[{0}]",
                out(reg) records,
                options(nostack, preserves_flags, readonly, pure));
        }
        records
    }

    pub fn set(records: &'static Records) {
        // SAFETY: writes that word.
        unsafe {
            asm!("mov {0}, qword ptr [rip + eshm_here@gottpoff]",
                "mov qword ptr fs:[{0}], {1}",
                out(reg) _, in(reg) records,
                options(nostack, preserves_flags));
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")))]
mod here {
    use std::cell::Cell;
    use std::ptr;

    use super::Records;

    thread_local!(static HERE: Cell<*const Records> = const { Cell::new(ptr::null()) });

    #[inline]
    pub fn get() -> *const Records {
        HERE.with(Cell::get)
    }

    pub fn set(records: &'static Records) {
        HERE.with(|here| here.set(records));
    }
}

/// How long a store of another thread may take to arrive when nothing hurries it: many times what any
/// core keeps one back, and longer than the time between two interrupts that would empty its buffer.
const ARRIVED: Duration = Duration::from_millis(20);

/// Whether threads can be given turns for themselves: whether [`membarrier`] works, as far as is
/// known.
static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const WORKS: u8 = 1;
const REFUSED: u8 = 2;

/// Makes every other running thread of this process pass a full barrier.
///
/// If the system does not do that any more (a filter for system calls was installed since
/// [`has_barrier`] said that it does), waits instead. That is no barrier by the letter of the memory
/// model, which sets no bound to the time that a store takes to arrive, and loads to be repeated that
/// came too early; the machines do: see "Temporally Bounding TSO for Fence-Free Asymmetric
/// Synchronization" (Morrison, Afek; 2015). It happens once per turn that has an owner then, since
/// nobody becomes one afterwards.
pub fn barrier_everywhere() {
    let works = membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
        || (register() && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED));
    if !works {
        KNOWN.store(REFUSED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        sleep(ARRIVED);
        fence(Ordering::SeqCst);
    }
}

/// Sleeps for this time, also if signals come, and whatever system calls are refused.
fn sleep(time: Duration) {
    let end = Instant::now() + time;
    while let Some(rest) = end.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
    {
        std::thread::yield_now();
        // A wait that nothing ends but its time.
        wait(&AtomicU32::new(0), 0, rest);
    }
}

/// Whether [`barrier_everywhere`] is quick here.
#[must_use]
pub fn has_barrier() -> bool {
    match KNOWN.load(Ordering::Relaxed) {
        UNKNOWN => {
            let works = register() && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
            KNOWN.store(if works { WORKS } else { REFUSED }, Ordering::Relaxed);
            works
        }
        known => known == WORKS,
    }
}

/// Waits on a word of this process until it is not `value` any more, or somebody wakes, or the time
/// is over.
pub fn wait(word: &AtomicU32, value: u32, at_most: Duration) {
    let time = libc::timespec {
        tv_sec: at_most.as_secs() as libc::time_t,
        tv_nsec: at_most.subsec_nanos() as libc::c_long,
    };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the time live for the length of the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, &raw const time) };
}

/// What the kernel can wait on of a word. Two threads may be the same there: then one sleeps for a nap
/// that it could have spared, and looks again.
#[must_use]
pub fn low_half(word: &AtomicUsize) -> &AtomicU32 {
    let halves = size_of::<usize>() / size_of::<u32>();
    let low = if cfg!(target_endian = "big") { halves - 1 } else { 0 };
    // SAFETY: inside of the word, aligned since it is, and the kernel alone looks at it by half.
    unsafe { &*word.as_ptr().cast::<AtomicU32>().add(low) }
}

/// Wakes who waits on a word of this process.
#[cold]
pub fn wake_all(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: wakes who waits on this address; touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX) };
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
        let record = |kind, handle| record(kind, handle).expect("there is memory");
        let mine = record(Kind::Writing, 0);
        assert_eq!(mine.thread, current());
        assert!(ptr::eq(mine, record(Kind::Writing, 0)));
        assert!(!ptr::eq(mine, record(Kind::Reading, 0)));
        assert!(!ptr::eq(mine, record(Kind::Writing, 1 << SLOT_SHIFT)));
        let other = std::thread::spawn(current).join().expect("the thread ends");
        assert_ne!(other, current());
    }
}
