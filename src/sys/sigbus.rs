//! Surviving a peer that truncates the file under a mapping.
//!
//! Touching a page that lies beyond the end of its file raises SIGBUS. For the ranges registered
//! here the handler puts a private page of zeros in the place and marks the range, so that the
//! access ends and its owner finds out. Every other SIGBUS goes on to whoever handled it before,
//! and kills if nobody did: this file must never hide a fault that is not about a segment.
//!
//! The handler may run at any instruction, so it reads only atomics, and what it reads is never
//! freed: a slot is used again, not given back.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use libc::{c_int, c_void, sigaction, siginfo_t};
use nix::errno::Errno;

/// A range watched over, in a list that only grows.
struct Slot {
    /// Where it begins; [`FREE`] or [`CHANGING`] if it is not one.
    start: AtomicUsize,
    end: AtomicUsize,
    hit: AtomicBool,
    next: *const Slot,
}

/// Both lie beyond every address, so that such a slot never matches, whatever end it still has.
const FREE: usize = usize::MAX;
const CHANGING: usize = usize::MAX - 1;

// SAFETY: all that changes is atomic; `next` is set before the slot is published, and leads to one
// that is never freed.
unsafe impl Sync for Slot {}

static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

/// Watches over a range until it is dropped.
pub(crate) struct Guard {
    slot: &'static Slot,
}

/// Watches over a mapping, which must outlive the result.
pub(crate) fn guard(start: *const u8, len: usize) -> Guard {
    install();
    let slot = free_slot().unwrap_or_else(new_slot);
    slot.hit.store(false, Ordering::Relaxed);
    slot.end.store(start.addr() + len, Ordering::Relaxed);
    // Release: whoever sees the start sees the end and the mark that belong to it.
    slot.start.store(start.addr(), Ordering::Release);
    Guard { slot }
}

impl Guard {
    /// Whether a page of the range was missing and replaced.
    pub(crate) fn hit(&self) -> bool {
        self.slot.hit.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.slot.start.store(FREE, Ordering::Release);
    }
}

fn slots() -> impl Iterator<Item = &'static Slot> {
    // SAFETY: the list holds null or slots that are published whole and never freed.
    let at = |slot: *const Slot| unsafe { slot.as_ref() };
    std::iter::successors(at(SLOTS.load(Ordering::Acquire)), move |slot| at(slot.next))
}

fn free_slot() -> Option<&'static Slot> {
    slots().find(|slot| {
        let free = slot.start.load(Ordering::Relaxed) == FREE;
        free && slot
            .start
            .compare_exchange(FREE, CHANGING, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    })
}

fn new_slot() -> &'static Slot {
    let slot = Box::leak(Box::new(Slot {
        start: AtomicUsize::new(CHANGING),
        end: AtomicUsize::new(0),
        hit: AtomicBool::new(false),
        next: SLOTS.load(Ordering::Acquire),
    }));
    let new = ptr::from_mut(slot);
    loop {
        // SAFETY: leaked above and not published yet, so nobody else looks at it.
        let next = unsafe { (*new).next }.cast_mut();
        match SLOTS.compare_exchange(next, new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: leaked, so it lives for ever.
            Ok(_) => return unsafe { &*new },
            // SAFETY: as above; still ours alone.
            Err(first) => unsafe { (*new).next = first },
        }
    }
}

/// The slot whose range holds the address.
fn slot_of(address: usize) -> Option<&'static Slot> {
    slots().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        let end = slot.end.load(Ordering::Acquire);
        // The same start again: this end belongs to it, not to the slot's next range.
        (start..end).contains(&address) && slot.start.load(Ordering::Relaxed) == start
    })
}

// --- the handler ----------------------------------------------------------------------------

/// What handled the signal before. Known before our handler can run.
static BEFORE: OnceLock<sigaction> = OnceLock::new();

fn install() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        BEFORE.get_or_init(current);
        let mut ours = default_action();
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_sigbus;
        ours.sa_sigaction = handler as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        set(&ours);
    });
}

