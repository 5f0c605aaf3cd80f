//! Locks that tell who is alive: bytes of a file, held by an open file description.
//!
//! The kernel frees such a lock when the last descriptor *or mapping* of the description is gone,
//! whichever way its process ends, and not before. So a [`Mapping`](super::map::Mapping) keeps what
//! was locked through the [`File`] that it was made from, and no descriptor has to stay open. It must
//! never use the classic record locks (`F_SETLK`): those belong to the process and vanish when *any*
//! descriptor of the file is closed in it.
//!
//! Hazard: a duplicate of the descriptor, in this process or a forked child, keeps the lock.
//! `fork.rs` closes the child's.

use std::ops::Range;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::repeat;
use super::shm::File;
use crate::error::Result;

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// By one description, and by no other in any way. The file must be open for writing.
    Alone,
    /// By any number of descriptions.
    Shared,
}

/// Takes the lock on all these bytes, or on none; `false` if somebody else has one of them. What
/// this description has already is taken over, and changed to `hold`.
pub(crate) fn try_lock(file: &File, bytes: Range<u64>, hold: Hold) -> Result<bool> {
    let kind = match hold {
        Hold::Alone => libc::F_WRLCK,
        Hold::Shared => libc::F_RDLCK,
    };
    let (fd, range) = (file.fd()?, range_of(file, bytes, kind)?);
    match repeat(|| fcntl(fd, FcntlArg::F_OFD_SETLK(&range))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(file.error("lock", errno)),
    }
}

/// Gives the lock back. Not having it is no error.
pub(crate) fn unlock(file: &File, bytes: Range<u64>) -> Result<()> {
    let (fd, range) = (file.fd()?, range_of(file, bytes, libc::F_UNLCK)?);
    match repeat(|| fcntl(fd, FcntlArg::F_OFD_SETLK(&range))) {
        Ok(_) => Ok(()),
        Err(errno) => Err(file.error("lock", errno)),
    }
}

/// Whether a description other than this one has any of the bytes, in whichever way. Asking takes
/// nothing, so a file open for reading is enough.
pub(crate) fn is_locked(file: &File, bytes: Range<u64>) -> Result<bool> {
    let (fd, mut range) = (file.fd()?, range_of(file, bytes, libc::F_WRLCK)?);
    match repeat(|| fcntl(fd, FcntlArg::F_OFD_GETLK(&mut range))) {
        Ok(_) => Ok(i32::from(range.l_type) != libc::F_UNLCK),
        Err(errno) => Err(file.error("lock", errno)),
    }
}

