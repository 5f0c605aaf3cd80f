//! Taking a bus away, and saying truly what was done: what `rm` and `gc` share.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use eshm::{Error, SegmentState};

/// What became of a file that was to be removed.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// It is gone.
    Removed,
    /// Its messages and its memory are gone. Its name stays: this user may not take it away.
    Emptied,
    /// It is there as it was, or again.
    Kept(Error),
    /// Somebody uses it again under the same name.
    Revived,
}

/// Removes the bus or the leftover `name`, whose file is at `path`.
pub fn remove(directory: &Path, path: &Path, name: &str, force: bool) -> Done {
    told(directory, path, name, || eshm::remove_in(directory, name, force))
}

/// The same for what was seen without a holder and without anything unread, if it still is so.
pub fn remove_read(directory: &Path, path: &Path, name: &str) -> Done {
    let mut stays = false;
    let done = told(directory, path, name, || {
        stays = !eshm::remove_read_in(directory, name)?;
        Ok(())
    });
    if stays { Done::Revived } else { done }
}

fn told(
    directory: &Path,
    path: &Path,
    name: &str,
    remove: impl FnOnce() -> eshm::Result<()>,
) -> Done {
    let file = || fs::symlink_metadata(path).ok().map(|about| (about.dev(), about.ino()));
    let before = file();
    match remove() {
        // The library gives a bus back to whoever took it up in the same moment.
        Ok(()) if before.is_some() && file() == before => Done::Revived,
        Ok(()) => Done::Removed,
        Err(Error::Access { .. }) if is_retired(directory, name) => Done::Emptied,
        Err(error) => Done::Kept(error),
    }
}

fn is_retired(directory: &Path, name: &str) -> bool {
    eshm::inspect_in(directory, name).is_ok_and(|now| now.state == SegmentState::Retired)
}
