//! An asymmetric barrier: nothing on the busy side, one system call on the rare one.
//!
//! [`heavy`] makes every running thread of every *registered* process pass a full memory barrier,
//! so a thread over there that only did [`light`] is ordered as if it had executed a fence. It
//! must never be relied on towards a process that did not [`register`], nor after `heavy` said
//! `false`: both sides must then use a real `fence(SeqCst)`.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering, compiler_fence};

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

/// The rare side; `false` if the kernel refused, and then nothing is ordered.
pub(crate) fn heavy() -> bool {
    membarrier(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0
}

/// The busy side: keeps the compiler from moving anything, and the processor free to.
#[inline]
pub(crate) fn light() {
    compiler_fence(Ordering::SeqCst);
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
    use std::sync::atomic::AtomicBool;
    use std::sync::{Barrier, atomic::AtomicU64};
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

    /// Store, barrier, load on both sides: without order both may read the old value. (The light
    /// side alone does so within a few hundred rounds.)
    #[test]
    fn light_against_heavy_never_misses_both() {
        if !(available() && register()) {
            return;
        }
        let (left, right) = (AtomicU64::new(0), AtomicU64::new(0));
        let (meet, failed) = (Barrier::new(2), AtomicBool::new(false));
        let (mut busy, mut rare) = (vec![0; 3000], vec![0; 3000]);
        thread::scope(|scope| {
            scope.spawn(|| {
                for (round, seen) in busy.iter_mut().enumerate() {
                    meet.wait();
                    left.store(round as u64 + 1, Ordering::Relaxed);
                    light();
                    *seen = right.load(Ordering::Relaxed);
                }
            });
            for (round, seen) in rare.iter_mut().enumerate() {
                meet.wait();
                right.store(round as u64 + 1, Ordering::Relaxed);
                failed.fetch_or(!heavy(), Ordering::Relaxed);
                *seen = left.load(Ordering::Relaxed);
            }
        });
        assert!(!failed.into_inner());
        for (round, (busy, rare)) in busy.iter().zip(&rare).enumerate() {
            assert!(*busy > round as u64 || *rare > round as u64, "both missed in round {round}");
        }
    }
}
