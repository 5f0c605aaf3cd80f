//! Leaving, and removing a bus that nobody needs any more.
//!
//! ```text
//!   wish, state LEFT; unmap                   -- from here on the role can be adopted
//!   lock master, slave and builder at once    -- refused: somebody is there
//!   both left, and their wishes allow it?
//!   turn: slot -> RETIRED                     -- from here on the bus is no more
//!   name -> aside; is it this file, and still retired?  unlink
//! ```
//!
//! There is no system call that unlinks a name only if it leads to a certain file: the name is moved
//! aside first, looked at, and put back if it leads to something else, or if somebody revived the
//! file meanwhile. Whoever revives swaps the turn first and looks at the name afterwards; so one of
//! the two sees the other.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Cleanup, Direction, Options, Overflow, Role};
use crate::error::{Error, Result};
use crate::layout::*;
use crate::segment::{BusFile, Facts, Segment, SlotView};
use crate::sync::{Ordering, fence};
use crate::sys::failpoint::hit;
use crate::sys::{clock, process, shm};

/// How long a lock without an owner is waited for.
const PASSING: Duration = Duration::from_millis(50);

/// What became of a bus that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is gone.
    Done,
    /// It is retired and empty, but the system does not let this user take its name away.
    NameStays,
    /// Somebody is there, or its messages are to be kept.
    Not,
}

/// Writes down that the owner of a role leaves, and what it wishes for the end.
pub(super) fn say_goodbye(segment: &Segment, role: Role, options: &Options) {
    let lines = segment.role(role);
    let wish = match (options.classic_cleanup, options.cleanup) {
        (Some(true), _) => WISH_CLASSIC_YES,
        (Some(false), _) => WISH_CLASSIC_NO,
        (None, Cleanup::WhenRead) => WISH_WHEN_READ,
        (None, Cleanup::Always) => WISH_ALWAYS,
        (None, Cleanup::Never) => WISH_NEVER,
    };
    // Relaxed: released with the state.
    lines.wish.store(wish, Ordering::Relaxed);
    // pairs BEAT: whoever sees it sees all that this owner did.
    lines.state.store(ROLE_LEFT, Ordering::Release);
}

/// Removes the bus if both sides have left and their wishes allow it. For somebody who holds
/// nothing of it any more.
pub(super) fn retire(bus: &BusFile) -> Result<Removal> {
    retire_if(bus, |bus, slot| {
        let view = bus.look_at(slot)?;
        let is_sealed = view.page.fate.sealed.load(Ordering::Relaxed) != 0;
        let Some(wish) = wish_of_all(&view.page).filter(|_| !is_sealed) else { return Ok(false) };
        Ok(match wish {
            Cleanup::Never => false,
            Cleanup::Always => true,
            Cleanup::WhenRead => unread_in(bus, &view) == [0, 0],
        })
    })
}

/// Retires the bus if nobody holds or awaits a role in it, and `is_wanted` says so under the locks.
fn retire_if(
    bus: &BusFile,
    is_wanted: impl FnOnce(&BusFile, usize) -> Result<bool>,
) -> Result<Removal> {
    let turn = bus.turn();
    let Some(slot) = turn.slot() else { return remove_retired(bus) };
    let bytes = locks_of(slot)..locks_of(slot) + BUILDER + 1;
    let started = clock::Instant::now();
    while !bus.try_lock(bytes.clone())? {
        // A lock without an owner is about to be free: somebody looks whether he may come, or a
        // process that is being spawned has not closed its copies of our descriptors yet.
        if is_owned(bus, slot)? || started.elapsed() > PASSING {
            return Ok(Removal::Not);
        }
        clock::sleep(Duration::from_micros(100));
    }
    let is_done = bus.turn() == turn
        && !is_awaited(bus, slot)?
        && is_wanted(bus, slot)?
        && bus.swap_turn(turn, None);
    bus.unlock(bytes)?;
    hit("retire.marked")?;
    if is_done { remove_retired(bus) } else { Ok(Removal::Not) }
}

