//! Putting a new slot in the place of one that a hung process may still write to.
//!
//! ```text
//!   take      a slot that nobody uses, allocated and empty
//!   seal      fate.sealed, SEALED in every bell, heavy barrier
//!   cut       where both rings end: computed after the barrier, written to a record, and chosen by
//!             one compare-and-swap, so that all who try agree
//!   rebuild   what is unread before the cut goes into the new slot
//!   roles     the replaced owner's goes to this process; the other's is kept for its owner
//!   swap      header.turn: old slot -> new slot. The one point at which the replacement happens
//! ```
//!
//! After the barrier every process either shows its last operation to the scan, or sees `SEALED`
//! when that operation ends, or both. An operation that ends with `SEALED` waits for the cut: what
//! lies before it is done, what lies behind was never done. So nothing that a hung process writes
//! later is ever delivered, and nothing that it was told is done is lost.
//!
//! Killed or frozen anywhere, the next one starts again at the top: a second seal changes nothing, a
//! second cut loses its swap, a second slot too, and is given back.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Joined, Seat, byte_of, enroll, keep_only, pid_at};
use crate::config::{Direction, Options, Role};
use crate::error::{Error, Result};
use crate::layout::*;
use crate::ring::{Place, SEALED as SEALED_BIT};
use crate::segment::{BusFile, Segment};
use crate::sync::{self, Ordering};
use crate::sys::failpoint::hit;
use crate::sys::{barrier, clock, futex};

/// How long whoever began a replacement may take before another one does it. Short enough for those
/// who wait if it was killed; long enough for the barrier, which takes 10 to 20 ms, on a machine that
/// is busy: who is overtaken has to see all over again that the owner it came to replace hangs.
const COURTESY: Duration = Duration::from_millis(100);
/// In place of a barrier that is refused.
const SETTLING: Duration = Duration::from_millis(20);
/// How long a living endpoint waits for its place in the slot that replaced its own, before it makes
/// another one.
const QUEUE: Duration = Duration::from_millis(500);
/// Slots that one move may go through; only somebody hostile, or a crowd of frozen processes, makes
/// more.
const MOVES_MOST: usize = 64;

/// Where one ring ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CutRing {
    pub head: Place,
    pub tail: Place,
}

/// Whose place is to be taken, and what was seen of it when that was decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict {
    pub role: Role,
    /// Beat and epoch of an owner that was found to hang; `None` if its state does not matter.
    pub seen: Option<(u64, u64)>,
}

impl Verdict {
    /// Whether the owner has not moved since.
    fn still_holds(&self, segment: &Segment) -> bool {
        let lines = segment.role(self.role);
        // Relaxed: a heart that began to beat in this very moment may be overlooked.
        let now = (lines.beat.load(Ordering::Relaxed), lines.epoch.load(Ordering::Relaxed));
        self.seen.is_none_or(|seen| seen == now)
    }
}

/// Replaces the owner of a role and takes its place; without a verdict nobody is replaced, and only a
/// new slot made. `None` if there is no new owner: somebody else was faster, or nobody was to be
/// one.
pub(super) fn replace(
    source: BusFile,
    turn: Turn,
    replaced: Option<Verdict>,
    options: &Options,
) -> Result<Option<Joined>> {
    let Some(from) = turn.slot() else { return Ok(None) };
    // What takes long comes first: once it is sealed, everybody waits for the new slot.
    barrier::register();
    let Some(target) = open_again(&source, options)? else { return Ok(None) };
    let Some(slot) = target.take_slot(turn)? else { return Ok(None) };
    let new = target.map_slot(slot)?;
    build(source, turn, from, new, replaced, options)
}

/// A second description of the same file, for locks of its own.
fn open_again(bus: &BusFile, options: &Options) -> Result<Option<BusFile>> {
    Ok(BusFile::open(options)?.filter(|again| again.facts().id == bus.facts().id))
}

