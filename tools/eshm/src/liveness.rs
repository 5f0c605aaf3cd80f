//! Alive or hung, as a passer-by sees it.
//!
//! One look at a segment tells whether the kernel still holds a role's lock, not whether its heart
//! beats. So this looks again until every beat has moved, which mostly takes a millisecond or two,
//! or has stood still for longer than the segment's own threshold.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use eshm::{Entry, EntryKind, PeerState, RoleStats, Snapshot};

use crate::open;

/// However long a segment's threshold is, nobody who lists segments wants to wait longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Everything in the directory, each role alive or hung.
pub fn list(directory: &Path) -> eshm::Result<Vec<Entry>> {
    let mut entries = eshm::list_in(directory)?;
    let buses = entries.iter_mut().filter_map(|entry| match &mut entry.kind {
        EntryKind::Bus(snapshot) => Some(&mut **snapshot),
        _ => None,
    });
    watch(directory, buses.collect());
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// One segment, each role alive or hung.
pub fn inspect(directory: &Path, name: &str) -> eshm::Result<Snapshot> {
    let mut snapshot = open::inspect(directory, name)?;
    watch(directory, vec![&mut snapshot]);
    Ok(snapshot)
}

/// Beats that have not moved yet.
struct Watched<'a> {
    snapshot: &'a mut Snapshot,
    first_beats: [u64; 2],
}

fn watch(directory: &Path, snapshots: Vec<&mut Snapshot>) {
    let started = Instant::now();
    let mut open: Vec<Watched> = snapshots
        .into_iter()
        .filter(|snapshot| roles(snapshot).iter().any(|role| role.state == PeerState::Alive))
        .map(|snapshot| Watched { first_beats: roles(snapshot).map(|role| role.beats), snapshot })
        .collect();
    while !open.is_empty() {
        thread::sleep(Duration::from_millis(2));
        open.retain_mut(|watched| !settled(directory, watched, started.elapsed()));
    }
}

/// Looks again; true when nothing more can be learnt.
fn settled(directory: &Path, watched: &mut Watched, elapsed: Duration) -> bool {
    let Ok(now) = open::inspect(directory, &watched.snapshot.name) else {
        return true;
    };
    *watched.snapshot = now;
    let enough = watched.snapshot.stale_after.min(PATIENCE);
    let mut settled = true;
    let [master_beats, slave_beats] = watched.first_beats;
    let stats = &mut watched.snapshot.stats;
    for (role, first) in [(&mut stats.master, master_beats), (&mut stats.slave, slave_beats)] {
        if role.state == PeerState::Alive && role.beats == first {
            settled &= elapsed > enough;
            if elapsed > enough {
                role.state = PeerState::Hung(elapsed);
            }
        }
    }
    settled
}

fn roles(snapshot: &Snapshot) -> [RoleStats; 2] {
    [snapshot.stats.master, snapshot.stats.slave]
}
