//! What holds of a direction that is overwritten, and what a tap hears beside it.
//!
//! A message of such a direction may be missing. But then it is counted, by whoever came too late for
//! it, and it lay further back than a lap; what is delivered has the number that it was committed
//! with, and a reader that finds nothing more has come to the last one.

use eshm::{Endpoint, Error, Tap};

use super::ledger::{Fate, Stream, seq_of};
use super::scene::{ACT, AFTER, FRAMES, LONG, Op, SHORT, Scene, TORN, direction_of};

/// In place of a number: the count of what was lost before it is wrong.
const MISCOUNTED: u64 = u64::MAX - 1;
/// Frames after which the ring remembers a boundary.
const EIGHTH: u64 = FRAMES / 8;
/// Looks that find nothing before a tap has nothing more to hear: each may follow the bus once.
const EMPTIES: usize = 4;

/// A message as it was delivered: the number in it, and the one that the bus gave it.
pub type Delivered = (u64, u64);

/// Reads all there is; with `looks_first` every message is shown before it is consumed.
pub fn drain(
    endpoint: &mut Endpoint,
    got: &mut Vec<u64>,
    numbers: &mut Vec<Delivered>,
    looks_first: bool,
) {
    // Any error ends it: what is lost by it is found in the books.
    while let Ok(seq) = read_next(endpoint, looks_first, numbers) {
        got.push(seq);
    }
}

fn read_next(
    endpoint: &mut Endpoint,
    looks_first: bool,
    numbers: &mut Vec<Delivered>,
) -> eshm::Result<u64> {
    let mut buffer = [0; 1024];
    let next = |endpoint: &Endpoint| endpoint.last_id().map_or(0, |id| id.number + 1);
    let (before, lost) = (next(endpoint), endpoint.lost());
    let seq = if looks_first {
        let peek = endpoint.try_peek()?;
        let seq = seq_of(&peek).unwrap_or(TORN);
        peek.release()?;
        seq
    } else {
        let len = endpoint.try_read(&mut buffer)?;
        seq_of(&buffer[..len]).unwrap_or(TORN)
    };
    let number = next(endpoint) - 1;
    // A reader that was cut short between the stores of its place, behind a jump, left the number of
    // the message after the one that comes.
    let is_repeated = numbers.is_empty() && before == number + 1;
    numbers.push((seq, number));
    let is_exact = number == before + (endpoint.lost() - lost) || is_repeated;
    Ok(if is_exact { seq } else { MISCOUNTED })
}

/// What is known of one direction when all is over.
pub struct Reckoning<'a> {
    pub op: Op,
    /// What its readers counted as lost, all together.
    pub lost: u64,
    /// Messages that its reader may have taken with it, or passed over: at least, and at most.
    pub taken: [u64; 2],
    /// Whether a reader was cut short that may have counted what its successor counts again.
    pub may_count_twice: bool,
    pub stream: &'a Stream,
}

impl Reckoning<'_> {
    pub fn check(&self, what: &str) -> Result<(), String> {
        let sent: Vec<u64> = self
            .stream
            .sent
            .iter()
            .filter(|(_, fate)| *fate != Fate::Refused)
            .map(|(seq, _)| *seq)
            .collect();
        check_numbers(what, &sent, &self.stream.numbers)?;
        let missing: Vec<u64> =
            sent.iter().copied().filter(|seq| !self.stream.got.contains(seq)).collect();
        let [least, most] = self.taken;
        let missed = missing.len() as u64;
        let is_exact = (self.lost + least..=self.lost + most).contains(&missed);
        let is_twice = self.may_count_twice && missed + most >= self.lost / 2 && missed < self.lost;
        if !is_exact && !is_twice {
            return Err(format!(
                "{what}: {missed} are missing, {} counted, {:?} taken; {:?}",
                self.lost, self.taken, self.stream
            ));
        }
        self.check_room(what, &sent, &missing)
    }

    /// What a fence or a kill takes away lay further back than a lap less one reservation and the way
    /// to a boundary that is remembered.
    fn check_room(&self, what: &str, sent: &[u64], missing: &[u64]) -> Result<(), String> {
        let is_before = |seq: &&u64| **seq < AFTER - 500;
        // What was passed over on purpose or taken along is not lost.
        if self.taken[1] > 0 {
            return Ok(());
        }
        let Some(last) = missing.iter().rfind(is_before) else { return Ok(()) };
        let left = sent.iter().filter(is_before).filter(|seq| *seq > last);
        let frames: u64 = left.map(|&seq| frames_of(self.len_of(seq))).sum();
        let longest = frames_of(if self.op.writes().contains(&LONG) { LONG } else { SHORT });
        let reservation = 2 * longest + EIGHTH;
        let boundary = EIGHTH + longest;
        // Skips and announcements are frames too.
        let others = longest + 2;
        if frames + reservation + boundary + others < self.op.frames() {
            return Err(format!("{what}: only {frames} frames are left after {last} was lost"));
        }
        Ok(())
    }

    fn len_of(&self, seq: u64) -> usize {
        let at = seq.checked_sub(ACT).map(|at| at as usize);
        let lens = if self.op.writes().is_empty() { self.op.reads() } else { self.op.writes() };
        at.and_then(|at| lens.get(at).copied()).unwrap_or(SHORT)
    }
}