/// Fills a slot that was taken, and makes it count.
fn build(
    source: BusFile,
    turn: Turn,
    from: usize,
    mut new: Segment,
    replaced: Option<Verdict>,
    options: &Options,
) -> Result<Option<Joined>> {
    // As long as it is read nobody uses it again.
    if !source.try_lock_as_reader(from)? || source.turn() != turn {
        return give_back(new);
    }
    let old = source.map_slot(from)?;
    let filled = fill(&old, &mut new, turn, replaced, options);
    // Whatever went wrong, went wrong because of others if the turn is another by now.
    if !old.is_current() {
        return give_back(new);
    }
    let replaced = match filled {
        Ok(replaced) => replaced,
        Err(error) => {
            give_back(new)?;
            return Err(error);
        }
    };
    keep_only(&new, replaced)?;
    hit("replace.ready")?;
    if !new.bus().swap_turn(turn, Some(new.slot())) {
        return give_back(new);
    }
    hit("replace.swapped")?;
    let Some(role) = replaced else { return Ok(None) };
    // Relaxed: written by this very call.
    let epoch = new.role(role).epoch.load(Ordering::Relaxed);
    Ok(Some(Joined { segment: new, role, epoch }))
}

/// Gives a slot back that will not count. Its memory is not mapped any more when its pages go.
fn give_back(new: Segment) -> Result<Option<Joined>> {
    let slot = new.slot();
    let bus = new.unmap();
    // One byte is held, so nobody has taken the slot; all of them, so nobody maps it.
    if bus.try_lock(crate::segment::bytes_of(slot))? {
        bus.wipe(slot)?;
    }
    Ok(None)
}

/// Seals, cuts, and puts into the new slot what is unread and who is there. The role that was taken
/// over: none if its owner has shown since the verdict that it lives.
fn fill(
    old: &Segment,
    new: &mut Segment,
    turn: Turn,
    verdict: Option<Verdict>,
    options: &Options,
) -> Result<Option<Role>> {
    seal(old)?;
    let cut = choose_cut(old, 2 + new.slot())?;
    for direction in Direction::BOTH {
        let ends = cut[direction as usize];
        new.ring(direction).rebuild(&old.ring(direction), ends.tail, ends.head)?;
    }
    hit("rebuild.copied")?;
    // Relaxed: the new slot does not count yet.
    new.page().lineage.store(old.lineage(), Ordering::Relaxed);
    new.repeat_schemas(old);
    let replaced = verdict.filter(|verdict| verdict.still_holds(old)).map(|verdict| verdict.role);
    for role in [Role::Master, Role::Slave] {
        carry_over(old, new, role)?;
        if replaced == Some(role) {
            let epoch = old.role(role).epoch.load(Ordering::Relaxed).wrapping_add(1);
            enroll(new, role, epoch, options);
        }
    }
    new.date(turn.next(Some(new.slot())));
    hit("rebuild.done")?;
    Ok(replaced)
}

/// Finishes a replacement that somebody began, replacing nobody.
pub(super) fn complete(source: BusFile, turn: Turn, options: &Options) -> Result<()> {
    replace(source, turn, None, options).map(|_| ())
}

/// Stops everybody who uses the slot, at the end of the operation that they are in.
pub(super) fn seal(segment: &Segment) -> Result<()> {
    // pairs SEAL: the fence and the barrier below carry the order.
    segment.page().fate.sealed.store(SEALED, Ordering::Release);
    hit("seal.begun")?;
    for direction in Direction::BOTH {
        let ring = segment.ring(direction);
        ring.data_bell().set(SEALED_BIT);
        ring.room_bell().set(SEALED_BIT);
    }
    hit("seal.rung")?;
    // pairs SEAL: who takes a role meanwhile sees the seal behind a fence of its own, or is here.
    sync::fence(Ordering::SeqCst);
    if !barrier::global() {
        // Refused, by a filter or by a kernel whose cores are not to be disturbed. No processor
        // keeps a store to itself for as long as this.
        barrier::heavy();
        clock::sleep(SETTLING);
    }
    for direction in Direction::BOTH {
        let ring = segment.ring(direction);
        futex::wake(ring.data_bell().0, i32::MAX);
        futex::wake(ring.room_bell().0, i32::MAX);
    }
    Ok(())
}

