//! The steps that a process takes: one name for each call of `sys`, and for an access to a word.

/// What a task is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Call {
    Begin,
    Load,
    Store,
    Mutex,
    CreateUnnamed,
    Allocate,
    Punch,
    Link,
    Open,
    Facts,
    FactsAt,
    ReadAt,
    Rename,
    Unlink,
    NamesIn,
    Close,
    TryLock,
    Unlock,
    IsLocked,
    Map,
    Prefault,
    LockMemory,
    HugePages,
    Unmap,
    Now,
    Sleep,
    FutexWait,
    FutexWake,
    Register,
    Heavy,
    Global,
    Available,
    Process,
    IsRunning,
    Random,
    Spawn,
    OwnDescriptors,
    Watch,
    WaitForDeaths,
    Guard,
    Failpoint,
    Outside,
}

pub(super) const CALLS: usize = Call::Outside as usize + 1;

use Call::*;

/// All of them, in order.
pub(super) const ALL: [Call; CALLS] = [
    Begin,
    Load,
    Store,
    Mutex,
    CreateUnnamed,
    Allocate,
    Punch,
    Link,
    Open,
    Facts,
    FactsAt,
    ReadAt,
    Rename,
    Unlink,
    NamesIn,
    Close,
    TryLock,
    Unlock,
    IsLocked,
    Map,
    Prefault,
    LockMemory,
    HugePages,
    Unmap,
    Now,
    Sleep,
    FutexWait,
    FutexWake,
    Register,
    Heavy,
    Global,
    Available,
    Process,
    IsRunning,
    Random,
    Spawn,
    OwnDescriptors,
    Watch,
    WaitForDeaths,
    Guard,
    Failpoint,
    Outside,
];

const _: () = {
    let mut index = 0;
    while index < CALLS {
        assert!(ALL[index] as usize == index);
        index += 1;
    }
};

impl Call {
    /// With what the system may refuse it, out of the blue. What follows from the state of the
    /// simulated kernel (no such file, not allowed) is not listed: that comes by itself.
    pub fn refusals(self) -> &'static [i32] {
        match self {
            CreateUnnamed => &[
                libc::EMFILE,
                libc::ENFILE,
                libc::ENOMEM,
                libc::ENOSPC,
                libc::EACCES,
                libc::EOPNOTSUPP,
            ],
            Allocate => &[libc::ENOSPC, libc::ENOMEM, libc::EFBIG, libc::EOPNOTSUPP],
            Punch => &[libc::EOPNOTSUPP, libc::ENOMEM],
            Link => &[libc::ENOSPC, libc::EACCES, libc::EPERM, libc::ENOMEM, libc::EMLINK],
            Open => &[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EACCES],
            Facts => &[libc::EIO],
            FactsAt => &[libc::ENOMEM, libc::EACCES],
            ReadAt => &[libc::EIO, libc::ENOMEM],
            Rename => &[libc::EACCES, libc::EPERM, libc::ENOSPC, libc::ENOMEM, libc::EINVAL],
            Unlink => &[libc::EACCES, libc::EPERM, libc::EBUSY, libc::ENOMEM],
            NamesIn => &[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EACCES],
            TryLock | Unlock | IsLocked => &[libc::ENOLCK, libc::EIO],
            Map => &[libc::ENOMEM, libc::EAGAIN, libc::ENFILE, libc::EPERM],
            Prefault => &[libc::ENOMEM, libc::EFAULT],
            LockMemory | HugePages => &[libc::ENOMEM, libc::EPERM],
            Register | Heavy | Global => &[libc::EPERM],
            Spawn => &[libc::EAGAIN, libc::ENOMEM],
            OwnDescriptors => &[libc::EPERM],
            Watch => &[libc::EMFILE, libc::ENOSYS],
            _ => &[],
        }
    }

    /// How much nearer it brings the next event: words are many, calls are where things go wrong.
    pub fn weight(self) -> i64 {
        match self {
            Load | Store | Mutex | Now | Process => 1,
            _ => 6,
        }
    }
}
