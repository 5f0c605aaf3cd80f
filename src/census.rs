//! Looking at buses from outside, and taking away what nobody needs.
//!
//! What only looks reads the file and maps nothing, so that nobody can cut the memory short under
//! it. Nothing that failed a check is ever touched.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{Direction, Options, Role};
use crate::error::{Error, Result};
use crate::layout::{ROLE_LEFT, RingLines, RoleLines};
use crate::peer::Watch;
use crate::ring::Place;
use crate::segment::{self, BusFile, SlotView, byte_of};
use crate::session::{self, Member, Removal, Taking, peer_from, sight_of, unread_in};
use crate::stats::{Entry, EntryKind, Peer, PeerState, RingStats, SegmentState, Snapshot, Stats};
use crate::sync::Ordering;
use crate::sys::{clock, shm};

/// Where segments are.
const DIRECTORY: &str = "/dev/shm";
/// What the names of their files begin with.
const PREFIX: &str = "eshm_";
/// No owner is watched for longer to tell whether it hangs.
const LONGEST_WATCH: Duration = Duration::from_millis(500);

/// All that lies under names of this library in `/dev/shm`, in the order of the names.
///
/// # Errors
/// When the directory cannot be read.
pub fn list() -> Result<Vec<Entry>> {
    list_in(Path::new(DIRECTORY))
}

/// As [`list`], in another directory.
///
/// # Errors
/// When the directory cannot be read.
pub fn list_in(directory: &Path) -> Result<Vec<Entry>> {
    let mut files = shm::names_in(directory)?;
    files.sort();
    let entries = files.iter().filter_map(|file| {
        let name = file.to_string_lossy().strip_prefix(PREFIX)?.to_owned();
        entry(directory, &name)
    });
    Ok(entries.collect())
}

/// What one file is; `None` if it was removed meanwhile.
fn entry(directory: &Path, name: &str) -> Option<Entry> {
    let path = directory.join(format!("{PREFIX}{name}"));
    let (name, kind) = match BusFile::open_to_look(&path, None) {
        Ok(None) => return None,
        Ok(Some(bus)) if name.contains('~') => {
            let why = format!("the bus {}, moved aside to be removed", bus.facts().name);
            (name.to_owned(), EntryKind::Leftover(why))
        }
        Ok(Some(bus)) => match look_at(&bus) {
            Ok(snapshot) => (snapshot.name.clone(), EntryKind::Bus(Box::new(snapshot))),
            Err(error) => (name.to_owned(), EntryKind::Unreadable(error)),
        },
        Err(Error::Foreign { why, .. } | Error::Access { why, .. }) => {
            (name.to_owned(), EntryKind::Foreign(why))
        }
        Err(error @ (Error::Layout { .. } | Error::Corrupt { .. })) => {
            (name.to_owned(), EntryKind::Foreign(error.to_string()))
        }
        Err(error) => (name.to_owned(), EntryKind::Unreadable(error)),
    };
    Some(Entry { name, path, kind })
}

/// Everything about the bus `name`.
///
/// # Errors
/// `NotFound`, or why the file is no segment.
pub fn inspect(name: &str) -> Result<Snapshot> {
    inspect_in(Path::new(DIRECTORY), name)
}

/// As [`inspect`], in another directory. A name with a `~` is that of a file that was moved aside to
/// be removed.
///
/// # Errors
/// As for [`inspect`].
pub fn inspect_in(directory: &Path, name: &str) -> Result<Snapshot> {
    if is_aside(name) {
        return look_at(&open_leftover(directory, name)?);
    }
    let options = options_for(directory, name)?;
    let bus = BusFile::open_to_look(&options.path(), Some(&options))?;
    look_at(&bus.ok_or_else(|| not_found(&options))?)
}

/// Removes the bus `name`, unread messages with it. While anybody holds a role in it only `force`
/// does.
///
/// # Errors
/// `RoleTaken` with the holder; `NotFound`; `Access` when the system does not let this user take the
/// name away, and an empty file stays; why the file is no bus, which is then left alone.
pub fn remove(name: &str, force: bool) -> Result<()> {
    remove_in(Path::new(DIRECTORY), name, force)
}

