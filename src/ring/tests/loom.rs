//! Every edge of the table in `ring.rs`, in every interleaving that the memory model allows:
//! `RUSTFLAGS="--cfg loom" cargo test -p eshm --lib --release loom`.
//!
//! Each test names the outcomes that it must have met, so that an edge which is never exercised
//! fails its test too. `tools/mutate-orderings` shows that each ordering is needed by some test.
//!
//! The asymmetric barrier is modelled as a full fence on both sides; loom knows no other. Where the
//! number of interleavings forbids to try them all, the bound on preemptions stands in the test. Who
//! reads what may be overwritten is in `loom/racing.rs`.

mod places;
mod racing;

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::*;
use crate::config::{Geometry, Overflow};
use crate::sync::model::{Builder, Store, set_heavy_barrier, thread};
use crate::sync::{AtomicU32, AtomicU64};

/// A ring in modelled memory.
struct Model {
    lines: Box<MaybeUninit<RingLines>>,
    store: Box<Store>,
    geometry: Geometry,
}

// SAFETY: everything in it is modelled, and raced for under the checker's eyes.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// A fresh ring of this many frames that begins at position 0, epoch 1.
    fn new(frames: u64, overflow: Overflow) -> Arc<Self> {
        Model::begun_at(0, frames, overflow)
    }

    /// The same from another position, with the number of the same value.
    fn begun_at(pos: u64, frames: u64, overflow: Overflow) -> Arc<Self> {
        let model = Arc::new(Model::blank(frames, overflow));
        model.ring().format(Place { pos, number: pos, epoch: 1, ..Place::default() });
        model
    }

    fn blank(frames: u64, overflow: Overflow) -> Self {
        // Announcements are raced for in every ring; one word is all that most tests here need.
        Model::of_words(frames, overflow, 1)
    }

    /// One in which so many words of each frame can be raced for.
    fn of_words(frames: u64, overflow: Overflow, raced: usize) -> Self {
        let store = Box::new(Store::new(frames, raced));
        Model { lines: lines(), store, geometry: Geometry { frame_size: 64, frames, overflow } }
    }

    fn ring(&self) -> Ring {
        let lines = NonNull::from(&*self.lines).cast();
        // SAFETY: the tests keep the model until all threads are joined; every word of the lines
        // that the ring uses was made by `lines`.
        unsafe { Ring::new(lines, Frames::new(&raw const *self.store), self.geometry) }
    }
}

/// Modelled cursor lines: the checker's atomics are not made of zeros.
fn lines() -> Box<MaybeUninit<RingLines>> {
    let mut lines = Box::<RingLines>::new_uninit();
    let at = lines.as_mut_ptr();
    macro_rules! zero {
        // SAFETY: fields of the box, each written before anybody reads it.
        ($($($field:ident).+),*) => { $(unsafe { (&raw mut (*at).$($field).+).write(AtomicU64::new(0)) };)* };
    }
    zero!(producer.stored);
    zero!(consumer.tail, consumer.number, consumer.epoch, consumer.lost);
    zero!(consumer.epoch_from, consumer.epoch_before);
    zero!(space.space, reserve.reserve);
    zero!(producer_stats.times_full, producer_stats.parks);
    zero!(producer_stats.wakes, producer_stats.high_water);
    zero!(consumer_stats.parks, consumer_stats.wakes);
    for index in 0..PLACES {
        // SAFETY: as above.
        unsafe {
            let place = &raw mut (*at).producer.places[index];
            for word in [
                &raw mut (*place).pos,
                &raw mut (*place).number,
                &raw mut (*place).bytes,
                &raw mut (*place).epoch,
                &raw mut (*place).last_epoch,
            ] {
                word.write(AtomicU64::new(0));
            }
        }
    }
    for index in 0..MARKS {
        // SAFETY: as above.
        unsafe {
            let mark = &raw mut (*at).marks[index];
            (&raw mut (*mark).pos).write(AtomicU64::new(0));
            (&raw mut (*mark).number).write(AtomicU64::new(0));
            (&raw mut (*mark).epoch).write(AtomicU64::new(0));
        }
    }
    // SAFETY: as above.
    unsafe {
        (&raw mut (*at).data_bell.word).write(AtomicU32::new(0));
        (&raw mut (*at).room_bell.word).write(AtomicU32::new(0));
    }
    lines
}

