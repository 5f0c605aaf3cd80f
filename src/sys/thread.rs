//! A thread that lives in somebody else's program without being noticed.
//!
//! It takes none of the host's signals, and its descriptors are in a table of its own, where the host
//! can neither close them nor find them in its children. It must never close a descriptor of the
//! host: what it closes is a copy.

use std::cell::Cell;
use std::os::fd::{IntoRawFd, RawFd};

use nix::fcntl::{self, OFlag};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{getpid, gettid};

use super::os_error;
use crate::error::Result;

/// More than the thread ever uses, less than a host notices.
const STACK: usize = 128 << 10;

/// Faults of the thread's own. Blocked, they would kill the process whatever handler it has, and
/// SIGBUS has one here.
const FAULTS: [Signal; 5] =
    [Signal::SIGBUS, Signal::SIGSEGV, Signal::SIGFPE, Signal::SIGILL, Signal::SIGTRAP];

/// Starts a thread that takes no signals. Whatever the host does with its own threads' masks, a
/// signal for the process is never delivered to this one.
pub(crate) fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let mut blocked = SigSet::all();
    FAULTS.into_iter().for_each(|fault| blocked.remove(fault));
    let failed = |errno: i32| os_error("start", format!("the thread {name}"), errno);
    // A thread begins with the mask of the one that starts it, so nothing comes between.
    let before =
        blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(|errno| failed(errno as i32))?;
    let thread = std::thread::Builder::new().name(name.into()).stack_size(STACK);
    let spawned = thread.spawn(run);
    let restored = before.thread_set_mask();
    debug_assert!(restored.is_ok());
    spawned.map(drop).map_err(|error| failed(error.raw_os_error().unwrap_or(libc::EAGAIN)))
}

thread_local! {
    static HAS_OWN: Cell<bool> = const { Cell::new(false) };
}

/// Lets others have the core.
pub(crate) fn yield_now() {
    std::thread::yield_now();
}

/// Gives the calling thread an empty descriptor table of its own; `false` if the system refuses.
/// Calling it again does nothing. The main thread never gets one: what it has is the host's.
pub(crate) fn own_descriptors() -> bool {
    if !HAS_OWN.get() && gettid() != getpid() && (leave_with_nothing() || leave_and_close()) {
        HAS_OWN.set(true);
        fill_standard();
    }
    HAS_OWN.get()
}

/// One call, so that no copy is ever made. Since Linux 5.9.
fn leave_with_nothing() -> bool {
    let flags = libc::CLOSE_RANGE_UNSHARE;
    // SAFETY: what is closed is in this thread's own table, which nothing in it uses yet.
    unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, flags) == 0 }
}

/// The older way: a copy of everything, and then all of the copy closed.
fn leave_and_close() -> bool {
    if unshare(CloneFlags::CLONE_FILES).is_err() {
        return false;
    }
    let mut numbers = open_numbers().unwrap_or_else(|| (0..number_limit()).collect());
    numbers.drain(..).for_each(|fd| {
        // SAFETY: as above. Closing the table's copy frees none of the host's record locks, which
        // belong to its own table.
        unsafe { libc::close(fd) };
    });
    true
}

