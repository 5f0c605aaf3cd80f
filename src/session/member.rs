//! An open endpoint as the rest of its process sees it: its seat in a segment, and its watch over
//! the peer.
//!
//! The two halves of an endpoint and the background thread share one `Member`. The halves come here
//! only when something happened; the hot path keeps its own view of the ring. A seat can change: when
//! the segment is replaced the member takes the place kept for it in the new one, and each half
//! follows at its next call.
//!
//! Nothing here may be touched in a forked child: its locks may be held by threads that do not exist
//! there. Every entry asks [`Member::is_home`] first.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Joined, byte_of, is_doomed, leave, replace, sight_of};
use crate::config::{Disconnect, Options, Role};
use crate::error::{Error, Result};
use crate::layout::{RETIRED, ROLE_JOINED, ROLE_MOVING};
use crate::peer::Watch;
use crate::ring::LOOK;
use crate::segment::{self, Segment};
use crate::stats::{Peer, PeerState, Refusal};
use crate::sync::{Ordering, fence};
use crate::sys::fork::Birth;
use crate::sys::{clock, futex, lock, process};

/// Every how many beats the background thread looks at everything, when nothing calls for it.
const THOROUGH_EVERY: u64 = 16;
/// How often the background thread looks at the file itself.
const FILE_CHECK: Duration = Duration::from_millis(100);

/// A segment and the owner number that this endpoint has in it.
#[derive(Clone)]
pub(crate) struct Seat {
    pub segment: Arc<Segment>,
    pub epoch: u64,
    /// The segment that this one replaced, kept to see whether the peer, which has yet to move over,
    /// still lives there.
    predecessor: Option<Arc<Segment>>,
}

/// An open endpoint.
pub(crate) struct Member {
    pub options: Options,
    pub role: Role,
    birth: Birth,
    seat: Mutex<Seat>,
    watch: Mutex<Watch>,
    refused: Vec<Refusal>,
    trouble: Mutex<Option<Error>>,
    in_trouble: AtomicBool,
    /// When the peer was found gone, 0 while it is not.
    gone_since_ns: AtomicU64,
    /// Counts the changes of the peer's state; a futex within the process.
    peer_changes: AtomicU32,
    disconnect: AtomicU8,
    /// The process of a peer that was found alive and is not watched yet; 0 for none.
    new_peer: AtomicU32,
    observed_ns: AtomicU64,
    checked_ns: AtomicU64,
    /// Whether it was left. Locked by whoever acts for the endpoint as a whole: were the role's lock
    /// asked for again behind the back of a leaver, it would outlive the endpoint.
    has_left: Mutex<bool>,
}

impl Member {
    pub(super) fn new(options: Options, joined: Joined, refused: Vec<Refusal>) -> Arc<Member> {
        let member = Member {
            role: joined.role,
            birth: Birth::now(),
            seat: Mutex::new(Seat {
                segment: Arc::new(joined.segment),
                epoch: joined.epoch,
                predecessor: joined.predecessor.map(Arc::new),
            }),
            watch: Mutex::new(Watch::new(options.beat_interval, options.stale_after)),
            refused,
            trouble: Mutex::new(None),
            in_trouble: AtomicBool::new(false),
            gone_since_ns: AtomicU64::new(0),
            peer_changes: AtomicU32::new(0),
            disconnect: AtomicU8::new(options.on_disconnect as u8),
            new_peer: AtomicU32::new(0),
            observed_ns: AtomicU64::new(0),
            checked_ns: AtomicU64::new(clock::monotonic_ns()),
            has_left: Mutex::new(false),
            options,
        };
        super::note_wishes(&member.seat().segment, member.role, &member.options);
        member.observe(true);
        Arc::new(member)
    }

    /// Whether this is the process that opened it.
    #[inline(always)]
    pub(crate) fn is_home(&self) -> bool {
        self.birth.is_here()
    }

    /// The mark of the process that opened it.
    pub(crate) fn birth(&self) -> Birth {
        self.birth
    }

    /// The seat as it is now.
    pub(crate) fn seat(&self) -> Seat {
        guard(&self.seat).clone()
    }

