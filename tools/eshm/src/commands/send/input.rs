//! Where the data comes from: a file or stdin, read so that a signal ends the wait.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::exit::{Failure, Outcome, SYSTEM};
use crate::signals::Stop;

/// Which file, and in which state: the same input again has the same identity.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    pub dev: u64,
    pub ino: u64,
    pub len: u64,
    pub mtime_ns: i64,
}

/// An input that is open.
pub struct Input<'a> {
    file: File,
    stop: &'a Stop,
    identity: Option<Identity>,
    /// What an error is about.
    place: String,
}

impl<'a> Input<'a> {
    /// The file at `path`, or stdin for none or "-".
    pub fn open(path: Option<&Path>, stop: &'a Stop) -> Outcome<Input<'a>> {
        let file = match path {
            // At once, also where nobody has opened the other end of a named pipe yet: the wait for
            // that is one that a signal ends.
            Some(path) if path != Path::new("-") => OpenOptions::new()
                .read(true)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(path)
                .map_err(|error| Failure::new(SYSTEM, format!("{}: {error}", path.display())))?,
            _ => File::from(io::stdin().as_fd().try_clone_to_owned()?),
        };
        let about = file.metadata()?;
        let place = path.map_or("stdin".to_string(), |path| path.display().to_string());
        if about.is_dir() {
            return Err(Failure::new(SYSTEM, format!("{place}: it is a directory")));
        }
        let identity = about.is_file().then(|| Identity {
            dev: about.dev(),
            ino: about.ino(),
            len: about.len(),
            mtime_ns: about.mtime().wrapping_mul(1_000_000_000).wrapping_add(about.mtime_nsec()),
        });
        Ok(Input { file, stop, identity, place })
    }

    /// What this input is, if it can be read again from its beginning.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// How long it is, if that is known.
    pub fn size(&self) -> Option<u64> {
        self.identity.as_ref().map(|identity| identity.len)
    }

    /// Waits until there is something to read, or the end.
    pub fn wait(&self) -> io::Result<()> {
        if self.identity.is_some() { Ok(()) } else { self.stop.wait_readable(self.file.as_fd()) }
    }

    /// An error of the file, with its name.
    pub fn about(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.place))
    }

    /// The file itself.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }
}

impl Read for Input<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait()?;
            match self.file.read(into) {
                // Somebody else has read it.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read.map_err(|error| self.about(error)),
            }
        }
    }
}
