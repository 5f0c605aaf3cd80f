//! How things look: stdout is data, stderr is talk.

pub mod escape;
pub mod flow;
pub mod hexdump;
pub mod json;
pub mod leftover;
pub mod percentiles;
pub mod pid;
pub mod progress;
pub mod style;
pub mod table;
pub mod units;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use crate::signals::Stop;
use flow::Flow;

/// The data that this command gives: buffered, and quiet when nobody wants it any more (a closed
/// pipe becomes [`crate::exit::Failure::ClosedPipe`]).
pub struct Out {
    inner: BufWriter<Flow>,
}

impl Out {
    /// Standard output; with `stop` a signal ends the wait for whoever does not read it.
    pub fn stdout(stop: Option<&Stop>) -> io::Result<Out> {
        Ok(Out::file(File::from(io::stdout().as_fd().try_clone_to_owned()?), stop))
    }

    /// A file, which may be a pipe.
    pub fn file(file: File, stop: Option<&Stop>) -> Out {
        Out { inner: BufWriter::with_capacity(1 << 16, Flow::new(file, stop.cloned())) }
    }

    /// Bytes that the system has taken.
    pub fn written(&self) -> u64 {
        self.inner.get_ref().written()
    }

    /// After a write that failed: leaves the first `whole` bytes in a regular file, and writes no more.
    pub fn cut(&mut self, whole: u64) -> io::Result<()> {
        self.inner.get_mut().cut(whole)
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
