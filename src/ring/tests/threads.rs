//! Two threads at one ring: whatever the processor and the compiler reorder here, every message
//! arrives whole, once, and in its order. Fewer histories than the model checker's, but of the code
//! and on the machine that there really are.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::arena::{Arena, Dice, rounds};
use super::super::*;
use super::oracle::read;
use crate::config::Overflow;

const MESSAGES: u64 = 4_000;
/// Looks for a message before another thread may have the core.
const LOOKS: u32 = 1_000;

/// The message of that number; both sides know it.
fn message(number: u64, longest: usize) -> Vec<u8> {
    let mut dice = Dice(number);
    let len = if dice.once_in(8) { dice.below(longest + 1) } else { dice.below(49) };
    (0..len.div_ceil(8)).flat_map(|_| dice.roll().to_le_bytes()).take(len).collect()
}

/// Writes one to four messages, in one of three ways, and says how many.
fn write(producer: &mut Producer, number: u64, longest: usize) -> u64 {
    let first = message(number, longest);
    match number % 3 {
        0 => u64::from(producer.write_now(&first) || producer.try_write(&first).is_ok()),
        1 => match producer.claim(first.len()) {
            Ok(place) => {
                // SAFETY: so much was claimed just now.
                unsafe {
                    place.copy_from_nonoverlapping(first.as_ptr(), first.len());
                    producer.commit(first.len());
                }
                1
            }
            Err(_) => 0,
        },
        _ => {
            let last = (number + 4).min(MESSAGES);
            let batch: Vec<Vec<u8>> = (number..last).map(|next| message(next, longest)).collect();
            producer.write_many(&batch).unwrap_or(0) as u64
        }
    }
}

/// Tells the other thread, also when this one fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn stream(frame_size: u32, frames: u64) {
    let start = Place { epoch: 1, ..Place::default() };
    let arena = Arena::new(frame_size, frames, Overflow::Refuse, start);
    let longest = arena.geometry().max_message();
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0;
            while number < MESSAGES && !is_over.load(Ordering::Relaxed) {
                match write(&mut producer, number, longest) {
                    0 => std::thread::yield_now(),
                    written => number += written,
                }
            }
        });
        let _over = Over(&is_over);
        for number in 0..MESSAGES {
            let mut looks = 0;
            let got = loop {
                let is_last_look = writer.is_finished();
                match read(&mut consumer) {
                    Some(got) => break got,
                    None => assert!(!is_last_look, "message {number} never came"),
                }
                looks += 1;
                // Close behind its writer, but not for ever: there may be one core.
                if looks % LOOKS == 0 {
                    std::thread::yield_now();
                }
            };
            assert_eq!(got.id.number, number);
            assert!(got.bytes == message(number, longest), "message {number} is not what was sent");
        }
    });
    arena.check_guards();
}

#[test]
fn what_one_thread_writes_another_reads() {
    for _ in rounds() {
        for frame_size in [64, 192] {
            for frames in [2, 16, 256] {
                stream(frame_size, frames);
            }
        }
    }
}
