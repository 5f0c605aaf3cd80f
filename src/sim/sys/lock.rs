//! Locks on ranges of bytes, held by open file descriptions.

use std::ops::Range;

use super::super::calls::Call;
use super::super::world::with;
use super::ask;
use super::shm::File;
use crate::error::Result;

/// Whether others may hold the same bytes in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Alone,
    Shared,
}

/// Takes the lock on all of the bytes or none; false if somebody else is in the way.
pub(crate) fn try_lock(file: &File, bytes: Range<u64>, hold: Hold) -> Result<bool> {
    ask(Call::TryLock, "lock", format_args!("{file} {bytes:?} {hold:?}"), || {
        with(|world| {
            let who = world.who();
            let fd = file.check(&world.kernel, who)?;
            world.kernel.try_lock(who, fd, bytes.clone(), hold == Hold::Shared)
        })
    })
}

/// Gives the lock back. Not having it is no error.
pub(crate) fn unlock(file: &File, bytes: Range<u64>) -> Result<()> {
    ask(Call::Unlock, "lock", format_args!("{file} {bytes:?}"), || {
        with(|world| {
            let who = world.who();
            let fd = file.check(&world.kernel, who)?;
            world.kernel.unlock(who, fd, bytes.clone())
        })
    })
}

/// Whether anybody but this description has a lock there, of whichever kind.
pub(crate) fn is_locked(file: &File, bytes: Range<u64>) -> Result<bool> {
    ask(Call::IsLocked, "lock", format_args!("{file} {bytes:?}"), || {
        with(|world| {
            let who = world.who();
            let fd = file.check(&world.kernel, who)?;
            world.kernel.is_locked(who, fd, &bytes)
        })
    })
}