    /// The segment as it is now.
    fn segment(&self) -> Arc<Segment> {
        Arc::clone(&guard(&self.seat).segment)
    }

    /// Requests about memory that were refused.
    pub(crate) fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    // --- moving over --------------------------------------------------------------------------

    /// The seat after `old` was sealed, or after the background thread rang.
    pub(crate) fn seat_after(&self, old: &Arc<Segment>) -> Result<Seat> {
        let mut seat = guard(&self.seat);
        if Arc::ptr_eq(&seat.segment, old) && is_sealed(old) {
            self.move_over(&mut seat)?;
        }
        Ok(seat.clone())
    }

    fn move_over(&self, seat: &mut Seat) -> Result<()> {
        while is_sealed(&seat.segment) {
            let old = &seat.segment;
            match replace::move_over(old, &self.options, self.role, seat.epoch) {
                Ok(mut new) => {
                    new.prepare_memory(&self.options);
                    super::note_wishes(&new, self.role, &self.options);
                    let old = std::mem::replace(&mut seat.segment, Arc::new(new));
                    seat.predecessor = Some(old);
                }
                Err(error) => {
                    self.condemn_at(&seat.segment, error.clone());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    // --- trouble ------------------------------------------------------------------------------

    /// What makes this endpoint unusable, if anything does.
    pub(crate) fn trouble(&self) -> Option<Error> {
        // Acquire: the error is there when the flag is.
        if !self.in_trouble.load(Ordering::Acquire) {
            return None;
        }
        guard(&self.trouble).clone()
    }

    /// Makes the endpoint unusable: every call gives `error` from now on.
    pub(crate) fn condemn(&self, error: Error) {
        let segment = self.segment();
        self.condemn_at(&segment, error);
    }

    fn condemn_at(&self, segment: &Segment, error: Error) {
        guard(&self.trouble).get_or_insert(error);
        self.in_trouble.store(true, Ordering::Release);
        self.call_halves(segment);
    }

    /// Makes the halves look up at their next glance, and wakes them if they sleep.
    fn call_halves(&self, segment: &Segment) {
        segment.ring(self.role.writes()).data_bell().set(LOOK);
        segment.ring(self.role.peer().writes()).room_bell().set(LOOK);
        self.wake_own(segment);
    }

    /// Wakes this process's own sleepers. What they are to see was stored before; they look at it
    /// again behind a fence of their own when they have announced their sleep.
    fn wake_own(&self, segment: &Segment) {
        fence(Ordering::SeqCst);
        let (out, back) =
            (segment.ring(self.role.writes()), segment.ring(self.role.peer().writes()));
        for bell in [out.room_bell(), back.data_bell()] {
            if bell.take_sleep() {
                futex::wake(bell.0, i32::MAX);
            }
        }
    }

    // --- the peer -----------------------------------------------------------------------------

    /// Looks at the peer; asks for its lock if that is needed, or `must_ask`.
    pub(crate) fn observe(&self, must_ask: bool) {
        let segment = self.segment();
        let peer = self.role.peer();
        let sight = sight_of(&segment, peer);
        let mut watch = guard(&self.watch);
        let before = watch.state();
        self.observed_ns.store(sight.now_ns, Ordering::Relaxed);
        let asks = watch.look(sight) || (must_ask && before != PeerState::Absent);
        if asks {
            self.settle_moving(&segment);
            let is_held = lock::is_locked_by_other(segment.fd(), byte_of(peer)).unwrap_or(true);
            watch.probe(is_held);
        }
        let after = watch.state();
        drop(watch);
        if asks && after == PeerState::Alive {
            // It may be another one than before, that came while nobody looked.
            self.announce_peer(&segment);
        }
        if before.name() != after.name() {
            let is_gone = !matches!(after, PeerState::Alive | PeerState::Absent);
            // Relaxed: a time, compared with the clock; nothing hangs on it but patience.
            let since = self.gone_since_ns.load(Ordering::Relaxed);
            let since = if !is_gone {
                0
            } else if since == 0 {
                sight.now_ns.max(1)
            } else {
                since
            };
            self.gone_since_ns.store(since, Ordering::Relaxed);
            // Release: who sees the count sees the time.
            self.peer_changes.fetch_add(1, Ordering::Release);
            futex::wake(&self.peer_changes, i32::MAX);
            self.wake_own(&segment);
        }
    }

    /// Leaves the pid of a peer in this namespace for the background thread.
    fn announce_peer(&self, segment: &Segment) {
        let lines = segment.role(self.role.peer());
        // Relaxed: a hint; the lock decides.
        if lines.pid_ns.load(Ordering::Relaxed) == process::pid_namespace() {
            self.new_peer.store(lines.pid.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// The process of a peer found alive since the last call.
    pub(crate) fn take_new_peer(&self) -> Option<u32> {
        // Relaxed: as above. Loaded first, since it is nearly always zero.
        if self.new_peer.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(self.new_peer.swap(0, Ordering::Relaxed)).filter(|&pid| pid != 0)
    }

    /// Counts the changes of the peer's state: for sleepers, who must not miss one.
    pub(crate) fn peer_changes(&self) -> u32 {
        // Acquire: who sees the count sees the time.
        self.peer_changes.load(Ordering::Acquire)
    }

    /// The verdict on the peer.
    pub(crate) fn peer_state(&self) -> PeerState {
        guard(&self.watch).state()
    }

    /// A place kept for a peer that died before it came over is not kept any longer. A peer that has
    /// not even come to the segment before this one may live on an older one: its time decides.
    fn settle_moving(&self, segment: &Segment) {
        let peer = self.role.peer();
        let lines = segment.role(peer);
        // Relaxed: the state only delays those who want the role.
        if lines.state.load(Ordering::Relaxed) != ROLE_MOVING {
            guard(&self.seat).predecessor = None;
            return;
        }
        if self.knows_peer_dead() {
            let _ = lines.state.compare_exchange(
                ROLE_MOVING,
                ROLE_JOINED,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// Whether the peer died on the segment before this one. Not known of a peer that had yet to come
    /// to that one either: its place is kept as long as the grace lasts.
    fn knows_peer_dead(&self) -> bool {
        let predecessor = guard(&self.seat).predecessor.clone();
        let peer = self.role.peer();
        predecessor.is_some_and(|old| {
            // Relaxed: written before the new segment was published.
            old.role(peer).state.load(Ordering::Relaxed) != ROLE_MOVING
                && !lock::is_locked_by_other(old.fd(), byte_of(peer)).unwrap_or(true)
        })
    }

    /// The peer, as known now.
    pub(crate) fn peer(&self) -> Peer {
        if !self.is_home() {
            return Peer::default();
        }
        if !self.options.background {
            self.observe_if_due();
        } else if self.peer_state() != PeerState::Alive {
            // It may have come, and even sent, since the background thread last looked.
            self.observe(false);
        }
        let segment = self.segment();
        peer_at(&segment, self.role.peer(), self.peer_state())
    }

    /// Without a background thread the calls observe, about once per beat.
    pub(crate) fn observe_if_due(&self) {
        let now = clock::monotonic_ns();
        let interval = self.options.beat_interval.as_nanos() as u64;
        if now.wrapping_sub(self.observed_ns.load(Ordering::Relaxed)) >= interval {
            self.observe(false);
            self.check_file_if_due(now);
        }
    }

    /// Waits until the peer is alive.
    pub(crate) fn wait_for_peer(&self, timeout: Duration) -> Result<Peer> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if !self.is_home() {
                return Err(Error::Forked);
            }
            if let Some(trouble) = self.trouble() {
                return Err(trouble);
            }
            let changes = self.peer_changes.load(Ordering::Acquire);
            if !self.options.background {
                self.beat();
            }
            let peer = self.peer();
            if peer.state == PeerState::Alive {
                return Ok(peer);
            }
            let left =
                deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(Error::Timeout);
            }
            let slice = if self.options.background { 50 } else { 1 };
            futex::wait(&self.peer_changes, changes, left.min(Duration::from_millis(slice)));
        }
    }

    /// Whether the peer was here and is gone.
    #[inline]
    pub(crate) fn misses_peer(&self) -> bool {
        // Relaxed: see `observe`.
        self.gone_since_ns.load(Ordering::Relaxed) != 0
    }

    /// What reading says when nothing is there because the peer is gone, by the policy.
    pub(crate) fn disconnected(&self) -> Option<Error> {
        // Relaxed: see `observe`.
        let since = self.gone_since_ns.load(Ordering::Relaxed);
        if since == 0 {
            return None;
        }
        let gone = Duration::from_nanos(clock::monotonic_ns().saturating_sub(since));
        let options = &self.options;
        let attempts = options.reconnect_interval.saturating_mul(options.reconnect_attempts);
        let is_over = |limit: Duration| !limit.is_zero() && gone >= limit;
        let disconnect = self.disconnect.load(Ordering::Relaxed);
        let gives_up = disconnect == Disconnect::Immediately as u8
            || disconnect == Disconnect::OnTimeout as u8
                && (is_over(attempts) || is_over(options.reconnect_wait));
        if !gives_up {
            return None;
        }
        let peer = peer_at(&self.segment(), self.role.peer(), guard(&self.watch).state());
        let (role, pid) = (self.role.peer(), peer.pid);
        match peer.state {
            PeerState::Hung(silent) => Some(Error::PeerHung { role, pid, silent }),
            PeerState::Dead | PeerState::Left => Some(Error::PeerDead { role, pid }),
            PeerState::Alive | PeerState::Absent => None,
        }
    }

    /// Changes the policy.
    pub(crate) fn set_on_disconnect(&self, behaviour: Disconnect) {
        // Relaxed: a setting.
        self.disconnect.store(behaviour as u8, Ordering::Relaxed);
    }

    // --- the heart ----------------------------------------------------------------------------

    /// One heartbeat.
    pub(crate) fn beat(&self) {
        let segment = self.segment();
        // Relaxed: watched for change only.
        segment.role(self.role).beat.fetch_add(1, Ordering::Relaxed);
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
        if !self.tick_lightly(now_ns) {
            self.tick_thoroughly(now_ns);
        }
    }

    /// True if there is nothing more to do.
    fn tick_lightly(&self, now_ns: u64) -> bool {
        let seat = guard(&self.seat);
        let beat = &seat.segment.role(self.role).beat;
        // Relaxed: watched for change only; this thread is the one that beats.
        let own = beat.load(Ordering::Relaxed).wrapping_add(1);
        beat.store(own, Ordering::Relaxed);
        let peers = seat.segment.role(self.role.peer()).beat.load(Ordering::Relaxed);
        let is_quiet = !is_doomed(&seat.segment) && !own.is_multiple_of(THOROUGH_EVERY);
        drop(seat);
        is_quiet && guard(&self.watch).glance(now_ns, peers)
    }

    #[cold]
    fn tick_thoroughly(&self, now_ns: u64) {
        self.observe(false);
        let segment = self.segment();
        let has_left = guard(&self.has_left);
        if is_doomed(&segment) && !*has_left {
            self.follow_fate(&segment);
        }
        drop(has_left);
        segment.ring(self.role.writes()).note_high_water();
        self.check_file_if_due(now_ns);
    }

    fn follow_fate(&self, segment: &Arc<Segment>) {
        if is_sealed(segment) {
            if self.seat_after(segment).is_ok() {
                self.call_halves(segment);
            }
        } else if segment.header().fate.successor.load(Ordering::Relaxed) == RETIRED {
            // This endpoint lives, so the retirement was a mistake.
            leave::revive(segment);
        }
    }

    fn check_file_if_due(&self, now_ns: u64) {
        let interval = FILE_CHECK.min(self.options.reconnect_interval).as_nanos() as u64;
        if now_ns.wrapping_sub(self.checked_ns.load(Ordering::Relaxed)) < interval {
            return;
        }
        self.checked_ns.store(now_ns, Ordering::Relaxed);
        let has_left = guard(&self.has_left);
        if *has_left {
            return;
        }
        if let Err(error) = self.check_file() {
            self.condemn(error);
        }
    }

    /// Whether the file, the lock and the name are still what they were.
    fn check_file(&self) -> Result<()> {
        let seat = self.seat();
        let segment = &seat.segment;
        segment.check_file()?;
        if is_doomed(segment) {
            return Ok(());
        }
        self.settle_moving(segment);
        // Asked for again, which changes nothing as long as it is ours.
        if !lock::try_lock(segment.fd(), byte_of(self.role))? {
            let by_pid = segment.role(self.role).pid.load(Ordering::Relaxed);
            return Err(Error::Fenced { role: self.role, by_pid });
        }
        // The directory may be unreadable for a moment; what counts is a name that leads elsewhere.
        match segment.is_named() {
            Ok(false) => self.mind_the_name(&seat),
            _ => Ok(()),
        }
    }

    /// The name is gone, or leads to another segment.
    fn mind_the_name(&self, seat: &Seat) -> Result<()> {
        let peer_lives = guard(&self.watch).state() == PeerState::Alive;
        match segment::attach_for(&self.options, true) {
            Ok(None) if self.role == Role::Master || !peer_lives => {
                replace::complete(&seat.segment, &self.options.name, Some(self.role))?;
                self.follow_fate(&seat.segment);
            }
            Ok(Some(other)) if !peer_lives && other.lineage != seat.segment.lineage => {
                self.rejoin(other, &seat.segment)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The peer is gone, and somebody made the bus anew: goes there, if the role is free.
    fn rejoin(&self, other: Segment, old: &Arc<Segment>) -> Result<()> {
        let Some(epoch) = super::try_rejoin(&other, self.role)? else { return Ok(()) };
        super::note_wishes(&other, self.role, &self.options);
        let mut seat = guard(&self.seat);
        *seat = Seat { segment: Arc::new(other), epoch, predecessor: None };
        drop(seat);
        self.call_halves(old);
        Ok(())
    }

    /// Whether it was left.
    pub(crate) fn has_left(&self) -> bool {
        *guard(&self.has_left)
    }

    // --- leaving ------------------------------------------------------------------------------

    /// The seat from which to leave: in the segment that counts.
    fn last_seat(&self) -> Result<Seat> {
        let mut seat = guard(&self.seat);
        if is_sealed(&seat.segment) {
            self.move_over(&mut seat)?;
        }
        Ok(seat.clone())
    }

    /// Leaves. In a forked child nothing is touched.
    pub(crate) fn leave(&self) -> Result<()> {
        if !self.is_home() {
            return Ok(());
        }
        let mut has_left = guard(&self.has_left);
        if std::mem::replace(&mut *has_left, true) {
            return Ok(());
        }
        if let Some(trouble) = self.trouble() {
            let seat = self.seat();
            if seat.segment.check_file().is_ok() {
                // Others may keep the memory, and the lock with it, for a moment longer.
                leave::give_up(&seat.segment, self.role, seat.epoch)?;
            }
            return Err(trouble);
        }
        let seat = self.last_seat()?;
        if seat.segment.check_file().is_err() {
            return Ok(());
        }
        self.settle_moving(&seat.segment);
        leave::leave(&seat.segment, self.role, seat.epoch)
    }
}

fn is_sealed(segment: &Segment) -> bool {
    // pairs SEAL: acquire, so that what the sealer did before is seen.
    segment.header().fate.sealed.load(Ordering::Acquire) != 0
}

/// A role as it can be seen in a segment.
pub(crate) fn peer_at(segment: &Segment, role: Role, state: PeerState) -> Peer {
    let lines = segment.role(role);
    // Relaxed throughout: figures for people.
    let written = segment.ring(role.writes()).lines().producer.number.load(Ordering::Relaxed);
    let read = segment.ring(role.peer().writes()).lines().consumer.number.load(Ordering::Relaxed);
    let calls = lines.progress.load(Ordering::Relaxed);
    Peer {
        state,
        pid: lines.pid.load(Ordering::Relaxed),
        epoch: lines.epoch.load(Ordering::Relaxed),
        beats: lines.beat.load(Ordering::Relaxed),
        progress: calls.wrapping_add(written).wrapping_add(read),
    }
}

/// Locks; a panic elsewhere left nothing half-done that matters here.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
