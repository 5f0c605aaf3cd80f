//! Keeping a distance: a reader at the heels of its writer pulls each line away while it is still
//! being filled, so that it travels twice. One that looks away for a moment after it found nothing
//! comes back to several messages at once.
//!
//! How long pays is learned. A look that finds nothing ends a run of messages. A run that shows that the
//! writer went on all through the nap before it makes the next nap longer, a shorter one makes it
//! shorter. Whoever finds nothing after a nap has napped in vain: the writer has stopped, or waits for
//! an answer, and there are no naps for a while. So messages that come one by one, in bursts or in a
//! conversation wait for nobody.
#![forbid(unsafe_code)]

/// Pauses of the first nap.
const SHORTEST: u32 = 8;
/// Pauses of the longest: some microseconds.
const LONGEST: u32 = 256;
/// Frames per pause that show that the writer went on.
const FRAMES_PER_PAUSE: u64 = 1;
/// Runs after which a nap is tried where none pays.
const TRY_EVERY: u32 = 256;

/// What a reader has learned.
#[derive(Default)]
pub(super) struct Distance {
    /// Pauses after a look that found nothing; 0 is none.
    nap: u32,
    /// Runs without a nap.
    runs: u32,
    /// The position of the next message when nothing was found the last time.
    seen: u64,
}

impl Distance {
    /// After a look that found nothing at the position `next`: waits for a moment if messages came
    /// since the last such look and it pays. True if it is worth looking again.
    #[inline(always)]
    pub(super) fn keep(&mut self, next: u64) -> bool {
        let run = next.wrapping_sub(std::mem::replace(&mut self.seen, next));
        if run == 0 {
            self.nap = 0;
            return false;
        }
        self.learn(run)
    }

    #[inline(never)]
    fn learn(&mut self, run: u64) -> bool {
        if self.nap == 0 {
            self.runs += 1;
            if self.runs < TRY_EVERY {
                return false;
            }
            (self.runs, self.nap) = (0, SHORTEST);
        } else if run >= u64::from(self.nap) * FRAMES_PER_PAUSE {
            self.nap = (self.nap * 2).min(LONGEST);
        } else {
            self.nap /= 2;
        }
        for _ in 0..self.nap {
            std::hint::spin_loop();
        }
        self.nap > 0
    }
}
