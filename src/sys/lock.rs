//! Locks that tell who is alive: one byte of a file, held by an open file description.
//!
//! The kernel frees such a lock when the last descriptor of the description is closed, whichever
//! way its process ends, and not before. It must never use the classic record locks (`F_SETLK`):
//! those belong to the process and vanish when *any* descriptor of the file is closed in it.
//!
//! Hazard: a duplicate of the descriptor, in this process or a forked child, keeps the lock.
//! `fork.rs` closes the child's.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::{name_of, os_error, repeat};
use crate::error::{Error, Result};

/// Takes the lock on one byte; `false` if somebody else has it.
pub(crate) fn try_lock(fd: BorrowedFd<'_>, byte: u64) -> Result<bool> {
    let range = one_byte(fd, byte, libc::F_WRLCK)?;
    match repeat(|| fcntl(fd, FcntlArg::F_OFD_SETLK(&range))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(lock_error(fd, errno)),
    }
}

/// Gives the lock back. Not having it is no error.
pub(crate) fn unlock(fd: BorrowedFd<'_>, byte: u64) -> Result<()> {
    let range = one_byte(fd, byte, libc::F_UNLCK)?;
    match repeat(|| fcntl(fd, FcntlArg::F_OFD_SETLK(&range))) {
        Ok(_) => Ok(()),
        Err(errno) => Err(lock_error(fd, errno)),
    }
}

/// Whether a description other than this one has the lock. Asking takes nothing, so a descriptor
/// open for reading is enough.
pub(crate) fn is_locked_by_other(fd: BorrowedFd<'_>, byte: u64) -> Result<bool> {
    let mut range = one_byte(fd, byte, libc::F_WRLCK)?;
    match repeat(|| fcntl(fd, FcntlArg::F_OFD_GETLK(&mut range))) {
        Ok(_) => Ok(i32::from(range.l_type) != libc::F_UNLCK),
        Err(errno) => Err(lock_error(fd, errno)),
    }
}

fn one_byte(fd: BorrowedFd<'_>, byte: u64, kind: libc::c_int) -> Result<libc::flock> {
    let start = libc::off_t::try_from(byte).map_err(|_| lock_error(fd, Errno::EOVERFLOW))?;
    Ok(libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        l_pid: 0, // required: this kind of lock has no process
    })
}

fn lock_error(fd: BorrowedFd<'_>, errno: Errno) -> Error {
    os_error("lock", name_of(fd), errno as i32)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::fd::{AsFd, AsRawFd};

    use super::super::testing::unnamed;
    use super::*;

    /// A second description of the same file.
    fn again(file: &File, writable: bool) -> File {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        OpenOptions::new().read(true).write(writable).open(path).unwrap()
    }

    #[test]
    fn two_descriptions_exclude_each_other_even_in_one_process() {
        let ours = unnamed(4096);
        let theirs = again(&ours, true);
        assert!(try_lock(ours.as_fd(), 0).unwrap());
        assert!(try_lock(ours.as_fd(), 0).unwrap(), "taking it again is no conflict");
        assert!(!try_lock(theirs.as_fd(), 0).unwrap());
        assert!(try_lock(theirs.as_fd(), 1).unwrap(), "bytes are separate");
        unlock(ours.as_fd(), 0).unwrap();
        assert!(try_lock(theirs.as_fd(), 0).unwrap());
    }

    #[test]
    fn closing_another_descriptor_frees_nothing() {
        let ours = unnamed(4096);
        assert!(try_lock(ours.as_fd(), 0).unwrap());
        drop(again(&ours, true));
        assert!(!try_lock(again(&ours, true).as_fd(), 0).unwrap());
    }

    #[test]
    fn asking_takes_nothing_and_needs_no_permission_to_write() {
        let ours = unnamed(4096);
        let reader = again(&ours, false);
        assert!(!is_locked_by_other(reader.as_fd(), 2).unwrap());
        assert!(try_lock(ours.as_fd(), 2).unwrap());
        assert!(is_locked_by_other(reader.as_fd(), 2).unwrap());
        assert!(!is_locked_by_other(ours.as_fd(), 2).unwrap(), "one's own lock is not another's");
        assert!(!is_locked_by_other(reader.as_fd(), 1).unwrap());
        assert!(try_lock(reader.as_fd(), 1).is_err(), "taking does need it");
    }
}
