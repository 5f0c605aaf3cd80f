//! How things look: stdout is data, stderr is talk.

pub mod escape;
pub mod hexdump;
pub mod json;
pub mod leftover;
pub mod percentiles;
pub mod pid;
pub mod progress;
pub mod style;
pub mod table;
pub mod units;

use std::io::{self, BufWriter, StdoutLock, Write};

/// The data that this command gives: buffered, and quiet when nobody wants it any more (a closed
/// pipe becomes [`crate::exit::Failure::ClosedPipe`]).
pub struct Out {
    inner: BufWriter<StdoutLock<'static>>,
}

impl Out {
    /// Standard output.
    pub fn stdout() -> Out {
        Out { inner: BufWriter::with_capacity(1 << 16, io::stdout().lock()) }
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
