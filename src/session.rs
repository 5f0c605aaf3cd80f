//! Who holds a role: create, attach, adopt, fence, leave.
//!
//! ```text
//!                     no such name                        last one out
//!            open ---------------------> created ----+    +------------> retired, name removed
//!              |                                     v    |
//!              |  name found, role's lock free     joined ------ killed ----> lock freed
//!              +-----------------------------------> ^ |                         |
//!              |      (adopt: epoch + 1)             | | hung                    | adopt
//!              |                                     | v                         v
//!              |  lock held, owner hung            fenced: the segment is   a successor
//!              +---------------------------------> sealed, cut, rebuilt
//! ```
//!
//! The kernel decides: a role is held by whoever holds the record lock on its byte of the segment's
//! file (byte 0 master, byte 1 slave). It is freed only when no instruction of the owner can run any
//! more. Everything else here can be interrupted anywhere and done again by the next one; what must
//! happen at most once hangs on one compare-and-swap of [`Fate::successor`](crate::layout::Fate).
//!
//! This file must never decide anything from a pid, a beat or a flag in shared memory. A pid only
//! ever makes it more careful. Read next: `session/replace.rs`.
#![forbid(unsafe_code)]

mod leave;
mod member;
mod replace;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use leave::remove_by_hand;
pub(crate) use member::{Member, Seat, peer_at};
pub(crate) use replace::{CutRing, wait_for_cut};

use crate::config::{Direction, Options, Role, Takeover};
use crate::error::{Error, Result};
use crate::layout::*;
use crate::peer::{Sight, Watch};
use crate::ring::FENCE;
use crate::segment::{self, Segment, Spec};
use crate::stats::PeerState;
use crate::sync::{Ordering, fence};
use crate::sys::failpoint::hit;
use crate::sys::{barrier, clock, lock, process};

/// How long `open` goes on when segments keep being replaced under its hands.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a retired segment may keep its name before somebody else removes it.
const RETIREMENT: Duration = Duration::from_millis(100);

/// The byte of the file whose lock is the role.
pub(crate) fn byte_of(role: Role) -> u64 {
    u64::from(role == Role::Slave)
}

/// A segment with a role in it.
pub(crate) struct Joined {
    pub segment: Segment,
    pub role: Role,
    pub epoch: u64,
    /// The segment that this one replaced, if this process did it.
    pub predecessor: Option<Segment>,
}

/// What an attempt to join came to.
enum Attempt {
    Joined(Role, u64),
    /// The owner lost its lock but seems to run on: its descriptor was closed behind its back.
    Suspicious,
    Taken,
    /// The segment is on its way out.
    Again,
}

/// Opens a bus.
pub(crate) fn open(options: &Options) -> Result<Arc<Member>> {
    let mut joined = open_segment(options)?;
    let refused = joined.segment.prepare_memory(options);
    Ok(Member::new(options.clone(), joined, refused))
}

fn open_segment(options: &Options) -> Result<Joined> {
    segment::check_name(&options.name)?;
    check_times(options)?;
    let spec = Spec::first(options)?;
    let started = Instant::now();
    let mut pause = Duration::from_micros(20);
    while started.elapsed() < PATIENCE {
        let joined = match segment::attach_for(options, true)? {
            Some(segment) => join(segment, options, started)?,
            None if options.role == Role::Slave => {
                return Err(Error::NotFound { path: options.path().display().to_string() });
            }
            None => create(&spec)?,
        };
        if let Some(joined) = joined {
            return Ok(joined);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(2));
    }
    Err(Error::Timeout)
}

fn check_times(options: &Options) -> Result<()> {
    let bad = |what, value: Duration, why| {
        Err(Error::Config { what, value: value.as_micros() as u64, why })
    };
    if options.beat_interval < Duration::from_micros(100) {
        return bad("beat_interval (us)", options.beat_interval, "must be at least 100 us");
    }
    if options.stale_after < options.beat_interval * 2 {
        return bad("stale_after (us)", options.stale_after, "must be at least two beat intervals");
    }
    if options.mode & !0o777 != 0 || options.mode & 0o600 != 0o600 {
        let value = options.mode.into();
        let why = "must be permission bits that let the owner read and write";
        return Err(Error::Config { what: "mode", value, why });
    }
    Ok(())
}

/// Makes the segment, as its master. `None` if somebody else made one meanwhile.
fn create(spec: &Spec) -> Result<Option<Joined>> {
    leave::clear_tomb(&spec.path)?;
    let segment = Segment::build(spec)?;
    if !lock::try_lock(segment.fd(), byte_of(Role::Master))? {
        return Err(Error::Lost { what: "a segment without a name was locked" });
    }
    hit("create.locked")?;
    enroll(&segment, Role::Master, 1);
    hit("create.enrolled")?;
    // pairs OPEN: the name appears when all is there.
    let is_published = segment.publish(&spec.path)?;
    hit("create.published")?;
    let joined = Joined { segment, role: Role::Master, epoch: 1, predecessor: None };
    Ok(is_published.then_some(joined))
}

