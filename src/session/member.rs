//! An open endpoint as the rest of its process sees it: its seat in a segment, and its watch over
//! the peer.
//!
//! The two halves of an endpoint and the background thread share one `Member`. The halves come here
//! only when something happened; the hot path keeps its own view of the ring. A seat can change: when
//! the slot is replaced the member takes the place kept for it in the new one, and each half
//! follows at its next call. It never changes to another file.
//!
//! The background thread must never wait here for a thread of the application, which may be one that
//! seldom runs: it only tries the locks. What may take long (moving, leaving) has one of its own.
//!
//! Nothing here may be touched in a forked child: its locks may be held by threads that do not exist
//! there. Every entry asks [`Member::is_home`] first. Read next: `session/member/heart.rs`.
#![forbid(unsafe_code)]

mod heart;

use std::ops::DerefMut;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Joined, leave, replace, sight_of};
use crate::config::{Direction, Disconnect, Options, Role};
use crate::error::{Error, Result};
use crate::layout::{Keeper, ROLE_JOINED, ROLE_MOVING, RoleLines};
use crate::peer::Watch;
use crate::ring::LOOK;
use crate::segment::{BusFile, Segment, byte_of};
use crate::stats::{Peer, PeerState, Refusal};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering, fence};
use crate::sys::fork::Birth;
use crate::sys::{clock, futex, process};

/// A segment and the owner number that this endpoint has in it.
#[derive(Clone)]
pub(crate) struct Seat {
    pub segment: Arc<Segment>,
    pub epoch: u64,
    /// Slots on the way here, from which the role may still be kept for this endpoint in the next one:
    /// whoever replaced the slot on the way did not see it arrive.
    pub(super) before: Vec<Arc<Segment>>,
}

/// An open endpoint.
pub(crate) struct Member {
    pub options: Options,
    pub role: Role,
    birth: Birth,
    /// None once it was left.
    seat: Mutex<Option<Seat>>,
    /// Where the background thread beat last, and does while the seat is locked; its own.
    heart: Mutex<Weak<Segment>>,
    /// Locked by whoever moves to another slot, chooses a cut, or leaves.
    moving: Mutex<()>,
    watch: Mutex<Watch>,
    /// Requests about memory that were refused.
    refused: Mutex<Vec<Refusal>>,
    /// The memory of the seat is not yet as the options wish it.
    is_unprepared: AtomicBool,
    trouble: Mutex<Option<Error>>,
    in_trouble: AtomicBool,
    /// The file has no name any more, so nobody can come to it.
    is_nameless: AtomicBool,
    /// Slots that do not count may still have pages; how far a look for them has come; and whether
    /// nobody was in the way.
    is_untidy: AtomicBool,
    tidied_to: AtomicU64,
    is_round_clean: AtomicBool,
    /// When the peer was found gone, 0 while it is not.
    gone_since_ns: AtomicU64,
    /// Counts the changes of the peer's state; a futex within the process.
    peer_changes: AtomicU32,
    disconnect: AtomicU32,
    /// The process of a peer that was found alive and is not watched yet; 0 for none.
    new_peer: AtomicU32,
    observed_ns: AtomicU64,
    checked_ns: AtomicU64,
}

