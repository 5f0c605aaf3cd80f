//! A hostile peer, driven by bytes: a fuzzer's, or those of seeded dice in the tests.
//!
//! It writes wherever it likes, mostly values that somebody might believe: positions around the true
//! ones, lengths around each limit, control frames, commit words of any frame. In between, honest
//! ends go on. They may get errors and wrong messages; they must come back, and touch nothing else.

#![cfg_attr(not(fuzzing), allow(dead_code))]

use super::arena::{Arena, LINES};
use super::{Bell, Consumer, Cursor, EPOCH, Place, Producer, Ring, SKIP};
use crate::config::{Geometry, Overflow};
use crate::layout::FIELDS;
use crate::sync::{FIRST_LINE, Ordering};

/// Which end is honest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Honest {
    Consumer,
    Producer,
    Tap,
    All,
}

/// A consumer against a lying producer.
#[cfg(fuzzing)]
pub fn consumer(data: &[u8]) {
    run(data, Honest::Consumer);
}

/// A producer against a lying consumer.
#[cfg(fuzzing)]
pub fn producer(data: &[u8]) {
    run(data, Honest::Producer);
}

/// A tap on a ring in which both sides lie.
#[cfg(fuzzing)]
pub fn tap(data: &[u8]) {
    run(data, Honest::Tap);
}

/// Bytes that decide; zeros when they are used up.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn below(&mut self, end: usize) -> usize {
        (usize::from(self.byte()) | usize::from(self.byte()) << 8) % end.max(1)
    }
}

/// Plays a script to its end.
pub(crate) fn run(data: &[u8], honest: Honest) {
    let mut script = Script(data);
    let arena = arena(&mut script);
    let mut ends = Ends::new(&arena);
    while !script.0.is_empty() {
        match script.byte() % 4 {
            0 | 1 => lie(&arena, &mut script),
            _ => ends.act(&arena, honest, &mut script),
        }
    }
    arena.check_guards();
}

/// Plays the honest part of a script, while somebody else may be lying.
#[cfg(test)]
pub(crate) fn run_honest(arena: &Arena, data: &[u8], honest: Honest) {
    let mut script = Script(data);
    let mut ends = Ends { is_alone: false, ..Ends::new(arena) };
    while !script.0.is_empty() {
        ends.act(arena, honest, &mut script);
    }
}

/// A ring of some shape that begins somewhere.
fn arena(script: &mut Script) -> Arena {
    let frame_size = [64, 16, 32, 192][script.below(4)];
    let frames = [2, 4, 8, 16, 64][script.below(5)];
    let overflow = [Overflow::Refuse, Overflow::Overwrite][script.below(2)];
    let pos = [0, 5, 1 << 32, u64::MAX - 3, u64::MAX - 70][script.below(5)];
    Arena::new(
        frame_size,
        frames,
        overflow,
        Place { pos, number: pos / 2, epoch: 1, ..Place::default() },
    )
}

/// Plays the lies of a script.
#[cfg(test)]
pub(crate) fn run_lies(arena: &Arena, data: &[u8]) {
    let mut script = Script(data);
    while !script.0.is_empty() {
        lie(arena, &mut script);
    }
}

fn lie(arena: &Arena, script: &mut Script) {
    let ring = arena.ring();
    let lines = ring.lines();
    // Relaxed here and below: a liar needs no order.
    let positions = [
        ring.find_head(None).unwrap_or_default().pos,
        lines.consumer.tail.load(Ordering::Relaxed),
        lines.space.space.load(Ordering::Relaxed),
        lines.reserve.reserve.load(Ordering::Relaxed),
    ];
    let near = positions[script.below(4)];
    let index = match script.byte() % 8 {
        0 => script.below(arena.len()),
        1 | 2 => arena.frame(near).start,
        3 => arena.frame(near).start + 1,
        // A named word of the cursor page.
        _ => {
            let named = FIELDS.iter().filter(|(name, _)| name.starts_with("ring."));
            let offsets: Vec<_> = named.map(|(_, offset)| offset / 8).collect();
            offsets[script.below(offsets.len())] + 4 * script.below(8)
        }
    };
    let value = value(&ring, near, script);
    arena.word(index % arena.len().max(LINES)).store(value, Ordering::Relaxed);
}

/// A value that somebody might believe, or not.
fn value(ring: &Ring, near: u64, script: &mut Script) -> u64 {
    let frame = u64::from(ring.frame_size);
    let distance = [0, 1, 2, ring.capacity - 1, ring.capacity, ring.capacity + 1, 1 << 31, 1 << 63];
    let distance = distance[script.below(8)];
    let lens = [
        0,
        1,
        frame - 9,
        frame - 8,
        frame - 7,
        frame,
        frame + 1,
        ring.max_len as u64,
        ring.max_len as u64 + 1,
        u64::from(u32::MAX / 2),
        1 << 31,
        u64::from(EPOCH) - 1,
        u64::from(EPOCH),
        u64::from(SKIP),
    ];
    match script.byte() % 8 {
        0 => script.word(),
        1 => near.wrapping_add(distance),
        2 => near.wrapping_sub(distance),
        3 => ring.stamp(near.wrapping_add(distance)),
        4 => [0, 1, 2, u64::MAX, u64::MAX - 1, 1 << 63][script.below(6)],
        _ => ring.stamp(near) | lens[script.below(lens.len())],
    }
}

