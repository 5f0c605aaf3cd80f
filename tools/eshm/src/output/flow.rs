//! Writing to whoever may not read: a signal ends the wait.
//!
//! A write to a full pipe waits in the kernel, and goes on waiting after a signal that is only
//! remembered. So nothing is written that does not fit: a pipe or a terminal is opened once more, to
//! be told so at once instead; what cannot be opened again is asked for room before each piece.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag};

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
    /// Where in a regular file the first byte goes.
    start: Option<u64>,
    /// Nothing more is written.
    is_cut: bool,
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
        let mut file = again.unwrap_or(file);
        let start = start(&mut file);
        Flow { file, stop, room, until: None, written: 0, start, is_cut: false }
    }

    /// Bytes that the system has taken.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes back from a regular file what came after the first `whole` bytes, and writes no more,
    /// so that half a message does not stay at its end. Where somebody else has written to the file
    /// as well, and in a pipe, everything stays.
    pub fn cut(&mut self, whole: u64) -> io::Result<()> {
        self.is_cut = true;
        let Some(start) = self.start.filter(|_| whole < self.written) else { return Ok(()) };
        let end = start + self.written;
        if self.file.stream_position()? == end && self.file.metadata()?.len() == end {
            self.file.set_len(start + whole)?;
            // Whoever goes on writing through the same open file must not leave a hole.
            self.file.seek(SeekFrom::Start(start + whole))?;
        }
        Ok(())
    }
}

/// Where the first byte will go that is written to a regular file.
fn start(file: &mut File) -> Option<u64> {
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(&*file, FcntlArg::F_GETFL).ok()?);
    let from =
        if flags.contains(OFlag::O_APPEND) { SeekFrom::End(0) } else { SeekFrom::Current(0) };
    file.seek(from).ok()
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
        if self.is_cut {
            return Err(io::Error::other("an earlier write failed"));
        }
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
