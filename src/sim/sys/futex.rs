//! Sleeping on a word. A word in a file is the same for all; any other belongs to one process.

use std::time::Duration;

use super::super::calls::Call;
use super::super::world::{On, step_with, wait as wait_on, with};
use crate::sync::{AtomicU32, Ordering};

/// Sleeps while the word is `expected`, no longer than `timeout`. `false` means the time is up.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) -> bool {
    step_with(Call::FutexWait, || format!("{expected} for {timeout:?}"));
    // Compared and asleep in one step.
    if word.quietly().load(Ordering::SeqCst) != expected {
        return true;
    }
    let until = with(|world| world.now_ns.saturating_add(super::clock::nanos(timeout)));
    wait_on(On::Word(address(word)), until)
}

/// Wakes up to `count` sleepers; how many it were.
pub(crate) fn wake(word: &AtomicU32, count: i32) -> usize {
    step_with(Call::FutexWake, String::new);
    with(|world| world.wake(On::Word(address(word)), usize::try_from(count).unwrap_or(0)))
}

fn address(word: &AtomicU32) -> usize {
    std::ptr::from_ref(word).addr()
}
