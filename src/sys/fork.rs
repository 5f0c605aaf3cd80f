//! What `fork` must not carry over: handles, descriptors, and the belief that threads exist.
//!
//! A page that the kernel wipes in every child holds the *generation* of this process. A handle
//! remembers the generation it was born in; one load tells whether it is still at home. A list of
//! descriptors is closed in the child at once, because they would keep the parent's locks alive.
//!
//! What runs in the child between `fork` and the return must never allocate, free or lock: other
//! threads may have held any lock of the C library when they ceased to exist. The only lock here
//! is our own, which the forking thread itself takes before the fork.
//!
//! Hazards: a bare `clone` system call runs no handlers, so there only the generation works. A
//! thread that holds [`Hold`] must not fork.

use std::cell::UnsafeCell;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use super::futex;

// --- generations ----------------------------------------------------------------------------

/// The process in which something was made.
#[derive(Clone, Copy)]
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
pub(crate) fn generation() -> u32 {
    claim(word())
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

/// Closes this descriptor in every child, right after the fork. The library opens and lists in one
/// step, under [`hold`].
#[cfg(test)]
fn close_after_fork(fd: RawFd) {
    hold().close_after_fork(fd);
}

/// Takes a descriptor off the list. Before it is closed, or a child would close whatever has its
/// number then.
pub(crate) fn forget(fd: RawFd) {
    hold().forget(fd);
}

/// Runs this in every child, once the descriptors are closed; it replaces the hook before. The
/// hook must do only what a signal handler may.
pub(crate) fn on_child(hook: fn()) {
    hold().list().hook = Some(hook);
}

struct List {
    fds: Vec<RawFd>,
    hook: Option<fn()>,
}

/// The list and the lock that guards it: 0 free, 1 held.
struct Guarded {
    lock: AtomicU32,
    list: UnsafeCell<List>,
}

// SAFETY: the list is reached only through a `Hold`, or by the forking thread, which holds the
// lock; so by one thread at a time.
unsafe impl Sync for Guarded {}

static GUARDED: Guarded = Guarded {
    lock: AtomicU32::new(0),
    list: UnsafeCell::new(List { fds: Vec::new(), hook: None }),
};

/// As long as it lives no other thread forks. For opening and listing a descriptor, or taking it
/// off and closing it, in one step.
pub(crate) struct Hold(());

/// Keeps forks away until the result is dropped.
pub(crate) fn hold() -> Hold {
    install_handlers();
    lock();
    Hold(())
}

impl Hold {
    /// As the function of this name.
    pub(crate) fn close_after_fork(&mut self, fd: RawFd) {
        self.list().fds.push(fd);
    }

    /// As the function of this name.
    pub(crate) fn forget(&mut self, fd: RawFd) {
        self.list().fds.retain(|&listed| listed != fd);
    }

    fn list(&mut self) -> &mut List {
        // SAFETY: this `Hold` has the lock, and is borrowed for as long as the list is.
        unsafe { &mut *GUARDED.list.get() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        unlock();
    }
}

/// A lock of our own: the child may open it although another thread's memory says it was taken
/// before the fork, which no lock of the standard library allows.
fn lock() {
    while GUARDED.lock.swap(1, Ordering::Acquire) != 0 {
        futex::wait(&GUARDED.lock, 1, Duration::from_millis(10));
    }
}

fn unlock() {
    GUARDED.lock.store(0, Ordering::Release);
    futex::wake(&GUARDED.lock, 1);
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
    for &fd in &list.fds {
        // SAFETY: listed as the parent's, so that nothing in this process may use it.
        unsafe { libc::close(fd) };
    }
    list.fds.clear(); // keeps its memory: freeing is not allowed here
    let hook = list.hook;
    GUARDED.lock.store(0, Ordering::Release); // nobody can wait here, so there is no one to wake
    if let Some(hook) = hook {
        hook();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::fd::{AsFd, AsRawFd};
    use std::thread;

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;

    use super::super::testing::{child_agrees, idle_child, unnamed};
    use super::super::{lock as record, process};
    use super::*;

    /// Runs `check` while another thread takes and gives back the lock as fast as it can.
    fn while_others_work(check: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    close_after_fork(-7);
                    forget(-7);
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
                    let childs = Birth::now();
                    let apart = !ours.is_here() && childs.is_here();
                    // A grandchild tells both apart, and from itself.
                    apart
                        && childs.generation > ours.generation
                        && child_agrees(|| {
                            !childs.is_here() && !ours.is_here() && Birth::now().is_here()
                        })
                }));
            }
        });
        assert!(ours.is_here());
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
        let (listed, forgotten) = (unnamed(4096), unnamed(4096));
        let open = |file: &std::fs::File| {
            // SAFETY: asks only whether the number is in use.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) != -1 }
        };
        close_after_fork(listed.as_raw_fd());
        close_after_fork(forgotten.as_raw_fd());
        forget(forgotten.as_raw_fd());
        while_others_work(|| {
            assert!(child_agrees(|| {
                // The list is empty in the child, and its lock is free.
                !open(&listed) && open(&forgotten) && hold().list().fds.is_empty()
            }));
        });
        assert!(open(&listed), "the parent keeps its own");
        forget(listed.as_raw_fd());
    }

    /// The reason for the list: while the child lives, the parent's lock must be able to end.
    #[test]
    fn a_living_child_does_not_keep_the_parents_lock() {
        let ours = unnamed(4096);
        let path = format!("/proc/self/fd/{}", ours.as_raw_fd());
        let other = OpenOptions::new().read(true).write(true).open(path).unwrap();
        close_after_fork(ours.as_raw_fd());
        assert!(record::try_lock(ours.as_fd(), 0).unwrap());
        let child = idle_child();
        let mut hold = hold();
        hold.forget(ours.as_raw_fd());
        drop(ours);
        drop(hold);
        // A child that did not close it would keep the lock for as long as it sleeps. One that a
        // test beside this one forked closes it too, but perhaps only a moment later.
        let deadline = super::super::clock::monotonic_ns() + 5_000_000_000;
        while record::is_locked_by_other(other.as_fd(), 0).unwrap() {
            assert!(super::super::clock::monotonic_ns() < deadline, "the child kept the lock");
            thread::yield_now();
        }
        assert!(process::start_time(child.as_raw() as u32) > 0);
        kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
    }

    static HOOK_RAN_IN: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn the_hook_runs_in_the_child_only() {
        // `getpid` is allowed where a hook runs; it is what proves where that was.
        on_child(|| HOOK_RAN_IN.store(process::pid(), Ordering::Relaxed));
        assert!(child_agrees(|| HOOK_RAN_IN.load(Ordering::Relaxed) == process::pid()));
        assert_eq!(HOOK_RAN_IN.load(Ordering::Relaxed), 0);
    }
}
