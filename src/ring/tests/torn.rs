//! A kill after each single store. The order of the stores is written down here once more, by hand;
//! that their sum is what the ring really does is checked each time.

use std::cell::RefCell;

use super::super::arena::Arena;
use super::super::*;
use super::oracle::{read, twin};
use crate::config::Overflow;
use crate::layout::FIELDS;

/// Which word of the cursor page a field is.
fn line(name: &str) -> usize {
    FIELDS.iter().find(|(field, _)| *field == name).expect("a field of the layout").1 / 8
}

/// The words of all marks, of each the position last.
fn marks() -> Vec<usize> {
    let mark = |index| line("ring.marks") + 4 * index;
    (0..MARKS).flat_map(|index| [mark(index) + 1, mark(index) + 2, mark(index)]).collect()
}

/// The words of a place: all records, of which one changes, and then which of them counts.
fn place() -> Vec<usize> {
    let first = line("ring.producer.places");
    (first..first + 5 * PLACES).chain([line("ring.producer.stored")]).collect()
}

/// The words that a producer stores in `frames` frames at `pos`: payload in this order, the commit
/// word of the next frame, commit word.
fn message(arena: &Arena, pos: u64, frames: u64, is_forwards: bool) -> Vec<usize> {
    let first = arena.frame(pos).start;
    let mut words: Vec<_> =
        (0..frames).flat_map(|frame| arena.frame(pos + frame)).filter(|&at| at > first).collect();
    if !is_forwards {
        words.reverse();
    }
    words.extend([arena.frame(pos + frames).start, first]);
    words
}

/// What a reservation stores.
fn reservation() -> Vec<usize> {
    let mut words = place();
    words.push(line("ring.reserve"));
    words.extend(marks());
    words
}

/// Every state between two, if the words are stored in this order. Words that do not change are no
/// stores; all that change must be among them.
fn states(before: &[u64], after: &[u64], order: &[usize]) -> Vec<Vec<u64>> {
    let mut state = before.to_vec();
    let mut states = vec![state.clone()];
    for &at in order {
        if state[at] != after[at] {
            state[at] = after[at];
            states.push(state.clone());
        }
    }
    let missing: Vec<_> = (0..after.len()).filter(|&at| state[at] != after[at]).collect();
    assert!(missing.is_empty(), "stores that are not in the list: {missing:?}");
    states
}

/// What a pair of successors finds in a state: what is read, if one more message is written first.
fn found(arena: &Arena, state: &[u64], reader: Option<&Consumer>) -> Vec<Vec<u8>> {
    arena.restore(state);
    let mut producer = Producer::resume(arena.ring(), 9).unwrap();
    let mut consumer = match reader {
        Some(reader) => twin(reader),
        None => Consumer::resume(arena.ring()).unwrap(),
    };
    let mut messages = Vec::new();
    while producer.try_write(b"successor").is_err() {
        messages.push(read(&mut consumer).unwrap());
    }
    messages.extend(std::iter::from_fn(|| read(&mut consumer)));
    let numbers = messages.windows(2).map(|pair| pair[1].id.number - pair[0].id.number);
    assert!(numbers.into_iter().all(|step| step == 1));
    let last = messages.pop().unwrap();
    assert_eq!((last.id.epoch, &last.bytes[..]), (9, &b"successor"[..]));
    messages.into_iter().map(|message| message.bytes).collect()
}

struct Step<'a>(Vec<u8>, &'a dyn Fn());

impl AsRef<[u8]> for Step<'_> {
    fn as_ref(&self) -> &[u8] {
        (self.1)();
        &self.0
    }
}

/// A ring in which both ends have gone round, with nothing unread.
fn used(frames: u64, laps: u64) -> (Arena, Producer, Consumer) {
    let start = Place { epoch: 1, ..Place::default() };
    let arena = Arena::new(64, frames, Overflow::Refuse, start);
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    while producer.head() < frames * laps {
        producer.try_write(b"before").unwrap();
        read(&mut consumer).unwrap();
        consumer.publish();
    }
    (arena, producer, consumer)
}

