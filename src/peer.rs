//! Alive, hung or dead: a pure function of what was seen, and when.
//!
//! The kernel's lock says who is dead; the heartbeat only says who may be. Time counts only while
//! the observer itself ran: between two looks at most two periods are charged to the peer, so a
//! suspended laptop, a paused machine or a starved observer is no hang.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::layout::{ROLE_ABSENT, ROLE_LEFT};
use crate::stats::PeerState;

/// What one look at the peer's lines showed. Nothing in it is trusted for more than a display.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight {
    pub now_ns: u64,
    pub beat: u64,
    pub epoch: u64,
    /// One of the `ROLE_*` constants.
    pub state: u32,
    /// How often the peer says that it beats.
    pub interval_us: u32,
}

/// Beats of its own that a peer may leave out before it hangs, whatever the observer's threshold...
const BEATS_LEFT_OUT: u64 = 10;
/// ...but no longer than this, so that nobody hides a hang by announcing a slow heart.
const LONGEST_SILENCE_NS: u64 = 60_000_000_000;

/// What an observer remembers.
#[derive(Debug)]
pub(crate) struct Watch {
    period_ns: u64,
    stale_ns: u64,
    seen: Option<Sight>,
    frozen_ns: u64,
    probe_at_ns: u64,
    state: PeerState,
}

impl Watch {
    pub(crate) fn new(period: Duration, stale_after: Duration) -> Self {
        Watch {
            period_ns: period.as_nanos().max(1) as u64,
            stale_ns: stale_after.as_nanos() as u64,
            seen: None,
            frozen_ns: 0,
            probe_at_ns: 0,
            state: PeerState::Absent,
        }
    }

    /// The verdict so far.
    pub(crate) fn state(&self) -> PeerState {
        self.state
    }

    /// The short look at a peer that is alive: its heart beats on. False if a long look is needed.
    pub(crate) fn glance(&mut self, now_ns: u64, beat: u64) -> bool {
        match &mut self.seen {
            Some(seen) if self.state == PeerState::Alive && seen.beat != beat => {
                (seen.beat, seen.now_ns) = (beat, now_ns);
                self.frozen_ns = 0;
                self.probe_at_ns = 2 * self.period_ns;
                true
            }
            _ => false,
        }
    }

    /// How long this peer may be silent: the observer's threshold, or longer if its heart is slow.
    fn stale_ns(&self) -> u64 {
        let interval_us = self.seen.map_or(0, |seen| u64::from(seen.interval_us));
        let slow_ns = interval_us * 1000 * BEATS_LEFT_OUT;
        self.stale_ns.max(slow_ns.min(LONGEST_SILENCE_NS))
    }

    /// Takes in what was seen. True if the lock must be asked before there is a verdict.
    pub(crate) fn look(&mut self, sight: Sight) -> bool {
        let before = self.seen.replace(sight);
        if is_absent(&sight) {
            self.state = PeerState::Absent;
            return false;
        }
        let Some(before) = before else { return true };
        if before.epoch != sight.epoch || before.beat != sight.beat {
            self.frozen_ns = 0;
            self.probe_at_ns = 2 * self.period_ns;
            return before.epoch != sight.epoch || self.state != PeerState::Alive;
        }
        let elapsed = sight.now_ns.saturating_sub(before.now_ns);
        self.frozen_ns += elapsed.min(2 * self.period_ns);
        match self.state {
            PeerState::Dead | PeerState::Left => before.state != sight.state,
            _ if sight.state == ROLE_LEFT => true,
            _ => self.frozen_ns >= self.probe_at_ns,
        }
    }

    /// Takes in whether the lock is held, after a look that asked for it.
    pub(crate) fn probe(&mut self, is_held: bool) {
        let Some(sight) = self.seen.filter(|sight| !is_absent(sight)) else { return };
        // Asked seldom while nothing changes: a peer that beats only with its calls is no reason
        // for a system call every tick.
        let soonest = 2 * self.period_ns;
        let latest = soonest.max(20_000_000);
        self.probe_at_ns = self.frozen_ns + self.frozen_ns.clamp(soonest, latest);
        let stale_ns = self.stale_ns();
        if self.frozen_ns < stale_ns {
            self.probe_at_ns = self.probe_at_ns.min(stale_ns);
        }
        self.state = if !is_held {
            if sight.state == ROLE_LEFT { PeerState::Left } else { PeerState::Dead }
        } else if self.frozen_ns >= stale_ns {
            PeerState::Hung(Duration::from_nanos(self.frozen_ns))
        } else {
            PeerState::Alive
        };
    }
}