/// Takes a role in a segment that is there.
fn join(segment: Segment, options: &Options, started: Instant) -> Result<Option<Joined>> {
    check_asked(&segment, options)?;
    if is_doomed(&segment) {
        see_off(&segment, options, started)?;
        return Ok(None);
    }
    let wanted: &[Role] = match options.role {
        Role::Auto => &[Role::Master, Role::Slave],
        Role::Master => &[Role::Master],
        Role::Slave => &[Role::Slave],
    };
    for &role in wanted {
        match try_join(&segment, role)? {
            Attempt::Joined(role, epoch) => {
                return Ok(Some(Joined { segment, role, epoch, predecessor: None }));
            }
            Attempt::Again => return Ok(None),
            Attempt::Suspicious => return replace::fence(segment, role, options),
            Attempt::Taken => {}
        }
    }
    if options.takeover == Takeover::Always && options.role != Role::Auto {
        return replace::fence(segment, options.role, options);
    }
    let mut taken = Error::Timeout;
    for &role in wanted {
        let state = state_of_owner(&segment, role, options);
        let (PeerState::Hung(_) | PeerState::Alive) = state else { return Ok(None) };
        if options.takeover != Takeover::Never && matches!(state, PeerState::Hung(_)) {
            return replace::fence(segment, role, options);
        }
        // Relaxed: for the text of the error.
        let pid = segment.role(role).pid.load(Ordering::Relaxed);
        let is_moving = segment.role(role).state.load(Ordering::Relaxed) == ROLE_MOVING;
        let state = if is_moving { "moving" } else { state.name() };
        taken = Error::RoleTaken { role: options.role, pid, state };
    }
    Err(taken)
}

/// Geometry that was asked for must be there.
fn check_asked(segment: &Segment, options: &Options) -> Result<()> {
    let same = |what, asked: Option<u64>, found: u64| match asked {
        Some(asked) if asked != found => Err(Error::Geometry { what, asked, found }),
        _ => Ok(()),
    };
    for direction in Direction::BOTH {
        let (asked, found) = (options.asked[direction as usize], segment.geometry(direction));
        same("frame_size", asked.frame_size.map(u64::from), found.frame_size.into())?;
        same("frames", asked.frames, found.frames)?;
        same("overflow", asked.overflow.map(|o| o as u64), found.overflow as u64)?;
    }
    Ok(())
}

/// Whether the segment is being replaced or removed.
pub(crate) fn is_doomed(segment: &Segment) -> bool {
    let fate = &segment.header().fate;
    // pairs OPEN: acquire, so that a replacement seen here is whole.
    fate.sealed.load(Ordering::Acquire) != 0 || fate.successor.load(Ordering::Acquire) != 0
}

/// Helps a segment on its way out, if whoever should do it does not.
fn see_off(segment: &Segment, options: &Options, started: Instant) -> Result<()> {
    let fate = &segment.header().fate;
    // Relaxed: each helper below looks again.
    if fate.sealed.load(Ordering::Relaxed) != 0 {
        return replace::complete(segment, &options.name, None);
    }
    if started.elapsed() > RETIREMENT {
        leave::finish_retirement(segment)?;
    }
    Ok(())
}

/// Takes the role if its lock is free.
fn try_join(segment: &Segment, role: Role) -> Result<Attempt> {
    let lines = segment.role(role);
    if is_still_moving(lines) {
        return Ok(Attempt::Taken);
    }
    if !lock::try_lock(segment.fd(), byte_of(role))? {
        return Ok(Attempt::Taken);
    }
    hit("adopt.locked")?;
    let retry = |attempt| lock::unlock(segment.fd(), byte_of(role)).map(|()| attempt);
    if is_doomed(segment) || !segment.is_named()? {
        return retry(Attempt::Again);
    }
    if seems_to_run(lines) {
        return retry(Attempt::Suspicious);
    }
    // Relaxed: only holders of the lock write it, and the lock orders them.
    let epoch = lines.epoch.load(Ordering::Relaxed).wrapping_add(1);
    enroll(segment, role, epoch);
    hit("adopt.enrolled")?;
    // pairs SEAL: a sealer that this look misses sees the epoch just stored.
    fence(Ordering::SeqCst);
    if is_doomed(segment) {
        return retry(Attempt::Again);
    }
    Ok(Attempt::Joined(role, epoch))
}

