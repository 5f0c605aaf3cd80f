//! Messages in a stream of bytes: lines, records with their length in front, and blocks of a file.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

use clap::ValueEnum;

/// How messages stand in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line each, without its newline
    Lines,
    /// As lines, but ended by a zero byte
    Nul,
    /// Each with its length in front: 4 bytes, little-endian
    Records,
}

impl Format {
    fn delimiter(self) -> u8 {
        if self == Format::Nul { 0 } else { b'\n' }
    }
}

/// Takes messages out of a stream.
pub struct Source<R> {
    input: BufReader<R>,
    format: Format,
    longest: usize,
}

impl<R: Read> Source<R> {
    /// Messages of up to `longest` bytes from `input`.
    pub fn new(input: R, format: Format, longest: usize) -> Source<R> {
        Source { input: BufReader::with_capacity(1 << 18, input), format, longest }
    }

    /// The next message into `message`; false at the end of the stream.
    pub fn next(&mut self, message: &mut Vec<u8>) -> io::Result<bool> {
        message.clear();
        match self.format {
            Format::Records => self.next_record(message),
            Format::Lines | Format::Nul => self.next_line(message),
        }
    }

    /// Whether the next message is here already, so that taking it does not wait.
    pub fn has_more(&self) -> bool {
        let here = self.input.buffer();
        match self.format {
            Format::Records => here
                .first_chunk::<4>()
                .is_some_and(|len| here.len() - 4 >= u32::from_le_bytes(*len) as usize),
            Format::Lines | Format::Nul => here.contains(&self.format.delimiter()),
        }
    }

    fn next_line(&mut self, message: &mut Vec<u8>) -> io::Result<bool> {
        let delimiter = self.format.delimiter();
        let limit = self.longest as u64 + 2;
        let got = (&mut self.input).take(limit).read_until(delimiter, message)?;
        if message.last() == Some(&delimiter) {
            message.pop();
        }
        if message.len() > self.longest {
            Err(too_long(message.len(), self.longest))
        } else {
            Ok(got > 0)
        }
    }

    fn next_record(&mut self, message: &mut Vec<u8>) -> io::Result<bool> {
        let mut len = [0; 4];
        if !read_all_or_none(&mut self.input, &mut len)? {
            return Ok(false);
        }
        let len = u32::from_le_bytes(len) as usize;
        if len > self.longest {
            return Err(too_long(len, self.longest));
        }
        message.resize(len, 0);
        self.input.read_exact(message).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => cut_short(),
            _ => error,
        })?;
        Ok(true)
    }
}

/// Fills `into`, or finds the stream at its end.
fn read_all_or_none(input: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < into.len() {
        match input.read(&mut into[filled..])? {
            0 if filled == 0 => return Ok(false),
            0 => return Err(cut_short()),
            got => filled += got,
        }
    }
    Ok(true)
}

fn cut_short() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the input ends in the middle of a record")
}

/// A message of the input is longer than the bus carries.
#[derive(Debug)]
pub struct TooLong(pub String);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TooLong {}

fn too_long(len: usize, longest: usize) -> io::Error {
    let at_least = if len > longest { "at least " } else { "" };
    io::Error::new(
        ErrorKind::InvalidInput,
        TooLong(format!(
            "a message of {at_least}{len} bytes is too long: this direction carries up to {longest}"
        )),
    )
}

/// Puts one message into a stream.
pub fn write(out: &mut impl Write, format: Format, message: &[u8]) -> io::Result<()> {
    match format {
        Format::Records => {
            let len = u32::try_from(message.len()).map_err(io::Error::other)?;
            out.write_all(&len.to_le_bytes())?;
            out.write_all(message)
        }
        Format::Lines | Format::Nul => {
            out.write_all(message)?;
            out.write_all(&[format.delimiter()])
        }
    }
}

/// What a message of a file transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// A file begins, of that many bytes if they are known.
    Begin(Option<u64>),
    /// What follows in the message belongs at this offset.
    Data(u64),
    /// The file is complete and has that many bytes.
    End(u64),
}

/// The bytes in front of each message of a file transfer.
pub const BLOCK_HEADER: usize = 16;
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"ESF1");

impl Block {
    /// The header of such a message.
    pub fn header(self) -> [u8; BLOCK_HEADER] {
        let (kind, value) = match self {
            Block::Begin(total) => (1u32, total.unwrap_or(u64::MAX)),
            Block::Data(offset) => (2, offset),
            Block::End(total) => (3, total),
        };
        let mut header = [0; BLOCK_HEADER];
        header[..4].copy_from_slice(&BLOCK_MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&value.to_le_bytes());
        header
    }

    /// Reads the header of a message; `None` if it is no part of a file transfer.
    pub fn parse(message: &[u8]) -> Option<(Block, &[u8])> {
        let (header, data) = message.split_first_chunk::<BLOCK_HEADER>()?;
        let word = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let value = u64::from_le_bytes(header[8..].try_into().ok()?);
        if word(0)? != BLOCK_MAGIC {
            return None;
        }
        let block = match word(4)? {
            1 => Block::Begin((value != u64::MAX).then_some(value)),
            2 => Block::Data(value),
            3 => Block::End(value),
            _ => return None,
        };
        Some((block, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], format: Format) -> io::Result<Vec<Vec<u8>>> {
        let mut source = Source::new(input, format, 8);
        let mut message = Vec::new();
        let mut messages = Vec::new();
        while source.next(&mut message)? {
            messages.push(message.clone());
        }
        Ok(messages)
    }

    #[test]
    fn lines_come_without_their_ends_and_the_last_needs_none() {
        assert_eq!(
            all(b"a\n\nbc", Format::Lines).unwrap(),
            [b"a".to_vec(), vec![], b"bc".to_vec()]
        );
        assert_eq!(all(b"a\n\0b\0", Format::Nul).unwrap(), [b"a\n".to_vec(), b"b".to_vec()]);
        assert!(all(b"", Format::Lines).unwrap().is_empty());
    }

    #[test]
    fn a_line_of_exactly_the_longest_length_passes_and_one_more_does_not() {
        assert_eq!(all(b"12345678\n1\n", Format::Lines).unwrap().len(), 2);
        assert!(all(b"123456789\n", Format::Lines).is_err());
        assert!(all(b"123456789", Format::Lines).is_err());
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let mut stream = Vec::new();
        for message in [&b""[..], b"a\nb", b"12345678"] {
            write(&mut stream, Format::Records, message).unwrap();
        }
        assert_eq!(
            all(&stream, Format::Records).unwrap(),
            [b"".to_vec(), b"a\nb".to_vec(), b"12345678".to_vec()]
        );
    }

    #[test]
    fn a_record_cut_short_or_longer_than_allowed_is_an_error() {
        assert!(all(&[1, 0], Format::Records).is_err());
        assert!(all(&[2, 0, 0, 0, 1], Format::Records).is_err());
        assert!(all(&[255, 255, 255, 255], Format::Records).is_err());
    }

    #[test]
    fn block_headers_read_back_and_strangers_are_told_apart() {
        for block in
            [Block::Begin(None), Block::Begin(Some(7)), Block::Data(1 << 40), Block::End(0)]
        {
            let mut message = block.header().to_vec();
            message.push(9);
            assert_eq!(Block::parse(&message), Some((block, &[9u8][..])));
        }
        assert_eq!(Block::parse(b"hello, this is a line of text"), None);
        assert_eq!(Block::parse(b"ESF1"), None);
    }
}
