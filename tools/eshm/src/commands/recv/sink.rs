//! Where received messages go, and in which shape.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, IsTerminal, Write};

use eshm::MessageId;
use serde_json::json;

use crate::exit::{Failure, Outcome, SYSTEM};
use crate::output::{Out, escape, hexdump};
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
    out: Box<dyn Write>,
    shape: Shape,
}

/// Whether stdout is a terminal, which no payload may drive.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

impl Sink {
    /// The output that the command line asks for.
    pub fn open(args: &Args) -> Outcome<Sink> {
        let out: Box<dyn Write> = match &args.output {
            None => {
                stdout::must_be_open()?;
                Box::new(Out::stdout())
            }
            Some(path) => {
                let mut options = OpenOptions::new();
                options.create(true).write(true).append(args.append).truncate(!args.append);
                let file = options.open(path);
                let file = file.map_err(|error| {
                    Failure::new(SYSTEM, format!("{}: {error}", path.display()))
                })?;
                Box::new(BufWriter::with_capacity(1 << 16, file))
            }
        };
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
        Ok(Sink { out, shape })
    }

    /// Puts one message out.
    pub fn put(&mut self, id: MessageId, message: &[u8]) -> Outcome {
        match self.shape {
            Shape::Plain(format) => record::write(&mut self.out, format, message)?,
            Shape::Escaped => writeln!(self.out, "{}", escape::bytes(message))?,
            Shape::Json => writeln!(self.out, "{}", as_json(id, message))?,
        }
        Ok(())
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> Outcome {
        Ok(self.out.flush()?)
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
