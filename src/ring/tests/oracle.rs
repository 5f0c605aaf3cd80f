//! Random histories of a lossless ring against a queue: writes of every kind, aborted claims full of
//! imitated commit words, owners that leave or are killed at any store, rebuilds, and a tap.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::super::arena::{Arena, Dice, rounds};
use super::super::*;
use crate::config::{MessageId, Overflow};
use crate::layout::FRAME_HEADER;
use crate::sync::FIRST_LINE;

/// A message that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub id: MessageId,
    pub bytes: Vec<u8>,
}

/// Payload that does its best to be taken for frames: wherever a later header could stand lies the
/// commit word of that frame, in this lap or a later one, with a plausible length.
pub(super) fn imitation(dice: &mut Dice, ring: &Ring, head: u64, len: usize) -> Vec<u8> {
    let size = ring.frame_size as usize;
    let laps = dice.roll() % 3;
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| dice.roll().to_le_bytes()).collect();
    bytes.truncate(len);
    for frame in 1..=len / size {
        let at = frame * size - FRAME_HEADER;
        let pos = head.wrapping_add(frame as u64).wrapping_add(laps * ring.capacity);
        let kind = [0, 8, SKIP, EPOCH][dice.below(4)];
        for (at, word) in [(at, ring.stamp(pos) | u64::from(kind)), (at + 8, u64::MAX)] {
            if let Some(bytes) = bytes.get_mut(at..at + 8) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    bytes
}

/// A message of a batch, and what happens just before it is written.
pub(super) struct Step<'a> {
    pub bytes: Vec<u8>,
    pub before: &'a dyn Fn(),
}

impl AsRef<[u8]> for Step<'_> {
    fn as_ref(&self) -> &[u8] {
        (self.before)();
        &self.bytes
    }
}

/// A second handle on the same end, as a killed process leaves it behind in nobody's hands.
pub(super) fn twin<T>(end: &T) -> T {
    // SAFETY: an end is an address and numbers, and drops nothing.
    unsafe { std::ptr::read(end) }
}

/// A ring, its ends, and all that should be true of it.
struct World {
    dice: Dice,
    arena: Arena,
    producer: Producer,
    consumer: Consumer,
    epoch: u64,
    start: Place,
    sent: u64,
    /// The newest committed messages, for taps; the last one has the number before `next`.
    log: VecDeque<Sent>,
    unread: VecDeque<Sent>,
    /// The newest message that was read or passed over.
    passed: Option<MessageId>,
    tap: Option<Cursor>,
    /// The number that the tap must meet next, but for what it lost.
    tap_next: Option<u64>,
    tapped: u64,
    /// The last steps, told when one of them fails.
    steps: VecDeque<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{:?} epoch {}, {:#?}", self.arena.geometry(), self.epoch, self.steps);
        }
    }
}

impl World {
    fn new(seed: u64, frame_size: u32, frames: u64, start: Place) -> Self {
        let arena = Arena::new(frame_size, frames, Overflow::Refuse, start);
        World {
            dice: Dice(seed),
            producer: Producer::resume(arena.ring(), start.epoch).unwrap(),
            consumer: Consumer::resume(arena.ring()).unwrap(),
            epoch: start.epoch,
            start,
            sent: 0,
            log: VecDeque::new(),
            unread: VecDeque::new(),
            passed: None,
            tap: None,
            tap_next: None,
            tapped: 0,
            steps: VecDeque::new(),
            arena,
        }
    }

    fn next(&self) -> u64 {
        self.start.number.wrapping_add(self.sent)
    }

    fn committed(&mut self, bytes: Vec<u8>) {
        let sent = Sent { id: MessageId { epoch: self.epoch, number: self.next() }, bytes };
        self.sent += 1;
        self.log.push_back(sent.clone());
        if self.log.len() > 300 {
            self.log.pop_front();
        }
        self.unread.push_back(sent);
    }

    /// The oldest unread messages were read, or passed over.
    fn pass(&mut self, count: usize) {
        self.passed = self.unread.drain(..count).next_back().map(|sent| sent.id).or(self.passed);
    }

    fn len(&mut self) -> usize {
        let max = self.arena.geometry().max_message();
        let inline = self.arena.ring().inline_len();
        match self.dice.below(4) {
            0 => self.dice.below(max + 1),
            1 => (inline + self.dice.below(3)).saturating_sub(1).min(max),
            _ => self.dice.below(inline + 1),
        }
    }

