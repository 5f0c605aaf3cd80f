//! Putting a new segment in the place of one that a hung process may still write to.
//!
//! ```text
//!   build     a nameless segment of the same shape
//!   seal      fate.sealed, SEALED in every bell, heavy barrier
//!   cut       where both rings end: computed after the barrier, written to a slot, and chosen by
//!             one compare-and-swap, so that all who try agree
//!   rebuild   what is unread before the cut goes into the new segment
//!   link      it gets a temporary name with a random token
//!   succeed   fate.successor: 0 -> token. The one point at which the replacement happens
//!   rename    the temporary name becomes the name; anybody may do this again
//! ```
//!
//! After the barrier every process either shows its last operation to the scan, or sees `SEALED`
//! when that operation ends, or both. An operation that ends with `SEALED` waits for the cut: what
//! lies before it is done, what lies behind was never done. So nothing that a hung process writes
//! later is ever delivered, and nothing that it was told is done is lost.
//!
//! Killed or frozen anywhere, the next one starts again at the top: a second seal changes nothing, a
//! second cut loses the swap, a second successor too, and its temporary file is taken away. A frozen
//! one that wakes up finds its swap lost, or its rename already done: the token names one file only.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Joined, byte_of, enroll};
use crate::config::{Direction, Options, Role};
use crate::error::{Error, Result};
use crate::layout::*;
use crate::ring::{Place, SEALED as SEALED_BIT};
use crate::segment::{Segment, random};
use crate::sync::{self, Ordering};
use crate::sys::failpoint::hit;
use crate::sys::{barrier, clock, futex, lock, shm};

/// How long whoever began a replacement may take before another one does it. Short enough for those
/// who wait if it was killed; long enough for one that a busy machine keeps from its core: who is
/// overtaken has to see all over again that the owner it came to replace hangs.
const COURTESY: Duration = Duration::from_millis(25);
/// How long an endpoint looks for the segment that replaced its own.
const SEARCH: Duration = Duration::from_millis(500);

/// Where one ring ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CutRing {
    pub head: Place,
    pub tail: Place,
}

/// Replaces the owner of `role` and takes its place. `None` if somebody else was faster.
pub(super) fn fence(old: Segment, role: Role, options: &Options) -> Result<Option<Joined>> {
    let new = build_successor(&old, &options.name, None, Some(role))?;
    if !succeed(&old, &new)? {
        return Ok(None);
    }
    // Relaxed: written by this very call.
    let epoch = new.role(role).epoch.load(Ordering::Relaxed);
    Ok(Some(Joined { segment: new, role, epoch, predecessor: Some(old) }))
}

/// Finishes a replacement that somebody began: builds the new segment, replacing nobody. `me` is a
/// role whose lock on the old segment this process holds itself.
pub(super) fn complete(old: &Segment, name: &str, me: Option<Role>) -> Result<()> {
    // pairs OPEN: acquire, so that what the token names is whole.
    if old.header().fate.successor.load(Ordering::Acquire) == 0 {
        let new = build_successor(old, name, me, None)?;
        succeed(old, &new)?;
    }
    give_name(old)
}

/// Seals, cuts and rebuilds.
fn build_successor(
    old: &Segment,
    name: &str,
    me: Option<Role>,
    replaced: Option<Role>,
) -> Result<Segment> {
    // What takes long comes first: once it is sealed, everybody waits for the new segment.
    barrier::register();
    let new = Segment::build(&old.next_spec(name))?;
    seal(old)?;
    let cut = choose_cut(old)?;
    for direction in Direction::BOTH {
        let ends = cut[direction as usize];
        new.ring(direction).rebuild(&old.ring(direction), ends.tail, ends.head)?;
    }
    hit("rebuild.copied")?;
    for role in [Role::Master, Role::Slave] {
        if replaced == Some(role) {
            succeed_in(old, &new, role)?;
        } else {
            carry_over(old, &new, role, me == Some(role))?;
        }
    }
    hit("rebuild.done")?;
    Ok(new)
}

/// Stops everybody who uses the segment, at the end of the operation that they are in.
pub(super) fn seal(segment: &Segment) -> Result<()> {
    let header = segment.header();
    // Relaxed: a role that joins later sees the seal before it does anything.
    let needs_heavy =
        header.roles.iter().any(|role| role.capabilities.load(Ordering::Relaxed) & REGISTERED != 0);
    if needs_heavy && !barrier::heavy() {
        // Without it a seal could be overlooked; better not to begin.
        let errno = libc::EPERM;
        return Err(crate::sys::os_error(
            "membarrier, needed to fence",
            segment.path.display(),
            errno,
        ));
    }
    // pairs SEAL: the heavy barrier below carries the order.
    header.fate.sealed.store(SEALED, Ordering::Release);
    hit("seal.begun")?;
    for direction in Direction::BOTH {
        let ring = segment.ring(direction);
        ring.data_bell().set(SEALED_BIT);
        ring.room_bell().set(SEALED_BIT);
    }
    hit("seal.rung")?;
    sync::fence(Ordering::SeqCst);
    if needs_heavy && !barrier::heavy() {
        return Err(crate::sys::os_error("membarrier", segment.path.display(), libc::EPERM));
    }
    for direction in Direction::BOTH {
        let lines = segment.ring(direction);
        futex::wake(lines.data_bell().0, i32::MAX);
        futex::wake(lines.room_bell().0, i32::MAX);
    }
    Ok(())
}