/// What happened in some execution, by name.
#[derive(Clone, Default)]
struct Outcomes(Arc<Mutex<(BTreeSet<String>, usize)>>);

impl Outcomes {
    fn met(&self, name: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.insert(name.into());
    }
}

/// Runs `test` in every interleaving with at most so many preemptions, and checks that exactly the
/// named outcomes were met. Nobody runs the heavy barrier, so the light one orders nothing.
fn explore(
    preemptions: Option<usize>,
    names: &[&str],
    test: impl Fn(&Outcomes) + Send + Sync + 'static,
) {
    let outcomes = Outcomes::default();
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    let inner = outcomes.clone();
    let began = std::time::Instant::now();
    builder.check(move || {
        inner.0.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
        test(&inner);
    });
    let (met, executions) = &*outcomes.0.lock().unwrap();
    println!("{executions} executions in {:.1?}, outcomes: {met:?}", began.elapsed());
    assert_eq!(*met, names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
}

/// The same with somebody who runs the heavy barrier.
fn explore_heavy(
    preemptions: Option<usize>,
    names: &[&str],
    test: impl Fn(&Outcomes) + Send + Sync + 'static,
) {
    set_heavy_barrier(true);
    explore(preemptions, names, test);
    set_heavy_barrier(false);
}

/// The two halves of the asymmetric barrier are full fences in the model.
fn heavy_barrier() {
    fence(Ordering::SeqCst);
}

/// The message that follows `number` others: two words, so that a torn one shows.
fn message(number: u64) -> [u8; 16] {
    let word = (number + 7).to_le_bytes();
    std::array::from_fn(|at| word[at % 8])
}

/// Reads the next message, which must be the right one, and consumes it.
fn read(consumer: &mut Consumer) -> Option<u64> {
    let found = consumer.find().unwrap()?;
    let mut bytes = [0; 16];
    consumer.copy(found, &mut bytes).unwrap();
    consumer.consume(found);
    let number = consumer.last_id().unwrap().number;
    assert_eq!(bytes, message(number));
    Some(number)
}

/// PUBLISH: a reader finds a whole message or none.
#[test]
fn loom_publish_reader_finds_a_whole_message_or_none() {
    explore(None, &["0 of 2 read", "1 of 2 read", "2 of 2 read"], |outcomes| {
        let model = Model::new(4, Overflow::Refuse);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(model.ring()).unwrap();
        let writer = thread::spawn(move || {
            producer.try_write(&message(0)).unwrap();
            producer.try_write(&message(1)).unwrap();
        });
        let count = (0..2).filter_map(|_| read(&mut consumer)).count();
        outcomes.met(format!("{count} of 2 read"));
        writer.join().unwrap();
        while read(&mut consumer).is_some() {}
        assert_eq!(consumer.last_id().unwrap().number, 1);
    });
}

/// PUBLISH, where everything is ready: what a busy writer and a busy reader execute.
#[test]
fn loom_publish_on_the_hot_path() {
    explore(None, &["found", "nothing"], |outcomes| {
        // Eighths of two frames: what message 1 has reserved is enough for message 2.
        let model = Model::begun_at(1, 16, Overflow::Refuse);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(model.ring()).unwrap();
        producer.try_write(&message(1)).unwrap();
        read(&mut consumer).unwrap();
        let writer = thread::spawn(move || assert!(producer.write_now(&message(2))));
        let mut bytes = [0; 16];
        let len = consumer.take_now(&mut bytes);
        if len.is_some() {
            assert_eq!((len, bytes), (Some(16), message(2)));
        }
        outcomes.met(if len.is_some() { "found" } else { "nothing" });
        writer.join().unwrap();
    });
}

/// RECLAIM on the hot path: a long message is copied out before its frames are given back.
#[test]
fn loom_reclaim_on_the_hot_path() {
    explore(None, &["0 written", "2 written"], |outcomes| {
        let model = Model::begun_at(1, 16, Overflow::Refuse);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(model.ring()).unwrap();
        producer.try_write(&[7; 64]).unwrap();
        while producer.try_write(&[]).is_ok() {}
        let reader = thread::spawn(move || {
            let mut bytes = [0; 64];
            assert_eq!((consumer.take_now(&mut bytes), bytes), (Some(64), [7; 64]));
        });
        // Only both frames of the long message are room for anything.
        let count = (0..2).take_while(|_| producer.try_write(&message(0)).is_ok()).count();
        outcomes.met(format!("{count} written"));
        reader.join().unwrap();
    });
}

/// PUBLISH carries the clearing of the next commit word (I1): the payload of a long message of an
/// earlier lap imitates the commit word of the message after next.
#[test]
fn loom_publish_carries_the_clearing_of_a_ghost() {
    explore(None, &["0 read", "1 read"], |outcomes| {
        let model = Model::new(4, Overflow::Refuse);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(model.ring()).unwrap();
        // Frames 0 and 1; where the header of frame 1 lies, payload says 6 and 0 bytes, number 3.
        let mut long = [0; 64];
        long[48..56].copy_from_slice(&6u64.to_le_bytes());
        long[56..64].copy_from_slice(&(3u64 << 32).to_le_bytes());
        producer.try_write(&long).unwrap();
        producer.try_write(&[]).unwrap();
        for _ in 0..2 {
            let found = consumer.find().unwrap().unwrap();
            consumer.consume(found);
            consumer.settle();
        }
        producer.try_write(&[]).unwrap();
        let found = consumer.find().unwrap().unwrap();
        consumer.consume(found);
        consumer.settle();
        let writer = thread::spawn(move || producer.try_write(&message(3)).unwrap());
        let count = (0..2).filter_map(|_| read(&mut consumer)).count();
        outcomes.met(format!("{count} read"));
        writer.join().unwrap();
    });
}

/// PUBLISH behind control frames, and within a batch of reads.
#[test]
fn loom_publish_behind_an_announcement_and_in_a_batch() {
    explore(None, &["0 of 2 read", "1 of 2 read", "2 of 2 read"], |outcomes| {
        let model = Model::new(4, Overflow::Refuse);
        let mut producer = Producer::resume(model.ring(), 2).unwrap();
        let mut consumer = Consumer::resume(model.ring()).unwrap();
        let writer = thread::spawn(move || {
            producer.try_write(&message(0)).unwrap();
            producer.try_write(&message(1)).unwrap();
        });
        let mut count = 0;
        let mut found = consumer.find().unwrap();
        while let Some(message_here) = found {
            let mut bytes = [0; 16];
            consumer.copy(message_here, &mut bytes).unwrap();
            assert_eq!((bytes, consumer.next_id().epoch), (message(count), 2));
            consumer.pass(message_here);
            count += 1;
            found = consumer.find_more().unwrap();
        }
        consumer.store_place();
        outcomes.met(format!("{count} of 2 read"));
        writer.join().unwrap();
    });
}

/// RECLAIM through the stored tail, which a full producer looks at: nothing is published.
#[test]
fn loom_reclaim_through_the_tail() {
    explore(None, &["0 written", "1 written", "2 written"], |outcomes| {
        let (mut producer, mut consumer, model) = one_of_two_frames_filled();
        let reader = thread::spawn(move || {
            read(&mut consumer).unwrap();
            read(&mut consumer);
        });
        outcomes.met(format!("{} written", write_two(&mut producer)));
        reader.join().unwrap();
        drop(model);
    });
}

/// RECLAIM through the published space, which the producer looks at first.
#[test]
fn loom_reclaim_through_space() {
    explore(None, &["0 written", "1 written", "2 written"], |outcomes| {
        let (mut producer, mut consumer, model) = one_of_two_frames_filled();
        let reader = thread::spawn(move || {
            read(&mut consumer).unwrap();
            consumer.settle();
            read(&mut consumer);
            consumer.settle();
        });
        outcomes.met(format!("{} written", write_two(&mut producer)));
        reader.join().unwrap();
        drop(model);
    });
}

/// RECLAIM from a dead reader: its successor publishes what it had read.
#[test]
fn loom_reclaim_through_a_successor() {
    explore(Some(3), &["0 written", "1 written", "2 written"], |outcomes| {
        let (mut producer, mut consumer, model) = one_of_two_frames_filled();
        let ring = model.ring();
        let reader = thread::spawn(move || {
            read(&mut consumer).unwrap();
            let mut consumer = Consumer::resume(ring).unwrap();
            read(&mut consumer);
            Consumer::resume(ring).unwrap();
        });
        outcomes.met(format!("{} written", write_two(&mut producer)));
        reader.join().unwrap();
    });
}

/// A ring that holds one message, and is full with it. The frame of message 2 is that of message 0;
/// it is free once both messages are read.
fn one_of_two_frames_filled() -> (Producer, Consumer, Arc<Model>) {
    let model = Model::new(2, Overflow::Refuse);
    let mut producer = Producer::resume(model.ring(), 1).unwrap();
    let consumer = Consumer::resume(model.ring()).unwrap();
    producer.try_write(&message(0)).unwrap();
    (producer, consumer, model)
}

/// Tries to write messages 1 and 2.
fn write_two(producer: &mut Producer) -> usize {
    for count in 0..2 {
        match producer.try_write(&message(count as u64 + 1)) {
            Ok(()) => {}
            Err(Error::Full) => return count,
            Err(error) => panic!("{error}"),
        }
    }
    2
}

/// All of it together: four messages through a ring that holds one at a time.
#[test]
fn loom_four_messages_through_two_frames() {
    explore(Some(4), &["all read"], |outcomes| {
        let model = Model::new(2, Overflow::Refuse);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(model.ring()).unwrap();
        let writer = thread::spawn(move || {
            for number in 0..4 {
                while let Err(error) = producer.try_write(&message(number)) {
                    assert!(matches!(error, Error::Full));
                    thread::yield_now();
                }
            }
        });
        for number in 0..4 {
            loop {
                match read(&mut consumer) {
                    Some(read) => break assert_eq!(read, number),
                    None => thread::yield_now(),
                }
            }
            consumer.settle();
        }
        writer.join().unwrap();
        outcomes.met("all read");
    });
}

/// DOORBELL, data: either the sleeping reader finds the message, or the writer sees that it sleeps.
#[test]
fn loom_doorbell_a_reader_is_not_left_asleep() {
    explore_heavy(None, &["found", "rung", "found and rung"], |outcomes| {
        let model = Model::new(2, Overflow::Refuse);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(model.ring()).unwrap();
        let writer = thread::spawn(move || {
            producer.try_write(&message(0)).unwrap();
            let bell = producer.ring().data_bell();
            bell.glance() & SLEEP != 0 && bell.take_sleep()
        });
        consumer.ring().data_bell().announce_sleep(false);
        heavy_barrier();
        let found = read(&mut consumer).is_some();
        let rung = writer.join().unwrap();
        outcomes.met(name_of_wake(found, rung));
    });
}

/// DOORBELL, room: the same for a writer that waits for the reader.
#[test]
fn loom_doorbell_a_writer_is_not_left_asleep() {
    explore_heavy(None, &["found", "rung", "found and rung"], |outcomes| {
        let model = Model::new(2, Overflow::Refuse);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(model.ring()).unwrap();
        producer.try_write(&message(0)).unwrap();
        let reader = thread::spawn(move || {
            read(&mut consumer).unwrap();
            let bell = consumer.ring().room_bell();
            bell.glance() & SLEEP != 0 && bell.take_sleep()
        });
        producer.ring().room_bell().announce_sleep(false);
        heavy_barrier();
        let found = producer.try_write(&message(1)).is_ok();
        let rung = reader.join().unwrap();
        outcomes.met(name_of_wake(found, rung));
    });
}

/// DOORBELL without the asymmetric barrier: the bell says so, and both sides fence for themselves.
#[test]
fn loom_doorbell_with_fences_on_both_sides() {
    explore(None, &["found", "rung", "found and rung"], |outcomes| {
        let model = Model::new(2, Overflow::Refuse);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(model.ring()).unwrap();
        // It has slept here before, so the writer's glance, which is no barrier now, sees `FENCE`.
        consumer.ring().data_bell().set(FENCE);
        let writer = thread::spawn(move || {
            producer.try_write(&message(0)).unwrap();
            let bell = producer.ring().data_bell();
            bell.glance() != 0 && bell.look() & SLEEP != 0 && bell.take_sleep()
        });
        consumer.ring().data_bell().announce_sleep(true);
        let found = read(&mut consumer).is_some();
        let rung = writer.join().unwrap();
        outcomes.met(name_of_wake(found, rung));
    });
}

fn name_of_wake(found: bool, rung: bool) -> &'static str {
    match (found, rung) {
        (true, true) => "found and rung",
        (true, false) => "found",
        (false, true) => "rung",
        (false, false) => panic!("asleep beside what it waits for"),
    }
}

