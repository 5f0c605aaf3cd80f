//! Commit words that nobody committed: the four ways to get one (FAILURES: Ghosts).

use super::super::arena::Arena;
use super::super::*;
use super::oracle::{read, twin};
use crate::config::Overflow;

fn start() -> Place {
    Place { epoch: 1, ..Place::default() }
}

fn ring(frames: u64) -> (Arena, Producer, Consumer) {
    let arena = Arena::new(64, frames, Overflow::Refuse, start());
    let producer = Producer::resume(arena.ring(), 1).unwrap();
    let consumer = Consumer::resume(arena.ring()).unwrap();
    (arena, producer, consumer)
}

/// Three frames of payload, in which the headers of frames 1 and 2 seem to be those of whole, empty
/// messages at these positions.
fn three_frames(arena: &Arena, ghosts: [u64; 2]) -> Vec<u8> {
    let mut bytes = vec![0; 3 * 64 - 8];
    for (frame, pos) in ghosts.into_iter().enumerate() {
        let at = (frame + 1) * 64 - 8;
        bytes[at..at + 8].copy_from_slice(&arena.ring().stamp(pos).to_le_bytes());
    }
    bytes
}

/// Writes and reads empty messages until the head is at `pos`.
fn go_to(pos: u64, producer: &mut Producer, consumer: &mut Consumer) {
    while producer.head() < pos {
        producer.try_write(&[]).unwrap();
        while read(consumer).is_some() {}
        consumer.publish();
    }
}

/// Past the lap in which a producer that has just begun assumes the worst.
const CALM: u64 = 17;

/// Way 1: the payload of an earlier long message lies where the head arrives a lap later.
#[test]
fn ghost_1_payload_of_an_earlier_lap() {
    let (arena, mut producer, mut consumer) = ring(8);
    go_to(CALM, &mut producer, &mut consumer);
    // Frames 17, 18 and 19; a lap later, 26 is the ghost's.
    producer.try_write(&three_frames(&arena, [26, 27])).unwrap();
    read(&mut consumer).unwrap();
    for pos in 20..30 {
        assert_eq!(producer.head(), pos);
        assert_eq!(read(&mut consumer), None);
        producer.try_write(&[1]).unwrap();
        assert_eq!(read(&mut consumer).unwrap().bytes, [1]);
        consumer.publish();
    }
}

/// Way 1, and the long message takes the hot path, in frames that were reserved before.
#[test]
fn ghost_1_payload_written_on_the_hot_path() {
    let (arena, mut producer, mut consumer) = ring(64);
    go_to(65, &mut producer, &mut consumer);
    // Frames 65, 66 and 67; a lap later, 130 is the ghost's.
    assert!(producer.write_now(&three_frames(&arena, [130, 131])));
    read(&mut consumer).unwrap();
    for pos in 68..140 {
        assert_eq!(producer.head(), pos);
        assert_eq!(read(&mut consumer), None);
        producer.try_write(&[1]).unwrap();
        assert_eq!(read(&mut consumer).unwrap().bytes, [1]);
        consumer.publish();
    }
}

/// Way 1, and the frames with the payload are skipped over in the next lap: they lie there for
/// another one.
#[test]
fn ghost_1_survives_a_skip() {
    let (arena, mut producer, mut consumer) = ring(8);
    go_to(CALM + 4, &mut producer, &mut consumer);
    // Frames 21, 22 and 23, the last ones before the end of the ring. Ghosts of two laps later.
    producer.try_write(&three_frames(&arena, [38, 39])).unwrap();
    read(&mut consumer).unwrap();
    // The next lap ends with a skip from 30 to 32, over the place of both ghosts.
    go_to(30, &mut producer, &mut consumer);
    producer.try_write(&three_frames(&arena, [0, 0])).unwrap();
    read(&mut consumer).unwrap();
    assert_eq!(producer.head(), 35);
    for _ in 35..48 {
        assert_eq!(read(&mut consumer), None);
        producer.try_write(&[1]).unwrap();
        assert_eq!(read(&mut consumer).unwrap().bytes, [1]);
        consumer.publish();
    }
}

/// Way 2: a long claim was filled in and aborted.
#[test]
fn ghost_2_an_aborted_claim() {
    let (arena, mut producer, mut consumer) = ring(8);
    go_to(CALM, &mut producer, &mut consumer);
    let junk = three_frames(&arena, [18, 19]);
    let at = producer.claim(junk.len()).unwrap();
    // SAFETY: the claim is as long.
    unsafe { std::ptr::copy_nonoverlapping(junk.as_ptr(), at, junk.len()) };
    for _ in 0..12 {
        producer.try_write(&[1]).unwrap();
        assert_eq!(read(&mut consumer).unwrap().bytes, [1]);
        assert_eq!(read(&mut consumer), None);
        consumer.publish();
    }
}