fn frames_of(len: usize) -> u64 {
    (len as u64 + 16).div_ceil(64)
}

/// The number of each message is its place among those that were committed.
fn check_numbers(what: &str, sent: &[u64], numbers: &[Delivered]) -> Result<(), String> {
    for &(seq, number) in numbers {
        let rank = sent.iter().position(|&known| known == seq);
        if rank != Some(number as usize) {
            return Err(format!("{what}: {seq} is numbered {number}, and committed as {rank:?}"));
        }
    }
    Ok(())
}

/// A tap that listens to what the child writes.
pub struct Ear {
    tap: Tap,
    heard: Vec<Delivered>,
    next: u64,
    fault: Option<String>,
}

impl Ear {
    pub fn open(scene: &Scene) -> Ear {
        let tap = Tap::open(&scene.name, direction_of(scene.role)).expect("a bus to listen to");
        let mut ear = Ear { tap, heard: Vec::new(), next: 0, fault: None };
        ear.tap.from_oldest();
        ear.listen();
        ear
    }

    /// Hears all there is.
    pub fn listen(&mut self) {
        let mut buffer = [0; 1024];
        let mut empties = 0;
        while empties < EMPTIES {
            match self.tap.try_read(&mut buffer) {
                Ok(message) => {
                    let seq = seq_of(&buffer[..message.len]).unwrap_or(TORN);
                    if message.id.number != self.next + message.lost {
                        self.note(format!(
                            "{message:?} is heard, and {} was the next one",
                            self.next
                        ));
                    }
                    self.next = message.id.number + 1;
                    self.heard.push((seq, message.id.number));
                    empties = 0;
                }
                Err(Error::Empty) => empties += 1,
                Err(error) => {
                    self.note(error.to_string());
                    return;
                }
            }
        }
    }

    fn note(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    /// Compares what was heard with what was committed.
    pub fn check(mut self, committed: &Stream, next: u64) -> Result<(), String> {
        self.listen();
        if self.next != next {
            self.note(format!("{} was the next one to hear, of {next}", self.next));
        }
        let heard = std::mem::take(&mut self.heard);
        // Once more, what is still there.
        self.next = 0;
        self.tap.from_oldest();
        let first = self.first();
        self.next = first;
        self.listen();
        if let Some(fault) = self.fault {
            return Err(format!("the tap: {fault}"));
        }
        let sent = committed.sent.iter().filter(|(_, fate)| *fate != Fate::Refused);
        let sent: Vec<u64> = sent.map(|(seq, _)| *seq).collect();
        check_numbers("the tap", &sent, &heard)?;
        check_numbers("the tap, again", &sent, &self.heard)
    }

    /// The number of the oldest message.
    fn first(&mut self) -> u64 {
        let mut buffer = [0; 1024];
        let first = self.tap.try_read(&mut buffer).map_or(0, |message| message.id.number);
        self.tap.from_oldest();
        first
    }
}
