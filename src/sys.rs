//! The only room of the house that talks to Linux.
//!
//! Each file beneath wraps one thing the kernel offers, in the words of this library: interrupted
//! calls are repeated, failures come out as [`Error::Os`] with the name of the object in them, and
//! raw descriptors stay inside. It must never know what lies in shared memory: offsets, frames and
//! roles are somebody else's business.
//!
//! Start with `shm.rs` (the file), `map.rs` (its memory) and `lock.rs` (who is alive).

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

use std::fmt::Display;
use std::os::fd::{AsRawFd, BorrowedFd};

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

/// What to call an open file in an error: its path, which people know, not its number, which
/// means nothing outside this process. For failures only; it asks the kernel.
fn name_of(fd: BorrowedFd<'_>) -> String {
    let number = fd.as_raw_fd();
    match std::fs::read_link(format!("/proc/self/fd/{number}")) {
        Ok(path) => path.display().to_string(),
        Err(_) => format!("descriptor {number}"),
    }
}

#[cfg(test)]
mod testing {
    //! A file to try things on, and a child to try them in.

    use std::fs::File;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid, alarm, fork, pause};

    use super::shm;

    /// A tmpfs file without a name.
    pub(super) fn unnamed(size: u64) -> File {
        File::from(shm::create_unnamed("/dev/shm".as_ref(), size, 0o600).expect("a file"))
    }

    /// How a forked child ends that answers `check`: 0 for true, 1 for false, 2 for a panic.
    pub(super) fn in_child(check: impl FnOnce() -> bool) -> WaitStatus {
        // SAFETY: the child runs only `check`, which the tests keep to system calls, atomics and
        // allocation, and then leaves without running destructors of the parent's things.
        let side = unsafe { fork() }.expect("fork");
        match side {
            ForkResult::Parent { child } => waitpid(child, None).expect("waitpid"),
            ForkResult::Child => {
                let code = catch_unwind(AssertUnwindSafe(check)).map_or(2, |good| !good as i32);
                // SAFETY: leaving at once is always allowed.
                unsafe { libc::_exit(code) }
            }
        }
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
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn interrupted_calls_are_repeated_and_others_are_not() {
        let mut answers = [Err(Errno::EINTR), Err(Errno::EINTR), Ok(7)].into_iter();
        assert_eq!(repeat(|| answers.next().unwrap()), Ok(7));
        let mut answers = [Err(Errno::EIO), Ok(7)].into_iter();
        assert_eq!(repeat(|| answers.next().unwrap()), Err(Errno::EIO));
    }

    #[test]
    fn an_open_file_is_called_by_its_path() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(name_of(file.as_fd()).ends_with("/stat"));
    }
}
