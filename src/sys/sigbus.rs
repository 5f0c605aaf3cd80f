//! Surviving a peer that truncates the file under a mapping.
//!
//! Touching a page that lies beyond the end of its file raises SIGBUS. For the ranges registered
//! here the handler puts a private page of zeros in the place and marks the range, so that the
//! access ends and its owner finds out. Every other SIGBUS goes on to whoever handled it before,
//! and kills if nobody did: this file must never hide a fault that is not about a segment. A forked
//! child has none of the mappings, so no range holds there.
//!
//! The handler may run at any instruction, so it reads only atomics, and what it reads is never
//! freed: a slot is used again, not given back.
//!
//! Hazards: a host that installs a handler of its own ends the watch until the next range is
//! registered, which begins it anew. And a handler that the host takes away again, after we found
//! it, is still passed what is not ours.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use libc::{c_int, c_void, sigaction, siginfo_t};
use nix::errno::Errno;

use super::fork::{self, Birth};

/// A range watched over, in a list that only grows.
struct Slot {
    /// Where it begins; [`FREE`] or [`CHANGING`] if it is not one.
    start: AtomicUsize,
    end: AtomicUsize,
    /// The process that has the range, as [`fork::generation`] counts them.
    generation: AtomicU32,
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
    birth: Birth,
}

/// Watches over a mapping, which must outlive the result.
pub(crate) fn guard(start: *const u8, len: usize) -> Guard {
    // One thread at a time, with a lock that a forked child never finds taken.
    let _hold = fork::hold();
    install();
    let (birth, generation) = (Birth::now(), fork::generation());
    let slot = free_slot(generation).unwrap_or_else(new_slot);
    // Release, as all below: whoever sees one of them sees that the slot changes.
    slot.start.store(CHANGING, Ordering::Release);
    slot.hit.store(false, Ordering::Release);
    slot.end.store(start.addr() + len, Ordering::Release);
    slot.generation.store(generation, Ordering::Release);
    slot.start.store(start.addr(), Ordering::Release);
    Guard { slot, birth }
}

impl Guard {
    /// Whether a page of the range was missing and replaced. In a child never: the range is not there,
    /// and the slot may be the child's own by now.
    pub(crate) fn hit(&self) -> bool {
        self.birth.is_here() && self.slot.hit.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.birth.is_here() {
            self.slot.start.store(FREE, Ordering::Release);
        }
    }
}

fn slots() -> impl Iterator<Item = &'static Slot> {
    // SAFETY: the list holds null or slots that are published whole and never freed.
    let at = |slot: *const Slot| unsafe { slot.as_ref() };
    std::iter::successors(at(SLOTS.load(Ordering::Acquire)), move |slot| at(slot.next))
}

/// One that nobody uses, or that a parent of this process did.
fn free_slot(generation: u32) -> Option<&'static Slot> {
    slots().find(|slot| {
        slot.start.load(Ordering::Acquire) == FREE
            || slot.generation.load(Ordering::Relaxed) != generation
    })
}

/// Under the lock of [`guard`].
fn new_slot() -> &'static Slot {
    let slot = Box::leak(Box::new(Slot {
        start: AtomicUsize::new(CHANGING),
        end: AtomicUsize::new(0),
        generation: AtomicU32::new(0),
        hit: AtomicBool::new(false),
        next: SLOTS.load(Ordering::Acquire),
    }));
    // Release: what is behind the pointer is whole.
    SLOTS.store(ptr::from_mut(slot), Ordering::Release);
    slot
}

/// The slot of this process whose range holds the address.
fn slot_of(address: usize) -> Option<&'static Slot> {
    slots().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        let end = slot.end.load(Ordering::Acquire);
        let is_ours = fork::is_generation(slot.generation.load(Ordering::Acquire));
        // The same start again: all this belongs to it, not to the slot's next range.
        is_ours && (start..end).contains(&address) && slot.start.load(Ordering::Relaxed) == start
    })
}

// --- the handler ----------------------------------------------------------------------------

/// A handler that was there when ours was installed.
struct Before {
    action: sigaction,
    /// What was there when ours was installed the time before.
    older: *const Before,
}

