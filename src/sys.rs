//! The only room of the house that talks to Linux.
//!
//! Each file beneath wraps one thing the kernel offers, in the words of this library: interrupted
//! calls are repeated, failures come out as [`Error::Os`] with the name of the object in them, and
//! raw descriptors stay inside. It must never know what lies in shared memory: offsets, frames and
//! roles are somebody else's business. And it must never keep a descriptor where the host program
//! can close it: a file is open for a moment, and what has to stay open is in a thread's own table.
//!
//! Start with `shm.rs` (the file), `lock.rs` (who is alive) and `map.rs` (its memory, which keeps
//! the lock); `fork.rs` tells what a child must not have.

pub(crate) mod barrier;
pub(crate) mod clock;
pub(crate) mod cores;
pub(crate) mod failpoint;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod lock;
pub(crate) mod map;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod shm;
pub(crate) mod sigbus;
pub(crate) mod thread;

use std::fmt::Display;

use nix::errno::Errno;

use crate::error::Error;

/// The error for `operation`, applied to `object`, failing with the number `errno`.
pub(crate) fn os_error(operation: &'static str, object: impl Display, errno: i32) -> Error {
    Error::Os { operation, object: object.to_string(), errno }
}

/// Calls until a signal does not come between.
fn repeat<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod testing {
    //! A file to try things on, and a child to try them in.

    use std::os::fd::{AsRawFd, RawFd};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid, alarm, fork, pause};

    use super::shm::{self, File};

    /// A tmpfs file without a name, all of it allocated.
    pub(super) fn unnamed(size: u64) -> File {
        let file = shm::create_unnamed("/dev/shm".as_ref(), 0o600).expect("a file");
        shm::allocate(&file, 0, size).expect("its pages");
        file
    }

    /// A second description of the same file.
    pub(super) fn again(file: &File, writable: bool) -> File {
        let path = format!("/proc/thread-self/fd/{}", file.fd().expect("open").as_raw_fd());
        shm::open_through(path.as_ref(), writable)
    }

    /// The same description, for what the standard library can do with it.
    pub(super) fn std_file(file: &File) -> std::fs::File {
        file.fd().expect("open").try_clone_to_owned().expect("a duplicate").into()
    }

    /// What a host does that closes all it did not open, and opens something else.
    pub(super) fn give_number(to: &impl AsRawFd, number: RawFd) {
        // SAFETY: whoever had the number is tested to bear this.
        assert_eq!(unsafe { libc::dup2(to.as_raw_fd(), number) }, number);
    }

    /// How a forked child ends that answers `check`: 0 for true, 1 for false, 2 for a panic.
    pub(super) fn in_child(check: impl FnOnce() -> bool) -> WaitStatus {
        // SAFETY: the child runs only `check`, which the tests keep to system calls, atomics and
        // allocation, and then leaves without running destructors of the parent's things.
        let side = unsafe { fork() }.expect("fork");
        match side {
            ForkResult::Parent { child } => waitpid(child, None).expect("waitpid"),
            ForkResult::Child => answer(check),
        }
    }

    fn answer(check: impl FnOnce() -> bool) -> ! {
        alarm::set(20); // a check that hangs is to fail
        let code = catch_unwind(AssertUnwindSafe(check)).map_or(2, |good| !good as i32);
        // SAFETY: leaving at once is always allowed.
        unsafe { libc::_exit(code) }
    }

    /// Whether a child says yes that was made by a bare system call, so that no handlers ran.
    pub(super) fn bare_child_agrees(check: impl FnOnce() -> bool) -> bool {
        // SAFETY: as in `in_child`; no flags but the signal for the end, as `fork` does it.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        if pid == 0 {
            answer(check);
        }
        assert!(pid > 0, "clone");
        matches!(waitpid(Pid::from_raw(pid as i32), None), Ok(WaitStatus::Exited(_, 0)))
    }

    /// A child that does nothing until it is killed, and not for ever if nobody does.
    pub(super) fn idle_child() -> Pid {
        // SAFETY: the child makes system calls only.
        let side = unsafe { fork() }.expect("fork");
        let ForkResult::Parent { child } = side else {
            alarm::set(60);
            loop {
                pause();
            }
        };
        child
    }

    /// Whether a forked child says yes to `check`.
    pub(super) fn child_agrees(check: impl FnOnce() -> bool) -> bool {
        matches!(in_child(check), WaitStatus::Exited(_, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_calls_are_repeated_and_others_are_not() {
        let mut answers = [Err(Errno::EINTR), Err(Errno::EINTR), Ok(7)].into_iter();
        assert_eq!(repeat(|| answers.next().unwrap()), Ok(7));
        let mut answers = [Err(Errno::EIO), Ok(7)].into_iter();
        assert_eq!(repeat(|| answers.next().unwrap()), Err(Errno::EIO));
    }
}