impl Member {
    pub(super) fn new(options: Options, joined: Joined) -> Arc<Member> {
        let segment = Arc::new(joined.segment);
        let seat = Seat { segment, epoch: joined.epoch, before: Vec::new() };
        let member = Member {
            role: joined.role,
            birth: Birth::now(),
            heart: Mutex::new(Arc::downgrade(&seat.segment)),
            seat: Mutex::new(Some(seat)),
            moving: Mutex::new(()),
            watch: Mutex::new(Watch::new(options.beat_interval, options.stale_after)),
            refused: Mutex::new(Vec::new()),
            is_unprepared: AtomicBool::new(true),
            trouble: Mutex::new(None),
            in_trouble: AtomicBool::new(false),
            is_nameless: AtomicBool::new(false),
            is_untidy: AtomicBool::new(true),
            tidied_to: AtomicU64::new(0),
            is_round_clean: AtomicBool::new(true),
            gone_since_ns: AtomicU64::new(0),
            peer_changes: AtomicU32::new(0),
            disconnect: AtomicU32::new(options.on_disconnect as u32),
            new_peer: AtomicU32::new(0),
            observed_ns: AtomicU64::new(0),
            checked_ns: AtomicU64::new(clock::monotonic_ns()),
            options,
        };
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

    /// The seat as it is now; none after leaving.
    pub(crate) fn seat(&self) -> Option<Seat> {
        self.seat.lock().clone()
    }

    /// The segment as it is now.
    pub(crate) fn segment(&self) -> Option<Arc<Segment>> {
        self.seat.lock().as_ref().map(|seat| Arc::clone(&seat.segment))
    }

    /// How many owners the role has had.
    pub(crate) fn epoch(&self) -> u64 {
        self.seat.lock().as_ref().map_or(0, |seat| seat.epoch)
    }

    /// Whether it was left.
    pub(crate) fn has_left(&self) -> bool {
        self.seat.lock().is_none()
    }

    /// Requests about memory that were refused.
    pub(crate) fn refused(&self) -> Vec<Refusal> {
        self.refused.lock().clone()
    }

    /// Does what the options wish for the memory of the seat. Takes long for a large bus, so it is for
    /// threads of the application, and after the heart has begun to beat.
    pub(crate) fn prepare_memory(&self) {
        if self.is_unprepared.swap(false, Ordering::Relaxed)
            && let Some(segment) = self.segment()
        {
            *self.refused.lock() = segment.prepare_memory(&self.options);
        }
    }

    // --- moving over --------------------------------------------------------------------------

    /// The seat after `old` was sealed. Waits for the one that replaces it, or makes that itself. What
    /// the system refuses may be tried again; all other errors are for good.
    pub(crate) fn seat_after(&self, old: &Arc<Segment>) -> Result<Seat> {
        let moving = self.moving.lock();
        let mut seat = self.seat().ok_or(Error::Forked)?;
        if Arc::ptr_eq(&seat.segment, old) {
            self.follow(&mut seat).inspect_err(|error| self.note(error))?;
        }
        drop(moving);
        self.prepare_memory();
        Ok(seat)
    }

    /// Moves as long as the seat is in a sealed slot. The caller has locked `moving`.
    fn follow(&self, seat: &mut Seat) -> Result<()> {
        while seat.segment.is_sealed() {
            let new = replace::move_over(seat, &self.options, self.role)?;
            self.sit_down(seat, new);
        }
        Ok(())
    }

    fn sit_down(&self, seat: &mut Seat, mut new: Segment) {
        new.settle();
        let old = std::mem::replace(&mut seat.segment, Arc::new(new));
        // Whoever seals from here on sees this endpoint here; who did before may not have.
        match seat.segment.is_sealed() {
            true => seat.before.push(old),
            false => seat.before.clear(),
        }
        self.tidied_to.store(0, Ordering::Relaxed);
        self.is_untidy.store(true, Ordering::Relaxed);
        self.is_unprepared.store(true, Ordering::Relaxed);
        *self.seat.lock() = Some(seat.clone());
    }

    /// Where a sealed slot was cut.
    pub(crate) fn cut(&self, segment: &Segment, direction: Direction) -> Result<replace::CutRing> {
        let _moving = self.moving.lock();
        let cut = replace::wait_for_cut(segment, self.role);
        let cut = cut.inspect_err(|error| self.note(error))?;
        Ok(cut[direction as usize])
    }

    // --- trouble ------------------------------------------------------------------------------

    /// What makes this endpoint unusable, if anything does.
    pub(crate) fn trouble(&self) -> Option<Error> {
        // Acquire: the error is there when the flag is.
        if !self.in_trouble.load(Ordering::Acquire) {
            return None;
        }
        self.trouble.lock().clone()
    }

    /// Makes the endpoint unusable: every call gives `error` from now on.
    pub(crate) fn condemn(&self, error: Error) {
        self.trouble.lock().get_or_insert(error);
        self.in_trouble.store(true, Ordering::Release);
        if let Some(segment) = self.segment() {
            self.call_halves(&segment);
        }
    }

    /// Makes the endpoint unusable if the error is one that does not go away.
    pub(crate) fn note(&self, error: &Error) {
        if !matches!(error, Error::Os { .. } | Error::Access { .. } | Error::Timeout) {
            self.condemn(error.clone());
        }
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
        self.follow_fate();
        if let Some(segment) = self.segment().filter(|segment| !segment.is_doomed()) {
            self.look_at_peer(&segment, self.watch.lock(), must_ask);
        }
    }

    /// The same for the background thread: only if nobody else does so in this moment.
    fn observe_unless_busy(&self, segment: &Segment, must_ask: bool) {
        self.follow_fate();
        if segment.is_doomed() {
            return;
        }
        if let Some(watch) = self.watch.try_lock() {
            self.look_at_peer(segment, watch, must_ask);
        }
    }

    fn look_at_peer(
        &self,
        segment: &Segment,
        mut watch: impl DerefMut<Target = Watch>,
        must_ask: bool,
    ) {
        // Under the lock too, so that an older sight does not come after a newer one.
        let sight = sight_of(segment.role(self.role.peer()));
        let before = watch.state();
        self.observed_ns.store(sight.now_ns, Ordering::Relaxed);
        let asks = watch.look(sight) || (must_ask && before != PeerState::Absent);
        if asks {
            // Under the lock: whoever looks at the same time must not find half a verdict.
            watch.probe(self.is_peer_there(segment));
        }
        let after = watch.state();
        let has_changed = before.name() != after.name();
        if has_changed {
            // Under the same lock: of two verdicts the later one tells since when.
            self.note_gone(after, sight.now_ns);
        }
        drop(watch);
        if asks && after == PeerState::Alive {
            // It may be another one than before, that came while nobody looked.
            self.announce_peer(segment);
        }
        if has_changed {
            // Release: who sees the count sees the time.
            self.peer_changes.fetch_add(1, Ordering::Release);
            futex::wake(&self.peer_changes, i32::MAX);
            self.wake_own(segment);
        }
    }

    /// Remembers since when the peer is gone.
    fn note_gone(&self, state: PeerState, now_ns: u64) {
        let is_gone = !matches!(state, PeerState::Alive | PeerState::Absent);
        // Relaxed: a time, compared with the clock; nothing hangs on it but patience.
        let since = self.gone_since_ns.load(Ordering::Relaxed);
        let since = match (is_gone, since) {
            (false, _) => 0,
            (true, 0) => now_ns.max(1),
            (true, since) => since,
        };
        self.gone_since_ns.store(since, Ordering::Relaxed);
    }

    /// Whether somebody holds the peer's role, or has it kept. What cannot be asked counts as held.
    fn is_peer_there(&self, segment: &Segment) -> bool {
        let peer = self.role.peer();
        let facts = segment.facts();
        let bus = match BusFile::open_to_look(&facts.path, None) {
            Ok(Some(bus)) if bus.facts().id == facts.id => bus,
            Ok(_) => return self.is_peer_running(segment),
            Err(_) => return true,
        };
        let keeper = Keeper::from_word(segment.role(peer).keeper.load(Ordering::Relaxed));
        bus.is_locked(byte_of(segment.slot(), peer)).unwrap_or(true)
            || segment.role(peer).state.load(Ordering::Relaxed) == ROLE_MOVING
                && bus.is_kept(keeper).unwrap_or(true)
    }

    /// A file without a name cannot be opened to ask. Nobody new can come there, so the process that
    /// is noted is all that there can be; one in another namespace is known by its beat alone.
    fn is_peer_running(&self, segment: &Segment) -> bool {
        let lines = segment.role(self.role.peer());
        // Relaxed: written by the owner when it came.
        let pid = lines.pid.load(Ordering::Relaxed);
        let is_here = lines.state.load(Ordering::Relaxed) == ROLE_JOINED;
        is_here
            && (!is_near(lines)
                || process::is_running(pid, lines.start_time.load(Ordering::Relaxed)))
    }

    /// Leaves the pid of a peer in this namespace for the background thread.
    fn announce_peer(&self, segment: &Segment) {
        let lines = segment.role(self.role.peer());
        // Relaxed: a hint; the lock decides.
        if is_near(lines) {
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
        self.watch.lock().state()
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
        let state = self.peer_state();
        segment.map_or_else(Peer::default, |segment| peer_at(&segment, self.role.peer(), state))
    }

    /// Without a background thread the calls observe, about once per beat.
    pub(crate) fn observe_if_due(&self) {
        let now = clock::monotonic_ns();
        let interval = self.options.beat_interval.as_nanos() as u64;
        if now.wrapping_sub(self.observed_ns.load(Ordering::Relaxed)) >= interval {
            self.observe(false);
            if let Some(segment) = self.segment() {
                self.check_file_if_due(&segment, now);
            }
        }
    }

    /// Waits until the peer is alive.
    pub(crate) fn wait_for_peer(&self, timeout: Duration) -> Result<Peer> {
        let deadline = clock::Instant::now().checked_add(timeout);
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
            let left = deadline
                .map_or(Duration::MAX, |at| at.saturating_duration_since(clock::Instant::now()));
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
        if let Some(lost) = self.orphaned() {
            return Some(lost);
        }
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
        let gives_up = disconnect == Disconnect::Immediately as u32
            || disconnect == Disconnect::OnTimeout as u32
                && (is_over(attempts) || is_over(options.reconnect_wait));
        if !gives_up {
            return None;
        }
        let peer = peer_at(&*self.segment()?, self.role.peer(), self.peer_state());
        let (role, pid, is_foreign) = (self.role.peer(), peer.pid, peer.is_foreign);
        match peer.state {
            PeerState::Hung(silent) => Some(Error::PeerHung { role, pid, is_foreign, silent }),
            PeerState::Dead | PeerState::Left => Some(Error::PeerDead { role, pid, is_foreign }),
            PeerState::Alive | PeerState::Absent => None,
        }
    }

    /// The error of an endpoint whose file has no name any more and whose peer is gone: nobody can
    /// ever come again.
    pub(crate) fn orphaned(&self) -> Option<Error> {
        // Relaxed: found out again and again.
        if !self.is_nameless() {
            return None;
        }
        let segment = self.segment()?;
        match self.peer_state() {
            PeerState::Alive => return None,
            // It may go on, unless it is so far that its heart is all that is known of it.
            PeerState::Hung(_) if is_near(segment.role(self.role.peer())) => return None,
            _ => {}
        }
        let unread = segment.ring(self.role.writes()).backlog();
        Some(Error::Lost { what: "its file was removed, and the peer is gone", unread })
    }

    /// Whether the file has no name any more.
    pub(crate) fn is_nameless(&self) -> bool {
        // Relaxed: as above.
        self.is_nameless.load(Ordering::Relaxed)
    }

    /// Changes the policy.
    pub(crate) fn set_on_disconnect(&self, behaviour: Disconnect) {
        // Relaxed: a setting.
        self.disconnect.store(behaviour as u32, Ordering::Relaxed);
    }

    // --- leaving ------------------------------------------------------------------------------

    /// Leaves. The halves have let go of their segments. In a forked child nothing is touched.
    pub(crate) fn leave(&self) -> Result<()> {
        if !self.is_home() {
            return Ok(());
        }
        let _moving = self.moving.lock();
        let Some(mut seat) = self.seat() else { return Ok(()) };
        let left = self.say_goodbye(&mut seat);
        let facts = seat.segment.facts().clone();
        drop(seat);
        self.unmap();
        left?;
        match BusFile::open(&self.options)? {
            Some(bus) if bus.facts().id == facts.id => leave::retire(&bus).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Writes down that this endpoint has left, in the slot that counts.
    fn say_goodbye(&self, seat: &mut Seat) -> Result<()> {
        for turn in 0.. {
            if let Some(trouble) = self.trouble() {
                return Err(trouble);
            }
            match self.follow(seat) {
                // A place that is not kept any more was not needed: the farewell was seen.
                Err(Error::Fenced { .. }) if turn > 0 => break,
                followed => followed?,
            }
            leave::say_goodbye(&seat.segment, self.role, &self.options);
            // pairs SEAL: a sealer that is not seen here finds this endpoint gone.
            fence(Ordering::SeqCst);
            if !seat.segment.is_sealed() {
                break;
            }
        }
        Ok(())
    }

    /// Lets go of the memory, and with it of the role.
    fn unmap(&self) {
        let Some(seat) = self.seat.lock().take() else { return };
        // Others of this process may be looking at a figure; they are done in a moment.
        while Arc::strong_count(&seat.segment) > 1 {
            clock::sleep(Duration::from_micros(10));
        }
    }
}

/// Whether the owner of a role is a process of this one's PID namespace.
fn is_near(lines: &RoleLines) -> bool {
    // Relaxed: written by the owner when it came.
    lines.pid_ns.load(Ordering::Relaxed) == process::pid_namespace()
}

/// A role as it can be seen in a segment.
pub(crate) fn peer_at(segment: &Segment, role: Role, state: PeerState) -> Peer {
    // Relaxed throughout: figures for people.
    let written = segment.ring(role.writes()).find_head(None).map_or(0, |place| place.number);
    let read = segment.ring(role.peer().writes()).lines().consumer.number.load(Ordering::Relaxed);
    peer_from(segment.role(role), state, written, read)
}

/// Whose lines these are, for people: the process, and whether its number is of another PID namespace.
pub(crate) fn pid_at(lines: &RoleLines) -> (u32, bool) {
    // Relaxed: decides nothing.
    let pid = lines.pid.load(Ordering::Relaxed);
    let namespaces = [lines.pid_ns.load(Ordering::Relaxed), process::pid_namespace()];
    // 0 where it could not be found out.
    let is_foreign = pid != 0 && !namespaces.contains(&0) && namespaces[0] != namespaces[1];
    (pid, is_foreign)
}

/// A role as its lines tell it.
pub(crate) fn peer_from(lines: &RoleLines, state: PeerState, written: u64, read: u64) -> Peer {
    let calls = lines.progress.load(Ordering::Relaxed);
    let (pid, is_foreign) = pid_at(lines);
    Peer {
        state,
        pid,
        is_foreign,
        epoch: lines.epoch.load(Ordering::Relaxed),
        beats: lines.beat.load(Ordering::Relaxed),
        progress: calls.wrapping_add(written).wrapping_add(read),
    }
}
