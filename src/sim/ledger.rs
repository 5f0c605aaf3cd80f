//! What was told committed and what was read, and whether the two fit.
//!
//! A stream is one direction of one file: a handle never moves to another file, so what was written
//! to a file is read from it or from nowhere. Each write is an *attempt* before it is made, so that
//! the fate of one whose writer was killed is known to be unknown.
//!
//! - Told committed: read exactly once, unless a reader died with it in its hands (at most what its
//!   last call could take, and only the next ones in order), or it was overwritten and counted, or
//!   the file was removed by force.
//! - Told refused: never read.
//! - Each reader, and each tap, meets rising attempts only.

use super::kernel::{Ino, ProcessId};

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Its writer has not been told yet.
    Pending(ProcessId),
    Committed,
    Refused,
    /// Its writer was killed before it was told.
    Unknown,
}

struct Attempt {
    fate: Fate,
    is_read: bool,
    is_tapped: bool,
    /// Somebody went to a newer one.
    is_passed: bool,
}

/// One direction of one file.
struct Stream {
    ino: Ino,
    direction: usize,
    is_overwritten: bool,
    attempts: Vec<Attempt>,
    /// Readers that died in the middle of a call.
    deaths: Vec<Death>,
    /// Taken away by force, or truncated: anything may be lost.
    may_lose: bool,
    /// Gaps that a reader of an overwritten direction counted: between, and how many.
    gaps: Vec<(usize, usize, u64)>,
}

#[derive(Clone, Copy)]
struct Death {
    /// The attempts from here to there may have been in its hands, so many of them at most.
    from: usize,
    to: usize,
    most: usize,
}

/// A call that reads and is not over.
struct Reading {
    process: ProcessId,
    stream: usize,
    from: usize,
    most: usize,
}

/// Which stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct StreamId(usize);

/// All streams of a schedule.
#[derive(Default)]
pub(super) struct Ledger {
    streams: Vec<Stream>,
    reading: Vec<Reading>,
    /// Files in which anything may be lost.
    excused: Vec<Ino>,
    pub wrong: Option<String>,
    /// The bytes are changed from outside, so nothing is said of them.
    pub is_lenient: bool,
    /// How much happened, for the figures.
    pub written: u64,
    pub read: u64,
}

/// Bytes of a message before its filling.
const HEAD: usize = 8;

/// The bytes of an attempt: which stream, which one, and a filling that follows from the two.
pub(super) fn message(stream: StreamId, attempt: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.max(HEAD)];
    bytes[..2].copy_from_slice(&(stream.0 as u16).to_le_bytes());
    bytes[2..4].copy_from_slice(&(len.max(HEAD) as u16).to_le_bytes());
    bytes[4..8].copy_from_slice(&(attempt as u32).to_le_bytes());
    for (index, byte) in bytes.iter_mut().enumerate().skip(HEAD) {
        *byte = filling(attempt, index);
    }
    bytes
}

fn filling(attempt: usize, index: usize) -> u8 {
    (attempt.wrapping_mul(31) ^ index.wrapping_mul(7)) as u8
}

impl Ledger {
    pub fn accuse(&mut self, wrong: String) {
        if self.wrong.is_none() && !self.is_lenient {
            self.wrong = Some(wrong);
        }
    }

    /// The stream of a direction of a file.
    pub fn stream(&mut self, ino: Ino, direction: usize, is_overwritten: bool) -> StreamId {
        let is_it = |it: &Stream| it.ino == ino && it.direction == direction;
        StreamId(self.streams.iter().position(is_it).unwrap_or_else(|| {
            let may_lose = self.excused.contains(&ino);
            self.streams.push(Stream {
                ino,
                direction,
                is_overwritten,
                attempts: Vec::new(),
                deaths: Vec::new(),
                may_lose,
                gaps: Vec::new(),
            });
            self.streams.len() - 1
        }))
    }

    /// Anything in this file may be lost from now on.
    pub fn excuse(&mut self, ino: Ino) {
        self.excused.push(ino);
        self.streams.iter_mut().filter(|it| it.ino == ino).for_each(|it| it.may_lose = true);
    }

    /// Whether anything in this file may be lost.
    pub fn is_excused(&self, ino: Ino) -> bool {
        self.excused.contains(&ino)
    }

    /// Whether anything in this file may have been passed over, which only the ring knows.
    pub fn has_passed(&self, ino: Ino) -> bool {
        let mut streams = self.streams.iter().filter(|stream| stream.ino == ino);
        streams.any(|stream| stream.attempts.iter().any(|attempt| attempt.is_passed))
    }

    // --- writing ------------------------------------------------------------------------------

