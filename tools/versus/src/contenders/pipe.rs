//! Two named pipes, one for each direction.
//!
//! Settings, and why: blocking reads and writes, as polling would only add system calls; the largest
//! pipe that the system grants up to 1 MiB.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::contender::{Contender, Kind, Link, Measure, Mode, Place, Result, Why};
use crate::contenders::SINGLE_AND_BATCH;
use crate::contenders::bytes::Bytes;
use crate::message::Message;

/// The pipe.
pub struct Pipe;

impl Contender for Pipe {
    const NAME: &'static str = "pipe";
    const KIND: Kind = Kind::Processes;
    const SETTINGS: &'static str = "blocking, up to 1 MiB; a batch is one call";
    const CAN: &'static [(Measure, Mode)] = SINGLE_AND_BATCH;
    type Link<const W: usize> = End<W>;
}

/// One side.
pub struct End<const W: usize>(Bytes<File, File, W>);

impl<const W: usize> Link<W> for End<W> {
    type Half = ();

    fn create(place: &Place) -> Result<Self::Half> {
        make(&place.outgoing()).why("make a pipe")
    }

    fn join((): Self::Half, place: &Place) -> Result<Self> {
        // Opening waits for the other end, so the sides must open the same pipe at the same time.
        let open_out = || OpenOptions::new().write(true).open(place.outgoing());
        let open_back = || File::open(place.incoming());
        let (out, back) = if place.near {
            let out = open_out();
            (out, open_back())
        } else {
            let back = open_back();
            (open_out(), back)
        };
        let out = out.why("open a pipe")?;
        widen(&out);
        Ok(End(Bytes::new(back.why("open a pipe")?, out)))
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        self.0.send(message);
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        self.0.receive(message);
    }

    #[inline(always)]
    fn send_batch(&mut self, messages: &[Message<W>]) {
        self.0.send_batch(messages);
    }

    #[inline(always)]
    fn receive_batch(&mut self, take: impl FnMut(&Message<W>)) {
        self.0.receive_batch(take);
    }
}

fn make(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the name ends with a zero byte and outlives the call.
    match unsafe { libc::mkfifo(name.as_ptr(), 0o600) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes the largest pipe that is granted; the limit of a user may be lower than one pipe's.
fn widen(pipe: &File) {
    for bytes in [1 << 20, 1 << 18, 1 << 16] {
        // SAFETY: the descriptor is open; the call takes an integer.
        if unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) } >= 0 {
            return;
        }
    }
}
