//! What `fork` must not carry over: handles, descriptors, and the belief that threads exist.
//!
//! A page that the kernel wipes in every child holds the *generation* of this process. A handle
//! remembers the generation it was born in; one load tells whether it is still at home. The
//! descriptors that are open at the moment of the fork are listed, and closed in the child at once,
//! because they would keep the parent's locks alive.
//!
//! What runs in the child between `fork` and the return must never allocate, free or lock: other
//! threads may have held any lock of the C library when they ceased to exist. The only lock here
//! is our own, which the forking thread itself takes before the fork. And it must never close a
//! number without looking what it is: a host may have closed ours and opened something of its own.
//!
//! Hazards: a bare `clone` system call runs no handlers, so there only the generation works, and
//! what was open in that moment stays open in the child. A signal handler must not fork, which
//! POSIX does not allow either: it may have come between two halves of a change to the list.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use super::futex;

// --- generations ----------------------------------------------------------------------------

/// The process in which something was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Birth {
    word: &'static AtomicU32,
    generation: u32,
}

impl Birth {
    /// Here and now.
    pub(crate) fn now() -> Birth {
        let word = word();
        Birth { word, generation: claim(word) }
    }

    /// Whether this is still the process it was; a child is another.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        // Relaxed: a process reads only what it wrote itself, or the kernel's zero.
        self.word.load(Ordering::Relaxed) == self.generation
    }
}

/// The number of this process among its ancestors; never 0, never that of an ancestor.
pub(super) fn generation() -> u32 {
    claim(word())
}

/// Whether this process has that number. For signal handlers: two loads, and nothing is set up.
pub(super) fn is_generation(generation: u32) -> bool {
    let word = WORD.load(Ordering::Acquire);
    // SAFETY: not null, so `set_up` published it; it is never given back.
    !word.is_null() && unsafe { &*word }.load(Ordering::Relaxed) == generation
}

/// The generation in the word, a new one if the word is wiped.
fn claim(word: &AtomicU32) -> u32 {
    /// The highest number ever taken, by this process or those it descends from.
    static LAST: AtomicU32 = AtomicU32::new(0);
    match word.load(Ordering::Relaxed) {
        // Counted up first: a child forked in between must not take the same number again.
        // Relaxed: threads agree through the exchange of this one word, which carries no other.
        0 => {
            let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
            let taken = word.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed);
            taken.err().unwrap_or(next)
        }
        generation => generation,
    }
}

/// The word that is zero in a child that did not write it yet.
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

fn word() -> &'static AtomicU32 {
    let mut word = WORD.load(Ordering::Acquire);
    if word.is_null() {
        word = set_up();
    }
    // SAFETY: not null, so `set_up` published it: a page, or a static, that is never given back.
    unsafe { &*word }
}

/// Where no page can be had the handlers alone wipe this one.
static WITHOUT_PAGE: AtomicU32 = AtomicU32::new(0);

#[cold]
fn set_up() -> *mut AtomicU32 {
    install_handlers();
    let page = wiped_page();
    let ours = page.unwrap_or(ptr::from_ref(&WITHOUT_PAGE).cast_mut());
    match WORD.compare_exchange(ptr::null_mut(), ours, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => ours,
        Err(theirs) => {
            if let Some(page) = page {
                unmap(page);
            }
            theirs
        }
    }
}

const PAGE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A page of zeros that every child finds zero again.
fn wiped_page() -> Option<*mut AtomicU32> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping where the kernel likes touches nothing that exists.
    let page = unsafe { mmap_anonymous(None, PAGE, access, MapFlags::MAP_PRIVATE) }.ok()?;
    // SAFETY: the mapping just made, which nobody uses yet.
    let advised = unsafe { madvise(page, PAGE.get(), MmapAdvise::MADV_WIPEONFORK) };
    let word = page.as_ptr().cast();
    if advised.is_err() {
        unmap(word);
        return None;
    }
    Some(word)
}

fn unmap(word: *mut AtomicU32) {
    let Some(page) = ptr::NonNull::new(word.cast()) else { return };
    // SAFETY: made by `wiped_page` and never published. A failure would leave a page unused.
    let _ = unsafe { munmap(page, PAGE.get()) };
}

// --- what the child does at once ------------------------------------------------------------

/// A descriptor, and the file that it must still be for us to close it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) fd: RawFd,
    pub(super) dev: u64,
    pub(super) ino: u64,
}

impl Listed {
    /// Closes it, if the number still is this file. Allowed between `fork` and the return.
    pub(super) fn close(self) {
        if self.is_ours() {
            // SAFETY: a number of this very file; ours, as far as anybody can tell.
            unsafe { libc::close(self.fd) };
        }
    }

