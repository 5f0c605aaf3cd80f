//! Who holds a role: create, open, adopt, replace, leave.
//!
//! ```text
//!                     no such name                        both have left, the rule allows it
//!            open ---------------------> created ----+    +------------> retired, name removed
//!              |                                     v    |
//!              |  name found, role's lock free     joined ------ killed ----> lock freed
//!              +-----------------------------------> ^ |                         |
//!              |      (adopt: epoch + 1)             | | hung                    | adopt
//!              |                                     | v                         v
//!              |  lock held, owner hung            fenced: the slot is      a successor
//!              +---------------------------------> sealed, cut, rebuilt in the next
//! ```
//!
//! The kernel decides: a role is held by whoever holds the record lock on its byte of the bus's
//! file. It is freed only when no instruction of the owner can touch the memory any more. Everything
//! else here can be interrupted anywhere and done again by the next one; what must happen at most
//! once is one compare-and-swap of the header's `turn`.
//!
//! This file must never decide anything from a pid, a beat or a flag in shared memory. Read next:
//! `docs/one-file.md`, then `session/replace.rs`.
#![forbid(unsafe_code)]

mod leave;
mod member;
mod replace;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use leave::{Removal, Taking, remove_by_hand, unread_in};
pub(crate) use member::{Member, Seat, peer_from, pid_at};
use replace::Verdict;
pub(crate) use replace::{CutRing, cut_of};

use crate::config::{Direction, Options, Role, Takeover};
use crate::error::{Error, Result};
use crate::layout::*;
use crate::peer::{Sight, Watch};
use crate::ring::FENCE;
use crate::schema::Schema;
use crate::segment::{self, BusFile, Segment, byte_of, bytes_of};
use crate::stats::PeerState;
use crate::sync::{Ordering, fence};
use crate::sys::failpoint::hit;
use crate::sys::{barrier, clock, process};

/// How long `open` goes on when the bus keeps changing under its hands.
const PATIENCE: Duration = Duration::from_secs(10);

/// A segment with a role in it.
pub(crate) struct Joined {
    pub segment: Segment,
    pub role: Role,
    pub epoch: u64,
}

/// What an attempt to take a role came to.
enum Attempt {
    Joined(Joined),
    /// Somebody holds the role, or it is kept for somebody.
    Taken(BusFile),
    /// The bus has changed; begin anew.
    Again,
}

/// Opens a bus.
pub(crate) fn open(options: &Options) -> Result<Arc<Member>> {
    segment::check_name(&options.name)?;
    check_times(options)?;
    options.says.iter().flatten().try_for_each(Schema::check)?;
    let started = clock::Instant::now();
    let mut began = started;
    let mut pause = Duration::from_micros(20);
    while began.elapsed() < PATIENCE {
        let joined = match BusFile::open(options)? {
            Some(bus) => enter(bus, options),
            None if options.role == Role::Slave => Err(not_found(options)),
            None => create(options),
        };
        match joined {
            Ok(Some(mut joined)) => {
                joined.segment.settle();
                return Ok(Member::new(options.clone(), joined));
            }
            Ok(None) => {}
            // A master may come.
            Err(Error::NotFound { .. }) if started.elapsed() < options.open_timeout => {
                began = clock::Instant::now();
            }
            Err(error) => return Err(error),
        }
        clock::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(2));
    }
    Err(Error::Timeout)
}

fn not_found(options: &Options) -> Error {
    Error::NotFound { path: options.path().display().to_string() }
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
    if let Some(mode) = options.mode.filter(|mode| mode & !0o777 != 0 || mode & 0o600 != 0o600) {
        let why = "must be permission bits that let the owner read and write";
        return Err(Error::Config { what: "mode", value: mode.into(), why });
    }
    Ok(())
}

/// Makes the bus, as its master. `None` if somebody else made one meanwhile.
fn create(options: &Options) -> Result<Option<Joined>> {
    let bus = BusFile::create(options)?;
    let turn = bus.turn();
    let Some(joined) = begin(bus, turn, options)? else { return Ok(None) };
    // pairs TURN: the name appears when all is there.
    let is_published = joined.segment.bus().publish()?;
    hit("create.published")?;
    Ok(is_published.then_some(joined))
}

