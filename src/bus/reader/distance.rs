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
            self.nap = if self.nap > SHORTEST { self.nap / 2 } else { 0 };
        }
        for _ in 0..self.nap {
            std::hint::spin_loop();
        }
        self.nap > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was learned from runs of these lengths, each ended by a look that found nothing.
    fn learned(runs: impl IntoIterator<Item = u64>) -> Distance {
        let mut distance = Distance::default();
        let mut next = 0;
        for run in runs {
            next += run;
            distance.keep(next);
        }
        distance
    }

    #[test]
    fn a_stream_is_followed_at_a_distance() {
        assert_eq!(learned([1000; 255]).nap, 0);
        assert_eq!(learned([1000; 256]).nap, SHORTEST);
        assert_eq!(learned([1000; 300]).nap, LONGEST);
    }

    #[test]
    fn a_nap_in_vain_is_the_last_for_a_while() {
        let in_vain = |runs: u64| [1000; 300].into_iter().chain([0]).chain((0..runs).map(|_| 1000));
        assert_eq!(learned(in_vain(0)).nap, 0);
        assert_eq!(learned(in_vain(255)).nap, 0);
        assert_eq!(learned(in_vain(256)).nap, SHORTEST);
    }

    #[test]
    fn messages_that_come_one_by_one_do_not_wait() {
        assert_eq!(learned([1; 256]).nap, SHORTEST, "one that is tried");
        assert_eq!(learned([1; 260]).nap, 0);
    }
}