/// The newest of them. Never empty once our handler can run; none is ever freed.
static BEFORE: AtomicPtr<Before> = AtomicPtr::new(ptr::null_mut());

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// Makes our handler the current one, if it is not: a host may have installed its own since. Under
/// the lock of [`guard`].
fn install() {
    let found = current();
    if is_ours(&found) {
        return;
    }
    let mut ours = default_action();
    let handler: Handler = on_sigbus;
    ours.sa_sigaction = handler as *const () as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // First, so that our handler knows it whenever it runs.
    remember(found);
    let replaced = set(&ours);
    if !is_ours(&replaced) {
        remember(replaced); // one that came in between; else it is the same, and is known
    }
}

fn is_ours(action: &sigaction) -> bool {
    let handler: Handler = on_sigbus;
    action.sa_sigaction == handler as *const () as usize
}

/// Puts a handler in front of those known, unless it is the first already.
fn remember(action: sigaction) {
    let older = BEFORE.load(Ordering::Acquire);
    // SAFETY: null, or published below and never freed.
    let newest = unsafe { older.as_ref() };
    if newest.is_none_or(|known| known.action.sa_sigaction != action.sa_sigaction) {
        let before = Box::into_raw(Box::new(Before { action, older }));
        // Release: what is behind the pointer is whole.
        BEFORE.store(before, Ordering::Release);
    }
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

/// What was there until now.
fn set(action: &sigaction) -> sigaction {
    let mut replaced = default_action();
    // SAFETY: the action is whole, and its handler, if it has one, lives as long as the program.
    unsafe { libc::sigaction(libc::SIGBUS, action, &raw mut replaced) };
    replaced
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
    let round = next_round(info);
    match before(round) {
        Some(before) if round < ROUNDS => pass_on(&before.action, signal, code, info, context),
        _ => die(signal, code),
    }
}

/// How often a signal goes round before it is let through: more handlers than any program has.
const ROUNDS: u32 = 30;

/// Marks `si_errno`, which Linux leaves zero for this signal, as ours.
const MARK: u32 = 0x4553_4800;

/// How often this signal was passed on before; counts it up. A host's handler may pass on to what
/// *it* found, and that may be ours: then the one that we found before is next. The count travels
/// with the signal, because a handler may also leave by a long jump, and never come back to tell.
fn next_round(info: *mut siginfo_t) -> u32 {
    // SAFETY: the kernel's record, or the one that a host's handler got from us, on this stack.
    let mark = unsafe { &raw mut (*info).si_errno };
    // SAFETY: as above.
    let found = unsafe { mark.read() } as u32;
    let round = if found & !0xff == MARK { found & 0xff } else { 0 };
    // SAFETY: as above.
    unsafe { mark.write((MARK | (round + 1).min(0xff)) as c_int) };
    round
}

/// The handler for this round: the newest first, and then the oldest for good.
fn before(round: u32) -> Option<&'static Before> {
    // SAFETY: the list holds null or what is published whole and never freed.
    let at = |before: *const Before| unsafe { before.as_ref() };
    std::iter::successors(at(BEFORE.load(Ordering::Acquire)), move |before| at(before.older))
        .take(round as usize + 1)
        .last()
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
    use nix::sys::signal::Signal;
    use nix::sys::wait::WaitStatus;

    use super::super::map::Mapping;
    use super::super::testing::{child_agrees, in_child, std_file, unnamed};
    use super::*;

    const PAGE: usize = 4096;

    /// Three pages of memory whose file has only one left.
    fn truncated() -> Mapping {
        let file = unnamed(3 * PAGE as u64);
        let map = Mapping::shared(&file, 0, 3 * PAGE, true).unwrap();
        write(&map, 10, 1);
        std_file(&file).set_len(PAGE as u64).unwrap();
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
        drop(second);
        let again = guard(right.as_ptr(), right.len());
        assert!(!again.hit(), "a slot used again starts clean");
        assert!(killed_by_sigbus(|| {
            let own = truncated();
            drop(guard(own.as_ptr(), own.len()));
            read(&own, PAGE) == 0
        }));
    }

    #[test]
    fn every_other_sigbus_still_kills() {
        assert!(killed_by_sigbus(|| {
            let (guarded, other) = (truncated(), truncated());
            let _guard = guard(guarded.as_ptr(), guarded.len());
            read(&other, PAGE) == 0
        }));
        assert!(killed_by_sigbus(|| {
            let guarded = truncated();
            let _guard = guard(guarded.as_ptr(), guarded.len());
            // Twice: the handler that Rust's runtime installs answers the first by going away.
            for _ in 0..2 {
                // SAFETY: sends a signal to this thread.
                unsafe { libc::raise(libc::SIGBUS) };
            }
            true
        }));
    }

    #[test]
    fn a_childs_fault_at_such_an_address_is_not_ours() {
        let map = truncated();
        let guard = guard(map.as_ptr(), map.len());
        read(&map, 2 * PAGE);
        assert!(guard.hit());
        assert!(child_agrees(|| slot_of(map.as_ptr().addr()).is_none() && !guard.hit()));
    }

    /// It must not end the watch over what the child put in the same slot.
    #[test]
    fn the_parents_guard_does_nothing_in_a_child() {
        // In a child first, whose guards are no other test's: all take the first slot.
        assert!(child_agrees(|| {
            let map = truncated();
            let mut guard = std::mem::ManuallyDrop::new(guard(map.as_ptr(), map.len()));
            child_agrees(|| {
                let own = truncated();
                let watch = super::guard(own.as_ptr(), own.len());
                // SAFETY: once in this process, which then ends.
                unsafe { std::mem::ManuallyDrop::drop(&mut guard) };
                ptr::eq(watch.slot, guard.slot) && read(&own, PAGE) == 0 && watch.hit()
            })
        }));
    }

    /// What a host's handler passes on to: what it found.
    static FOUND: AtomicPtr<sigaction> = AtomicPtr::new(ptr::null_mut());
    static CALLS: AtomicU32 = AtomicU32::new(0);

    extern "C" fn hosts(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        if CALLS.fetch_add(1, Ordering::Relaxed) > 100 {
            // SAFETY: leaving at once is always allowed.
            unsafe { libc::_exit(50) }; // for ever in a circle
        }
        // SAFETY: leaked by `install_hosts`.
        let found = unsafe { FOUND.load(Ordering::Relaxed).as_ref() };
        // SAFETY: the kernel's record.
        let code = unsafe { &*info }.si_code;
        found.inspect(|found| pass_on(found, signal, code, info, context));
    }

    fn install_hosts() {
        let mut action = default_action();
        let handler: Handler = hosts;
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        FOUND.store(Box::into_raw(Box::new(set(&action))), Ordering::Relaxed);
    }

    #[test]
    fn a_handler_that_a_host_installs_later_does_not_end_the_watch_for_good() {
        assert!(child_agrees(|| {
            let (first, second) = (truncated(), truncated());
            let early = guard(first.as_ptr(), first.len());
            install_hosts();
            let late = guard(second.as_ptr(), second.len());
            let zeros = read(&first, PAGE) == 0 && read(&second, PAGE) == 0;
            zeros && early.hit() && late.hit() && CALLS.load(Ordering::Relaxed) == 0
        }));
    }

    /// Ours passes on to the host's, which passes on to ours, which it had found.
    #[test]
    fn handlers_that_pass_on_to_each_other_come_to_an_end() {
        assert!(killed_by_sigbus(|| {
            let (map, alone) = (truncated(), truncated());
            let _early = guard(map.as_ptr(), map.len());
            install_hosts();
            let _late = guard(map.as_ptr(), map.len());
            read(&alone, PAGE) == 0
        }));
        // The host's is the oldest, and it was installed again: a circle without any end.
        assert!(killed_by_sigbus(|| {
            install_hosts();
            let (map, alone) = (truncated(), truncated());
            BEFORE.store(ptr::null_mut(), Ordering::Relaxed);
            let _early = guard(map.as_ptr(), map.len());
            install_hosts();
            let _late = guard(map.as_ptr(), map.len());
            read(&alone, PAGE) == 0
        }));
    }

    #[test]
    fn each_round_goes_to_an_older_handler_and_the_oldest_is_the_last() {
        assert!(child_agrees(|| {
            BEFORE.store(ptr::null_mut(), Ordering::Relaxed);
            for handler in [11, 22, 22, 33] {
                remember(sigaction { sa_sigaction: handler, ..default_action() });
            }
            let of = |round| before(round).unwrap().action.sa_sigaction;
            // SAFETY: integers only, so zero is a value.
            let mut info: siginfo_t = unsafe { std::mem::zeroed() };
            let rounds: Vec<_> = (0..5).map(|_| of(next_round(&raw mut info))).collect();
            rounds == [33, 22, 11, 11, 11]
        }));
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
