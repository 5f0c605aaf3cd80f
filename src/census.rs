//! Looking at segments from outside, and taking away what nobody needs.
//!
//! Everything here but [`remove`] maps read-only. Nothing that failed a check is ever touched.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{Direction, Options, Role};
use crate::error::{Error, Result};
use crate::layout::{RETIRED, ROLE_LEFT};
use crate::peer::Watch;
use crate::segment::{self, Segment};
use crate::session::{self, Member, byte_of, peer_at, sight_of};
use crate::stats::{Entry, EntryKind, Peer, PeerState, RingStats, SegmentState, Snapshot, Stats};
use crate::sync::Ordering;
use crate::sys::{lock, shm};

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
    let (name, kind) = match Segment::attach(&path, None, 0o777, false) {
        Ok(None) => return None,
        Ok(Some(segment)) if name.contains('~') => {
            let why =
                format!("made for the bus {}, but never put in its place", full_name(&segment));
            (name.to_owned(), EntryKind::Leftover(why))
        }
        Ok(Some(segment)) => match look_at(&segment) {
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

/// As [`inspect`], in another directory.
///
/// # Errors
/// As for [`inspect`].
pub fn inspect_in(directory: &Path, name: &str) -> Result<Snapshot> {
    look_at(&find(directory, name, false)?)
}

/// Removes the bus `name`. While anybody holds a role in it only `force` does.
///
/// # Errors
/// `RoleTaken` with the holder; `NotFound`; why the file is no segment, which is then left alone.
pub fn remove(name: &str, force: bool) -> Result<()> {
    remove_in(Path::new(DIRECTORY), name, force)
}

/// As [`remove`], in another directory. A name with a `~` is that of a leftover file.
///
/// # Errors
/// As for [`remove`].
pub fn remove_in(directory: &Path, name: &str, force: bool) -> Result<()> {
    if name.contains('~') {
        return remove_leftover(directory, name);
    }
    let segment = find(directory, name, true)?;
    if !force {
        for role in [Role::Master, Role::Slave] {
            if lock::is_locked_by_other(segment.fd(), byte_of(role))? {
                // Relaxed: for the text of the error.
                let pid = segment.role(role).pid.load(Ordering::Relaxed);
                return Err(Error::RoleTaken { role, pid, state: "alive" });
            }
        }
    }
    session::remove_by_hand(&segment, force)
}

fn remove_leftover(directory: &Path, name: &str) -> Result<()> {
    let path = directory.join(format!("{PREFIX}{}", name.replace('/', "_")));
    let Some(segment) = Segment::attach(&path, None, 0o777, true)? else {
        return Err(Error::NotFound { path: path.display().to_string() });
    };
    if lock::is_locked_by_other(segment.fd(), byte_of(Role::Master))?
        || lock::is_locked_by_other(segment.fd(), byte_of(Role::Slave))?
    {
        return Err(Error::RoleTaken { role: Role::Auto, pid: 0, state: "alive" });
    }
    shm::unlink(&path).map(|_| ())
}

fn find(directory: &Path, name: &str, writable: bool) -> Result<Segment> {
    segment::check_name(name)?;
    let mut options = Options::new(name);
    options.directory(directory).mode(0o666);
    segment::attach_for(&options, writable)?
        .ok_or_else(|| Error::NotFound { path: options.path().display().to_string() })
}

fn full_name(segment: &Segment) -> String {
    let header = segment.header();
    // Relaxed: for people; a name that is changed meanwhile is shown as it comes.
    let len = header.name_len.load(Ordering::Relaxed) as usize;
    let bytes: Vec<u8> =
        header.name.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    String::from_utf8_lossy(&bytes[..len.min(bytes.len())]).into_owned()
}

fn look_at(segment: &Segment) -> Result<Snapshot> {
    let header = segment.header();
    let facts = shm::facts(segment.fd())?;
    let states = [Role::Master, Role::Slave].map(|role| state_from_outside(segment, role));
    // Relaxed, here and below: figures for people.
    let created = header.created_ns.load(Ordering::Relaxed);
    let stale_ms = header.stale_after_ms.load(Ordering::Relaxed);
    Ok(Snapshot {
        name: full_name(segment),
        path: segment.path.clone(),
        size: facts.size,
        mode: facts.mode,
        uid: facts.uid,
        created: UNIX_EPOCH.checked_add(Duration::from_nanos(created)).unwrap_or(SystemTime::now()),
        generation: segment.generation,
        state: match header.fate.successor.load(Ordering::Relaxed) {
            RETIRED => SegmentState::Retired,
            0 if header.fate.sealed.load(Ordering::Relaxed) == 0 => SegmentState::Live,
            _ => SegmentState::Sealed,
        },
        master_to_slave: segment.geometry(Direction::MasterToSlave),
        slave_to_master: segment.geometry(Direction::SlaveToMaster),
        beat_interval: Duration::from_micros(
            header.beat_interval_us.load(Ordering::Relaxed).into(),
        ),
        stale_after: Duration::from_millis(stale_ms.into()),
        stats: stats_at(segment, states),
    })
}

/// Watches a role for as long as it takes to tell alive from hung.
fn state_from_outside(segment: &Segment, role: Role) -> PeerState {
    let header = segment.header();
    // Relaxed: how long to look, no more.
    let stale = Duration::from_millis(header.stale_after_ms.load(Ordering::Relaxed).into());
    let period = Duration::from_millis(1);
    let mut watch = Watch::new(period, stale.clamp(2 * period, LONGEST_WATCH));
    let first = sight_of(segment, role);
    loop {
        let sight = sight_of(segment, role);
        watch.look(sight);
        let is_held = lock::is_locked_by_other(segment.fd(), byte_of(role)).unwrap_or(false);
        watch.probe(is_held);
        let is_settled = watch.state() != PeerState::Alive || sight.beat != first.beat;
        if is_settled || sight.state == ROLE_LEFT {
            return watch.state();
        }
        std::thread::sleep(period);
    }
}

/// The figures as a member sees them.
pub(crate) fn stats_of(member: &Member) -> Stats {
    if !member.is_home() {
        return Stats::default();
    }
    let segment = member.seat().segment;
    let peer = member.peer().state;
    let states = match member.role {
        Role::Slave => [peer, PeerState::Alive],
        Role::Master | Role::Auto => [PeerState::Alive, peer],
    };
    stats_at(&segment, states)
}

fn stats_at(segment: &Segment, states: [PeerState; 2]) -> Stats {
    let peer = |role, state| -> Peer { peer_at(segment, role, state) };
    Stats {
        master: peer(Role::Master, states[0]),
        slave: peer(Role::Slave, states[1]),
        master_to_slave: ring_stats(segment, Direction::MasterToSlave),
        slave_to_master: ring_stats(segment, Direction::SlaveToMaster),
    }
}

fn ring_stats(segment: &Segment, direction: Direction) -> RingStats {
    let ring = segment.ring(direction);
    let lines = ring.lines();
    let frames = segment.geometry(direction).frames;
    // Relaxed throughout: figures for people. The reader's first, so that it is not ahead.
    let load = |word: &crate::sync::AtomicU64| word.load(Ordering::Relaxed);
    let read = load(&lines.consumer.number);
    let tail = load(&lines.consumer.tail);
    let backlog = ring.backlog();
    let used = load(&lines.producer.head).wrapping_sub(tail);
    let backlog_frames = if used > u64::MAX / 2 { 0 } else { used.min(frames) };
    RingStats {
        written: load(&lines.producer.number),
        read: read.saturating_sub(load(&lines.consumer.lost)),
        bytes: load(&lines.producer.bytes),
        backlog,
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