/// Whether nobody ever held the role.
fn is_absent(sight: &Sight) -> bool {
    sight.epoch == 0 || sight.state == ROLE_ABSENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ROLE_JOINED;

    const MS: u64 = 1_000_000;

    /// A peer with a clock of its own making.
    struct Played {
        watch: Watch,
        sight: Sight,
        is_held: bool,
        probes: u64,
    }

    impl Played {
        fn new() -> Played {
            let watch = Watch::new(Duration::from_millis(1), Duration::from_millis(100));
            let sight = Sight {
                now_ns: 5_000 * MS,
                beat: 1,
                epoch: 1,
                state: ROLE_JOINED,
                interval_us: 1000,
            };
            let mut played = Played { watch, sight, is_held: true, probes: 0 };
            played.look();
            assert_eq!(played.watch.state(), PeerState::Alive);
            played
        }

        fn look(&mut self) -> PeerState {
            if self.watch.look(self.sight) {
                self.probes += 1;
                self.watch.probe(self.is_held);
            }
            self.watch.state()
        }

        /// Time passes, with so many beats in it, and the observer looks.
        fn pass(&mut self, ms: u64, beats: u64) -> PeerState {
            self.sight.now_ns = self.sight.now_ns.wrapping_add(ms * MS);
            self.sight.beat += beats;
            self.look()
        }
    }

    #[test]
    fn nobody_is_absent() {
        let mut played = Played::new();
        played.sight.epoch = 0;
        assert_eq!(played.look(), PeerState::Absent);
        played.sight.epoch = 1;
        played.sight.state = ROLE_ABSENT;
        assert_eq!(played.look(), PeerState::Absent);
    }

    #[test]
    fn a_frozen_beat_is_a_hang_after_the_threshold_and_not_before() {
        let mut played = Played::new();
        for passed in 1..100 {
            assert_eq!(played.pass(1, 0), PeerState::Alive, "after {passed} ms");
        }
        until_hung(&mut played, 25);
        assert_eq!(played.pass(1, 1), PeerState::Alive, "one beat is enough");
        assert_eq!(played.pass(90, 0), PeerState::Alive, "counted from the beat on");
    }

    /// Looks every millisecond until the verdict is a hang, which must come in time.
    fn until_hung(played: &mut Played, within_ms: u64) {
        let is_hung = (0..within_ms).any(|_| matches!(played.pass(1, 0), PeerState::Hung(_)));
        assert!(is_hung, "no verdict within {within_ms} ms");
    }

    /// A suspended laptop: hours pass between two looks, for both sides.
    #[test]
    fn hours_between_two_looks_are_no_hang() {
        let mut played = Played::new();
        for _ in 0..40 {
            assert_eq!(played.pass(3_600_000, 0), PeerState::Alive);
            assert_eq!(played.pass(1, 1), PeerState::Alive);
        }
    }

    /// A starved observer on a busy machine looks rarely; what it did not see it does not blame.
    #[test]
    fn a_starved_observer_blames_only_what_it_saw() {
        let mut played = Played::new();
        for round in 0..49 {
            assert_eq!(played.pass(80, 0), PeerState::Alive, "look {round}");
        }
        assert_eq!(played.pass(80, 1), PeerState::Alive);
    }

    #[test]
    fn a_peer_that_beats_late_but_beats_is_alive() {
        let mut played = Played::new();
        for _ in 0..1000 {
            for _ in 0..60 {
                assert_eq!(played.pass(1, 0), PeerState::Alive);
            }
            assert_eq!(played.pass(1, 1), PeerState::Alive);
        }
    }

    #[test]
    fn a_clock_that_goes_back_is_no_hang() {
        let mut played = Played::new();
        for _ in 0..300 {
            played.sight.now_ns -= MS;
            assert_eq!(played.look(), PeerState::Alive);
        }
        assert_eq!(played.pass(1, 1), PeerState::Alive);
    }

    #[test]
    fn a_free_lock_is_death_and_a_word_before_is_leaving() {
        let mut played = Played::new();
        played.is_held = false;
        played.pass(1, 0);
        assert_eq!(played.pass(2, 0), PeerState::Dead);
        played.sight.state = ROLE_LEFT;
        assert_eq!(played.pass(1, 0), PeerState::Left);
        (played.sight.state, played.sight.epoch, played.is_held) = (ROLE_JOINED, 2, true);
        assert_eq!(played.pass(1, 1), PeerState::Alive, "a successor");
    }

    #[test]
    fn the_lock_is_asked_for_seldom() {
        let mut played = Played::new();
        for _ in 0..1000 {
            played.pass(1, 1);
        }
        assert!(played.probes <= 2, "{} for a beating peer", played.probes);
        let before = played.probes;
        for _ in 0..10_000 {
            played.pass(1, 0);
        }
        assert!(played.probes - before < 600, "{} for a silent one", played.probes - before);
    }

    #[test]
    fn a_slow_beat_is_a_beat_too() {
        for period in [Duration::from_millis(1), Duration::from_millis(11), Duration::from_secs(1)]
        {
            let mut watch = Watch::new(period, period * 4);
            let period_ns = period.as_nanos() as u64;
            for tick in 0..3 {
                let now_ns = 1 + tick * period_ns;
                watch.look(Sight { now_ns, beat: 1, epoch: 1, state: ROLE_JOINED, interval_us: 0 });
                watch.probe(true);
                assert_eq!(watch.state(), PeerState::Alive, "{period:?} {tick}");
            }
            watch.look(Sight {
                now_ns: 9 * period_ns,
                beat: 1,
                epoch: 1,
                state: ROLE_JOINED,
                interval_us: 0,
            });
            watch.probe(true);
            assert!(matches!(watch.state(), PeerState::Hung(_)), "{period:?}");
        }
    }

    #[test]
    fn a_slow_heart_is_given_ten_of_its_own_beats() {
        let mut played = Played::new();
        played.sight.interval_us = 1_000_000;
        played.pass(1, 1);
        for passed in (0..9_990).step_by(2) {
            assert_eq!(played.pass(2, 0), PeerState::Alive, "after {passed} ms");
        }
        until_hung(&mut played, 50);
    }

    #[test]
    fn nobody_hides_a_hang_by_announcing_a_slow_heart() {
        let mut played = Played::new();
        played.sight.interval_us = u32::MAX;
        played.pass(1, 1);
        assert!((0..31_000).any(|_| matches!(played.pass(2, 0), PeerState::Hung(_))));
    }
}