/// The descriptors of this thread. Not `/proc/self`, which shows the main thread's.
fn open_numbers() -> Option<Vec<RawFd>> {
    let entries = std::fs::read_dir("/proc/thread-self/fd").ok()?;
    entries.map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// One more than the highest number that a descriptor can be expected to have.
fn number_limit() -> RawFd {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes the record, which lives across it.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_max.clamp(1024, 1 << 20) as RawFd
}

/// Leads the three standard numbers nowhere. Left free, they would be our own files next, and the
/// message of a panic would be written into one. Not the host's, which it may want to close.
fn fill_standard() {
    for number in 0..3 {
        match fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty()).map(IntoRawFd::into_raw_fd) {
            Ok(fd) if fd == number => {} // stays open as long as the thread
            // Not there, or not empty after all: `shm.rs` and `poll.rs` keep off these numbers.
            Ok(fd) => {
                // SAFETY: opened a moment ago, and not kept.
                unsafe { libc::close(fd) };
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::time::Duration;

    use nix::sys::signal::kill;
    use nix::unistd;

    use super::super::testing::child_agrees;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// What `ask` answers in a thread of this file.
    fn in_thread<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        spawn("eshm-test", move || tell.send(ask()).unwrap()).unwrap();
        told.recv_timeout(LONG).expect("an answer")
    }

    #[test]
    fn all_signals_but_faults_are_blocked_there_and_none_here() {
        let before = SigSet::thread_get_mask().unwrap();
        let there = in_thread(|| SigSet::thread_get_mask().unwrap());
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
        for signal in Signal::iterator() {
            let never = [Signal::SIGKILL, Signal::SIGSTOP].contains(&signal);
            let free = never || FAULTS.contains(&signal);
            assert_eq!(there.contains(signal), !free, "{signal}");
        }
        assert_eq!(
            in_thread(|| std::thread::current().name().map(String::from)).as_deref(),
            Some("eshm-test")
        );
    }

    /// A host that blocks a signal only after our thread started, and then waits for it itself.
    #[test]
    fn a_signal_that_the_host_waits_for_is_left_to_it() {
        assert!(child_agrees(|| {
            let (tell, told) = mpsc::channel();
            spawn("eshm-test", move || {
                tell.send(()).unwrap();
                loop {
                    std::thread::park();
                }
            })
            .unwrap();
            told.recv_timeout(LONG).unwrap();
            let mut waited = SigSet::empty();
            waited.add(Signal::SIGTERM);
            waited.thread_block().unwrap();
            // The default action would kill, were any thread free to take it.
            kill(unistd::getpid(), Signal::SIGTERM).unwrap();
            waited.wait() == Ok(Signal::SIGTERM)
        }));
    }

    /// What a way of leaving does, seen from both sides: true if it worked as it must.
    fn leaves_cleanly(way: fn() -> bool) -> bool {
        let hosts = File::open("/").unwrap();
        let number = hosts.as_raw_fd();
        let left = in_thread(move || {
            let done = way();
            let all = open_numbers().unwrap_or_default();
            // The listing itself is open meanwhile, and has the lowest number that is free.
            done && !all.contains(&number) && all.len() <= 1
        });
        // The host's own are all there, and what the thread opens is not among them.
        left && hosts.metadata().is_ok() && fs::metadata("/proc/self/fd/2").is_ok()
    }

    #[test]
    fn both_ways_lead_to_an_empty_table() {
        // In a child, whose other threads open nothing meanwhile.
        for way in [leave_with_nothing, leave_and_close] {
            assert!(child_agrees(|| leaves_cleanly(way)));
        }
    }

    #[test]
    fn the_host_neither_sees_nor_closes_what_the_thread_opens() {
        assert!(child_agrees(|| {
            let (ask, asked) = mpsc::channel::<()>();
            let (tell, told) = mpsc::channel();
            spawn("eshm-test", move || {
                assert!(own_descriptors() && own_descriptors());
                let standard: Vec<_> = (0..3)
                    .map(|fd| fs::read_link(format!("/proc/thread-self/fd/{fd}")).unwrap())
                    .collect();
                let file = File::open("/proc").unwrap();
                tell.send((file.as_raw_fd(), standard.iter().all(|at| at == "/dev/null"))).unwrap();
                asked.recv().unwrap();
                tell.send((file.as_raw_fd(), file.metadata().unwrap().is_dir())).unwrap();
            })
            .unwrap();
            let (number, to_null) = told.recv_timeout(LONG).unwrap();
            // SAFETY: a host that closes all but the standard ones; nothing here needs them.
            unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
            let in_child = child_agrees(|| fs::metadata(format!("/proc/self/fd/{number}")).is_ok());
            ask.send(()).unwrap();
            let (_, still_there) = told.recv_timeout(LONG).unwrap();
            to_null && still_there && !in_child
        }));
    }

    #[test]
    fn the_main_thread_keeps_what_it_has() {
        assert!(child_agrees(|| {
            let hosts = File::open("/").unwrap();
            !own_descriptors() && hosts.metadata().is_ok()
        }));
    }
}