/// As [`remove`], in another directory. A name with a `~` is that of a leftover file.
///
/// # Errors
/// As for [`remove`].
pub fn remove_in(directory: &Path, name: &str, force: bool) -> Result<()> {
    Options::new(name).directory(directory).remove(force)
}

/// Removes the bus or the leftover `name` from a directory if nobody holds a role in it and nothing in
/// it is unread; see [`Options::remove_read`].
///
/// # Errors
/// As for [`remove`], without `RoleTaken`.
pub fn remove_read_in(directory: &Path, name: &str) -> Result<bool> {
    Options::new(name).directory(directory).remove_read()
}

impl Options {
    /// Removes the bus as [`remove`] does. Name and directory count, and which users are trusted: a bus
    /// of anybody else is refused. A name with a `~` is that of a leftover file.
    ///
    /// # Errors
    /// As for [`remove`].
    pub fn remove(&self, force: bool) -> Result<()> {
        let taking = if force { Taking::Any } else { Taking::Free };
        match remove_as(self, taking)? {
            (Removal::Done, _) => Ok(()),
            (Removal::NameStays, bus) => Err(name_stays(&bus.facts().path)),
            (Removal::Not, bus) => Err(taken(&bus)),
        }
    }

    /// Removes the bus if nobody holds a role in it and nothing in it is unread, whoever left or died
    /// there. Both are asked when nobody can come any more: so what somebody writes between a look and
    /// this call is kept. False if it stays.
    ///
    /// # Errors
    /// As for [`remove`], without `RoleTaken`.
    pub fn remove_read(&self) -> Result<bool> {
        match remove_as(self, Taking::Read)? {
            (Removal::Done, _) => Ok(true),
            (Removal::NameStays, bus) => Err(name_stays(&bus.facts().path)),
            (Removal::Not, _) => Ok(false),
        }
    }
}

fn remove_as(asked: &Options, taking: Taking) -> Result<(Removal, BusFile)> {
    let bus = match is_aside(&asked.name) {
        true => reopen_leftover(asked)?,
        false => open_to_remove(asked)?,
    };
    Ok((session::remove_by_hand(&bus, taking)?, bus))
}

fn open_to_remove(asked: &Options) -> Result<BusFile> {
    segment::check_name(&asked.name)?;
    let bus = BusFile::open(asked)?.ok_or_else(|| not_found(asked))?;
    // Looked at once: it may be retired in this very moment.
    let turn = bus.turn();
    if !turn.is_retired() {
        bus.check_turn(turn)?;
    }
    Ok(bus)
}

fn name_stays(path: &Path) -> Error {
    Error::Access {
        path: path.display().to_string(),
        why: "this user may not remove files here; it is empty now".to_owned(),
    }
}

/// Why a bus was not removed: somebody is there.
fn taken(bus: &BusFile) -> Error {
    let found = bus.turn().slot().and_then(|slot| {
        let page = bus.look_at_page(slot).ok()?;
        [Role::Master, Role::Slave].into_iter().find_map(|role| {
            let is_held = bus.is_locked(byte_of(slot, role)).unwrap_or(false);
            let pid = session::pid_at(&page.roles[usize::from(role == Role::Slave)]);
            is_held.then_some((role, pid))
        })
    });
    let (role, (pid, is_foreign)) = found.unwrap_or((Role::Auto, (0, false)));
    Error::RoleTaken { role, pid, is_foreign, state: "alive" }
}

/// Opens a file that was moved aside to be removed.
fn reopen_leftover(asked: &Options) -> Result<BusFile> {
    let seen = open_leftover(&asked.directory, &asked.name)?;
    // The name that it had tells nothing about its owner, who must be trusted all the same.
    let options = Options { name: seen.facts().name.clone(), ..asked.clone() };
    let path = seen.facts().path.clone();
    BusFile::open_at(&path, Some(&options), true)?.ok_or_else(|| not_found_at(&path))
}

