//! Waiting for any of several descriptors, and being woken from it.
//!
//! It must never own what it watches, and never let a wake-up get lost: a [`Waker`] stays raised
//! until it is drained.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::clock::monotonic_ns;
use super::{os_error, repeat};
use crate::error::{Error, Result};

/// How many descriptors are reported at once; the rest come with the next call.
const BATCH: usize = 32;

/// A set of descriptors, each with a token of the caller's.
pub(crate) struct Poller {
    epoll: Epoll,
}

impl Poller {
    /// An empty set.
    pub(crate) fn new() -> Result<Self> {
        match Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC) {
            Ok(epoll) => Ok(Poller { epoll }),
            Err(errno) => Err(poll_error("epoll_create1", errno)),
        }
    }

    /// Watches a descriptor until it is removed, or closed everywhere. `token` is reported for as
    /// long as it is readable.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        self.epoll.add(fd, event).map_err(|errno| poll_error("epoll_ctl", errno))
    }

    /// Watches it no longer.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.epoll.delete(fd).map_err(|errno| poll_error("epoll_ctl", errno))
    }

    /// Waits until something is readable or the time is up, `None` being for ever. Puts the tokens
    /// into `out`, in place of what was there; none means the time is up.
    pub(crate) fn wait(&self, timeout: Option<Duration>, out: &mut Vec<u64>) -> Result<()> {
        out.clear();
        let mut events = [EpollEvent::empty(); BATCH];
        let start = monotonic_ns();
        let result = repeat(|| {
            let gone = Duration::from_nanos(monotonic_ns() - start);
            self.once(timeout.map(|limit| limit.saturating_sub(gone)), &mut events)
        });
        let ready = result.map_err(|errno| poll_error("epoll_wait", errno))?;
        out.extend(events[..ready].iter().map(EpollEvent::data));
        Ok(())
    }

    fn once(&self, limit: Option<Duration>, events: &mut [EpollEvent]) -> nix::Result<usize> {
        match self.wait_ns(limit, events) {
            Err(Errno::ENOSYS | Errno::EPERM) => self.wait_ms(limit, events),
            result => result,
        }
    }

    /// Not in Linux before 5.11, and an old filter may answer EPERM for what it does not know.
    fn wait_ns(&self, limit: Option<Duration>, events: &mut [EpollEvent]) -> nix::Result<usize> {
        let limit = limit.map(|limit| libc::timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: limit.subsec_nanos() as _, // under 10^9, fits whatever the width
        });
        // SAFETY: the call reads the limit, if there is one, and writes at most as many events as
        // it is told; both live across it, and `EpollEvent` is the kernel's type.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.0.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                limit.as_ref().map_or(ptr::null(), ptr::from_ref),
                ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        Errno::result(ready).map(|ready| ready as usize)
    }

    /// Rounds up: waking early would turn the last millisecond into a busy loop.
    fn wait_ms(&self, limit: Option<Duration>, events: &mut [EpollEvent]) -> nix::Result<usize> {
        let limit = limit.map_or(EpollTimeout::NONE, |limit| {
            let ms = i32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
            EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::MAX)
        });
        self.epoll.wait(events, limit)
    }
}

/// Something to watch that any thread can raise.
pub(crate) struct Waker {
    event: EventFd,
}

impl Waker {
    /// One that is not raised.
    pub(crate) fn new() -> Result<Self> {
        match EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK) {
            Ok(event) => Ok(Waker { event }),
            Err(errno) => Err(poll_error("eventfd", errno)),
        }
    }

    /// Raises it. The one refusal is a counter that is full, which is raised already.
    pub(crate) fn wake(&self) {
        let _ = repeat(|| self.event.write(1));
    }

    /// Lowers it. The one refusal is that it was not raised.
    pub(crate) fn drain(&self) {
        let _ = repeat(|| self.event.read());
    }

    /// What to watch.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

fn poll_error(operation: &'static str, errno: Errno) -> Error {
    os_error(operation, "the poll set", errno as i32)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;

    use super::super::process;
    use super::super::testing::idle_child;
    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(60));

    #[test]
    fn what_is_raised_is_reported_until_it_is_drained() {
        let (poller, mut out) = (Poller::new().unwrap(), vec![99]);
        let wakers = [Waker::new().unwrap(), Waker::new().unwrap(), Waker::new().unwrap()];
        for (token, waker) in wakers.iter().enumerate() {
            poller.add(waker.as_fd(), token as u64).unwrap();
        }
        poller.wait(Some(Duration::ZERO), &mut out).unwrap();
        assert!(out.is_empty());
        wakers[0].wake();
        wakers[2].wake();
        wakers[2].wake();
        for _ in 0..2 {
            poller.wait(LONG, &mut out).unwrap();
            out.sort_unstable();
            assert_eq!(out, [0, 2]);
        }
        wakers[2].drain();
        wakers[1].drain(); // not raised: must not block
        poller.remove(wakers[0].as_fd()).unwrap();
        poller.wait(Some(Duration::ZERO), &mut out).unwrap();
        assert!(out.is_empty());
        assert!(poller.remove(wakers[0].as_fd()).is_err());
    }

    #[test]
    fn a_thread_is_woken_out_of_an_endless_wait() {
        let (poller, waker) = (Poller::new().unwrap(), Waker::new().unwrap());
        poller.add(waker.as_fd(), u64::MAX).unwrap();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let mut out = Vec::new();
                poller.wait(None, &mut out).map(|()| out)
            });
            waker.wake();
            assert_eq!(sleeper.join().unwrap().unwrap(), [u64::MAX]);
        });
    }

    #[test]
    fn both_ways_wait_at_least_as_long_as_they_should() {
        let poller = Poller::new().unwrap();
        let mut events = [EpollEvent::empty(); 1];
        let limit = Duration::from_micros(1500);
        for way in [Poller::wait_ns, Poller::wait_ms] {
            let start = Instant::now();
            match way(&poller, Some(limit), &mut events) {
                Ok(ready) => {
                    assert_eq!(ready, 0);
                    assert!(start.elapsed() >= limit);
                }
                Err(errno) => assert_eq!(errno, Errno::ENOSYS),
            }
        }
    }

    #[test]
    fn a_death_is_reported() {
        let child = idle_child();
        let life = process::open_pidfd(child.as_raw() as u32).expect("it lives");
        let (poller, mut out) = (Poller::new().unwrap(), Vec::new());
        poller.add(life.as_fd(), 7).unwrap();
        poller.wait(Some(Duration::ZERO), &mut out).unwrap();
        assert!(out.is_empty());
        kill(child, Signal::SIGKILL).unwrap();
        poller.wait(LONG, &mut out).unwrap();
        assert_eq!(out, [7]);
        waitpid(child, None).unwrap();
    }
}
