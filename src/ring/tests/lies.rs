//! A hostile peer: errors and wrong messages, but no panic, no access outside the ring, no endless
//! loop. The fuzz targets (`fuzz/`) play the same game with the address sanitizer.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering as StdOrdering};
use std::thread;

use super::super::arena::{Arena, Dice, rounds};
use super::super::fuzzing::{Honest, run, run_honest, run_lies};
use super::super::*;
use crate::config::Overflow;
use crate::layout::FIELDS;

const ENDS: [Honest; 4] = [Honest::Consumer, Honest::Producer, Honest::Tap, Honest::All];

fn script(dice: &mut Dice, len: usize) -> Vec<u8> {
    (0..len / 8).flat_map(|_| dice.roll().to_le_bytes()).collect()
}

#[test]
fn seeded_lies_are_survived() {
    for seed in rounds() {
        let mut dice = Dice(seed);
        for round in 0..50_000 {
            run(&script(&mut dice, 512), ENDS[round % 4]);
        }
    }
}

/// What the fuzzers found worth keeping.
#[test]
fn kept_lies_are_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, honest) in ["ring_consumer", "ring_producer", "ring_tap"].into_iter().zip(ENDS) {
        // A packaged copy of the sources comes without them.
        let Ok(files) = std::fs::read_dir(corpus.join(target)) else { return };
        for file in files {
            run(&std::fs::read(file.unwrap().path()).unwrap(), honest);
        }
    }
}

/// A second thread lies all the time, so that what was checked may have changed when it is used.
#[test]
fn lies_during_every_call_are_survived() {
    let mut dice = Dice(11);
    for round in 0..24 {
        let overflow = if round % 2 == 0 { Overflow::Refuse } else { Overflow::Overwrite };
        let arena = Arena::new(64, [2, 8, 64][round % 3], overflow, Place::default());
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut lies = Dice(dice.roll());
            let (arena, is_over) = (&arena, &is_over);
            scope.spawn(move || {
                while !is_over.load(StdOrdering::Relaxed) {
                    run_lies(arena, &script(&mut lies, 1024));
                }
            });
            run_honest(arena, &script(&mut dice, 40_000), ENDS[round % 4]);
            is_over.store(true, StdOrdering::Relaxed);
        });
        arena.check_guards();
    }
}

/// Every bad value of FAILURES.md in every word of the cursor page and of a frame at the tail and at
/// the head, one at a time, against every end.
#[test]
fn every_bad_value_in_every_word_is_survived() {
    let mut dice = Dice(3);
    let mut count = 0;
    for (frames, overflow) in [
        (2, Overflow::Refuse),
        (8, Overflow::Refuse),
        (8, Overflow::Overwrite),
        (64, Overflow::Refuse),
    ] {
        let fresh = Arena::new(64, frames, overflow, Place { epoch: 3, ..Place::default() });
        run_honest(&fresh, &script(&mut dice, 200), Honest::All);
        let state = fresh.snapshot();
        let ring = fresh.ring();
        let named = FIELDS.iter().filter(|(name, _)| name.starts_with("ring."));
        let mut words: Vec<_> =
            named.map(|(_, offset)| offset / 8).filter(|&at| at < 512).collect();
        words.extend((0..4 * MARKS).map(|at| ring_marks() + at));
        let (tail, head) = (ring.find_tail().pos, ring.find_head(None).unwrap().pos);
        for pos in [tail, tail + 1, head.wrapping_sub(1), head, head + 1] {
            words.extend(fresh.frame(pos).take(4));
        }
        for &at in &words {
            for value in bad_values(state[at], frames, tail, head) {
                fresh.restore(&state);
                fresh.word(at).store(value, Ordering::Relaxed);
                run_honest(&fresh, &script(&mut dice, 64), ENDS[count % 4]);
                count += 1;
            }
        }
        fresh.check_guards();
    }
    println!("{count} bad values");
}

fn ring_marks() -> usize {
    FIELDS.iter().find(|(name, _)| *name == "ring.marks").unwrap().1 / 8
}