/// Begins a bus in a file without one, new or retired: an empty slot, with this process as the
/// master. `None` if somebody else was faster.
fn begin(bus: BusFile, turn: Turn, options: &Options) -> Result<Option<Joined>> {
    let Some(slot) = bus.take_slot(turn)? else { return Ok(None) };
    let mut segment = bus.map_slot(slot)?;
    segment.format(process::random());
    segment.say_schemas(options.schemas_as(Role::Master));
    hit("begin.formatted")?;
    enroll(&segment, Role::Master, 1, options);
    segment.date(turn.next(Some(slot)));
    keep_only(&segment, Some(Role::Master))?;
    hit("begin.enrolled")?;
    let has_begun = segment.bus().swap_turn(turn, Some(slot));
    hit("begin.swapped")?;
    Ok(has_begun.then_some(Joined { segment, role: Role::Master, epoch: 1 }))
}

/// Gives the locks of a slot in the making back, but for that of the role that is held, or else the
/// builder's: as long as one of them is held nobody takes the slot.
fn keep_only(segment: &Segment, role: Option<Role>) -> Result<()> {
    let slot = segment.slot();
    let kept = role.map_or(locks_of(slot) + BUILDER, |role| byte_of(slot, role));
    let bytes = bytes_of(slot);
    for byte in bytes.filter(|&byte| byte != kept) {
        segment.bus().unlock(byte..byte + 1)?;
    }
    Ok(())
}

/// Takes a role of a bus that is there. `None` to begin anew.
fn enter(bus: BusFile, options: &Options) -> Result<Option<Joined>> {
    let turn = bus.turn();
    if turn.is_retired() {
        return revive(bus, turn, options);
    }
    bus.check_turn(turn)?;
    check_asked(&bus, options)?;
    let wanted: &[Role] = match options.role {
        Role::Auto => &[Role::Master, Role::Slave],
        Role::Master => &[Role::Master],
        Role::Slave => &[Role::Slave],
    };
    let mut bus = bus;
    for &role in wanted {
        bus = match try_join(bus, turn, role, options)? {
            Attempt::Joined(joined) => return Ok(Some(joined)),
            Attempt::Again => return Ok(None),
            Attempt::Taken(bus) => bus,
        };
    }
    if options.takeover == Takeover::Always && options.role != Role::Auto {
        check_schemas_of(&bus, turn, options.role, options)?;
        let verdict = Verdict { role: options.role, seen: None };
        return replace::replace(bus, turn, Some(verdict), options);
    }
    let mut taken = Error::Timeout;
    for &role in wanted {
        let Some(found) = watch_owner(&bus, turn, role, options)? else { return Ok(None) };
        let Watched { state, is_owned, seen } = found;
        let is_hung = matches!(state, PeerState::Hung(_));
        // A byte that is held although nobody owns the role belongs to somebody who is taking the
        // role or removing the bus, and was stopped in the middle of it.
        if is_hung && (options.takeover != Takeover::Never || !is_owned) {
            check_schemas_of(&bus, turn, role, options)?;
            let verdict = is_owned.then_some(Verdict { role, seen: Some(seen) });
            return replace::replace(bus, turn, verdict, options);
        }
        let page = bus.look_at_page(turn.slot().unwrap_or(0))?;
        let lines = &page.roles[usize::from(role == Role::Slave)];
        let (pid, is_foreign) = pid_at(lines);
        // Relaxed: for the text of the error.
        let is_moving = lines.state.load(Ordering::Relaxed) == ROLE_MOVING;
        let state = if is_moving { "moving" } else { state.name() };
        taken = Error::RoleTaken { role: options.role, pid, is_foreign, state };
    }
    Err(taken)
}