/// What one party of a seal did: frames that it knows to be inside the cut, and those that it must
/// compare with the cut.
struct Did {
    sure: u64,
    maybe: u64,
}

/// SEAL: a message is `Ok` for its writer, and delivered, if and only if it lies before the cut;
/// whether a writer and a reader of the sealed segment are alive, hung or dead. And what is unread
/// at the cut is whole: no space that was given after the seal is used (I7).
#[test]
fn loom_seal_three_parties_agree_on_the_cut() {
    let names = ["0 of 1", "1 of 1", "1 of 2", "2 of 2", "2 of 3"];
    explore_heavy(Some(4), &names, |outcomes| {
        let (mut producer, mut consumer, model) = one_of_two_frames_filled();
        let ring = model.ring();
        let writer = thread::spawn(move || {
            let mut did = Did { sure: 1, maybe: 1 };
            for number in 1..3 {
                match producer.try_write(&message(number)) {
                    Ok(()) => did.maybe = number + 1,
                    Err(Error::Full) => break,
                    Err(error) => panic!("{error}"),
                }
                if producer.ring().data_bell().glance() & SEALED != 0 {
                    break;
                }
                did.sure = number + 1;
            }
            did
        });
        let reader = thread::spawn(move || {
            let mut did = Did { sure: 0, maybe: 0 };
            for number in 0..2 {
                if read(&mut consumer).is_none() {
                    break;
                }
                did.maybe = number + 1;
                if consumer.ring().room_bell().glance() & SEALED != 0 {
                    break;
                }
                did.sure = number + 1;
                consumer.settle();
            }
            did
        });
        let (tail, head) = seal(ring);
        let (wrote, read) = (writer.join().unwrap(), reader.join().unwrap());
        assert!(wrote.sure <= head.pos && head.pos <= wrote.maybe);
        assert!(read.sure <= tail.pos && tail.pos <= read.maybe.min(head.pos));
        outcomes.met(format!("{} of {}", tail.pos, head.pos));
    });
}