fn range_of(file: &File, bytes: Range<u64>, kind: libc::c_int) -> Result<libc::flock> {
    // For the kernel a length of zero is all the rest of the file.
    assert!(bytes.start < bytes.end, "no bytes to lock");
    let place = libc::off_t::try_from(bytes.start).ok().zip(bytes.end.try_into().ok());
    let (start, end): (libc::off_t, libc::off_t) =
        place.ok_or_else(|| file.error("lock", Errno::EOVERFLOW))?;
    Ok(libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: end - start,
        l_pid: 0, // required: this kind of lock has no process
    })
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;

    use super::super::map::Mapping;
    use super::super::testing::{again, idle_child, unnamed};
    use super::*;

    #[test]
    fn two_descriptions_exclude_each_other_even_in_one_process() {
        let ours = unnamed(4096);
        let theirs = again(&ours, true);
        assert!(try_lock(&ours, 0..1, Hold::Alone).unwrap());
        assert!(try_lock(&ours, 0..1, Hold::Alone).unwrap(), "taking it again is no conflict");
        assert!(!try_lock(&theirs, 0..1, Hold::Alone).unwrap());
        assert!(!try_lock(&theirs, 0..1, Hold::Shared).unwrap());
        assert!(try_lock(&theirs, 1..2, Hold::Alone).unwrap(), "bytes are separate");
        unlock(&ours, 0..1).unwrap();
        assert!(try_lock(&theirs, 0..1, Hold::Alone).unwrap());
    }

    #[test]
    fn a_range_is_taken_whole_or_not_at_all() {
        let ours = unnamed(4096);
        let (theirs, third) = (again(&ours, true), again(&ours, true));
        assert!(try_lock(&theirs, 6..7, Hold::Alone).unwrap());
        assert!(!try_lock(&ours, 4..8, Hold::Alone).unwrap());
        for byte in [4, 5, 7] {
            assert!(!is_locked(&third, byte..byte + 1).unwrap(), "byte {byte}");
        }
        assert!(is_locked(&third, 0..64).unwrap());
        unlock(&theirs, 6..7).unwrap();
        assert!(try_lock(&ours, 4..8, Hold::Alone).unwrap());
        assert!(is_locked(&third, 7..8).unwrap());
        assert!(!is_locked(&third, 8..64).unwrap());
        assert!(!is_locked(&third, 0..4).unwrap());
    }

    #[test]
    fn many_share_what_nobody_has_alone() {
        let ours = unnamed(4096);
        let (theirs, third) = (again(&ours, false), again(&ours, true));
        assert!(try_lock(&ours, 3..4, Hold::Shared).unwrap());
        assert!(try_lock(&theirs, 3..4, Hold::Shared).unwrap(), "reading is enough to share");
        assert!(is_locked(&third, 3..4).unwrap());
        assert!(!try_lock(&ours, 3..4, Hold::Alone).unwrap());
        unlock(&theirs, 3..4).unwrap();
        assert!(try_lock(&ours, 3..4, Hold::Alone).unwrap(), "the last one may have it alone");
    }

    #[test]
    fn closing_another_descriptor_frees_nothing() {
        let ours = unnamed(4096);
        assert!(try_lock(&ours, 0..1, Hold::Alone).unwrap());
        drop(again(&ours, true));
        assert!(!try_lock(&again(&ours, true), 0..1, Hold::Alone).unwrap());
    }

    #[test]
    fn asking_takes_nothing_and_needs_no_permission_to_write() {
        let ours = unnamed(4096);
        let reader = again(&ours, false);
        assert!(!is_locked(&reader, 2..3).unwrap());
        assert!(try_lock(&ours, 2..3, Hold::Alone).unwrap());
        assert!(is_locked(&reader, 2..3).unwrap());
        assert!(!is_locked(&ours, 2..3).unwrap(), "one's own lock is not another's");
        assert!(!is_locked(&reader, 1..2).unwrap());
        assert!(try_lock(&reader, 1..2, Hold::Alone).is_err(), "taking it alone does need it");
    }

    #[test]
    fn bytes_beyond_all_files_are_an_error() {
        let ours = unnamed(4096);
        assert!(try_lock(&ours, u64::MAX - 1..u64::MAX, Hold::Alone).is_err());
    }

    /// Waits for what a child that some test beside this one forked may put off for a moment.
    fn becomes_free(file: &File, bytes: Range<u64>) -> bool {
        let deadline = super::super::clock::monotonic_ns() + 5_000_000_000;
        while is_locked(file, bytes.clone()).unwrap() {
            if super::super::clock::monotonic_ns() > deadline {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// What the whole library stands on: no descriptor is left, and the lock is.
    #[test]
    fn the_mapping_is_the_lock() {
        let ours = unnamed(4096);
        let other = again(&ours, true);
        assert!(try_lock(&ours, 0..1, Hold::Alone).unwrap());
        let map = Mapping::shared(&ours, 0, 4096, true).unwrap();
        drop(ours);
        assert!(is_locked(&other, 0..1).unwrap());
        drop(map);
        assert!(becomes_free(&other, 0..1));
    }

    /// While a child lives that was forked with all of it open, the parent's lock must be able to
    /// end: neither the descriptor nor the mapping may be in the child.
    #[test]
    fn a_living_child_does_not_keep_the_parents_lock() {
        let ours = unnamed(4096);
        let other = again(&ours, true);
        assert!(try_lock(&ours, 0..1, Hold::Alone).unwrap());
        let maps = [true, false].map(|writable| Mapping::shared(&ours, 0, 4096, writable).unwrap());
        let child = idle_child();
        drop(ours);
        drop(maps);
        let is_free = becomes_free(&other, 0..1);
        kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
        assert!(is_free, "the child kept the lock");
    }
}
