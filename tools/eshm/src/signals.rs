//! Ctrl-C and SIGTERM: remembered, so that the command leaves its segment before it ends.
//!
//! Every wait of this program is either short and followed by [`Stop::check`], or a poll that the
//! signal itself ends ([`Stop::wait_readable`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::{Failure, Outcome};

/// The longest time that passes between two looks at the signals.
pub const SLICE: Duration = Duration::from_millis(20);

/// Remembers the signal that asked this process to end.
#[derive(Debug)]
pub struct Stop {
    seen: Arc<AtomicUsize>,
    bell: UnixStream,
}

/// The error inside an [`io::Error`] when a signal ended a read.
#[derive(Debug)]
pub struct Stopped(pub i32);

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ended by signal {}", self.0)
    }
}

impl std::error::Error for Stopped {}

impl Stop {
    /// From now on SIGINT and SIGTERM do not kill, but are remembered.
    pub fn install() -> Outcome<Stop> {
        let seen = Arc::new(AtomicUsize::new(0));
        let (bell, ringer) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_usize(
                signal,
                seen.clone(),
                signal.cast_unsigned() as usize,
            )?;
            signal_hook::low_level::pipe::register(signal, ringer.try_clone()?)?;
        }
        Ok(Stop { seen, bell })
    }

    /// The signal, once one has come.
    pub fn signal(&self) -> Option<i32> {
        // Relaxed: the number is all there is to know.
        match self.seen.load(Ordering::Relaxed) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }

    /// Ends the command once a signal has come.
    pub fn check(&self) -> Outcome {
        self.signal().map_or(Ok(()), |signal| Err(Failure::Signal(signal)))
    }

    /// Sleeps that long, or until a signal comes.
    pub fn sleep(&self, time: Duration) -> Outcome {
        let mut waiting = [PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
        let millis = u16::try_from(time.as_millis().max(1)).unwrap_or(u16::MAX);
        match poll(&mut waiting, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => self.check(),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    /// Waits until `fd` can be read (or has ended); a signal makes it an error.
    pub fn wait_readable(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let mut waiting = [
                PollFd::new(fd, PollFlags::POLLIN),
                PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waiting, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if let Some(signal) = self.signal() {
                return Err(io::Error::other(Stopped(signal)));
            }
            if waiting[0].any().unwrap_or(true) {
                return Ok(());
            }
        }
    }
}