/// The cut of a sealed segment: the one chosen before, or ours.
pub(super) fn choose_cut(segment: &Segment) -> Result<[CutRing; 2]> {
    let fate = &segment.header().fate;
    if let Some(cut) = cut_of(segment) {
        return Ok(cut);
    }
    // Relaxed: only hands out slots.
    let slot = fate.cuts_taken.fetch_add(1, Ordering::Relaxed) as usize;
    let Some(lines) = segment.header().cuts.get(slot) else {
        return Err(Error::Corrupt { what: "a cut that nobody finishes" });
    };
    for direction in Direction::BOTH {
        let ring = segment.ring(direction);
        let head = ring.find_head(None)?;
        let mut tail = ring.find_tail();
        // A reader may have stored a tail over frames that were committed after the barrier; it
        // will take that back.
        if (head.pos.wrapping_sub(tail.pos) as i64) < 0 {
            tail = Place { bytes: 0, ..head };
        }
        ring.check_distance(tail.pos, head.pos)?;
        store_cut(&lines.rings[direction as usize], CutRing { head, tail });
    }
    hit("cut.noted")?;
    // pairs SEAL: released with the choice; who loses the swap uses the winner's.
    let _ = fate.cut.compare_exchange(0, slot as u32 + 1, Ordering::AcqRel, Ordering::Acquire);
    futex::wake(&fate.cut, i32::MAX);
    hit("cut.chosen")?;
    cut_of(segment).ok_or(Error::Corrupt { what: "a cut without a place" })
}

/// The cut of a segment that this process is in. Whoever sealed it may have died: after a moment of
/// courtesy this process chooses the cut itself.
pub(crate) fn wait_for_cut(segment: &Segment) -> Result<[CutRing; 2]> {
    let started = Instant::now();
    while started.elapsed() < COURTESY {
        if let Some(cut) = cut_of(segment) {
            return Ok(cut);
        }
        futex::wait(&segment.header().fate.cut, 0, Duration::from_millis(1));
    }
    seal(segment)?;
    choose_cut(segment)
}

fn store_cut(lines: &RingCut, cut: CutRing) {
    // Relaxed: released by the choice of the slot.
    let store = |word: &crate::sync::AtomicU64, value| word.store(value, Ordering::Relaxed);
    store(&lines.head, cut.head.pos);
    store(&lines.head_number, cut.head.number);
    store(&lines.head_epoch, cut.head.epoch);
    store(&lines.bytes, cut.head.bytes);
    store(&lines.tail, cut.tail.pos);
    store(&lines.tail_number, cut.tail.number);
    store(&lines.tail_epoch, cut.tail.epoch);
}

/// The cut, if it was chosen.
pub(super) fn cut_of(segment: &Segment) -> Option<[CutRing; 2]> {
    // pairs SEAL: acquire, so that the slot is whole.
    let chosen = segment.header().fate.cut.load(Ordering::Acquire);
    let lines = segment.header().cuts.get((chosen as usize).checked_sub(1)?)?;
    let load = |word: &crate::sync::AtomicU64| word.load(Ordering::Relaxed);
    Some([0, 1].map(|index| {
        // Relaxed: behind the acquire above.
        let ring = &lines.rings[index];
        CutRing {
            head: Place {
                pos: load(&ring.head),
                number: load(&ring.head_number),
                epoch: load(&ring.head_epoch),
                bytes: load(&ring.bytes),
            },
            tail: Place {
                pos: load(&ring.tail),
                number: load(&ring.tail_number),
                epoch: load(&ring.tail_epoch),
                bytes: 0,
            },
        }
    }))
}

/// Takes a role in the new segment, as the successor of its owner in the old one.
fn succeed_in(old: &Segment, new: &Segment, role: Role) -> Result<()> {
    copy_role(old.role(role), new.role(role));
    lock::try_lock(new.fd(), byte_of(role))?;
    // Relaxed: the seal keeps others from joining; see `try_join`.
    enroll(new, role, old.role(role).epoch.load(Ordering::Relaxed).wrapping_add(1));
    Ok(())
}

