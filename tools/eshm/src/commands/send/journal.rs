//! Which message of the stream was the first of this input.
//!
//! A hidden file beside the segment, written before the first message and removed when the sender
//! ends in any way but SIGKILL. It holds only what the segment cannot know; how far the sender
//! came is in the segment ([`eshm::Endpoint::last_committed`]), so the two cannot disagree.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use eshm::{Endpoint, Role};
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::exit::{FAILED, Failure, Outcome};
use crate::open::Bus;

use super::input::{Identity, Input};

/// The beginning of the names of these files.
pub const PREFIX: &str = ".eshm-send_";

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The bus, by its full name.
    name: String,
    /// The stream: when its segment was made.
    created_ns: u64,
    /// The number of the first message of this input.
    base: u64,
    /// Bytes per block, if the input is sent as a file.
    block: u64,
    /// The input.
    input: Identity,
}

/// The journal of one running sender; nothing on disk when its input cannot be read again.
#[derive(Debug)]
pub struct Journal {
    path: Option<PathBuf>,
    block: u64,
}

impl Journal {
    /// Goes on with the journal of a killed sender of the same input, or starts one. Gives how many
    /// messages of this input are in the stream already.
    pub fn find_or_start(
        bus: &Bus,
        input: &Input<'_>,
        endpoint: &Endpoint,
        block: u64,
        fresh: bool,
    ) -> Outcome<(Journal, u64)> {
        let path = path(&bus.place.dir, &bus.name, &endpoint.role().to_string());
        let next = endpoint.last_committed().map_or(0, |id| id.number + 1);
        let created_ns = created_ns(bus)?;
        let old = read(&path)
            .filter(|old| old.name == bus.name && old.created_ns == created_ns && old.base <= next);
        let Some(identity) = input.identity() else {
            return Journal::of_a_pipe(path, old, block, fresh)
                .map_err(|error| error.about(&bus.name));
        };
        let old = old.filter(|_| !fresh);
        if let Some(old) = old {
            if old.input != *identity {
                return Err(other_input().about(&bus.name));
            }
            debug!("resuming at message {next}, the input began at {}", old.base);
            return Ok((Journal { path: Some(path), block: old.block }, next - old.base));
        }
        let entry = Entry {
            name: bus.name.clone(),
            created_ns,
            base: next,
            block,
            input: identity.clone(),
        };
        match write(&path, &entry) {
            Ok(()) => Ok((Journal { path: Some(path), block }, 0)),
            // Who may use the bus may still not be allowed to make files beside it.
            Err(error) if is_denied(&error) => {
                warn!(
                    "{}: {error}; if this sender is killed, the next cannot go on",
                    path.display()
                );
                Ok((Journal { path: None, block }, 0))
            }
            Err(error) => Err(Failure::from(error).about(path.display())),
        }
    }

    /// None is kept of a pipe, which is another input than any half-sent one. Once it has followed one,
    /// that one cannot be gone on with: the messages in between would be counted as its own.
    fn of_a_pipe(
        path: PathBuf,
        old: Option<Entry>,
        block: u64,
        fresh: bool,
    ) -> Outcome<(Journal, u64)> {
        if old.is_some() {
            if !fresh {
                return Err(other_input());
            }
            fs::remove_file(&path).map_err(|error| Failure::from(error).about(path.display()))?;
        }
        Ok((Journal { path: None, block }, 0))
    }

    /// Bytes per block: those of the sender that began.
    pub fn block(&self) -> u64 {
        self.block
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes this user's journals of the bus `name`, which is gone.
pub fn forget(directory: &Path, name: &str) {
    for role in [Role::Master, Role::Slave] {
        let path = path(directory, name, &role.to_string());
        let is_own =
            fs::symlink_metadata(&path).is_ok_and(|about| about.uid() == geteuid().as_raw());
        if is_own && read(&path).is_some_and(|entry| entry.name == name) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn other_input() -> Failure {
    Failure::new(
        FAILED,
        "a sender of another input, or of this one before it changed, was killed half-way",
    )
    .remedy("send that input to its end first, or --fresh to send this one after its half")
}

/// Where the journal of a sender lies.
fn path(directory: &Path, name: &str, role: &str) -> PathBuf {
    directory.join(format!("{PREFIX}{}_{role}", name.replace('/', "_")))
}

fn created_ns(bus: &Bus) -> Outcome<u64> {
    let created = eshm::inspect_in(&bus.place.dir, &bus.name)?.created;
    Ok(created
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|t| u64::try_from(t.as_nanos()).ok())
        .unwrap_or(0))
}

/// Reads a journal of this very user; anything else is as good as none.
fn read(path: &Path) -> Option<Entry> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let about = file.metadata().ok()?;
    if !about.is_file() || about.uid() != geteuid().as_raw() {
        warn!("{}: not a journal of this user; left alone", path.display());
        return None;
    }
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Writes it whole, then gives it its name.
fn write(path: &Path, entry: &Entry) -> io::Result<()> {
    let draft = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    let text = serde_json::to_string(entry).unwrap_or_default();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
    let written = file
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let input = Identity { dev: 1, ino: 2, len: 3, mtime_ns: 4 };
        Entry { name: "a/b".into(), created_ns: 5, base: 6, block: 7, input }
    }

    #[test]
    fn a_journal_reads_back_and_a_planted_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), "a/b", "master");
        write(&path, &entry()).unwrap();
        assert_eq!(read(&path), Some(entry()));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(read(&path), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no draft is left");
    }
}
