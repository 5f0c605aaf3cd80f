//! How one side sleeps and the other knows, without a fence in the busy path (DOORBELL, SEAL).
//!
//! ```text
//! sleeper                                     the other side, after each message
//!   bell |= SLEEP                               commit, or store the tail
//!   heavy barrier                               light barrier (a compiler fence)
//!   look again; anything there? then stay up     bell != 0 ?
//!   futex wait while the bell is unchanged         bell &= !SLEEP, futex wake
//! ```
//!
//! Either the sleeper's second look sees the message, or the other side sees the bell: the heavy
//! barrier runs a full fence on the other side's processor, between its store and its load or
//! around both. Where that cannot be (membarrier refused, or the other side not registered for it)
//! the sleeper sets `FENCE`, and the other side fences for itself from then on; so does whoever joins
//! and cannot be reached. It stays for as long as the bell: nobody can tell who else needs it.
//!
//! Each ring has two bells. The data bell is rung by the producer for a sleeping reader, the room
//! bell by the consumer for a sleeping writer. A sealer sets `SEALED` in all of them, so that one
//! load after each operation answers both questions.
#![forbid(unsafe_code)]

use super::Ring;
use crate::sync::{AtomicU32, Ordering, fence, light_barrier};

/// Somebody sleeps on this bell.
pub(crate) const SLEEP: u32 = 1;
/// The segment is being replaced; look at its fate.
pub(crate) const SEALED: u32 = 2;
/// Whoever looks at this bell must run a full fence first.
pub(crate) const FENCE: u32 = 4;
/// The background thread of the looking process has news for it.
pub(crate) const LOOK: u32 = 8;

/// One doorbell.
#[derive(Clone, Copy)]
pub(crate) struct Bell<'a>(pub(crate) &'a AtomicU32);

impl Ring {
    /// The bell on which the reader sleeps.
    #[inline(always)]
    pub(crate) fn data_bell(&self) -> Bell<'_> {
        Bell(&self.lines().data_bell.word)
    }

    /// The bell on which the writer sleeps.
    #[inline(always)]
    pub(crate) fn room_bell(&self) -> Bell<'_> {
        Bell(&self.lines().room_bell.word)
    }
}

impl Bell<'_> {
    /// The glance after each operation: zero in all but rare cases.
    #[inline(always)]
    pub(crate) fn glance(&self) -> u32 {
        light_barrier();
        // pairs DOORBELL, SEAL: relaxed, because the barriers carry the order.
        self.0.load(Ordering::Relaxed)
    }

    /// The thorough look when the glance was not zero.
    #[cold]
    pub(crate) fn look(&self) -> u32 {
        // pairs DOORBELL, SEAL: for a sleeper or sealer that cannot run the heavy barrier here.
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed)
    }

    /// Whether the segment is being replaced. If not, the sealer's scan sees all that was stored here
    /// before, and all that was seen.
    #[inline]
    pub(crate) fn is_sealed(&self) -> bool {
        self.glance() != 0 && self.look() & SEALED != 0
    }

    /// Announces sleep. The caller runs the heavy barrier and looks again before it waits.
    pub(crate) fn announce_sleep(&self, other_must_fence: bool) {
        let bits = if other_must_fence { SLEEP | FENCE } else { SLEEP };
        // pairs DOORBELL: relaxed, the heavy barrier follows.
        self.0.fetch_or(bits, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back. True if it was still there: then the caller must wake.
    pub(crate) fn take_sleep(&self) -> bool {
        self.clear(SLEEP)
    }

    /// Sets bits. The sealer runs the heavy barrier afterwards.
    pub(crate) fn set(&self, bits: u32) {
        // pairs SEAL: relaxed, the heavy barrier follows.
        self.0.fetch_or(bits, Ordering::Relaxed);
    }

    /// Clears bits, and says whether any was set.
    pub(crate) fn clear(&self, bits: u32) -> bool {
        // Relaxed: the sleeper looks at the ring itself, not at what the bell carries.
        self.0.fetch_and(!bits, Ordering::Relaxed) & bits != 0
    }
}
