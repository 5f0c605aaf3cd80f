//! Sleeping until a process dies, or the time is up.
//!
//! It lives in the background thread alone, in a descriptor table of that thread's own, so that the
//! host cannot close what it watches and a forked child never has it. Each death is armed for one
//! report: even a set that lived on somewhere would not be ready for ever, and nobody would spin.
//!
//! It must never keep a descriptor in the host's table: without a table of its own it watches nobody
//! and only sleeps. The locks then tell who died, a beat later.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::clock::{self, monotonic_ns};
use super::{repeat, thread};

/// How many deaths are reported at once; the rest come with the next call.
const BATCH: usize = 32;

/// Processes whose deaths are to be told.
pub(crate) struct Deaths {
    /// `None`: the system refused, and nobody is watched.
    epoll: Option<Epoll>,
    watched: HashMap<u32, OwnedFd>,
}

impl Deaths {
    /// Nobody yet. Gives the calling thread a descriptor table of its own.
    pub(crate) fn new() -> Deaths {
        let epoll = thread::own_descriptors()
            .then(|| Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).ok())
            .flatten();
        Deaths { epoll, watched: HashMap::new() }
    }

    /// Watches a process until it dies. One that is not there, or cannot be watched, is not.
    pub(crate) fn watch(&mut self, pid: u32) {
        let Some(epoll) = &self.epoll else { return };
        if self.watched.contains_key(&pid) {
            return;
        }
        let Some(life) = open_pidfd(pid) else { return };
        let once = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        if epoll.add(&life, EpollEvent::new(once, pid.into())).is_ok() {
            self.watched.insert(pid, life);
        }
    }

    /// Sleeps until somebody who is watched dies, or the time is up. `dead` has then those who died,
    /// each of them once, in place of what was there.
    pub(crate) fn wait(&mut self, at_most: Duration, dead: &mut Vec<u32>) {
        dead.clear();
        let start = monotonic_ns();
        let left = || at_most.saturating_sub(Duration::from_nanos(monotonic_ns() - start));
        let mut events = [EpollEvent::empty(); BATCH];
        let Some(epoll) = &self.epoll else { return clock::sleep(at_most) };
        match repeat(|| wait_once(epoll, left(), &mut events)) {
            Ok(count) => dead.extend(events[..count].iter().map(|event| event.data() as u32)),
            // A wait that fails at once would spin.
            Err(_) => clock::sleep(left()),
        }
        for pid in dead {
            self.watched.remove(pid); // closes it, and so takes it out of the set
        }
    }
}

fn wait_once(epoll: &Epoll, limit: Duration, events: &mut [EpollEvent]) -> nix::Result<usize> {
    match wait_ns(epoll, limit, events) {
        Err(Errno::ENOSYS | Errno::EPERM) => wait_ms(epoll, limit, events),
        result => result,
    }
}

/// Not in Linux before 5.11, and an old filter may answer EPERM for what it does not know.
fn wait_ns(epoll: &Epoll, limit: Duration, events: &mut [EpollEvent]) -> nix::Result<usize> {
    let limit = libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos() as _, // under 10^9, fits whatever the width
    };
    // SAFETY: the call reads the limit and writes at most as many events as it is told; both live
    // across it, and `EpollEvent` is the kernel's type.
    let ready = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.0.as_raw_fd(),
            events.as_mut_ptr(),
            events.len() as libc::c_int,
            ptr::from_ref(&limit),
            ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    Errno::result(ready).map(|ready| ready as usize)
}

/// Rounds up: waking early would turn the last millisecond into a busy loop.
fn wait_ms(epoll: &Epoll, limit: Duration, events: &mut [EpollEvent]) -> nix::Result<usize> {
    let ms = i32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
    epoll.wait(events, EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::MAX))
}

