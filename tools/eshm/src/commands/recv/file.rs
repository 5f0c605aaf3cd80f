//! A whole file from `eshm send --file`.
//!
//! Blocks are written at their own offsets into `PATH.part` and released afterwards, so that a
//! receiver that is killed and started again goes on there; a block that comes twice changes
//! nothing. The file gets its name when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::exit::{FAILED, Failure, Outcome, PEER_GONE, SYSTEM, USAGE};
use crate::output::{Out, units};
use crate::record::Block;
use crate::signals::Stop;
use crate::stdout;

use super::inlet::Inlet;

/// A file in the making.
pub struct Copy {
    place: Place,
    have: u64,
    complete: bool,
}

enum Place {
    /// A file beside its final name.
    Part { part: PathBuf, path: PathBuf, file: Option<File> },
    /// A stream: what came already must not come again.
    Stream(Box<Out>),
}

/// Receives the file.
pub fn receive(mut copy: Copy, inlet: &mut Inlet<'_>) -> Outcome {
    while !copy.complete {
        if !inlet.wait()? {
            return Err(copy.cut_short());
        }
        let mut total = None;
        inlet.take_acknowledged(|_, message| {
            let block = Block::parse(message).ok_or_else(not_a_file)?;
            if let Block::Begin(bytes) = block.0 {
                total = bytes;
            }
            copy.take(block.0, block.1)
        })?;
        if let Some(bytes) = total {
            inlet.progress().set_total(bytes);
        }
    }
    Ok(())
}

impl Copy {
    /// The copy at `path`, begun by an earlier receiver or new; "-" is stdout.
    pub fn open(path: &Path, stop: &Stop) -> Outcome<Copy> {
        if path == Path::new("-") {
            stdout::must_be_open()?;
            return Ok(Copy {
                place: Place::Stream(Box::new(Out::stdout(Some(stop))?)),
                have: 0,
                complete: false,
            });
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = OpenOptions::new().write(true).open(&part).ok();
        let have =
            file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |about| about.len());
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if path.is_dir() || parent.is_some_and(|parent| !parent.is_dir()) {
            return Err(Failure::new(
                SYSTEM,
                format!("{}: a file cannot be made there", path.display()),
            ));
        }
        Ok(Copy { place: Place::Part { part, path: path.to_owned(), file }, have, complete: false })
    }

    fn take(&mut self, block: Block, data: &[u8]) -> Outcome {
        match block {
            Block::Begin(_) => self.begin(),
            Block::Data(offset) => self.put(offset, data),
            Block::End(total) => self.end(total),
        }
    }

    fn begin(&mut self) -> Outcome {
        if let Place::Part { part, file, .. } = &mut self.place {
            *file = Some(create(part)?);
        }
        self.have = 0;
        Ok(())
    }

    fn put(&mut self, offset: u64, data: &[u8]) -> Outcome {
        if offset > self.have {
            return Err(self.hole(offset));
        }
        let end = offset + data.len() as u64;
        match &mut self.place {
            Place::Part { part, file, .. } => {
                let file = match file {
                    Some(file) => file,
                    None => file.insert(create(part)?),
                };
                file.write_all_at(data, offset).map_err(|error| on(part, error))?;
            }
            Place::Stream(out) if end > self.have => {
                let known = usize::try_from(self.have - offset).unwrap_or(0);
                out.write_all(&data[known..])?;
                out.flush()?;
            }
            Place::Stream(_) => {}
        }
        self.have = self.have.max(end);
        Ok(())
    }

    fn end(&mut self, total: u64) -> Outcome {
        if let Place::Part { path, file: None, .. } = &self.place {
            // Killed between the last two steps, a predecessor may have finished the work.
            let finished = fs::metadata(path).is_ok_and(|about| about.len() == total);
            if !finished {
                return Err(self.hole(total));
            }
        } else if self.have != total {
            return Err(self.hole(total));
        }
        if let Place::Part { part, path, file: Some(_) } = &self.place {
            fs::rename(part, path).map_err(|error| on(path, error))?;
        }
        self.complete = true;
        Ok(())
    }

    fn hole(&self, offset: u64) -> Failure {
        let have = units::count(self.have);
        Failure::new(
            FAILED,
            format!("bytes {have} to {} of the file did not come", units::count(offset)),
        )
        .remedy("send the file again from its beginning: eshm send --fresh")
    }

    fn cut_short(&self) -> Failure {
        let have = units::bytes(self.have);
        let kept = match &self.place {
            Place::Part { part, file: Some(_), .. } => format!(", kept in {}", part.display()),
            _ => String::new(),
        };
        Failure::new(
            PEER_GONE,
            format!("the sender left before the end of the file ({have} came{kept})"),
        )
        .remedy("send the file again")
    }
}

fn create(part: &Path) -> Outcome<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(part);
    file.map_err(|error| on(part, error))
}

fn on(path: &Path, error: io::Error) -> Failure {
    Failure::new(SYSTEM, format!("{}: {error}", path.display()))
}

fn not_a_file() -> Failure {
    Failure::new(USAGE, "the message that is next is no part of a file")
        .remedy("recv without --file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(directory: &Path) -> Copy {
        Copy::open(&directory.join("copy"), &Stop::install().unwrap()).unwrap()
    }

    #[test]
    fn blocks_that_come_twice_change_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut copy = copy(directory.path());
        copy.take(Block::Begin(Some(6)), b"").unwrap();
        for (offset, data) in [(0, b"abc"), (0, b"abc"), (3, b"def"), (0, b"abc")] {
            copy.take(Block::Data(offset), data).unwrap();
        }
        copy.take(Block::End(6), b"").unwrap();
        assert_eq!(fs::read(directory.path().join("copy")).unwrap(), b"abcdef");
        assert!(!directory.path().join("copy.part").exists());
    }

    #[test]
    fn a_successor_goes_on_and_a_hole_is_told() {
        let directory = tempfile::tempdir().unwrap();
        copy(directory.path()).take(Block::Data(0), b"abc").unwrap();
        let mut next = copy(directory.path());
        assert!(next.take(Block::Data(4), b"x").is_err());
        next.take(Block::Data(3), b"def").unwrap();
        next.take(Block::End(6), b"").unwrap();
        assert_eq!(fs::read(directory.path().join("copy")).unwrap(), b"abcdef");
        // Killed after the rename and before the release: the end comes again.
        copy(directory.path()).take(Block::End(6), b"").unwrap();
        assert!(copy(directory.path()).take(Block::End(7), b"").is_err());
    }

    #[test]
    fn a_new_beginning_forgets_what_was_left_of_another_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("copy.part"), b"something longer").unwrap();
        let mut copy = copy(directory.path());
        copy.take(Block::Begin(None), b"").unwrap();
        copy.take(Block::Data(0), b"ab").unwrap();
        copy.take(Block::End(2), b"").unwrap();
        assert_eq!(fs::read(directory.path().join("copy")).unwrap(), b"ab");
    }
}
