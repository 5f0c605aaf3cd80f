//! Leaving, and taking the name away when nobody is left.
//!
//! ```text
//!   state LEFT, lock freed                    -- from here on the role can be adopted
//!   nobody holds a role?  successor: 0 -> RETIRED
//!   still nobody?         name -> tomb, is it this file?  unlink
//! ```
//!
//! Whoever joins takes the lock first and looks for RETIRED afterwards; whoever leaves does it the
//! other way round; so one of them sees the other. There is no system call that unlinks a name only
//! if it leads to a certain file: the name is moved aside first, looked at, and put back if a
//! successor gave it to another segment meanwhile. Should the one who looks be killed there, the
//! owner of that segment notices that its name is gone, and publishes again.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::byte_of;
use crate::config::Role;
use crate::error::{Error, Result};
use crate::layout::{CLEANUP, RETIRED, ROLE_JOINED, ROLE_LEFT};
use crate::segment::Segment;
use crate::sync::{Ordering, fence};
use crate::sys::failpoint::hit;
use crate::sys::{lock, shm};

/// Gives up a role.
pub(super) fn leave(segment: &Segment, role: Role, epoch: u64) -> Result<()> {
    give_up(segment, role, epoch)?;
    hit("leave.unlocked")?;
    // The last one out cleans up if either of the two wished it.
    // Relaxed: written under the locks.
    let wishes =
        segment.header().roles.iter().map(|role| role.capabilities.load(Ordering::Relaxed));
    if wishes.fold(0, |all, one| all | one) & CLEANUP != 0 { retire(segment) } else { Ok(()) }
}

/// Gives up a role, and leaves the rest to others.
pub(super) fn give_up(segment: &Segment, role: Role, epoch: u64) -> Result<()> {
    let lines = segment.role(role);
    // Relaxed: only the holder of the lock writes it.
    if lines.epoch.load(Ordering::Relaxed) == epoch
        && lines.state.load(Ordering::Relaxed) == ROLE_JOINED
    {
        // pairs BEAT: whoever sees it sees all that this owner did.
        lines.state.store(ROLE_LEFT, Ordering::Release);
    }
    hit("leave.told")?;
    lock::unlock(segment.fd(), byte_of(role))
}

/// Removes the segment if nobody holds a role in it.
fn retire(segment: &Segment) -> Result<()> {
    if is_held(segment)? {
        return Ok(());
    }
    let successor = &segment.header().fate.successor;
    if successor.compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return Ok(());
    }
    hit("retire.marked")?;
    finish_retirement(segment)
}

/// Retires the segment and removes its name, for somebody who holds no role in it. With `force` even
/// if others do: each of their calls ends with an error from then on.
pub(crate) fn remove_by_hand(segment: &Segment, force: bool) -> Result<()> {
    if !force {
        return retire(segment);
    }
    super::replace::seal(segment)?;
    // What is written from here on lies behind the cut, and is refused. A segment too broken for a
    // cut is removed all the same.
    let _ = super::replace::choose_cut(segment);
    let successor = &segment.header().fate.successor;
    let _ = successor.compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire);
    if successor.load(Ordering::Acquire) == RETIRED {
        remove_name(segment)?;
        return sweep(segment);
    }
    // Somebody chose another for its place, and may have died before that one had the name.
    super::replace::give_name(segment)?;
    match Segment::attach(&segment.path, None, 0o777, true)? {
        Some(next) if next.id != segment.id => remove_by_hand(&next, true),
        // The chosen one is gone; nobody can ever finish this.
        Some(_) => shm::unlink(&segment.path).map(|_| ()),
        None => Ok(()),
    }
}

/// Removes the name of a retired segment, or takes the retirement back if somebody joined.
pub(super) fn finish_retirement(segment: &Segment) -> Result<()> {
    fence(Ordering::SeqCst);
    if is_held(segment)? {
        revive(segment);
        return Ok(());
    }
    remove_name(segment)?;
    // Relaxed: a figure; fences leave files behind when they are killed.
    if segment.generation > 0 || segment.header().fate.cuts_taken.load(Ordering::Relaxed) > 0 {
        sweep(segment)?;
    }
    Ok(())
}

/// Takes a retirement back. For those who hold a role, which proves it wrong.
pub(super) fn revive(segment: &Segment) {
    let successor = &segment.header().fate.successor;
    let _ = successor.compare_exchange(RETIRED, 0, Ordering::AcqRel, Ordering::Acquire);
}

/// Whether any role has an owner, here or about to move here.
fn is_held(segment: &Segment) -> Result<bool> {
    let is_awaited = |role| super::may_still_come(segment.role(role));
    Ok(is_locked(segment)? || is_awaited(Role::Master) || is_awaited(Role::Slave))
}

/// Whether any role has an owner here.
fn is_locked(segment: &Segment) -> Result<bool> {
    Ok(lock::is_locked_by_other(segment.fd(), byte_of(Role::Master))?
        || lock::is_locked_by_other(segment.fd(), byte_of(Role::Slave))?)
}

/// Takes the name away from this very file, and from no other.
fn remove_name(segment: &Segment) -> Result<()> {
    if !segment.is_named()? {
        return Ok(());
    }
    let tomb = tomb_path(&segment.path);
    clear_tomb(&segment.path)?;
    hit("unlink.found")?;
    if !move_name(&segment.path, &tomb)? {
        return Ok(());
    }
    hit("unlink.moved")?;
    let is_ours = shm::facts_at(&tomb)?.is_some_and(|facts| facts.id == segment.id);
    // pairs OPEN: acquire; a retirement that was taken back means that somebody lives here.
    let is_retired = segment.header().fate.successor.load(Ordering::Acquire) == RETIRED;
    if is_ours && is_retired {
        shm::unlink(&tomb)?;
        hit("unlink.done")?;
    } else {
        move_name(&tomb, &segment.path)?;
    }
    Ok(())
}

/// False if there is no such name any more, or the other one is taken: somebody else was faster.
fn move_name(from: &Path, to: &Path) -> Result<bool> {
    match shm::rename_noreplace(from, to) {
        Err(Error::Os { errno, .. }) if errno == libc::ENOENT => Ok(false),
        done => done,
    }
}

/// Where a name is moved before it is removed.
fn tomb_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("~");
    PathBuf::from(name)
}

/// Removes what a killed leaver left in the tomb.
pub(super) fn clear_tomb(path: &Path) -> Result<()> {
    shm::unlink(&tomb_path(path)).map(|_| ())
}

/// Removes what killed replacers left beside the name of a retired segment. Whoever still builds a
/// segment holds a lock in it, or is one of those who move there; but a retired segment has no
/// successor, so nobody moves to one of its own lineage.
fn sweep(segment: &Segment) -> Result<()> {
    let path = &segment.path;
    let Some((directory, file)) = path.parent().zip(path.file_name()) else { return Ok(()) };
    let prefix = [file.as_encoded_bytes(), b"~"].concat();
    for name in shm::names_in(directory)? {
        if name.as_encoded_bytes().starts_with(&prefix) {
            sweep_one(&directory.join(name), segment.lineage)?;
        }
    }
    Ok(())
}

fn sweep_one(path: &Path, lineage: u64) -> Result<()> {
    let is_needed = match Segment::attach(path, None, 0o777, true) {
        Ok(Some(found)) if found.lineage == lineage => is_locked(&found)?,
        Ok(Some(found)) => is_held(&found)?,
        // Not even a segment, or gone already: nobody can be building it.
        Ok(None) | Err(_) => false,
    };
    if !is_needed {
        shm::unlink(path)?;
    }
    Ok(())
}
