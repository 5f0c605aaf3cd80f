//! Keeping a distance: a reader at the heels of its writer pulls each line away while it is still
//! being filled, so that it travels twice. One that looks away for a moment after it found nothing
//! comes back to several messages at once.
//!
//! How long pays is learned. A look that finds nothing ends a run of messages; a run that is long
//! enough for the nap before it makes the next nap longer, a short one makes it shorter. Where
//! messages come one by one, as in a conversation, there is no nap; now and then one is tried.
#![forbid(unsafe_code)]

/// Pauses of the first nap.
const SHORTEST: u32 = 8;
/// Pauses of the longest: some microseconds.
const LONGEST: u32 = 256;
/// Runs after which a nap is tried where none pays.
const TRY_EVERY: u32 = 256;
/// A run that pays for any nap.
const RUN_ENOUGH: u64 = 16;

/// What a reader has learned.
#[derive(Default)]
pub(super) struct Distance {
    /// Pauses after a look that found nothing; 0 is none.
    nap: u32,
    /// Runs without a nap.
    runs: u32,
    /// The number of the next message when nothing was found the last time.
    seen: u64,
}

impl Distance {
    /// After a look that found nothing where `next` is the number of the next message: waits for a
    /// moment if messages came since the last such look and it pays. True if it is worth looking again.
    #[inline(always)]
    pub(super) fn keep(&mut self, next: u64) -> bool {
        let run = next.wrapping_sub(std::mem::replace(&mut self.seen, next));
        run > 0 && self.learn(run)
    }

    #[inline(never)]
    fn learn(&mut self, run: u64) -> bool {
        if self.nap == 0 {
            self.runs += 1;
            if self.runs < TRY_EVERY {
                return false;
            }
            (self.runs, self.nap) = (0, SHORTEST);
        } else if run >= RUN_ENOUGH.min(u64::from(self.nap) / 4 + 2) {
            self.nap = (self.nap * 2).min(LONGEST);
        } else {
            self.nap /= 2;
            if self.nap < SHORTEST {
                self.nap = 0;
                return false;
            }
        }
        for _ in 0..self.nap {
            std::hint::spin_loop();
        }
        true
    }
}