/// Way 2, committed much shorter than it was claimed.
#[test]
fn ghost_2_a_claim_committed_short() {
    let (arena, mut producer, mut consumer) = ring(8);
    go_to(CALM, &mut producer, &mut consumer);
    let junk = three_frames(&arena, [18, 19]);
    let at = producer.claim(junk.len()).unwrap();
    // SAFETY: the claim is as long, and the commit is shorter.
    unsafe {
        std::ptr::copy_nonoverlapping(junk.as_ptr(), at, junk.len());
        producer.commit(3);
    }
    assert_eq!(read(&mut consumer).unwrap().bytes.len(), 3);
    assert_eq!(read(&mut consumer), None);
}

/// Way 2, and the writer was killed in the claim: its successor knows nothing of it.
#[test]
fn ghost_2_a_claim_that_its_writer_died_in() {
    let (arena, mut producer, mut consumer) = ring(8);
    go_to(CALM, &mut producer, &mut consumer);
    let junk = three_frames(&arena, [18, 19]);
    let at = producer.claim(junk.len()).unwrap();
    // SAFETY: the claim is as long.
    unsafe { std::ptr::copy_nonoverlapping(junk.as_ptr(), at, junk.len()) };
    // Its announcement takes frame 17, and the message 18; 19 is next.
    let mut producer = Producer::resume(arena.ring(), 2).unwrap();
    for _ in 0..12 {
        producer.try_write(&[1]).unwrap();
        assert_eq!(read(&mut consumer).unwrap().bytes, [1]);
        assert_eq!(read(&mut consumer), None);
        consumer.publish();
    }
}

/// Way 3: a batch was killed half-way. It commits front to back, so a successor finds a prefix of
/// it, and no correct commit word behind that.
#[test]
fn ghost_3_a_batch_killed_half_way() {
    struct Step<'a>(&'a dyn Fn());
    impl AsRef<[u8]> for Step<'_> {
        fn as_ref(&self) -> &[u8] {
            (self.0)();
            b"batch"
        }
    }
    let (arena, mut producer, mut consumer) = ring(16);
    go_to(2 * CALM, &mut producer, &mut consumer);
    let states = std::cell::RefCell::new(Vec::new());
    let keep = || states.borrow_mut().push(arena.snapshot());
    assert_eq!(producer.write_many(&[Step(&keep), Step(&keep), Step(&keep)]).unwrap(), 3);
    keep();
    for (committed, state) in states.take().iter().enumerate() {
        arena.restore(state);
        let mut producer = Producer::resume(arena.ring(), 1).unwrap();
        assert_eq!(producer.head(), 2 * CALM + committed as u64);
        producer.try_write(b"successor").unwrap();
        let mut consumer = twin(&consumer);
        for _ in 0..committed {
            assert_eq!(read(&mut consumer).unwrap().bytes, b"batch");
        }
        assert_eq!(read(&mut consumer).unwrap().bytes, b"successor");
        assert_eq!(read(&mut consumer), None);
    }
}

/// Way 4: a hostile writer. Its ghost is a message like any other: wrong, but inside the ring.
#[test]
fn ghost_4_a_hostile_writer() {
    let (arena, mut producer, mut consumer) = ring(8);
    producer.try_write(b"honest").unwrap();
    let ring = arena.ring();
    ring.frames.at(1).commit().store(ring.stamp(1) | 20, Ordering::Relaxed);
    assert_eq!(read(&mut consumer).unwrap().bytes, b"honest");
    assert_eq!(read(&mut consumer).unwrap().bytes, [0; 20]);
    assert_eq!(read(&mut consumer), None);
    arena.check_guards();
}

/// A position never repeats, so the word of a lap ago is no ghost, not even where the count wraps
/// and zero, which fresh memory holds, becomes a commit word.
#[test]
fn fresh_memory_is_no_ghost_where_the_count_wraps() {
    for ahead in 0..40 {
        let pos = u64::MAX - ahead;
        let arena = Arena::new(64, 8, Overflow::Refuse, Place { pos, ..start() });
        let mut producer = Producer::resume(arena.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(arena.ring()).unwrap();
        for _ in 0..100 {
            assert_eq!(read(&mut consumer), None);
            producer.try_write(&[1]).unwrap();
            assert_eq!(read(&mut consumer).unwrap().bytes, [1]);
            consumer.publish();
        }
    }
}