    /// The next attempts of a process; the first of them.
    pub fn begin_write(&mut self, process: ProcessId, stream: StreamId, count: usize) -> usize {
        let attempts = &mut self.streams[stream.0].attempts;
        let first = attempts.len();
        let fresh = || Attempt {
            fate: Fate::Pending(process),
            is_read: false,
            is_tapped: false,
            is_passed: false,
        };
        attempts.extend(std::iter::repeat_with(fresh).take(count));
        first
    }

    /// The first `committed` of them were told committed, the others as `rest` says.
    pub fn end_write(
        &mut self,
        stream: StreamId,
        (first, count): (usize, usize),
        committed: usize,
        rest: Fate,
    ) {
        self.written += committed as u64;
        for index in first..first + count {
            let is_committed = index < first + committed;
            let attempt = &mut self.streams[stream.0].attempts[index];
            attempt.fate = if is_committed { Fate::Committed } else { rest };
            if attempt.fate == Fate::Refused && attempt.is_read {
                self.accuse(format!("message {index} of {stream:?} was read, and then refused"));
            }
        }
    }

    // --- reading ------------------------------------------------------------------------------

    /// A process is about to read at most so many, all of them behind `last`.
    pub fn begin_read(
        &mut self,
        process: ProcessId,
        stream: StreamId,
        last: Option<usize>,
        most: usize,
    ) {
        // A reader that has read nothing yet goes on where others were.
        let attempts = &self.streams[stream.0].attempts;
        let others = || attempts.iter().rposition(|it| it.is_read).map_or(0, |at| at + 1);
        let from = last.map_or_else(others, |last| last + 1);
        self.reading.push(Reading { process, stream: stream.0, from, most });
    }

    pub fn end_read(&mut self, process: ProcessId) {
        self.reading.retain(|reading| reading.process != process);
    }

    /// Of which stream these bytes say that they are, if it has this direction.
    pub fn stream_of(&self, bytes: &[u8], direction: usize) -> Option<StreamId> {
        let stream = usize::from(u16::from_le_bytes([*bytes.first()?, *bytes.get(1)?]));
        (self.streams.get(stream)?.direction == direction).then_some(StreamId(stream))
    }

    /// Which attempt these bytes are, if they are whole and of this stream.
    pub fn recognise(&mut self, stream: StreamId, bytes: &[u8]) -> Option<usize> {
        let word = |from: usize| bytes.get(from..from + 2).map(|it| [it[0], it[1]]);
        let head = word(0).zip(word(2)).zip(bytes.get(4..8));
        let Some(((from, len), attempt)) = head else {
            self.accuse(format!("a message of {} bytes", bytes.len()));
            return None;
        };
        let attempt = u32::from_le_bytes([attempt[0], attempt[1], attempt[2], attempt[3]]) as usize;
        let is_whole = usize::from(u16::from_le_bytes(len)) == bytes.len()
            && (HEAD..bytes.len()).all(|index| bytes[index] == filling(attempt, index));
        let is_here = usize::from(u16::from_le_bytes(from)) == stream.0
            && attempt < self.streams[stream.0].attempts.len();
        if !is_whole || !is_here {
            let shown = &bytes[..bytes.len().min(24)];
            self.accuse(format!("{stream:?}: torn or not of it: {shown:?}"));
            return None;
        }
        Some(attempt)
    }

    /// A message was handed out.
    pub fn read(&mut self, stream: StreamId, attempt: usize, last: Option<usize>) {
        self.read += 1;
        if last.is_some_and(|last| last >= attempt) {
            self.accuse(format!("{stream:?}: message {attempt} was read behind {last:?}"));
        }
        let it = &mut self.streams[stream.0].attempts[attempt];
        let (fate, was_read) = (it.fate, std::mem::replace(&mut it.is_read, true));
        if was_read {
            self.accuse(format!("{stream:?}: message {attempt} was read twice"));
        }
        if fate == Fate::Refused {
            self.accuse(format!("{stream:?}: message {attempt} was refused, and is read"));
        }
    }

    /// A message was shown in place, and will be handed out again if it is not released. A reader
    /// that does not know yet that it was replaced may be shown what its successor has read.
    pub fn show(&mut self, stream: StreamId, attempt: usize, last: Option<usize>) {
        if last.is_some_and(|last| last >= attempt) {
            self.accuse(format!("{stream:?}: message {attempt} is shown, and was read"));
        }
    }

    /// A tap heard a message.
    pub fn tap(&mut self, stream: StreamId, attempt: usize, last: Option<usize>) {
        if last.is_some_and(|last| last >= attempt) {
            self.accuse(format!("{stream:?}: a tap heard {attempt} after {last:?}"));
        }
        self.streams[stream.0].attempts[attempt].is_tapped = true;
    }

