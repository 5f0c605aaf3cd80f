//! Time, which passes only when somebody makes a step or everybody waits.

use std::time::Duration;

use super::super::calls::Call;
use super::super::world::{On, step, wait, with};

/// Time that this machine was awake.
pub(crate) fn monotonic_ns() -> u64 {
    step(Call::Now);
    with(|world| world.now_ns)
}

/// Time since 1970.
pub(crate) fn wall_ns() -> u64 {
    step(Call::Now);
    with(|world| world.wall_ns)
}

/// Time since the machine was started, its sleep included.
#[allow(dead_code)]
pub(crate) fn boot_ns() -> u64 {
    wall_ns() - 1_600_000_000_000_000_000
}

/// Sleeps, no less than so long.
pub(crate) fn sleep(time: Duration) {
    step(Call::Sleep);
    let until = with(|world| world.now_ns.saturating_add(nanos(time)));
    // Even no time at all lets others run.
    wait(On::Time, until);
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment, as that of the standard library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

#[allow(dead_code)]
impl Instant {
    pub(crate) fn now() -> Instant {
        Instant(monotonic_ns())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(*self)
    }

    pub(crate) fn checked_add(&self, time: Duration) -> Option<Instant> {
        self.0.checked_add(u64::try_from(time.as_nanos()).ok()?).map(Instant)
    }

    pub(crate) fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn duration_since(&self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, time: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(time)))
    }
}