/// Keeps a role in the new segment for its owner in the old one.
fn carry_over(old: &Segment, new: &Segment, role: Role, is_me: bool) -> Result<()> {
    let (from, to) = (old.role(role), new.role(role));
    copy_role(from, to);
    let is_held = is_me || lock::is_locked_by_other(old.fd(), byte_of(role))?;
    // Relaxed: the new segment is still private.
    if is_held && from.state.load(Ordering::Relaxed) == ROLE_JOINED {
        to.carried_ns.store(clock::boot_ns(), Ordering::Relaxed);
        to.state.store(ROLE_MOVING, Ordering::Relaxed);
    }
    Ok(())
}

fn copy_role(from: &RoleLines, to: &RoleLines) {
    // Relaxed: the new segment is still private.
    let copy = |to: &crate::sync::AtomicU64, from: &crate::sync::AtomicU64| {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    };
    copy(&to.epoch, &from.epoch);
    copy(&to.start_time, &from.start_time);
    copy(&to.pid_ns, &from.pid_ns);
    copy(&to.carried_ns, &from.carried_ns);
    copy(&to.beat, &from.beat);
    copy(&to.progress, &from.progress);
    for (to, from) in
        [(&to.pid, &from.pid), (&to.state, &from.state), (&to.capabilities, &from.capabilities)]
    {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Makes `new` the successor of `old`. False if there is one already.
fn succeed(old: &Segment, new: &Segment) -> Result<bool> {
    let token = random();
    let temporary = temporary_path(&old.path, token);
    if !new.publish(&temporary)? {
        return Ok(false);
    }
    hit("succeed.linked")?;
    let successor = &old.header().fate.successor;
    // pairs OPEN: the temporary name leads to a whole segment before its token is known.
    if successor.compare_exchange(0, token, Ordering::AcqRel, Ordering::Acquire).is_err() {
        shm::unlink(&temporary)?;
        return Ok(false);
    }
    hit("succeed.chosen")?;
    give_name(old)?;
    hit("succeed.named")?;
    Ok(true)
}

/// Gives the successor of a segment its name, if that was not done yet.
pub(super) fn give_name(old: &Segment) -> Result<()> {
    // pairs OPEN: as in `complete`.
    let token = old.header().fate.successor.load(Ordering::Acquire);
    if token == 0 || token == RETIRED {
        return Ok(());
    }
    let temporary = temporary_path(&old.path, token);
    match shm::facts_at(&old.path)? {
        Some(facts) if facts.id == old.id => match shm::rename(&temporary, &old.path) {
            // Somebody else did it.
            Err(Error::Os { errno, .. }) if errno == libc::ENOENT => Ok(()),
            done => done,
        },
        Some(_) => Ok(()),
        None => match shm::rename_noreplace(&temporary, &old.path) {
            Err(Error::Os { errno, .. }) if errno == libc::ENOENT => Ok(()),
            done => done.map(|_| ()),
        },
    }
}

/// Where the successor with this token lies until it gets its name. `~` is in no name.
fn temporary_path(path: &Path, token: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("~{token:016x}"));
    PathBuf::from(name)
}

/// Moves a living owner from a sealed segment to the one that replaced it.
pub(super) fn move_over(
    old: &Segment,
    options: &Options,
    role: Role,
    epoch: u64,
) -> Result<Segment> {
    let started = Instant::now();
    loop {
        let waited = started.elapsed();
        // pairs OPEN: as in `complete`.
        let successor = old.header().fate.successor.load(Ordering::Acquire);
        if successor == RETIRED {
            return Err(Error::Lost { what: "it was removed" });
        }
        if successor != 0 || waited >= COURTESY {
            complete(old, &options.name, Some(role))?;
            if let Some(new) = try_move(old, options, role, epoch)? {
                return Ok(new);
            }
        }
        if waited >= SEARCH {
            return Err(Error::Lost { what: "its name leads to no segment that follows it" });
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Takes the place that was kept in the new segment. `None` if it is not there, or busy.
fn try_move(old: &Segment, options: &Options, role: Role, epoch: u64) -> Result<Option<Segment>> {
    let Some(new) = crate::segment::attach_for(options, true)? else { return Ok(None) };
    if new.lineage != old.lineage || new.generation <= old.generation {
        return Ok(None);
    }
    let lines = new.role(role);
    let fenced = || {
        // Relaxed: for the text of the error.
        let by_pid = lines.pid.load(Ordering::Relaxed);
        // Relaxed: the epoch only grows, and whoever raised it holds or held the lock.
        (lines.epoch.load(Ordering::Relaxed) != epoch).then_some(Error::Fenced { role, by_pid })
    };
    if let Some(error) = fenced() {
        return Err(error);
    }
    hit("move.found")?;
    if !lock::try_lock(new.fd(), byte_of(role))? {
        return Ok(None);
    }
    hit("move.locked")?;
    if let Some(error) = fenced() {
        return Err(error);
    }
    enroll(&new, role, epoch);
    Ok(Some(new))
}