    /// A reader of an overwritten direction read one, later another, and counted what it lost between.
    pub fn gap(&mut self, stream: StreamId, from: usize, to: usize, lost: u64) {
        // A reader that goes back was accused already.
        if from < to {
            self.streams[stream.0].gaps.push((from, to, lost));
        }
    }

    // --- death and the end --------------------------------------------------------------------

    /// No instruction of this process runs any more.
    pub fn died(&mut self, process: ProcessId) {
        for stream in &mut self.streams {
            for attempt in &mut stream.attempts {
                if attempt.fate == Fate::Pending(process) {
                    attempt.fate = Fate::Unknown;
                }
            }
        }
        for reading in self.reading.extract_if(.., |reading| reading.process == process) {
            let stream = &mut self.streams[reading.stream];
            let to = stream.attempts.len();
            stream.deaths.push(Death { from: reading.from, to, most: reading.most });
        }
    }

    /// The newest message that was told committed.
    pub fn newest(&self, stream: StreamId) -> Option<usize> {
        let attempts = &self.streams[stream.0].attempts;
        attempts.iter().rposition(|attempt| attempt.fate == Fate::Committed)
    }

    /// A reader went to the newest message: all before it may have been passed over.
    pub fn skip(&mut self, stream: StreamId) {
        let attempts = &mut self.streams[stream.0].attempts;
        // What is being written may be there already, and what the dead wrote.
        let is_there = |it: &Attempt| it.fate != Fate::Refused;
        let newest = attempts.iter().rposition(is_there).unwrap_or(0);
        attempts[..newest].iter_mut().for_each(|attempt| attempt.is_passed = true);
    }

    /// What was told committed, not read, and not in the hands of anybody, dead or alive.
    fn missing(&self, number: usize) -> Option<usize> {
        let stream = &self.streams[number];
        let mut excused = vec![false; stream.attempts.len()];
        let to = stream.attempts.len();
        let reading = self.reading.iter().filter(|reading| reading.stream == number);
        let held = reading.map(|it| Death { from: it.from, to, most: it.most });
        for death in stream.deaths.iter().copied().chain(held) {
            let mut left = death.most;
            let held = stream.attempts.iter().zip(&mut excused);
            for (attempt, excused) in held.take(death.to).skip(death.from) {
                if attempt.is_read || left == 0 {
                    break;
                }
                if attempt.fate == Fate::Committed && !attempt.is_passed {
                    *excused = true;
                    left -= 1;
                }
            }
        }
        let is_missing = |&index: &usize| {
            let attempt = &stream.attempts[index];
            let is_had = attempt.is_read || attempt.is_passed || excused[index];
            attempt.fate == Fate::Committed && !is_had
        };
        (0..stream.attempts.len()).find(is_missing)
    }

    /// Something of this file that is still to be read, so that the file must not go.
    pub fn unread(&self, ino: Ino) -> Option<String> {
        let of = |it: &Stream| it.ino == ino && !it.may_lose && !it.is_overwritten;
        let streams = self.streams.iter().enumerate().filter(|(_, stream)| of(stream));
        streams.into_iter().find_map(|(number, stream)| {
            let missing = self.missing(number)?;
            Some(format!("message {missing} of direction {} of file {ino}", stream.direction))
        })
    }

    /// Everybody has left, and what is named was drained: does it all fit?
    pub fn check_rest(&mut self) {
        let mut wrong = None;
        for (number, stream) in self.streams.iter().enumerate() {
            if !stream.may_lose
                && !stream.is_overwritten
                && let Some(missing) = self.missing(number)
            {
                let fates = stream.attempts.iter().map(|it| (it.fate, it.is_read));
                let fates: Vec<_> = fates.collect();
                wrong = Some(format!(
                    "stream {number} (file {}, direction {}): message {missing} was committed, and \
                     nobody got it: {fates:?}",
                    stream.ino, stream.direction
                ));
            }
            let is_ghost = |it: &Attempt| it.is_tapped && it.fate == Fate::Refused;
            if let Some(ghost) = stream.attempts.iter().position(is_ghost) {
                wrong = Some(format!("stream {number}: a tap heard {ghost}, which was refused"));
            }
            for &(from, to, lost) in &stream.gaps {
                let between = &stream.attempts[from + 1..to];
                // What was read in between came in a batch.
                let is_of = |it: &&Attempt, fate| it.fate == fate && !it.is_read;
                let count = |fate| between.iter().filter(|it| is_of(it, fate)).count() as u64;
                let (least, open) = (count(Fate::Committed), count(Fate::Unknown));
                if lost < least || lost > least + open {
                    wrong = Some(format!(
                        "stream {number}: between {from} and {to} {least} were overwritten, and \
                         {lost} counted"
                    ));
                }
            }
        }
        if let Some(wrong) = wrong {
            self.accuse(wrong);
        }
    }
}