/// Every store of a batch of short and long messages, with a living reader and with a successor.
#[test]
fn a_batch_is_a_prefix_after_each_store() {
    let lens = [5, 56, 57, 0, 170, 8];
    let mut count = 0;
    for is_forwards in [true, false] {
        let (arena, mut producer, consumer) = used(32, 1 + u64::from(is_forwards));
        let between = RefCell::new(Vec::new());
        let keep = || between.borrow_mut().push(arena.snapshot());
        // The last one is too long, so that there is a state behind the one before it.
        let step = |len: usize| Step((0..len).map(|at| (at % 250) as u8 + 1).collect(), &keep);
        let batch: Vec<_> = lens.into_iter().chain([9999]).map(step).collect();
        let mut pos = producer.head();
        assert_eq!(producer.write_many(&batch).unwrap(), lens.len());
        let between = between.take();
        for index in 0..lens.len() {
            let frames = arena.ring().frames_for(lens[index]);
            let mut order = reservation();
            order.extend(message(&arena, pos, frames, is_forwards));
            let all = states(&between[index], &between[index + 1], &order);
            pos += frames;
            for state in &all {
                let word = state[arena.frame(pos - frames).start];
                let is_committed = arena.ring().committed(pos - frames, word).is_some();
                let expected: Vec<_> = batch[..index + usize::from(is_committed)]
                    .iter()
                    .map(|step| step.0.clone())
                    .collect();
                assert_eq!(found(&arena, state, None), expected, "message {index}");
                assert_eq!(found(&arena, state, Some(&consumer)), expected, "message {index}");
            }
            count += all.len();
        }
    }
    println!("{count} states of a batch");
}

/// The same for an announcement, and for a skip to the start of the ring.
#[test]
fn control_frames_are_harmless_after_each_store() {
    // Of a ring so large that one reservation is enough for the announcement and the claim.
    let (arena, _, consumer) = used(64, 2);
    let mut producer = Producer::resume(arena.ring(), 2).unwrap();
    let (before, pos) = (arena.snapshot(), producer.head());
    producer.claim(0).unwrap();
    let mut order = reservation();
    order.extend(message(&arena, pos, 1, true));
    // The boundary behind the announcement.
    order.extend(marks());
    for state in states(&before, &arena.snapshot(), &order) {
        assert_eq!(found(&arena, &state, None), Vec::<Vec<u8>>::new());
        assert_eq!(found(&arena, &state, Some(&consumer)), Vec::<Vec<u8>>::new());
    }

    let (arena, mut producer, mut consumer) = used(8, 2);
    for _ in 0..6 {
        producer.try_write(b"").unwrap();
        read(&mut consumer).unwrap();
        consumer.publish();
    }
    let (before, pos) = (arena.snapshot(), producer.head());
    producer.claim(3 * 64 - 8).unwrap();
    assert_eq!(producer.head(), pos + 2);
    let mut order = reservation();
    order.extend([pos + 2, pos].map(|pos| arena.frame(pos).start));
    order.extend(marks());
    for state in states(&before, &arena.snapshot(), &order) {
        assert_eq!(found(&arena, &state, None), Vec::<Vec<u8>>::new());
        assert_eq!(found(&arena, &state, Some(&consumer)), Vec::<Vec<u8>>::new());
    }
}

/// Every store of a reader: a message is there again until the tail is stored, and then it is not.
#[test]
fn a_reading_is_done_with_the_store_of_the_tail() {
    let (arena, mut producer, mut consumer) = used(8, 2);
    producer.try_write(b"one").unwrap();
    let mut producer = Producer::resume(arena.ring(), 2).unwrap();
    producer.try_write(b"two").unwrap();
    producer.try_write(b"three").unwrap();
    let order = ["epoch_before", "epoch_from", "epoch", "lost", "number", "tail"]
        .map(|name| line(&format!("ring.consumer.{name}")));
    let order = [&order[..], &[line("ring.space")]].concat();
    let texts = [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()];
    for done in 0..3 {
        let before = arena.snapshot();
        // Over the announcement, too, in the second round; its tail is the one before last.
        assert_eq!(read(&mut consumer).unwrap().bytes, texts[done]);
        let after = arena.snapshot();
        let tail = line("ring.consumer.tail");
        for state in states(&before, &after, &order) {
            let is_read = state[tail] == after[tail];
            let left = &texts[done + usize::from(is_read)..];
            assert_eq!(found(&arena, &state, None), left);
        }
        arena.restore(&after);
    }
}

/// Every store of a successor that takes a place over: it can be killed there too.
#[test]
fn taking_over_can_be_cut_anywhere() {
    let (arena, mut producer, _) = used(8, 2);
    producer.write_many(&[&b"a"[..], b"b"]).unwrap();
    let before = arena.snapshot();
    Producer::resume(arena.ring(), 1).unwrap();
    for state in states(&before, &arena.snapshot(), &place()) {
        assert_eq!(found(&arena, &state, None), [b"a".to_vec(), b"b".to_vec()]);
    }
}
