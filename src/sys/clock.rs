//! The clocks, in nanoseconds, and sleeping by them.
//!
//! Decisions use [`monotonic_ns`], which stands still while the machine sleeps and never jumps.
//! [`wall_ns`] is for people and must never decide anything.

pub(crate) use std::time::Instant;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time that this machine was awake.
pub(crate) fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Time since 1970, as somebody set it.
pub(crate) fn wall_ns() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}

/// Does nothing for this long, or a little longer.
pub(crate) fn sleep(time: Duration) {
    std::thread::sleep(time);
}

// Seconds have another width on other machines.
#[allow(clippy::unnecessary_cast)]
fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("both clocks are part of every Linux");
    (now.tv_sec() as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn they_advance_and_count_nanoseconds() {
        let (ours, start) = (monotonic_ns(), Instant::now());
        sleep(Duration::from_millis(2));
        assert!(monotonic_ns() - ours >= 2_000_000);
        assert!(start.elapsed() >= Duration::from_millis(2));
    }

    #[test]
    fn the_wall_clock_is_that_of_the_library() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let ours = u128::from(wall_ns());
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        assert!((before..=after).contains(&ours));
    }
}
