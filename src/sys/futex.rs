//! Sleeping on a word of shared memory, and waking those who do.
//!
//! The word is found by the file it lies in, not by its address, so that two processes meet there.
//! It must never use the private variant, which is faster and wakes nobody in another process.

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::errno::Errno;

/// Sleeps while the word is `expected`, no longer than `timeout`. `false` means the time is up;
/// `true` means look again: woken, changed, interrupted, or (with the file truncated under it) no
/// longer a word to sleep on, which looking again will find out.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) -> bool {
    let limit = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as _, // under 10^9, fits whatever the width
    };
    // SAFETY: `word` and `limit` live across the call, which only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            ptr::from_ref(&limit),
        )
    };
    result != -1 || Errno::last() != Errno::ETIMEDOUT
}

/// Wakes up to `count` sleepers; how many it were.
pub(crate) fn wake(word: &AtomicU32, count: i32) -> i32 {
    // SAFETY: waking uses the address only to find the sleepers.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    i32::try_from(woken).unwrap_or(0).max(0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::thread;
    use std::time::Instant;

    use super::super::map::Mapping;
    use super::super::testing::unnamed;
    use super::*;

    #[test]
    fn a_changed_word_does_not_sleep_and_time_runs_out() {
        let word = AtomicU32::new(1);
        assert!(wait(&word, 0, Duration::from_secs(60)));
        let start = Instant::now();
        assert!(!wait(&word, 1, Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
        assert_eq!(wake(&word, 1), 0);
    }

    /// The same file mapped twice has two addresses and one word, as in two processes; a private
    /// futex fails this.
    #[test]
    fn a_sleeper_is_woken_through_another_mapping() {
        let file = unnamed(4096);
        let here = Mapping::shared(&file, 0, 4096, true).unwrap();
        let there = Mapping::shared(&file, 0, 4096, true).unwrap();
        // SAFETY: mapped, aligned to a page, and used only through atomics while `here` lives.
        let mine = unsafe { AtomicU32::from_ptr(here.as_ptr().cast()) };
        // SAFETY: as above, with `there`.
        let theirs = unsafe { AtomicU32::from_ptr(there.as_ptr().cast()) };
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| wait(mine, 0, Duration::from_secs(60)));
            // The word never changes: only a real wake-up ends the sleep.
            while wake(theirs, 1) == 0 {
                thread::yield_now();
            }
            assert!(sleeper.join().unwrap());
        });
        assert_eq!(mine.load(Ordering::Relaxed), 0);
    }
}