/// Takes the role in a segment made anew, if it is free. The new epoch.
fn try_rejoin(segment: &Segment, role: Role) -> Result<Option<u64>> {
    if is_doomed(segment) {
        return Ok(None);
    }
    match try_join(segment, role)? {
        Attempt::Joined(_, epoch) => Ok(Some(epoch)),
        _ => Ok(None),
    }
}

/// Whether the owner lives on the segment before this one and has time left to come over.
fn is_still_moving(lines: &RoleLines) -> bool {
    // Relaxed: only delays whoever asks.
    let carried = lines.carried_ns.load(Ordering::Relaxed);
    lines.state.load(Ordering::Relaxed) == ROLE_MOVING
        && clock::boot_ns().wrapping_sub(carried) < MOVING_GRACE.as_nanos() as u64
}

/// The same for whoever would take all of it away: as long as that owner's process may run, however
/// long it was stopped.
fn may_still_come(lines: &RoleLines) -> bool {
    // Relaxed: as in `is_still_moving`.
    let is_moving = lines.state.load(Ordering::Relaxed) == ROLE_MOVING;
    is_still_moving(lines) || is_moving && owner_runs(lines)
}

/// How long the place of an owner that must move is kept for it.
const MOVING_GRACE: Duration = Duration::from_millis(300);

/// Whether the last owner, whose lock is free, runs on all the same. Its memory is still mapped, so
/// its place must not be taken over in place; fencing is safe against it.
fn seems_to_run(lines: &RoleLines) -> bool {
    // Relaxed: a wrong answer costs a rebuilt segment, or is what it would have been without asking.
    lines.state.load(Ordering::Relaxed) == ROLE_JOINED && owner_runs(lines)
}

/// Whether the process that is noted as a role's owner runs, as far as can be told from here.
fn owner_runs(lines: &RoleLines) -> bool {
    // Relaxed: it only ever makes its callers more careful.
    let pid = lines.pid.load(Ordering::Relaxed);
    lines.pid_ns.load(Ordering::Relaxed) == process::pid_namespace()
        && process::is_running(pid, lines.start_time.load(Ordering::Relaxed))
}

/// Writes the new owner of a role down. The caller holds its lock.
pub(crate) fn enroll(segment: &Segment, role: Role, epoch: u64) {
    let is_registered = barrier::register();
    let lines = segment.role(role);
    // Relaxed: the state below is released last; until then readers see the last owner.
    lines.epoch.store(epoch, Ordering::Relaxed);
    lines.pid.store(process::pid(), Ordering::Relaxed);
    lines.start_time.store(process::own_start_time(), Ordering::Relaxed);
    lines.pid_ns.store(process::pid_namespace(), Ordering::Relaxed);
    lines.capabilities.store(if is_registered { REGISTERED } else { 0 }, Ordering::Relaxed);
    lines.beat.fetch_add(1, Ordering::Relaxed);
    // pairs BEAT: whoever sees the state sees whose it is.
    lines.state.store(ROLE_JOINED, Ordering::Release);
    let out = segment.ring(role.writes());
    let back = segment.ring(role.peer().writes());
    for bell in [out.data_bell(), back.room_bell()] {
        bell.clear(crate::ring::LOOK);
        if !is_registered {
            // No heavy barrier reaches this process, so it fences at every look.
            bell.set(FENCE);
        }
    }
}

/// Writes down what the owner of a role wishes for the end.
fn note_wishes(segment: &Segment, role: Role, options: &Options) {
    if options.auto_cleanup {
        // Relaxed: read by whoever leaves, under the locks.
        segment.role(role).capabilities.fetch_or(CLEANUP, Ordering::Relaxed);
    }
}

/// Watches a living owner until it beats or the threshold is over.
fn state_of_owner(segment: &Segment, role: Role, options: &Options) -> PeerState {
    let mut watch = Watch::new(options.beat_interval, options.stale_after);
    let first_beat = segment.role(role).beat.load(Ordering::Relaxed);
    loop {
        let sight = sight_of(segment, role);
        watch.look(sight);
        let is_held = lock::is_locked_by_other(segment.fd(), byte_of(role)).unwrap_or(false);
        watch.probe(is_held);
        let has_verdict = watch.state() != PeerState::Alive || sight.beat != first_beat;
        if has_verdict {
            return watch.state();
        }
        std::thread::sleep(options.beat_interval.min(Duration::from_millis(1)));
    }
}

/// What can be seen of a role now.
pub(crate) fn sight_of(segment: &Segment, role: Role) -> Sight {
    let lines = segment.role(role);
    Sight {
        now_ns: clock::monotonic_ns(),
        // pairs BEAT: acquire, so that the owner seen is at least as new as the state.
        state: lines.state.load(Ordering::Acquire),
        beat: lines.beat.load(Ordering::Relaxed),
        epoch: lines.epoch.load(Ordering::Relaxed),
    }
}
