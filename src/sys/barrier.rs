//! Asymmetric barriers: nothing on the busy side, one system call on the rare one.
//!
//! Both make every running thread of other processes pass a full memory barrier, so a thread over
//! there that only did [`light_barrier`](crate::sync::light_barrier) is ordered as if it had executed
//! a fence.
//!
//! - [`global`] reaches every thread of the machine, and takes 10 to 20 ms.
//! - [`heavy`] reaches every *registered* process in microseconds, with a hole: registering does not
//!   reach a core that is idle and still has the memory of this process loaded. If a thread of this
//!   process is the next to run there, that core is passed over, until another process has run on
//!   it. Found by a test that missed 0 to 5 of 100,000 rounds (Linux 6.18).
//!
//! So what must never be missed uses `global`; `heavy` is for what may be missed once in a long while,
//! because somebody looks again soon. After either said `false` nothing is ordered.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::fork;

const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

/// Lets the heavy side of other processes reach this one. Once per process: exec forgets it, and
/// whether a fork keeps it is nowhere promised, so a child registers again.
pub(crate) fn register() -> bool {
    static REGISTERED: AtomicU32 = AtomicU32::new(0);
    let generation = fork::generation();
    // Relaxed: the word says only that the call was made, it publishes nothing.
    if REGISTERED.load(Ordering::Relaxed) == generation {
        return true;
    }
    let done = membarrier(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0;
    if done {
        REGISTERED.store(generation, Ordering::Relaxed);
    }
    done
}

/// The quick one, with the hole; `false` if the kernel refused.
pub(crate) fn heavy() -> bool {
    membarrier(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0
}

/// The sure one; `false` if the kernel refused.
pub(crate) fn global() -> bool {
    membarrier(libc::MEMBARRIER_CMD_GLOBAL) == 0
}

/// Whether the kernel offers both commands. Asked once; a filter set up later may still refuse.
pub(crate) fn available() -> bool {
    static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);
    // Relaxed: asking twice gives the same answer twice.
    match KNOWN.load(Ordering::Relaxed) {
        UNKNOWN => {
            let offered = ask();
            KNOWN.store(if offered { YES } else { NO }, Ordering::Relaxed);
            offered
        }
        known => known == YES,
    }
}

fn ask() -> bool {
    let needed =
        libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED | libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
    let offered = membarrier(libc::MEMBARRIER_CMD_QUERY);
    offered >= 0 && offered & libc::c_long::from(needed) == libc::c_long::from(needed)
}

fn membarrier(command: libc::c_int) -> libc::c_long {
    // SAFETY: three integers; the call touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::super::testing::child_agrees;
    use super::*;

    #[test]
    fn what_is_offered_works_here_and_in_a_child() {
        assert_eq!(available(), ask());
        assert_eq!(available(), ask(), "the remembered answer is the same");
        assert_eq!(register(), available());
        assert_eq!(heavy(), available());
        assert!(child_agrees(|| register() == available() && heavy() == available()));
    }

    const ROUNDS: u64 = 100;

    /// One side of the contest, on cache lines of its own: the round it is ready for, and its flag.
    #[derive(Default)]
    #[repr(align(128))]
    struct Side {
        ready: AtomicU64,
        flag: AtomicU64,
    }

    /// In each round raises the own flag, passes the barrier and looks at the other's: all it saw.
    fn contest(ours: &Side, theirs: &Side, barrier: fn()) -> Vec<u64> {
        let round = |round| {
            ours.ready.store(round, Ordering::Release);
            let mut spins = 0;
            while theirs.ready.load(Ordering::Acquire) < round {
                spins += 1;
                if spins % 1000 == 0 {
                    thread::yield_now();
                }
            }
            ours.flag.store(round, Ordering::Relaxed);
            barrier();
            theirs.flag.load(Ordering::Relaxed)
        };
        (1..=ROUNDS).map(round).collect()
    }

    /// How often neither side saw the other's flag.
    fn misses(busy: fn(), rare: fn()) -> usize {
        let (left, right) = (Side::default(), Side::default());
        let (left_saw, right_saw) = thread::scope(|scope| {
            let other = scope.spawn(|| contest(&left, &right, busy));
            let right_saw = contest(&right, &left, rare);
            (other.join().unwrap(), right_saw)
        });
        (1..)
            .zip(left_saw.iter().zip(&right_saw))
            .filter(|&(round, (a, b))| *a < round && *b < round)
            .count()
    }

    #[test]
    fn light_against_global_never_misses_both() {
        if global() {
            assert_eq!(misses(crate::sync::light_barrier, || assert!(global())), 0);
        }
    }
}
