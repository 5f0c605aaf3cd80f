//! Where received messages go, and in which shape.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use eshm::MessageId;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde_json::json;

use crate::exit::{Failure, Outcome, SYSTEM};
use crate::output::{Out, escape, hexdump};
use crate::signals::{SLICE, Stop};
use crate::{record, stdout};

use super::{Args, Format};

/// The shape of a message in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain(record::Format),
    Escaped,
    Json,
}

/// The output.
pub struct Sink {
    out: Counted,
    shape: Shape,
    /// Where the messages end that were put out since the output was last empty.
    ends: Vec<u64>,
    /// Where the last of them ended when it was.
    flushed: u64,
    /// What an error is about.
    place: String,
}

/// The output, and how many bytes it was given.
struct Counted(Out, u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.0.write(bytes)?;
        self.1 += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether stdout is a terminal, which no payload may drive.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

impl Sink {
    /// The output that the command line asks for.
    pub fn open(args: &Args, stop: &Stop) -> Outcome<Sink> {
        let out = match &args.output {
            None => {
                stdout::must_be_open()?;
                Out::stdout(Some(stop))?
            }
            Some(path) => Out::file(open_output(path, args.append, stop)?, Some(stop)),
        };
        let place = args.output.as_ref().map_or("stdout".into(), |path| path.display().to_string());
        let terminal = args.output.is_none() && stdout_is_terminal() && !args.raw;
        let shape = match args.format {
            _ if args.json => Shape::Json,
            Format::Lines if terminal => Shape::Escaped,
            Format::Lines => Shape::Plain(record::Format::Lines),
            Format::Nul => Shape::Plain(record::Format::Nul),
            Format::Records => Shape::Plain(record::Format::Records),
        };
        if terminal && matches!(shape, Shape::Plain(_)) {
            return Err(Failure::new(crate::exit::USAGE, "this format is not for a terminal")
                .remedy("-o FILE, a pipe, or --raw"));
        }
        Ok(Sink { out: Counted(out, 0), shape, ends: Vec::new(), flushed: 0, place })
    }

    /// Puts one message out.
    pub fn put(&mut self, id: MessageId, message: &[u8]) -> Outcome {
        let put = match self.shape {
            Shape::Plain(format) => record::write(&mut self.out, format, message),
            Shape::Escaped => writeln!(self.out, "{}", escape::bytes(message)),
            Shape::Json => writeln!(self.out, "{}", as_json(id, message)),
        };
        put.map_err(|error| self.failed(error))?;
        self.ends.push(self.out.1);
        Ok(())
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> Outcome {
        self.out.flush().map_err(|error| self.failed(error))?;
        self.ends.clear();
        self.flushed = self.out.1;
        Ok(())
    }

    /// What to tell about a write that failed. A file is left with whole messages only, so that the
    /// next receiver, which may add to it, does not go on in the middle of a line.
    fn failed(&mut self, error: io::Error) -> Failure {
        let failure = Failure::from(error);
        if matches!(failure, Failure::Told { .. }) {
            let written = self.out.0.written();
            let whole = self.ends.iter().rfind(|&&end| end <= written);
            if let Err(error) = self.out.0.cut(whole.copied().unwrap_or(self.flushed)) {
                tracing::warn!("{}: half a message may be at its end: {error}", self.place);
            }
        }
        failure.about(&self.place)
    }

    /// How many messages the system has taken whole, after a flush that failed.
    pub fn whole(&self) -> u64 {
        let written = self.out.0.written();
        self.ends.iter().take_while(|&&end| end <= written).count() as u64
    }
}

/// The file to write to. A named pipe is waited for until somebody reads it.
fn open_output(path: &Path, append: bool, stop: &Stop) -> Outcome<File> {
    let is_pipe = fs::metadata(path).is_ok_and(|about| about.file_type().is_fifo());
    let mut options = OpenOptions::new();
    options.create(true).write(true).append(append).truncate(!append);
    if is_pipe {
        options.custom_flags(OFlag::O_NONBLOCK.bits());
    }
    loop {
        match options.open(path) {
            Err(error) if is_pipe && error.raw_os_error() == Some(Errno::ENXIO as i32) => {
                stop.sleep(SLICE)?;
            }
            opened => {
                return opened
                    .map_err(|error| Failure::new(SYSTEM, format!("{}: {error}", path.display())));
            }
        }
    }
}

/// A message as JSON: as text if it is text, else as hexadecimal.
pub fn as_json(id: MessageId, message: &[u8]) -> serde_json::Value {
    let mut value = json!({ "epoch": id.epoch, "number": id.number, "len": message.len() });
    match std::str::from_utf8(message) {
        Ok(text) => value["text"] = text.into(),
        Err(_) => value["hex"] = hexdump::plain(message).into(),
    }
    value
}