/// Begins anew in a file whose bus was retired and whose name stayed. `None` to begin anew.
fn revive(bus: BusFile, turn: Turn, options: &Options) -> Result<Option<Joined>> {
    if options.role == Role::Slave {
        return Err(not_found(options));
    }
    // Whoever removed it may have died before its name was gone. Only where this process may not
    // take it away either is the file used again.
    if leave::take_name_away(&bus)? {
        return Ok(None);
    }
    check_asked(&bus, options)?;
    if !bus.facts().has_schemas && options.says.iter().any(Option::is_some) {
        let why = "it was made by an earlier build, without a place for a schema; remove it";
        return Err(Error::Access { path: options.path().display().to_string(), why: why.into() });
    }
    let Some(joined) = begin(bus, turn, options)? else { return Ok(None) };
    // Whoever removes the name looks at the turn after taking it away; so one sees the other.
    fence(Ordering::SeqCst);
    Ok(joined.segment.bus().is_named()?.then_some(joined))
}

/// Geometry that was asked for must be there.
fn check_asked(bus: &BusFile, options: &Options) -> Result<()> {
    let same = |what, asked: Option<u64>, found: u64| match asked {
        Some(asked) if asked != found => Err(Error::Geometry { what, asked, found }),
        _ => Ok(()),
    };
    for direction in Direction::BOTH {
        let (asked, found) = (options.asked[direction as usize], bus.facts().geometry(direction));
        same("frame_size", asked.frame_size.map(u64::from), found.frame_size.into())?;
        same("frames", asked.frames, found.frames)?;
        same("overflow", asked.overflow.map(|o| o as u64), found.overflow as u64)?;
    }
    Ok(())
}

/// What this side says of the messages must be what the bus carries.
fn check_schemas(
    role: Role,
    options: &Options,
    carried: impl Fn(Direction) -> Result<Option<Schema>>,
) -> Result<()> {
    for (direction, asked) in Direction::BOTH.into_iter().zip(options.schemas_as(role)) {
        if let Some(asked) = asked {
            check_schema(direction, asked, carried(direction)?)?;
        }
    }
    Ok(())
}

/// What one side says of one direction must be what the bus carries.
pub(crate) fn check_schema(
    direction: Direction,
    asked: &Schema,
    found: Option<Schema>,
) -> Result<()> {
    if found.as_ref().is_some_and(|found| found.agrees_with(asked)) {
        return Ok(());
    }
    let (asked, found) = (Box::new(asked.clone()), found.map(Box::new));
    Err(Error::Schema { direction, asked, found })
}

/// The same, before the owner of a role is replaced: then nobody has been sealed yet.
fn check_schemas_of(bus: &BusFile, turn: Turn, role: Role, options: &Options) -> Result<()> {
    let Some(slot) = turn.slot() else { return Ok(()) };
    let page = bus.look_at_page(slot)?;
    // What a slot says that does not count any more is no matter: its owner will not be replaced.
    if bus.turn() != turn {
        return Ok(());
    }
    check_schemas(role, options, |direction| bus.schema_in(&page, direction))
}

/// Takes the role if its lock is free and nobody is to come for it.
fn try_join(bus: BusFile, turn: Turn, role: Role, options: &Options) -> Result<Attempt> {
    let Some(slot) = turn.slot() else { return Ok(Attempt::Again) };
    let byte = byte_of(slot, role);
    let is_ours = bus.try_lock(byte..byte + 1)?;
    hit("adopt.locked")?;
    // The lock first, the look afterwards: a slot that is not used any more is not entered.
    if bus.turn() != turn || !bus.is_named()? {
        return Ok(Attempt::Again);
    }
    if !is_ours {
        return Ok(Attempt::Taken(bus));
    }
    let segment = bus.map_slot(slot)?;
    if segment.is_sealed() {
        // Whoever began to replace it may have died.
        let bus = segment.unmap();
        bus.unlock(byte..byte + 1)?;
        replace::complete(bus, turn, options)?;
        return Ok(Attempt::Again);
    }
    let lines = segment.role(role);
    if lines.state.load(Ordering::Relaxed) == ROLE_MOVING {
        let keeper = Keeper::from_word(lines.keeper.load(Ordering::Relaxed));
        if segment.bus().is_kept(keeper)? {
            let bus = segment.unmap();
            bus.unlock(byte..byte + 1)?;
            return Ok(Attempt::Taken(bus));
        }
    }
    check_schemas(role, options, |direction| segment.schema(direction))?;
    // Relaxed: only holders of the lock write it, and the lock orders them.
    let epoch = lines.epoch.load(Ordering::Relaxed).wrapping_add(1);
    enroll(&segment, role, epoch, options);
    hit("adopt.enrolled")?;
    // pairs SEAL: a sealer that this look misses sees the capabilities and the epoch just stored.
    fence(Ordering::SeqCst);
    if segment.is_doomed() {
        return Ok(Attempt::Again);
    }
    Ok(Attempt::Joined(Joined { segment, role, epoch }))
}