/// The cut of a sealed slot: the one chosen before, or ours. The caller holds the lock to which the
/// record belongs, and nobody else in its process uses it: so whoever wrote there before is gone,
/// and will not choose it any more.
pub(super) fn choose_cut(segment: &Segment, record: usize) -> Result<[CutRing; 2]> {
    let fate = &segment.page().fate;
    if let Some(cut) = cut_of(segment) {
        return Ok(cut);
    }
    let lines = &segment.page().cuts[record];
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
    let _ = fate.cut.compare_exchange(0, record as u32 + 1, Ordering::AcqRel, Ordering::Acquire);
    futex::wake(&fate.cut, i32::MAX);
    hit("cut.chosen")?;
    cut_of(segment).ok_or(Error::Corrupt { what: "a cut without a place" })
}

/// The cut of a slot in which this process has a role, and so a record. Whoever sealed it may have
/// died: after a moment of courtesy this process chooses the cut itself.
pub(super) fn wait_for_cut(segment: &Segment, role: Role) -> Result<[CutRing; 2]> {
    let started = clock::Instant::now();
    while started.elapsed() < COURTESY {
        if let Some(cut) = cut_of(segment) {
            return Ok(cut);
        }
        if segment.bus().turn().is_retired() {
            return Err(removed());
        }
        futex::wait(&segment.page().fate.cut, 0, Duration::from_millis(1));
    }
    seal(segment)?;
    choose_cut(segment, usize::from(role == Role::Slave))
}

/// What is told of a bus that was removed under its endpoints.
pub(super) fn removed() -> Error {
    Error::Lost { what: "it was removed", unread: 0 }
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
    let [head, tail] = [cut.head, cut.tail].map(|place| age_of(&place));
    store(&lines.ages, head | tail << 32);
}

/// How many owners lie between the last message before a place and what was announced there.
fn age_of(place: &Place) -> u64 {
    place.epoch.saturating_sub(place.last_epoch).min(u64::from(u32::MAX))
}

/// The cut, if it was chosen.
pub(crate) fn cut_of(segment: &Segment) -> Option<[CutRing; 2]> {
    // pairs SEAL: acquire, so that the slot is whole.
    let chosen = segment.page().fate.cut.load(Ordering::Acquire);
    let lines = segment.page().cuts.get((chosen as usize).checked_sub(1)?)?;
    let load = |word: &crate::sync::AtomicU64| word.load(Ordering::Relaxed);
    Some([0, 1].map(|index| {
        // Relaxed: behind the acquire above.
        let ring = &lines.rings[index];
        let (ages, head_epoch, tail_epoch) =
            (load(&ring.ages), load(&ring.head_epoch), load(&ring.tail_epoch));
        CutRing {
            head: Place {
                pos: load(&ring.head),
                number: load(&ring.head_number),
                epoch: head_epoch,
                last_epoch: head_epoch.saturating_sub(ages & u64::from(u32::MAX)),
                bytes: load(&ring.bytes),
            },
            tail: Place {
                pos: load(&ring.tail),
                number: load(&ring.tail_number),
                epoch: tail_epoch,
                last_epoch: tail_epoch.saturating_sub(ages >> 32),
                bytes: 0,
            },
        }
    }))
}

/// Writes down in the new slot what the old one says of a role; if its owner lives the role is kept
/// for it.
fn carry_over(old: &Segment, new: &Segment, role: Role) -> Result<()> {
    let (from, to) = (old.role(role), new.role(role));
    // pairs BEAT: acquire, the rest belongs to this state or a newer one. Loaded once: its owner may
    // leave, or just have come over.
    let state = from.state.load(Ordering::Acquire);
    copy_role(from, to);
    // Relaxed, here and below: the new slot does not count yet.
    let kept = match state {
        ROLE_JOINED => Some(old.keeper(role)),
        // Without a keeper it has just come over, and is about to say so.
        ROLE_MOVING => {
            Some(Keeper::from_word(from.keeper.load(Ordering::Relaxed)).unwrap_or(old.keeper(role)))
        }
        _ => None,
    };
    let is_kept = new.bus().is_kept(kept)?;
    let word = kept.filter(|_| is_kept).map_or(0, Keeper::to_word);
    to.keeper.store(word, Ordering::Relaxed);
    let state = match (kept, is_kept) {
        (None, _) => state,
        (Some(_), true) => ROLE_MOVING,
        (Some(_), false) => ROLE_JOINED,
    };
    to.state.store(state, Ordering::Relaxed);
    Ok(())
}

