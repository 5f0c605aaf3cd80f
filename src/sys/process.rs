//! Who a process is.
//!
//! Numbers for people to read, and a descriptor that becomes readable when a process ends. It
//! must never be asked whether a process is alive: numbers are used again, and mean something
//! else in another namespace. `lock.rs` answers that.

use std::fs;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::unistd::geteuid;

use super::fork;

/// Where the start time is in `/proc/<pid>/stat`: field 22, counted from 1, and the name in
/// parentheses is field 2.
const START_AFTER_NAME: usize = 22 - 3;
/// The same for the size of its memory, field 23.
const MEMORY_AFTER_NAME: usize = 23 - 3;

/// The number of this process, in its own namespace.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// The user whose rights this process has.
pub(crate) fn effective_uid() -> u32 {
    geteuid().as_raw()
}

/// When a process was started, in clock ticks since the machine was; 0 if it is not known.
pub(crate) fn start_time(pid: u32) -> u64 {
    fs::read(format!("/proc/{pid}/stat")).ok().and_then(|stat| start_in(&stat)).unwrap_or(0)
}

/// Whether a process that started then still has memory of its own; a zombie has none, and neither
/// has one that is so far into its exit that its locks are free.
pub(crate) fn is_running(pid: u32, started: u64) -> bool {
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { return false };
    let memory: u64 = field_of(&stat, MEMORY_AFTER_NAME).unwrap_or(0);
    memory > 0 && start_in(&stat) == Some(started)
}

/// The name of a process may hold spaces, parentheses and any byte, but nothing after it may hold
/// a parenthesis: the last one ends it.
fn start_in(stat: &[u8]) -> Option<u64> {
    field_of(stat, START_AFTER_NAME)
}

fn field_of(stat: &[u8], after_name: usize) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[end + 1..]).ok()?;
    fields.split_whitespace().nth(after_name)?.parse().ok()
}

/// When this process was started. Asked once: reading it is dearer than all else in opening a bus.
pub(crate) fn own_start_time() -> u64 {
    static STARTED: Remembered = Remembered::new();
    STARTED.get(|| start_time(pid()))
}

/// The namespace in which [`pid`] means something; 0 if it is not known.
pub(crate) fn pid_namespace() -> u64 {
    static NAMESPACE: Remembered = Remembered::new();
    NAMESPACE.get(|| fs::metadata("/proc/self/ns/pid").map_or(0, |facts| facts.ino()))
}

/// A number that stays the same for the life of a process, and may be another one in its child.
struct Remembered {
    value: AtomicU64,
    asked_by: AtomicU32,
}

impl Remembered {
    const fn new() -> Self {
        Remembered { value: AtomicU64::new(0), asked_by: AtomicU32::new(0) }
    }

    fn get(&self, ask: impl Fn() -> u64) -> u64 {
        let generation = fork::generation();
        // Acquire, with the release below: who sees the generation sees its answer.
        if self.asked_by.load(Ordering::Acquire) == generation {
            return self.value.load(Ordering::Relaxed);
        }
        let found = ask();
        self.value.store(found, Ordering::Relaxed);
        self.asked_by.store(generation, Ordering::Release);
        found
    }
}

/// A descriptor that stands for a process. Should it be closed behind our back and its number used
/// again, it is left alone.
pub(crate) struct PidFd(ManuallyDrop<OwnedFd>);

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for PidFd {
    fn drop(&mut self) {
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let is_ours = fs::read_link(path).is_ok_and(|link| link.ends_with("anon_inode:[pidfd]"));
        if is_ours {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// A descriptor, closed on exec, that becomes readable when the process ends; `None` if there is
/// no such process here or the kernel has no such call.
pub(crate) fn open_pidfd(pid: u32) -> Option<PidFd> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: two integers; the call touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: just made, and nobody else knows it.
    Some(PidFd(ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) })))
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::super::testing::child_agrees;
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_fools_nobody() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["sh", "a b", ") 1 2 3", "((", ""] {
            assert_eq!(start_in(format!("77 ({name}) {rest}\n").as_bytes()), Some(4711), "{name}");
        }
        assert_eq!(start_in(b"77 (\xff) S 1 2"), None);
        assert_eq!(start_in(b""), None);
    }

    #[test]
    fn the_start_of_this_process_is_known_and_of_none_is_not() {
        let ours = start_time(pid());
        assert!(ours > 0);
        assert!(start_time(1) <= ours, "the first process is not younger");
        assert_eq!(start_time(u32::MAX), 0);
    }

    #[test]
    fn the_namespace_is_remembered() {
        let link = fs::read_link("/proc/self/ns/pid").unwrap();
        let expected = format!("pid:[{}]", pid_namespace());
        assert_eq!(link.to_str(), Some(expected.as_str()));
        let ours = pid_namespace();
        assert!(child_agrees(|| pid_namespace() == ours));
    }

    #[test]
    fn a_descriptor_stands_for_a_process() {
        let fd = open_pidfd(pid()).expect("this process is there");
        let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).unwrap();
        assert_eq!(link.to_str(), Some("anon_inode:[pidfd]"), "or it would never be closed");
        let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
        assert!(open_pidfd(0).is_none());
        assert!(open_pidfd(u32::MAX).is_none());
    }
}