/// Seals as the session does, and copies what is unread out of the reach of whoever is left.
fn seal(ring: Ring) -> (Place, Place) {
    ring.data_bell().set(SEALED);
    ring.room_bell().set(SEALED);
    heavy_barrier();
    let head = ring.find_head(None).unwrap();
    let mut tail = ring.find_tail();
    // A message committed and read since the head was found is behind the cut for both.
    if producer::is_before(head.pos, tail.pos) {
        tail = head;
    }
    assert_eq!((head.pos, tail.pos), (head.number, tail.number), "one frame per message");
    let new = Model::blank(2, Overflow::Refuse);
    new.ring().rebuild(&ring, tail, head).unwrap();
    let mut successor = Consumer::resume(new.ring()).unwrap();
    let unread = std::iter::from_fn(|| super::loom::read(&mut successor)).collect::<Vec<_>>();
    assert_eq!(unread, (tail.number..head.number).collect::<Vec<_>>());
    (tail, head)
}

/// SEAL: who joined and cannot be reached by a barrier asked for fences, and gets them, although
/// somebody who can lay down to sleep meanwhile.
#[test]
fn loom_seal_reaches_who_fences_for_itself() {
    explore(Some(3), &["inside", "sealed", "inside and sealed"], |outcomes| {
        let model = Model::new(2, Overflow::Refuse);
        let ring = model.ring();
        let mut producer = Producer::resume(ring, 1).unwrap();
        let writer = thread::spawn(move || {
            ring.data_bell().set(FENCE);
            producer.try_write(&message(0)).unwrap();
            producer.ring().data_bell().is_sealed()
        });
        ring.data_bell().announce_sleep(false);
        ring.data_bell().take_sleep();
        ring.data_bell().set(SEALED);
        heavy_barrier();
        let is_inside = ring.find_head(None).unwrap().number == 1;
        outcomes.met(match (is_inside, writer.join().unwrap()) {
            (true, true) => "inside and sealed",
            (true, false) => "inside",
            (false, true) => "sealed",
            (false, false) => panic!("written behind a cut that nobody told of"),
        });
    });
}