    fn message(&mut self) -> Vec<u8> {
        let len = self.len();
        let (ring, head) = (self.arena.ring(), self.producer.head());
        imitation(&mut self.dice, &ring, head, len)
    }

    fn write(&mut self) {
        let bytes = self.message();
        let is_hot = match self.dice.below(3) {
            0 => self.producer.write_now(&bytes),
            1 => !self.producer.is_racing() && self.producer.write_short(&bytes),
            _ => false,
        };
        if is_hot {
            return self.committed(bytes);
        }
        match self.producer.try_write(&bytes) {
            Ok(()) => self.committed(bytes),
            Err(Error::Full) if self.unread.is_empty() => self.write_into_empty(bytes),
            Err(Error::Full) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Control frames take room too, until the reader has gone over them: once for the announcement
    /// of a new owner, and once for a skip.
    fn write_into_empty(&mut self, bytes: Vec<u8>) {
        for _ in 0..3 {
            self.read();
            assert!(self.producer.may_have_room(bytes.len(), true));
            if self.producer.try_write(&bytes).is_ok() {
                return self.committed(bytes);
            }
        }
        panic!("no room in an empty ring");
    }

    fn write_in_place(&mut self) {
        let bytes = self.message();
        let now = if self.dice.once_in(2) { self.producer.claim_now(bytes.len()) } else { None };
        let Some(at) = now.or_else(|| self.producer.claim(bytes.len()).ok()) else { return };
        // SAFETY: the claim is as long.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        if self.dice.once_in(2) {
            let len = self.dice.below(bytes.len() + 1);
            // SAFETY: claimed just now, and no longer than that.
            unsafe { self.producer.commit(len) };
            self.committed(bytes[..len].to_vec());
        }
    }

    /// A batch, during which the reader goes on; and perhaps the writer is killed in it.
    fn write_many(&mut self) {
        let mut later = self.dice.clone();
        let count = self.dice.below(12);
        let kill_at = if self.dice.once_in(2) { self.dice.below(12) } else { usize::MAX };
        let messages: Vec<_> = (0..count).map(|_| self.message()).collect();
        let (arena, delivered) = (&self.arena, RefCell::new(Vec::new()));
        let consumer = RefCell::new(&mut self.consumer);
        let killed = RefCell::new(None);
        let index = RefCell::new(0);
        let rolls = RefCell::new(&mut later);
        let before = || {
            if *index.borrow() == kill_at {
                let (reader, delivered) = (twin(&**consumer.borrow()), delivered.borrow().len());
                *killed.borrow_mut() = Some((arena.snapshot(), reader, delivered));
            }
            *index.borrow_mut() += 1;
            while !rolls.borrow_mut().once_in(3) {
                let Some(message) = read(*consumer.borrow_mut()) else { break };
                delivered.borrow_mut().push(message);
            }
        };
        let batch: Vec<_> =
            messages.iter().map(|bytes| Step { bytes: bytes.clone(), before: &before }).collect();
        let done = self.producer.write_many(&batch);
        let (mut count, mut delivered) = match done {
            Ok(count) => (count, delivered.take()),
            Err(Error::Full) => (0, delivered.take()),
            Err(other) => panic!("{other}"),
        };
        let killed = killed.take();
        drop(batch);
        let was_killed = killed.is_some_and(|(snapshot, reader, until)| {
            if kill_at > count {
                return false;
            }
            self.arena.restore(&snapshot);
            self.consumer = reader;
            delivered.truncate(until);
            count = kill_at;
            true
        });
        messages.into_iter().take(count).for_each(|bytes| self.committed(bytes));
        for message in delivered {
            assert_eq!(Some(&message), self.unread.front());
            self.pass(1);
        }
        if was_killed {
            self.kill_while_storing();
            self.tap = None;
            self.replace_producer();
        }
    }

    /// The stores of a place that a kill may have let through: into the record that does not count yet.
    fn kill_while_storing(&mut self) {
        let line = self.arena.ring();
        let line = &line.lines().producer;
        let stored = line.stored.load(Ordering::Relaxed);
        if self.dice.once_in(2) {
            line.places[(stored as usize + 1) % PLACES]
                .number
                .store(self.next(), Ordering::Relaxed);
        }
    }

    fn replace_producer(&mut self) {
        if self.dice.once_in(2) {
            self.epoch += 1 + self.dice.roll() % 3;
        }
        self.producer = Producer::resume(self.arena.ring(), self.epoch).unwrap();
        let last = self.producer.last_committed();
        assert_eq!(last.map(|id| id.number), self.next().checked_sub(1));
        assert!(self.log.is_empty() || last == self.log.back().map(|sent| sent.id), "{last:?}");
    }

    fn read(&mut self) {
        let message = read(&mut self.consumer);
        if message.is_none() {
            self.consumer.publish();
        }
        assert_eq!(message.as_ref(), self.unread.front());
        self.pass(usize::from(message.is_some()));
    }

    /// A batch of reads that is told of at the end, or never.
    fn read_many(&mut self) {
        let Some(mut found) = self.consumer.find().unwrap() else { return };
        let bookmark = self.consumer.place();
        let mut count = 0;
        loop {
            assert_eq!(copy(&self.consumer, found), self.unread[count].bytes);
            assert_eq!(self.consumer.next_id(), self.unread[count].id);
            self.consumer.pass(found);
            count += 1;
            found = match self.consumer.find_more().unwrap() {
                Some(found) if !self.dice.once_in(6) => found,
                _ => break,
            };
        }
        match self.dice.below(3) {
            0 => self.consumer.rewind(bookmark),
            // Killed before it told.
            1 => self.consumer = Consumer::resume(self.arena.ring()).unwrap(),
            _ => {
                self.consumer.store_place();
                self.consumer.settle();
                self.pass(count);
            }
        }
    }

    /// The reader is killed between the stores of a place.
    fn kill_reader_while_storing(&mut self) {
        let Some(found) = self.consumer.find().unwrap() else { return };
        let line = self.arena.ring();
        let line = &line.lines().consumer;
        let (tail, number) =
            (line.tail.load(Ordering::Relaxed), line.number.load(Ordering::Relaxed));
        self.consumer.consume(found);
        line.tail.store(tail, Ordering::Relaxed);
        if self.dice.once_in(2) {
            line.number.store(number, Ordering::Relaxed);
        }
        self.consumer = Consumer::resume(self.arena.ring()).unwrap();
        assert_eq!(self.consumer.next_id(), self.unread[0].id);
    }

    fn skip_to_latest(&mut self) {
        let skipped = self.consumer.skip_to_latest().unwrap().expect("not sealed");
        assert_eq!(skipped as usize, self.unread.len().saturating_sub(1));
        self.pass(skipped as usize);
    }

    /// What is unread moves to another segment, and the ends with it.
    fn rebuild(&mut self) {
        let old = self.arena.ring();
        let (tail, head) = (old.find_tail(), old.find_head(None).unwrap());
        let new = Arena::blank(self.arena.geometry());
        new.ring().rebuild(&old, tail, head).unwrap();
        let mut consumer = Consumer::resume(new.ring()).unwrap();
        if self.dice.once_in(2) {
            consumer.carry_on(&self.consumer);
        }
        self.arena.check_guards();
        (self.arena, self.consumer, self.tap) = (new, consumer, None);
        self.replace_producer();
    }

    fn tap(&mut self) {
        if self.tap.is_none() || self.dice.once_in(50) {
            let ring = self.arena.ring();
            let tap = if self.dice.once_in(2) {
                Cursor::at_oldest(ring)
            } else {
                let tap = Cursor::at_newest(ring).unwrap();
                assert!(tap.place().number == self.next() || tap.place().epoch == 0);
                tap
            };
            // Without a place yet it begins wherever it finds something.
            self.tap_next = (tap.place().epoch != 0).then_some(tap.place().number);
            self.tap = Some(tap);
        }
        let before = self.arena.snapshot();
        let tap = self.tap.as_mut().unwrap();
        let mut buffer = vec![0; self.arena.geometry().max_message()];
        if let Some(copied) = tap.try_copy(&mut buffer).unwrap() {
            let next = self.tap_next.unwrap_or(copied.id.number.wrapping_sub(tap.lost()));
            assert_eq!(copied.id.number, next.wrapping_add(tap.lost()));
            self.tap_next = Some(next.wrapping_add(1));
            self.tapped += 1;
            buffer.truncate(copied.len);
            let ago = self.start.number.wrapping_add(self.sent).wrapping_sub(copied.id.number);
            let sent = &self.log[self.log.len() - ago as usize];
            assert_eq!((copied.id, &buffer), (sent.id, &sent.bytes));
        }
        assert_eq!(before, self.arena.snapshot(), "a tap stores nothing");
    }

    fn replace_consumer(&mut self) {
        self.consumer = Consumer::resume(self.arena.ring()).unwrap();
    }

    fn step(&mut self) {
        let (name, step): (_, fn(&mut World)) = match self.dice.below(40) {
            0..=9 => ("write", World::write),
            10..=13 => ("write_many", World::write_many),
            14..=16 => ("write_in_place", World::write_in_place),
            17 | 18 => ("replace_producer", World::replace_producer),
            19..=28 => ("read", World::read),
            29..=31 => ("read_many", World::read_many),
            32 => ("kill_reader_while_storing", World::kill_reader_while_storing),
            33 => ("replace_consumer", World::replace_consumer),
            34 if self.dice.once_in(4) => ("skip_to_latest", World::skip_to_latest),
            35 if self.dice.once_in(4) => ("rebuild", World::rebuild),
            _ => ("tap", World::tap),
        };
        self.steps.push_back(format!(
            "{name} {}..{}",
            self.consumer.place().pos,
            self.producer.head()
        ));
        if self.steps.len() > 12 {
            self.steps.pop_front();
        }
        step(self);
        let ring = self.arena.ring();
        let head = self.producer.head();
        let word = ring.frames.at(head).commit().load(Ordering::Relaxed);
        assert_eq!(ring.committed(head, word), None, "I1: a ghost at the head");
        let last = self.consumer.last_id();
        assert!(self.passed.is_none() || last == self.passed, "{last:?}, not {:?}", self.passed);
    }
}

fn copy(consumer: &Consumer, found: Found) -> Vec<u8> {
    let mut bytes = vec![0; found.len];
    consumer.copy(found, &mut bytes).unwrap();
    bytes
}

/// Reads and consumes the next message; in turn on the hot paths, if it is ready, and on the other.
pub(super) fn read(consumer: &mut Consumer) -> Option<Sent> {
    let way = consumer.next_id().number % 3;
    let now = consumer.find_now().filter(|_| way > 0);
    let found = now.map_or_else(|| consumer.find().unwrap(), Some)?;
    let id = consumer.next_id();
    let mut bytes = vec![0; found.len];
    let short = FIRST_LINE.min(consumer.ring().inline_len());
    if now.is_some() && way == 1 && found.len <= short {
        assert_eq!(consumer.take_short(&mut bytes), Some(found.len));
    } else if now.is_some() {
        assert_eq!(consumer.take_now(&mut bytes), Some(found.len));
    } else {
        consumer.copy(found, &mut bytes).unwrap();
        consumer.consume(found);
    }
    assert_eq!(consumer.last_id(), Some(id));
    consumer.settle();
    Some(Sent { id, bytes })
}

/// Every shape with every start: the beginning, the middle of an eighth, and about to wrap.
pub(super) fn shapes() -> impl Iterator<Item = (u64, u32, u64, Place)> {
    let starts = [(0, 0), (13, 7), (u64::MAX - 40, u64::from(u32::MAX) - 100)];
    rounds().flat_map(move |round| {
        [16, 32, 64, 192, 4096].into_iter().flat_map(move |size: u32| {
            [2, 4, 8, 16, 64].into_iter().flat_map(move |frames: u64| {
                starts.into_iter().map(move |(pos, number)| {
                    let seed = (round << 32) | (frames << 20) | (u64::from(size) << 4) | (pos % 16);
                    (seed, size, frames, Place { pos, number, epoch: 1, ..Place::default() })
                })
            })
        })
    })
}

#[test]
fn random_histories_agree_with_a_queue() {
    let (mut sent, mut tapped, mut histories) = (0, 0, 0);
    for (seed, frame_size, frames, start) in shapes() {
        let mut world = World::new(seed, frame_size, frames, start);
        let steps = if frame_size == 4096 { 1000 } else { 10_000 };
        (0..steps).for_each(|_| world.step());
        while world.consumer.find().unwrap().is_some() {
            world.read();
        }
        assert!(world.unread.is_empty());
        world.arena.check_guards();
        (sent, tapped, histories) = (sent + world.sent, tapped + world.tapped, histories + 1);
    }
    println!("{histories} histories, {sent} messages, {tapped} tapped");
    assert!(sent > 100_000 && tapped > 10_000);
}