fn default_action() -> sigaction {
    // SAFETY: plain integers and an optional function; zero is the default action, no flags and
    // an empty mask.
    unsafe { std::mem::zeroed() }
}

fn current() -> sigaction {
    let mut found = default_action();
    // SAFETY: asks only; `found` lives across the call. It cannot fail for this signal.
    unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut found) };
    found
}

fn set(action: &sigaction) {
    // SAFETY: the action is whole, and its handler, if it has one, lives as long as the program.
    unsafe { libc::sigaction(libc::SIGBUS, action, ptr::null_mut()) };
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler of this kind a valid record.
    let facts = unsafe { &*info };
    let code = facts.si_code;
    // Only then is there an address: a SIGBUS that somebody sent has a pid in its place.
    if code == libc::BUS_ADRERR || code == libc::BUS_MCEERR_AR {
        // SAFETY: as the code says, the record holds an address.
        let address = unsafe { facts.si_addr() };
        if slot_of(address.addr()).is_some_and(|slot| replace_page(slot, address)) {
            return;
        }
    }
    // Known since before this handler was.
    if let Some(before) = BEFORE.get() {
        pass_on(before, signal, code, info, context);
    }
}

/// Puts a page of zeros where there is none any more; the access is then made again.
fn replace_page(slot: &Slot, address: *mut c_void) -> bool {
    // SAFETY: asks a constant of the system, allowed in a handler.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let place = address.map_addr(|address| address & !(page - 1));
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // First, so that no access to the zeros can end before the mark is seen.
    slot.hit.store(true, Ordering::Release);
    let errno = Errno::last_raw(); // the interrupted code may be about to look at it
    // SAFETY: the page lies in a mapping of its registrant, and the kernel just said that nothing
    // is there any more, so nothing is lost.
    let mapped = unsafe { libc::mmap(place, page, access, kind, -1, 0) };
    Errno::set_raw(errno);
    mapped == place
}

