//! Locks of open file descriptions, on ranges of bytes.

use std::ops::Range;

use super::{Answer, Kernel, Lock, Who};

impl Lock {
    fn meets(&self, bytes: &Range<u64>) -> bool {
        self.from < bytes.end && bytes.start < self.to
    }
}

impl Kernel {
    /// Takes the lock, in place of what the description had there; false if somebody's is in the way.
    pub fn try_lock(
        &mut self,
        who: Who,
        fd: i32,
        bytes: Range<u64>,
        is_shared: bool,
    ) -> Answer<bool> {
        let owner = self.desc(who, fd)?;
        if !is_shared && !self.descriptions[owner].is_writable {
            return Err(libc::EBADF);
        }
        let locks = &mut self.inodes[self.descriptions[owner].ino].locks;
        let is_in_the_way = |lock: &Lock| {
            lock.owner != owner && lock.meets(&bytes) && !(lock.is_shared && is_shared)
        };
        if locks.iter().any(is_in_the_way) {
            return Ok(false);
        }
        cut_out(locks, owner, &bytes);
        locks.push(Lock { from: bytes.start, to: bytes.end, owner, is_shared });
        Ok(true)
    }

    /// Gives back what the description has there.
    pub fn unlock(&mut self, who: Who, fd: i32, bytes: Range<u64>) -> Answer<()> {
        let owner = self.desc(who, fd)?;
        cut_out(&mut self.inodes[self.descriptions[owner].ino].locks, owner, &bytes);
        Ok(())
    }

    /// Whether any other description has a lock there.
    pub fn is_locked(&self, who: Who, fd: i32, bytes: &Range<u64>) -> Answer<bool> {
        let owner = self.desc(who, fd)?;
        let locks = &self.inodes[self.descriptions[owner].ino].locks;
        Ok(locks.iter().any(|lock| lock.owner != owner && lock.meets(bytes)))
    }
}

/// Takes the range out of what this owner has; what is left on either side stays.
fn cut_out(locks: &mut Vec<Lock>, owner: usize, bytes: &Range<u64>) {
    let mut index = 0;
    while index < locks.len() {
        let lock = locks[index];
        if lock.owner != owner || !lock.meets(bytes) {
            index += 1;
            continue;
        }
        locks.swap_remove(index);
        if lock.from < bytes.start {
            locks.push(Lock { to: bytes.start, ..lock });
        }
        if bytes.end < lock.to {
            locks.push(Lock { from: bytes.end, ..lock });
        }
    }
}