/// Whether it is a name that a file gets before it is removed: the bus's, `~`, and 16 digits.
fn is_aside(name: &str) -> bool {
    name.rsplit_once('~').is_some_and(|(bus, token)| {
        let is_token = token.len() == 16 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_token && segment::check_name(bus).is_ok()
    })
}

/// Opens a file that was moved aside, to look into it. Its path cannot leave the directory.
fn open_leftover(directory: &Path, name: &str) -> Result<BusFile> {
    let path = directory.join(format!("{PREFIX}{}", name.replace('/', "_")));
    BusFile::open_to_look(&path, None)?.ok_or_else(|| not_found_at(&path))
}

fn not_found_at(path: &Path) -> Error {
    Error::NotFound { path: path.display().to_string() }
}

fn options_for(directory: &Path, name: &str) -> Result<Options> {
    segment::check_name(name)?;
    let mut options = Options::new(name);
    options.directory(directory);
    Ok(options)
}

fn not_found(options: &Options) -> Error {
    not_found_at(&options.path())
}

/// How often a bus may change while it is looked at.
const LOOKS_MOST: usize = 20;

fn look_at(bus: &BusFile) -> Result<Snapshot> {
    let mut turn = bus.turn();
    let mut seen = None;
    for _ in 0..LOOKS_MOST {
        if !turn.is_retired() {
            bus.check_turn(turn)?;
        }
        let slot = turn.slot();
        let states = match slot {
            Some(slot) => [Role::Master, Role::Slave].map(|role| watch_role(bus, slot, role)),
            None => [Ok(PeerState::Absent), Ok(PeerState::Absent)],
        };
        let view = slot.map(|slot| bus.look_at(slot)).transpose()?;
        let [master, slave] = states;
        seen = Some((turn, view, [master?, slave?]));
        let now = bus.turn();
        if now == turn {
            break;
        }
        turn = now;
    }
    let (turn, view, states) = seen.ok_or(Error::Timeout)?;
    // Relaxed: a private copy.
    let is_sealed =
        view.as_ref().is_some_and(|view| view.page.fate.sealed.load(Ordering::Relaxed) != 0);
    let (facts, file, header) = (bus.facts(), bus.file_facts()?, bus.look_at_header()?);
    // Relaxed, here and below: private copies.
    let created = header.created_ns.load(Ordering::Relaxed);
    let stale_ms = header.stale_after_ms.load(Ordering::Relaxed);
    let interval_us = header.beat_interval_us.load(Ordering::Relaxed);
    let schema = |direction| match &view {
        Some(view) => bus.schema_in(&view.page, direction),
        None => Ok(None),
    };
    let schemas = [schema(Direction::MasterToSlave)?, schema(Direction::SlaveToMaster)?];
    Ok(Snapshot {
        name: facts.name.clone(),
        path: facts.path.clone(),
        size: file.allocated,
        mode: file.mode,
        uid: file.uid,
        created: UNIX_EPOCH.checked_add(Duration::from_nanos(created)).unwrap_or(SystemTime::now()),
        generation: turn.generation().saturating_sub(1),
        state: match (turn.slot(), is_sealed) {
            (None, _) => SegmentState::Retired,
            (_, true) => SegmentState::Sealed,
            (_, false) => SegmentState::Live,
        },
        unread: view.as_ref().map_or([0, 0], |view| unread_in(bus, view)),
        master_to_slave: facts.geometry(Direction::MasterToSlave),
        slave_to_master: facts.geometry(Direction::SlaveToMaster),
        schemas,
        beat_interval: Duration::from_micros(interval_us.into()),
        stale_after: Duration::from_millis(stale_ms.into()),
        stats: view.map_or_else(Stats::default, |view| stats_from(bus, &view, states)),
    })
}

