//! Random histories against a queue that cannot be wrong.
use std::collections::VecDeque;

use super::super::arena::Arena;
use super::super::*;
use crate::config::Overflow;

fn payload(number: u64, len: usize) -> Vec<u8> {
    // Words that look like commit words of positions nearby, so that a ghost would be believed.
    let mut bytes: Vec<u8> =
        (0..len as u64 / 8 + 1).flat_map(|w| number.wrapping_add(w / 8).to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

#[test]
fn a_random_history_agrees_with_a_queue() {
    for start in [0, u64::MAX - 40] {
        for (size, frames) in [(64, 2), (64, 8), (64, 64), (128, 16)] {
            let bench = Arena::new(
                size,
                frames,
                Overflow::Refuse,
                Place { pos: start, number: 0, epoch: 1, bytes: 0 },
            );
            let mut producer = Producer::resume(bench.ring(), 1).unwrap();
            let mut consumer = Consumer::resume(bench.ring()).unwrap();
            let mut oracle = VecDeque::new();
            let mut seed = 42 + frames;
            let (mut sent, mut read) = (0u64, 0u64);
            let mut epoch = 1;
            for _ in 0..100_000 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let dice = (seed >> 33) as usize;
                match dice % 16 {
                    0..=7 => {
                        let max = bench.geometry().max_message();
                        let len = if dice & 256 == 0 {
                            dice / 512 % 49.min(max)
                        } else {
                            dice / 512 % (max + 1)
                        };
                        let message = payload(start.wrapping_add(dice as u64 % 64), len);
                        match producer.try_write(&message) {
                            Ok(()) => {
                                oracle.push_back(message);
                                sent += 1;
                            }
                            // Control frames take room too, until the reader has gone over them.
                            Err(Error::Full) if oracle.is_empty() => {
                                assert!(consumer.find().unwrap().is_none());
                                match producer.try_write(&message) {
                                    // A resumed producer may have announced itself only now.
                                    Err(Error::Full) => assert!(consumer.find().unwrap().is_none()),
                                    done => {
                                        done.unwrap();
                                        oracle.push_back(message);
                                        sent += 1;
                                    }
                                }
                            }
                            Err(Error::Full) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    8 => {
                        epoch += 1;
                        producer = Producer::resume(bench.ring(), epoch).unwrap();
                    }
                    9 => {
                        let len = dice / 512 % (bench.geometry().max_message() + 1);
                        if let Ok(at) = producer.claim(len) {
                            let junk = payload(producer.head().wrapping_add(dice as u64 % 8), len);
                            unsafe { std::ptr::copy_nonoverlapping(junk.as_ptr(), at, len) };
                        }
                    }
                    10 => consumer = Consumer::resume(bench.ring()).unwrap(),
                    _ => match consumer.find().unwrap() {
                        None => assert!(oracle.is_empty()),
                        Some(found) => {
                            let mut buffer = vec![0; found.len];
                            consumer.copy(found, &mut buffer).unwrap();
                            consumer.consume(found);
                            consumer.settle();
                            assert_eq!(Some(buffer), oracle.pop_front());
                            assert_eq!(consumer.last_id().unwrap().number, read);
                            read += 1;
                        }
                    },
                }
            }
            assert!(sent > 1000);
            assert_eq!(producer.last_committed().unwrap().number, sent - 1);
        }
    }
}