    // The widths of these fields differ between machines: a cast here is lossless there.
    #[allow(clippy::unnecessary_cast)]
    fn is_ours(self) -> bool {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the call writes a whole record, or says that it did not.
        if unsafe { libc::fstat(self.fd, stat.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: written, as just checked.
        let stat = unsafe { stat.assume_init() };
        (stat.st_dev as u64, stat.st_ino as u64) == (self.dev, self.ino)
    }
}

/// The list and the lock that guards it: 0 free, else the generation of the process that holds it.
struct Guarded {
    lock: AtomicU32,
    list: UnsafeCell<Vec<Listed>>,
}

// SAFETY: the list is reached only through a `Hold`, or by the forking thread, which holds the
// lock; so by one thread at a time.
unsafe impl Sync for Guarded {}

static GUARDED: Guarded = Guarded { lock: AtomicU32::new(0), list: UnsafeCell::new(Vec::new()) };

thread_local! {
    /// How many times this thread has the lock. Without a destructor, so that it can be looked at
    /// in a child and in a thread that ends.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// As long as it lives no other thread forks. For opening and listing a descriptor, or taking it
/// off and closing it, in one step. A thread may have several, one within the other.
pub(crate) struct Hold(PhantomData<*const ()>);

/// Keeps forks away until the result is dropped.
pub(crate) fn hold() -> Hold {
    install_handlers();
    lock();
    Hold(PhantomData)
}

impl Hold {
    /// Closes this descriptor in every child, right after the fork.
    pub(super) fn list(&mut self, listed: Listed) {
        self.with_list(|list| list.push(listed));
    }

    /// Takes a descriptor off the list, before it is closed. Only one of several that look the
    /// same: a thread with descriptors of its own uses the same numbers again.
    pub(super) fn unlist(&mut self, listed: Listed) {
        self.with_list(|list| {
            if let Some(at) = list.iter().position(|one| *one == listed) {
                list.swap_remove(at);
            }
        });
    }

    fn with_list<T>(&mut self, change: impl FnOnce(&mut Vec<Listed>) -> T) -> T {
        // SAFETY: this thread has the lock as long as `self` lives, and no two references exist in
        // it: the functions above do not call each other.
        change(unsafe { &mut *GUARDED.list.get() })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        unlock();
    }
}

/// A lock of our own: a child may take it although another thread's memory says it was taken
/// before the fork, which no lock of the standard library allows.
fn lock() {
    if DEPTH.get() == 0 {
        let ours = generation();
        loop {
            let free = GUARDED.lock.compare_exchange(0, ours, Ordering::Acquire, Ordering::Relaxed);
            match free {
                Ok(_) => break,
                Err(holder) if holder == ours => {
                    futex::wait(&GUARDED.lock, ours, Duration::from_millis(10));
                }
                Err(ancestor) => {
                    if take_from_ancestor(ancestor, ours) {
                        break;
                    }
                }
            }
        }
    }
    DEPTH.set(DEPTH.get() + 1);
}

/// In the child of a bare `clone`: who had the lock in the parent does not exist here. It may have
/// been in the middle of a change, so its list is leaked as it is.
fn take_from_ancestor(ancestor: u32, ours: u32) -> bool {
    let taken =
        GUARDED.lock.compare_exchange(ancestor, ours, Ordering::Acquire, Ordering::Relaxed).is_ok();
    if taken {
        // SAFETY: this thread has the lock. The old value is overwritten without being dropped.
        unsafe { GUARDED.list.get().write(Vec::new()) };
    }
    taken
}

fn unlock() {
    let depth = DEPTH.get() - 1;
    DEPTH.set(depth);
    if depth == 0 {
        GUARDED.lock.store(0, Ordering::Release);
        futex::wake(&GUARDED.lock, 1);
    }
}

fn install_handlers() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    // Not a Once: a child forked during the first call would wait for a thread it does not have.
    // Instead a fork in this very moment may find no handlers; the generation still tells.
    if !INSTALLED.swap(true, Ordering::Relaxed) {
        // SAFETY: the three functions live as long as the program and keep the rules of the head
        // of this file. Fails only for want of memory, and then the generation still tells.
        unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
    }
}

extern "C" fn before() {
    lock();
}

extern "C" fn after_in_parent() {
    unlock();
}

extern "C" fn after_in_child() {
    // For a kernel that does not wipe. Already zero on every other.
    let word = WORD.load(Ordering::Acquire);
    if !word.is_null() {
        // SAFETY: published by `set_up` and never given back.
        unsafe { &*word }.store(0, Ordering::Relaxed);
    }
    // SAFETY: `before` locked in the thread that forked, the only one that exists here.
    let list = unsafe { &mut *GUARDED.list.get() };
    list.iter().for_each(|listed| listed.close());
    list.clear(); // keeps its memory: freeing is not allowed here
    // Nobody can wait here, so there is no one to wake. The child is a new process and the thread
    // in it a new one: should it have forked under a `Hold`, it still has it.
    let depth = DEPTH.get() - 1;
    DEPTH.set(depth);
    let holder = if depth == 0 { 0 } else { generation() };
    GUARDED.lock.store(holder, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::thread;

    use super::super::testing::{bare_child_agrees, child_agrees, give_number};
    use super::*;

    /// A descriptor of an open file that is not listed by anybody else.
    fn some_file(path: &str) -> (File, Listed) {
        let file = File::open(path).unwrap();
        let facts = file.metadata().unwrap();
        let listed = Listed { fd: file.as_raw_fd(), dev: facts.dev(), ino: facts.ino() };
        (file, listed)
    }

    fn is_open(fd: RawFd) -> bool {
        // SAFETY: asks only whether the number is in use.
        unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
    }

    /// Runs `check` while another thread takes and gives back the lock as fast as it can.
    fn while_others_work(check: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        let nothing = Listed { fd: -7, dev: 0, ino: 0 };
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    hold().list(nothing);
                    hold().unlist(nothing);
                }
            });
            check();
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_handle_is_at_home_only_where_it_was_made() {
        let ours = Birth::now();
        while_others_work(|| {
            for _ in 0..20 {
                assert!(child_agrees(|| {
                    let stranger = !is_generation(ours.generation);
                    let childs = Birth::now();
                    let apart = stranger && !ours.is_here() && childs.is_here();
                    // A grandchild tells both apart, and from itself.
                    apart
                        && is_generation(childs.generation)
                        && childs.generation > ours.generation
                        && child_agrees(|| {
                            !childs.is_here() && !ours.is_here() && Birth::now().is_here()
                        })
                }));
            }
        });
        assert!(ours.is_here());
        assert!(is_generation(ours.generation));
        assert_eq!(ours.generation, generation());
        assert_ne!(ours.generation, 0);
    }

    #[test]
    fn the_kernel_wipes_without_any_handler() {
        let Some(page) = wiped_page() else { return };
        // SAFETY: a page of our own, never unmapped.
        let word = unsafe { &*page };
        word.store(5, Ordering::Relaxed);
        assert!(child_agrees(|| word.load(Ordering::Relaxed) == 0));
        assert_eq!(word.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_listed_descriptor_is_closed_in_the_child_and_a_forgotten_one_is_not() {
        let ((_kept, listed), (_gone, forgotten)) = (some_file("/dev/null"), some_file("/"));
        hold().list(listed);
        hold().list(forgotten);
        hold().unlist(forgotten);
        while_others_work(|| {
            assert!(child_agrees(|| {
                // The list is empty in the child, and its lock is free.
                let empty = hold().with_list(|list| list.is_empty());
                !is_open(listed.fd) && is_open(forgotten.fd) && empty
            }));
        });
        assert!(is_open(listed.fd), "the parent keeps its own");
        hold().unlist(listed);
    }

    /// A host closed every descriptor, ours too, and opened a file of its own: its child needs it.
    #[test]
    fn a_number_that_is_another_file_by_now_is_left_alone() {
        let ((_ours, listed), (theirs, _)) = (some_file("/dev/null"), some_file("/"));
        hold().list(listed);
        give_number(&theirs, listed.fd);
        assert!(child_agrees(|| is_open(listed.fd)));
        listed.close();
        assert!(is_open(listed.fd));
        hold().unlist(listed);
    }

    #[test]
    fn only_one_of_two_that_look_the_same_is_forgotten() {
        let (_file, listed) = some_file("/dev/null");
        hold().list(listed);
        hold().list(listed);
        hold().unlist(listed);
        assert!(child_agrees(|| !is_open(listed.fd)));
        hold().unlist(listed);
        assert!(child_agrees(|| is_open(listed.fd)));
    }

    #[test]
    fn holds_nest_and_a_child_of_the_holder_has_its_own() {
        let outer = hold();
        drop(hold());
        assert_ne!(GUARDED.lock.load(Ordering::Relaxed), 0, "the inner one ended, not the outer");
        assert!(child_agrees(|| {
            let still_held = GUARDED.lock.load(Ordering::Relaxed) == generation();
            drop(hold());
            still_held && DEPTH.get() == 1
        }));
        drop(outer);
    }

    /// The handlers did not run, and the thread that holds the lock does not exist there.
    #[test]
    fn a_bare_clone_does_not_wait_for_a_thread_it_does_not_have() {
        let held = AtomicBool::new(false);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _hold = hold();
                held.store(true, Ordering::Release);
                while !done.load(Ordering::Acquire) {
                    thread::yield_now();
                }
            });
            while !held.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let agrees = bare_child_agrees(|| {
                drop(hold());
                GUARDED.lock.load(Ordering::Relaxed) == 0
            });
            done.store(true, Ordering::Release);
            assert!(agrees);
        });
    }
}
