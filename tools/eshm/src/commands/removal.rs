//! Taking a bus away, and saying truly what was done: what `rm` and `gc` share.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use eshm::{Error, Options, SegmentState};
use nix::unistd::geteuid;

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

/// Whether a file of user `owner` may be removed by this user, who trusts those in `trust`. Root may
/// remove any, as with the system's own `rm`; should its owner cut it short meanwhile, that is an
/// error (`guard_sigbus`).
pub fn is_entitled(owner: u32, trust: &[u32]) -> bool {
    let own = geteuid();
    own.is_root() || owner == own.as_raw() || owner == 0 || trust.contains(&owner)
}

/// Who owns the file at `path`.
pub fn owner(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().map(|about| about.uid())
}

/// Removes the bus or the leftover `name`, whose file is at `path`.
pub fn remove(directory: &Path, path: &Path, name: &str, force: bool, trust: &[u32]) -> Done {
    told(directory, path, name, || options(directory, path, name, trust).remove(force))
}

/// The same for what was seen without a holder and without anything unread, if it still is so.
pub fn remove_read(directory: &Path, path: &Path, name: &str, trust: &[u32]) -> Done {
    let mut stays = false;
    let done = told(directory, path, name, || {
        stays = !options(directory, path, name, trust).remove_read()?;
        Ok(())
    });
    if stays { Done::Revived } else { done }
}

fn options(directory: &Path, path: &Path, name: &str, trust: &[u32]) -> Options {
    let mut options = Options::new(name);
    options.directory(directory).guard_sigbus(true);
    if let Some(owner) = owner(path).filter(|&owner| is_entitled(owner, trust)) {
        options.trust_user(owner);
    }
    options
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
