//! Rings that are overwritten: a reader loses exactly what it says, whatever happens to either side.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::super::arena::{Arena, Dice};
use super::super::*;
use super::oracle::{Sent, Step, imitation, shapes};
use crate::config::{MessageId, Overflow};

struct World {
    dice: Dice,
    arena: Arena,
    producer: Producer,
    consumer: Consumer,
    epoch: u64,
    /// The number of the next message.
    next: u64,
    log: VecDeque<Sent>,
    /// Where the newest message lies, if it was the last thing that was written.
    /// The number that the reader meets next, but for what it loses.
    expected: u64,
    /// Lost by all readers of this ring, as the messages tell.
    lost: u64,
    read: u64,
    skipped: u64,
    tap: Option<(Cursor, Option<u64>)>,
}

impl World {
    fn new(seed: u64, frame_size: u32, frames: u64, start: Place) -> Self {
        let arena = Arena::new(frame_size, frames, Overflow::Overwrite, start);
        World {
            dice: Dice(seed),
            producer: Producer::resume(arena.ring(), start.epoch).unwrap(),
            consumer: Consumer::resume(arena.ring()).unwrap(),
            epoch: start.epoch,
            next: start.number,
            log: VecDeque::new(),
            expected: start.number,
            lost: 0,
            read: 0,
            skipped: 0,
            tap: None,
            arena,
        }
    }

    fn message(&mut self) -> Vec<u8> {
        let ring = self.arena.ring();
        let max = self.arena.geometry().max_message();
        let inline = ring.inline_len();
        let end = if self.dice.once_in(4) { max } else { inline };
        let len = self.dice.below(end + 1);
        imitation(&mut self.dice, &ring, self.producer.head(), len)
    }

    fn committed(&mut self, bytes: Vec<u8>) {
        let id = MessageId { epoch: self.epoch, number: self.next };
        self.log.push_back(Sent { id, bytes });
        if self.log.len() > 1000 {
            self.log.pop_front();
        }
        self.next += 1;
    }

    fn write(&mut self) {
        for _ in 0..=self.dice.below(4) {
            let bytes = self.message();
            self.producer.try_write(&bytes).unwrap();
            self.committed(bytes);
        }
    }

    /// More than a lap in one go; and perhaps the writer is killed in it.
    fn write_many(&mut self) {
        let messages: Vec<_> = (0..self.dice.below(100)).map(|_| self.message()).collect();
        let kill_at = self.dice.below(200);
        let (arena, index, killed) = (&self.arena, Cell::new(0), RefCell::new(None));
        let before = || {
            if index.replace(index.get() + 1) == kill_at {
                *killed.borrow_mut() = Some(arena.snapshot());
            }
        };
        let batch: Vec<_> =
            messages.iter().map(|bytes| Step { bytes: bytes.clone(), before: &before }).collect();
        assert_eq!(self.producer.write_many(&batch).unwrap(), batch.len());
        drop(batch);
        let killed = killed.take();
        let count = if killed.is_some() { kill_at } else { messages.len() };
        messages.into_iter().take(count).for_each(|bytes| self.committed(bytes));
        if let Some(snapshot) = killed {
            self.arena.restore(&snapshot);
            self.tap = None;
            self.replace_producer();
        }
    }

    /// A claim whose writer is killed in it, or which is given up.
    fn abort(&mut self) {
        let bytes = self.message();
        self.producer.claim(bytes.len()).unwrap();
        // SAFETY: the frames are claimed; as everything here, written as atomics.
        unsafe { self.arena.ring().frames.at(self.producer.head()).race_in(&bytes) };
        if self.dice.once_in(2) {
            self.replace_producer();
        }
    }

    fn replace_producer(&mut self) {
        self.epoch += self.dice.roll() % 2;
        self.producer = Producer::resume(self.arena.ring(), self.epoch).unwrap();
        assert_eq!(self.producer.last_committed().map(|id| id.number), self.next.checked_sub(1));
    }

    fn replace_consumer(&mut self) {
        self.consumer = Consumer::resume(self.arena.ring()).unwrap();
    }

    fn check(&self, id: MessageId, bytes: &[u8]) {
        let sent = &self.log[self.log.len() - (self.next - id.number) as usize];
        assert_eq!((id, bytes), (sent.id, &sent.bytes[..]));
    }

    fn read(&mut self) {
        for _ in 0..=self.dice.below(8) {
            let before = self.consumer.lost();
            let mut buffer = vec![0; self.arena.geometry().max_message()];
            let len = self.consumer.race(&mut buffer).unwrap();
            let lost = self.consumer.lost() - before;
            self.lost += lost;
            self.expected += lost;
            let Some(len) = len else {
                assert_eq!(self.expected, self.next, "nothing is left unread, {}", self.state());
                return;
            };
            let id = self.consumer.last_id().unwrap();
            assert_eq!(id.number, self.expected);
            self.check(id, &buffer[..len]);
            self.expected += 1;
            self.read += 1;
        }
    }