/// A descriptor, closed on exec, that becomes readable when the process ends; `None` if there is
/// no such process here or the kernel has no such call.
fn open_pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: two integers; the call touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: just made, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;
    use nix::unistd::Pid;

    use super::super::testing::{child_agrees, idle_child};
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn end(child: Pid) {
        kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
    }

    fn number(child: Pid) -> u32 {
        child.as_raw() as u32
    }

    /// Runs `check` in a thread that may have descriptors of its own.
    fn apart(check: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(check).join().unwrap());
    }

    #[test]
    fn each_death_is_told_once() {
        apart(|| {
            let (first, second) = (idle_child(), idle_child());
            let (mut deaths, mut dead) = (Deaths::new(), vec![99]);
            for child in [first, second, first] {
                deaths.watch(number(child));
            }
            deaths.wait(Duration::ZERO, &mut dead);
            assert_eq!(dead, []);
            kill(first, Signal::SIGKILL).unwrap();
            deaths.wait(LONG, &mut dead);
            assert_eq!(dead, [number(first)]);
            deaths.wait(Duration::from_millis(5), &mut dead);
            assert_eq!(dead, [], "a zombie, told before");
            waitpid(first, None).unwrap();
            kill(second, Signal::SIGKILL).unwrap();
            deaths.wait(LONG, &mut dead);
            assert_eq!(dead, [number(second)]);
            waitpid(second, None).unwrap();
            assert!(deaths.watched.is_empty());
        });
    }

    #[test]
    fn nobody_is_watched_who_is_not_there() {
        apart(|| {
            let gone = idle_child();
            end(gone);
            let mut deaths = Deaths::new();
            for pid in [0, u32::MAX, number(gone)] {
                deaths.watch(pid);
            }
            assert!(deaths.watched.is_empty());
        });
    }

    /// A host closes every descriptor it finds and opens others; and it has a child that lives on.
    #[test]
    fn neither_a_closing_host_nor_its_child_disturbs() {
        assert!(child_agrees(|| {
            let (peer, (tell, told)) = (idle_child(), mpsc::channel());
            let (go, gone_on) = mpsc::channel::<()>();
            thread::spawn("eshm-test", move || {
                let (mut deaths, mut dead) = (Deaths::new(), Vec::new());
                deaths.watch(number(peer));
                tell.send(0).unwrap();
                gone_on.recv().unwrap();
                deaths.wait(LONG, &mut dead);
                tell.send(dead[0]).unwrap();
                // A set that is ready for ever would not sleep.
                let start = Instant::now();
                deaths.wait(Duration::from_millis(20), &mut dead);
                let slept = dead.is_empty() && start.elapsed() >= Duration::from_millis(20);
                tell.send(u32::from(slept)).unwrap();
            })
            .unwrap();
            told.recv_timeout(LONG).unwrap();
            let bystander = idle_child();
            // SAFETY: nothing in this child needs them.
            unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
            go.send(()).unwrap();
            kill(peer, Signal::SIGKILL).unwrap();
            let died = told.recv_timeout(LONG).unwrap();
            let slept = told.recv_timeout(LONG).unwrap();
            waitpid(peer, None).unwrap();
            end(bystander);
            died == number(peer) && slept == 1
        }));
    }

    /// The main thread has no table of its own, and gets none.
    #[test]
    fn without_a_table_of_its_own_it_only_sleeps() {
        assert!(child_agrees(|| {
            let (mut deaths, mut dead) = (Deaths::new(), vec![1]);
            deaths.watch(std::process::id());
            let start = Instant::now();
            deaths.wait(Duration::from_millis(5), &mut dead);
            let slept = start.elapsed() >= Duration::from_millis(5);
            deaths.epoll.is_none() && deaths.watched.is_empty() && dead.is_empty() && slept
        }));
    }

    #[test]
    fn a_wait_that_fails_does_not_spin() {
        apart(|| {
            let mut deaths = Deaths::new();
            let broken = std::fs::File::open("/dev/null").unwrap();
            deaths.epoll = Some(Epoll(broken.into()));
            let start = Instant::now();
            deaths.wait(Duration::from_millis(5), &mut Vec::new());
            assert!(start.elapsed() >= Duration::from_millis(5));
        });
    }

    #[test]
    fn both_ways_wait_at_least_as_long_as_they_should() {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let mut events = [EpollEvent::empty(); 1];
        let limit = Duration::from_micros(1500);
        for way in [wait_ns, wait_ms] {
            let start = Instant::now();
            match way(&epoll, limit, &mut events) {
                Ok(ready) => {
                    assert_eq!(ready, 0);
                    assert!(start.elapsed() >= limit);
                }
                Err(errno) => assert_eq!(errno, Errno::ENOSYS),
            }
        }
    }

    #[test]
    fn a_life_is_closed_on_exec() {
        let life = open_pidfd(std::process::id()).expect("this process is there");
        let flags = fcntl(&life, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
    }
}