/// Watches a role for as long as it takes to tell alive from hung.
fn watch_role(bus: &BusFile, slot: usize, role: Role) -> Result<PeerState> {
    let header = bus.look_at_header()?;
    // Relaxed: how long to look, no more.
    let stale = Duration::from_millis(header.stale_after_ms.load(Ordering::Relaxed).into());
    let period = Duration::from_millis(1);
    let mut watch = Watch::new(period, stale.clamp(2 * period, LONGEST_WATCH));
    let started = clock::Instant::now();
    let mut first = None;
    loop {
        let page = bus.look_at_page(slot)?;
        let sight = sight_of(&page.roles[usize::from(role == Role::Slave)]);
        let is_slow = Duration::from_micros(sight.interval_us.into()) * 10 > LONGEST_WATCH;
        let first = *first.get_or_insert(sight.beat);
        watch.look(sight);
        watch.probe(bus.is_locked(byte_of(slot, role)).unwrap_or(false));
        let is_settled = watch.state() != PeerState::Alive || sight.beat != first;
        // A heart so slow that its hang would not show for a long time is not known to hang.
        let is_over = is_slow && started.elapsed() > LONGEST_WATCH;
        if is_settled || is_over || sight.state == ROLE_LEFT {
            return Ok(watch.state());
        }
        clock::sleep(period);
    }
}

/// The figures as a member sees them.
pub(crate) fn stats_of(member: &Member) -> Stats {
    if !member.is_home() {
        return Stats::default();
    }
    let peer = member.peer().state;
    let Some(segment) = member.segment() else { return Stats::default() };
    let states = match member.role {
        Role::Slave => [peer, PeerState::Alive],
        Role::Master | Role::Auto => [PeerState::Alive, peer],
    };
    let rings = Direction::BOTH.map(|direction| segment.ring(direction));
    stats_at(
        [Role::Master, Role::Slave].map(|role| segment.role(role)),
        [rings[0].lines(), rings[1].lines()],
        rings.map(|ring| ring.find_head(None).unwrap_or_default()),
        Direction::BOTH.map(|direction| segment.geometry(direction).frames),
        states,
    )
}

fn stats_from(bus: &BusFile, view: &SlotView, states: [PeerState; 2]) -> Stats {
    stats_at(
        [&view.page.roles[0], &view.page.roles[1]],
        [&*view.rings[0], &*view.rings[1]],
        view.heads,
        Direction::BOTH.map(|direction| bus.facts().geometry(direction).frames),
        states,
    )
}

fn stats_at(
    roles: [&RoleLines; 2],
    rings: [&RingLines; 2],
    heads: [Place; 2],
    frames: [u64; 2],
    states: [PeerState; 2],
) -> Stats {
    // Relaxed throughout: figures for people.
    let read = |ring: &RingLines| ring.consumer.number.load(Ordering::Relaxed);
    let peer = |role: usize| -> Peer {
        peer_from(roles[role], states[role], heads[role].number, read(rings[1 - role]))
    };
    Stats {
        master: peer(0),
        slave: peer(1),
        master_to_slave: ring_stats(rings[0], heads[0], frames[0]),
        slave_to_master: ring_stats(rings[1], heads[1], frames[1]),
    }
}

fn ring_stats(lines: &RingLines, head: Place, frames: u64) -> RingStats {
    // Relaxed throughout: figures for people. The reader's first, so that it is not ahead.
    let load = |word: &crate::sync::AtomicU64| word.load(Ordering::Relaxed);
    let read = load(&lines.consumer.number);
    let tail = load(&lines.consumer.tail);
    let written = head.number;
    let used = head.pos.wrapping_sub(tail);
    let backlog_frames = if used > u64::MAX / 2 { 0 } else { used.min(frames) };
    let backlog = written.wrapping_sub(read);
    RingStats {
        written,
        read: read.saturating_sub(load(&lines.consumer.lost)),
        bytes: head.bytes,
        backlog: if backlog > u64::MAX / 2 { 0 } else { backlog },
        backlog_frames,
        frames,
        high_water: load(&lines.producer_stats.high_water).max(backlog_frames),
        times_full: load(&lines.producer_stats.times_full),
        lost: load(&lines.consumer.lost),
        reader_parks: load(&lines.consumer_stats.parks),
        reader_wakes: load(&lines.producer_stats.wakes),
        writer_parks: load(&lines.producer_stats.parks),
        writer_wakes: load(&lines.consumer_stats.wakes),
    }
}