/// Whether somebody has a role of the slot, or died having it.
fn is_owned(bus: &BusFile, slot: usize) -> Result<bool> {
    let page = bus.look_at_page(slot)?;
    // Relaxed: a private copy.
    Ok(page
        .roles
        .iter()
        .any(|lines| !matches!(lines.state.load(Ordering::Relaxed), ROLE_ABSENT | ROLE_LEFT)))
}

/// Whether a role of the slot is kept for an owner who still lives on an older one.
fn is_awaited(bus: &BusFile, slot: usize) -> Result<bool> {
    let page = bus.look_at_page(slot)?;
    for lines in &page.roles {
        // Relaxed: a private copy.
        let keeper = Keeper::from_word(lines.keeper.load(Ordering::Relaxed));
        if lines.state.load(Ordering::Relaxed) == ROLE_MOVING && bus.is_kept(keeper)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What those who left wish, taken together; `None` if one of them has not left.
fn wish_of_all(page: &SlotPage) -> Option<Cleanup> {
    // Relaxed throughout: a private copy.
    let mut wishes = Vec::new();
    for lines in &page.roles {
        match lines.state.load(Ordering::Relaxed) {
            ROLE_ABSENT => {}
            ROLE_LEFT => wishes.push(lines.wish.load(Ordering::Relaxed)),
            _ => return None,
        }
    }
    let are_classic = wishes.iter().all(|wish| matches!(*wish, WISH_CLASSIC_YES | WISH_CLASSIC_NO));
    if are_classic && wishes.contains(&WISH_CLASSIC_YES) {
        return Some(Cleanup::Always);
    }
    let care = |wish: &u32| match *wish {
        WISH_ALWAYS | WISH_CLASSIC_YES => 0,
        WISH_WHEN_READ => 1,
        _ => 2,
    };
    Some(match wishes.iter().map(care).max()? {
        0 => Cleanup::Always,
        1 => Cleanup::WhenRead,
        _ => Cleanup::Never,
    })
}

/// How many messages of each direction nobody has read. What may be overwritten counts as read.
pub(crate) fn unread_in(bus: &BusFile, view: &SlotView) -> [u64; 2] {
    Direction::BOTH.map(|direction| {
        if bus.facts().geometry(direction).overflow == Overflow::Overwrite {
            return 0;
        }
        let lines = &view.rings[direction as usize];
        // Relaxed: a private copy.
        let read = lines.consumer.number.load(Ordering::Relaxed);
        let unread = view.heads[direction as usize].number.wrapping_sub(read);
        if unread > u64::MAX / 2 { 0 } else { unread }
    })
}

/// Which buses a removal by hand takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taking {
    /// Those that nobody holds and in which nothing is unread.
    Read,
    /// Those that nobody holds.
    Free,
    /// Any. If somebody is there, each of their calls ends with an error from then on.
    Any,
}

/// Removes a bus by hand. What is asked of it is asked under the locks, so nobody comes in between.
pub(crate) fn remove_by_hand(bus: &BusFile, taking: Taking) -> Result<Removal> {
    match taking {
        Taking::Read => retire_if(bus, |bus, slot| {
            let view = bus.look_at(slot)?;
            Ok(unread_in(bus, &view) == [0, 0])
        }),
        Taking::Free => retire_if(bus, |_, _| Ok(true)),
        Taking::Any => remove_by_force(bus),
    }
}

fn remove_by_force(bus: &BusFile) -> Result<Removal> {
    loop {
        let turn = bus.turn();
        let Some(slot) = turn.slot() else { return remove_retired(bus) };
        // Stopped first, so that nobody goes on writing what nobody will read. What cannot be sealed
        // is removed all the same.
        let _ = seal_as_reader(bus, turn, slot);
        if bus.swap_turn(turn, None) {
            hit("retire.marked")?;
            return remove_retired(bus);
        }
    }
}

fn seal_as_reader(bus: &BusFile, turn: Turn, slot: usize) -> Result<()> {
    // Guarded if the file is; its owner was judged when it was opened.
    let facts = bus.facts();
    let mut options = Options::new(facts.name.clone());
    options.guard_sigbus(facts.is_guarded).trust_user(bus.file_facts()?.uid);
    let again = BusFile::open_at(&facts.path, Some(&options), true)?;
    let Some(again) = again.filter(|again| again.facts().id == bus.facts().id) else {
        return Ok(());
    };
    if again.try_lock_as_reader(slot)? && again.turn() == turn {
        super::replace::seal(&again.map_slot(slot)?)?;
    }
    Ok(())
}

/// Takes the name of a retired bus away.
fn remove_retired(bus: &BusFile) -> Result<Removal> {
    if take_name_away(bus)? {
        return Ok(Removal::Done);
    }
    // The name stays; at least the memory need not.
    let _ = bus.tidy();
    Ok(Removal::NameStays)
}

/// Unlinks the name of a retired bus, if it leads to this very file. False if the system does not
/// allow it.
pub(super) fn take_name_away(bus: &BusFile) -> Result<bool> {
    let path = &bus.facts().path;
    let turn = bus.turn();
    if !turn.is_retired() || !bus.is_named()? {
        return Ok(true);
    }
    hit("unlink.found")?;
    let aside = path_aside(path);
    match shm::rename_noreplace(path, &aside) {
        Ok(true) => {}
        // The random name is taken: as likely as a planted one.
        Ok(false) => return Ok(false),
        Err(Error::Os { errno: libc::ENOENT, .. }) => return Ok(true),
        Err(Error::Os {
            // Busy: the file is a mount of its own, in a container.
            errno: libc::EPERM | libc::EACCES | libc::EROFS | libc::EINVAL | libc::EBUSY,
            ..
        }) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    hit("unlink.moved")?;
    let is_ours = shm::facts_at(&aside)?.is_some_and(|facts| facts.id == bus.facts().id);
    // Whoever revives the file swaps the turn and then looks at the name.
    fence(Ordering::SeqCst);
    if is_ours && bus.turn() == turn {
        shm::unlink(&aside)?;
        hit("unlink.done")?;
        sweep(bus);
    } else {
        // Should somebody have made a new bus under the name meanwhile, what was moved stays aside:
        // nothing of it is lost, and people see it.
        match shm::rename_noreplace(&aside, path) {
            // A member of the revived bus was faster in giving it its name back.
            Err(Error::Os { errno: libc::ENOENT, .. }) => {}
            moved => {
                moved?;
            }
        }
    }
    Ok(true)
}

/// Removes what others who were killed in `take_name_away` left beside the name: retired files, to
/// which no name but theirs leads. What goes wrong does so for whoever comes by next.
fn sweep(bus: &BusFile) {
    for aside in names_aside(&bus.facts().path) {
        // Not mapped: it may be anybody's, who cuts it short meanwhile.
        if let Ok(Some(found)) = BusFile::open_to_look(&aside, None)
            && found.facts().name == bus.facts().name
            // A copy, since an error must not count as retired.
            && found.look_at_header().is_ok_and(|header| {
                Turn(header.turn.word.load(Ordering::Relaxed)).is_retired()
            })
        {
            let _ = shm::unlink(&aside);
        }
    }
}

/// Gives a living bus its name back, if somebody moved it aside and died. For its members.
pub(super) fn bring_name_back(facts: &Facts) {
    for aside in names_aside(&facts.path) {
        if shm::facts_at(&aside).is_ok_and(|found| found.is_some_and(|found| found.id == facts.id))
        {
            let _ = shm::rename_noreplace(&aside, &facts.path);
        }
    }
}

/// What lies beside a name under names that are given before removal.
fn names_aside(path: &Path) -> Vec<PathBuf> {
    let Some((directory, file)) = path.parent().zip(path.file_name()) else { return Vec::new() };
    let prefix = [file.as_encoded_bytes(), b"~"].concat();
    let mut names = shm::names_in(directory).unwrap_or_default();
    names.retain(|name| name.as_encoded_bytes().starts_with(&prefix));
    names.into_iter().map(|name| directory.join(name)).collect()
}

/// Where a name is moved before it is unlinked.
fn path_aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("~{:016x}", process::random()));
    PathBuf::from(name)
}