    fn state(&self) -> String {
        let lines = self.arena.ring();
        let lines = lines.lines();
        let reserve = lines.reserve.reserve.load(Ordering::Relaxed);
        let marks: Vec<_> =
            lines.marks.iter().map(|mark| mark.pos.load(Ordering::Relaxed)).collect();
        let (tail, head) = (self.consumer.place(), self.producer.head());
        format!("{:?}, {tail:?}, head {head}, reserve {reserve}, {marks:?}", self.arena.geometry())
    }

    fn skip_to_latest(&mut self) {
        let before = self.consumer.lost();
        let skipped = self.consumer.skip_to_latest().unwrap().expect("not sealed");
        let lost = self.consumer.lost() - before;
        self.lost += lost;
        self.skipped += skipped - lost;
        self.expected += skipped;
        // At the newest message, or behind it if that was given up for a claim.
        let is_there = self.expected == self.next || self.expected == self.next - 1;
        assert!(is_there, "{} of {}, {}", self.expected, self.next, self.state());
    }

    fn rebuild(&mut self) {
        let old = self.arena.ring();
        let (tail, head) = (old.find_tail(), old.find_head(None).unwrap());
        let new = Arena::blank(self.arena.geometry());
        new.ring().rebuild(&old, tail, head).unwrap();
        self.arena.check_guards();
        self.replace_consumer();
        self.producer = Producer::resume(self.arena.ring(), self.epoch).unwrap();
    }

    fn tap(&mut self) {
        if self.tap.is_none() || self.dice.once_in(30) {
            let tap = if self.dice.once_in(2) {
                Cursor::at_oldest(self.arena.ring())
            } else {
                Cursor::at_newest(self.arena.ring()).unwrap()
            };
            // Without a place yet it begins wherever it finds something.
            self.tap = Some((tap, (tap.place().epoch != 0).then_some(tap.place().number)));
        }
        let before = self.arena.snapshot();
        let (mut tap, mut expected) = self.tap.take().unwrap();
        let mut buffer = vec![0; self.arena.geometry().max_message()];
        if let Some(copied) = tap.try_copy(&mut buffer).unwrap() {
            let next = expected.unwrap_or(copied.id.number - tap.lost());
            assert_eq!(copied.id.number, next + tap.lost());
            expected = Some(next + 1);
            self.check(copied.id, &buffer[..copied.len]);
        }
        self.tap = Some((tap, expected));
        assert_eq!(before, self.arena.snapshot(), "a tap stores nothing");
    }

    fn step(&mut self) {
        match self.dice.below(32) {
            0..=9 => self.write(),
            10 => self.write_many(),
            11 => self.abort(),
            12 => self.replace_producer(),
            13 => self.replace_consumer(),
            14..=20 => self.read(),
            21 => self.skip_to_latest(),
            22 => self.rebuild(),
            _ => self.tap(),
        }
        let stored = self.arena.ring().lines().consumer.lost.load(Ordering::Relaxed);
        assert_eq!(stored, self.lost, "the count over all readers");
    }
}

#[test]
fn random_histories_lose_exactly_what_they_say() {
    let (mut read, mut lost, mut histories) = (0, 0, 0);
    for (seed, frame_size, frames, start) in shapes() {
        let mut world = World::new(seed, frame_size, frames, start);
        let steps = if frame_size == 4096 { 500 } else { 5000 };
        (0..steps).for_each(|_| world.step());
        while world.expected != world.next {
            world.read();
        }
        assert_eq!(world.read + world.lost + world.skipped, world.next - start.number);
        world.arena.check_guards();
        (read, lost, histories) = (read + world.read, lost + world.lost, histories + 1);
    }
    println!("{histories} histories, {read} messages read, {lost} lost");
    assert!(read > 10_000 && lost > 10_000);
}

/// A lapped reader goes on at the oldest boundary that is remembered, so beyond what was overwritten
/// it gives up no more than an eighth of the ring.
#[test]
fn a_lapped_reader_gives_up_at_most_an_eighth_more() {
    let start = Place { epoch: 1, ..Place::default() };
    let arena = Arena::new(64, 64, Overflow::Overwrite, start);
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    for sent in 1..1000u64 {
        producer.try_write(&[]).unwrap();
        if sent > 64 {
            let mut consumer = Consumer::resume(arena.ring()).unwrap();
            consumer.rewind(start);
            consumer.race(&mut []).unwrap().unwrap();
            let oldest = consumer.last_id().unwrap().number;
            // One eighth is reserved ahead, and one may begin behind its boundary.
            assert!(sent - oldest <= 64 && sent - oldest >= 64 - 16, "{sent}: {oldest}");
        }
    }
}
