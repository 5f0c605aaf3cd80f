//! Files that were moved aside to be removed.
//!
//! The library looks into a bus only under its own name, and such a file has another. So a copy of it
//! is looked into; nobody can come to the file any more, so it does not change meanwhile, unless
//! somebody is still in it: then the library refuses to remove it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eshm::{EntryKind, Snapshot};
use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek};

/// How long ago it was moved aside; `None` if it is gone.
pub fn age(path: &Path) -> Option<Duration> {
    let about = fs::symlink_metadata(path).ok()?;
    let moved = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(about.ctime()).ok()?))?;
    Some(SystemTime::now().duration_since(moved).unwrap_or_default())
}

/// What is in it.
pub fn look(path: &Path) -> Option<Snapshot> {
    let room = Room::new().ok()?;
    copy(path, &room.0.join("eshm_leftover")).ok()?;
    let entries = eshm::list_in(&room.0).ok()?;
    entries.into_iter().find_map(|entry| match entry.kind {
        EntryKind::Bus(snapshot) => Some(*snapshot),
        _ => None,
    })
}

/// A directory for this user only, which goes with its contents.
struct Room(std::path::PathBuf);

impl Room {
    fn new() -> io::Result<Room> {
        let template = std::env::temp_dir().join("eshm-look-XXXXXX");
        Ok(Room(nix::unistd::mkdtemp(&template)?))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies what has memory, and leaves the holes out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let from = OpenOptions::new().read(true).custom_flags(flags).open(from)?;
    let to = File::create_new(to)?;
    to.set_len(from.metadata()?.len())?;
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    // The end of the file is an error here: there is no data beyond it.
    while let Ok(data) = lseek(&from, at, Whence::SeekData) {
        let end = lseek(&from, data, Whence::SeekHole)?;
        at = data;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(piece.len()).min(piece.len());
            let got = from.read_at(&mut piece[..most], at.cast_unsigned())?;
            if got == 0 {
                return Ok(());
            }
            to.write_all_at(&piece[..got], at.cast_unsigned())?;
            at += i64::try_from(got).map_err(io::Error::other)?;
        }
    }
    Ok(())
}