fn bad_values(now: u64, capacity: u64, tail: u64, head: u64) -> Vec<u64> {
    let mut values = vec![0, 1, 7, 1 << 31, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 1, !now];
    for pos in [now, tail, head] {
        for distance in [1, 2, capacity / 2, capacity - 1, capacity, capacity + 1, 4 * capacity + 1]
        {
            values.extend([pos.wrapping_add(distance), pos.wrapping_sub(distance)]);
        }
    }
    let lens = [0, 55, 56, 57, 63, 64, 65, u32::MAX / 2, u32::MAX - 2, EPOCH, SKIP];
    values.extend(lens.map(|len| (now & !0xFFFF_FFFF) | u64::from(len)));
    values.extend(lens.map(|len| (now.wrapping_add(1 << 32) & !0xFFFF_FFFF) | u64::from(len)));
    let max = (capacity / 2).max(1) * 64 - 8;
    values.extend([max, max + 1, max - 1].map(|len| (now & !0xFFFF_FFFF) | len));
    values
}

/// Skips and announcements that lead from frame to frame for ever.
#[test]
fn chained_control_frames_end() {
    for kind in [SKIP, EPOCH] {
        for frames in [2, 8, 64] {
            let arena = Arena::new(64, frames, Overflow::Refuse, Place::default());
            let ring = arena.ring();
            let mut consumer = Consumer::resume(ring).unwrap();
            for _ in 0..200 {
                // A lap of them, renewed as often as somebody looks.
                let tail = consumer.place().pos;
                for pos in tail..tail + frames {
                    let word = ring.stamp(pos) | u64::from(kind);
                    ring.frames.at(pos).commit().store(word, Ordering::Relaxed);
                    arena.word(arena.frame(pos).start + 1).store(pos, Ordering::Relaxed);
                }
                match consumer.find() {
                    Ok(found) => assert!(found.is_none()),
                    Err(error) => assert!(matches!(error, Error::Corrupt { .. })),
                }
                let _ = Cursor::at_newest(ring).map(|mut tap| tap.find());
            }
        }
    }
}

/// Positions that no correct peer can have are told, not taken for space or messages.
#[test]
fn impossible_positions_are_refused() {
    let corrupt =
        |result: Result<()>| assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    let wrong = |capacity: u64| [capacity + 1, 1 << 31, 1 << 62, 1 << 63, (1 << 63) + 1, u64::MAX];
    // Far from the wrap of the count, where fresh memory is full of commit words.
    let start = Place { pos: 1 << 20, ..Place::default() };
    for frames in [2, 8, 64] {
        for distance in wrong(frames) {
            let arena = Arena::new(64, frames, Overflow::Refuse, start);
            let ring = arena.ring();
            let lines = ring.lines();
            for place in &lines.producer.places {
                place.pos.store(start.pos.wrapping_add(distance), Ordering::Relaxed);
            }
            lines.reserve.reserve.store(start.pos.wrapping_add(distance), Ordering::Relaxed);
            corrupt(Producer::resume(ring, 1).map(drop));
            corrupt(Consumer::resume(ring).map(drop));

            let arena = Arena::new(64, frames, Overflow::Refuse, start);
            let ring = arena.ring();
            let mut producer = Producer::resume(ring, 1).unwrap();
            while producer.try_write(&[]).is_ok() {}
            // A reader beyond the head, or that far back.
            let position = producer.head().wrapping_add(distance);
            if position.wrapping_sub(start.pos).wrapping_add(4 * frames) < 5 * frames {
                continue;
            }
            ring.lines().space.space.store(position, Ordering::Relaxed);
            corrupt(producer.try_write(&[]));
        }
    }
}

/// A skip leads to the start of the ring; from there it would lead round to itself.
#[test]
fn a_skip_at_the_start_is_refused() {
    let arena = Arena::new(64, 8, Overflow::Refuse, Place::default());
    let ring = arena.ring();
    let mut consumer = Consumer::resume(ring).unwrap();
    ring.frames.at(0).commit().store(ring.stamp(0) | u64::from(SKIP), Ordering::Relaxed);
    assert!(matches!(consumer.find(), Err(Error::Corrupt { .. })));
    assert!(matches!(Cursor::at_oldest(ring).find(), Err(Error::Corrupt { .. })));
    assert!(matches!(Producer::resume(ring, 1).map(drop), Err(Error::Corrupt { .. })));
}
