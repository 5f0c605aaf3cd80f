//! Ctrl-C and SIGTERM: remembered, so that the command leaves its segment before it ends.
//!
//! Every wait of this program is either short and followed by [`Stop::check`], or a poll that the
//! signal itself ends ([`Stop::wait_readable`], [`Stop::wait_writable`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::{Failure, Outcome};

/// The longest time that passes between two looks at the signals.
pub const SLICE: Duration = Duration::from_millis(20);

/// For that long after a signal whoever reads our output may still make room for what was taken for
/// it: one that reads gets all of it, one that does not holds nobody up.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Remembers the signal that asked this process to end. All clones are one.
#[derive(Debug, Clone)]
pub struct Stop {
    seen: Arc<AtomicUsize>,
    bell: Arc<UnixStream>,
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
        Ok(Stop { seen, bell: Arc::new(bell) })
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
            let is_ready = self.poll(fd, PollFlags::POLLIN, PollTimeout::NONE)?;
            if let Some(signal) = self.signal() {
                return Err(io::Error::other(Stopped(signal)));
            }
            if is_ready {
                return Ok(());
            }
        }
    }

    /// Waits until `fd` takes something (or nobody reads it any more). Once a signal has come that
    /// may last until `until`; then it is an error.
    pub fn wait_writable(&self, fd: BorrowedFd<'_>, until: &mut Option<Instant>) -> io::Result<()> {
        loop {
            let Some(signal) = self.signal() else {
                if self.poll(fd, PollFlags::POLLOUT, PollTimeout::NONE)? {
                    return Ok(());
                }
                continue;
            };
            let end = *until.get_or_insert_with(|| Instant::now() + LAST_WORDS);
            let left = end.saturating_duration_since(Instant::now()).as_millis();
            let mut waiting = [PollFd::new(fd, PollFlags::POLLOUT)];
            let left = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
            match poll(&mut waiting, left) {
                Ok(0) => return Err(io::Error::other(Stopped(signal))),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits for `fd` or for a signal; true if it was `fd`.
    fn poll(&self, fd: BorrowedFd<'_>, what: PollFlags, time: PollTimeout) -> io::Result<bool> {
        let mut waiting =
            [PollFd::new(fd, what), PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, time) {
            Ok(_) => Ok(waiting[0].any().unwrap_or(true)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}
