//! Waiting: spin a little, then sleep in the kernel.
//!
//! The sleeper's side of the doorbell (`ring/doorbell.rs`): announce, heavy barrier, look again,
//! and only then wait, for at most [`LONGEST_PARK`], so that not even a wake-up that nobody could
//! send (its sender was killed between commit and wake) delays a message for longer.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::Lease;
use crate::config::{Role, Wait};
use crate::layout::{REGISTERED, ROLE_ABSENT};
use crate::ring::{Bell, LOOK, SEALED, SLEEP};
use crate::segment::Segment;
use crate::sync::{AtomicU64, Ordering};
use crate::sys::clock::Instant;
use crate::sys::{barrier, cores, futex, thread};

/// No sleep is longer without a look.
const LONGEST_PARK: Duration = Duration::from_millis(50);
/// The first sleep of a call is shorter: the quick barrier passes over a core once in a long while
/// (see `sys/barrier.rs`), and a ring that is missed for that reason costs no more than this.
const FIRST_NAP: Duration = Duration::from_millis(1);
/// Without a background thread the sleeper itself must beat and watch.
const PARK_BY_HAND: Duration = Duration::from_millis(1);
/// Looks before sleeping; some tens of microseconds.
const SPINS: u32 = 2000;
/// Spins in a row that ended in sleep, after which most are left out: the messages are rare, or the
/// peer needs this very core.
const FRUITLESS_MOST: u32 = 8;
/// Of those, each of so many is tried all the same.
const TRY_EVERY: u32 = 32;
/// Looks between two looks at the clock.
const SPINS_PER_CLOCK: u32 = 64;

/// How a call waits, and for how long still.
pub(super) struct Waiter {
    wait: Wait,
    timeout: Duration,
    /// Known when something was waited for.
    deadline: Option<Instant>,
    /// Once per call: whoever slept and was woken for nothing sleeps on.
    has_spun: bool,
    has_napped: bool,
}

/// On which bell, in which segment, a half sleeps, and where it is called.
pub(super) struct Bed<'a> {
    /// The peer rings it.
    pub bell: Bell<'a>,
    /// The half's own attention: the sealer and the background thread ring it.
    pub attention: Bell<'a>,
    pub segment: &'a Segment,
    /// Who rings.
    pub peer: Role,
    /// Counts the sleeps.
    pub parks: &'a AtomicU64,
    /// How often this half has spun in vain, since it last did not.
    pub fruitless: &'a Cell<u32>,
}

impl Waiter {
    /// For a call that may take this long.
    pub(super) fn new(wait: Wait, timeout: Duration) -> Self {
        Waiter { wait, timeout, deadline: None, has_spun: false, has_napped: false }
    }

    /// Whether nothing was waited for yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.deadline.is_none()
    }

    /// Waits until `is_ready`, or something else calls for a look. False when the time is up. Most
    /// looks while spinning are cheap ones; a thorough one comes before sleep.
    pub(super) fn wait(
        &mut self,
        lease: &Lease,
        bed: &Bed<'_>,
        is_ready: impl FnMut(bool) -> bool,
    ) -> bool {
        let left = self.left();
        if left.is_zero() {
            return false;
        }
        if !lease.options.background {
            lease.beat();
            lease.observe_if_due();
        }
        match self.wait {
            Wait::Spin => drop(spin(is_ready, bed, self.deadline)),
            Wait::Adaptive if !self.has_spun && cores::online() > 1 => {
                self.has_spun = true;
                self.spin_if_it_pays(is_ready, bed);
            }
            _ => {
                let longest = if self.has_napped { LONGEST_PARK } else { FIRST_NAP };
                self.has_napped = true;
                park(lease, bed, left.min(longest), is_ready);
            }
        }
        true
    }

    /// Spins, unless that was in vain again and again. Without it the next wait is a sleep.
    fn spin_if_it_pays(&self, is_ready: impl FnMut(bool) -> bool, bed: &Bed<'_>) {
        let fruitless = bed.fruitless.get();
        let pays = fruitless < FRUITLESS_MOST || fruitless.is_multiple_of(TRY_EVERY);
        let is_over = pays && spin(is_ready, bed, self.deadline);
        bed.fruitless.set(if is_over { 0 } else { fruitless.wrapping_add(1) });
    }

    /// The time that is left, counted from the first question on.
    fn left(&mut self) -> Duration {
        let now = Instant::now();
        // A time that no clock reaches is no limit.
        let Some(end) = self.deadline.or_else(|| now.checked_add(self.timeout)) else {
            return LONGEST_PARK;
        };
        self.deadline = Some(end);
        end.saturating_duration_since(now)
    }
}