/// Does what `before` would have done without us.
fn pass_on(
    before: &sigaction,
    signal: c_int,
    code: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
) {
    match before.sa_sigaction {
        libc::SIG_DFL => die(signal, code),
        // The kernel does not let a real fault be ignored, and neither may we: it would repeat.
        libc::SIG_IGN if code > 0 => die(signal, code),
        libc::SIG_IGN => {}
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: registered as a function of this shape.
            let handler = unsafe {
                std::mem::transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(
                    handler,
                )
            };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: registered as a function of this shape.
            let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}

/// Lets the default action happen: a fault repeats by itself, a signal that was sent does not.
fn die(signal: c_int, code: c_int) {
    set(&default_action());
    if code <= 0 {
        // SAFETY: stays pending until this handler returns, then ends the process.
        unsafe { libc::raise(signal) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::signal::Signal;
    use nix::sys::wait::WaitStatus;

    use super::super::map::Mapping;
    use super::super::testing::{child_agrees, in_child, unnamed};
    use super::*;

    const PAGE: usize = 4096;

    /// Three pages of memory whose file has only one left.
    fn truncated() -> Mapping {
        let file = unnamed(3 * PAGE as u64);
        let map = Mapping::shared(file.as_fd(), 3 * PAGE, true).unwrap();
        write(&map, 10, 1);
        file.set_len(PAGE as u64).unwrap();
        map
    }

    fn read(map: &Mapping, at: usize) -> u8 {
        assert!(at < map.len());
        // SAFETY: inside the mapping, as just checked.
        unsafe { map.as_ptr().wrapping_add(at).read_volatile() }
    }

    fn write(map: &Mapping, at: usize, value: u8) {
        assert!(at < map.len());
        // SAFETY: inside the mapping, as just checked.
        unsafe { map.as_ptr().wrapping_add(at).write_volatile(value) };
    }

    fn killed_by_sigbus(check: impl FnOnce() -> bool) -> bool {
        matches!(in_child(check), WaitStatus::Signaled(_, Signal::SIGBUS, _))
    }

    #[test]
    fn a_missing_page_reads_as_zero_and_is_told() {
        let map = truncated();
        let guard = guard(map.as_ptr(), map.len());
        assert_eq!(read(&map, 10), 1);
        assert!(!guard.hit());
        Errno::set_raw(libc::EDOM);
        assert_eq!(read(&map, 2 * PAGE + 77), 0);
        assert_eq!(Errno::last_raw(), libc::EDOM, "the handler leaves errno alone");
        assert!(guard.hit());
        write(&map, PAGE, 5);
        assert_eq!((read(&map, PAGE), read(&map, 10)), (5, 1), "what is there stays");
    }

    #[test]
    fn ranges_are_told_apart_and_end_with_their_guard() {
        let (left, right) = (truncated(), truncated());
        let (first, second) =
            (guard(left.as_ptr(), left.len()), guard(right.as_ptr(), right.len()));
        read(&right, PAGE);
        assert_eq!((first.hit(), second.hit()), (false, true));
        drop(first);
        assert!(killed_by_sigbus(|| read(&left, PAGE) == 0));
        let again = guard(left.as_ptr(), left.len());
        assert!(!again.hit(), "a slot used again starts clean");
        assert!(child_agrees(|| read(&left, PAGE) == 0 && again.hit()));
    }

    #[test]
    fn every_other_sigbus_still_kills() {
        let (guarded, other) = (truncated(), truncated());
        let guard = guard(guarded.as_ptr(), guarded.len());
        assert!(killed_by_sigbus(|| read(&other, PAGE) == 0));
        assert!(killed_by_sigbus(|| {
            // Twice: the handler that Rust's runtime installs answers the first by going away.
            for _ in 0..2 {
                // SAFETY: sends a signal to this thread.
                unsafe { libc::raise(libc::SIGBUS) };
            }
            true
        }));
        assert!(!guard.hit());
    }

    extern "C" fn with_facts(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
        // SAFETY: leaving at once is always allowed.
        unsafe { libc::_exit(if info.is_null() { 40 } else { 41 }) }
    }

    extern "C" fn plain(signal: c_int) {
        // SAFETY: as above.
        unsafe { libc::_exit(signal + 60) }
    }

    /// How a child ends that passes a signal on to this handler.
    fn passed_on(handler: usize, flags: c_int, code: c_int) -> WaitStatus {
        in_child(|| {
            let mut before = default_action();
            (before.sa_sigaction, before.sa_flags) = (handler, flags);
            // SAFETY: integers only, so zero is a value.
            let mut info: siginfo_t = unsafe { std::mem::zeroed() };
            pass_on(&before, libc::SIGBUS, code, &raw mut info, ptr::null_mut());
            true
        })
    }

    #[test]
    fn each_kind_of_handler_before_gets_what_is_not_ours() {
        let (facts, only) = (with_facts as *const () as usize, plain as *const () as usize);
        let exited = |status, code| matches!(status, WaitStatus::Exited(_, c) if c == code);
        let killed = |status| matches!(status, WaitStatus::Signaled(_, Signal::SIGBUS, _));
        assert!(exited(passed_on(facts, libc::SA_SIGINFO, libc::BUS_ADRERR), 41));
        assert!(exited(passed_on(only, 0, libc::BUS_ADRERR), libc::SIGBUS + 60));
        assert!(exited(passed_on(libc::SIG_IGN, 0, libc::SI_USER), 0));
        assert!(killed(passed_on(libc::SIG_DFL, 0, libc::SI_USER)));
    }

    #[test]
    fn more_ranges_than_anybody_has_are_all_watched() {
        let maps: Vec<_> = (0..50).map(|_| truncated()).collect();
        let guards: Vec<_> = maps.iter().map(|map| guard(map.as_ptr(), map.len())).collect();
        assert!(maps.iter().all(|map| read(map, PAGE) == 0));
        assert!(guards.iter().all(Guard::hit));
    }
}
