//! Writing to whoever may not read: a signal ends the wait.
//!
//! A write to a full pipe waits in the kernel, and goes on waiting after a signal that is only
//! remembered. So nothing is written that does not fit: a pipe or a terminal is opened once more, to
//! be told so at once instead; what cannot be opened again is asked for room before each piece.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::Instant;

use nix::fcntl::OFlag;

use crate::signals::Stop;

/// What a pipe that has room takes whole.
const PIECE: usize = 4096;

/// A file or a pipe to write to.
pub struct Flow {
    file: File,
    /// `None`: a signal is not waited for, it ends this process.
    stop: Option<Stop>,
    room: Room,
    /// Until when what was taken may still be written, once a signal has come.
    until: Option<Instant>,
    written: u64,
}

/// How a write learns that there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// It is told at once; or there is always room, as in a file.
    Told,
    /// It would wait, so it asks before.
    Asked,
}

impl Flow {
    /// Writes to `file` until `stop` says otherwise.
    pub fn new(file: File, stop: Option<Stop>) -> Flow {
        let is_pipe = file.metadata().is_ok_and(|about| {
            about.file_type().is_fifo() || about.file_type().is_socket() || file.is_terminal()
        });
        let again = if is_pipe && stop.is_some() { open_again(&file).ok() } else { None };
        let room = if is_pipe && again.is_none() { Room::Asked } else { Room::Told };
        Flow { file: again.unwrap_or(file), stop, room, until: None, written: 0 }
    }

    /// Bytes that the system has taken.
    pub fn written(&self) -> u64 {
        self.written
    }
}

/// The same pipe or terminal, with flags of our own: those of the one we were given are shared with
/// whoever gave it.
fn open_again(file: &File) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().write(true).custom_flags(flags.bits()).open(path)
}

impl Write for Flow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut must_wait = self.room == Room::Asked;
        loop {
            let mut piece = bytes;
            if let Some(stop) = &self.stop {
                if must_wait {
                    stop.wait_writable(self.file.as_fd(), &mut self.until)?;
                }
                if self.room == Room::Asked {
                    piece = &bytes[..bytes.len().min(PIECE)];
                }
            }
            match self.file.write(piece) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.stop.is_some() => {
                    must_wait = true;
                }
                written => {
                    self.written += written.as_ref().map_or(0, |&bytes| bytes as u64);
                    return written;
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