/// Looks again and again for a short while. True if there was something.
fn spin(mut is_ready: impl FnMut(bool) -> bool, bed: &Bed<'_>, deadline: Option<Instant>) -> bool {
    for turn in 1..=SPINS {
        // Relaxed: only a reason to look closer.
        let is_called = bed.attention.0.load(Ordering::Relaxed) & (SEALED | LOOK) != 0;
        if is_ready(turn % SPINS_PER_CLOCK == 0) || is_called {
            return true;
        }
        std::hint::spin_loop();
        if turn % SPINS_PER_CLOCK == 0 {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            if cores::online() == 1 {
                // The peer needs this very core.
                thread::yield_now();
            }
        }
    }
    false
}

/// Whether a barrier reaches whoever rings. Whoever comes later and cannot be reached sets FENCE
/// itself; asking for it on behalf of nobody would slow down all who come, for as long as the bell.
fn is_reached(bed: &Bed<'_>) -> bool {
    let peer = bed.segment.role(bed.peer);
    // pairs BEAT: acquire, what the owner can do is noted before the state.
    let is_absent = peer.state.load(Ordering::Acquire) == ROLE_ABSENT;
    // Relaxed: behind the acquire above.
    is_absent || peer.capabilities.load(Ordering::Relaxed) & REGISTERED != 0
}

/// Sleeps until the peer rings, or for a while.
fn park(lease: &Lease, bed: &Bed<'_>, left: Duration, mut is_ready: impl FnMut(bool) -> bool) {
    let has_barrier = is_reached(bed) && barrier::available();
    bed.bell.announce_sleep(!has_barrier);
    if has_barrier && !barrier::heavy() {
        // Refused after all: the other side must fence from now on.
        bed.bell.announce_sleep(true);
    }
    let is_ready = is_ready(true);
    // Relaxed: the kernel compares again.
    let value = bed.bell.0.load(Ordering::Relaxed);
    // pairs SEAL, DOORBELL: behind the barrier, what was rung before it is seen.
    let is_called = (value | bed.attention.0.load(Ordering::Relaxed)) & (SEALED | LOOK) != 0;
    // This process's own background thread takes the announcement back too, when it has news. Then
    // nobody would wake this sleeper.
    let is_announced = value & SLEEP != 0;
    if is_announced && !is_ready && !is_called {
        let longest = if lease.options.background { LONGEST_PARK } else { PARK_BY_HAND };
        // Relaxed: a figure of this side alone.
        bed.parks.store(bed.parks.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        futex::wait(bed.bell.0, value, left.min(longest));
    }
    bed.bell.take_sleep();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[test]
    fn who_is_not_announced_any_more_does_not_sleep() {
        let name = format!("unit-waiter-{}", std::process::id());
        let bus = Options::new(&name).role(Role::Master).open().unwrap();
        let lease = &bus.writer.lease;
        let seat = lease.seat().unwrap();
        let ring = seat.segment.ring(lease.role.peer().writes());
        let parks = AtomicU64::new(0);
        let bed = Bed {
            bell: ring.data_bell(),
            attention: ring.room_bell(),
            segment: &seat.segment,
            peer: Role::Slave,
            parks: &parks,
            fruitless: &Cell::new(0),
        };
        let soon = Duration::from_millis(1);
        park(lease, &bed, soon, |_| {
            bed.bell.take_sleep();
            false
        });
        assert_eq!(parks.load(Ordering::Relaxed), 0);
        park(lease, &bed, soon, |_| false);
        assert_eq!(parks.load(Ordering::Relaxed), 1);
    }

    /// Who waits for a peer that never came asks nobody for fences; a peer that cannot be reached
    /// asks for itself when it comes. Else all that is written later would be slow.
    #[test]
    fn who_waits_for_nobody_asks_for_no_fences() {
        let name = format!("unit-waiter-early-{}", std::process::id());
        let bus = Options::new(&name).role(Role::Master).open().unwrap();
        let lease = &bus.writer.lease;
        let seat = lease.seat().unwrap();
        let ring = seat.segment.ring(lease.role.peer().writes());
        let bed = Bed {
            bell: ring.data_bell(),
            attention: ring.room_bell(),
            segment: &seat.segment,
            peer: Role::Slave,
            parks: &AtomicU64::new(0),
            fruitless: &Cell::new(0),
        };
        park(lease, &bed, Duration::from_millis(1), |_| false);
        let asks = bed.bell.glance() & crate::ring::FENCE != 0;
        assert_eq!(asks, !barrier::available());
    }
}
