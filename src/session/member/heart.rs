//! What the background thread does for an endpoint: it beats, looks at the peer, goes where the bus goes,
//! and minds the file.
//!
//! It must never wait for a thread of the application, which may have been put aside while it had a lock:
//! what is locked is done at another beat. Only the beat itself never waits.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use super::{Member, Seat};
use crate::segment::{BusFile, Segment};
use crate::session::{leave, replace};
use crate::sync::Ordering;

/// Every how many beats the background thread looks at everything, when nothing calls for it.
const THOROUGH_EVERY: u64 = 16;
/// How often the background thread looks at the file itself.
const FILE_CHECK: Duration = Duration::from_millis(100);

impl Member {
    /// One heartbeat.
    pub(crate) fn beat(&self) {
        if let Some(segment) = self.segment() {
            // Relaxed: watched for change only.
            segment.role(self.role).beat.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call of the application that found nothing to do.
    pub(crate) fn note_progress(&self, segment: &Segment) {
        let progress = &segment.role(self.role).progress;
        // Relaxed, and not even atomic as a whole: a figure that is to move.
        progress.store(progress.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// What the background thread does for this endpoint at every beat. Nearly always no more than
    /// to beat and to see the peer's beat: a handful of cache lines.
    pub(crate) fn tick(&self, now_ns: u64) {
        // Relaxed: a tick too many does no harm.
        if self.in_trouble.load(Ordering::Relaxed) {
            return;
        }
        let Some(segment) = self.heart_segment() else { return };
        if !self.tick_lightly(&segment, now_ns) {
            self.tick_thoroughly(&segment, now_ns);
        }
    }

    /// Where the heart beats: in the seat, or while somebody has that locked where it was.
    fn heart_segment(&self) -> Option<Arc<Segment>> {
        let mut heart = self.heart.lock();
        let Some(seat) = self.seat.try_lock() else { return heart.upgrade() };
        let segment = &seat.as_ref()?.segment;
        if heart.as_ptr() != Arc::as_ptr(segment) {
            *heart = Arc::downgrade(segment);
        }
        Some(Arc::clone(segment))
    }

    /// The background thread saw the death of some process: looks whether it was the peer.
    pub(crate) fn note_death(&self) {
        if let Some(segment) = self.heart_segment() {
            self.observe_unless_busy(&segment, true);
        }
    }

    /// True if there is nothing more to do.
    fn tick_lightly(&self, segment: &Segment, now_ns: u64) -> bool {
        let beat = &segment.role(self.role).beat;
        // Relaxed: watched for change only; this thread is the one that beats.
        let own = beat.load(Ordering::Relaxed).wrapping_add(1);
        beat.store(own, Ordering::Relaxed);
        let peers = segment.role(self.role.peer()).beat.load(Ordering::Relaxed);
        let is_quiet = !segment.is_doomed() && !own.is_multiple_of(THOROUGH_EVERY);
        // Who has the watch locked looks at the peer in this moment.
        is_quiet && self.watch.try_lock().is_none_or(|mut watch| watch.glance(now_ns, peers))
    }

    #[cold]
    fn tick_thoroughly(&self, segment: &Segment, now_ns: u64) {
        self.observe_unless_busy(segment, false);
        let ring = segment.ring(self.role.writes());
        if let Ok(place) = ring.stored_place() {
            ring.note_high_water(place.pos);
        }
        self.check_file_if_due(segment, now_ns);
    }

    /// Goes where the bus went, if that can be done at once: for the heart, which is watched there.
    pub(super) fn follow_fate(&self) {
        let is_doomed = |seat: &Seat| seat.segment.is_doomed();
        // Somebody has it locked: the next look is soon.
        let Some(seat) = self.seat.try_lock() else { return };
        if !seat.as_ref().is_some_and(is_doomed) {
            return;
        }
        drop(seat);
        let Some(_moving) = self.moving.try_lock() else { return };
        let Some(mut seat) = self.seat().filter(is_doomed) else { return };
        match replace::try_move(&seat, &self.options, self.role) {
            Ok(Some(new)) => {
                let old = Arc::clone(&seat.segment);
                self.sit_down(&mut seat, new);
                self.call_halves(&old);
            }
            Ok(None) => {}
            Err(error) => self.note(&error),
        }
    }

    pub(super) fn check_file_if_due(&self, segment: &Segment, now_ns: u64) {
        let interval = FILE_CHECK.min(self.options.reconnect_interval).as_nanos() as u64;
        if now_ns.wrapping_sub(self.checked_ns.load(Ordering::Relaxed)) < interval {
            return;
        }
        self.checked_ns.store(now_ns, Ordering::Relaxed);
        match segment.check_file() {
            Ok(is_named) => self.mind_the_name(segment, is_named),
            Err(error) => self.condemn(error),
        }
        if self.is_untidy.load(Ordering::Relaxed) {
            self.tidy(segment);
        }
    }

    /// The name is gone, or leads to another file; or it is back.
    fn mind_the_name(&self, segment: &Segment, is_named: bool) {
        // The name of a bus that was removed goes; whoever took it away retired the bus before.
        if !is_named && !segment.bus().turn().is_retired() {
            leave::bring_name_back(segment.facts());
        }
        // Relaxed: looked at again at every check.
        if self.is_nameless.swap(!is_named, Ordering::Relaxed) == is_named {
            self.observe(true);
            // The halves look whether they still have anybody.
            self.call_halves(segment);
        }
    }

    /// Gives back some of the pages of slots that nobody maps any more, and goes on next time, until all
    /// are gone. A slot that somebody still maps is tried again in the next round.
    fn tidy(&self, segment: &Segment) {
        let facts = segment.facts();
        let Ok(Some(bus)) = BusFile::open_to_tidy(&facts.path) else { return };
        if bus.facts().id != facts.id {
            return;
        }
        // Relaxed, here and below: this thread's own.
        let at = self.tidied_to.load(Ordering::Relaxed);
        match bus.tidy_piece(at) {
            Ok(Some((next, is_in_the_way))) => {
                self.tidied_to.store(next, Ordering::Relaxed);
                self.is_round_clean.fetch_and(!is_in_the_way, Ordering::Relaxed);
            }
            Ok(None) => {
                self.tidied_to.store(0, Ordering::Relaxed);
                let is_clean = self.is_round_clean.swap(true, Ordering::Relaxed);
                self.is_untidy.store(!is_clean, Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }
}