/// The ends, where they could be made.
struct Ends {
    consumer: Option<Consumer>,
    producer: Option<Producer>,
    tap: Option<Cursor>,
    epoch: u64,
    buffer: Vec<u8>,
    /// Whether nobody else touches the memory during a call.
    is_alone: bool,
}

impl Ends {
    fn new(arena: &Arena) -> Self {
        Ends {
            consumer: Consumer::resume(arena.ring()).ok(),
            producer: Producer::resume(arena.ring(), 1).ok(),
            tap: None,
            epoch: 1,
            buffer: vec![0; arena.geometry().max_message() + 1],
            is_alone: true,
        }
    }

    fn act(&mut self, arena: &Arena, honest: Honest, script: &mut Script) {
        match (honest, script.byte() % 8) {
            (Honest::Consumer, 0..6) | (Honest::All, 0 | 1) => self.consume(arena, script),
            (Honest::Producer, 0..6) | (Honest::All, 2 | 3) => self.produce(arena, script),
            (Honest::Tap, 0..6) | (Honest::All, 4 | 5) => self.look(arena, script),
            // Now and then the others are honest too, so that there is something to lie about.
            (_, 6) => self.produce(arena, script),
            _ => match script.byte() % 4 {
                0 => rebuild(arena),
                1 => figures(&arena.ring()),
                _ => self.consume(arena, script),
            },
        }
    }

    fn consume(&mut self, arena: &Arena, script: &mut Script) {
        let what = script.byte() % 8;
        let Some(consumer) = self.consumer.as_mut().filter(|_| what != 0) else {
            self.consumer = Consumer::resume(arena.ring()).ok();
            return;
        };
        match what {
            1 => drop(consumer.skip_to_latest()),
            2 => drop(consumer.race(&mut self.buffer)),
            3 => {
                let _ = (consumer.race_len(), consumer.is_committed(), consumer.last_id());
            }
            4 => {
                let start = consumer.place();
                for _ in 0..100 {
                    let Ok(Some(found)) = consumer.find_more() else { break };
                    consumer.pass(found);
                }
                match script.byte() % 2 {
                    0 => consumer.rewind(start),
                    _ => consumer.store_place(),
                }
            }
            5 if !consumer.is_racing() => {
                let len = script.below(self.buffer.len());
                let read = consumer.take_short(&mut self.buffer[..len]);
                assert!(read.is_none_or(|read| read <= len.min(FIRST_LINE)));
            }
            _ => {
                if let Ok(Some(found)) = consumer.find() {
                    assert!(arena.has(consumer.payload(), found.len), "found outside the ring");
                    consumer.copy(found, &mut self.buffer).expect("the longest message fits");
                    consumer.consume(found);
                }
                consumer.settle();
            }
        }
    }

    fn produce(&mut self, arena: &Arena, script: &mut Script) {
        let what = script.byte() % 8;
        let Some(producer) = self.producer.as_mut().filter(|_| what != 0) else {
            self.epoch += u64::from(script.byte() % 2);
            self.producer = Producer::resume(arena.ring(), self.epoch).ok();
            return;
        };
        let len = script.below(self.buffer.len());
        match what {
            1 => {
                let batch = [&self.buffer[..len], &[], &self.buffer[..len / 3], &[1; 8]];
                let _ = producer.write_many(&batch);
            }
            2 | 3 => {
                if let Ok(at) = producer.claim(len) {
                    assert!(arena.has(at, len), "claimed outside the ring");
                    // SAFETY: the claim is as long.
                    unsafe { std::ptr::write_bytes(at, 0xA5, len) };
                    if what == 2 {
                        // SAFETY: claimed just now.
                        unsafe { producer.commit(script.below(len + 1)) };
                    }
                }
            }
            4 => drop((producer.may_have_room(len, true), producer.last_committed())),
            5 if !producer.is_racing() => drop(producer.write_short(&self.buffer[..len])),
            _ => drop(producer.try_write(&self.buffer[..len])),
        }
        Bell(&arena.ring().lines().data_bell.word).glance();
    }

    fn look(&mut self, arena: &Arena, script: &mut Script) {
        let ring = arena.ring();
        let before = self.is_alone.then(|| arena.snapshot());
        match (self.tap.as_mut(), script.byte() % 8) {
            (_, 0) | (None, _) => self.tap = Some(Cursor::at_oldest(ring)),
            (_, 1) => self.tap = Cursor::at_newest(ring).ok(),
            (Some(tap), _) => drop(tap.try_copy(&mut self.buffer)),
        }
        assert!(before.is_none_or(|before| before == arena.snapshot()), "a tap stores nothing");
    }
}

/// What a successor would build of such a ring.
fn rebuild(arena: &Arena) {
    let ring = arena.ring();
    let Ok(head) = ring.find_head(None) else { return };
    let geometry: Geometry = arena.geometry();
    let new = Arena::blank(geometry);
    if new.ring().rebuild(&ring, ring.find_tail(), head).is_ok() {
        let _ = (Producer::resume(new.ring(), 99), Consumer::resume(new.ring()));
    }
    new.check_guards();
}

fn figures(ring: &Ring) {
    ring.note_high_water(ring.find_tail().pos);
    let _ = ring.backlog();
}