fn copy_role(from: &RoleLines, to: &RoleLines) {
    // Relaxed: the new slot does not count yet.
    let copy = |to: &crate::sync::AtomicU64, from: &crate::sync::AtomicU64| {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    };
    copy(&to.epoch, &from.epoch);
    copy(&to.start_time, &from.start_time);
    copy(&to.pid_ns, &from.pid_ns);
    copy(&to.beat, &from.beat);
    copy(&to.progress, &from.progress);
    for (to, from) in [
        (&to.pid, &from.pid),
        (&to.capabilities, &from.capabilities),
        (&to.wish, &from.wish),
        (&to.beat_interval_us, &from.beat_interval_us),
    ] {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Takes the place that is kept for the owner of a seat in the slot that counts now; never waits.
/// `None` if the bus still counts the old slot, or somebody is in the way for a moment.
pub(super) fn try_move(seat: &Seat, options: &Options, role: Role) -> Result<Option<Segment>> {
    let old = &seat.segment;
    let turn = old.bus().turn();
    let Some(slot) = turn.slot() else { return Err(removed()) };
    if turn == old.turn() {
        return Ok(None);
    }
    let Some(bus) = open_again(old.bus(), options)? else {
        return Err(Error::Lost { what: "it was replaced, and its name is gone", unread: 0 });
    };
    let byte = byte_of(slot, role);
    let is_ours = bus.try_lock(byte..byte + 1)?;
    hit("move.locked")?;
    if !is_ours {
        hit("move.refused")?;
    }
    // The lock and the copy first, the look afterwards: a slot that is not used any more is neither
    // entered nor believed.
    let page = bus.look_at_page(slot)?;
    if bus.turn() != turn {
        return Ok(None);
    }
    check_kept(&page.roles[usize::from(role == Role::Slave)], seat, role)?;
    if !is_ours {
        return Ok(None);
    }
    let new = bus.map_slot(slot)?;
    hit("move.checked")?;
    enroll(&new, role, seat.epoch, options);
    hit("move.enrolled")?;
    // pairs SEAL: as in `try_join`. A builder that is not seen afterwards finds this owner here.
    sync::fence(Ordering::SeqCst);
    Ok(Some(new))
}

/// Whether a role is kept for the owner of a seat.
fn check_kept(lines: &RoleLines, seat: &Seat, role: Role) -> Result<()> {
    // Relaxed: a private copy.
    let keeper = lines.keeper.load(Ordering::Relaxed);
    let mut homes = std::iter::once(&seat.segment).chain(&seat.before);
    let is_kept = lines.state.load(Ordering::Relaxed) == ROLE_MOVING
        && lines.epoch.load(Ordering::Relaxed) == seat.epoch
        && homes.any(|home| home.keeper(role).to_word() == keeper);
    if is_kept {
        return Ok(());
    }
    let (by_pid, is_foreign) = pid_at(lines);
    Err(Error::Fenced { role, by_pid, is_foreign })
}

/// Moves a living owner from a sealed slot to the one that counts, and makes that one itself if
/// nobody else does.
pub(super) fn move_over(seat: &Seat, options: &Options, role: Role) -> Result<Segment> {
    let old = &seat.segment;
    for _ in 0..MOVES_MOST {
        let seen = old.bus().turn();
        let is_replaced = seen != old.turn();
        let wait = |patience: Duration, tries: bool| -> Result<Option<Segment>> {
            let started = clock::Instant::now();
            while old.bus().turn() == seen && started.elapsed() < patience {
                if tries && let Some(new) = try_move(seat, options, role)? {
                    return Ok(Some(new));
                }
                clock::sleep(Duration::from_micros(50));
            }
            Ok(None)
        };
        if let Some(new) = wait(if is_replaced { QUEUE } else { COURTESY }, true)? {
            return Ok(new);
        }
        // Whoever began to replace the slot has died or was stopped; or somebody who was stopped is
        // in the way in the slot that counts now. If it is another one by now, look there first.
        let Some(bus) = open_again(old.bus(), options)? else {
            return Err(Error::Lost { what: "its name is gone while it is replaced", unread: 0 });
        };
        if bus.turn() == seen
            && let Err(error) = complete(bus, seen, options)
        {
            // There may be no room for a slot of ours; that of another one may be on its way.
            wait(QUEUE, false)?;
            if old.bus().turn() == seen {
                return Err(error);
            }
        }
    }
    Err(Error::Timeout)
}
