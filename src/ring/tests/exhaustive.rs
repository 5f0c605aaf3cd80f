//! Every short history of the smallest rings: each operation after each other, to a fixed depth.

use std::collections::VecDeque;

use super::super::arena::{Arena, Dice};
use super::super::*;
use super::oracle::{Sent, imitation, read, twin};
use crate::config::{MessageId, Overflow};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Write,
    /// Two frames, the second of which begins with an imitated commit word.
    WriteLong,
    /// As long, filled in, and never committed.
    Abort,
    Read,
    NewProducer,
    /// Writes, and is killed before it stores its place.
    WriteAndDie,
    /// Reads, and is killed before it stores its place.
    ReadAndDie,
    Rebuild,
}

use Step::*;

/// All but the memory of a state.
struct State {
    producer: Producer,
    consumer: Consumer,
    epoch: u64,
    number: u64,
    unread: VecDeque<Sent>,
}

impl State {
    fn twin(&self) -> Self {
        State {
            producer: twin(&self.producer),
            consumer: twin(&self.consumer),
            unread: self.unread.clone(),
            ..*self
        }
    }

    fn step(&mut self, step: Step, arena: &Arena, spare: &Arena) {
        let ring = arena.ring();
        let lines = ring.lines();
        match step {
            Write => self.write(&ring, 8),
            WriteLong => self.write(&ring, 100),
            Abort => {
                let junk = self.payload(&ring, arena.geometry().max_message());
                if let Ok(at) = self.producer.claim(junk.len()) {
                    // SAFETY: the claim is as long.
                    unsafe { std::ptr::copy_nonoverlapping(junk.as_ptr(), at, junk.len()) };
                }
            }
            Read => {
                let message = read(&mut self.consumer);
                self.consumer.publish();
                assert_eq!(message, self.unread.pop_front());
            }
            NewProducer => {
                self.epoch += 1;
                self.producer = Producer::resume(ring, self.epoch).unwrap();
            }
            WriteAndDie => {
                self.write(&ring, 8);
                // In the middle of storing its place: the record that does not count is garbage.
                let stored = lines.producer.stored.load(Ordering::Relaxed);
                let record = &lines.producer.places[(stored as usize + 1) % PLACES];
                record.number.store(u64::MAX, Ordering::Relaxed);
                record.pos.store(u64::MAX, Ordering::Relaxed);
                self.producer = Producer::resume(ring, self.epoch).unwrap();
            }
            ReadAndDie => {
                if let Some(found) = self.consumer.find().unwrap() {
                    let tail = lines.consumer.tail.load(Ordering::Relaxed);
                    self.consumer.consume(found);
                    lines.consumer.tail.store(tail, Ordering::Relaxed);
                }
                self.consumer = Consumer::resume(ring).unwrap();
            }
            Rebuild => {
                let (tail, head) = (ring.find_tail(), ring.find_head(None).unwrap());
                spare.restore(&vec![0; spare.len()]);
                spare.ring().rebuild(&ring, tail, head).unwrap();
                arena.restore(&spare.snapshot());
                self.producer = Producer::resume(ring, self.epoch).unwrap();
                self.consumer = Consumer::resume(ring).unwrap();
            }
        }
        let head = self.producer.head();
        let word = ring.frames.at(head).commit().load(Ordering::Relaxed);
        assert_eq!(ring.committed(head, word), None, "I1: a ghost at the head");
        assert_eq!(self.producer.last_committed().map(|id| id.number), self.number.checked_sub(1));
    }

    fn payload(&self, ring: &Ring, len: usize) -> Vec<u8> {
        let mut dice = Dice(self.number * 3 + self.epoch);
        imitation(&mut dice, ring, self.producer.head(), len)
    }

    fn write(&mut self, ring: &Ring, len: usize) {
        let bytes = self.payload(ring, len);
        // In turn on the hot paths, if they are ready, and on the other.
        let is_hot = match self.number % 3 {
            0 => self.producer.write_short(&bytes),
            1 => self.producer.write_now(&bytes),
            _ => false,
        };
        let done = if is_hot { Ok(()) } else { self.producer.try_write(&bytes) };
        match done {
            Ok(()) => {
                let id = MessageId { epoch: self.epoch, number: self.number };
                self.unread.push_back(Sent { id, bytes });
                self.number += 1;
            }
            Err(error) => assert_eq!(error, Error::Full),
        }
    }
}

/// Walks through all histories of `depth` more steps; gives their number.
fn explore(
    state: &State,
    arena: &Arena,
    spare: &Arena,
    steps: &[Step],
    path: &mut Vec<Step>,
    depth: usize,
) -> usize {
    let before = arena.snapshot();
    if depth == 0 {
        let mut state = state.twin();
        while !state.unread.is_empty() {
            state.step(Read, arena, spare);
        }
        state.step(Read, arena, spare);
        arena.restore(&before);
        return 1;
    }
    let mut count = 0;
    for &step in steps {
        path.push(step);
        let mut state = state.twin();
        state.step(step, arena, spare);
        count += explore(&state, arena, spare, steps, path, depth - 1);
        arena.restore(&before);
        path.pop();
    }
    count
}

/// Tells the history that failed.
struct Path(Vec<Step>);

impl Drop for Path {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{:?}", self.0);
        }
    }
}

fn all(frames: u64, pos: u64, steps: &[Step], depth: usize) {
    let start = Place { pos, epoch: 1, ..Place::default() };
    let arena = Arena::new(64, frames, Overflow::Refuse, start);
    let spare = Arena::blank(arena.geometry());
    let state = State {
        producer: Producer::resume(arena.ring(), 1).unwrap(),
        consumer: Consumer::resume(arena.ring()).unwrap(),
        epoch: 1,
        number: 0,
        unread: VecDeque::new(),
    };
    let mut path = Path(Vec::new());
    let count = explore(&state, &arena, &spare, steps, &mut path.0, depth);
    println!("{count} histories of {depth} steps, {frames} frames from {pos}");
    assert_eq!(count, steps.len().pow(depth as u32));
}

#[test]
fn all_short_histories_of_two_frames() {
    let steps = [Write, Abort, Read, NewProducer, WriteAndDie, ReadAndDie];
    all(2, 0, &steps, 7);
    all(2, u64::MAX - 3, &steps, 6);
}

#[test]
fn all_short_histories_of_four_frames() {
    let steps = [Write, WriteLong, Abort, Read, NewProducer];
    all(4, 0, &steps, 8);
    all(4, u64::MAX - 2, &steps, 7);
    let steps = [Write, WriteLong, Abort, Read, NewProducer, WriteAndDie, ReadAndDie, Rebuild];
    all(4, 1, &steps, 6);
}