/// Writes the new owner of a role down. The caller holds its lock.
pub(crate) fn enroll(segment: &Segment, role: Role, epoch: u64, options: &Options) {
    let is_registered = barrier::register();
    let lines = segment.role(role);
    let interval = options.beat_interval.as_micros().min(u32::MAX.into()) as u32;
    // Relaxed: the state below is released last; until then readers see the last owner.
    lines.epoch.store(epoch, Ordering::Relaxed);
    lines.pid.store(process::pid(), Ordering::Relaxed);
    lines.start_time.store(process::own_start_time(), Ordering::Relaxed);
    lines.pid_ns.store(process::pid_namespace(), Ordering::Relaxed);
    lines.capabilities.store(if is_registered { REGISTERED } else { 0 }, Ordering::Relaxed);
    lines.beat_interval_us.store(interval, Ordering::Relaxed);
    lines.keeper.store(0, Ordering::Relaxed);
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

/// What was seen of whoever holds the byte of a role.
struct Watched {
    state: PeerState,
    /// Whether the role has an owner at all.
    is_owned: bool,
    /// Beat and epoch.
    seen: (u64, u64),
}

/// Watches whoever holds a role's byte until it beats or the threshold is over. `None` if the bus
/// has changed, or the byte is free.
fn watch_owner(
    bus: &BusFile,
    turn: Turn,
    role: Role,
    options: &Options,
) -> Result<Option<Watched>> {
    let Some(slot) = turn.slot() else { return Ok(None) };
    let mut watch = Watch::new(options.beat_interval, options.stale_after);
    let mut first = None;
    loop {
        let page = bus.look_at_page(slot)?;
        let lines = &page.roles[usize::from(role == Role::Slave)];
        let keeper = Keeper::from_word(lines.keeper.load(Ordering::Relaxed));
        let mut sight = sight_of(lines);
        let is_owned = !matches!(sight.state, ROLE_ABSENT | ROLE_LEFT);
        let is_kept = sight.state == ROLE_MOVING && bus.is_kept(keeper)?;
        let is_held = bus.is_locked(byte_of(slot, role))?;
        if bus.turn() != turn || !(is_held || is_kept) {
            return Ok(None);
        }
        // Whoever holds the byte of a role without an owner does not beat: it counts as hung when it
        // takes too long.
        sight.state = ROLE_JOINED;
        sight.epoch = sight.epoch.max(1);
        watch.look(sight);
        watch.probe(true);
        let has_beaten = *first.get_or_insert(sight.beat) != sight.beat;
        if watch.state() != PeerState::Alive || has_beaten {
            let seen = (sight.beat, lines.epoch.load(Ordering::Relaxed));
            return Ok(Some(Watched { state: watch.state(), is_owned, seen }));
        }
        clock::sleep(options.beat_interval.min(Duration::from_millis(1)));
    }
}

/// What can be seen of a role now.
pub(crate) fn sight_of(lines: &RoleLines) -> Sight {
    Sight {
        now_ns: clock::monotonic_ns(),
        // pairs BEAT: acquire, so that the owner seen is at least as new as the state.
        state: lines.state.load(Ordering::Acquire),
        beat: lines.beat.load(Ordering::Relaxed),
        epoch: lines.epoch.load(Ordering::Relaxed),
        interval_us: lines.beat_interval_us.load(Ordering::Relaxed),
    }
}
